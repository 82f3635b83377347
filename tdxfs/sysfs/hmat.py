"""``nodeN/accessN`` and ``nodeN/memory_side_cache``: what HMAT says of a node.

Compare drivers/base/node.c (``node_init_node_access``, ``CACHE_ATTR``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from tdxfs import nodes
from tdxfs.model import Access, SideCache
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, links, ro
from tdxfs.sysfs.codec import DECIMAL, HEX
from tdxfs.sysfs.power import ContainerPowerDir, DeviceDir


class _Class(Directory[int]):
    # key: node id; CLASS: the access class, 0 (any initiator) or 1 (CPUs only)
    CLASS: ClassVar[int] = 0

    def access(self, nid: int) -> Access | None:
        node = self.machine.nodes.get(nid)
        if node is None:
            return None
        return node.access1 if self.CLASS else node.access0


def targets(directory: Directory[Any], nid: int, access_class: int) -> list[int]:
    """The online nodes whose best initiators of this class include `nid`."""
    online = nodes.online_nodes(directory.machine)
    return [
        node.id
        for node in directory.machine.topology.nodes
        if (access := node.access1 if access_class else node.access0) and nid in access.initiators and node.id in online
    ]


class InitiatorsDir(_Class):
    """The node's best initiators, and what the memory performs for them."""

    WHAT = "/sys/devices/system/node/node<id>/access0/initiators"

    def performance(self) -> Access | None:
        """The HMAT entry with numbers, or None."""
        access = self.access(self.key)
        return access if access is not None and access.measured else None

    def _number(self, name: str) -> int:
        return getattr(self.performance(), name) or 0

    @ro(DECIMAL)
    def read_bandwidth(self) -> int:
        """MiB/s from these initiators. Absent where the firmware gives no performance."""
        return self._number("read_bandwidth")

    @ro(DECIMAL)
    def write_bandwidth(self) -> int:
        """MiB/s from these initiators. Absent where the firmware gives no performance."""
        return self._number("write_bandwidth")

    @ro(DECIMAL)
    def read_latency(self) -> int:
        """Nanoseconds from these initiators. Absent where the firmware gives no performance."""
        return self._number("read_latency")

    @ro(DECIMAL)
    def write_latency(self) -> int:
        """Nanoseconds from these initiators. Absent where the firmware gives no performance."""
        return self._number("write_latency")

    @links("node<id>", paths.node)
    def initiators(self) -> Collection[int]:
        """The initiator nodes."""
        access = self.access(self.key)
        online = nodes.online_nodes(self.machine)
        return [nid for nid in access.initiators if nid in online] if access else ()


for _attribute in ("read_bandwidth", "write_bandwidth", "read_latency", "write_latency"):
    InitiatorsDir.DECLARED[_attribute].visible(lambda directory: directory.performance() is not None)  # type: ignore[union-attr]


class TargetsDir(_Class):
    """The memory nodes for which this node is a best initiator."""

    WHAT = "/sys/devices/system/node/node<id>/access0/targets"

    @links("node<id>", paths.node)
    def targets(self) -> Collection[int]:
        """The target nodes."""
        return targets(self, self.key, self.CLASS)


class AccessDir(DeviceDir[int]):
    """Performance of the node's memory from its best initiators of any class."""

    WHAT = "/sys/devices/system/node/node<id>/access0"

    power = always(ContainerPowerDir)
    initiators = always(InitiatorsDir)
    targets = always(TargetsDir)


class CpuInitiatorsDir(InitiatorsDir):
    """The node's best CPU initiators, and what the memory performs for them."""

    WHAT = "/sys/devices/system/node/node<id>/access1/initiators"
    CLASS = 1


class CpuTargetsDir(TargetsDir):
    """The memory nodes for which this node's CPUs are a best initiator."""

    WHAT = "/sys/devices/system/node/node<id>/access1/targets"
    CLASS = 1


class CpuAccessDir(AccessDir):
    """Performance of the node's memory from its best CPU initiators."""

    WHAT = "/sys/devices/system/node/node<id>/access1"

    initiators = always(CpuInitiatorsDir)
    targets = always(CpuTargetsDir)


class SideCacheDir(DeviceDir[tuple[int, int]]):
    """One level of memory-side cache; key: (node id, level)."""

    WHAT = "/sys/devices/system/node/node<id>/memory_side_cache/index<level>"

    power = always(ContainerPowerDir)

    @property
    def cache(self) -> SideCache:
        nid, level = self.key
        return next(cache for cache in self.machine.nodes[nid].side_caches if cache.level == level)

    @ro(HEX, since="7.3")
    def address_mode(self) -> int:
        """0x0 reserved, 0x1 extended linear."""
        return self.cache.address_mode

    @ro(DECIMAL)
    def indexing(self) -> int:
        """0 direct-mapped, otherwise indexed."""
        return self.cache.indexing

    @ro(DECIMAL)
    def line_size(self) -> int:
        """Bytes of a line."""
        return self.cache.line_size

    @ro(DECIMAL)
    def size(self) -> int:
        """Bytes of the cache."""
        return self.cache.size

    @ro(DECIMAL)
    def write_policy(self) -> int:
        """0 write-back, 1 write-through, 2 other."""
        return self.cache.write_policy


class SideCachesDir(DeviceDir[int]):
    """The memory-side caches of a node."""

    WHAT = "/sys/devices/system/node/node<id>/memory_side_cache"

    power = always(ContainerPowerDir)

    @directories("index<level>", SideCacheDir, nested=True)
    def levels(self) -> Collection[int]:
        """One per level that HMAT reports."""
        return [cache.level for cache in self.machine.nodes[self.key].side_caches]
