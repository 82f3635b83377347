"""A guest that was admitted under validate=pledge never dies: what would kill it is declined."""

from contextlib import suppress

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from machines import MIXED, booted
from strategies import tdx_machines
from test_placement import SIZES, backings, numa_policies

from tdxfs.capability import judge_node
from tdxfs.errors import Busy, NotPermitted, Refusal
from tdxfs.guestctl import CONTROL, memfd_bound, parse_policy
from tdxfs.idlist import format_list
from tdxfs.model import GIB, MIB, Driver, Life
from tdxfs.nodes import has_memory
from tdxfs.policy import Hotplug, Validate
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.tree import Tree

FILE = "00:01:1"
PLEDGE = evolve(MIXED.policies, validate=Validate.PLEDGE, hotplug=Hotplug.ALLOW)


class Pledges(RuleBasedStateMachine):
    """Guests come, touch memory and go, while memory, policies and dax devices change under them."""

    @initialize(machine=st.one_of(st.just(booted()), tdx_machines).filter(lambda m: m.tdx.enabled and has_memory(m)))
    def boot(self, machine):
        policies = evolve(machine.policies, validate=Validate.PLEDGE, hotplug=Hotplug.ALLOW)
        self.tree = Tree(Root, evolve(machine, policies=policies))
        self.made = 0

    def write(self, path, text):
        try:
            self.tree.write(path, text.encode())
        except Refusal:
            return False
        return True

    def apply(self, transition):
        with suppress(Refusal):
            self.tree.apply(transition)

    @rule(data=st.data(), size=SIZES)
    def make(self, data, size):
        machine = self.tree.machine
        self.made += 1
        name = f"{self.made}-0"
        self.write(CONTROL, f"create {name}")
        self.write(CONTROL, f"policy {name} policy={self.policy(data, capable=True)}")
        self.write(CONTROL, f"memfd {name} file={FILE} size={size}")
        if data.draw(st.booleans()):
            self.bind(name, self.policy(data, capable=True), size)
        backing = data.draw(st.one_of(st.sampled_from(["anon:0::", f"guest_memfd:0::{FILE}"]), backings(machine)))
        resident = data.draw(st.sampled_from(["", " resident=0-1000"]))
        self.write(CONTROL, f"set {name} slot=0 gpa=0 size={size} backing=0-{size:x}:{backing}{resident}")

    def bind(self, name, policy, size):
        """mbind() of a mapping of the guest_memfd from its beginning, if the policy is one."""
        with suppress(Refusal, ValueError):
            made = parse_policy(self.tree.machine, int(name.partition("-")[0]), policy)
            self.write(CONTROL, memfd_bound(name, FILE, Range(0, size), made))

    def policy(self, data, *, capable):
        """Any policy, but often one that binds to the nodes that are capable, or to those that are not."""
        machine = self.tree.machine
        nodes = [nid for nid in has_memory(machine) if bool(judge_node(machine, nid)) is capable]
        some = [st.just(f"bind:{format_list(nodes)}")] if nodes else [st.just("default")]
        return data.draw(st.one_of(some + [numa_policies(machine)] * bool(has_memory(machine))))

    def living(self, data):
        """A guest that is open, if there is one."""
        names = sorted(name for name, guest in self.tree.machine.guests.items() if guest.open)
        return data.draw(st.sampled_from(names)) if names else None

    @rule(data=st.data(), size=SIZES)
    def touch(self, data, size):
        if name := self.living(data):
            self.write(CONTROL, f"touch {name} gpa=0 size={size}")

    @rule(data=st.data(), size=SIZES)
    def remap(self, data, size):
        if name := self.living(data):
            backing = data.draw(backings(self.tree.machine))
            self.write(CONTROL, f"remap {name} slot=0 backing=0-{size:x}:{backing}")

    @rule(data=st.data())
    def close(self, data):
        if name := self.living(data):
            self.write(CONTROL, f"close {name}")

    @rule(data=st.data())
    def change_policy(self, data):
        if name := self.living(data):
            self.write(CONTROL, f"policy {name} policy={self.policy(data, capable=False)}")

    @rule(data=st.data(), size=SIZES)
    def bind_memfd(self, data, size):
        if name := self.living(data):
            self.bind(name, self.policy(data, capable=data.draw(st.booleans())), size)

    @rule(data=st.data(), word=st.sampled_from(["online", "offline", "online_movable"]))
    def hotplug(self, data, word):
        starts = self.tree.machine.blocks.starts
        block = data.draw(st.sampled_from(starts))
        self.write(f"/sys/devices/system/memory/memory{block}/state", word)

    @rule(data=st.data())
    def cpuset(self, data):
        mems = data.draw(st.one_of(st.none(), st.frozensets(st.integers(0, 8), min_size=1)))
        self.apply(lambda machine: evolve(machine, default_mems=mems))

    @rule(data=st.data(), driver=st.sampled_from([None, *Driver]))
    def rebind(self, data, driver):
        if self.tree.machine.dax:
            key = data.draw(st.sampled_from(sorted(self.tree.machine.dax)))
            self.apply(
                lambda machine: evolve(machine, dax=machine.dax.set(key, evolve(machine.dax[key], driver=driver)))
            )

    def teardown(self):
        for name, guest in self.tree.machine.guests.items() if hasattr(self, "tree") else ():
            for slot in guest.slots.values():
                self.write(CONTROL, f"touch {name} gpa=0 size={slot.size}")
            self.nobody_is_dead()

    @invariant()
    def nobody_is_dead(self):
        guests = self.tree.machine.guests.values() if hasattr(self, "tree") else ()
        assert [] == [guest for guest in guests if guest.life is Life.DEAD]


