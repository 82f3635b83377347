"""What every field means: the canonical reference of tdxfs.

Two values matter. A `Topology` is what a machine is made of: it is what a topology
file says, and it never changes. A `Machine` is that topology booted under its
`Policies`: everything that a reader of the mount sees is computed from one Machine.

Addresses and sizes are bytes, ranges are half-open ``[base, base + size)``, ids are the
kernel's. TDX capability is nowhere a field: it follows from ranges (`capability`).
Nothing here does I/O, prints or refuses; `validate` says whether a Topology makes sense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import cached_property
from typing import Any, TypeVar

from attrs import Factory, define, evolve, frozen
from immutables import Map

from tdxfs.faults import Fault
from tdxfs.policy import Policies
from tdxfs.ranges import Range, Ranges, RunMap

PAGE_SIZE = 4096
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
HUGEPAGE_SIZES = (2048, 1048576)
"""Huge page sizes of x86-64, kB."""

KERNELS = ("6.1", "6.12", "7.3")
"""The kernels that a topology may name, oldest first."""


def kernel_at_least(kernel: str, since: str) -> bool:
    """Whether `kernel` ("6.12") is `since` or newer."""
    return _release(kernel) >= _release(since)


def _release(kernel: str) -> tuple[int, ...]:
    return tuple(int(part) for part in kernel.split("."))


class MemoryKind(Enum):
    """
    What memory is made of. Capability never depends on it; `firmware =
    "disable-incapable"` does (it takes only CXL memory off the map).
    """

    DRAM = "dram"
    HBM = "hbm"
    CXL = "cxl"
    NVDIMM = "nvdimm"


class Provider(Enum):
    """Which driver made a dax region; it decides the region's place in sysfs."""

    HMEM = "hmem"
    """Soft-reserved memory (EFI_MEMORY_SP), drivers/dax/hmem."""
    CXL = "cxl"
    """A CXL RAM region, drivers/dax/cxl.c."""
    NVDIMM = "nvdimm"
    """A persistent-memory namespace in devdax mode, drivers/dax/pmem.c."""


class Driver(Enum):
    """The two drivers of the dax bus, spelled as in ``/sys/bus/dax/drivers``."""

    DEVICE_DAX = "device_dax"
    KMEM = "kmem"


class Zone(Enum):
    """A memory zone, spelled as in ``valid_zones``."""

    DMA = "DMA"
    DMA32 = "DMA32"
    NORMAL = "Normal"
    MOVABLE = "Movable"


# --- Topology: what the machine is made of -------------------------------------------

NO_CLUSTER = 65535
"""``cluster_id`` of a CPU whose cluster the kernel does not know."""


@frozen
class Cpu:
    """One present logical CPU."""

    id: int
    node: int = 0
    package: int = 0
    die: int | None = None
    """``topology/die_id``; None: its package has one die."""
    cluster: int | None = None
    """``topology/cluster_id``: the CPUs that share an L2; None and `NO_CLUSTER`: those of the core."""
    core: int = 0
    """``topology/core_id``: unique within its package."""
    thread: int = 0
    """Which hardware thread of its core: 0 is the first."""
    online: bool = True
    cache_ids: tuple[int, ...] = ()
    """``id`` of each of `Topology.caches`, shared by the CPUs that have the same; empty: as `Cache.shared` says."""


@frozen
class Cache:
    """One cache level; every CPU has one of it, shared as `shared` says."""

    level: int
    type: str
    """``Data``, ``Instruction`` or ``Unified``."""
    size: int
    """Bytes, a multiple of 1 KiB."""
    ways: int
    line: int = 64
    """``coherency_line_size``, bytes."""
    partitions: int = 1
    """``physical_line_partition``."""
    shared: str = "core"
    """Which CPUs share one: ``thread`` (none), those of the same ``core``, ``cluster``, ``die`` or ``package``."""

    @property
    def sets(self) -> int:
        return self.size // (self.ways * self.line * self.partitions)


