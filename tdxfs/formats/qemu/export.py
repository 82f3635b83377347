"""A topology as a QEMU command line that boots such a machine.

What a command line can say: CPUs in a regular topology, nodes with RAM where QEMU puts it, distances, HMAT, memory
modules, NVDIMMs, soft-reserved memory (a kernel parameter makes it), CXL windows, the kernel and its parameters. It
cannot say what the CPUs, the TDX module, the policies and the labels on the NVDIMMs are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from textwrap import shorten
from typing import Any

from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.formats.firmware.facts import Metric
from tdxfs.formats.firmware.pfn_device import MapMode, devdax_range
from tdxfs.formats.firmware.unsaid import Unsaid
from tdxfs.formats.qemu import import_qemu
from tdxfs.formats.qemu.layout import HIGH, LARGE_BELOW, SMALL_BELOW, layout_of
from tdxfs.formats.qemu.numa import ASSOCIATIVITIES, METRICS, POLICIES
from tdxfs.formats.qemu.options import Option, named, parse_command
from tdxfs.formats.qemu.processors import LEVELS
from tdxfs.idlist import format_list, parse_list
from tdxfs.model import GIB, MIB, Access, Cpu, DaxRegion, Driver, Node, Provider, SideCache, Topology
from tdxfs.nodes import REMOTE_DISTANCE
from tdxfs.ranges import Range, Ranges, align_down, align_up

MOST_NODES = 128
"""MAX_NODES."""
MOST_SHOWN = 200
"""Characters of a value in an error."""
WINDOW = 256 * MIB
"""Size of the windows that stand for possible nodes."""
AUTO_ONLINE = "memhp_default_state"


def export_qemu(topology: Topology) -> list[str]:
    """
    The command, program first. It is imported again to see that it says what it must: UserError names what a
    command line cannot say of this topology.
    """
    for problem in _beyond(topology):
        raise UserError(f"{topology.name}: {problem}")
    command = list(_command(topology))
    back = import_qemu(command, unsaid=unsaid_of(topology))
    for one, other in zip(told(topology), told(back), strict=True):
        if one != other:
            wanted, made = (shorten(str(value), MOST_SHOWN) for _, value in (one, other))
            raise UserError(f"{topology.name}: {one[0]}: QEMU would make {made} of {wanted}")
    return command


def _beyond(topology: Topology) -> Iterator[str]:
    if len(topology.nodes) > MOST_NODES:
        yield f"nodes: {len(topology.nodes)}: QEMU has at most {MOST_NODES}"
    for region in topology.dax_regions:
        if region.provider is Provider.CXL or region.on_cxl:
            yield f"dax_regions[{region.id}]: a region of a CXL device is made after boot"
    for device in topology.pci_devices:
        yield f"pci_devices[{device.address}]: QEMU places BARs by itself"


def unsaid_of(topology: Topology) -> Unsaid:
    """What the importer must be told beside the command line: what is on the NVDIMMs, and the size of memory blocks."""
    devices = [device for region in _nvdimms(topology) for device in region.devices]
    driver = Driver.KMEM if any(device.driver is Driver.KMEM for device in devices) else Driver.DEVICE_DAX
    where = MapMode.DEV if any(device.map_on_pmem for device in devices) else MapMode.MEM
    return Unsaid(block_size=topology.memory.block_size, devdax=bool(devices), map=where, driver=driver)


def told(topology: Topology) -> Iterator[tuple[str, object]]:
    """Of a topology everything that a command line says: a name and a value each, always the same names."""
    yield "kernel", topology.kernel
    yield "microcode is shown", topology.microcode != 0
    yield "cpus", tuple((cpu.node, *place) for cpu, place in zip(topology.cpus, _places(topology.cpus), strict=True))
    yield "possible_cpus", topology.possible_cpus or len(topology.cpus)
    yield "cpus that are offline", [cpu.id for cpu in topology.cpus if not cpu.online]
    yield "nodes", sorted(_inhabited(topology))
    yield "distances", _inhabited_distances(topology)
    yield "generic_initiators", topology.generic_initiators
    yield "possible_nodes", sorted({node.id for node in topology.nodes} | _targets(topology) | _more(topology))
    yield "memory.auto_online", topology.memory.auto_online
    yield "memory.offline", topology.memory.offline
    yield "memory", {node.id: _rounded(node) for node in topology.nodes if node.memory}
    yield "kind", {node.id: node.kind.value for node in topology.nodes if node.memory}
    yield "access0", {node.id: _plain(node.access0) for node in topology.nodes if node.access0 and node.memory}
    yield "access1", {node.id: _plain(node.access1) for node in topology.nodes if node.access1 and node.memory}
    yield "side_caches", {node.id: node.side_caches for node in topology.nodes if node.side_caches}
    yield "memory_tier", {node.id: node.memory_tier for node in topology.nodes if node.memory}
    yield "dax_regions", [_region(region) for region in topology.dax_regions]


def _inhabited(topology: Topology) -> set[int]:
    return {cpu.node for cpu in topology.cpus} | {node.id for node in topology.nodes if node.memory}


def _inhabited_distances(topology: Topology) -> list[list[int]]:
    rows = [at for at, node in enumerate(topology.nodes) if node.id in _inhabited(topology)]
    return [[topology.distances[a][b] for b in rows] for a in rows] if topology.distances else []


def _targets(topology: Topology) -> set[int]:
    return {region.target_node for region in topology.dax_regions if region.target_node is not None}


def _more(topology: Topology) -> set[int]:
    return set(parse_list(topology.possible_nodes))


def _described(topology: Topology) -> tuple[Node, ...]:
    # a target node that the topology does not list is a node of the command line nevertheless
    known = {node.id for node in topology.nodes}
    return (*topology.nodes, *(Node(nid) for nid in sorted(_targets(topology) - known)))


def _places(cpus: Sequence[Cpu]) -> list[tuple[int, int, int, int]]:
    # package, die within the package, core, thread
    dies: dict[int, list[int]] = {}
    for cpu in cpus:
        members = dies.setdefault(cpu.package, [])
        if (cpu.die or 0) not in members:
            members.append(cpu.die or 0)
    return [(cpu.package, dies[cpu.package].index(cpu.die or 0), cpu.core, cpu.thread) for cpu in cpus]


def _rounded(node: Node) -> list[object]:
    # firmware keeps some pages at the edges of RAM for itself
    ram = Ranges.of(
        Range(align_down(memory.range.start, MIB), align_up(memory.range.end, MIB))
        for memory in node.memory
        if not memory.hotplug
    )
    return [*ram, *((memory.range, memory.movable) for memory in node.memory if memory.hotplug)]


def _plain(access: Access | None) -> Access | None:
    if access is None:
        return None
    numbers: dict[str, Any] = {metric.value: getattr(access, metric.value) or 0 for metric in Metric}
    return evolve(access, **numbers)


def _region(region: DaxRegion) -> tuple[object, ...]:
    devices = [(device.id, device.mappings, device.driver, device.align or region.align) for device in region.devices]
    where = _backend(region) if region.static else region.range
    return (region.provider.value, where, region.target_node, region.numa_node, region.align, devices)


# --- the command ---------------------------------------------------------------------------


def _command(topology: Topology) -> Iterator[str]:
    sizes = _sizes(topology)
    machine, memory = _machine_and_memory(topology, sizes)
    yield "qemu-system-x86_64"
    yield from ("-machine", machine)
    yield from ("-cpu", f"Skylake-Server,hypervisor={'off' if topology.microcode else 'on'}")
    yield from ("-smp", _smp(topology))
    yield from ("-m", memory)
    yield from _nodes(topology, sizes)
    yield from _distances(topology)
    yield from _hmat(topology)
    yield from _modules(topology)
    for number in parse_list(topology.generic_initiators):
        yield from ("-device", f"pci-testdev,id=initiator{number}")
        yield from ("-object", f"acpi-generic-initiator,id=gi{number},pci-dev=initiator{number},node={number}")
    if topology.possible_nodes:
        yield from ("-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.0")
    yield from ("-kernel", f"vmlinuz-{topology.kernel}")
    yield from ("-append", _append(topology))


def _nvdimms(topology: Topology) -> list[DaxRegion]:
    return [region for region in topology.dax_regions if region.provider is Provider.NVDIMM]


def _soft(topology: Topology) -> list[DaxRegion]:
    return [region for region in topology.dax_regions if region.provider is Provider.HMEM]


def _sizes(topology: Topology) -> dict[int, int]:
    # node -> bytes of RAM, what is soft-reserved included
    found = {}
    for node in topology.nodes:
        parts = [part for part in _rounded(node) if isinstance(part, Range)]
        parts += [region.range for region in _soft(topology) if region.target_node == node.id]
        found[node.id] = Ranges.of(parts).size
    return found


def _machine_and_memory(topology: Topology, sizes: dict[int, int]) -> tuple[str, str]:
    total = sum(sizes.values())
    flags = ["q35"]
    if topology.nodes and any(node.access0 for node in topology.nodes):
        flags.append("hmat=on")
    ram = Ranges.of(part for node in topology.nodes for part in _ram(topology, node))
    low = max((part.end for part in ram.within(Range(0, HIGH))), default=total)
    natural = SMALL_BELOW["q35"] if total < SMALL_BELOW["q35"] else LARGE_BELOW["q35"]
    if low < min(natural, total):
        flags.append(f"max-ram-below-4g={low}")
    devices = [_backend(region) for region in _nvdimms(topology)] + _hotplugged(topology)
    if devices:
        flags.append("nvdimm=on")
    windows = len(_more(topology))
    if windows:
        flags.append("cxl=on")
        flags += [f"cxl-fmw.{at}.targets.0=cxl.0,cxl-fmw.{at}.size={WINDOW}" for at in range(windows)]
    machine = ",".join(flags)
    if not devices:
        return machine, f"{total // MIB}M"
    # a gibibyte per slot comes on top, which is more than aligning the first one takes
    layout = layout_of(parse_command(["-m", f"{total // MIB}M,slots=1,maxmem={total // MIB + 1}M"]), _option(machine))
    assert layout.devices is not None
    room = max(max(part.end for part in devices) - layout.devices.start, MIB)
    return machine, f"{total // MIB}M,slots={len(devices)},maxmem={(total + align_up(room, MIB)) // MIB}M"


def _option(machine: str) -> Option:
    return named(parse_command(["-machine", machine]), "machine")[0]


def _ram(topology: Topology, node: Node) -> list[Range]:
    soft = [region.range for region in _soft(topology) if region.target_node == node.id]
    return [*(part for part in _rounded(node) if isinstance(part, Range)), *soft]


def _smp(topology: Topology) -> str:
    # how many each level has of the next, by the highest number met
    places = _places(topology.cpus)
    counts = [max((place[level] for place in places), default=0) + 1 for level in range(4)]
    names = [level for level in LEVELS if level != "modules"]
    possible = topology.possible_cpus or len(topology.cpus)
    within = counts[1] * counts[2] * counts[3]
    counts[0] = max(counts[0], -(-possible // within))
    levels = ",".join(f"{name}={count}" for name, count in zip(names, counts, strict=True))
    return f"{len(topology.cpus)},maxcpus={counts[0] * within},{levels}"


def _nodes(topology: Topology, sizes: dict[int, int]) -> Iterator[str]:
    cpus: dict[int, list[int]] = {}
    for cpu in topology.cpus:
        cpus.setdefault(cpu.node, []).append(cpu.id)
    hmat = any(node.access0 for node in topology.nodes)
    for node in _described(topology):
        words = [f"node,nodeid={node.id}"]
        words += (f"cpus={part}" for part in format_list(cpus.get(node.id, ())).split(",") if part)
        if sizes.get(node.id):
            yield from ("-object", f"memory-backend-ram,id=ram{node.id},size={sizes[node.id] // MIB}M")
            words.append(f"memdev=ram{node.id}")
        if hmat:
            best = node.access0.initiators if node.access0 else ()
            words.append(f"initiator={best[0] if best else node.id}")
        yield from ("-numa", ",".join(words))


def _distances(topology: Topology) -> Iterator[str]:
    order = {node.id: row for row, node in enumerate(topology.nodes)}
    nodes = [node.id for node in _described(topology)] if topology.distances else []
    for a, b in permutations(nodes, 2):
        distance = topology.distances[order[a]][order[b]] if a in order and b in order else REMOTE_DISTANCE
        yield from ("-numa", f"dist,src={a},dst={b},val={distance}")


def _hmat(topology: Topology) -> Iterator[str]:
    known = [(node.id, node.access0) for node in topology.nodes if node.access0 and node.access0.initiators]
    for kind in _data_types([access for _, access in known]):
        metric = METRICS[kind][0]
        name, unit = ("latency", "") if metric.is_latency else ("bandwidth", "M")
        for nid, access in known:
            link = f"hmat-lb,initiator={access.initiators[0]},target={nid},hierarchy=memory,data-type={kind}"
            yield from ("-numa", f"{link},{name}={getattr(access, metric.value) or 0}{unit}")
    for node in topology.nodes:
        for cache in node.side_caches:
            yield from ("-numa", _cache(node.id, cache))


def _data_types(accesses: Sequence[Access]) -> Iterator[str]:
    # Linux takes the last matrix that has a metric: one for reads and writes, where they never differ, or one each
    left = {metric: [getattr(access, metric.value) or 0 for access in accesses] for metric in Metric}
    for kind, metrics in METRICS.items():
        values = [left.get(metric, []) for metric in metrics]
        if any(values[0]) and all(one == values[0] for one in values):
            yield kind
            left = {metric: numbers for metric, numbers in left.items() if metric not in metrics}


def _cache(nid: int, cache: SideCache) -> str:
    associativity = {0: "direct", 1: "complex"}.get(cache.indexing, ASSOCIATIVITIES[0])
    policy = {0: "write-back", 1: "write-through"}.get(cache.write_policy, POLICIES[0])
    return (
        f"hmat-cache,node-id={nid},size={cache.size}B,level={cache.level},"
        f"associativity={associativity},policy={policy},line={cache.line_size}"
    )


def _hotplugged(topology: Topology) -> list[Range]:
    return [memory.range for node in topology.nodes for memory in node.memory if memory.hotplug]


def _backend(region: DaxRegion) -> Range:
    # the whole of an NVDIMM: the region, or where no room is left for the head of the namespace, that too
    if not region.devices or region.devices[0].mappings[0].start > region.range.start:
        return region.range
    step = devdax_range(Range(0, GIB), region.align, MapMode.MEM).start
    return Range(region.range.start - step, region.range.end)


def _modules(topology: Topology) -> Iterator[str]:
    parts = [("pc-dimm", memory.range, node.id) for node in topology.nodes for memory in node.memory if memory.hotplug]
    parts += [("nvdimm", _backend(region), region.target_node or 0) for region in _nvdimms(topology)]
    for at, (driver, where, nid) in enumerate(parts):
        yield from ("-object", f"memory-backend-ram,id=mem{at},size={where.size // MIB}M")
        yield from ("-device", f"{driver},id=dimm{at},memdev=mem{at},node={nid},addr={where.start:#x}")


def _append(topology: Topology) -> str:
    words = topology.cmdline.split()
    for region in _soft(topology):
        word = f"memmap={region.range.size // MIB}M%{region.range.start:#x}-1+0xefffffff"
        if word not in words:
            words.append(word)
    if not any(word.startswith(f"{AUTO_ONLINE}=") for word in words):
        words.append(f"{AUTO_ONLINE}={topology.memory.auto_online}")
    return " ".join(words)
