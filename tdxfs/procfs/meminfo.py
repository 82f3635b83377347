"""``/proc/meminfo``: the sum of the nodes; compare fs/proc/meminfo.c."""

from __future__ import annotations

from collections import Counter as Sum

from tdxfs import counters, nodes
from tdxfs.counters import Counter
from tdxfs.model import Machine

ROWS = (
    *counters.rows("MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon)"),
    *counters.rows("Inactive(anon) Active(file) Inactive(file) Unevictable Mlocked SwapTotal SwapFree Zswap Zswapped"),
    *counters.rows("Dirty Writeback AnonPages Mapped Shmem KReclaimable Slab SReclaimable SUnreclaim KernelStack"),
    *counters.rows("PageTables SecPageTables NFS_Unstable Bounce WritebackTmp CommitLimit Committed_AS"),
    *counters.rows("VmallocTotal VmallocUsed VmallocChunk Percpu HardwareCorrupted AnonHugePages ShmemHugePages"),
    *counters.rows("ShmemPmdMapped FileHugePages FilePmdMapped"),
    *counters.rows("CmaTotal CmaFree", since="7.3"),
    *counters.rows("Unaccepted", since="6.12"),
    *counters.rows("Balloon GPUActive GPUReclaim", since="7.3"),
    *counters.rows("HugePages_Total HugePages_Free HugePages_Rsvd HugePages_Surp Hugepagesize Hugetlb DirectMap4k"),
    *counters.rows("DirectMap2M DirectMap1G"),
)
VMALLOC_TOTAL = 34359738367  # kB: the vmalloc area of x86-64 with four-level page tables


def meminfo(machine: Machine) -> str:
    """kB of the whole machine, huge pages in pages; recorded text where the topology has it."""
    recorded = machine.records.get("meminfo")
    if recorded is not None:
        return recorded
    total: Sum[str] = Sum()
    for nid in nodes.has_memory(machine):
        total.update(counters.meminfo(machine, nid))
    total["MemAvailable"] = total["MemFree"]
    total["Cached"] = total["FilePages"]
    total["CommitLimit"] = total["MemTotal"] // 2
    total["VmallocTotal"] = VMALLOC_TOTAL
    total["Hugepagesize"] = machine.topology.default_hugepage
    total["Hugetlb"] = sum(pages * size for (_, size), pages in machine.hugepages.items())
    total["DirectMap1G"] = total["MemTotal"]
    return "".join(_line(row, total[row.name]) for row in ROWS if row.on(machine.topology.kernel))


def _line(row: Counter, value: int) -> str:
    # the kernel pads key and colon to 16 columns; huge page counts have no unit and a narrower field
    if row.name.startswith("HugePages_"):
        return f"{row.name + ':':<16}{value:>8}\n"
    return f"{row.name + ':':<16}{value:>8} kB\n"