@frozen
class Access:
    """HMAT performance of a memory node from its best initiators (``accessN``)."""

    initiators: tuple[int, ...]
    """Node ids."""
    read_bandwidth: int | None = None
    """MiB/s, as ``write_bandwidth``; None: the firmware gives none, and the file reads 0."""
    write_bandwidth: int | None = None
    read_latency: int | None = None
    """Nanoseconds, as ``write_latency``."""
    write_latency: int | None = None


@frozen
class SideCache:
    """A memory-side cache that HMAT reports (``memory_side_cache/index<level>``)."""

    level: int
    size: int
    """Bytes."""
    line_size: int
    """Bytes."""
    indexing: int = 0
    """0 direct-mapped, otherwise indexed."""
    write_policy: int = 0
    """0 write-back, 1 write-through, 2 other."""
    address_mode: int = 0
    """0 reserved, 1 extended linear (Linux 6.15 and later show it)."""


@frozen
class Memory:
    """One stretch of System RAM of a node, as the firmware's memory map gives it."""

    range: Range
    hotplug: bool = False
    """Hot-added after the TDX module was set up: never part of the RAM at boot."""
    movable: bool = False
    """Goes online in ZONE_MOVABLE."""


@frozen
class Node:
    """A NUMA node that the firmware describes. It may lack CPUs, memory, or both."""

    id: int
    memory: tuple[Memory, ...] = ()
    """Sorted by address. Not soft-reserved, persistent or BAR memory: see DaxRegion, PciDevice."""
    kind: MemoryKind = MemoryKind.DRAM
    access0: Access | None = None
    """Best initiator of any class; None: no HMAT entry for this node."""
    access1: Access | None = None
    """Best CPU initiator."""
    side_caches: tuple[SideCache, ...] = ()
    memory_tier: int = 4
    """The ``memory_tierN`` it belongs to while it has memory online; 4 is DRAM's."""


@frozen
class DaxDevice:
    """A device-DAX instance ``dax<region>.<id>`` as it is at boot."""

    id: int
    mappings: tuple[Range, ...] = ()
    """In the order of their page offsets; empty: a device of size 0."""
    driver: Driver | None = Driver.DEVICE_DAX
    align: int | None = None
    """Bytes; None: the region's."""
    memmap_on_memory: bool = False
    minor: int | None = None
    """Minor number of its ``/dev`` node; None: the next one after the device before."""

    @property
    def size(self) -> int:
        return sum(mapping.size for mapping in self.mappings)


@frozen
class DaxRegion:
    """A dax region: memory that is not System RAM unless kmem takes it."""

    id: int
    provider: Provider
    range: Range
    target_node: int | None = None
    """The node this memory would belong to if onlined; None: negative, and hidden in sysfs."""
    numa_node: int | None = None
    """Nearest online node, ``numa_node``; None: -1."""
    align: int = 2 * MIB
    """Bytes: 4 KiB, 2 MiB or 1 GiB."""
    devices: tuple[DaxDevice, ...] = ()
    kind: MemoryKind = MemoryKind.DRAM
    memory_tier: int = 22
    """Tier of the target node while this region's memory is all it has online."""
    seed: int | None = None
    """Instance id that ``seed`` of a dynamic region names, its first idle created device; None: it reads empty."""
    youngest: int | None = None
    """Instance id that ``create`` of a dynamic region names, the last device created; None: it reads empty."""
    uuid: str = ""
    """``uuid`` of the namespace's nd device (NVDIMM); empty: one made from the names."""

    @property
    def static(self) -> bool:
        """Static regions (NVDIMM) have no ``create``, ``delete``, ``seed``; size and align are fixed."""
        return self.provider is Provider.NVDIMM

    @property
    def on_cxl(self) -> bool:
        """Whether it is persistent memory of a CXL device, not of a DIMM."""
        return self.provider is Provider.NVDIMM and self.kind is MemoryKind.CXL


@frozen
class Bar:
    """A memory BAR of a PCI device: ``resource<index>``."""

    index: int
    range: Range
    prefetchable: bool = True


