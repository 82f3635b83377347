"""Counters of a node: ``meminfo``, ``vmstat``, ``numastat``; recorded where known, else derived.

The tables say which counters a kernel has, in its order (drivers/base/node.c
``node_read_meminfo``, mm/vmstat.c ``vmstat_text``). Derived counters are those of a machine on
which nothing runs: all memory free but the PAMTs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from attrs import frozen

from tdxfs.capability import online_memory
from tdxfs.model import PAGE_SIZE, Machine, kernel_at_least, shared


@frozen(eq=False)
class Counter:
    """One counter's name and the kernels that print it."""

    name: str
    since: str = ""
    until: str = ""
    blanks: int = 0
    """Blanks after the colon of a meminfo line; 0: as many as make 16 columns."""

    def on(self, kernel: str) -> bool:
        return (not self.since or kernel_at_least(kernel, self.since)) and (
            not self.until or not kernel_at_least(kernel, self.until)
        )


def rows(names: str, since: str = "", until: str = "") -> tuple[Counter, ...]:
    """Counters of the same kernels, names separated by blanks."""
    return tuple(Counter(name, since, until) for name in names.split())


MEMINFO = (
    *rows("MemTotal MemFree MemUsed SwapCached Active Inactive Active(anon) Inactive(anon) Active(file)"),
    *rows("Inactive(file) Unevictable Mlocked Dirty Writeback FilePages Mapped AnonPages Shmem KernelStack"),
    *rows("PageTables SecPageTables NFS_Unstable Bounce WritebackTmp KReclaimable Slab SReclaimable SUnreclaim"),
    *rows("AnonHugePages ShmemHugePages ShmemPmdMapped"),
    Counter("FileHugePages", until="6.12", blanks=1),
    Counter("FilePmdMapped", until="6.12", blanks=1),
    *rows("FileHugePages FilePmdMapped Unaccepted", since="6.12"),
    *rows("Balloon GPUActive GPUReclaim", since="7.3"),
    *rows("HugePages_Total HugePages_Free HugePages_Surp"),
)

VMSTAT = (
    *rows("nr_free_pages"),
    *rows("nr_free_pages_blocks", since="7.3"),
    *rows("nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file nr_zone_unevictable"),
    *rows("nr_zone_write_pending nr_mlock"),
    *rows("nr_bounce", until="7.3"),
    *rows("nr_zspages nr_free_cma"),
    *rows("nr_unaccepted", since="6.12"),
    *rows("numa_hit numa_miss numa_foreign numa_interleave numa_local numa_other nr_inactive_anon nr_active_anon"),
    *rows("nr_inactive_file nr_active_file nr_unevictable nr_slab_reclaimable nr_slab_unreclaimable"),
    *rows("nr_isolated_anon nr_isolated_file workingset_nodes workingset_refault_anon workingset_refault_file"),
    *rows("workingset_activate_anon workingset_activate_file workingset_restore_anon workingset_restore_file"),
    *rows("workingset_nodereclaim nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback"),
    *rows("nr_writeback_temp", until="7.3"),
    *rows("nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_file_hugepages nr_file_pmdmapped"),
    *rows("nr_anon_transparent_hugepages nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written"),
    *rows("nr_throttled_written nr_kernel_misc_reclaimable nr_foll_pin_acquired nr_foll_pin_released"),
    *rows("nr_vmalloc", since="7.3"),
    *rows("nr_kernel_stack nr_page_table_pages nr_sec_page_table_pages"),
    *rows("nr_iommu_pages", since="6.12"),
    *rows("nr_swapcached pgpromote_success pgpromote_candidate"),
    *rows("pgpromote_candidate_nrl", since="7.3"),
    *rows("pgdemote_kswapd pgdemote_direct pgdemote_khugepaged", since="6.12"),
    *rows("pgdemote_proactive pgsteal_kswapd pgsteal_direct pgsteal_khugepaged pgsteal_proactive", since="7.3"),
    *rows("pgsteal_anon pgsteal_file pgscan_kswapd pgscan_direct pgscan_khugepaged pgscan_proactive", since="7.3"),
    *rows("pgscan_anon pgscan_file pgrotate_anon pgrotate_file pgrefill nr_hugetlb nr_balloon_pages", since="7.3"),
    *rows("nr_kernel_file_pages nr_gpu_active nr_gpu_reclaim", since="7.3"),
)