TestPledges = Pledges.TestCase
TestPledges.settings = settings(settings.get_profile("tdxfs"), max_examples=100, stateful_step_count=50)


@pytest.fixture
def tree():
    """A guest with 1 GiB that is bound to node 0, and was promised it."""
    tree = Tree(Root, evolve(booted(), policies=PLEDGE))
    for line in (
        "create 7-0 qemu",
        "policy 7-0 policy=bind:0",
        f"set 7-0 slot=0 gpa=0 size={GIB} backing=0-{GIB:x}:anon:0::",
    ):
        tree.write(CONTROL, line.encode())
    return tree


def state(block):
    return f"/sys/devices/system/memory/memory{block}/state"


class TestDeclined:
    @pytest.mark.parametrize("policy", ["default", "bind:0-1", "interleave:0", "prefer:0"])
    def test_a_policy(self, tree, policy):
        """A policy that could reach other nodes is EPERM, and the log and the record name the guest."""
        with pytest.raises(NotPermitted, match="7-0"):
            tree.write(CONTROL, f"policy 7-0 policy={policy}".encode())

        guests = "/sys/kernel/mm/tdx/guests/7-0"
        assert b"undermined\n" == tree.read(f"{guests}/refusals/0/kind")
        assert b"EPERM\n" == tree.read(f"{guests}/refusals/0/error")
        assert "TD 7-0: gpa 0x0: The change is declined: guest 7-0 was promised" in tree.machine.log[-2].text
        assert b"bind:0\n" == tree.read(f"{guests}/policy")

    def test_a_guest_memfd(self):
        """A guest_memfd that was promised stays where it was bound: its own policy counts, not the task's."""
        tree = Tree(Root, evolve(booted(), policies=PLEDGE))

        def bind(policy):
            made = parse_policy(tree.machine, 7, policy)
            tree.write(CONTROL, memfd_bound("7-0", FILE, Range(0, GIB), made).encode())

        for line in ("create 7-0", "policy 7-0 policy=bind:2", f"memfd 7-0 file={FILE} size={GIB}"):
            tree.write(CONTROL, line.encode())
        bind("bind:0")
        tree.write(CONTROL, f"set 7-0 slot=0 gpa=0 size={GIB} backing=0-{GIB:x}:guest_memfd:0::{FILE}".encode())
        for policy in ("default", "bind:0-2"):
            with pytest.raises(NotPermitted, match="7-0"):
                bind(policy)
        tree.write(CONTROL, b"policy 7-0 policy=default")
        tree.write(CONTROL, f"touch 7-0 gpa=0 size={GIB}".encode())

        assert GIB == tree.machine.guests["7-0"].pages.size

    def test_memory_onlining(self):
        """Memory that is not convertible cannot go online in a node that a guest was promised."""
        topology = evolve(MIXED, memory=evolve(MIXED.memory, offline="56-63"))  # the second half of node 1
        tree = Tree(Root, evolve(booted(topology), policies=PLEDGE))
        backing = f"backing=0-{MIB:x}:anon:0::"
        for line in ("create 7-0", "policy 7-0 policy=bind:1", f"set 7-0 slot=0 gpa=0 size={MIB} {backing}"):
            tree.write(CONTROL, line.encode())
        with pytest.raises(NotPermitted):
            tree.write(state(60), b"online")

        tree.write(CONTROL, b"close 7-0")
        tree.write(state(60), b"online")
        assert b"online\n" == tree.read(state(60))

    def test_what_does_no_harm(self, tree):
        """A policy within the promise is accepted, and so is anything once the guest is gone."""
        tree.write(CONTROL, b"policy 8-0 policy=bind:2")
        tree.write(CONTROL, b"close 7-0")
        tree.write(CONTROL, b"policy 7-0 policy=default")

    def test_a_mapping(self, tree):
        """A mapping put in the place of the one that was promised is not touched: EFAULT, and the guest lives."""
        with pytest.raises(Refusal) as refused:
            tree.write(CONTROL, f"remap 7-0 slot=0 backing=0-{GIB:x}:dax:0::dax0.0".encode())

        assert "EFAULT" == refused.value.errno_name()
        assert Life.RUNNING is tree.machine.guests["7-0"].life


def test_memory_in_use_cannot_go_offline(tree):
    """A block that holds a guest's pages is EBUSY, whatever the validation, and free again when the guest ends."""
    tree.write(CONTROL, f"touch 7-0 gpa=0 size={GIB}".encode())
    block = (tree.machine.guests["7-0"].pages.parts[-1].end - 1) // (128 * MIB)
    with pytest.raises(Busy):
        tree.write(state(block), b"offline")

    tree.write(CONTROL, b"close 7-0")
    tree.write(state(block), b"offline")
    assert b"offline\n" == tree.read(state(block))