@frozen
class PciDevice:
    """A PCI function with memory BARs."""

    address: str
    """``DDDD:BB:DD.F``."""
    vendor: int
    device: int
    pci_class: int
    """24 bits, as ``class`` shows it."""
    numa_node: int = 0
    bars: tuple[Bar, ...] = ()


@frozen
class TdxPlatform:
    """What the firmware and the TDX module say about TDX. Absent on machines without it."""

    cmrs: tuple[Range, ...] = ()
    """The convertible memory ranges, sorted and disjoint."""
    module_version: tuple[int, int, int] = (1, 5, 5)
    """Major, minor, update."""
    first_keyid: int = 64
    """First private KeyID."""
    keyids: int = 64
    """Number of private KeyIDs; one of them is TDX's global KeyID, the others are guests'."""
    max_tdmrs: int = 64
    max_reserved_per_tdmr: int = 16
    max_cmrs: int = 32
    pamt_entry_size: int = 16
    """Bytes per PAMT entry, the same for 4 KiB, 2 MiB and 1 GiB pages."""
    runtime_update: bool = True
    """Whether the module can be updated at run time: ``seamldr_version`` is there."""
    seamldr_version: tuple[int, int, int] = (1, 5, 1)
    remaining_updates: int = 8


@frozen
class NodeCounters:
    """
    Counters recorded from a real node. Each mapping holds ``name -> value`` of every line of the file, in its
    order; empty: derived.
    """

    meminfo: Mapping[str, int] = Factory(dict)
    """kB, pages for the HugePages lines."""
    vmstat: Mapping[str, int] = Factory(dict)
    numastat: Mapping[str, int] = Factory(dict)


@frozen
class MemoryLayout:
    """How System RAM is divided into memory blocks."""

    block_size: int = 128 * MIB
    """Bytes; a power of two, at least 128 MiB on x86-64."""
    offline: str = ""
    """Ids of the blocks that are offline at boot, as a range list (``"12-15,20"``)."""
    movable: str = ""
    """Ids of the blocks that are in ZONE_MOVABLE, as a range list."""
    auto_online: str = "online"
    """``auto_online_blocks``: offline, online, online_kernel or online_movable."""
    online: str = ""
    """Ids of the hot-added blocks that are online although `auto_online` leaves them offline, as a range list."""


@frozen
class Topology:
    """A machine as a topology file describes it."""

    name: str = "unnamed"
    description: str = ""
    kernel: str = "7.3"
    """The Linux that is emulated: one of `KERNELS`."""
    cmdline: str = ""
    """``/proc/cmdline``, without the newline."""
    cpus: tuple[Cpu, ...] = ()
    """Sorted by id."""
    possible_cpus: int = 0
    """Number of possible CPUs, ``0 .. n-1``; 0: as many as present."""
    nr_cpus: int = 8192
    """CONFIG_NR_CPUS: ``kernel_max`` + 1."""
    model_name: str = "Intel(R) Xeon(R) Platinum 8592+"
    modalias: str = ""
    """CPU modalias as ``cpu/modalias`` shows it, without the newline; empty: a generic one."""
    microcode: int = 0x21000283
    """Revision of the CPUs' microcode; 0: hidden, as in a virtual machine (CPUs with the hypervisor flag)."""
    vulnerabilities: Mapping[str, str] = Factory(dict)
    """File in ``cpu/vulnerabilities`` -> its line; those of a current processor where it has none."""
    caches: tuple[Cache, ...] = ()
    nodes: tuple[Node, ...] = ()
    """Sorted by id; the nodes the firmware describes."""
    distances: tuple[tuple[int, ...], ...] = ()
    """Row per entry of `nodes`, column likewise; empty: 10 local, 20 remote, as Linux without SLIT."""
    possible_nodes: str = ""
    """Range list of further possible nodes; `nodes` and target nodes are always possible."""
    generic_initiators: str = ""
    """Range list of the nodes with a generic initiator."""
    memory: MemoryLayout = MemoryLayout()
    dax_regions: tuple[DaxRegion, ...] = ()
    """Sorted by id."""
    kmem_driver: bool = True
    """Whether kmem is loaded: ``bus/dax/drivers/kmem`` is there. Without it no device is bound to it."""
    pci_devices: tuple[PciDevice, ...] = ()
    tdx: TdxPlatform | None = None
    policies: Policies = Policies()
    counters: Mapping[int, NodeCounters] = Factory(dict)
    """Node id -> what was recorded; a node that is absent has derived counters."""
    records: Mapping[str, str] = Factory(dict)
    """File below ``proc/`` -> its recorded text, shown as it is: cpuinfo, iomem, meminfo, version, zoneinfo."""
    absent: tuple[str, ...] = ()
    """What the kernel's configuration leaves out though its version has it, by ABI path (``tdxfs abi``)."""
    present: tuple[str, ...] = ()
    """What the kernel has though the version that is emulated has not, by ABI path."""

    @property
    def banner(self) -> str:
        """``/proc/version`` and the first line of the kernel log."""
        recorded = self.records.get("version", "").strip()
        return recorded or f"Linux version {self.kernel}.0-tdxfs (tdxfs) #1 SMP PREEMPT_DYNAMIC"


