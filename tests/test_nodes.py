"""Which nodes are in which state."""

from hypothesis import given
from strategies import machines

from tdxfs import nodes
from tdxfs.capability import judge_node
from tdxfs.errors import NoEntry
from tdxfs.model import PAGE_SIZE
from tdxfs.root import Root
from tdxfs.sysfs.codec import LIST
from tdxfs.tree import Tree

NODE = "/sys/devices/system/node"


def listed(machine, name):
    return LIST.parse(Tree(Root, machine).read(f"{NODE}/{name}"))


@given(machines)
def test_partition_of_has_memory(machine):
    """tdx_capable, tdx_mixed and tdx_incapable are disjoint and make up has_memory; without TDX they are absent."""
    names = ("tdx_capable", "tdx_mixed", "tdx_incapable")
    if machine.topology.tdx is None:
        for name in names:
            try:
                listed(machine, name)
            except NoEntry:
                continue
            raise AssertionError(f"{name} is there")
        return
    parts = [listed(machine, name) for name in names]

    assert sorted(nid for part in parts for nid in part) == sorted(nodes.has_memory(machine))
    for part, word in zip(parts, ("capable", "mixed", "incapable"), strict=True):
        assert {judge_node(machine, nid).word for nid in part} <= {word}


@given(machines)
def test_states_are_nested(machine):
    """Nodes with normal memory have memory, those are online, and whatever is online is possible."""
    assert nodes.has_normal_memory(machine) <= nodes.has_memory(machine) <= nodes.online_nodes(machine)
    assert nodes.has_cpu(machine) <= nodes.online_nodes(machine) <= nodes.possible_nodes(machine)


@given(machines)
def test_has_memory(machine):
    """A node has memory if one of its blocks is online."""
    expected = {nid for _, _, block in machine.blocks.runs() if block.online for nid in block.nodes}

    assert expected == nodes.has_memory(machine)


@given(machines)
def test_online_nodes_have_directories(machine):
    """Exactly the online nodes have a directory."""
    names = {name for name in Tree(Root, machine).list(NODE).names if name[4:].isdecimal()}

    assert {f"node{nid}" for nid in nodes.online_nodes(machine)} == names


@given(machines)
def test_distances(machine):
    """10 to itself and more to others, as the table of the topology says or as Linux assumes."""
    known = {node.id: row for row, node in enumerate(machine.topology.nodes)}
    for a in nodes.possible_nodes(machine):
        for b in nodes.possible_nodes(machine):
            table = machine.topology.distances if a in known and b in known else ()
            expected = table[known[a]][known[b]] if table else 10 if a == b else 20
            assert expected == nodes.distance(machine, a, b)


@given(machines)
def test_pfn_of_ram(machine):
    """The first and the last page of each stretch of RAM belong to its node."""
    for start, end, nid in machine.ram.runs():
        assert nid == nodes.pfn_to_nid(machine, start // PAGE_SIZE) == nodes.pfn_to_nid(machine, end // PAGE_SIZE - 1)
