"""The conflicts of a machine: what its user cannot have, why, and what to type.

A rule is a function over a Machine; its docstring is the explanation that ``tdxfs explain KIND``
prints. Rules describe, they never refuse. While TDX is disabled only the rules about that speak:
everything else would be a consequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from immutables import Map

from tdxfs.model import ConflictNumbers, Machine
from tdxfs.rules import coverage, device, memory, task, tdx
from tdxfs.rules.finding import Finding, Severity

__all__ = ["RULES", "Finding", "Severity", "conflicts", "numbered"]

Rule = Callable[[Machine], Iterator[Finding]]


@lru_cache(maxsize=8)
def conflicts(machine: Machine) -> tuple[Finding, ...]:
    """Every conflict of the machine, in the order of the rule table; nothing without a TDX platform."""
    if machine.topology.tdx is None:
        return ()
    rules = [rule for kind, rule in RULES.items() if machine.tdx.enabled or kind in ALWAYS]
    return tuple(finding for rule in rules for finding in rule(machine))


@lru_cache(maxsize=4)
def numbered(machine: Machine) -> dict[int, Finding]:
    """
    Number -> conflict. One that lasts from look to look keeps its number, a new one gets the next that was never used:
    it costs the rules, so nobody numbers the conflicts that nobody looks at.
    """
    before = machine.conflict_numbers
    found = {(finding.kind, finding.subject): finding for finding in conflicts(machine)}
    numbers: dict[tuple[str, str], int] = {}
    following = before.next
    for key in found:
        number = before.numbers.get(key)
        numbers[key] = following if number is None else number
        following += number is None
    machine.see_numbers(ConflictNumbers(Map(numbers), following))
    return {numbers[key]: finding for key, finding in found.items()}


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        tdx.tdx_disabled,
        tdx.tdmr_exhausted,
        tdx.tdmr_nearly_exhausted,
        memory.default_policy,
        task.task_policy,
        memory.incapable_node,
        memory.mixed_node,
        memory.incapable_blocks,
        device.incapable_dax,
        device.dax_would_mix_node,
        device.target_node_absent,
        coverage.not_covered,
        coverage.hotplug_rejected,
        tdx.firmware_hidden,
        device.bar_in_guest_range,
        memory.silent_report,
    )
}
"""Kind -> rule."""

ALWAYS = frozenset({"tdx-disabled", "tdmr-exhausted", "firmware-hidden"})
"""Kinds that speak while TDX is disabled."""
