"""Whether a topology makes sense: one rule per function, each problem with key, value and rule.

The rules are those without which the machine could not be: real machines, odd ones included, pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from attrs import asdict, frozen

from tdxfs.idlist import parse_list
from tdxfs.model import DMI_IDS, GIB, KERNELS, MIB, PAGE_SIZE, SCOPES, DaxRegion, Driver, Topology
from tdxfs.ranges import Range

PHYSICAL_BITS = 52
ALIGNMENTS = (PAGE_SIZE, 2 * MIB, GIB)
AUTO_ONLINE = ("offline", "online", "online_kernel", "online_movable")
CACHE_TYPES = ("Data", "Instruction", "Unified")
PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
PCI_BARS = 6
MINOR_BITS = 20
RECORDS = ("cpuinfo", "iomem", "meminfo", "version", "zoneinfo")
CGROUP_NAME = re.compile(r"/|(/[^/]+)+")
SHARED = SCOPES[: SCOPES.index("package") + 1]


@frozen
class Problem:
    """What is wrong: where, what stands there, and what must hold."""

    key: str
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value}: {self.rule}"


def problems(topology: Topology) -> Iterator[Problem]:
    """Every problem of the topology, the most basic first; none: it can boot."""
    for rule in RULES:
        yield from rule(topology)


def _kernel(topology: Topology) -> Iterator[Problem]:
    if topology.kernel not in KERNELS:
        yield Problem("kernel", topology.kernel, f"must be one of {', '.join(KERNELS)}")


def _texts(topology: Topology) -> Iterator[Problem]:
    for key, text in (
        ("cmdline", topology.cmdline),
        ("model_name", topology.model_name),
        ("modalias", topology.modalias),
        ("cgroup.name", topology.cgroup.name if topology.cgroup else ""),
        *((f"uname.{name}", text) for name, text in (asdict(topology.uname) if topology.uname else {}).items()),
        *((f"dmi.{name}", " ".join(text.splitlines())) for name, text in topology.dmi.items()),
    ):
        if not str(text).isascii() or not str(text).isprintable():
            yield Problem(key, repr(text), "must be one line of printable ASCII")
    for name in topology.records:
        if name not in RECORDS:
            yield Problem(f"records.{name}", "a text", f"must be of one of {', '.join(RECORDS)}")


def _lists(topology: Topology) -> Iterator[Problem]:
    for key, text in (
        ("possible_nodes", topology.possible_nodes),
        ("online_nodes", topology.online_nodes),
        *((f"nodes[{node.id}].cpumap", node.cpumap or "") for node in topology.nodes),
        *((f"cpus[{cpu.id}].siblings.{key}", text) for cpu in topology.cpus for key, text in cpu.siblings.items()),
        ("cgroup.cpus", topology.cgroup.cpus if topology.cgroup else ""),
        ("cgroup.mems", topology.cgroup.mems if topology.cgroup else ""),
        ("generic_initiators", topology.generic_initiators),
        ("memory.offline", topology.memory.offline),
        ("memory.online", topology.memory.online),
        ("memory.movable", topology.memory.movable),
    ):
        try:
            ids = parse_list(text)
        except ValueError:
            yield Problem(key, text, "must be a list of ids such as 0-1,3")
            continue
        if key in ("generic_initiators", "online_nodes") and not ids <= {node.id for node in topology.nodes}:
            yield Problem(key, text, "must be ids of nodes")


def _unique(topology: Topology) -> Iterator[Problem]:
    for key, ids in (
        ("cpus", [cpu.id for cpu in topology.cpus]),
        ("nodes", [node.id for node in topology.nodes]),
        ("dax_regions", [region.id for region in topology.dax_regions]),
    ):
        for a, b in pairwise(ids):
            if a >= b:
                yield Problem(f"{key}.id", b, "must be given once, in ascending order")


def _cpus(topology: Topology) -> Iterator[Problem]:
    for name in ("possible_cpus", "nr_cpus"):
        if getattr(topology, name) < 0:
            yield Problem(name, getattr(topology, name), "must not be negative")
    known = {node.id for node in topology.nodes}
    for cpu in topology.cpus:
        if cpu.node not in known:
            yield Problem(f"cpus[{cpu.id}].node", cpu.node, "must be the id of a node")
        if cpu.cache_ids and len(cpu.cache_ids) != len(topology.caches):
            yield Problem(f"cpus[{cpu.id}].cache_ids", list(cpu.cache_ids), "must be one per cache")
        for name in ("max_frequency", "base_frequency", "capacity"):
            if (getattr(cpu, name) or 1) < 1:
                yield Problem(f"cpus[{cpu.id}].{name}", getattr(cpu, name), "must be positive")
        for key in cpu.siblings:
            if key not in SCOPES and not re.fullmatch("cache[0-9]+", key):
                rule = f"must be of one of {', '.join(SCOPES)}, or of cache and a number"
                yield Problem(f"cpus[{cpu.id}].siblings", key, rule)
        if cpu.id >= topology.nr_cpus:
            yield Problem(f"cpus[{cpu.id}].id", cpu.id, f"must be below nr_cpus, {topology.nr_cpus}")
    if topology.possible_cpus and topology.cpus and topology.cpus[-1].id >= topology.possible_cpus:
        yield Problem("possible_cpus", topology.possible_cpus, f"must be above the highest CPU, {topology.cpus[-1].id}")
    for at, cache in enumerate(topology.caches):
        if cache.type not in CACHE_TYPES:
            yield Problem(f"caches[{at}].type", cache.type, f"must be one of {', '.join(CACHE_TYPES)}")
        if cache.shared not in SHARED:
            yield Problem(f"caches[{at}].shared", cache.shared, f"must be one of {', '.join(SHARED)}")
        if cache.size < 0 or cache.size % 1024:
            yield Problem(f"caches[{at}].size", cache.size, "must be a whole number of KiB")
        for name in ("level", "partitions"):
            if getattr(cache, name) < 1:
                yield Problem(f"caches[{at}].{name}", getattr(cache, name), "must be positive")
        for name in ("line", "ways", "sets"):
            if (getattr(cache, name) or 0) < 0:
                yield Problem(f"caches[{at}].{name}", getattr(cache, name), "must not be negative")


def _distances(topology: Topology) -> Iterator[Problem]:
    count = len(topology.nodes)
    if not topology.distances:
        return
    if len(topology.distances) != count:
        yield Problem("distances", f"{len(topology.distances)} rows", f"must be square: a row per node, {count}")
        return
    for at, row in enumerate(topology.distances):
        if len(row) != count:
            yield Problem(f"distances[{at}]", f"{len(row)} columns", f"must be square: a column per node, {count}")
        elif row[at] not in (0, 10):
            yield Problem(f"distances[{at}][{at}]", row[at], "must be 10 on the diagonal, 0 if there is no other node")
        for column, distance in enumerate(row):
            if at != column and not 10 <= distance <= 255:
                yield Problem(f"distances[{at}][{column}]", distance, "must be 10 to 255")


def _nodes(topology: Topology) -> Iterator[Problem]:
    known = {node.id for node in topology.nodes}
    for node in topology.nodes:
        for name, access in (("access0", node.access0), ("access1", node.access1)):
            for initiator in access.initiators if access else ():
                if initiator not in known:
                    yield Problem(f"nodes[{node.id}].{name}.initiators", initiator, "must be the id of a node")
        if node.gpu and not PCI_ADDRESS.fullmatch(node.gpu):
            yield Problem(f"nodes[{node.id}].gpu", node.gpu, "must be DDDD:BB:DD.F in lower-case hexadecimal")
        if node.memory_tier < 0:
            yield Problem(f"nodes[{node.id}].memory_tier", node.memory_tier, "must not be negative")
        for at, cache in enumerate(node.side_caches):
            for field, number in (("level", cache.level), ("size", cache.size), ("line_size", cache.line_size)):
                if number < 1:
                    yield Problem(f"nodes[{node.id}].side_caches[{at}].{field}", number, "must be positive")
    for key, nid in _mentioned(topology):
        if nid not in known:
            yield Problem(key, nid, "must be the id of a node")


def _mentioned(topology: Topology) -> Iterator[tuple[str, int]]:
    for nid in topology.counters:
        yield f"counters.{nid}", nid
    for region in topology.dax_regions:
        if region.numa_node is not None:
            yield f"dax_regions[{region.id}].numa_node", region.numa_node
    for device in topology.pci_devices:
        if device.numa_node != -1:
            yield f"pci_devices[{device.address}].numa_node", device.numa_node


def _hugepages(topology: Topology) -> Iterator[Problem]:
    sizes = topology.hugepage_sizes
    for size in sizes:
        if size < 1 or size & (size - 1) or sizes.count(size) > 1:
            yield Problem("hugepage_sizes", size, "must be a power of two, given once")
    for node in topology.nodes:
        for size, pages in node.hugepages.items():
            if size not in sizes:
                yield Problem(f"nodes[{node.id}].hugepages", size, "must be one of hugepage_sizes")
            if pages < 0:
                yield Problem(f"nodes[{node.id}].hugepages.{size}", pages, "must not be negative")


def _dmi(topology: Topology) -> Iterator[Problem]:
    for name in topology.dmi:
        if name not in DMI_IDS:
            yield Problem(f"dmi.{name}", "a line", f"must be of one of {', '.join(DMI_IDS)}")
    for at, module in enumerate(topology.memory_modules):
        if module.size < 0 or module.size % MIB:
            yield Problem(f"memory_modules[{at}].size", module.size, "must be a whole number of MiB")
        for name, text in asdict(module).items():
            if re.search("[^\x01-\xff]", str(text)):
                yield Problem(f"memory_modules[{at}].{name}", repr(text), "must be Latin-1 without NUL")


def _cgroup(topology: Topology) -> Iterator[Problem]:
    if topology.cgroup is not None and not CGROUP_NAME.fullmatch(topology.cgroup.name):
        yield Problem("cgroup.name", topology.cgroup.name, "must be a path such as / or /group/child")


def _block_size(topology: Topology) -> Iterator[Problem]:
    size = topology.memory.block_size
    if size < 16 * MIB or size & (size - 1):
        yield Problem("memory.block_size", size, "must be a power of two, at least 16 MiB")
    if topology.memory.auto_online not in AUTO_ONLINE:
        yield Problem("memory.auto_online", topology.memory.auto_online, f"must be one of {', '.join(AUTO_ONLINE)}")


def _ranges(topology: Topology) -> Iterator[tuple[str, Range]]:
    for node in topology.nodes:
        for at, memory in enumerate(node.memory):
            yield f"nodes[{node.id}].memory[{at}]", memory.range
    for region in topology.dax_regions:
        yield f"dax_regions[{region.id}]", region.range
    for device in topology.pci_devices:
        for bar in device.bars:
            yield f"pci_devices[{device.address}].bars[{bar.index}]", bar.range


def _pages(topology: Topology) -> Iterator[Problem]:
    cmrs = topology.tdx.cmrs if topology.tdx else ()
    for key, part in (*_ranges(topology), *((f"tdx.cmrs[{at}]", cmr) for at, cmr in enumerate(cmrs))):
        for name, number in (("base", part.start), ("size", part.size)):
            if number % PAGE_SIZE:
                yield Problem(f"{key}.{name}", number, f"must be a whole number of pages of {PAGE_SIZE} bytes")
        if part.end > 1 << PHYSICAL_BITS:
            yield Problem(key, part, f"must lie below 2^{PHYSICAL_BITS}")


def _overlaps(topology: Topology) -> Iterator[Problem]:
    placed = sorted(_ranges(topology), key=lambda item: item[1].start)
    for (a, first), (b, second) in pairwise(placed):
        if first.end > second.start:
            yield Problem(b, second, f"must not overlap {a}, {first}")


def _hotplug(topology: Topology) -> Iterator[Problem]:
    size = topology.memory.block_size
    for node in topology.nodes:
        for at, memory in enumerate(node.memory):
            if memory.hotplug and (memory.range.start % size or memory.range.size % size):
                yield Problem(f"nodes[{node.id}].memory[{at}]", memory.range, "hotplug memory must be whole blocks")


def _dax(topology: Topology) -> Iterator[Problem]:
    for region in topology.dax_regions:
        key = f"dax_regions[{region.id}]"
        if region.align not in ALIGNMENTS:
            yield Problem(f"{key}.align", region.align, "must be 4 KiB, 2 MiB or 1 GiB")
        if region.target_node is not None and region.target_node < 0:
            yield Problem(f"{key}.target_node", region.target_node, "must not be negative")
        if len({device.id for device in region.devices}) != len(region.devices):
            yield Problem(f"{key}.devices.id", [device.id for device in region.devices], "must be given once")
        if region.static:
            yield from _nd_devices(region, key)
        taken: list[Range] = []
        for device in region.devices:
            align = device.align or region.align
            if align not in ALIGNMENTS:
                yield Problem(f"{key}.devices[{device.id}].align", align, "must be 4 KiB, 2 MiB or 1 GiB")
                continue
            if device.driver is Driver.KMEM and region.target_node is None:
                yield Problem(f"{key}.devices[{device.id}].driver", "kmem", "needs a region with a target_node")
            if device.driver is Driver.KMEM and not topology.kmem_driver:
                yield Problem(f"{key}.devices[{device.id}].driver", "kmem", "needs kmem_driver")
            if region.static and len(device.mappings) != 1:
                yield Problem(f"{key}.devices[{device.id}].mappings", len(device.mappings), "must be one on an NVDIMM")
            for mapping in device.mappings:
                where = f"{key}.devices[{device.id}].mappings"
                if not region.range.covers(mapping):
                    yield Problem(where, mapping, f"must lie inside the region, {region.range}")
                if mapping.start % align or mapping.size % align:
                    yield Problem(where, mapping, f"must be aligned to {align}")
                if any(mapping.overlaps(other) for other in taken):
                    yield Problem(where, mapping, "must not overlap another mapping")
                taken.append(mapping)


def _nd_devices(region: DaxRegion, key: str) -> Iterator[Problem]:
    numbers = [device.nd_id for device in region.devices]
    if len(set(numbers)) != len(numbers) or any(number < 0 for number in numbers):
        yield Problem(f"{key}.devices.nd", numbers, "must be given once, and not be negative")
    if region.seed is not None and (region.seed in numbers or region.seed < 0):
        yield Problem(f"{key}.seed", region.seed, "must be no device's nd, and not be negative")


def _minors(topology: Topology) -> Iterator[Problem]:
    # numbers that are given must be free where they are taken; the others follow the one before
    used: set[int] = set()
    minor = 0
    for region in topology.dax_regions:
        for device in region.devices:
            minor = minor if device.minor is None else device.minor
            if minor in used or not 0 <= minor < 1 << MINOR_BITS:
                yield Problem(
                    f"dax_regions[{region.id}].devices[{device.id}].minor",
                    minor,
                    f"must be free, and below 2^{MINOR_BITS}",
                )
            used.add(minor)
            minor += 1


def _pci(topology: Topology) -> Iterator[Problem]:
    known: set[str] = set()
    for device in topology.pci_devices:
        key = f"pci_devices[{device.address}]"
        if not PCI_ADDRESS.fullmatch(device.address):
            yield Problem(f"{key}.address", device.address, "must be DDDD:BB:DD.F in lower-case hexadecimal")
        if device.address in known:
            yield Problem(f"{key}.address", device.address, "must be given once")
        known.add(device.address)
        for name, number, bits in (
            ("vendor", device.vendor, 16),
            ("device", device.device, 16),
            ("pci_class", device.pci_class, 24),
        ):
            if not 0 <= number < 1 << bits:
                yield Problem(f"{key}.{name}", number, f"must be a number of {bits} bits")
        indexes = [bar.index for bar in device.bars]
        if len(set(indexes)) != len(indexes) or not set(indexes) <= set(range(PCI_BARS)):
            yield Problem(f"{key}.bars.index", indexes, f"must be 0 to {PCI_BARS - 1}, each given once")


def _tdx(topology: Topology) -> Iterator[Problem]:
    tdx = topology.tdx
    if tdx is None:
        return
    if len(tdx.cmrs) > tdx.max_cmrs:
        yield Problem("tdx.cmrs", f"{len(tdx.cmrs)} ranges", f"must be at most {tdx.max_cmrs} (max_cmrs)")
    for a, b in pairwise(tdx.cmrs):
        if a.end > b.start:
            yield Problem("tdx.cmrs", b, f"must be sorted and must not overlap {a}")
    for name in ("max_tdmrs", "max_reserved_per_tdmr", "max_cmrs", "pamt_entry_size"):
        if getattr(tdx, name) < 1:
            yield Problem(f"tdx.{name}", getattr(tdx, name), "must be positive")
    for name in ("first_keyid", "keyids", "remaining_updates"):
        if getattr(tdx, name) < 0:
            yield Problem(f"tdx.{name}", getattr(tdx, name), "must not be negative")


RULES: tuple[Callable[[Topology], Iterator[Problem]], ...] = (
    _kernel,
    _texts,
    _lists,
    _unique,
    _cpus,
    _distances,
    _nodes,
    _hugepages,
    _dmi,
    _cgroup,
    _block_size,
    _pages,
    _overlaps,
    _hotplug,
    _dax,
    _minors,
    _pci,
    _tdx,
)
