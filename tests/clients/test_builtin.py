"""The unmodified tools on the built-in machine that a newcomer mounts first."""

import re

import pytest
from tools import bound, output

from tdxfs import nodes
from tdxfs.boot import boot
from tdxfs.capability import online_memory
from tdxfs.formats.topology import find
from tdxfs.idlist import format_list, parse_list
from tdxfs.model import GIB, KIB, MIB
from tdxfs.server import mounted

MACHINE = boot(find("mixed"))
NODES = sorted(nodes.online_nodes(MACHINE))


@pytest.fixture(scope="module")
def root():
    with mounted(MACHINE.topology) as where:
        yield where


def size(nid):
    """Bytes of a node's online memory."""
    return online_memory(MACHINE, nid).size


def cpus(nid):
    return frozenset(MACHINE.node_cpus.get(nid, ()))


def test_lstopo(root):
    """Every node with its memory, every CPU once, the caches, and the dax device that kmem could take."""
    shown = output(
        "lstopo-no-graphics", "--of", "console", "-v", "-", HWLOC_COMPONENTS="linux,stop", HWLOC_FSROOT=str(root)
    )

    found = re.findall(r"NUMANode L#[0-9]+ \(P#([0-9]+) local=([0-9]+)KB", shown)
    assert {nid: size(nid) // KIB for nid in NODES} == {int(nid): int(local) for nid, local in found}
    assert sorted(MACHINE.cpus) == sorted(int(cpu) for cpu in re.findall(r"PU L#[0-9]+ \(P#([0-9]+)\)", shown))
    assert len({cpu.package for cpu in MACHINE.topology.cpus}) == shown.count("L3Cache L#")
    assert re.search(r'Block\(SPM\) .*"dax0\.0"', shown)


def test_lsmem(root):
    """The blocks of every node add up to its memory."""
    shown = output("lsmem", "--sysroot", root, "-a", "-b", "-n", "-o", "SIZE,STATE,NODE", "--summary=never")

    found = dict.fromkeys(NODES, 0)
    for line in shown.splitlines():
        length, state, node = line.split()
        assert state == "online"
        found[int(node)] += int(length)
    assert {nid: size(nid) for nid in NODES} == found


def test_lscpu(root):
    """The CPUs of every node, and how many packages, cores and threads there are."""
    shown = dict(re.findall(r"^([^:]+): *(.*)$", output("lscpu", "--sysroot", root), re.MULTILINE))

    for nid in NODES:
        assert cpus(nid) == parse_list(shown[f"NUMA node{nid} CPU(s)"])
    assert len(MACHINE.cpus) == int(shown["CPU(s)"])
    assert len({cpu.package for cpu in MACHINE.topology.cpus}) == int(shown["Socket(s)"])
    assert 1 + max(cpu.thread for cpu in MACHINE.topology.cpus) == int(shown["Thread(s) per core"])


def test_numactl(root, tmp_path):
    """Nodes, their CPUs and sizes, and the distances between them."""
    shown = bound(root, tmp_path / "dev", "numactl", "-H")

    assert f"available: {len(NODES)} nodes ({format_list(NODES)})" == shown.splitlines()[0]
    for nid in NODES:
        numbers = " ".join(map(str, sorted(cpus(nid))))
        row = " ".join(f"{nodes.distance(MACHINE, nid, other):3}" for other in NODES)
        assert f"node {nid} cpus: {numbers}".rstrip() in [line.rstrip() for line in shown.splitlines()]
        assert f"node {nid} size: {size(nid) // MIB} MB\n" in shown
        assert f"  {nid}: {row}" in [line.rstrip() for line in shown.splitlines()]


def test_daxctl(root, tmp_path):
    """Both dax devices with their sizes and the nodes their memory would belong to."""
    shown = bound(root, tmp_path / "dev", "daxctl", "list", "-u")

    for device in MACHINE.dax.values():
        assert f'"chardev":"{device.name}",\n    "size":"{device.size / GIB:.2f} GiB' in shown
        assert f'"target_node":{MACHINE.regions[device.region].target_node},' in shown
