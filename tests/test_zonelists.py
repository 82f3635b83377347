"""Tests for `tdxfs.zonelists`: in which order nodes are tried, and where pages come from."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
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
        assert tried == zonelists.turns(booted(MIXED), Task(1), policy, 0)[0].nodes

    @pytest.mark.parametrize(
        ("mode", "taken"),
        [(Mode.INTERLEAVE, [0, 2, 0, 2, 0, 2, 0, 2]), (Mode.WEIGHTED_INTERLEAVE, [0, 0, 0, 2, 0, 0, 0, 2])],
    )
    def test_interleaving_takes_turns(self, mode, taken):
        """Each node gives one page in its turn, or as many as its weight says; other weights do not matter."""
        machine = evolve(booted(MIXED), weights={0: 3, 1: 77})
        turns = zonelists.turns(machine, Task(1), MemPolicy(mode, frozenset({0, 2})), 0)
        weights = [turn.weight for turn in turns]

        assert taken == [turns[zonelists.position(weights, page)[0]].nodes[0] for page in range(8)]

    def test_mems_allowed_limits_all(self):
        """No policy reaches a node that the task may not use."""
        task = Task(1, mems_allowed=frozenset({0, 1}))

        assert (0, 1) == zonelists.turns(booted(MIXED), task, MemPolicy(), 0)[0].nodes
        assert frozenset({0, 1}) == zonelists.reachable(booted(MIXED), task, MemPolicy(Mode.LOCAL))
        assert frozenset({1}) == zonelists.reachable(booted(MIXED), task, MemPolicy(Mode.BIND, frozenset({1, 2})))

    def test_place(self):
        """Pages go where the policy says, and further on when a node is full."""
        machine = booted(MIXED)

        def place(policy, pages, **free):
            return zonelists.place(machine, Task(1), policy, 0, 0, pages, lambda nid: free.get(f"n{nid}", 1000))

        assert {0: 10} == place(MemPolicy(), 10)
        assert {0: 4, 1: 6} == place(MemPolicy(), 10, n0=4)
        assert {1: 5, 2: 5} == place(MemPolicy(Mode.INTERLEAVE, frozenset({1, 2})), 10)
        assert {1: 10} == place(MemPolicy(Mode.BIND, frozenset({1})), 10, n1=3)
        assert {0: 2, 1: 1} == place(MemPolicy(Mode.INTERLEAVE, frozenset({0, 1})), 3)

    def test_place_by_weights(self):
        """Weighted interleave gives each node its share, and the rest of it to the next ones when a node is full."""
        machine = evolve(booted(MIXED), weights={1: 3})
        policy = MemPolicy(Mode.WEIGHTED_INTERLEAVE, frozenset({1, 2}))

        def place(first, pages, **free):
            return zonelists.place(machine, Task(1), policy, 0, first, pages, lambda nid: free.get(f"n{nid}", 1000))

        assert {1: 30, 2: 10} == place(0, 40)
        assert {1: 30, 2: 10} == place(7, 40)
        assert [{1: 2}, {1: 1, 2: 1}, {2: 1, 1: 1}] == [place(first, 2) for first in (1, 2, 3)]
        assert {1: 5, 0: 25, 2: 10} == place(0, 40, n1=5)


weights = st.lists(st.integers(1, 255), min_size=1, max_size=6)


class TestShares:
    @given(weights, st.integers(0, 1 << 40), st.integers(0, 3000))
    def test_page_by_page(self, weights, first, count):
        """As many as a walk over the pages counts, each page being in the turn that the weights give it."""
        turn = [number for number, weight in enumerate(weights) for _ in range(weight)]
        walked = [turn[page % len(turn)] for page in range(first, first + count)]

        assert [walked.count(number) for number in range(len(weights))] == zonelists.shares(weights, first, count)
        assert turn[first % len(turn)] == zonelists.position(weights, first)[0]

    @given(weights, st.integers(0, 1 << 40), st.integers(0, 1 << 40))
    def test_whole_rounds_are_exact(self, weights, first, rounds):
        """Over any multiple of the sum of the weights each share is that multiple of its weight, wherever it begins."""
        expected = [rounds * weight for weight in weights]

        assert expected == zonelists.shares(weights, first, rounds * sum(weights))
