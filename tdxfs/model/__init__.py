"""What every field means: the canonical reference of tdxfs.

Two values matter. A `Topology` is what a machine is made of: it is what a topology
file says, and it never changes. A `Machine` is that topology booted under its
`Policies`: everything that a reader of the mount sees is computed from one Machine.

Addresses and sizes are bytes, ranges are half-open ``[base, base + size)``, ids are the
kernel's. TDX capability is nowhere a field: it follows from ranges (`capability`).
Nothing here does I/O, prints or refuses; `validate` says whether a Topology makes sense.

Read `topology`, then `machine`, which is made of `states` and `guests`.
"""

from tdxfs.model.guests import Backs, Frames, Guest, Life, Memfd, MemPolicy, Memslot, Mode, Record, Stretch, Task
from tdxfs.model.kinds import (
    GIB,
    HUGEPAGE_SIZES,
    KERNELS,
    KIB,
    MIB,
    PAGE_SIZE,
    TIB,
    Driver,
    MemoryKind,
    Provider,
    Zone,
    kernel_at_least,
)
from tdxfs.model.machine import DERIVED, By, Machine, changed, derived, shared, with_device
from tdxfs.model.states import (
    UEVENTS_KEPT,
    Block,
    ConflictNumbers,
    DaxState,
    LogRecord,
    RegionState,
    Tdmr,
    Tdx,
    Uevent,
    Why,
)
from tdxfs.model.topology import (
    NO_CACHE,
    NO_CLUSTER,
    NO_DIE,
    SCOPES,
    Access,
    Bar,
    Build,
    Cache,
    Cpu,
    DaxDevice,
    DaxRegion,
    Memory,
    MemoryLayout,
    Node,
    NodeCounters,
    PciDevice,
    SideCache,
    TdxPlatform,
    Topology,
)

__all__ = [
    "DERIVED",
    "GIB",
    "HUGEPAGE_SIZES",
    "KERNELS",
    "KIB",
    "MIB",
    "NO_CACHE",
    "NO_CLUSTER",
    "NO_DIE",
    "PAGE_SIZE",
    "SCOPES",
    "TIB",
    "UEVENTS_KEPT",
    "Access",
    "Backs",
    "Bar",
    "Block",
    "Build",
    "By",
    "Cache",
    "ConflictNumbers",
    "Cpu",
    "DaxDevice",
    "DaxRegion",
    "DaxState",
    "Driver",
    "Frames",
    "Guest",
    "Life",
    "LogRecord",
    "Machine",
    "MemPolicy",
    "Memfd",
    "Memory",
    "MemoryKind",
    "MemoryLayout",
    "Memslot",
    "Mode",
    "Node",
    "NodeCounters",
    "PciDevice",
    "Provider",
    "Record",
    "RegionState",
    "SideCache",
    "Stretch",
    "Task",
    "Tdmr",
    "Tdx",
    "TdxPlatform",
    "Topology",
    "Uevent",
    "Why",
    "Zone",
    "changed",
    "derived",
    "kernel_at_least",
    "shared",
    "with_device",
]
