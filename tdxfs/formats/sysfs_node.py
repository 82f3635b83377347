"""What a recorded sysfs says of nodes besides their memory: CPUs, performance, caches, huge pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import evolve

from tdxfs.formats.read import cpu_set, number, numbered, text, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.idlist import format_list
from tdxfs.model import HUGEPAGE_SIZES, Access, Cpu, Node, SideCache
from tdxfs.sysfs.codec import DECIMAL, HEX
from tdxfs.sysfs.node import NODE_MEMINFO

NODES = "sys/devices/system/node"
HUGEPAGES = "sys/kernel/mm/hugepages"
GPUS = "proc/driver/nvidia/gpus"


def node_ids(snapshot: Snapshot) -> list[int]:
    """The nodes that have a directory, in order."""
    return numbered(snapshot, NODES, "node")


def meminfo(snapshot: Snapshot, nid: int) -> Mapping[str, int]:
    """The counters of a node's ``meminfo``."""
    nothing: Mapping[str, int] = {}
    return value(snapshot, f"{NODES}/node{nid}/meminfo", NODE_MEMINFO, (nid, "", nothing))[2]


def with_what_it_says(snapshot: Snapshot, node: Node, cpus: Iterable[Cpu]) -> Node:
    """`node` with everything but its memory."""
    return evolve(
        node,
        access0=_access(snapshot, node.id, 0),
        access1=_access(snapshot, node.id, 1),
        side_caches=_side_caches(snapshot, node.id),
        cpumap=_cpumap(snapshot, node.id, cpus),
        gpu=_gpu(snapshot, node.id),
        hugepages=_pools(snapshot, node.id),
    )


def _cpumap(snapshot: Snapshot, nid: int, cpus: Iterable[Cpu]) -> str | None:
    # only where it contradicts the CPUs' places
    online = frozenset(cpu.id for cpu in cpus if cpu.online)
    shown = cpu_set(snapshot, f"{NODES}/node{nid}/cpumap", f"{NODES}/node{nid}/cpulist")
    if shown is None or shown & online == {cpu.id for cpu in cpus if cpu.online and cpu.node == nid}:
        return None
    return format_list(shown & online)


def _gpu(snapshot: Snapshot, nid: int) -> str:
    # address of the GPU whose memory it is
    for address in snapshot.names(GPUS):
        if re.search(rf"^Node:\s+{nid}$", text(snapshot, f"{GPUS}/{address}/numa_status"), re.MULTILINE):
            return address
    return ""


def _pools(snapshot: Snapshot, nid: int) -> dict[int, int]:
    # those that hold pages, but for what the node's meminfo says
    directory = f"{NODES}/node{nid}/hugepages" if snapshot.names(NODES) else HUGEPAGES
    sizes = hugepage_sizes(snapshot, [directory])
    pools = {size: number(snapshot, f"{directory}/hugepages-{size}kB/nr_hugepages") or 0 for size in sizes}
    said = {sizes[0]: meminfo(snapshot, nid).get("HugePages_Total", 0)} if sizes else {}
    return {size: pages for size, pages in pools.items() if pages != said.get(size, 0)}


def hugepage_sizes(snapshot: Snapshot, directories: list[str]) -> tuple[int, ...]:
    """The sizes, kB, of which directories show pools: the default one first, then by size."""
    names = {name for directory in directories for name in snapshot.names(directory)}
    matches = (re.fullmatch(r"hugepages-([0-9]+)kB", name) for name in names)
    sizes = sorted(int(match[1]) for match in matches if match)
    default = re.search(r"^Hugepagesize:\s+([0-9]+) kB$", text(snapshot, "proc/meminfo"), re.MULTILINE)
    return tuple(sorted(sizes, key=lambda size: (size != (int(default[1]) if default else HUGEPAGE_SIZES[0]), size)))


def _access(snapshot: Snapshot, nid: int, number: int) -> Access | None:
    path = f"{NODES}/node{nid}/access{number}/initiators"
    names = snapshot.names(path)
    if not names and path.rpartition("/")[2] not in snapshot.names(path.rpartition("/")[0]):
        return None

    def read(file: str) -> int | None:
        return value(snapshot, f"{path}/{file}", DECIMAL, 0) if file in names else None

    return Access(
        tuple(numbered(snapshot, path, "node")),
        read("read_bandwidth"),
        read("write_bandwidth"),
        read("read_latency"),
        read("write_latency"),
    )


def _side_caches(snapshot: Snapshot, nid: int) -> tuple[SideCache, ...]:
    path = f"{NODES}/node{nid}/memory_side_cache"
    found = []
    for level in numbered(snapshot, path, "index"):
        index = f"{path}/index{level}"

        def read(file: str, index: str = index) -> int:
            return number(snapshot, f"{index}/{file}") or 0

        mode = value(snapshot, f"{index}/address_mode", HEX, 0)
        found.append(SideCache(level, read("size"), read("line_size"), read("indexing"), read("write_policy"), mode))
    return tuple(found)