@frozen(cache_hash=True)
class Build:
    """What of the emulated kernel decides which entries it has."""

    kernel: str
    absent: tuple[str, ...] = ()
    """`Topology.absent`."""
    present: tuple[str, ...] = ()
    """`Topology.present`."""


# --- Machine: the topology, booted ---------------------------------------------------


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


class Mode(Enum):
    """A memory policy's mode, spelled as in ``numa_maps``; compare include/uapi/linux/mempolicy.h."""

    DEFAULT = "default"
    PREFERRED = "prefer"
    BIND = "bind"
    INTERLEAVE = "interleave"
    LOCAL = "local"
    PREFERRED_MANY = "prefer (many)"
    WEIGHTED_INTERLEAVE = "weighted interleave"


@frozen
class MemPolicy:
    """A NUMA policy of a task or of a mapping, as the kernel keeps it."""

    mode: Mode = Mode.DEFAULT
    nodes: frozenset[int] = frozenset()
    """The nodes in force: what was asked for, cut to the nodes with memory that are allowed."""
    asked: frozenset[int] = frozenset()
    """The nodes as they were asked for; static and relative ones are computed from them again."""
    static: bool = False
    relative: bool = False
    balancing: bool = False
    home: int | None = None
    """``set_mempolicy_home_node``."""


@frozen
class Task:
    """A process or thread of the emulated machine whose policy calls it answers."""

    pid: int
    """As the mount's own pid namespace numbers it; a thread's is its tid."""
    name: str = ""
    leader: int = 0
    """The process that a thread belongs to; 0: it is a process."""
    policy: MemPolicy = MemPolicy()
    mappings: RunMap[MemPolicy] = RunMap()
    """Address -> policy of the mappings that have their own (mbind)."""
    moved: RunMap[int] = RunMap()
    """Address -> node of the pages that were moved (move_pages, migrate_pages)."""
    mems_allowed: frozenset[int] | None = None
    """None: every node with memory."""
    cpus: frozenset[int] | None = None
    """CPUs that it may run on (sched_setaffinity); None: every CPU online."""
    resident: Mapping[int, int] = Factory(dict)
    """Node -> anonymous pages, when somebody last looked."""
    interleaved: Mapping[int, int] = Factory(dict)
    """Node -> those of them that an interleaving policy put there."""


class Backs(Enum):
    """What stands behind guest memory."""

    DAX = "dax"
    """A dax device's own pages."""
    BAR = "bar"
    """A PCI BAR."""
    ANON = "anon"
    """Anonymous memory: pages are allocated at the first touch, under the mapping's or the task's policy."""
    SHMEM = "shmem"
    """Shared memory (tmpfs, memfd, shared anonymous): likewise."""
    PAGECACHE = "pagecache"
    """Any other file: its pages are allocated under the task's policy."""
    GUEST_MEMFD = "guest_memfd"
    """``KVM_CREATE_GUEST_MEMFD``: unmovable pages, allocated at the first touch."""

    @property
    def of_a_device(self) -> bool:
        """Whether its pages are known before anybody touches them."""
        return self in (Backs.DAX, Backs.BAR)


