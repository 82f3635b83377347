"""How Linux builds TDMRs and PAMTs out of TDX memory; compare arch/x86/virt/vmx/tdx/tdx.c.

A TDMR is aligned to 1 GiB. One is made per stretch of TDX memory that the TDMRs so far do not
cover. What lies inside a TDMR and is not TDX memory becomes a reserved area of it, and so does
every PAMT that falls inside. Addresses are bytes, ranges half-open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen

from tdxfs.model import GIB, MIB, PAGE_SIZE, Tdmr, TdxPlatform
from tdxfs.ranges import Range, Ranges, align_down, align_up

PAMT_PAGE_SIZES = (PAGE_SIZE, 2 * MIB, GIB)
TDMR_NR_WARN = 4


@frozen
class TdxMemblock:
    """One stretch of memory that TDX guests may use (``struct tdx_memblock``)."""

    range: Range
    nid: int


class Exhausted(Exception):
    """
    A limit of the TDX module ended the initialisation. `limit` is ``tdmrs`` or
    ``reserved``; the text is what Linux prints.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


class NoRoom(Exception):
    """No node has room for a PAMT: -ENOMEM."""


def fill_out_tdmrs(memlist: Sequence[TdxMemblock], limit: int) -> list[Range]:
    """The TDMRs' ranges for a sorted `memlist`; Exhausted when there are more than `limit`."""
    tdmrs: list[Range] = []
    for block in memlist:
        start, end = align_down(block.range.start, GIB), align_up(block.range.end, GIB)
        if tdmrs:
            if end <= tdmrs[-1].end:
                continue
            start = max(start, tdmrs[-1].end)
        if len(tdmrs) == limit:
            raise Exhausted("tdmrs", "initialization failed: TDMRs exhausted.")
        tdmrs.append(Range(start, end))
    return tdmrs


def pamt_bytes(tdmr: Range, entry_size: int) -> int:
    """Size of a TDMR's PAMT: one entry per 4 KiB, 2 MiB and 1 GiB page, each part page aligned."""
    return sum(align_up(tdmr.size // page * entry_size, PAGE_SIZE) for page in PAMT_PAGE_SIZES)


def reserved_areas(tdmr: Range, memory: Ranges, pamts: Ranges, limit: int) -> tuple[Range, ...]:
    """
    What no TD page of `tdmr` may come from: holes between the TDX `memory`, and
    PAMTs. Touching holes and PAMTs stay separate areas, as Linux adds them.
    """
    holes = (Ranges((tdmr,)) - memory).parts
    inside = tuple(pamts.within(tdmr))
    if len(holes) + len(inside) > limit:
        raise Exhausted(
            "reserved",
            f"initialization failed: TDMR [0x{tdmr.start:x}, 0x{tdmr.end:x}): reserved areas exhausted.",
        )
    return tuple(sorted(holes + inside))


def construct_tdmrs(
    memlist: Sequence[TdxMemblock],
    platform: TdxPlatform,
    allocate: Callable[[int, int | None], Range | None],
    warn: Callable[[str], None],
) -> tuple[Tdmr, ...]:
    """
    The TDMRs of a sorted `memlist`. `allocate(bytes, nid)` gives a PAMT's place,
    from that node if it can, or None; `warn` takes what Linux prints as a warning.
    Exhausted or NoRoom when Linux would give up.
    """
    ranges = fill_out_tdmrs(memlist, platform.max_tdmrs)
    if platform.max_tdmrs - len(ranges) < TDMR_NR_WARN:
        warn(f"consumed TDMRs reaching limit: {len(ranges)} used out of {platform.max_tdmrs}")
    tdmrs = []
    at = 0
    for tdmr in ranges:
        # the local node is that of the first memory which ends after the base (tdmr_get_nid)
        while at < len(memlist) - 1 and memlist[at].range.end <= tdmr.start:
            at += 1
        place = allocate(pamt_bytes(tdmr, platform.pamt_entry_size), memlist[at].nid)
        if place is None:
            raise NoRoom
        tdmrs.append(Tdmr(tdmr, place))
    memory = Ranges.of(block.range for block in memlist)
    pamts = Ranges(tuple(sorted((tdmr.pamt for tdmr in tdmrs), key=lambda pamt: pamt.start)))
    limit = platform.max_reserved_per_tdmr
    return tuple(evolve(tdmr, reserved=reserved_areas(tdmr.range, memory, pamts, limit)) for tdmr in tdmrs)
