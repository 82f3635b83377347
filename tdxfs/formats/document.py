"""A topology file as it is written: groups that expand into the model.

The classes mirror the tables of the file; cattrs fills them and refuses unknown keys. Regular
machines are short to write: an id may be a range list, with a `stride` between the ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NewType

from attrs import Factory, evolve, fields, frozen

from tdxfs.idlist import parse_list
from tdxfs.model import (
    HUGEPAGE_SIZES,
    Access,
    Bar,
    Cache,
    Cgroup,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryKind,
    MemoryLayout,
    MemoryModule,
    Node,
    NodeCounters,
    PciDevice,
    Provider,
    SideCache,
    TdxPlatform,
    Topology,
    Uname,
)
from tdxfs.policy import Policies
from tdxfs.ranges import Range

Ids = NewType("Ids", str)
"""A range list, or a single number."""


@frozen
class CpuGroup:
    """CPUs enumerated as Linux does: thread 0 of all cores, then thread 1."""

    ids: Ids
    node: int = 0
    package: int = 0
    die: int | None = None
    cluster: int | None = None
    core: int = 0
    """Id of the first core."""
    thread: int = 0
    """Number of the first thread."""
    threads: int = 1
    """Threads per core."""
    online: bool = True
    cache_ids: tuple[int, ...] = ()
    core_id: int | None = None
    package_id: int | None = None
    siblings: Mapping[str, str] = Factory(dict)
    book: int | None = None
    drawer: int | None = None
    max_frequency: int | None = None
    base_frequency: int | None = None
    capacity: int = 1024

    def expand(self) -> Iterator[Cpu]:
        ids = sorted(parse_list(self.ids))
        if self.threads < 1 or len(ids) % self.threads:
            raise ValueError(f"threads: {self.threads}: must divide the number of CPUs, {len(ids)}")
        cores = len(ids) // self.threads
        same = {name: getattr(self, name) for name in SAME_OF_CPU}
        for at, number in enumerate(ids):
            yield Cpu(number, core=self.core + at % cores, thread=self.thread + at // cores, **same)


SAME_OF_CPU = tuple(field.name for field in fields(CpuGroup) if field.name not in ("ids", "core", "thread", "threads"))
"""The keys that all CPUs of a group share."""


@frozen
class MemoryItem:
    """A stretch of memory; in the n-th node of a group it lies n strides further up."""

    base: int
    size: int
    stride: int = 0
    hotplug: bool = False
    movable: bool = False

    def at(self, number: int) -> Memory:
        return Memory(_range(self.base + number * self.stride, self.size), self.hotplug, self.movable)


@frozen
class NodeGroup:
    """One node, or one per id of a range list."""

    id: Ids
    memory: tuple[MemoryItem, ...] = ()
    kind: MemoryKind = MemoryKind.DRAM
    access0: Access | None = None
    access1: Access | None = None
    side_caches: tuple[SideCache, ...] = ()
    memory_tier: int = 4
    cpumap: str | None = None
    gpu: str = ""
    hugepages: Mapping[int, int] = Factory(dict)

    def expand(self) -> Iterator[Node]:
        for number, nid in enumerate(sorted(parse_list(self.id))):
            memory = sorted((item.at(number) for item in self.memory), key=lambda memory: memory.range.start)
            same = {name: getattr(self, name) for name in SAME_OF_NODE}
            yield Node(nid, tuple(memory), **same)


SAME_OF_NODE = tuple(field.name for field in fields(NodeGroup) if field.name not in ("id", "memory"))
"""The keys that all nodes of a group share."""


@frozen
class DeviceItem:
    """A dax device; without mappings it has the whole region."""

    id: int = 0
    mappings: tuple[Range, ...] | None = None
    driver: str = Driver.DEVICE_DAX.value
    """device_dax, kmem, or empty: unbound."""
    align: int | None = None
    memmap_on_memory: bool = False
    minor: int | None = None
    nd: int | None = None
    map_on_pmem: bool = False


@frozen
class RegionGroup:
    """One dax region, or one per id of a range list."""

    id: Ids
    provider: Provider
    base: int
    size: int
    stride: int = 0
    target_node: Ids | None = None
    """A range list is dealt out in turn."""
    numa_node: int | None = None
    align: int = 2 << 20
    kind: MemoryKind = MemoryKind.DRAM
    memory_tier: int = 22
    seed: int | None = None
    youngest: int | None = None
    uuid: str = ""
    devices: tuple[DeviceItem, ...] = (DeviceItem(),)

    def expand(self) -> Iterator[DaxRegion]:
        targets: list[int | None] = [None]
        if self.target_node is not None:
            targets = [*sorted(parse_list(self.target_node))]
        for number, region in enumerate(sorted(parse_list(self.id))):
            whole = _range(self.base + number * self.stride, self.size)
            yield DaxRegion(
                id=region,
                provider=self.provider,
                range=whole,
                target_node=targets[number % len(targets)],
                numa_node=self.numa_node,
                align=self.align,
                devices=tuple(_device(item, whole) for item in self.devices),
                kind=self.kind,
                memory_tier=self.memory_tier,
                seed=self.seed,
                youngest=self.youngest,
                uuid=self.uuid,
            )


DRIVERS: dict[str, Driver | None] = {"": None, **{driver.value: driver for driver in Driver}}


def _device(item: DeviceItem, whole: Range) -> DaxDevice:
    mappings = (whole,) if item.mappings is None else item.mappings
    if item.driver not in DRIVERS:
        raise ValueError(f"driver: {item.driver!r}: must be one of {', '.join(map(repr, DRIVERS))}")
    driver = DRIVERS[item.driver]
    return DaxDevice(
        item.id, mappings, driver, item.align, item.memmap_on_memory, item.minor, item.nd, item.map_on_pmem
    )


@frozen
class BarItem:
    """A memory BAR."""

    index: int
    base: int
    size: int
    prefetchable: bool = True


@frozen
class PciItem:
    """A PCI function."""

    address: str
    vendor: int
    device: int
    pci_class: int
    numa_node: int = 0
    bars: tuple[BarItem, ...] = ()

    def expand(self) -> PciDevice:
        bars = tuple(Bar(bar.index, _range(bar.base, bar.size), bar.prefetchable) for bar in self.bars)
        return PciDevice(self.address, self.vendor, self.device, self.pci_class, self.numa_node, bars)


def _range(base: int, size: int) -> Range:
    if base < 0:
        raise ValueError(f"base: {base}: must not be negative")
    if size <= 0:
        raise ValueError(f"size: {size}: must be positive")
    return Range(base, base + size)


@frozen
class Document:
    """The whole file."""

    name: str = "unnamed"
    description: str = ""
    kernel: str = "7.3"
    cmdline: str = ""
    possible_cpus: int = 0
    nr_cpus: int = 8192
    model_name: str = Topology().model_name
    modalias: str = ""
    microcode: int = Topology().microcode
    vulnerabilities: Mapping[str, str] = Factory(dict)
    possible_nodes: Ids = Ids("")
    online_nodes: Ids = Ids("")
    generic_initiators: Ids = Ids("")
    hugepage_sizes: tuple[int, ...] = HUGEPAGE_SIZES
    kmem_driver: bool = True
    distances: tuple[tuple[int, ...], ...] = ()
    memory: MemoryLayout = MemoryLayout()
    dmi: Mapping[str, str] = Factory(dict)
    memory_modules: tuple[MemoryModule, ...] = ()
    uname: Uname | None = None
    cgroup: Cgroup | None = None
    tdx: TdxPlatform | None = None
    policy: Policies = Policies()
    cpus: tuple[CpuGroup, ...] = ()
    caches: tuple[Cache, ...] = ()
    nodes: tuple[NodeGroup, ...] = ()
    dax_regions: tuple[RegionGroup, ...] = ()
    pci_devices: tuple[PciItem, ...] = ()
    counters: Mapping[str, NodeCounters] = Factory(dict)
    records: Mapping[str, str] = Factory(dict)
    absent: tuple[str, ...] = ()
    present: tuple[str, ...] = ()

    def topology(self) -> Topology:
        """The model of what is written; ValueError names the key, the value and the rule."""
        same = {name: getattr(self, name) for name in SAME}
        return Topology(
            **same,
            policies=self.policy,
            cpus=tuple(sorted(_all(self.cpus, "cpus"), key=_id)),
            nodes=tuple(sorted(_all(self.nodes, "nodes"), key=_id)),
            dax_regions=tuple(sorted(_all(self.dax_regions, "dax_regions"), key=_id)),
            pci_devices=tuple(device.expand() for device in self.pci_devices),
            counters={_number(nid): counters for nid, counters in self.counters.items()},
        )


SAME = tuple(
    name
    for name in (field.name for field in fields(Document))
    if name not in ("policy", "cpus", "nodes", "dax_regions", "pci_devices", "counters")
)
"""The keys that file and model spell alike."""


def _number(nid: str) -> int:
    if not nid.isdecimal():
        raise ValueError(f"counters: {nid}: must be the id of a node")
    return int(nid)


def _id(thing: Any) -> int:
    number: int = thing.id
    return number


def _all(groups: tuple[Any, ...], key: str) -> Iterator[Any]:
    for at, group in enumerate(groups):
        try:
            yield from group.expand()
        except ValueError as error:
            raise ValueError(f"{key}[{at}].{error}") from error


def document(topology: Topology) -> Document:
    """How a topology is written: one group per object."""
    same = {name: getattr(topology, name) for name in SAME}
    return Document(
        **same,
        policy=topology.policies,
        cpus=tuple(
            CpuGroup(
                Ids(str(cpu.id)), core=cpu.core, thread=cpu.thread, **{name: getattr(cpu, name) for name in SAME_OF_CPU}
            )
            for cpu in topology.cpus
        ),
        nodes=tuple(
            NodeGroup(
                Ids(str(node.id)),
                tuple(MemoryItem(m.range.start, m.range.size, 0, m.hotplug, m.movable) for m in node.memory),
                **{name: getattr(node, name) for name in SAME_OF_NODE},
            )
            for node in topology.nodes
        ),
        dax_regions=tuple(_region(region) for region in topology.dax_regions),
        pci_devices=tuple(
            PciItem(
                p.address, p.vendor, p.device, p.pci_class, p.numa_node,
                tuple(BarItem(bar.index, bar.range.start, bar.range.size, bar.prefetchable) for bar in p.bars),
            )
            for p in topology.pci_devices
        ),
        counters={str(nid): counters for nid, counters in topology.counters.items()},
    )  # fmt: skip


def _region(region: DaxRegion) -> RegionGroup:
    devices = tuple(
        DeviceItem(
            d.id,
            d.mappings,
            d.driver.value if d.driver else "",
            d.align,
            d.memmap_on_memory,
            d.minor,
            d.nd,
            d.map_on_pmem,
        )
        for d in region.devices
    )
    group = RegionGroup(
        Ids(str(region.id)), region.provider, region.range.start, region.range.size,
        numa_node=region.numa_node, align=region.align, kind=region.kind, memory_tier=region.memory_tier,
        seed=region.seed, youngest=region.youngest, uuid=region.uuid, devices=devices,
    )  # fmt: skip
    return group if region.target_node is None else evolve(group, target_node=Ids(str(region.target_node)))
