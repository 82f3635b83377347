"""A QEMU command line as a topology: the machine that it would boot, without running it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.formats.firmware.facts import (
    Firmware,
    MapEntry,
    MapKind,
    MemoryAffinity,
    PersistentRange,
    Processor,
)
from tdxfs.formats.firmware.numa import read_firmware
from tdxfs.formats.firmware.unsaid import NOTHING_SAID, Unsaid, default_base
from tdxfs.formats.qemu.layout import Layout, layout_of, nvdimm_size, place_device
from tdxfs.formats.qemu.numa import read_numa
from tdxfs.formats.qemu.options import Option, named, parse_command
from tdxfs.formats.qemu.processors import Processors, processors_of
from tdxfs.model import KERNELS, KIB, MIB, Cache, Topology, kernel_at_least
from tdxfs.ranges import Ranges

CACHES = (
    Cache(1, "Data", 32 * KIB, 8, shared="thread"),
    Cache(1, "Instruction", 32 * KIB, 8, shared="thread"),
    Cache(2, "Unified", 4 * MIB, 16),
    Cache(3, "Unified", 16 * MIB, 16, shared="die"),
)
"""Those that QEMU gives to Intel's models."""


def import_qemu(
    command: Sequence[str],
    like: Topology | None = None,
    unsaid: Unsaid = NOTHING_SAID,
    *,
    kernel: str | None = None,
    cmdline: str | None = None,
) -> Topology:
    """
    The machine that a command line would boot: kernel and kernel command line are those of ``-kernel`` and
    ``-append`` unless given. CXL devices hold no memory until somebody makes a region of them: of CXL only the
    windows are seen. UserError names the option that is wrong.
    """
    options = parse_command(command)
    found = next(iter(named(options, "kernel")), None)
    append = next(iter(named(options, "append")), None)
    if cmdline is None:
        cmdline = append.get("").strip() if append else None
    base = default_base(like, kernel or (_release(found.get("")) if found else None), cmdline)
    if like is None:
        base = evolve(base, caches=CACHES, model_name=_cpu(options).get("model", "qemu64"))
    processors = processors_of(options)
    placed = evolve(unsaid, threads=processors.counts[-1], cores=processors.counts[-2], dies=_dies(processors))
    return read_firmware(firmware_of(options, processors), base, placed)


def _dies(processors: Processors) -> int:
    _, dies, modules, _, _ = processors.counts
    if modules != 1:
        raise UserError("-smp: modules: only one per die can be told")
    return dies


def _cpu(options: Sequence[Option]) -> Option:
    return next(iter(named(options, "cpu")), Option("cpu", ()))


def _release(path: str) -> str | None:
    # the newest kernel we know that is not newer than the one whose version the file's path has
    match = re.search(r"([0-9]+\.[0-9]+)(?:[.-]|$)", path)
    older = [kernel for kernel in KERNELS if match and kernel_at_least(match[1], kernel)]
    return older[-1] if older else None


def firmware_of(options: Sequence[Option], processors: Processors) -> Firmware:
    """What the firmware of that machine tells the kernel."""
    machine = Option("machine", tuple(item for option in named(options, "machine", "M") for item in option.items))
    layout = layout_of(options, machine)
    backends = {
        option.need("id"): option.size("size")
        for option in named(options, "object")
        if option.get("qom-type").startswith("memory-backend-")
    }
    firmware = Firmware(
        processors=tuple(
            Processor(processors.apic_id(index), index < processors.present) for index in range(processors.possible)
        ),
        memory_map=tuple(MapEntry(part, MapKind.RAM) for part in layout.placed(0, layout.ram)),
        initiators=tuple(
            option.number("node")
            for option in named(options, "object")
            if option.get("qom-type") == "acpi-generic-initiator"
        ),
        windows=tuple(layout.windows(_window_sizes(machine))),
        hypervisor=_cpu(options).on("hypervisor", True),
    )
    firmware = _devices(options, layout, backends, firmware)
    return read_numa(options, layout, processors, backends, machine.on("hmat"), firmware)


def _devices(options: Sequence[Option], layout: Layout, backends: dict[str, int], firmware: Firmware) -> Firmware:
    taken = Ranges()
    persistent: list[PersistentRange] = []
    modules: list[MemoryAffinity] = []
    for option in named(options, "device"):
        driver = option.get("driver")
        if driver not in ("pc-dimm", "nvdimm"):
            continue
        memdev = option.need("memdev")
        if memdev not in backends:
            raise UserError(f"{option}: memdev: there is no memory backend {memdev!r}")
        size = backends[memdev] if driver == "pc-dimm" else nvdimm_size(option, backends[memdev])
        where = place_device(option, size, layout, taken)
        taken = taken | Ranges((where,))
        node = option.number("node", 0)
        if driver == "nvdimm":
            persistent.append(PersistentRange(where, node))
        else:
            modules.append(MemoryAffinity(node, where))
    affinities = tuple(MemoryAffinity(found.domain or 0, found.range, nonvolatile=True) for found in persistent)
    return evolve(firmware, memory=firmware.memory + affinities, persistent=tuple(persistent), modules=tuple(modules))


def _window_sizes(machine: Option) -> list[int]:
    sizes = {}
    for key, _ in machine.items:
        match = re.fullmatch(r"cxl-fmw\.([0-9]+)\.size", key)
        if match:
            sizes[int(match[1])] = machine.size(key)
    return [sizes[number] for number in sorted(sizes)] if machine.on("cxl") else []