@frozen
class Stretch:
    """A part of a memory slot that one thing backs; all numbers are bytes."""

    range: Range
    """Offsets from the slot's first byte."""
    kind: Backs
    object: str = ""
    """``dax0.0``, or a BAR as ``0000:17:00.0/resource2``; empty for what the allocator backs."""
    offset: int = 0
    """Where in the object it begins."""
    spelled: str = ""
    """The path by which the program mapped it, if it did."""


@frozen
class Frames:
    """Pages of a slot and where in host memory they are; all numbers are bytes."""

    offset: int
    size: int
    hpa: int


@frozen
class Memslot:
    """A memory slot of a guest (``struct kvm_userspace_memory_region2``); all numbers are bytes."""

    id: int
    gpa: int
    """First guest physical address."""
    size: int
    address: int = 0
    """``userspace_addr``."""
    flags: int = 0
    backing: tuple[Stretch, ...] = ()
    """Sorted by offset; what no stretch names is not mapped."""
    touched: Ranges = Ranges()
    """Offsets of the pages that the TD has."""
    pages: Ranges = Ranges()
    """Host physical memory that is behind it, devices' pages included."""
    resident: tuple[Frames, ...] = ()
    """Pages that were allocated before the slot was set."""
    pledged: bool = False
    """Admitted under validate=pledge: changes that could kill the guest are declined."""

    @property
    def guest_range(self) -> Range:
        return Range(self.gpa, self.gpa + self.size)


@frozen
class Record:
    """What was impossible, and what to do next time: a guest's death or a refusal."""

    kind: str
    """A `Why`, or ``owned``, ``policy``, ``out-of-memory``, ``mapping``, ``undermined``."""
    reason: str
    """One sentence."""
    remedy: str
    """A command, or ``none:`` and why there is none."""
    slot: int | None = None
    gpa: int | None = None
    hpa: int | None = None
    node: int | None = None
    dax: str = ""
    policy: str = ""
    """The NUMA policy in force, as ``numa_maps`` prints it; empty where none matters."""
    seamcall: str = ""
    code: int = 0
    """What the SEAMCALL returned."""
    errno: str = ""
    """Name of the errno that the caller saw."""


class Life(Enum):
    """Where a guest is in its life."""

    RUNNING = "running"
    DEAD = "dead"
    """A SEAMCALL failed (``vm_dead``): every ioctl is EIO."""
    ENDED = "ended"
    """Its last descriptor was closed while it was running."""


@frozen
class Guest:
    """A TD, as KVM knows it."""

    name: str
    """``PID-N``: the N-th guest of that process."""
    pid: int
    command: str = ""
    """The command line of the process that made it."""
    life: Life = Life.RUNNING
    open: bool = True
    """Whether a descriptor of it is open: it holds memory and a KeyID."""
    slots: Map[int, Memslot] = Map()
    layout: RunMap[int] = RunMap()
    """Guest physical address -> id of the slot that holds it."""
    private: Ranges = Ranges()
    """Guest physical addresses with the PRIVATE attribute."""
    finalized: bool = False
    """``KVM_TDX_FINALIZE_VM``: no more initial memory."""
    death: Record | None = None
    refusals: tuple[Record, ...] = ()
    """The last ones."""
    refused: int = 0
    """How many there were."""

    @property
    def pages(self) -> Ranges:
        """Host physical memory that it holds, devices' pages included."""
        return Ranges.of(part for slot in self.slots.values() for part in slot.pages)

    @property
    def size(self) -> int:
        """Bytes of all its slots."""
        return sum(slot.size for slot in self.slots.values())


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


@frozen
class Uevent:
    """What the kernel tells udev about a device."""

    number: int
    """``SEQNUM``."""
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


T = TypeVar("T")
_SEEN = "seen_conflict_numbers"
DERIVED: dict[str, tuple[str, ...]] = {}
"""Derived value of a Machine -> the fields it is made from."""


