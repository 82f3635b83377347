"""Tests for `tdxfs.zonelists`: in which order nodes are tried, and where pages come from."""

import pytest
from machines import MIXED, booted

from tdxfs import zonelists
from tdxfs.model import GIB, Memory, MemPolicy, Mode, Node, Task, Topology
from tdxfs.ranges import Range

ROW = Topology(
    nodes=tuple(Node(n, (Memory(Range(4 * n * GIB, 4 * (n + 1) * GIB)),)) for n in range(4)),
    distances=((10, 20, 30, 20), (20, 10, 20, 30), (30, 20, 10, 20), (20, 30, 20, 10)),
)
"""Four nodes in a ring."""


class TestOrder:
    def test_zonelists(self):
        """Nearest first; among equals the next node, so that each is first of its equals about as often."""
        expected = {0: (0, 1, 3, 2), 1: (1, 2, 0, 3), 2: (2, 3, 1, 0), 3: (3, 0, 2, 1)}

        assert expected == zonelists.zonelists(booted(ROW))

    @pytest.mark.parametrize(
        ("policy", "tried"),
        [
            (MemPolicy(), (0, 1, 2)),
            (MemPolicy(Mode.LOCAL), (0, 1, 2)),
            (MemPolicy(Mode.BIND, frozenset({1, 2})), (1, 2)),
            (MemPolicy(Mode.BIND, frozenset({0, 1}), home=1), (1, 0)),
            (MemPolicy(Mode.PREFERRED, frozenset({2})), (2, 0, 1)),
            (MemPolicy(Mode.PREFERRED_MANY, frozenset({1, 2})), (1, 2, 0)),
            (MemPolicy(Mode.INTERLEAVE, frozenset({1, 2})), (1, 0, 2)),
        ],
    )
    def test_order(self, policy, tried):
        """Bind keeps to its nodes; every other mode falls back to all of them, nearest first."""
        assert tried == zonelists.order(booted(MIXED), Task(1), policy, 0)

    def test_interleaving_takes_turns(self):
        """Page n of an interleaved range starts at the n-th of the nodes."""
        policy = MemPolicy(Mode.INTERLEAVE, frozenset({0, 2}))

        assert [0, 2, 0] == [zonelists.order(booted(MIXED), Task(1), policy, 0, page)[0] for page in range(3)]

    def test_mems_allowed_limits_all(self):
        """No policy reaches a node that the task may not use."""
        task = Task(1, mems_allowed=frozenset({0, 1}))

        assert (0, 1) == zonelists.order(booted(MIXED), task, MemPolicy(), 0)
        assert frozenset({0, 1}) == zonelists.reachable(booted(MIXED), task, MemPolicy(Mode.LOCAL))
        assert frozenset({1}) == zonelists.reachable(booted(MIXED), task, MemPolicy(Mode.BIND, frozenset({1, 2})))

    def test_place(self):
        """Pages go where the policy says, and further on when a node is full."""
        machine = booted(MIXED)

        def place(policy, pages, **free):
            return zonelists.place(machine, Task(1), policy, 0, pages, lambda nid: free.get(f"n{nid}", 1000))

        assert {0: 10} == place(MemPolicy(), 10)
        assert {0: 4, 1: 6} == place(MemPolicy(), 10, n0=4)
        assert {1: 5, 2: 5} == place(MemPolicy(Mode.INTERLEAVE, frozenset({1, 2})), 10)
        assert {1: 10} == place(MemPolicy(Mode.BIND, frozenset({1})), 10, n1=3)
        assert {0: 2, 1: 1} == place(MemPolicy(Mode.INTERLEAVE, frozenset({0, 1})), 3)
