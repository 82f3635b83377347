"""``/proc/zoneinfo``; compare mm/vmstat.c ``zoneinfo_show_print``."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs import counters, nodes
from tdxfs.model import PAGE_SIZE, Machine, Zone
from tdxfs.ranges import Ranges
from tdxfs.zones import zone_ranges


def zoneinfo(machine: Machine) -> str:
    """Each zone of each online node, in pages; recorded text where the topology has it."""
    recorded = machine.records.get("zoneinfo")
    if recorded is not None:
        return recorded
    return "".join(_node(machine, nid) for nid in sorted(nodes.online_nodes(machine)))


def _node(machine: Machine, nid: int) -> str:
    zones = zone_ranges(machine, nid)
    first = True
    text = []
    for name in (*(zone.value for zone in Zone), "Device"):
        memory = zones[Zone(name)] if name != "Device" else Ranges()
        text.append(f"Node {nid}, zone {name:>8}\n")
        if memory and first:
            text.append("  per-node stats\n")
            text.extend(_rows(counters.NODE_COUNTERS, machine, {}))
            first = False
        text.append(_zone(machine, memory))
    return "".join(text)


def _zone(machine: Machine, memory: Ranges) -> str:
    present = memory.size // PAGE_SIZE
    spanned = (memory.parts[-1].end - memory.parts[0].start) // PAGE_SIZE if memory else 0
    free = present - (memory & machine.tdx.owned).size // PAGE_SIZE
    lines = [
        f"  pages free     {free}\n        boost    0\n        min      0\n        low      0\n        high     0\n",
        "        promo    0\n" if machine.topology.kernel != "6.1" else "",
        f"        spanned  {spanned}\n        present  {present}\n        managed  {present}\n        cma      0\n",
        "        protection: (0, 0, 0, 0, 0)\n",
    ]
    if memory:
        lines.extend(_rows(counters.ZONE_COUNTERS, machine, {"nr_free_pages": free}))
        lines.append("  pagesets\n")
        for cpu in sorted(machine.cpus_online):
            lines.append(f"    cpu: {cpu}\n              count:    0\n              high:     0\n")
            lines.append("              batch:    1\n  vm stats threshold: 0\n")
        lines.append(f"  node_unreclaimable:  0\n  start_pfn:           {memory.parts[0].start // PAGE_SIZE}\n")
    return "".join(lines)


def _rows(table: tuple[counters.Counter, ...], machine: Machine, values: dict[str, int]) -> Iterator[str]:
    for counter in table:
        if counter.on(machine.topology.kernel):
            yield f"      {counter.name:<12} {values.get(counter.name, 0)}\n"
