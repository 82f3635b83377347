"""A mount follows its machine whatever the kernel has cached of it: next to the tree alone, which caches nothing."""

import os
import stat
from contextlib import ExitStack
from functools import partial

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from machines import MIXED, tree
from syscalls import answer

from tdxfs.policy import Hotplug, Policies
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Directory, Link
from tdxfs.tree import stat_of

ALLOW = evolve(MIXED, policies=Policies(hotplug=Hotplug.ALLOW))
SYSTEM, DAX, DEBUG = "/sys/devices/system", "/sys/bus/dax", "/sys/kernel/debug/tdxfs"
DEVICE = "/sys/devices/platform/hmem_platform.0/hmem.0"
BLOCKS, MODULE = (64, 79, 128), "base=0x400000000"
WRITES = (
    [(f"{SYSTEM}/memory/memory{n}/state", word) for n in BLOCKS for word in ("online", "offline", "online_movable")],
    [(f"{SYSTEM}/cpu/cpu3/online", word) for word in "01"],
    [(f"{DEBUG}/hotplug", line) for line in (f"plug node=2 {MODULE} size=0x40000000", f"unplug {MODULE}")],
    [(f"{DAX}/drivers/{driver}/{what}", "dax0.0") for driver in ("kmem", "device_dax") for what in ("bind", "unbind")],
    [(f"{DEVICE}/dax0.{number}/size", size) for number in (0, 1) for size in ("0", "536870912")],
    [(f"{DEVICE}/dax_region/{what}", word) for what, word in (("create", "1"), ("delete", "dax0.1"))],
    [(f"{DEBUG}/task_control/change", line) for line in ("exec 77 1 one", "policy 77 77 0 - bind:0", "exit 77")],
)
DIRECTORIES = (
    *(f"{SYSTEM}/memory/memory{n}" for n in BLOCKS),
    *(f"{SYSTEM}/node/node{n}" for n in (1, 2, 3)),
    *(f"{DEVICE}/dax0.{n}" for n in (0, 1)),
    *(f"{SYSTEM}/memory", f"{SYSTEM}/node", f"{SYSTEM}/cpu/cpu3", DEVICE, f"{DAX}/devices", f"{DEBUG}/tasks"),
    f"{DEBUG}/tasks/77",
)
NAMES = (
    *("state", "power", "power/control", "uevent", "x86", "x86/tdx_capable", "node2", "memory64", "memory128", "node3"),
    *("online", "topology", "topology/core_id", "driver", "size", "target_node", "mapping0", "dax0.0", "dax0.1", "77"),
    *("policy", "leader", "absent", ""),
)


class Following(RuleBasedStateMachine):
    """Changes the machine, and looks about on the mount and in the tree, by path and from directories held open."""

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.tree = tree(ALLOW)
        self.root = str(self.stack.enter_context(mounted(ALLOW)))
        self.held = []

    def teardown(self):
        for descriptor in self.held:
            os.close(descriptor)
        self.stack.close()

    @initialize(groups=st.sets(st.sampled_from(range(len(WRITES))), min_size=1, max_size=2))
    def choose(self, groups):
        """What is tried again and again."""
        self.writes = [write for group in sorted(groups) for write in WRITES[group]]

    # one rule: hypothesis leaves out some for a whole run, and what is wrong takes all
    @rule(data=st.data(), hold=st.booleans(), names=st.sets(st.sampled_from(NAMES)), compare=st.booleans())
    def step(self, data, hold, names, compare):
        self.change(*data.draw(st.sampled_from(self.writes)))
        if hold:
            self.hold()
        self.look_below(names)
        if compare:
            for directory in DIRECTORIES:
                for name in NAMES:
                    self.compare(f"{directory}/{name}".rstrip("/"))

    def change(self, path, text):
        # one write, of which both say the same; what open(2) refuses aside
        try:
            file = os.open(self.root + path, os.O_WRONLY)
        except OSError:
            return
        try:
            assert answer(self.tree.write, path, text.encode()) == answer(os.write, file, text.encode())
        finally:
            os.close(file)

    def hold(self):
        # open what there is, and hold what was opened before, be it gone or not
        self.held += [os.open(self.root + path, os.O_RDONLY) for path in DIRECTORIES if os.path.isdir(self.root + path)]

    def look_below(self, names):
        # whatever is found in a directory that may be gone: the kernel may keep it
        for descriptor in self.held:
            for name in names:
                answer(partial(os.stat, name or ".", dir_fd=descriptor, follow_symlinks=False))

    def compare(self, path):
        try:
            entry = self.tree.lookup(path)
        except OSError:
            entry = None
        if entry is None:
            assert not os.path.lexists(self.root + path), path
            return
        found = os.lstat(self.root + path)
        said = stat_of(entry)
        assert (said.mode, said.size, self.tree.nlink(entry)) == (found.st_mode, found.st_size, found.st_nlink), path
        if isinstance(entry, Directory):
            assert sorted(self.tree.list(path).names) == sorted(os.listdir(self.root + path)), path
        elif isinstance(entry, Link):
            assert entry.target == os.readlink(self.root + path), path
        elif stat.S_ISREG(said.mode) and said.mode & 0o444:
            with open(self.root + path, "rb") as file:
                assert self.tree.read(path) == file.read(), path


@pytest.mark.skipif("os.geteuid() != 0", reason="what root may open differs: scripts/test runs as root")
def test_following():
    """In whatever order the machine changes and names are looked up, the mount shows the machine as it is."""
    run_state_machine_as_test(Following, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
