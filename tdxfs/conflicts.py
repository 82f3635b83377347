"""The conflicts of a machine: what its user cannot have, why, and what to type.

A rule is a function over a Machine; its docstring is the explanation that ``tdxfs explain KIND``
prints. Rules describe, they never refuse. While TDX is disabled only the rules about that speak:
everything else would be a consequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache

from attrs import evolve, frozen

from tdxfs import nodes, remedies
from tdxfs.capability import (
    CAPABLE,
    INCAPABLE,
    MIXED,
    Hole,
    Verdict,
    judge,
    judge_block,
    judge_dax,
    judge_node,
    judge_target_node,
)
from tdxfs.idlist import format_list
from tdxfs.model import Driver, Machine, Why
from tdxfs.policy import Boot, Cover, Hotplug, Report, Validate
from tdxfs.ranges import Range, Ranges
from tdxfs.remedies import Remedy
from tdxfs.tdmr import TDMR_NR_WARN

RESERVED_NR_WARN = 2


class Severity(Enum):
    """How much a conflict matters; from least to most."""

    INFO = "info"
    """Worth knowing."""
    WARNING = "warning"
    """Memory cannot be used, or a guest can be given memory that kills it."""
    ERROR = "error"
    """No TDX guest can run."""

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


@frozen
class Finding:
    """One conflict; (kind, subject) identifies it."""

    kind: str
    severity: Severity
    subject: str
    reason: str
    """One sentence."""
    remedy: Remedy
    node: int | None = None
    dax: str = ""
    ranges: Ranges = Ranges()


Rule = Callable[[Machine], Iterator[Finding]]


@lru_cache(maxsize=8)
def conflicts(machine: Machine) -> tuple[Finding, ...]:
    """Every conflict of the machine, in the order of the rule table; nothing without a TDX platform."""
    if machine.topology.tdx is None:
        return ()
    rules = [rule for kind, rule in RULES.items() if machine.tdx.enabled or kind in ALWAYS]
    return tuple(finding for rule in rules for finding in rule(machine))


def _verdicts(machine: Machine) -> dict[int, Verdict]:
    # of the nodes that a task can be given memory from
    found = sorted(nodes.has_memory(machine))
    mems = machine.default_mems
    return {nid: judge_node(machine, nid) for nid in found if mems is None or nid in mems}


def _capable(machine: Machine) -> frozenset[int]:
    return frozenset(nid for nid, verdict in _verdicts(machine).items() if verdict.word == CAPABLE)


def _holes(holes: Iterable[Hole]) -> Ranges:
    return Ranges.of(hole.range for hole in holes)


def tdx_disabled(machine: Machine) -> Iterator[Finding]:
    """
    TDX did not come up at boot, so no TDX guest can run. Under boot=strict one range of System RAM
    that is not convertible is enough; the exact range stands in `disabled_reason` and in the kernel log.
    """
    if machine.tdx.enabled:
        return
    reason = f"TDX is disabled: {machine.tdx.disabled_reason}."
    yield Finding("tdx-disabled", Severity.ERROR, "machine", reason, _enable(machine), ranges=machine.tdx.culprits)


def _enable(machine: Machine) -> Remedy:
    for axes in ({"boot": Boot.MIXED}, {"boot": Boot.MIXED, "cover": Cover.RAM}, {"cover": Cover.CONVERTIBLE}):
        if remedies.rebooted(machine, evolve(machine.policies, **axes)).tdx.enabled:
            return remedies.reboot(machine, **axes)
    return remedies.none("the TDX module refuses this machine's memory under every policy")


def tdmr_exhausted(machine: Machine) -> Iterator[Finding]:
    """
    The memory is in more pieces than the TDX module can describe: it takes a fixed number of TDMRs, and
    each has a fixed number of reserved areas for the holes in it. The kernel gave up and TDX is disabled.
    """
    if machine.tdx.exhausted:
        what = "TDMRs" if machine.tdx.exhausted == "tdmrs" else "reserved areas of a TDMR"
        reason = f"The {what} are exhausted: the memory is in too many pieces."
        yield Finding("tdmr-exhausted", Severity.ERROR, "machine", reason, _enable(machine))


def tdmr_nearly_exhausted(machine: Machine) -> Iterator[Finding]:
    """
    TDX is on, but little more memory can be described to the TDX module: fewer than four TDMRs are
    left, or fewer than two reserved areas in one of them. A change of the memory map can disable TDX.
    """
    platform = machine.topology.tdx
    assert platform is not None
    fix = remedies.none("the firmware's memory map decides into how many pieces memory falls")
    left = platform.max_tdmrs - len(machine.tdx.tdmrs)
    if left < TDMR_NR_WARN:
        reason = f"{len(machine.tdx.tdmrs)} of {platform.max_tdmrs} TDMRs are in use."
        yield Finding("tdmr-nearly-exhausted", Severity.INFO, "machine", reason, fix)
    for number, tdmr in enumerate(machine.tdx.tdmrs):
        if platform.max_reserved_per_tdmr - len(tdmr.reserved) < RESERVED_NR_WARN:
            reason = f"{len(tdmr.reserved)} of {platform.max_reserved_per_tdmr} reserved areas are in use."
            ranges = Ranges((tdmr.range,))
            yield Finding("tdmr-nearly-exhausted", Severity.INFO, f"tdmr{number}", reason, fix, ranges=ranges)


def incapable_node(machine: Machine) -> Iterator[Finding]:
    """
    No page of the node can back a TDX guest, and tasks can be given memory from it. A guest whose memory
    falls there dies at its first touch. Start what runs TDX guests with a memory policy that leaves the node out.
    """
    for nid, verdict in _verdicts(machine).items():
        if verdict.word == INCAPABLE:
            reason = f"No page of node {nid} can back a TDX guest ({_whys(verdict.holes)})."
            yield _node_finding(machine, "incapable-node", nid, reason, verdict, _bind_away(machine))


def mixed_node(machine: Machine) -> Iterator[Finding]:
    """
    Some pages of the node can back a TDX guest and some cannot: a node mask cannot tell them apart.
    Taking the memory blocks with incapable pages offline leaves a node that is capable.
    """
    for nid, verdict in _verdicts(machine).items():
        if verdict.word == MIXED:
            size = sum(hole.range.size for hole in verdict.holes)
            reason = f"{size} bytes of node {nid} cannot back a TDX guest ({_whys(verdict.holes)})."
            runs = tuple(_incapable_runs(machine, nid))
            yield _node_finding(machine, "mixed-node", nid, reason, verdict, remedies.offline(runs))


def incapable_blocks(machine: Machine) -> Iterator[Finding]:
    """
    A run of online memory blocks of a mixed node holds pages that cannot back a TDX guest. Offline, it
    cannot be given to one.
    """
    for nid, verdict in _verdicts(machine).items():
        if verdict.word == MIXED:
            size = machine.topology.memory.block_size
            for first, end in _incapable_runs(machine, nid):
                subject = f"memory{first}" if end == first + 1 else f"memory{first}-memory{end - 1}"
                window = Ranges((Range(first * size, end * size),))
                reason = f"Memory blocks {first} to {end - 1} of node {nid} cannot back a TDX guest."
                ranges = _holes(verdict.holes) & window
                fix = remedies.offline(((first, end),))
                yield Finding("incapable-blocks", Severity.WARNING, subject, reason, fix, nid, ranges=ranges)


def _incapable_runs(machine: Machine, nid: int) -> Iterator[tuple[int, int]]:
    # maximal runs of online blocks of a node that are not capable, found from the holes
    size = machine.topology.memory.block_size
    touched = Ranges.of(
        Range(hole.range.start // size, -(-hole.range.end // size)) for hole in judge_node(machine, nid).holes
    )
    for part in touched:
        for start, end, block in machine.blocks.within(part.start, part.end):
            if block.online:
                yield start, end


def default_policy(machine: Machine) -> Iterator[Finding]:
    """
    A task that says nothing about memory can be given pages of nodes that cannot back a TDX guest,
    although other nodes can. What runs TDX guests needs a memory policy.
    """
    verdicts = _verdicts(machine)
    bad = [nid for nid, verdict in verdicts.items() if not verdict]
    good = _capable(machine)
    if bad and good:
        reason = f"The default memory policy can reach node {format_list(bad)}, which cannot back a TDX guest."
        yield Finding("default-policy", Severity.WARNING, "default policy", reason, remedies.bind(good))


def _bind_away(machine: Machine) -> Remedy:
    good = _capable(machine)
    if not good:
        return remedies.none("no node of this machine is TDX capable")
    return remedies.bind(good)


def _node_finding(machine: Machine, kind: str, nid: int, reason: str, verdict: Verdict, remedy: Remedy) -> Finding:
    return Finding(kind, Severity.WARNING, f"node{nid}", reason, remedy, nid, ranges=_holes(verdict.holes))


def _whys(holes: Iterable[Hole]) -> str:
    return ", ".join(sorted({hole.why.value for hole in holes}))


def incapable_dax(machine: Machine) -> Iterator[Finding]:
    """
    A dax device holds memory that is not convertible: a guest that maps it dies at its first touch, and
    nothing that software does can change that.
    """
    fix = remedies.none("the firmware reports no CMR there, and no software can add one")
    for key, device in sorted(machine.dax.items()):
        holes = [hole for hole in judge_dax(machine, key).holes if hole.why is Why.NOT_CONVERTIBLE]
        if holes:
            reason = f"{device.name} holds memory that is not convertible."
            target = machine.regions[key[0]].target_node
            yield Finding(
                "incapable-dax", Severity.WARNING, device.name, reason, fix, target, device.name, _holes(holes)
            )


def dax_would_mix_node(machine: Machine) -> Iterator[Finding]:
    """
    The target node of a dax device is TDX capable now. With the device onlined there as System RAM it
    would not be any more, and guests on that node could be given memory that kills them.
    """
    for key, device in sorted(machine.dax.items()):
        target = machine.regions[key[0]].target_node
        if device.driver is Driver.KMEM or target is None or target not in nodes.has_memory(machine):
            continue
        if judge_node(machine, target) and not judge_target_node(machine, key):
            reason = f"Onlining {device.name} would make node {target} mixed."
            fix = remedies.none(f"keep {device.name} in devdax mode")
            yield Finding("dax-would-mix-node", Severity.INFO, device.name, reason, fix, target, device.name)


def target_node_absent(machine: Machine) -> Iterator[Finding]:
    """
    A dax device's memory would belong to a node that has no directory until some of it is online, so
    nothing under devices/system/node speaks about it. The device's own x86/target_node_tdx_capable does.
    """
    online = nodes.online_nodes(machine)
    for key, device in sorted(machine.dax.items()):
        target = machine.regions[key[0]].target_node
        if target is not None and target not in online:
            reason = f"{device.name} would belong to node {target}, which has no directory."
            fix = remedies.none("the node appears when kmem takes the device; x86/target_node_tdx_capable answers now")
            yield Finding("target-node-absent", Severity.INFO, device.name, reason, fix, target, device.name)


def not_covered(machine: Machine) -> Iterator[Finding]:
    """
    Memory is convertible, but no TDMR covers it, or it lies in a reserved area of one: mainline covers the
    RAM present at boot and nothing that comes later. Only a boot that covers every convertible range changes that.
    """
    for subject, nid, dax, holes in _uncovered(machine):
        reason = f"{subject} has convertible memory that TDX does not cover ({_whys(holes)})."
        again = remedies.rebooted(machine, evolve(machine.policies, cover=Cover.CONVERTIBLE))
        if again.tdx.enabled and subject not in {found[0] for found in _uncovered(again)}:
            fix = remedies.reboot(machine, cover=Cover.CONVERTIBLE)
        else:
            fix = remedies.none("covering every convertible range does not cover it either")
        yield Finding("not-covered", Severity.WARNING, subject, reason, fix, nid, dax, _holes(holes))


@lru_cache(maxsize=8)
def _uncovered(machine: Machine) -> tuple[tuple[str, int | None, str, tuple[Hole, ...]], ...]:
    found: list[tuple[str, int | None, str, tuple[Hole, ...]]] = []
    for nid, ram in sorted(machine.node_ram.items()):
        holes = _convertible_holes(judge(machine, ram))
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
    Memory blocks lie outside TDX memory and stay offline: with TDX on, the kernel refuses to online them
    (EPERM) and prints nothing. hotplug=allow lets them go online and makes the machine mixed.
    """
    if machine.policies.hotplug is Hotplug.ALLOW:
        return
    size = machine.topology.memory.block_size
    for nid, blocks in sorted(machine.node_blocks.items()):
        runs = [
            (start, end) for start, end, block in blocks.runs() if not block.online and not judge_block(machine, start)
        ]
        if runs:
            reason = f"Memory of node {nid} is offline and cannot go online while TDX is enabled."
            fix = remedies.set_policy(machine, hotplug=Hotplug.ALLOW)
            ranges = Ranges.of(Range(start * size, end * size) for start, end in runs)
            yield Finding("hotplug-rejected", Severity.INFO, f"node{nid}", reason, fix, nid, ranges=ranges)


