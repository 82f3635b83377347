"""``hugepages/``, global and per node; compare mm/hugetlb_sysfs.c."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs.sysfs.attribute import Attribute, Directory, directories, ro, rw, wo
from tdxfs.sysfs.codec import DECIMAL, NOTHING, WORD

SIZES = (2048, 1048576)
"""Huge page sizes of x86-64, kB."""


class _Pool(Directory[Any]):
    # key: (node id or None, size in kB)

    def _count(self, which: str) -> int:
        nid, size = self.key
        if size != SIZES[0]:
            return 0
        counters = self.machine.topology.counters
        chosen = counters.values() if nid is None else filter(None, (counters.get(nid),))
        return sum(node.meminfo.get(f"HugePages_{which}", 0) for node in chosen)

    @rw(DECIMAL)
    def nr_hugepages(self) -> int:
        """Huge pages in the pool."""
        return self._count("Total")

    @ro(DECIMAL)
    def free_hugepages(self) -> int:
        """Huge pages of the pool that are free."""
        return self._count("Free")

    @ro(DECIMAL)
    def surplus_hugepages(self) -> int:
        """Huge pages above nr_hugepages."""
        return self._count("Surp")

    demote: Attribute[Any, None] = wo(NOTHING, "A number of pages to split into pages of demote_size.")

    @rw(WORD)
    def demote_size(self) -> str:
        """Size of the pages that demoted ones become, with kB. Absent for the smallest size."""
        return f"{SIZES[0]}kB"

    def _can_demote(self) -> bool:
        return bool(self.key[1] != SIZES[0])

    demote.visible(_can_demote)
    demote_size.visible(_can_demote)


class NodeHugepageSize(_Pool):
    """One size of huge pages of a node."""

    WHAT = "/sys/devices/system/node/node<id>/hugepages/hugepages-<size>kB"


class NodeHugepages(Directory[int]):
    """Huge pages of a node, by size."""

    WHAT = "/sys/devices/system/node/node<id>/hugepages"

    @directories("hugepages-<size>kB", NodeHugepageSize, nested=True)
    def sizes(self) -> Collection[int]:
        """One per huge page size, kB."""
        return SIZES


class HugepageSize(_Pool):
    """One size of huge pages of the whole machine."""

    WHAT = "/sys/kernel/mm/hugepages/hugepages-<size>kB"

    @ro(DECIMAL)
    def resv_hugepages(self) -> int:
        """Huge pages that are promised and not yet allocated."""
        return 0

    @rw(DECIMAL)
    def nr_hugepages_mempolicy(self) -> int:
        """As nr_hugepages, under the writer's memory policy."""
        return self._count("Total")

    @rw(DECIMAL)
    def nr_overcommit_hugepages(self) -> int:
        """How many surplus pages may be made."""
        return 0


class Hugepages(Directory[None]):
    """Huge pages of the whole machine, by size."""

    WHAT = "/sys/kernel/mm/hugepages"

    @directories("hugepages-<size>kB", HugepageSize, nested=True)
    def sizes(self) -> Collection[int]:
        """One per huge page size, kB."""
        return SIZES
