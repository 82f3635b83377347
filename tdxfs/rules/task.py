"""Rules about the processes that run on the machine."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs import remedies
from tdxfs.idlist import format_list
from tdxfs.model import Machine
from tdxfs.rules.finding import Finding, Severity, capable, verdicts
from tdxfs.zonelists import reachable


def task_policy(machine: Machine) -> Iterator[Finding]:
    """
    A process that runs on the machine can be given pages of nodes that cannot back a TDX guest, although other nodes
    can: by its own memory policy, or by that of one of its mappings or threads. A TDX guest in it can die of that.
    """
    good = capable(machine)
    bad = verdicts(machine).keys() - good
    if not good or not bad:
        return
    for pid, reached in sorted(_reached(machine).items()):
        if reached & bad:
            who = f"PID {pid} ({machine.tasks[pid].name})"
            which = f"node {format_list(reached & bad)}, which cannot back a TDX guest"
            fix = remedies.bind_process(pid, good)
            yield Finding("task-policy", Severity.WARNING, who, f"{who} may allocate on {which}.", fix)


def _reached(machine: Machine) -> dict[int, frozenset[int]]:
    # process -> the nodes that any page of it can come from
    found: dict[int, frozenset[int]] = {}
    for pid, task in machine.tasks.items():
        leader = task.leader or pid
        if leader in machine.tasks:
            policies = {task.policy, *task.mappings.values}
            nids = frozenset().union(*(reachable(machine, task, policy) for policy in policies))
            found[leader] = found.get(leader, frozenset()) | nids
    return found
