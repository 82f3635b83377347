"""Rules about memory that the TDMRs leave out, and that is therefore kept out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from attrs import evolve

from tdxfs import remedies
from tdxfs.capability import Hole, Verdict, blocks_of, judge, judge_dax
from tdxfs.model import Driver, Machine, Why
from tdxfs.policy import Cover, Hotplug
from tdxfs.ranges import Range, Ranges
from tdxfs.render import rounded
from tdxfs.rules.finding import Finding, Severity, ranges_of, whys


def not_covered(machine: Machine) -> Iterator[Finding]:
    """
    Memory is convertible, but no TDMR covers it, or it lies in a reserved area of one: mainline covers the
    RAM present at boot and nothing that comes later. Only a boot that covers every convertible range changes that.
    """
    found = _uncovered(machine)
    if not found:
        return
    again = remedies.rebooted(machine, evolve(machine.policies, cover=Cover.CONVERTIBLE))
    left = {subject for subject, *_ in _uncovered(again)}
    for subject, nid, dax, holes in found:
        reason = f"{dax or f'Node {nid}'} has convertible memory that no TDX guest can use ({whys(holes)})."
        if not again.tdx.enabled:
            fix = remedies.none("TDX does not come up with every convertible range covered")
        elif subject in left:
            fix = remedies.none("covering every convertible range does not cover it either")
        else:
            fix = remedies.reboot(machine, cover=Cover.CONVERTIBLE)
        yield Finding("not-covered", Severity.WARNING, subject, reason, fix, nid, dax, ranges_of(holes))


@lru_cache(maxsize=8)
def _uncovered(machine: Machine) -> tuple[tuple[str, int | None, str, tuple[Hole, ...]], ...]:
    found: list[tuple[str, int | None, str, tuple[Hole, ...]]] = []
    refused = _refused(machine)
    for nid in sorted({*machine.node_ram, *refused}):
        memory = machine.node_ram.get(nid, Ranges()) | refused.get(nid, Ranges())
        holes = _convertible_holes(judge(machine, memory))
        if holes:
            found.append((f"node{nid}", nid, "", holes))
    for key, device in sorted(machine.dax.items()):
        holes = _convertible_holes(judge_dax(machine, key))
        if holes and device.driver is not Driver.KMEM:
            found.append((device.name, machine.regions[key[0]].target_node, device.name, holes))
    return tuple(found)


def _convertible_holes(verdict: Verdict) -> tuple[Hole, ...]:
    return tuple(hole for hole in verdict.holes if hole.why is not Why.NOT_CONVERTIBLE)


def hotplug_rejected(machine: Machine) -> Iterator[Finding]:
    """
    Memory lies outside TDX memory and is kept out while TDX is on: under hotplug=reject the kernel refuses to
    online its blocks (EPERM) and prints nothing, under hotplug=reject-range it refuses the whole range when it
    is added. hotplug=allow lets it go online and makes the machine mixed.
    """
    if machine.policies.hotplug is Hotplug.ALLOW:
        return
    kept = dict(_refused(machine))
    for nid, blocks in machine.node_blocks.items():
        size = machine.topology.memory.block_size
        offline = Ranges.of(Range(a * size, b * size) for a, b, block in blocks.runs() if not block.online)
        mine = offline & machine.node_ram[nid]
        touched = blocks_of(machine, (hole.range for hole in judge(machine, mine).holes))
        whole = Ranges.of(Range(part.start * size, part.end * size) for part in touched)
        if whole:
            kept[nid] = kept.get(nid, Ranges()) | (mine & whole)
    for nid, ranges in sorted(kept.items()):
        reason = f"{rounded(ranges.size)} of memory of node {nid} cannot go online while TDX is enabled."
        fix = remedies.set_policy(hotplug=Hotplug.ALLOW)
        yield Finding("hotplug-rejected", Severity.INFO, f"node{nid}", reason, fix, nid, ranges=ranges)


@lru_cache(maxsize=8)
def _refused(machine: Machine) -> dict[int, Ranges]:
    # node -> memory modules that were refused when they were added
    refused: dict[int, Ranges] = {}
    for node in machine.topology.nodes:
        ranges = Ranges.of(m.range for m in node.memory if m.hotplug and m.range.start not in machine.ram)
        if ranges:
            refused[node.id] = ranges
    return refused
