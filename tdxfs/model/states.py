"""What the parts of a booted machine are at a moment."""

from __future__ import annotations

from enum import Enum

from attrs import frozen
from immutables import Map

from tdxfs.model.kinds import (
    Driver,
    Zone,
)
from tdxfs.ranges import Range, Ranges


class Why(Enum):
    """Whether a page can back a TDX guest, and if not, why not."""

    CAPABLE = "capable"
    NOT_CONVERTIBLE = "not-convertible"
    """Outside every CMR: no kernel can change that."""
    NOT_COVERED = "not-covered"
    """Convertible, but no TDMR covers it."""
    RESERVED = "reserved"
    """A reserved area of a TDMR: a PAMT, or memory left out when the TDMRs were built."""


@frozen
class Block:
    """State of a run of memory blocks: all that two neighbours may share."""

    nodes: tuple[int, ...]
    """Nodes whose memory lies in it; several when a node boundary falls inside."""
    online: bool
    zone: Zone | None = None
    """The one zone it is in while it is online; None: several (``valid_zones`` reads none), or offline."""
    dax: bool = False
    """Memory that kmem brought: it can be removed."""


@frozen
class DaxState:
    """A dax device as it is now."""

    region: int
    id: int
    mappings: tuple[Range, ...]
    driver: Driver | None
    align: int
    """Bytes."""
    memmap_on_memory: bool
    minor: int
    """Minor number of ``/dev/daxX.Y``."""
    plugged: str = ""
    """What ``state`` of a device bound to kmem says: unplugged, or how all of it was brought online."""
    nd: int = 0
    """Instance id of the nd device that it hangs below (NVDIMM)."""
    map_on_pmem: bool = False
    """Whether its page structures live in the namespace itself (NVDIMM)."""

    @property
    def name(self) -> str:
        return f"dax{self.region}.{self.id}"

    @property
    def size(self) -> int:
        return sum(mapping.size for mapping in self.mappings)


@frozen
class RegionState:
    """What a dynamic dax region remembers of the devices that were created in it."""

    seed: int | None = None
    """Instance id of the first idle one, ``seed``."""
    youngest: int | None = None
    """Instance id of the last one, ``create``."""


@frozen
class Tdmr:
    """A TD memory region, as the kernel gave it to the TDX module."""

    range: Range
    """Aligned to 1 GiB at both ends."""
    pamt: Range
    """Where its PAMT lies: contiguous, from the local node where possible."""
    reserved: tuple[Range, ...] = ()
    """Sorted absolute ranges inside `range` that no TD page may come from."""


@frozen
class Tdx:
    """What TDX became at boot."""

    enabled: bool = False
    disabled_reason: str = ""
    """One sentence; empty when enabled."""
    culprits: Ranges = Ranges()
    """The System RAM because of which it was disabled; empty unless that is why."""
    tdmrs: tuple[Tdmr, ...] = ()
    exhausted: str = ""
    """``tdmrs`` or ``reserved`` if that limit ended the initialisation, else empty."""
    owned: Ranges = Ranges()
    """RAM that no allocator gives away because of TDX or the BIOS: PAMTs and the first MiB."""


@frozen
class LogRecord:
    """One line of the emulated kernel log."""

    level: int
    """The kernel's: 3 err, 4 warn, 5 notice, 6 info."""
    usec: int
    """Microseconds since boot."""
    text: str


LOG_KEPT = 8192
"""How many lines of its log a kernel keeps: what CONFIG_LOG_BUF_SHIFT=18 has room for, at 32 bytes a line."""


@frozen
class Uevent:
    """What the kernel tells udev about a device; its ``SEQNUM`` is one more than its number in `Machine.uevents`."""

    action: str
    """add, remove, change, move, online, offline, bind or unbind."""
    path: str
    """``DEVPATH``: below ``/sys``, with the slash."""
    subsystem: str
    lines: tuple[str, ...] = ()
    """``KEY=VALUE``, as the device's own ``uevent`` file says them."""


UEVENTS_KEPT = 4096
"""How many uevents a machine remembers."""


@frozen
class ConflictNumbers:
    """The numbers of the conflicts that somebody has seen."""

    numbers: Map[tuple[str, str], int] = Map()
    """(kind, subject) -> the number that it keeps while it lasts."""
    next: int = 0
    """What the next new one gets: a number is never used again."""
