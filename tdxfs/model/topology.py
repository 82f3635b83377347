"""What a machine is made of: what a topology file says."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, frozen

from tdxfs.model.kinds import (
    HUGEPAGE_SIZES,
    MIB,
    Driver,
    MemoryKind,
    Provider,
)
from tdxfs.policy import Policies
from tdxfs.ranges import Range

NO_CLUSTER = 65535
"""``cluster_id`` of a CPU whose cluster the kernel does not know."""
NO_DIE = -1
"""``die_id`` of a CPU whose die the kernel does not know: it is alone in it."""
NO_CACHE = -1
"""In `Cpu.cache_ids`: the CPU has no such cache."""


SCOPES = ("thread", "core", "cluster", "die", "package", "book", "drawer")
"""What CPUs can share, from the smallest."""


@frozen
class Cpu:
    """One present logical CPU."""

    id: int
    node: int = 0
    package: int = 0
    die: int | None = None
    """``topology/die_id``; None: its package has one die, `NO_DIE`: the kernel does not know."""
    cluster: int | None = None
    """``topology/cluster_id``: the CPUs that share an L2; None and `NO_CLUSTER`: those of the core."""
    core: int = 0
    """``topology/core_id``: unique within its package."""
    thread: int = 0
    """Which hardware thread of its core: 0 is the first."""
    online: bool = True
    cache_ids: tuple[int, ...] = ()
    """
    ``id`` of each of `Topology.caches`, shared by the CPUs that have the same; `NO_CACHE`: it has none of that kind.
    Empty: as `Cache.shared` says.
    """
    core_id: int | None = None
    """``topology/core_id`` where it is not `core`, since the kernel counts cores in something smaller."""
    package_id: int | None = None
    """``topology/physical_package_id`` where it is not `package`: -1 is that of a kernel that does not know."""
    siblings: Mapping[str, str] = Factory(dict)
    """
    ``core``, ``package`` and the like, or ``cache`` and a number of `Topology.caches` -> range list of the CPUs with
    which it says to share that, where these are not those of the same place: some kernels contradict themselves.
    """
    book: int | None = None
    """``topology/book_id`` (s390): the packages that share a book; None: there are no books."""
    drawer: int | None = None
    """``topology/drawer_id`` (s390): the books that share a drawer; None: there are no drawers."""
    max_frequency: int | None = None
    """``cpufreq/cpuinfo_max_freq``, kHz; None: there is no frequency scaling."""
    base_frequency: int | None = None
    """``cpufreq/base_frequency``, kHz; None: its driver does not know."""
    capacity: int = 1024
    """``cpu_capacity``: relative to the fastest CPU, which has 1024."""


@frozen
class Cache:
    """One kind of cache; every CPU has one of it, shared as `shared` says, unless `Cpu.cache_ids` says otherwise."""

    level: int
    type: str
    """``Data``, ``Instruction`` or ``Unified``."""
    size: int
    """Bytes, a multiple of 1 KiB; 0: unknown."""
    ways: int
    """``ways_of_associativity``; 0: fully associative, or unknown."""
    line: int = 64
    """``coherency_line_size``, bytes; 0: not known, and not shown."""
    partitions: int = 1
    """``physical_line_partition``."""
    shared: str = "core"
    """Which CPUs share one: ``thread`` (none), those of the same ``core``, ``cluster``, ``die`` or ``package``."""
    sets: int | None = None
    """``number_of_sets``; None: what size, ways, line and partitions make."""

    @property
    def number_of_sets(self) -> int:
        """How many sets there are; 1 in a fully associative cache."""
        if self.sets is not None:
            return self.sets
        return self.size // (self.ways * self.line * self.partitions) if self.ways and self.line else 1


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

    @property
    def measured(self) -> bool:
        """Whether the firmware gives any number."""
        numbers = self.read_bandwidth, self.write_bandwidth, self.read_latency, self.write_latency
        return any(number is not None for number in numbers)


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
    cpumap: str | None = None
    """Range list of the CPUs in ``cpumap`` where they are not the node's own: some kernels contradict themselves."""
    gpu: str = ""
    """PCI address of the NVIDIA GPU whose memory it is, as the GPU's driver says; empty: it is no GPU's."""
    hugepages: Mapping[int, int] = Factory(dict)
    """
    Size in kB -> huge pages in the node's pool at boot; those of the default size also as `NodeCounters.meminfo`
    says.
    """


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
    nd: int | None = None
    """Instance id of the nd device that it hangs below (NVDIMM), ``dax<region>.<nd>``; None: its own."""
    map_on_pmem: bool = False
    """Whether its page structures live in the namespace itself (NVDIMM), ``mode`` of the nd device."""

    @property
    def size(self) -> int:
        return sum(mapping.size for mapping in self.mappings)

    @property
    def nd_id(self) -> int:
        """Instance id of the nd device that it would hang below."""
        return self.id if self.nd is None else self.nd


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
    """
    Instance id that ``seed`` of a dynamic region names, its first idle created device; None: it reads empty. Of an
    NVDIMM region: that of the idle nd device, ``dax_seed``; None: the lowest that is free.
    """
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
class MemoryModule:
    """A slot for a memory module, as the SMBIOS tables describe it; a text that is empty is not given."""

    locator: str = ""
    """Where the slot is, as it is printed on the board."""
    bank: str = ""
    manufacturer: str = ""
    serial: str = ""
    asset_tag: str = ""
    part_number: str = ""
    size: int = 0
    """Bytes, whole MiB; 0: the slot is empty."""


@frozen
class Uname:
    """What uname(2) says on the machine; what is empty is not known."""

    sysname: str = ""
    nodename: str = ""
    release: str = ""
    version: str = ""
    machine: str = ""
    page_size: int = 0
    """What getpagesize(2) says, bytes; 0: not known. The memory of the emulated machine has pages of `PAGE_SIZE`."""


@frozen
class Cgroup:
    """The control group that whoever looks at the machine is in, as far as its cpuset goes."""

    name: str = "/"
    """Its path below the place where the hierarchy is mounted."""
    cpus: str = ""
    """``cpuset.cpus.effective``, a range list; empty: all that are online."""
    mems: str = ""
    """``cpuset.mems.effective``, a range list; empty: all nodes with memory."""


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
    online_nodes: str = ""
    """Range list of the nodes that are online without CPU, memory or generic initiator."""
    hugepage_sizes: tuple[int, ...] = HUGEPAGE_SIZES
    """kB, the default size first; empty: the kernel has none."""
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
    dmi: Mapping[str, str] = Factory(dict)
    """One of `DMI_IDS` -> its line; empty: the machine has no DMI tables."""
    memory_modules: tuple[MemoryModule, ...] = ()
    """In the order of the SMBIOS tables; what memory the kernel has is what `nodes` say."""
    uname: Uname | None = None
    """None: not known, and not shown."""
    cgroup: Cgroup | None = None
    """None: no hierarchy with cpusets is mounted."""
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
    def default_hugepage(self) -> int:
        """kB of a huge page of the default size."""
        return (*self.hugepage_sizes, *HUGEPAGE_SIZES)[0]

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
