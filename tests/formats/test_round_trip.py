"""Any machine, shown as sysfs and imported again, is the same machine."""

from itertools import pairwise
from pathlib import Path

from attrs import evolve, frozen
from hypothesis import assume, given
from shown import difference, shown
from strategies import topologies

from tdxfs import nodes
from tdxfs.boot import boot
from tdxfs.errors import Refusal
from tdxfs.formats.sysfs import import_snapshot
from tdxfs.idlist import format_list, parse_list
from tdxfs.model import GIB, Cpu, Provider, Topology
from tdxfs.ranges import Range, Ranges
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Link, Tier
from tdxfs.tree import Tree
from tdxfs.zones import DMA32_END, DMA_END

TOPS = ("/sys/devices/system", "/sys/bus", "/sys/devices/virtual", "/sys/devices/platform")
MADE = ("name", "description", "counters", "records")
"""What an import adds."""


@frozen
class TreeSnapshot:
    """A tree as what is imported from, without files."""

    tree: Tree
    whole = False
    live = False

    def read(self, path):
        """As a reader of the files would."""
        try:
            return self.tree.read(f"/{path}")
        except Refusal:
            return None

    def names(self, path):
        """As readdir(3)."""
        try:
            return sorted(self.tree.list(self.tree.follow(f"/{path}")[0]).names)
        except Refusal:
            return []

    def link(self, path):
        """As readlink(2)."""
        parent, _, name = path.rpartition("/")
        try:
            entry = self.tree.lookup(f"{self.tree.follow(f'/{parent}')[0]}/{name}")
        except Refusal:
            return None
        return entry.target if isinstance(entry, Link) else None


def imported(topology):
    """What the kernel's tier of a machine says of it."""
    tree = Tree(Root, boot(topology), frozenset({Tier.KERNEL}))
    return import_snapshot(TreeSnapshot(tree), Path("tree"), None, topology.name)


def as_linux_has_it(topology):
    """
    Without what no sysfs says (TDX, PCI functions, where offline CPUs are) or x86 does not, and without what a topology
    can hold but no running Linux: a dynamic region without its device 0 or which begins before it, a near node that is
    not online, memory modules below 4 GiB, and offline blocks with holes or of several nodes. That memory was hot-added
    shows where its node has no other.
    """
    topology = evolve(_plain(topology), nodes=tuple(map(_added_late, topology.nodes)))
    size = topology.memory.block_size
    parts = [memory.range for node in topology.nodes for memory in node.memory]
    whole = {number for part in parts for number in range(-(-part.start // size), part.end // size)}
    offline = format_list(number for number in parse_list(topology.memory.offline) if number in whole)
    topology = evolve(topology, memory=evolve(topology.memory, offline=offline))
    regions = tuple(_begun(region) for region in topology.dax_regions if region.static or region.devices)
    topology = evolve(topology, dax_regions=regions)
    online = nodes.online_nodes(boot(topology))
    near = (evolve(r, numa_node=r.numa_node if r.numa_node in online else None) for r in topology.dax_regions)
    return evolve(topology, dax_regions=tuple(near))


def _plain(topology):
    # as an x86 kernel that nowhere contradicts itself shows it: the rest is for test_recordings.py
    plain = Topology()
    same = ("online_nodes", "hugepage_sizes", "dmi", "memory_modules", "uname", "cgroup", "tdx", "pci_devices")
    return evolve(
        topology,
        cpus=tuple(Cpu(cpu.id, cpu.node, cpu.package, core=cpu.core, thread=cpu.thread) for cpu in topology.cpus),
        **{name: getattr(plain, name) for name in same},
    )


def _added_late(node):
    node = evolve(node, cpumap=None, gpu="", hugepages={})
    if all(memory.hotplug and memory.range.start >= 4 * GIB for memory in node.memory):
        return node
    return evolve(node, memory=tuple(evolve(memory, hotplug=False, movable=False) for memory in node.memory))


def is_clear(topology):
    """Whether of each block that nodes share an edge of their zones says where the one ends and the other begins."""
    size = topology.memory.block_size
    parts = sorted((memory.range, node.id) for node in topology.nodes for memory in node.memory)
    edges = {node.id: set(_zone_edges([memory.range for memory in node.memory])) for node in topology.nodes}
    return all(
        one == other or here.end % size == 0 or here.end // size != there.start // size
        or here.end in edges[one] or there.start in edges[other]
        for (here, one), (there, other) in pairwise(parts)
    )  # fmt: skip


def _zone_edges(parts):
    for low, high in pairwise((0, DMA_END, DMA32_END, 1 << 52)):
        inside = [(max(part.start, low), min(part.end, high)) for part in parts if part.start < high and part.end > low]
        if inside:
            yield from (min(inside)[0], max(end for _, end in inside))


def _begun(region):
    if region.provider is not Provider.HMEM or any(not device.size for device in region.devices):
        return region
    start = min(mapping.start for device in region.devices for mapping in device.mappings)
    return evolve(region, range=Range(start, region.range.end))


def told(topology):
    """What sysfs tells of a topology, field by field, whatever way it was written down."""
    yield "kernel", topology.kernel
    # which CPUs share a cache can be written in two ways
    yield "cpus", [evolve(cpu, cache_ids=()) for cpu in topology.cpus]
    yield "possible_cpus", topology.possible_cpus or len(topology.cpus)
    yield "caches", [evolve(cache, shared="") for cache in topology.caches]
    yield "memory", {n.id: Ranges.of(m.range for m in n.memory) for n in topology.nodes if n.memory}
    yield "layout", (topology.memory.block_size, topology.memory.auto_online)
    yield (
        "dax_regions",
        [
            (region.id, region.provider, region.target_node, region.numa_node, region.static and region.range)
            for region in topology.dax_regions
        ],
    )
    shows_where = topology.kernel != "6.1"
    yield (
        "devices",
        {
            key: evolve(device, memmap_on_memory=device.memmap_on_memory and shows_where)
            for key, device in boot(topology).dax.items()
        },
    )


@given(topologies())
def test_every_machine(topology):
    """The imported machine shows the same, says the same in each field, and comes back as it is a second time."""
    topology = as_linux_has_it(topology)
    assume(is_clear(topology))
    back = imported(topology)
    again = imported(back)

    for top in TOPS:
        assert {} == difference(seen(topology, top), seen(back, top))
    assert dict(told(topology)) == dict(told(back))
    assert evolve(back, **{name: getattr(again, name) for name in MADE}) == again


def seen(topology, top):
    """`shown`, of a directory that need not be there."""
    try:
        return shown(topology, top)
    except Refusal:
        return {}
