"""``-smp``: how many processors, in which sockets, and by which APIC ids; compare QEMU's hw/core/machine-smp.c."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from attrs import frozen

from tdxfs.errors import UserError
from tdxfs.formats.qemu.options import Option, named

LEVELS = ("sockets", "dies", "modules", "cores", "threads")
"""From the outside in."""


@frozen
class Processors:
    """The processors of a machine."""

    present: int
    counts: tuple[int, ...]
    """How many of each level the one around it has."""

    @property
    def possible(self) -> int:
        return prod(self.counts)

    def place(self, index: int) -> tuple[int, ...]:
        """Number at each level of the processor that QEMU counts as `index`."""
        found = []
        for count in reversed(self.counts):
            index, number = divmod(index, count)
            found.append(number)
        return tuple(reversed(found))

    def apic_id(self, index: int) -> int:
        """Each level takes the fewest bits that hold it."""
        apic_id = 0
        for number, count in zip(self.place(index), self.counts, strict=True):
            apic_id = apic_id << (count - 1).bit_length() | number
        return apic_id

    def matching(self, option: Option) -> Iterator[int]:
        """The processors of ``-numa cpu,node-id=N,socket-id=N,...``."""
        wanted = {
            at: option.number(key)
            for at, level in enumerate(LEVELS)
            for key in (f"{level.removesuffix('s')}-id",)
            if option.get(key)
        }
        for index in range(self.possible):
            if all(self.place(index)[at] == number for at, number in wanted.items()):
                yield index


def processors_of(options: Sequence[Option]) -> Processors:
    """What ``-smp`` says; cores are preferred to sockets where it leaves both open. UserError if it makes no sense."""
    smp = next(iter(named(options, "smp")), Option("smp", (("cpus", "1"),)))
    present, most = smp.number("cpus", 0), smp.number("maxcpus", 0)
    counts = {level: smp.number(level, 0) for level in LEVELS}
    for level in ("dies", "modules"):
        counts[level] = counts[level] or 1
    known = most or present
    if not known:
        counts = {level: count or 1 for level, count in counts.items()}
    elif not counts["cores"]:
        counts |= {level: counts[level] or 1 for level in ("sockets", "threads")}
        counts["cores"] = known // _others(counts, "cores")
    elif not counts["sockets"]:
        counts["threads"] = counts["threads"] or 1
        counts["sockets"] = known // _others(counts, "sockets")
    elif not counts["threads"]:
        counts["threads"] = known // _others(counts, "threads")
    total = prod(counts.values())
    most = most or (known or total)
    present = present or most
    if total != most or not 0 < present <= most:
        raise UserError(f"{smp}: sockets * dies * modules * cores * threads is {total}, not maxcpus, {most}")
    return Processors(present, tuple(counts[level] for level in LEVELS))


def _others(counts: dict[str, int], but: str) -> int:
    return prod(count for level, count in counts.items() if level != but)
