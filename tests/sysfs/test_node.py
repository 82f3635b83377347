"""Tests for `tdxfs.sysfs.node` and what hangs below a node."""

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.errors import NoEntry
from tdxfs.model import GIB, NodeCounters

NODE = "/sys/devices/system/node"


class TestLists:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("possible", b"0-3\n"),
            ("online", b"0-2\n"),
            ("has_memory", b"0-2\n"),
            ("has_cpu", b"0-1\n"),
            ("has_generic_initiator", b"\n"),
            ("tdx_capable", b"0\n"),
            ("tdx_mixed", b"1\n"),
            ("tdx_incapable", b"2\n"),
        ],
    )
    def test_nodes_in_a_state(self, name, expected):
        """Each list names the nodes in that state; a target node is possible only."""
        assert expected == tree().read(f"{NODE}/{name}")


class TestTdx:
    def test_bytes_add_up(self):
        """Half of node 1 lies in a CMR; a PAMT may have taken some of what is usable."""
        x86 = f"{NODE}/node1/x86"

        assert tree().read(f"{x86}/tdx_capable") == b"0\n"
        assert int(tree().read(f"{x86}/tdx_total_bytes")) == 2 * GIB
        assert int(tree().read(f"{x86}/tdx_convertible_bytes")) == 1 * GIB
        assert 0 < int(tree().read(f"{x86}/tdx_usable_bytes")) <= GIB

    def test_absent_without_tdx(self):
        """On a machine without TDX the files do not exist; the x86 directory stays, as in Linux."""
        plain = tree(evolve(MIXED, tdx=None))

        assert plain.list(f"{NODE}/node0/x86").names == ()
        with pytest.raises(NoEntry):
            plain.lookup(f"{NODE}/tdx_capable")


class TestAttributes:
    def test_distance_names_online_nodes_only(self):
        """One number per online node, in order of node number."""
        assert tree().read(f"{NODE}/node1/distance") == b"21 10 31\n"

    def test_cpu_masks(self):
        """The mask is as wide as the possible CPUs; a node without CPUs has an empty list."""
        assert tree().read(f"{NODE}/node1/cpumap") == b"c\n"
        assert tree().read(f"{NODE}/node1/cpulist") == b"2-3\n"
        assert tree().read(f"{NODE}/node2/cpulist") == b"\n"

    def test_meminfo_columns(self):
        """Key, colon and blanks are 16 columns wide, huge pages have no unit."""
        lines = tree().read(f"{NODE}/node1/meminfo").decode().splitlines()

        assert f"Node 1 MemTotal:       {2 * GIB // 1024:8} kB" == lines[0]
        assert "Node 1 HugePages_Total:     0" in lines

    def test_recorded_counters_win(self):
        """What was recorded from a real node, line for line, is shown instead of what would be derived."""
        recorded = evolve(MIXED, counters={1: NodeCounters(meminfo={"MemTotal": 4711, "MemFree": 42})})

        assert b"Node 1 MemTotal:           4711 kB\nNode 1 MemFree:              42 kB\n" == tree(recorded).read(
            f"{NODE}/node1/meminfo"
        )
        assert tree().read(f"{NODE}/node1/vmstat") == tree(recorded).read(f"{NODE}/node1/vmstat")

    def test_hmat(self):
        """Performance stands in initiators, and the initiator lists the node as a target."""
        assert tree().read(f"{NODE}/node2/access0/initiators/read_bandwidth") == b"1000\n"
        assert tree().list(f"{NODE}/node0/access0/targets").names == ("node2",)
        assert tree().read(f"{NODE}/node2/memory_side_cache/index1/size") == b"67108864\n"

    def test_links_lead_back(self):
        """A node's CPUs and memory blocks link to their directories, which link back."""
        assert f"{NODE}/node1" == tree().follow(f"{NODE}/node1/cpu2/node1")[0]
        assert f"{NODE}/node1" == tree().follow(f"{NODE}/node1/memory48/node1")[0]

    def test_no_name_misleads_libnuma(self):
        """Nothing but nodes begins with ``node`` in the node root (libnuma would take it for node 0)."""
        names = [name for name in tree().list(NODE).names if name.startswith("node")]

        assert sorted(names) == ["node0", "node1", "node2"]
