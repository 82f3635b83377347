"""``/sys/kernel/mm``: knobs of memory management; compare mm/."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tdxfs import nodes
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, always, files, ro, subdirectory
from tdxfs.sysfs.codec import CHOICE, DECIMAL, TRUE_FALSE, Codec
from tdxfs.sysfs.hugetlb import Hugepages
from tdxfs.sysfs.tdx import TdxDir


def _constant(codec: Codec[Any], value: Any, doc: str, *, mode: int = 0o644, since: str = "") -> Attribute[Any, Any]:
    # a knob of which the model has nothing more than Linux's default
    def show(directory: Directory[Any]) -> Any:
        return value

    show.__doc__ = doc
    return ro(codec, mode=mode, since=since)(show)


class KsmDir(Directory[None]):
    """Samepage merging; it does not run."""

    WHAT = "/sys/kernel/mm/ksm"

    full_scans = _constant(DECIMAL, 0, "Full scans so far.", mode=0o444)
    pages_shared = _constant(DECIMAL, 0, "Shared pages in use.", mode=0o444)
    pages_sharing = _constant(DECIMAL, 0, "Further sites that share them.", mode=0o444)
    pages_unshared = _constant(DECIMAL, 0, "Unique pages that are checked again.", mode=0o444)
    pages_volatile = _constant(DECIMAL, 0, "Pages that change too fast.", mode=0o444)
    stable_node_chains = _constant(DECIMAL, 0, "Stable node chains.", mode=0o444)
    stable_node_dups = _constant(DECIMAL, 0, "Duplicates in the chains.", mode=0o444)
    general_profit = _constant(DECIMAL, 0, "Bytes saved.", mode=0o444, since="6.12")
    ksm_zero_pages = _constant(DECIMAL, 0, "Zero pages mapped by merging.", mode=0o444, since="6.12")
    pages_scanned = _constant(DECIMAL, 0, "Pages scanned.", mode=0o444, since="6.12")
    pages_skipped = _constant(DECIMAL, 0, "Pages skipped.", mode=0o444, since="6.12")
    max_page_sharing = _constant(DECIMAL, 256, "Most sites per shared page.")
    merge_across_nodes = _constant(DECIMAL, 1, "1: pages of different nodes are merged.")
    pages_to_scan = _constant(DECIMAL, 100, "Pages per scan.")
    run = _constant(DECIMAL, 0, "0 stop, 1 run, 2 stop and unmerge.")
    sleep_millisecs = _constant(DECIMAL, 20, "Milliseconds between scans.")
    stable_node_chains_prune_millisecs = _constant(DECIMAL, 2000, "Milliseconds between prunings.")
    use_zero_pages = _constant(DECIMAL, 0, "1: empty pages become the zero page.")
    advisor_max_cpu = _constant(DECIMAL, 70, "Percent of a CPU.", since="6.12")
    advisor_max_pages_to_scan = _constant(DECIMAL, 30000, "Upper bound of pages_to_scan.", since="6.12")
    advisor_min_pages_to_scan = _constant(DECIMAL, 500, "Lower bound of pages_to_scan.", since="6.12")
    advisor_mode = _constant(CHOICE, ("none", ("none", "scan-time")), "none or scan-time.", since="6.12")
    advisor_target_scan_time = _constant(DECIMAL, 200, "Seconds per full scan.", since="6.12")
    smart_scan = _constant(DECIMAL, 1, "1: pages that were not merged are skipped for a while.", since="6.12")


class LruGenDir(Directory[None]):
    """The multi-generational LRU."""

    WHAT = "/sys/kernel/mm/lru_gen"

    enabled = _constant(Codec("0x and four digits", "{:#06x}".format, lambda t: int(t, 16)), 7, "Features in use.")
    min_ttl_ms = _constant(DECIMAL, 0, "Milliseconds the working set is protected.")


class WeightedInterleaveDir(Directory[None]):
    """Weights of the weighted interleave policy."""

    WHAT = "/sys/kernel/mm/mempolicy/weighted_interleave"

    auto = _constant(TRUE_FALSE, True, "Whether the weights follow the nodes' bandwidth.", mode=0o664, since="7.3")

    @files("node<id>", DECIMAL, mode=0o644)
    def weights(self) -> Collection[int]:
        """Weight of a node, 1 to 255."""
        return nodes.possible_nodes(self.machine)

    @weights.shows
    def weight(self, nid: int) -> int:
        return 1


class MempolicyDir(Directory[None]):
    """Memory policies."""

    WHAT = "/sys/kernel/mm/mempolicy"

    weighted_interleave = always(WeightedInterleaveDir)


class NumaDir(Directory[None]):
    """NUMA knobs."""

    WHAT = "/sys/kernel/mm/numa"

    demotion_enabled = _constant(TRUE_FALSE, False, "Whether reclaim moves pages to slower nodes.")


class SwapDir(Directory[None]):
    """Swap knobs."""

    WHAT = "/sys/kernel/mm/swap"

    vma_ra_enabled = _constant(TRUE_FALSE, True, "Whether swap read-ahead follows mappings.")


class KhugepagedDir(Directory[None]):
    """The daemon that makes huge pages."""

    WHAT = "/sys/kernel/mm/transparent_hugepage/khugepaged"

    alloc_sleep_millisecs = _constant(DECIMAL, 60000, "Milliseconds after a failed allocation.")
    defrag = _constant(DECIMAL, 1, "1: it may compact memory.")
    full_scans = _constant(DECIMAL, 0, "Full scans so far.", mode=0o444)
    max_ptes_none = _constant(DECIMAL, 511, "Most missing small pages per huge page.")
    max_ptes_shared = _constant(DECIMAL, 256, "Most shared small pages per huge page.")
    max_ptes_swap = _constant(DECIMAL, 64, "Most swapped small pages per huge page.")
    pages_collapsed = _constant(DECIMAL, 0, "Huge pages made.", mode=0o444)
    pages_to_scan = _constant(DECIMAL, 4096, "Pages per scan.")
    scan_sleep_millisecs = _constant(DECIMAL, 10000, "Milliseconds between scans.")


def _choice(selected: str, words: str) -> tuple[str, Sequence[str]]:
    return selected, words.split()


class TransparentHugepageDir(Directory[None]):
    """Transparent huge pages."""

    WHAT = "/sys/kernel/mm/transparent_hugepage"

    khugepaged = always(KhugepagedDir)
    enabled = _constant(CHOICE, _choice("always", "always madvise never"), "Where huge pages are used.")
    defrag = _constant(CHOICE, _choice("madvise", "always defer defer+madvise madvise never"), "How hard it tries.")
    shmem_enabled = _constant(
        CHOICE, _choice("never", "always within_size advise never deny force"), "Huge pages in shared memory."
    )
    hpage_pmd_size = _constant(DECIMAL, 2 << 20, "Bytes of a huge page.", mode=0o444)
    use_zero_page = _constant(DECIMAL, 1, "1: reads of untouched memory share a zero page.")
    shrink_underused = _constant(DECIMAL, 1, "1: mostly empty huge pages are split.", since="6.12")


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
