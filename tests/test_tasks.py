"""Tests for `tdxfs.tasks`: the lines, what they do, and the memory that tasks hold."""

import errno

import pytest
from attrs import evolve
from immutables import Map
from machines import MIXED, booted, tree

from tdxfs import counters, nodes, tasks
from tdxfs.errors import InvalidValue, Refusal
from tdxfs.model import MemPolicy, Mode, Task
from tdxfs.procfs.task import held, numa_maps, stat, status
from tdxfs.ranges import Range, RunMap
from tdxfs.root import Root
from tdxfs.tasks import Held
from tdxfs.tree import Tree

CONTROL = "/sys/kernel/debug/tdxfs/task_control/change"
BIND = MemPolicy(Mode.BIND, frozenset({1}), frozenset({1, 7}), static=True, home=0)
MAPS = (
    "10000-14000 rw-p 00000000 00:00 0 \n20000-21000 r-xp 00000000 08:01 7 /bin/a b\n30000-31000 rw-p 0 0:0 0 [stack]\n"
)
REAL = """\
00010000 default anon=4 dirty=4 N0=4 kernelpagesize_kB=4
00020000 prefer (many):0 file=/bin/a\\040b mapped=1 N0=1 kernelpagesize_kB=4
00030000 default stack
"""


def after(*lines):
    known = Map()
    for line in lines:
        known = tasks.change(known, line)
    return known


class TestLines:
    def test_fork_inherits(self):
        """A child has its parent's policy, mappings and CPUs, and a name of its own."""
        where = Range(0x10000, 0x20000)
        known = after(
            tasks.forked(5, 1, "sh"),
            tasks.policy_set(5, 5, BIND),
            tasks.mapping_set(5, where, BIND),
            tasks.affinity_set(5, 5, {0, 2}),
            tasks.forked(6, 5, "a name"),
        )

        assert evolve(known[5], pid=6, name="a name") == known[6]
        assert (BIND, BIND, {0, 2}) == (known[6].policy, known[6].mappings.get(0x10000), known[6].cpus)

    def test_exec_keeps_the_policy(self):
        """A new program has the policy, and no mappings."""
        where = Range(0x10000, 0x20000)
        known = after(
            tasks.forked(5, 1, "sh"),
            tasks.policy_set(5, 5, BIND),
            tasks.mapping_set(5, where, BIND),
            tasks.pages_moved(5, where, 0),
            tasks.executed(5, 1, "cat"),
        )

        assert Task(5, "cat", policy=BIND) == known[5]
        assert Task(6, "ls", policy=BIND) == tasks.change(known, tasks.executed(6, 5, "ls"))[6]

    def test_threads(self):
        """A thread's policy is its own, and it goes with its process."""
        known = after(tasks.forked(5, 1, "sh"), tasks.policy_set(7, 5, BIND))

        assert (MemPolicy(), BIND, 5) == (known[5].policy, known[7].policy, known[7].leader)
        assert Map() == tasks.change(known, tasks.exited(5))

    def test_mappings(self):
        """mbind with the default policy removes one; a mapping that gets a policy forgets where pages were moved."""
        low, all_of_it = Range(0x10000, 0x11000), Range(0x10000, 0x12000)
        known = after(tasks.mapping_set(5, all_of_it, BIND), tasks.pages_moved(5, low, 2))
        assert known[5].moved.get(0x10000) == 2

        known = tasks.change(known, tasks.mapping_set(5, low, MemPolicy()))
        assert RunMap.of([(0x11000, 0x12000, BIND)]) == known[5].mappings
        assert RunMap() == known[5].moved

    @pytest.mark.parametrize(
        "line", ["", "spoon 1", "exec 1 x y", "fork x 1 a", "policy 1 1 - - bound:0", "cpus 1 1 x", "move 1 2"]
    )
    def test_other_lines(self, line):
        """What is no line is EINVAL."""
        with pytest.raises(InvalidValue):
            tasks.change(Map(), line)


class TestFiles:
    def test_a_task_and_its_files(self):
        """A write to the control file makes a directory, and the file that says what a task may reach follows."""
        looked = tree()
        looked.write(CONTROL, tasks.forked(5, 1, "cat").encode())
        looked.write(CONTROL, tasks.policy_set(5, 5, BIND).encode() + b"\n")
        files = {
            name: looked.read(f"/sys/kernel/debug/tdxfs/tasks/5/{name}") for name in ("name", "policy", "reachable")
        }

        assert {"name": b"cat\n", "policy": b"bind=static:1\n", "reachable": b"1\n"} == files
        assert "5" in looked.list("/proc").names

    @pytest.mark.parametrize("line", ["nonsense", "exit 5 many", tasks.affinity_set(5, 5, {77})])
    def test_refusals(self, line):
        """A line that is none, or leaves a task no CPU that is online, is EINVAL to its writer."""
        with pytest.raises(Refusal) as refused:
            tree().write(CONTROL, line.encode())

        assert errno.EINVAL == refused.value.errno

    def test_what_nobody_can_wait_for(self):
        """CPUs and memory of a task are shown, and are no change that the machine counts or tells of."""
        looked = tree()
        looked.write(CONTROL, tasks.executed(5, 1, "cat").encode())
        told, generations = [], (looked.generation, looked.machine.generation)
        looked.watchers.append(lambda old, new: told.append(new))
        looked.write(CONTROL, tasks.affinity_set(5, 5, {1, 3}).encode())

        assert b"1,3\n" == looked.read("/sys/kernel/debug/tdxfs/tasks/5/cpus_allowed")
        assert ([], generations) == (told, (looked.generation, looked.machine.generation))

        looked.write(CONTROL, tasks.policy_set(5, 5, BIND).encode())
        assert [looked.machine] == told


