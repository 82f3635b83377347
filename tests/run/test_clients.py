"""Unmodified programs in a run of the built-in machine that a newcomer tries first."""

import re

import pytest
from runner import output, outputs, run

from tdxfs import nodes
from tdxfs.boot import boot
from tdxfs.formats.topology import find
from tdxfs.kmsg import format_dmesg

MACHINE = boot(find("mixed"))
CPUS = len(MACHINE.topology.cpus)
COMMANDS = {
    "numactl -H": "numactl -H",
    "numactl -s": "numactl -s",
    "interleave": "numactl --interleave=0,2 numactl -s",
    "preferred": "numactl --preferred=2 numactl -s",
    "many": "numactl --preferred-many=1,2 numactl -s",
    "on node 1": "numactl -N 1 numactl -s",
    "nproc on node 1": "numactl -N 1 nproc",
    "membind maps": "numactl --membind=1 cat /proc/self/numa_maps",
    "interleave maps": "numactl --interleave=0,2 cat /proc/self/numa_maps",
    "many maps": "numactl --preferred-many=1,2 cat /proc/self/numa_maps",
    "numastat": "numastat",
    "numastat -m": "numastat -m",
    "lscpu": "lscpu -p=CPU,NODE",
    "lsmem": "lsmem -b -n -o SIZE --summary=never",
    "lstopo": "lstopo-no-graphics --of console -v",
    "nproc": "nproc",
    "configured": "getconf _NPROCESSORS_CONF",
    "online": "getconf _NPROCESSORS_ONLN",
    "dmesg": "dmesg",
    "status": "cat /proc/self/status",
    "status of a thread": "cat /proc/thread-self/status",
    "status of a fork": "python3 -c \"import os; os.wait() if os.fork() else print(open('/proc/self/status').read())\"",
    "daxctl": "daxctl list -RDM",
}


@pytest.fixture(scope="module")
def said():
    return outputs("mixed", COMMANDS)


def values(text):
    """``key: words`` lines of numactl -s."""
    return {key: rest.split() for key, _, rest in (line.partition(": ") for line in text.splitlines())}


def test_numactl_hardware(said):
    """Nodes, their CPUs and distances are the machine's."""
    text = said["numactl -H"]

    for nid in nodes.online_nodes(MACHINE):
        assert list(map(str, MACHINE.node_cpus.get(nid, ()))) == re.search(f"node {nid} cpus:(.*)", text)[1].split()
        row = re.search(rf"^ *{nid}: (.*)$", text, re.MULTILINE)[1].split()
        assert [nodes.distance(MACHINE, nid, other) for other in nodes.online_nodes(MACHINE)] == list(map(int, row))


def test_numactl_show(said):
    """A program that says nothing may use every CPU and node of the machine."""
    shown = values(said["numactl -s"])

    assert ["default"] == shown["policy"]
    assert sorted(map(str, nodes.has_memory(MACHINE))) == shown["membind"]
    assert CPUS == len(shown["physcpubind"])


@pytest.mark.parametrize(
    ("name", "policy", "mask", "listed"),
    [
        ("interleave", "interleave", "interleavemask", ["0", "2"]),
        ("preferred", "preferred", "preferred", ["2"]),
        ("many", "preferred-many", "preferred", ["1", "2"]),
    ],
)
def test_policies_pass_through_exec(said, name, policy, mask, listed):
    """What numactl sets, the program that it becomes has."""
    shown = values(said[name])

    assert [policy] == shown["policy"]
    assert listed == shown[mask]


@pytest.mark.parametrize(
    ("name", "policy", "where"),
    [
        ("membind maps", "bind:1", {"N1"}),
        ("interleave maps", "interleave:0,2", {"N0", "N2"}),
        ("many maps", "prefer (many):1-2", {"N2"}),
    ],
)
def test_numa_maps(said, name, policy, where):
    """Every mapping has the policy, and its pages are on the nodes that it names, of those preferred the nearest."""
    lines = said[name].splitlines()

    assert all(line.partition(" ")[2].startswith(policy) for line in lines)
    assert where == {word.partition("=")[0] for line in lines for word in line.split() if re.match(r"N\d+=", word)}


def test_cpus_agree(said):
    """The scheduler, libc and the tools count the same CPUs."""
    counted = {int(said[name]) for name in ("nproc", "configured", "online")}
    assert {CPUS} == counted
    listed = [line for line in said["lscpu"].splitlines() if not line.startswith("#")]
    assert [f"{cpu.id},{cpu.node}" for cpu in MACHINE.topology.cpus] == listed
    assert CPUS == len(re.findall(r"PU L#[0-9]+ \(P#", said["lstopo"]))


def test_binding_to_the_cpus_of_a_node(said):
    """numactl -N leaves the CPUs of that node."""
    mine = MACHINE.node_cpus[1]

    assert str(len(mine)) == said["nproc on node 1"].strip()
    assert list(map(str, mine)) == values(said["on node 1"])["physcpubind"]


def test_memory(said):
    """lsmem adds up to the nodes' memory, lstopo shows every node and numastat a column for each."""
    total = sum(sum(part.size for part in MACHINE.node_ram[nid]) for nid in nodes.has_memory(MACHINE))

    assert total == sum(map(int, said["lsmem"].split()))
    assert len(nodes.has_memory(MACHINE)) == len(re.findall(r"NUMANode L#[0-9]+ \(P#", said["lstopo"]))
    for name in ("numastat", "numastat -m"):
        assert all(re.search(rf"[Nn]ode ?{nid}\b", said[name]) for nid in nodes.online_nodes(MACHINE))


@pytest.mark.parametrize("name", ["status", "status of a thread", "status of a fork"])
def test_status(said, name):
    """The process's own status names the nodes and CPUs of the machine, in a child that never called exec, too."""
    assert re.search(r"^Mems_allowed_list:\t0-2$", said[name], re.MULTILINE)
    assert re.search(rf"^Cpus_allowed_list:\t0-{CPUS - 1}$", said[name], re.MULTILINE)
    assert re.search(r"^VmRSS:\t *[1-9][0-9]* kB$", said[name], re.MULTILINE)


def test_dmesg(said):
    """dmesg prints the emulated log."""
    assert format_dmesg(MACHINE.log) == said["dmesg"]


def test_daxctl(said):
    """Every dax device, with its mappings."""
    for device in MACHINE.dax.values():
        assert f'"chardev":"{device.name}"' in said["daxctl"]
    assert '"mappings":' in said["daxctl"]


def test_nodes_that_are_not_there():
    """numactl refuses a node beyond the machine's as it does on Linux."""
    done = run("mixed", "numactl", "--membind=7", "true")

    assert done.returncode == 1
    assert "node argument 7 is out of range" in done.stderr


def test_memory_moves():
    """A program that touches memory takes it from the nodes that its policy names, and gives it back."""
    script = """
import re
def number(name, node, file):
    return int(re.search(name + ":? *([0-9]+)", open(f"/sys/devices/system/node/node{node}/{file}").read())[1])
def look():
    return [number("MemFree", n, "meminfo") for n in range(3)] + [number("numa_hit", 2, "numastat")]
before = look()
memory = b"x" * (64 << 20)
after = look()
del memory
print(*(b - a for b, a in zip(before, after)), look()[2] - after[2])
"""
    zero, one, two, hits, given_back = map(int, output("mixed", "numactl", "-m2", "python3", "-c", script).split())

    assert (zero, one) == (0, 0)
    assert 65536 <= two < 66560
    assert 16384 <= -hits < 16640
    assert 65536 <= given_back + 128 < 66560
