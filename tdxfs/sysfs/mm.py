"""``/sys/kernel/mm``: knobs of memory management; compare mm/."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tdxfs import delta, nodes
from tdxfs.model import Machine, kernel_at_least
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, always, files, ro, rw, subdirectory
from tdxfs.sysfs.codec import BOOL, CHOICE, DECIMAL, TRUE_FALSE, WORD, Codec
from tdxfs.sysfs.hugetlb import Hugepages
from tdxfs.sysfs.knob import AUTO, UINT, between, choice, constant
from tdxfs.sysfs.tdx import TdxDir
from tdxfs.transitions.weights import set_auto, set_weight
from tdxfs.zonelists import il_weight


def _fixed(value: Any, doc: str, *, codec: Codec[Any] = DECIMAL, since: str = "") -> Attribute[Any, Any]:
    # a counter of what never happens here
    def show(directory: Directory[Any]) -> Any:
        return value

    show.__doc__ = doc
    return ro(codec, since=since)(show)


def _number(
    value: int, doc: str, low: int = 0, high: int = (1 << 32) - 1, *, takes: Codec[int] = UINT, since: str = ""
) -> Attribute[Any, Any]:
    return constant(DECIMAL, value, doc, takes=takes, check=between(low, high), since=since)


def _flag(value: int, doc: str) -> Attribute[Any, Any]:
    # 0 or 1 and no other number
    return _number(value, doc, 0, 1)


def _words(selected: str, words: str, doc: str, since: str = "") -> Attribute[Any, Any]:
    every = tuple(words.split())
    return constant(CHOICE, (selected, every), doc, takes=WORD, check=choice(*every), since=since)


class KsmDir(Directory[None]):
    """Samepage merging; it does not run."""

    WHAT = "/sys/kernel/mm/ksm"

    full_scans = _fixed(0, "Full scans so far.")
    pages_shared = _fixed(0, "Shared pages in use.")
    pages_sharing = _fixed(0, "Further sites that share them.")
    pages_unshared = _fixed(0, "Unique pages that are checked again.")
    pages_volatile = _fixed(0, "Pages that change too fast.")
    stable_node_chains = _fixed(0, "Stable node chains.")
    stable_node_dups = _fixed(0, "Duplicates in the chains.")
    general_profit = _fixed(0, "Bytes saved.", since="6.12")
    ksm_zero_pages = _fixed(0, "Zero pages mapped by merging.", since="6.12")
    pages_scanned = _fixed(0, "Pages scanned.", since="6.12")
    pages_skipped = _fixed(0, "Pages skipped.", since="6.12")
    max_page_sharing = _number(256, "Most sites per shared page.", 2)
    merge_across_nodes = _flag(1, "1: pages of different nodes are merged.")
    pages_to_scan = _number(100, "Pages per scan.")
    run = _number(0, "0 stop, 1 run, 2 stop and unmerge.", 0, 2)
    sleep_millisecs = _number(20, "Milliseconds between scans.")
    stable_node_chains_prune_millisecs = _number(2000, "Milliseconds between prunings.")
    use_zero_pages = constant(BOOL, False, "1: empty pages become the zero page.")
    advisor_max_cpu = _number(70, "Percent of a CPU.", since="6.12")
    advisor_max_pages_to_scan = _number(30000, "Upper bound of pages_to_scan.", since="6.12")
    advisor_min_pages_to_scan = _number(500, "Lower bound of pages_to_scan.", since="6.12")
    advisor_mode = _words("none", "none scan-time", "none or scan-time.", since="6.12")
    advisor_target_scan_time = _number(200, "Seconds per full scan.", 1, since="6.12")
    smart_scan = constant(BOOL, True, "1: pages that were not merged are skipped for a while.", since="6.12")


def _lru_gen(text: str) -> int:
    if text[:1] in ("n", "N"):
        return 0
    return 7 if text[:1] in ("y", "Y") else AUTO.scan(text) & 7


FEATURES: Codec[int] = Codec("0x and four digits", "{:#06x}".format, lambda text: int(text, 16))
LRU_GEN: Codec[int] = Codec("y, n or a mask of features", str, _lru_gen)


def _weight(text: str) -> int:
    weight = AUTO.scan(text) if text else 0
    if weight > 255:
        raise ValueError(text)
    return weight


WEIGHT: Codec[int] = Codec("a weight, 1 to 255, or, until 7.3, 0 or nothing for the default", str, _weight)


class LruGenDir(Directory[None]):
    """The multi-generational LRU."""

    WHAT = "/sys/kernel/mm/lru_gen"

    enabled = constant(FEATURES, 7, "Features in use; y: all, n: none.", takes=LRU_GEN)
    min_ttl_ms = _number(0, "Milliseconds the working set is protected.", takes=AUTO)


class WeightedInterleaveDir(Directory[None]):
    """Weights of the weighted interleave policy."""

    WHAT = "/sys/kernel/mm/mempolicy/weighted_interleave"
    FOLLOWS = staticmethod(delta.memory_nodes)

    @rw(TRUE_FALSE, since="7.3", mode=0o664)
    def auto(self) -> bool:
        """
        Whether the weights follow the nodes' bandwidth; a weight that is written ends that. ENODEV for true where no
        bandwidth is known.
        """
        return self.machine.weights_auto

    @auto.store
    def _set_auto(self, on: bool) -> Machine:
        return set_auto(self.machine, on)

    @files("node<id>", DECIMAL, takes=WEIGHT, mode=0o644)
    def weights(self) -> Collection[int]:
        """Pages in a row that the policy takes from a node, 1 to 255. Since 7.3 only nodes with memory have one."""
        late = kernel_at_least(self.machine.topology.kernel, "7.3")
        return nodes.has_memory(self.machine) if late else nodes.possible_nodes(self.machine)

    @weights.shows
    def weight(self, nid: int) -> int:
        return il_weight(self.machine, nid)

    @weights.stores
    def _set_weight(self, nid: int, weight: int) -> Machine:
        return set_weight(self.machine, nid, weight)


class MempolicyDir(Directory[None]):
    """Memory policies."""

    WHAT = "/sys/kernel/mm/mempolicy"

    weighted_interleave = always(WeightedInterleaveDir)


class NumaDir(Directory[None]):
    """NUMA knobs."""

    WHAT = "/sys/kernel/mm/numa"

    demotion_enabled = constant(TRUE_FALSE, False, "Whether reclaim moves pages to slower nodes.")


class SwapDir(Directory[None]):
    """Swap knobs."""

    WHAT = "/sys/kernel/mm/swap"

    vma_ra_enabled = constant(TRUE_FALSE, True, "Whether swap read-ahead follows mappings.")


class KhugepagedDir(Directory[None]):
    """The daemon that makes huge pages."""

    WHAT = "/sys/kernel/mm/transparent_hugepage/khugepaged"

    alloc_sleep_millisecs = _number(60000, "Milliseconds after a failed allocation.")
    defrag = _flag(1, "1: it may compact memory.")
    full_scans = _fixed(0, "Full scans so far.")
    max_ptes_none = _number(511, "Most missing small pages per huge page.", 0, 511)
    max_ptes_shared = _number(256, "Most shared small pages per huge page.", 0, 511)
    max_ptes_swap = _number(64, "Most swapped small pages per huge page.", 0, 511)
    pages_collapsed = _fixed(0, "Huge pages made.")
    pages_to_scan = _number(4096, "Pages per scan.", 1)
    scan_sleep_millisecs = _number(10000, "Milliseconds between scans.")


class TransparentHugepageDir(Directory[None]):
    """Transparent huge pages."""

    WHAT = "/sys/kernel/mm/transparent_hugepage"

    khugepaged = always(KhugepagedDir)
    enabled = _words("always", "always madvise never", "Where huge pages are used.")
    defrag = _words("madvise", "always defer defer+madvise madvise never", "How hard it tries.")
    shmem_enabled = _words("never", "always within_size advise never deny force", "Huge pages in shared memory.")
    hpage_pmd_size = _fixed(2 << 20, "Bytes of a huge page.")
    use_zero_page = _flag(1, "1: reads of untouched memory share a zero page.")
    shrink_underused = constant(BOOL, True, "1: mostly empty huge pages are split.", since="6.12")


class MmDir(Directory[None]):
    """Memory management."""

    WHAT = "/sys/kernel/mm"

    hugepages = always(Hugepages)
    ksm = always(KsmDir)
    lru_gen = always(LruGenDir)
    mempolicy = always(MempolicyDir, since="6.12")
    numa = always(NumaDir)
    swap = always(SwapDir)
    transparent_hugepage = always(TransparentHugepageDir)

    @subdirectory(TdxDir, tier=Tier.PROPOSED)
    def tdx(self) -> bool:
        """What TDX became at boot, and its conflicts. Absent when the platform has no TDX."""
        return self.machine.topology.tdx is not None


DIRECTORIES = (MmDir,)
