"""``/sys/devices/system/node``: NUMA nodes; compare drivers/base/node.c."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from tdxfs import counters, delta, nodes
from tdxfs.capability import CAPABLE, INCAPABLE, MIXED, Verdict, judge_node, node_verdicts
from tdxfs.errors import TryAgain
from tdxfs.idlist import parse_list
from tdxfs.model import PAGE_SIZE, Machine
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, Reader, Tier, always, directories, link, links, ro, subdirectory, wo
from tdxfs.sysfs.codec import BOOL, DECIMAL, LIST, MASK, NOTHING, STAT, Codec, Mask
from tdxfs.sysfs.cpu_topology import cpulist_size, cpumask_size, mask_width
from tdxfs.sysfs.hmat import AccessDir, CpuAccessDir, SideCachesDir, targets
from tdxfs.sysfs.hugetlb import NodeHugepages
from tdxfs.sysfs.power import DeviceDir, PowerDir

NODE_MEMINFO: Codec[tuple[int, str, Mapping[str, int]]] = Codec(
    "a node's meminfo",
    lambda value: counters.format_meminfo(*value),
    lambda text: (-1, "", counters.parse_meminfo(text)),
    lambda value: dict(value[2]),
)
DISTANCES: Codec[list[int]] = Codec(
    "distances separated by blanks",
    lambda row: " ".join(map(str, row)),
    lambda text: list(map(int, text.split())),
)


def _reclaim(text: str) -> int:
    match = re.fullmatch("([0-9]+)([kKmMgGtT]?)( +swappiness=(max|[0-9]+))?", text)
    if match is None or (match[4] and match[4] != "max" and int(match[4]) > 200):
        raise ValueError(text)
    return int(match[1]) << 10 * " kmgt".index(match[2].lower() or " ")


RECLAIM: Codec[int] = Codec("<size> [swappiness=<N>]", str, _reclaim)


class X86NodeDir(Directory[int]):
    """What x86 says of a node: SGX in Linux, and TDX."""

    WHAT = "/sys/devices/system/node/node<id>/x86"

    def _there(self) -> bool:
        # absent where it makes no sense, never a made-up 0: no TDX, or no memory to speak of
        return self.machine.topology.tdx is not None and nodes.is_memory_node(self.machine, self.key)

    def _verdict(self) -> Verdict:
        return judge_node(self.machine, self.key)

    @ro(BOOL, tier=Tier.PROPOSED)
    def tdx_capable(self) -> bool:
        """
        1 if every page of the node that can be given away can back a TDX guest, else 0.
        Absent when the platform has no TDX or the node no memory online.
        """
        return bool(self._verdict())

    @ro(DECIMAL, tier=Tier.PROPOSED)
    def tdx_convertible_bytes(self) -> int:
        """
        Bytes of the node's online memory inside a convertible memory range (CMR).
        Absent when the platform has no TDX or the node no memory online.
        """
        return self._verdict().convertible

    @ro(DECIMAL, tier=Tier.PROPOSED)
    def tdx_usable_bytes(self) -> int:
        """
        Bytes of the node's online memory that can back a TDX guest: convertible, covered by a
        TDMR, outside its reserved areas and PAMTs. Absent when the platform has no TDX or the
        node no memory online.
        """
        return self._verdict().usable

    @ro(DECIMAL, tier=Tier.PROPOSED)
    def tdx_total_bytes(self) -> int:
        """
        Bytes of the node's online memory, PAMTs and the first MiB included. Absent when the
        platform has no TDX or the node no memory online.
        """
        return self._verdict().total

    tdx_capable.visible(_there)
    tdx_convertible_bytes.visible(_there)
    tdx_usable_bytes.visible(_there)
    tdx_total_bytes.visible(_there)


class MemoryFailureDir(Directory[int]):
    """Poisoned pages of the node; compare mm/memory-failure.c."""

    WHAT = "/sys/devices/system/node/node<id>/memory_failure"

    @ro(DECIMAL)
    def total(self) -> int:
        """Poisoned pages in all."""
        return 0

    @ro(DECIMAL)
    def ignored(self) -> int:
        """Poisoned pages that were ignored."""
        return 0

    @ro(DECIMAL)
    def failed(self) -> int:
        """Poisoned pages whose recovery failed."""
        return 0

    @ro(DECIMAL)
    def delayed(self) -> int:
        """Poisoned pages whose recovery was delayed."""
        return 0

    @ro(DECIMAL)
    def recovered(self) -> int:
        """Poisoned pages that were recovered."""
        return 0


class NodeDir(DeviceDir[int]):
    """A NUMA node that is online."""

    WHAT = "/sys/devices/system/node/node<id>"
    FOLLOWS = staticmethod(delta.touched_nodes)

    power = always(PowerDir)
    x86 = always(X86NodeDir)
    memory_failure = always(MemoryFailureDir, since="6.12")

    def _cpus(self) -> frozenset[int]:
        node = self.machine.nodes.get(self.key)
        if node is not None and node.cpumap is not None:
            return parse_list(node.cpumap) & self.machine.cpus_online
        return frozenset(self.machine.node_cpus.get(self.key, ())) & self.machine.cpus_online

    @ro(MASK, size=cpumask_size, reader=Reader.CPUMASK)
    def cpumap(self) -> Mask:
        """Online CPUs of the node as a mask, as wide as the possible CPUs."""
        return Mask(self._cpus(), mask_width(self.machine))

    @ro(LIST, size=cpulist_size, reader=Reader.CPUMASK)
    def cpulist(self) -> frozenset[int]:
        """Online CPUs of the node as a range list."""
        return self._cpus()

    @ro(NODE_MEMINFO, sampled=True)
    def meminfo(self) -> tuple[int, str, Mapping[str, int]]:
        """Memory of the node by use, kB; huge pages in pages."""
        return self.key, self.machine.topology.kernel, counters.meminfo(self.machine, self.key)

    @ro(STAT, sampled=True)
    def numastat(self) -> Mapping[str, int]:
        """Allocation events of the node, pages."""
        return counters.numastat(self.machine, self.key)

    @ro(STAT, sampled=True)
    def vmstat(self) -> Mapping[str, int]:
        """Zone, event and node counters, pages or events."""
        return counters.vmstat(self.machine, self.key)

    @ro(DISTANCES)
    def distance(self) -> list[int]:
        """Distance to every online node in order of its number; 10 is local."""
        return [nodes.distance(self.machine, self.key, other) for other in sorted(nodes.online_nodes(self.machine))]

    compact = wo(NOTHING, "Any write compacts the memory of the node.")
    reclaim = wo(
        RECLAIM,
        "<size> [swappiness=<0 to 200 or max>]: reclaims that many bytes from the node. EAGAIN if there is too "
        "little to reclaim; the emulated machine is idle and has none.",
        since="7.3",
    )

    @compact.store
    def _compact(self, nothing: None) -> Machine:
        return self.machine

    @reclaim.store
    def _reclaim(self, size: int) -> Machine:
        if size >= PAGE_SIZE:
            raise TryAgain(f"nothing to reclaim on node {self.key}")
        return self.machine

    @subdirectory(NodeHugepages)
    def hugepages(self) -> bool:
        """Huge pages of the node. Absent on a node without memory blocks, and where the kernel has none."""
        return self.key in self.machine.node_blocks and bool(self.machine.topology.hugepage_sizes)

    @subdirectory(AccessDir)
    def access0(self) -> bool:
        """Best initiators of any class. Absent where HMAT says nothing of the node."""
        return self._has_access(0)

    @subdirectory(CpuAccessDir)
    def access1(self) -> bool:
        """Best CPU initiators. Absent where HMAT says nothing of the node."""
        return self._has_access(1)

    def _has_access(self, access_class: int) -> bool:
        node = self.machine.nodes.get(self.key)
        own = node and (node.access1 if access_class else node.access0)
        return own is not None or bool(targets(self, self.key, access_class))

    @subdirectory(SideCachesDir)
    def memory_side_cache(self) -> bool:
        """Memory-side caches. Absent where HMAT reports none."""
        node = self.machine.nodes.get(self.key)
        return node is not None and bool(node.side_caches)

    @link
    def subsystem(self) -> str:
        """The node bus."""
        return paths.bus("node")

    @links("cpu<id>", paths.cpu)
    def cpus(self) -> Collection[int]:
        """Present CPUs of the node."""
        return self.machine.node_cpus.get(self.key, ())

    @links("memory<id>", paths.memory_block)
    def memory_blocks(self) -> Collection[int]:
        """Memory blocks that lie in the node, online or not."""
        return self.machine.node_blocks.get(self.key, ())


class NodeRoot(DeviceDir[None]):
    """NUMA nodes and the sets they belong to."""

    WHAT = paths.NODE_ROOT

    power = always(PowerDir)

    @ro(LIST)
    def possible(self) -> frozenset[int]:
        """Nodes that can ever be online."""
        return nodes.possible_nodes(self.machine)

    @ro(LIST)
    def online(self) -> frozenset[int]:
        """Nodes that are online."""
        return nodes.online_nodes(self.machine)

    @ro(LIST)
    def has_cpu(self) -> frozenset[int]:
        """Nodes with an online CPU."""
        return nodes.has_cpu(self.machine)

    @ro(LIST)
    def has_memory(self) -> frozenset[int]:
        """Nodes with memory online."""
        return nodes.has_memory(self.machine)

    @ro(LIST)
    def has_normal_memory(self) -> frozenset[int]:
        """Nodes with memory online that is not only movable."""
        return nodes.has_normal_memory(self.machine)

    @ro(LIST)
    def has_generic_initiator(self) -> frozenset[int]:
        """Nodes with a generic initiator."""
        return nodes.generic_initiators(self.machine)

    def _word(self, word: str) -> frozenset[int]:
        return frozenset(nid for nid, verdict in node_verdicts(self.machine).items() if verdict.word == word)

    def _has_tdx(self) -> bool:
        return self.machine.topology.tdx is not None

    @ro(LIST, tier=Tier.PROPOSED)
    def tdx_capable(self) -> frozenset[int]:
        """
        Nodes all of whose memory can back a TDX guest. With tdx_mixed and tdx_incapable a
        partition of has_memory. Absent when the platform has no TDX.
        """
        return self._word(CAPABLE)

    @ro(LIST, tier=Tier.PROPOSED)
    def tdx_mixed(self) -> frozenset[int]:
        """Nodes some of whose memory can back a TDX guest. Absent when the platform has no TDX."""
        return self._word(MIXED)

    @ro(LIST, tier=Tier.PROPOSED)
    def tdx_incapable(self) -> frozenset[int]:
        """Nodes none of whose memory can back a TDX guest. Absent when the platform has no TDX."""
        return self._word(INCAPABLE)

    tdx_capable.visible(_has_tdx)
    tdx_mixed.visible(_has_tdx)
    tdx_incapable.visible(_has_tdx)

    @directories("node<id>", NodeDir)
    def nodes(self) -> Collection[int]:
        """One per online node."""
        return nodes.online_nodes(self.machine)


DIRECTORIES = (NodeRoot,)
