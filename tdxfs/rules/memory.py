"""Rules about nodes and memory blocks that tasks can be given memory from."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs import remedies
from tdxfs.capability import INCAPABLE, MIXED, Hole, Verdict, incapable_blocks_of
from tdxfs.idlist import format_list
from tdxfs.model import Machine
from tdxfs.policy import Report
from tdxfs.ranges import Range, Ranges
from tdxfs.remedies import Remedy
from tdxfs.render import rounded
from tdxfs.rules.finding import Finding, Severity, capable, ranges_of, verdicts, whys
from tdxfs.transitions.memory import fixed_blocks


def default_policy(machine: Machine) -> Iterator[Finding]:
    """
    A task that says nothing about memory can be given pages of nodes that cannot back a TDX guest,
    although other nodes can. What runs TDX guests needs a memory policy.
    """
    bad = [nid for nid, verdict in verdicts(machine).items() if not verdict]
    good = capable(machine)
    if bad and good:
        where = f"node{'s' if len(bad) > 1 else ''} {format_list(bad)}"
        reason = f"The default memory policy can reach {where}, whose memory can kill a TDX guest."
        yield Finding("default-policy", Severity.WARNING, "default policy", reason, remedies.bind(good))


def incapable_node(machine: Machine) -> Iterator[Finding]:
    """
    No page of the node can back a TDX guest, and tasks can be given memory from it. A guest whose memory
    falls there dies at its first touch. Start what runs TDX guests with a memory policy that leaves the node out.
    """
    for nid, verdict in verdicts(machine).items():
        if verdict.word == INCAPABLE:
            reason = f"No page of node {nid} can back a TDX guest ({whys(verdict.holes)})."
            yield _node_finding("incapable-node", nid, reason, verdict, _bind_away(machine, nid))


def mixed_node(machine: Machine) -> Iterator[Finding]:
    """
    Some pages of the node can back a TDX guest and some cannot: a node mask cannot tell them apart.
    Taking the memory blocks with incapable pages offline leaves a node that is capable; the kernel
    can refuse that for a block in which it keeps data of its own.
    """
    for nid, verdict in verdicts(machine).items():
        if verdict.word == MIXED:
            total = rounded(verdict.total)
            reason = f"Not all of the {total} of node {nid} can back a TDX guest ({whys(verdict.holes)})."
            fix = _offline(machine, nid, incapable_blocks_of(machine, nid))
            yield _node_finding("mixed-node", nid, reason, verdict, fix)


def incapable_blocks(machine: Machine) -> Iterator[Finding]:
    """
    A run of online memory blocks of a mixed node holds pages that cannot back a TDX guest. Offline, it
    cannot be given to one. Of an incapable node every block is incapable, and incapable-node says so.
    """
    size = machine.topology.memory.block_size
    for nid, verdict in verdicts(machine).items():
        if verdict.word != MIXED:
            continue
        runs, fixed = incapable_blocks_of(machine, nid), fixed_blocks(machine, nid)
        for run in sorted((*(runs - fixed), *(runs & fixed))):
            window = Range(run.start * size, run.end * size)
            holes = [Hole(part, hole.why) for hole in verdict.holes for part in Ranges((hole.range,)).within(window)]
            if run.size == 1:
                subject, blocks = f"memory{run.start}", f"Memory block {run.start} of node {nid} has"
            else:
                subject = f"memory{run.start}-memory{run.end - 1}"
                blocks = f"Memory blocks {run.start} to {run.end - 1} of node {nid} have"
            if any(len(block.nodes) > 1 for _, _, block in machine.blocks.within(run.start, run.end)):
                # the other node may have pages of its own there that cannot
                subject += f" of node{nid}"
            reason = f"{blocks} pages that cannot back a TDX guest ({whys(holes)})."
            fix = _offline(machine, nid, Ranges((run,)))
            yield Finding("incapable-blocks", Severity.WARNING, subject, reason, fix, nid, ranges=ranges_of(holes))


def _offline(machine: Machine, nid: int, runs: Ranges) -> Remedy:
    # take the blocks offline if that is possible and leaves the node some memory, else stay away from the node
    online = Ranges.of(Range(a, b) for a, b, block in machine.node_blocks[nid].runs() if block.online)
    remedy = remedies.offline(machine, runs)
    return remedy if remedy.command and online - runs else _bind_away(machine, nid)


def _bind_away(machine: Machine, nid: int) -> Remedy:
    good = capable(machine)
    if good:
        return remedies.bind(good)
    return remedies.none(f"no node of this machine is TDX capable, so that nothing can take the place of node {nid}")


def _node_finding(kind: str, nid: int, reason: str, verdict: Verdict, remedy: Remedy) -> Finding:
    return Finding(kind, Severity.WARNING, f"node{nid}", reason, remedy, nid, ranges=ranges_of(verdict.holes))


def silent_report(machine: Machine) -> Iterator[Finding]:
    """
    Tasks can reach memory that kills a TDX guest, and under report=silent the kernel prints no more than
    mainline: the guest's owner learns neither the address nor the reason.
    """
    if machine.policies.report is Report.SILENT and not all(verdicts(machine).values()):
        fix = remedies.set_policy(report=Report.MESSAGE)
        reason = "A TDX guest that meets incapable memory dies without a reason."
        yield Finding("silent-report", Severity.INFO, "machine", reason, fix)