ZONE_COUNTERS = VMSTAT[: next(at for at, row in enumerate(VMSTAT) if row.name == "nr_inactive_anon")]
"""What ``/proc/zoneinfo`` prints per zone; the rest of VMSTAT it prints per node."""
NODE_COUNTERS = VMSTAT[len(ZONE_COUNTERS) :]

NUMASTAT = rows("numa_hit numa_miss numa_foreign interleave_hit local_node other_node")


def total_kib(machine: Machine, nid: int) -> int:
    """``MemTotal`` of a node in kB: its online memory."""
    return online_memory(machine, nid).size // 1024


def free_kib(machine: Machine, nid: int) -> int:
    """``MemFree`` of a node in kB: what no PAMT, BIOS, huge page or guest holds; less than 0 if those do not fit."""
    known = _free(machine)
    if nid not in known:
        known[nid] = _free_kib(machine, nid)
    return known[nid]


@shared("topology", "blocks", "ram", "tdx", "hugepages", "guests")
def _free(machine: Machine) -> dict[int, int]:
    # what has been asked for of `free_kib`
    return {}


def _free_kib(machine: Machine, nid: int) -> int:
    memory = online_memory(machine, nid)
    guests = sum(end - start for part in memory for start, end, _ in machine.guest_pages.within(part.start, part.end))
    return (memory.size - (memory & machine.tdx.owned).size - guests) // 1024 - hugepages_kib(machine, nid)


def hugepages_kib(machine: Machine, nid: int) -> int:
    """What a node's pools of huge pages hold, in kB."""
    return sum(machine.hugepages.get((nid, size), 0) * size for size in machine.topology.hugepage_sizes)


def held_pages(machine: Machine, nid: int) -> int:
    """Pages of a node that tasks held when they were last looked at."""
    return sum(task.resident.get(nid, 0) for task in machine.tasks.values())