class TestMemory:
    def test_status(self):
        """The lines about nodes and CPUs are the machine's, all others the running system's."""
        names = ("Name", "Cpus_allowed", "Cpus_allowed_list", "Mems_allowed", "Mems_allowed_list", "Seccomp")
        real = "".join(f"{name}:\treal\n" for name in names)
        shown = status(booted(MIXED), Task(1, cpus=frozenset({2})), real).splitlines()

        assert ["Name:\treal", "Cpus_allowed:\t4", "Cpus_allowed_list:\t2", "Seccomp:\treal"] == [*shown[:3], shown[5]]
        assert shown[3].startswith("Mems_allowed:\t00000000,") and shown[3].endswith(",00000007")
        assert shown[4] == "Mems_allowed_list:\t0-2"

    def test_stat(self):
        """The CPU is one that the task may run on; a name with brackets and blanks confuses nobody."""
        real = "7 (a) b) S " + " ".join(map(str, range(4, 53))) + "\n"
        shown = stat(booted(MIXED), Task(7, cpus=frozenset({2, 3})), real.replace(" 39 ", " 1 "))

        assert real.replace(" 39 ", " 2 ") == shown
        assert shown == stat(booted(MIXED), Task(7), shown)

    def test_numa_maps(self):
        """Policies and nodes are the machine's; a mapping with two policies is two lines, the first filled first."""
        policy = MemPolicy(Mode.BIND, frozenset({2}))
        task = Task(1, mappings=RunMap.of([(0x11000, 0x13000, policy)]))

        assert [
            "00010000 default anon=1 dirty=1 N0=1 kernelpagesize_kB=4",
            "00011000 bind:2 anon=2 dirty=2 N2=2 kernelpagesize_kB=4",
            "00013000 default anon=1 dirty=1 N0=1 kernelpagesize_kB=4",
            "00020000 default file=/bin/a\\040b mapped=1 N0=1 kernelpagesize_kB=4",
            "00030000 default stack",
        ] == numa_maps(booted(MIXED), task, REAL, MAPS).splitlines()

    def test_held(self):
        """Anonymous pages count, where the policy puts them or where they were moved."""
        task = Task(1, policy=MemPolicy(Mode.INTERLEAVE, frozenset({1, 2})))
        assert Held({1: 2, 2: 2}, {1: 2, 2: 2}) == held(booted(MIXED), task, 4, lambda name: "")

        moved = evolve(task, moved=RunMap.of([(0x10000, 0x14000, 0)]))
        assert Held({0: 4}, {0: 4}) == held(booted(MIXED), moved, 4, {"numa_maps": REAL, "maps": MAPS}.__getitem__)

    def test_account(self):
        """What a task holds is missing from its nodes, is counted once as allocated, and comes back."""
        before = booted(MIXED)
        machine = tasks.account(evolve(before, tasks=Map({1: Task(1)})), {1: Held({0: 8, 2: 4}, {2: 4})})

        assert counters.meminfo(before, 0)["MemFree"] - 32 == counters.meminfo(machine, 0)["MemFree"]
        assert {0: 8, 1: 0, 2: 4} == {
            nid: counters.numastat(machine, nid)["numa_hit"] for nid in nodes.has_memory(machine)
        }
        assert (8, 4) == (counters.numastat(machine, 0)["local_node"], counters.numastat(machine, 2)["other_node"])

        assert (0, 4) == tuple(counters.numastat(machine, nid)["interleave_hit"] for nid in (0, 2))

        less = tasks.account(machine, {1: Held({0: 2})})
        assert counters.meminfo(before, 2)["MemFree"] == counters.meminfo(less, 2)["MemFree"]
        assert counters.numastat(less, 0)["numa_hit"] == 8

    @pytest.mark.parametrize("pages", [None, 100])
    def test_an_exit_tells_what_was_held(self, pages):
        """What a task says it held at its end counts as allocated, and is free again."""
        looked = tree()
        before = looked.machine
        looked.write(CONTROL, tasks.executed(5, 1, "cat").encode())
        looked.write(CONTROL, tasks.exited(5, pages).encode())

        assert (
            counters.numastat(before, 0)["numa_hit"] + (pages or 0) == counters.numastat(looked.machine, 0)["numa_hit"]
        )
        assert counters.meminfo(before, 0) == counters.meminfo(looked.machine, 0)
        assert Map() == looked.machine.tasks

    def test_nothing_new(self):
        """A look that finds nothing new leaves the same machine."""
        machine = tasks.account(evolve(booted(MIXED), tasks=Map({1: Task(1)})), {1: Held({0: 8})})

        assert machine is tasks.account(machine, {1: Held({0: 8})})

    def test_the_dead_are_forgotten(self):
        """A task whose process is gone without a word is none any more after the next look."""
        looked = Tree(Root, evolve(booted(MIXED), tasks=Map({1 << 30: Task(1 << 30)})))

        assert looked.sample()
        assert Map() == looked.machine.tasks
