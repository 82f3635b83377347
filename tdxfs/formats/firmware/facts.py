"""What firmware tells a kernel about NUMA and memory, whoever said it: ACPI tables, or a command line that makes them.

Proximity domains are the firmware's numbers, not node ids. Addresses are bytes, ranges half-open. `numa` reads
this as Linux does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import Factory, frozen

from tdxfs.ranges import Range


@frozen
class Processor:
    """A processor of the APIC table, in the order of the table."""

    apic_id: int
    enabled: bool = True
    """False: not there yet, but it can be plugged in."""


@frozen
class MemoryAffinity:
    """One enabled memory range of SRAT."""

    domain: int
    range: Range
    hotplug: bool = False
    nonvolatile: bool = False


class Metric(Enum):
    """What a `Locality` measures, in the order in which Linux looks for the best initiators."""

    WRITE_LATENCY = "write_latency"
    READ_LATENCY = "read_latency"
    WRITE_BANDWIDTH = "write_bandwidth"
    READ_BANDWIDTH = "read_bandwidth"

    @property
    def is_latency(self) -> bool:
        return self in (Metric.WRITE_LATENCY, Metric.READ_LATENCY)


@frozen
class Locality:
    """An HMAT matrix for memory itself, not for its side caches."""

    metrics: tuple[Metric, ...]
    values: Mapping[tuple[int, int], int]
    """(initiator domain, target domain) -> nanoseconds or MiB/s; 0: not known."""


@frozen
class CacheInfo:
    """A memory-side cache of HMAT."""

    domain: int
    level: int
    size: int
    """Bytes."""
    line_size: int = 0
    """Bytes."""
    associativity: int = 0
    """0 none, 1 direct mapped, 2 complex."""
    policy: int = 0
    """0 none, 1 write-back, 2 write-through."""
    address_mode: int = 0


@frozen
class Hmat:
    """The heterogeneous memory attributes."""

    attached: Mapping[int, int | None] = Factory(dict)
    """Memory domain -> the initiator domain that it is attached to."""
    localities: tuple[Locality, ...] = ()
    caches: tuple[CacheInfo, ...] = ()


@frozen
class PersistentRange:
    """A persistent-memory range of NFIT."""

    range: Range
    domain: int | None = None
    """None: the table does not say."""


class MapKind(Enum):
    """What the firmware's memory map says of a range, as far as it matters here."""

    RAM = "usable"
    SOFT_RESERVED = "soft reserved"
    PERSISTENT = "persistent"
    RESERVED = "reserved"


@frozen
class MapEntry:
    """One range of the memory map."""

    range: Range
    kind: MapKind


@frozen
class Firmware:
    """All of it."""

    processors: tuple[Processor, ...] = ()
    processor_domains: Mapping[int, int] = Factory(dict)
    """APIC id -> proximity domain."""
    initiators: tuple[int, ...] = ()
    """Domains of the generic initiators."""
    memory: tuple[MemoryAffinity, ...] = ()
    """In the order of the table."""
    distances: tuple[tuple[int, ...], ...] = ()
    """SLIT: row and column are domains; empty: none."""
    hmat: Hmat | None = None
    persistent: tuple[PersistentRange, ...] = ()
    windows: tuple[Range, ...] = ()
    """The CXL fixed memory windows."""
    memory_map: tuple[MapEntry, ...] = ()
    """Later entries win; empty: none was given."""
    modules: tuple[MemoryAffinity, ...] = ()
    """Memory modules that AML describes: Linux adds them after boot."""
    hypervisor: bool = False
    """Whether CPUID says so; it decides the size of memory blocks."""