def derived(*fields: str) -> Callable[[Callable[[Any], T]], cached_property[T]]:
    """A value made when somebody asks, from these `fields` and no others: a machine that shares them inherits it."""

    def declare(make: Callable[[Any], T]) -> cached_property[T]:
        DERIVED[make.__name__] = fields
        return cached_property(make)

    return declare


@define(frozen=True, slots=False, eq=False)
class Machine:
    """
    A booted machine: one immutable value. `boot.boot` makes the first one; every
    change is a function from Machine to Machine (`attrs.evolve`).
    """

    topology: Topology
    """As the kernel sees it: without what the firmware took off the map."""
    built: Topology
    """As it was built: what a reboot starts from."""
    policies: Policies
    ram: RunMap[int]
    """Address -> node of all System RAM the kernel knows, online or not; kmem memory included."""
    blocks: RunMap[Block]
    """Memory block id -> its state."""
    dax: Map[tuple[int, int], DaxState]
    """(region id, instance id) -> device."""
    cpus_online: frozenset[int]
    tdx: Tdx
    tdx_memory: RunMap[Why]
    """Address -> verdict, for all memory of the machine, dax and BARs too; fixed at boot."""
    auto_online: str = "online"
    """``auto_online_blocks``."""
    dax_regions: Map[int, RegionState] = Map()
    """Region id -> its state, for dynamic regions in which devices were created."""
    dax_ids: Map[Driver, frozenset[tuple[int, int]]] = Map()
    """Driver -> the devices that it takes because ``new_id`` named them."""
    hugepages: Map[tuple[int, int], int] = Map()
    """(node id, page size in kB) -> huge pages in the node's pool."""
    pci_nodes: Map[str, int] = Map()
    """Address of a PCI function -> node that was written to its ``numa_node``."""
    weights: Mapping[int, int] | None = None
    """Node id -> weight of the weighted interleave policy, for those that were written; None: none was."""
    smt: str = "on"
    """``smt/control``: on, off or forceoff."""
    knobs: Map[str, Any] = Map()
    """Path of a file that keeps what is written -> what it says since."""
    no_autoprobe: frozenset[str] = frozenset()
    """The buses whose ``drivers_autoprobe`` is 0."""
    records: Mapping[str, str] = Factory(dict)
    """The recorded files of `Topology.records` that are still true."""
    recorded_memory: Mapping[int, tuple[int, int]] = Factory(dict)
    """Node id -> kB that it had online and kB that were free, by the model, when its counters were recorded."""
    hidden: RunMap[int] = RunMap()
    """Address -> node of memory that the firmware took off the map."""
    log: tuple[LogRecord, ...] = ()
    generation: int = 0
    """How many changes made it since it booted."""
    conflict_numbers: ConflictNumbers = ConflictNumbers()
    """As they were when the conflicts were last looked at."""
    uevents: tuple[Uevent, ...] = ()
    """The newest `UEVENTS_KEPT`."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong although the emulated kernel would not have it so."""
    tasks: Map[int, Task] = Map()
    """Pid -> task, for those that run on the machine (``tdxfs run``)."""
    allocated: Map[tuple[int, str], int] = Map()
    """Node and name of a numastat counter -> pages that tasks added to it."""
    default_mems: frozenset[int] | None = None
    """Nodes that tasks may allocate from unless told otherwise; None: all that have memory."""
    guests: Map[str, Guest] = Map()
    """Name -> guest; those that ended stay until there are more than `guest_limit` of them."""
    guest_limit: int = 64
    """How many guests that ended are remembered."""
    guests_ended: tuple[str, ...] = ()
    """Names of the guests that ended and are remembered, the oldest first."""

    def after(self, previous: Machine) -> Machine:
        """This machine as the one that follows `previous`, with what is derived from fields that they share."""
        successor = evolve(
            self,
            generation=previous.generation + 1,
            conflict_numbers=previous.seen_numbers or previous.conflict_numbers,
        )
        for name, sources in DERIVED.items():
            for source in (self, previous):
                if name in vars(source) and all(getattr(source, f) is getattr(self, f) for f in sources):
                    vars(successor)[name] = vars(source)[name]
                    break
        if "node_blocks" in vars(previous) and "node_blocks" not in vars(successor):
            vars(successor)["node_blocks"] = self._node_blocks_after(previous)
        return successor

    def _node_blocks_after(self, previous: Machine) -> dict[int, RunMap[Block]]:
        # of a thousand nodes a change touches one or two
        found = dict(previous.node_blocks)
        for start, end, was, now in previous.blocks.differing(self.blocks):
            for nid in was.nodes if was else ():
                found[nid] = found[nid].remove(start, end)
            if now is not None:
                for nid in now.nodes:
                    found[nid] = found.get(nid, RunMap[Block]()).assign(start, end, now)
        return {nid: mine for nid, mine in found.items() if mine.size}

    @property
    def seen_numbers(self) -> ConflictNumbers | None:
        """The numbers of this machine's own conflicts; None: nobody has looked yet."""
        return vars(self).get(_SEEN)

    def see_numbers(self, numbers: ConflictNumbers) -> None:
        """Somebody has looked at the conflicts: from now on they have these numbers."""
        vars(self)[_SEEN] = numbers

    @derived("topology")
    def build(self) -> Build:
        """What of the emulated kernel decides which entries it has."""
        return Build(self.topology.kernel, self.topology.absent, self.topology.present)

    @derived("topology")
    def nodes(self) -> dict[int, Node]:
        """Node id -> what the firmware says of it."""
        return {node.id: node for node in self.topology.nodes}

    @derived("topology")
    def regions(self) -> dict[int, DaxRegion]:
        return {region.id: region for region in self.topology.dax_regions}

    @derived("blocks")
    def node_blocks(self) -> dict[int, RunMap[Block]]:
        """Node id -> the memory blocks that lie in it, wholly or in part."""
        runs: dict[int, list[tuple[int, int, Block]]] = {}
        for start, end, block in self.blocks.runs():
            for nid in block.nodes:
                runs.setdefault(nid, []).append((start, end, block))
        return {nid: RunMap.of(mine) for nid, mine in runs.items()}

    @derived("ram")
    def node_ram(self) -> dict[int, Ranges]:
        """Node id -> its System RAM, online or not."""
        parts: dict[int, list[Range]] = {}
        for start, end, nid in self.ram.runs():
            parts.setdefault(nid, []).append(Range(start, end))
        return {nid: Ranges.of(mine) for nid, mine in parts.items()}

    @derived("topology")
    def node_cpus(self) -> dict[int, tuple[int, ...]]:
        """Node id -> its present CPUs."""
        found: dict[int, list[int]] = {}
        for cpu in self.topology.cpus:
            found.setdefault(cpu.node, []).append(cpu.id)
        return {nid: tuple(ids) for nid, ids in found.items()}

    @derived("topology")
    def provider_regions(self) -> dict[Provider, dict[int, DaxRegion]]:
        """Provider -> its regions by id."""
        found: dict[Provider, dict[int, DaxRegion]] = {provider: {} for provider in Provider}
        for region in self.topology.dax_regions:
            found[region.provider][region.id] = region
        return found

    @derived("topology")
    def nd_buses(self) -> dict[bool, dict[int, DaxRegion]]:
        """NVDIMM buses by number: whether it is that of the CXL devices -> its regions by id."""
        found: dict[bool, dict[int, DaxRegion]] = {}
        for region in sorted(self.provider_regions[Provider.NVDIMM].values(), key=lambda region: region.on_cxl):
            found.setdefault(region.on_cxl, {})[region.id] = region
        return found

    @derived("topology")
    def pci(self) -> dict[str, PciDevice]:
        """PCI functions by address."""
        return {device.address: device for device in self.topology.pci_devices}

    @derived("topology")
    def pci_hosts(self) -> dict[str, tuple[str, ...]]:
        """``DDDD:BB`` of each host bridge -> the addresses of its functions."""
        found: dict[str, list[str]] = {}
        for address in self.pci:
            found.setdefault(address[:7], []).append(address)
        return {host: tuple(addresses) for host, addresses in found.items()}

    @derived("topology")
    def target_tiers(self) -> dict[int, int]:
        """Target node -> tier of the dax memory that it would get."""
        return {r.target_node: r.memory_tier for r in self.topology.dax_regions if r.target_node is not None}

    @derived("dax")
    def region_devices(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """Region id -> keys of its dax devices."""
        found: dict[int, list[tuple[int, int]]] = {}
        for key in sorted(self.dax):
            found.setdefault(key[0], []).append(key)
        return {region: tuple(keys) for region, keys in found.items()}

    @derived("dax")
    def bound_dax(self) -> dict[Driver | None, frozenset[tuple[int, int]]]:
        """Driver -> keys of the dax devices bound to it; None -> of those that are bound to none."""
        found: dict[Driver | None, set[tuple[int, int]]] = {None: set(), **{driver: set() for driver in Driver}}
        for key, device in self.dax.items():
            found[device.driver].add(key)
        return {driver: frozenset(keys) for driver, keys in found.items()}

    @derived("topology")
    def node_order(self) -> dict[int, int]:
        """Node id -> its row in ``Topology.distances``."""
        return {node.id: row for row, node in enumerate(self.topology.nodes)}

    @derived("ram", "topology")
    def node_of(self) -> RunMap[int]:
        """Address -> node of all memory, dax regions by their target node."""
        runs = list(self.ram.runs())
        for region in self.topology.dax_regions:
            if region.target_node is not None:
                for part in (Ranges((region.range,)) - self._ram_ranges).parts:
                    runs.append((part.start, part.end, region.target_node))
        return RunMap.of(runs)

    @derived("dax")
    def dax_at(self) -> RunMap[tuple[int, int]]:
        """Address -> key of the dax device that maps it."""
        return RunMap.of(
            (mapping.start, mapping.end, key) for key, device in self.dax.items() for mapping in device.mappings
        )

    @derived("tdx")
    def tdmr_at(self) -> RunMap[int]:
        """Address -> index of the TDMR around it."""
        return RunMap.of((tdmr.range.start, tdmr.range.end, at) for at, tdmr in enumerate(self.tdx.tdmrs))

    @derived("guests")
    def guest_pages(self) -> RunMap[str]:
        """Host physical address -> name of the guest that holds it."""
        return RunMap.of((part.start, part.end, guest.name) for guest in self.guests.values() for part in guest.pages)

    @derived("ram")
    def _ram_ranges(self) -> Ranges:
        return Ranges.of(Range(start, end) for start, end, _ in self.ram.runs())

    @derived("topology")
    def cpus(self) -> dict[int, Cpu]:
        """Present CPUs by id."""
        return {cpu.id: cpu for cpu in self.topology.cpus}


def changed(machine: Machine, **fields: Any) -> Machine:
    """A machine with other `fields`; what is derived from those that stay is not derived again."""
    other = evolve(machine, **fields)
    for name, value in vars(machine).items():
        if name in DERIVED and not fields.keys() & DERIVED[name]:
            vars(other)[name] = value
    return other


def with_device(machine: Machine, device: DaxState) -> Machine:
    """A machine with a dax device as it is now; of a known device, only what speaks of this one is derived again."""
    key = (device.region, device.id)
    other = changed(machine, dax=machine.dax.set(key, device))
    before = machine.dax.get(key)
    if before is not None:
        if "region_devices" in vars(machine):
            vars(other)["region_devices"] = machine.region_devices
        if "bound_dax" in vars(machine):
            bound = dict(machine.bound_dax)
            bound[before.driver] -= {key}
            bound[device.driver] |= {key}
            vars(other)["bound_dax"] = bound
    return other


class By:
    """A machine as the key of a cache whose values depend on a part of it: equal for machines that share that part."""

    __slots__ = ("machine", "part")

    def __init__(self, machine: Machine, part: object) -> None:
        self.machine = machine
        self.part = part

    def __hash__(self) -> int:
        return id(self.part)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, By) and self.part is other.part
