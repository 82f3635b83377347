"""``/sys/kernel/debug/tdxfs/pages``: from a page frame to its node and to whether it can back a TDX guest (T3)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from tdxfs import capability
from tdxfs.model import PAGE_SIZE
from tdxfs.sysfs.attribute import Directory, Tier, directories, ro
from tdxfs.sysfs.codec import DECIMAL, WORD

MAX_PFN = (1 << 52) // PAGE_SIZE


class Unlisted(Collection[int]):
    """The numbers below a limit: all are there, none is listed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < self.limit

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


class PageDir(Directory[int]):
    """A page frame; key: its number."""

    WHAT = "/sys/kernel/debug/tdxfs/pages/<pfn>"
    TIER = Tier.EMULATOR

    @property
    def page(self) -> capability.Page:
        return capability.page(self.machine, self.key)

    @ro(DECIMAL)
    def node(self) -> int:
        """Its node, of a dax page the target node. Absent if it has none."""
        assert self.page.node is not None
        return self.page.node

    @node.visible
    def _has_node(self) -> bool:
        return self.page.node is not None

    @ro(WORD)
    def dax(self) -> str:
        """The dax device that maps it. Absent if none does."""
        return self.page.dax

    @dax.visible
    def _has_dax(self) -> bool:
        return bool(self.page.dax)

    @ro(DECIMAL)
    def tdmr(self) -> int:
        """The TDMR around it. Absent if there is none."""
        assert self.page.tdmr is not None
        return self.page.tdmr

    @tdmr.visible
    def _has_tdmr(self) -> bool:
        return self.page.tdmr is not None

    @ro(WORD)
    def guest(self) -> str:
        """The TDX guest that holds it. Absent if none does."""
        return self.machine.guest_pages.get(self.key * PAGE_SIZE) or ""

    @guest.visible
    def _has_guest(self) -> bool:
        return self.key * PAGE_SIZE in self.machine.guest_pages

    @ro(WORD)
    def tdx(self) -> str:
        """capable, not-convertible, not-covered or reserved."""
        return self.page.why.value


class PagesDir(Directory[Any]):
    """Every page frame by its decimal number; none is listed."""

    WHAT = "/sys/kernel/debug/tdxfs/pages"
    TIER = Tier.EMULATOR

    @directories("<pfn>", PageDir)
    def all(self) -> Collection[int]:
        """One per page frame."""
        return Unlisted(MAX_PFN)


DIRECTORIES = (PagesDir,)
