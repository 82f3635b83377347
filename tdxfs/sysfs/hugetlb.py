"""``hugepages/``, global and per node; compare mm/hugetlb_sysfs.c."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from tdxfs import counters
from tdxfs.errors import InvalidValue
from tdxfs.model import KIB, MIB, Machine
from tdxfs.nodes import has_memory as machine_nodes
from tdxfs.sysfs.attribute import Attribute, Directory, directories, ro, rw, wo
from tdxfs.sysfs.codec import DECIMAL, ULONG, WORD, Codec
from tdxfs.sysfs.knob import knob
from tdxfs.transitions.hugepages import demote, held, set_node_pages, set_pages, smaller

GIGANTIC = 4 * MIB // KIB
"""kB of a page that is larger than what the buddy allocator gives."""


def _size(text: str) -> int:
    # memparse(): a number, then k, M or G
    match = re.match("(0x[0-9a-f]+|[0-9]+)([kKmMgG]?)", text)
    return int(match[1], 0) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()] if match else 0


PAGE_SIZE_TEXT: Codec[int] = Codec("a size, with k, M or G", str, _size)


class _Pool(Directory[Any]):
    # key: (node id or None, size in kB)

    def _count(self) -> int:
        nid, size = self.key
        if nid is not None:
            return held(self.machine, nid, size)
        return sum(pages for (_, other), pages in self.machine.hugepages.items() if other == size)

    def _set_count(self, pages: int) -> Machine:
        nid, size = self.key
        return set_pages(self.machine, size, pages) if nid is None else set_node_pages(self.machine, nid, size, pages)

    @rw(DECIMAL, takes=ULONG)
    def nr_hugepages(self) -> int:
        """Huge pages in the pool. Written: how many there should be; as many as fit into the free memory are."""
        return self._count()

    nr_hugepages.store(_set_count)

    @ro(DECIMAL)
    def free_hugepages(self) -> int:
        """Huge pages of the pool that are free."""
        if self.key[1] != self.machine.topology.default_hugepage:
            return self._count()
        nodes = machine_nodes(self.machine) if self.key[0] is None else (self.key[0],)
        return sum(counters.meminfo(self.machine, nid).get("HugePages_Free", 0) for nid in nodes)

    @ro(DECIMAL)
    def surplus_hugepages(self) -> int:
        """Huge pages above nr_hugepages: none, no program asks for any."""
        return 0

    demote: Attribute[Any, int] = wo(ULONG, "A number of pages to split into pages of demote_size.")

    @demote.store
    def _demote(self, pages: int) -> Machine:
        nid, size = self.key
        return demote(self.machine, nid, size, pages)

    @rw(WORD, takes=PAGE_SIZE_TEXT)
    def demote_size(self) -> str:
        """Size of the pages that demoted ones become, with kB. Absent for the smallest size."""
        return f"{smaller(self.machine, self.key[1])}kB"

    @demote_size.store
    def _set_demote_size(self, size: int) -> Machine:
        if size != (smaller(self.machine, self.key[1]) or 0) * KIB:
            raise InvalidValue(f"{size} bytes is no smaller huge page size")
        return self.machine

    def _can_demote(self) -> bool:
        return smaller(self.machine, self.key[1]) is not None

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
        return self.machine.topology.hugepage_sizes


class HugepageSize(_Pool):
    """One size of huge pages of the whole machine."""

    WHAT = "/sys/kernel/mm/hugepages/hugepages-<size>kB"

    @ro(DECIMAL)
    def resv_hugepages(self) -> int:
        """Huge pages that are promised and not yet allocated."""
        return 0

    @rw(DECIMAL, takes=ULONG)
    def nr_hugepages_mempolicy(self) -> int:
        """As nr_hugepages, under the writer's memory policy."""
        return self._count()

    nr_hugepages_mempolicy.store(_Pool._set_count)

    def _no_surplus(self, pages: int) -> int:
        if self.key[1] >= GIGANTIC:
            raise InvalidValue("gigantic pages have no surplus")
        return pages

    @knob(DECIMAL, takes=ULONG, check=_no_surplus)
    def nr_overcommit_hugepages(self) -> int:
        """How many surplus pages may be made."""
        return 0


class Hugepages(Directory[None]):
    """Huge pages of the whole machine, by size."""

    WHAT = "/sys/kernel/mm/hugepages"

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Where the kernel has huge pages."""
        return bool(machine.topology.hugepage_sizes)

    @directories("hugepages-<size>kB", HugepageSize, nested=True)
    def sizes(self) -> Collection[int]:
        """One per huge page size, kB."""
        return self.machine.topology.hugepage_sizes
