"""Where a PC machine puts memory; compare QEMU's hw/i386/pc.c and hw/i386/pc_q35.c."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from tdxfs.errors import UserError
from tdxfs.formats.qemu.options import Option, named
from tdxfs.model import GIB, KIB, MIB
from tdxfs.ranges import Range, Ranges, align_down, align_up

HIGH = 4 * GIB
"""Where RAM goes on that does not fit below the PCI hole."""
HOLE_640K = Range(640 * KIB, MIB)
SMALL_BELOW, LARGE_BELOW = {"q35": 0xB0000000, "pc": 0xE0000000}, {"q35": 0x80000000, "pc": 0xC0000000}
"""The most RAM below 4 GiB: all of it if it fits, else a rounder number."""
DEFAULT_RAM = 128 * MIB
DEVICE_ALIGN = 2 * MIB
"""Alignment of a memory backend that says nothing else."""
HOST_REGISTERS, WINDOW_ALIGN = MIB, 256 * MIB
"""Of CXL: what the host bridges take before the first window, and how that is aligned."""


@frozen
class Layout:
    """The physical address space."""

    ram: int
    """Bytes of ``-m``."""
    below: int
    """How much of it lies below 4 GiB."""
    devices: Range | None
    """Where memory devices go; None: there is no room for any."""

    def placed(self, start: int, size: int) -> Iterator[Range]:
        """Where the bytes ``[start, start + size)`` of RAM lie."""
        low = min(start + size, self.below)
        if start < low:
            yield Range(start, low)
        high = max(start, self.below)
        if high < start + size:
            yield Range(high - self.below + HIGH, start + size - self.below + HIGH)

    def windows(self, sizes: Sequence[int]) -> Iterator[Range]:
        """Where CXL fixed memory windows of these sizes lie."""
        start = self.devices.end if self.devices else HIGH + self.ram - self.below
        start = align_up(start + HOST_REGISTERS, WINDOW_ALIGN)
        for size in sizes:
            yield Range(start, start + size)
            start += size


def layout_of(options: Sequence[Option], machine: Option) -> Layout:
    """The layout that ``-m`` and the machine make; UserError if it is no PC, or sizes make no sense."""
    memory = next(iter(named(options, "m")), Option("m", ()))
    ram = memory.size("size", DEFAULT_RAM, "M")
    most, slots = memory.size("maxmem", ram), memory.number("slots", 0)
    if most < ram or not ram:
        raise UserError(f"{memory}: maxmem must not be less than the memory")
    kind = machine_kind(machine)
    below = SMALL_BELOW[kind] if ram < SMALL_BELOW[kind] else LARGE_BELOW[kind]
    below = min(below, machine.size("max-ram-below-4g", below), ram)
    devices = None
    if most > ram:
        start = align_up(HIGH + ram - below, GIB)
        # a gibibyte per slot, so that each can be aligned to one
        devices = Range(start, start + most - ram + slots * GIB)
    return Layout(ram, below, devices)


def machine_kind(machine: Option) -> str:
    """``q35`` or ``pc``; UserError for other machines."""
    name = machine.get("type", "pc")
    if "q35" in name:
        return "q35"
    if name == "pc" or "i440fx" in name:
        return "pc"
    raise UserError(f"{machine}: type: must be a PC, q35 or pc")


def place_device(option: Option, size: int, layout: Layout, taken: Ranges) -> Range:
    """
    Where a memory device of `size` bytes lies: at its ``addr``, or in the first place that is free. UserError if
    there is none.
    """
    if layout.devices is None:
        raise UserError(f"{option}: needs -m with slots and maxmem")
    start = option.size("addr")
    if not start:
        free = Ranges((layout.devices,)) - taken
        starts = (
            align_up(part.start, DEVICE_ALIGN) for part in free if align_up(part.start, DEVICE_ALIGN) + size <= part.end
        )
        start = next(starts, 0)
    where = Range(start, start + size)
    if not layout.devices.covers(where) or any(taken.within(where)):
        raise UserError(f"{option}: no room for {size} bytes in {layout.devices}")
    return where


def nvdimm_size(option: Option, backend: int) -> int:
    """What is left of an NVDIMM's backend beside its labels; UserError if nothing is."""
    size = align_down(backend - option.size("label-size"), DEVICE_ALIGN)
    if size <= 0:
        raise UserError(f"{option}: the memory backend is too small")
    return size