def firmware_hidden(machine: Machine) -> Iterator[Finding]:
    """
    The firmware took memory that is not convertible off the memory map before the kernel saw it. Every
    node that is left can be capable, at the price of that memory.
    """
    for nid in sorted(set(machine.hidden.values)):
        ranges = Ranges.of(Range(start, end) for start, end, owner in machine.hidden.runs() if owner == nid)
        reason = f"The firmware hides {ranges.size} bytes that are not convertible."
        fix = remedies.none("with firmware=permissive the memory is there, but no TDX guest can use it")
        node = nid if nid >= 0 else None
        yield Finding(
            "firmware-hidden", Severity.INFO, f"hidden memory of node {nid}", reason, fix, node, ranges=ranges
        )


def bar_in_guest_range(machine: Machine) -> Iterator[Finding]:
    """
    A program can hand a PCI BAR to KVM as guest memory and, under validate=none, KVM checks nothing: the
    guest dies when it touches the BAR. validate=file refuses the memory slot.
    """
    if machine.policies.validate is not Validate.NONE:
        return
    for device in machine.topology.pci_devices:
        for bar in device.bars:
            if not judge(machine, Ranges((bar.range,))):
                subject = f"{device.address} resource{bar.index}"
                reason = f"KVM accepts {subject} as guest memory although it cannot back a TDX guest."
                fix = remedies.set_policy(machine, validate=Validate.FILE)
                node = device.numa_node if device.numa_node >= 0 else None
                ranges = Ranges((bar.range,))
                yield Finding("bar-in-guest-range", Severity.WARNING, subject, reason, fix, node, ranges=ranges)


def silent_report(machine: Machine) -> Iterator[Finding]:
    """
    Tasks can reach memory that kills a TDX guest, and under report=silent the kernel prints no more than
    mainline: the guest's owner learns neither the address nor the reason.
    """
    if machine.policies.report is Report.SILENT and any(not verdict for verdict in _verdicts(machine).values()):
        fix = remedies.set_policy(machine, report=Report.MESSAGE)
        reason = "A TDX guest that meets incapable memory dies without a reason."
        yield Finding("silent-report", Severity.INFO, "machine", reason, fix)


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        tdx_disabled,
        tdmr_exhausted,
        tdmr_nearly_exhausted,
        default_policy,
        incapable_node,
        mixed_node,
        incapable_blocks,
        incapable_dax,
        dax_would_mix_node,
        target_node_absent,
        not_covered,
        hotplug_rejected,
        firmware_hidden,
        bar_in_guest_range,
        silent_report,
    )
}
"""Kind -> rule."""

ALWAYS = frozenset({"tdx-disabled", "tdmr-exhausted", "firmware-hidden"})
"""Kinds that speak while TDX is disabled."""