def meminfo(machine: Machine, nid: int) -> dict[str, int]:
    """``MemTotal`` and the others in kB, HugePages in pages."""
    total, free = total_kib(machine, nid), free_kib(machine, nid)
    pages = machine.hugepages.get((nid, machine.topology.default_hugepage), 0)
    derived = {"MemTotal": total, "MemFree": free, "MemUsed": total - free}
    derived |= {"HugePages_Total": pages, "HugePages_Free": pages}
    values = _chosen(MEMINFO, machine, derived, _since_recorded(machine, nid, derived))
    return _held(values, held_pages(machine, nid) * PAGE_SIZE // 1024, _MEMINFO_FREE, _MEMINFO_HELD)


def _since_recorded(machine: Machine, nid: int, derived: Mapping[str, int]) -> Mapping[str, int]:
    # what was recorded, moved by what of the node's memory and huge pages came or went since
    recorded = machine.topology.counters.get(nid)
    then = machine.recorded_memory.get(nid)
    if not recorded or not recorded.meminfo or then is None or then == (derived["MemTotal"], derived["MemFree"]):
        return recorded.meminfo if recorded else {}
    was = recorded.meminfo
    total = max(was.get("MemTotal", 0) + derived["MemTotal"] - then[0], 0)
    free = min(max(was.get("MemFree", 0) + derived["MemFree"] - then[1], 0), total)
    taken = was.get("HugePages_Total", 0) - was.get("HugePages_Free", 0)
    now = {"MemTotal": total, "MemFree": free, "MemUsed": total - free}
    pages = derived["HugePages_Total"]
    return {**was, **now, "HugePages_Total": pages, "HugePages_Free": max(pages - taken, 0)}


def vmstat(machine: Machine, nid: int) -> dict[str, int]:
    """Zone, event and node counters, in pages or events."""
    derived = {"nr_free_pages": free_kib(machine, nid) * 1024 // PAGE_SIZE}
    derived["nr_free_pages_blocks"] = derived["nr_free_pages"] // 512 * 512
    recorded = machine.topology.counters.get(nid)
    values = _chosen(VMSTAT, machine, derived, recorded.vmstat if recorded else {})
    if recorded and recorded.vmstat and nid in machine.recorded_memory:
        come = free_kib(machine, nid) - machine.recorded_memory[nid][1]
        for name in values.keys() & set(_VMSTAT_FREE):
            values[name] = max(values[name] + come * 1024 // PAGE_SIZE, 0)
    for name in ("numa_hit", "numa_local", "numa_other", "numa_interleave"):
        if name in values:
            values[name] += machine.allocated.get((nid, _NUMASTAT_NAMES.get(name, name)), 0)
    return _held(values, held_pages(machine, nid), _VMSTAT_FREE, _VMSTAT_HELD)


def numastat(machine: Machine, nid: int) -> dict[str, int]:
    """Allocation events, in pages."""
    recorded = machine.topology.counters.get(nid)
    values = _chosen(NUMASTAT, machine, {}, recorded.numastat if recorded else {})
    return {name: value + machine.allocated.get((nid, name), 0) for name, value in values.items()}


_MEMINFO_FREE, _VMSTAT_FREE = ("MemFree",), ("nr_free_pages", "nr_free_pages_blocks")
_MEMINFO_HELD = ("MemUsed", "AnonPages", "Inactive(anon)", "Inactive")
_VMSTAT_HELD = ("nr_anon_pages", "nr_inactive_anon", "nr_zone_inactive_anon")
_NUMASTAT_NAMES = {"numa_local": "local_node", "numa_other": "other_node", "numa_interleave": "interleave_hit"}
"""Name in vmstat -> name in numastat, where they differ."""


def _held(values: dict[str, int], amount: int, free: tuple[str, ...], held: tuple[str, ...]) -> dict[str, int]:
    for names, change in ((free, -amount), (held, amount)):
        for name in names:
            if name in values:
                values[name] = max(values[name] + change, 0)
    return values


def _chosen(
    table: tuple[Counter, ...], machine: Machine, derived: Mapping[str, int], recorded: Mapping[str, int]
) -> dict[str, int]:
    if recorded:
        return dict(recorded)
    return {name: derived.get(name, 0) for name in _printed(table, machine.topology.kernel)}


@lru_cache(maxsize=64)
def _printed(table: tuple[Counter, ...], kernel: str) -> tuple[str, ...]:
    # the names that a kernel prints
    return tuple(counter.name for counter in table if counter.on(kernel))


def format_meminfo(nid: int, kernel: str, values: Mapping[str, int]) -> str:
    """``Node 0 MemTotal:         469608 kB`` and so on, without the last newline."""
    return _meminfo_form(kernel, tuple(values)).format(*values.values(), node=nid)


@lru_cache(maxsize=64)
def _meminfo_form(kernel: str, names: tuple[str, ...]) -> str:
    # the text with its numbers left open
    blanks = {counter.name: counter.blanks for counter in MEMINFO if counter.on(kernel)}
    lines = []
    for name in names:
        key = f"{name}:"
        if name.startswith("HugePages_"):
            lines.append(f"Node {{node}} {key:<17}{{:5}}")
        else:
            gap = " " * (blanks.get(name) or 16 - len(key))
            lines.append(f"Node {{node}} {key}{gap}{{:8}} kB")
    return "\n".join(lines)


def parse_meminfo(text: str) -> dict[str, int]:
    """The values of a node's ``meminfo``; ValueError if a line is not of its form."""
    values = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        word, nid, name, value = line.split()[:4]
        if word != "Node" or not nid.isdecimal() or not name.endswith(":"):
            raise ValueError(line)
        values[name.removesuffix(":")] = int(value)
    return values
