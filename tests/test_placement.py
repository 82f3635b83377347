"""Remedies keep their word: after them, the guest lives."""

from attrs import evolve
from hypothesis import assume, event, given
from hypothesis import strategies as st
from strategies import tdx_machines

from tdxfs import guests, placement
from tdxfs.capability import judge_dax, judge_node
from tdxfs.counters import free_kib
from tdxfs.errors import Refusal
from tdxfs.guestctl import WORDS, command, parse_backing
from tdxfs.mempolicy import mems_allowed
from tdxfs.model import MIB, PAGE_SIZE, Backs, Driver, Memslot, Mode, Task
from tdxfs.nodes import has_memory
from tdxfs.policy import Report

SIZES = st.sampled_from([PAGE_SIZE, 3 * PAGE_SIZE, 2 * MIB, 130 * MIB, 1 << 30, 5 << 30, 100 << 30])


@st.composite
def backings(draw, machine):
    """What a slot of any size can be backed by on a machine: the element of `guestctl`, after its range."""
    choices = [f"{kind.value}:0::" for kind in Backs if not kind.of_a_device]
    choices += [f"dax:0::{device.name}" for device in machine.dax.values()]
    choices += [
        f"bar:0::{device.address}/resource{bar.index}" for device in machine.topology.pci_devices for bar in device.bars
    ]
    return draw(st.sampled_from(choices))


@st.composite
def numa_policies(draw, machine):
    """A memory policy in the words of `guestctl`."""
    mode = draw(st.sampled_from(Mode))
    word = next(word for word, value in WORDS.items() if value is mode)
    if mode in (Mode.DEFAULT, Mode.LOCAL):
        return word
    nodes = draw(st.sets(st.sampled_from(sorted(has_memory(machine))), min_size=1))
    return f"{word}:{','.join(map(str, sorted(nodes)))}"


def walk(machine, name, size, backing, policy=""):
    """The machine after a guest was made, given memory and touched all of it, and whether it lived."""
    lines = [f"create {name} COMMAND", *([f"policy {name} policy={policy}"] if policy else [])]
    lines.append(f"set {name} slot=0 gpa=0 size={size} backing=0-{size:x}:{backing}")
    lines.append(f"touch {name} gpa=0 size={size}")
    for line in lines:
        try:
            machine = command(machine, line)
        except Refusal as refusal:
            return refusal.machine or machine, False
    return machine, True


@given(st.data(), tdx_machines, SIZES)
def test_the_remedy_works(data, machine, size):
    """Whatever failed, on whatever machine: after the remedy the same amount of memory carries a guest."""
    machine = evolve(machine, policies=evolve(machine.policies, report=Report.MESSAGE))
    assume(machine.tdx.enabled and has_memory(machine))
    backing, policy = data.draw(backings(machine)), data.draw(numa_policies(machine))
    after, lived = walk(machine, "1-0", size, backing, policy)
    guest = after.guests["1-0"]
    assume(not lived and (guest.death or guest.refusals))

    record = guest.death or guest.refusals[-1]
    event(record.kind)
    (stretch,) = parse_backing(f"0-{size:x}:{backing}")
    needy = evolve(guest, slots=guest.slots.set(0, Memslot(0, 0, size, backing=(stretch,))))
    best = placement.best(guests.close(after, "1-0"), needy, stretch)
    if best is None:
        assert record.remedy.startswith("none: ")
        return
    event(best.change.command.split()[0] if best.change else "dax" if best.dax else "bind")
    assert record.remedy == best.command(needy, stretch)
    again, lived = walk(
        best.machine,
        "2-0",
        size,
        f"dax:0::{best.dax}" if best.dax else "anon:0::" if stretch.kind.of_a_device else f"{stretch.kind.value}:0::",
        f"bind:{','.join(map(str, sorted(best.nodes)))}" if best.nodes else "",
    )
    assert lived, again.guests["2-0"]


@given(tdx_machines, SIZES)
def test_none_only_where_there_is_none(machine, size):
    """Where no way is found, neither the nodes without a bad page nor any dax device that can be mapped is enough."""
    if not machine.tdx.enabled or next(placement.placements(machine, size), None) is not None:
        return
    good = [nid for nid in mems_allowed(machine, Task(0)) if judge_node(machine, nid)]

    assert size > sum(free_kib(machine, nid) for nid in good) * 1024 or not good
    for key, device in machine.dax.items():
        assert size > device.size or device.driver is not Driver.DEVICE_DAX or not judge_dax(machine, key)
