"""Weights of the weighted interleave policy: written, or made of the nodes' bandwidths; compare mm/mempolicy.c."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from tdxfs import nodes
from tdxfs.errors import InvalidValue, NoDevice
from tdxfs.model import Machine, changed, kernel_at_least, shared

WEIGHTINESS = 32
"""What the weights that are made of bandwidths amount to, about, before they are reduced."""


def set_weight(machine: Machine, nid: int, weight: int) -> Machine:
    """
    What writing a node's weight does (``node_store``): it is kept, and none follows bandwidths any more. 0 is the
    default, 1, and InvalidValue since 7.3.
    """
    if not weight and kernel_at_least(machine.topology.kernel, "7.3"):
        raise InvalidValue("a weight of 0")
    return changed(machine, weights={**machine.weights, nid: weight or 1}, weights_auto=False)


def set_auto(machine: Machine, on: bool) -> Machine:
    """
    What writing ``auto`` does: weights that are not to follow bandwidths stay as they are; NoDevice if they are to,
    and no node's bandwidth is known.
    """
    if not on:
        return changed(machine, weights_auto=False)
    if _bandwidths(machine).keys().isdisjoint(nodes.online_nodes(machine)):
        raise NoDevice("no node's bandwidth is known")
    return machine if machine.weights_auto else changed(machine, weights=_reduced(machine), weights_auto=True)


def with_bandwidths(machine: Machine, before: Machine | None = None) -> Machine:
    """
    The machine after its blocks changed from what they were `before` (None: it boots): if a node got its first
    memory whose bandwidth is known, and the weights are to follow, all are made anew (``mempolicy_set_node_perf``).
    Without a bandwidth a node has its weight of before.
    """
    known = _bandwidths(machine).keys()
    if not known or not machine.weights_auto:
        return machine
    came = nodes.has_memory(machine) - (nodes.has_memory(before) if before is not None else frozenset())
    return changed(machine, weights=_reduced(machine)) if known & came else machine


@shared("topology")
def _bandwidths(machine: Machine) -> Mapping[int, int]:
    # node -> MiB/s from its best CPUs, in the worse direction; a kernel that makes no weights of them needs none
    if not kernel_at_least(machine.topology.kernel, "7.3"):
        return {}
    known = ((node.id, node.access1) for node in machine.topology.nodes)
    return {
        nid: min(access.read_bandwidth or 0, access.write_bandwidth or 0)
        for nid, access in known
        if access is not None and access.measured
    }


def _reduced(machine: Machine) -> Mapping[int, int]:
    # reduce_interleave_weights()
    memory, bandwidths = nodes.has_memory(machine), _bandwidths(machine)
    total = sum(bandwidths.get(nid, 0) for nid in memory) or 1
    weights = {nid: max(WEIGHTINESS * bandwidths.get(nid, 0) // total, 1) for nid in memory}
    divisor = gcd(*weights.values())
    return {nid: weight // divisor for nid, weight in weights.items()}
