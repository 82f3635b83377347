"""Weights of the weighted interleave policy: those that are written, and those that follow bandwidths."""

import gzip
import json
from math import gcd

import pytest
from attrs import evolve
from captures import GOLDEN, needs_captures
from hypothesis import given
from hypothesis import strategies as st
from machines import MIXED, tree, wrote

from tdxfs.boot import boot
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.model import GIB, Access, Memory, Node
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.tree import Tree
from tdxfs.zonelists import il_weight

AT = "/sys/kernel/mm/mempolicy/weighted_interleave"
STAGES = sorted(
    f"{path.parent.parent.name}/{path.parent.name}"
    for kernel in ("k73", "k612")
    for path in GOLDEN.glob(f"*-{kernel}/*/sys.jsonl.gz")
)


def read(machine, name):
    return machine.read(f"{AT}/{name}").decode().rstrip("\n")


def shown(machine):
    """What every file of the directory says."""
    return {name: read(machine, name) for name in machine.list(AT).names}


def measured(*bandwidths, **more):
    """Nodes of a GiB each whose CPUs read and write so many MiB/s of it; None: nobody knows."""
    access = [None if one is None else Access((0,), one, one + 7) for one in bandwidths]
    nodes = tuple(
        Node(nid, (Memory(Range(nid * GIB, (nid + 1) * GIB)),), access1=one) for nid, one in enumerate(access)
    )
    return evolve(MIXED, kernel="7.3", nodes=nodes, distances=(), dax_regions=(), tdx=None, **more)


def recorded(stage):
    """What a real kernel showed: name -> text."""
    with gzip.open(GOLDEN / stage / "sys.jsonl.gz", "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines if AT in line]
    return {entry["p"].removeprefix(f"{AT}/"): entry["c"].rstrip("\n") for entry in entries if entry["t"] == "f"}


class TestGolden:
    @needs_captures
    @pytest.mark.parametrize("stage", STAGES)
    def test_a_recorded_machine(self, stage):
        """Names and weights are those that the real kernel made of the machine's bandwidths, hot-added nodes too."""
        topology = import_sysfs(GOLDEN / stage, "dram", "recorded")

        assert recorded(stage) == shown(Tree(Root, boot(topology)))


class TestWritten:
    def test_until_auto(self):
        """A kernel without auto has a file per possible node; 0 and nothing are the default."""
        machine = tree(evolve(MIXED, kernel="6.12"))
        assert dict.fromkeys(("node0", "node1", "node2", "node3"), "1") == shown(machine)

        for text, weight in (("9", "9"), ("0", "1"), ("255", "255"), ("\n", "1"), ("0x10", "16")):
            assert wrote(machine, f"{AT}/node3", text) == "ok"
            assert weight == read(machine, "node3")
        assert ["EINVAL"] * 3 == [wrote(machine, f"{AT}/node3", text) for text in ("256", "-1", "much")]

    def test_with_auto(self):
        """0 and nothing are no weights any more, nodes without memory have no file, and a weight ends auto."""
        machine = tree(measured(300, 100))
        assert {"node0": "3", "node1": "1", "auto": "true"} == shown(machine)

        assert ["EINVAL"] * 3 == [wrote(machine, f"{AT}/node1", text) for text in ("256", "0", "\n")]
        assert wrote(machine, f"{AT}/node1", "9") == "ok"
        assert {"node0": "3", "node1": "9", "auto": "false"} == shown(machine)

        assert ["ok", "ok"] == [wrote(machine, f"{AT}/auto", word) for word in ("1", "true")]
        assert {"node0": "3", "node1": "1", "auto": "true"} == shown(machine)
        assert wrote(machine, f"{AT}/auto", "N") == "ok"
        assert {"node0": "3", "node1": "1", "auto": "false"} == shown(machine)

    def test_auto_of_nothing(self):
        """Where no bandwidth is known nothing can follow it: ENODEV."""
        machine = tree(measured(None, None))
        assert {"node0": "1", "node1": "1", "auto": "true"} == shown(machine)

        assert ["ENODEV", "ok", "ENODEV"] == [wrote(machine, f"{AT}/auto", word) for word in ("1", "0", "1")]


class TestAuto:
    def test_a_node_that_comes(self):
        """Memory of a node whose bandwidth is known changes all weights; what is offline does not count."""
        topology = measured(400, 100)
        topology = evolve(topology, memory=evolve(topology.memory, offline="8-15"))
        machine = tree(topology)
        assert {"node0": "1", "auto": "true"} == shown(machine)

        assert wrote(machine, "/sys/devices/system/memory/memory8/state", "online") == "ok"
        assert {"node0": "25", "node1": "6", "auto": "true"} == shown(machine)

        assert wrote(machine, "/sys/devices/system/memory/memory8/state", "offline") == "ok"
        assert {"node0": "25", "auto": "true"} == shown(machine)

    def test_a_node_that_nobody_measured(self):
        """Without a bandwidth it has weight 1, and the others keep theirs."""
        topology = measured(300, 100, None)
        machine = tree(evolve(topology, memory=evolve(topology.memory, offline="16-23")))
        assert wrote(machine, "/sys/devices/system/memory/memory16/state", "online") == "ok"

        assert {"node0": "3", "node1": "1", "node2": "1", "auto": "true"} == shown(machine)

    def test_written_weights_stay(self):
        """Once a weight is written, nodes that come change none."""
        topology = measured(400, 100)
        machine = tree(evolve(topology, memory=evolve(topology.memory, offline="8-15")))
        assert wrote(machine, f"{AT}/node0", "2") == "ok"
        assert wrote(machine, "/sys/devices/system/memory/memory8/state", "online") == "ok"

        assert {"node0": "2", "node1": "1", "auto": "false"} == shown(machine)

    @given(st.lists(st.one_of(st.none(), st.integers(0, 1 << 20)), min_size=1, max_size=6))
    def test_weights_of_bandwidths(self, bandwidths):
        """1 to 32, without a common divisor, and never more for the slower one."""
        machine = boot(measured(*bandwidths))
        weights = [il_weight(machine, nid) for nid in range(len(bandwidths))]

        assert all(1 <= weight <= 32 for weight in weights)
        assert gcd(*weights) == 1
        for mine, weight in zip(bandwidths, weights, strict=True):
            assert all(
                weight >= less for other, less in zip(bandwidths, weights, strict=True) if (other or 0) <= (mine or 0)
            )
