"""The machine: a topology, booted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from typing import Any, TypeVar, cast

from attrs import Factory, define, evolve
from immutables import Map

from tdxfs.faults import Fault
from tdxfs.model.guests import Guest, Task
from tdxfs.model.kinds import (
    Driver,
    Provider,
)
from tdxfs.model.states import (
    LOG_KEPT,
    UEVENTS_KEPT,
    Block,
    ConflictNumbers,
    DaxState,
    LogRecord,
    RegionState,
    Tdx,
    Uevent,
    Why,
)
from tdxfs.model.topology import (
    Build,
    Cpu,
    DaxRegion,
    Node,
    PciDevice,
    Topology,
)
from tdxfs.policy import Policies
from tdxfs.ranges import Range, Ranges, RunMap
from tdxfs.ring import Ring

T = TypeVar("T")
_SEEN = "seen_conflict_numbers"
DERIVED: dict[str, tuple[str, ...]] = {}
"""Derived value of a Machine -> the fields it is made from."""
_MADE_FROM: dict[str, list[str]] = {}
"""Field -> what is kept beside it that was made from it."""


def derived(*fields: str) -> Callable[[Callable[[Any], T]], cached_property[T]]:
    """A value made when somebody asks, from these `fields` and no others: a machine that shares them inherits it."""

    def declare(make: Callable[[Any], T]) -> cached_property[T]:
        DERIVED[make.__name__] = fields
        for field in fields:
            _MADE_FROM.setdefault(field, []).append(make.__name__)
        return cached_property(make)

    return declare


def shared(*fields: str) -> Callable[[Callable[[Machine], T]], Callable[[Machine], T]]:
    """Decorator of a function of a machine's `fields` and no others: what is `changed` in others shares its value."""

    def declare(make: Callable[[Machine], T]) -> Callable[[Machine], T]:
        key = f"{make.__module__}.{make.__name__}"
        for field in fields:
            _MADE_FROM.setdefault(field, []).append(key)

        @wraps(make)
        def value(machine: Machine) -> T:
            kept = vars(machine)
            if key not in kept:
                kept[key] = make(machine)
            return cast(T, kept[key])

        return value

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
    weights: Mapping[int, int] = Factory(dict)
    """Node id -> weight of the weighted interleave policy; 1 where none is named."""
    weights_auto: bool = True
    """Whether they follow the bandwidths of nodes that come (``weighted_interleave/auto``)."""
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
    log: Ring[LogRecord] = Ring(LOG_KEPT)
    """The newest lines."""
    generation: int = 0
    """How many changes made it since it booted."""
    conflict_numbers: ConflictNumbers = ConflictNumbers()
    """As they were when the conflicts were last looked at."""
    uevents: Ring[Uevent] = Ring(UEVENTS_KEPT)
    """The newest ones."""
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
    # as attrs.evolve(), which puts forty arguments together and takes them apart again
    other = object.__new__(Machine)
    values = vars(other)
    values |= vars(machine)
    values |= fields
    values.pop(_SEEN, None)
    for field in fields:
        for name in _MADE_FROM.get(field, ()):
            values.pop(name, None)
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
