"""Option 1 against option 2, measured: the same machine and the same guests under every combination of policies.

A machine is booted under each combination of the axes that decide what becomes of guests; each guest of a fleet
is then played on it: made, given memory, touching all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, product
from typing import Any

from attrs import evolve, field, frozen

from tdxfs.boot import boot
from tdxfs.capability import judge, online_memory
from tdxfs.errors import Refusal
from tdxfs.guestctl import command
from tdxfs.model import GIB, MIB, Driver, Life, Machine, Topology
from tdxfs.nodes import has_memory
from tdxfs.policy import Axis, Boot, Cover, Firmware, Validate
from tdxfs.ranges import Ranges

AXES: dict[str, type[Axis]] = {"boot": Boot, "firmware": Firmware, "cover": Cover, "validate": Validate}
"""The axes that are combined; hotplug and report stay as the topology has them."""
MOST = 8


@frozen
class Wanted:
    """Guests that somebody wants to run."""

    memory: int = 2 * GIB
    """Bytes of each."""
    backing: str = "anon"
    """A `Backs` that the allocator gives, ``daxX.Y``, or ``bar:ADDRESS/resourceN``."""
    policy: str = "default"
    """NUMA policy of their process, as `guestctl` writes it."""
    count: int = 1


def fleet(topology: Topology) -> tuple[Wanted, ...]:
    """
    A guest of every kind that a machine invites: 2 GiB from anywhere and from every node that has memory, or
    gets some by kmem; a gigabyte of every dax device that can be mapped and 16 MiB of every BAR, of each kind
    `MOST` at most; and half of its RAM.
    """
    nodes = [node for node in topology.nodes if node.memory]
    total = sum(memory.range.size for node in nodes for memory in node.memory)
    half = total // 2 // (2 * MIB) * (2 * MIB)
    devices = [(region, device) for region in topology.dax_regions for device in region.devices if device.size]
    given = {region.target_node for region, device in devices if device.driver is Driver.KMEM}
    places = {node.id for node in nodes} | {nid for nid in given if nid is not None}
    bound = (Wanted(policy=f"bind:{nid}") for nid in sorted(places))
    mapped = (
        Wanted(min(device.size, GIB), f"dax{region.id}.{device.id}")
        for region, device in devices
        if device.driver is Driver.DEVICE_DAX
    )
    bars = (
        Wanted(min(bar.range.size, 16 * MIB), f"bar:{function.address}/resource{bar.index}")
        for function in topology.pci_devices
        for bar in function.bars
    )
    some = (islice(kind, MOST) for kind in (bound, mapped, bars))
    return (Wanted(), *chain.from_iterable(some), Wanted(half, "guest_memfd"))


@frozen
class Outcome:
    """What became of a machine and its guests."""

    tdx: bool
    usable: int
    """Bytes that can back a TDX guest, online and in dax devices."""
    total: int
    """Bytes of memory, online and in dax devices."""
    started: int
    """Guests that live with all the memory they were given."""
    refused: int
    """Guests that were refused before they touched memory."""
    killed: int
    """Guests that died when they touched it, or found none."""
    told: tuple[str, ...] = field(eq=False)
    """How a user learns of the first refusal and of the first death: a line of the log, or an errno."""
    learns: str = ""
    """The same in a word or two: boot log, errno, record, SEAMCALL code."""


def outcome(machine: Machine, guests: Iterable[Wanted]) -> Outcome:
    """Play all `guests`, who stay, on a machine."""
    memory = Ranges.of(part for nid in has_memory(machine) for part in online_memory(machine, nid))
    memory |= Ranges.of(
        part for device in machine.dax.values() if device.driver is not Driver.KMEM for part in device.mappings
    )
    usable = judge(machine, memory).usable if machine.tdx.enabled else 0
    counts = {"started": 0, "refused": 0, "killed": 0}
    told: list[str] = []
    learns: list[str] = []
    number = 0
    for wanted in guests:
        for _ in range(wanted.count):
            number += 1
            machine, word, how, text = _play(machine, f"{number}-0", wanted)
            counts[word] += 1
            if how and how not in learns:
                learns.append(how)
                told.append(text)
    return Outcome(machine.tdx.enabled, usable, memory.size, **counts, told=tuple(told), learns=", ".join(learns))


def _play(machine: Machine, name: str, wanted: Wanted) -> tuple[Machine, str, str, str]:
    kind, _, object_ = wanted.backing.partition(":")
    if wanted.backing.startswith("dax"):
        kind, object_ = "dax", wanted.backing
    lines = (
        f"create {name}",
        f"policy {name} policy={wanted.policy}",
        f"set {name} slot=0 gpa=0 size={wanted.memory} backing=0-{wanted.memory:x}:{kind}:0::{object_}",
        f"touch {name} gpa=0 size={wanted.memory}",
    )
    for line in lines:
        logged = machine.log.end
        try:
            machine = command(machine, line)
        except Refusal as refusal:
            machine = refusal.machine or machine
            said = [record.text for record in machine.log.since(logged)]
            early = not line.startswith("touch")
            dead = name in machine.guests and machine.guests[name].life is Life.DEAD
            text = said[0] if said else f"{refusal.errno_name()}: {refusal.strerror}"
            how = _how(machine, early, dead, bool(said[1:]) or (bool(said) and not dead))
            return machine, "refused" if early else "killed", how, text
    return machine, "started", "", ""


def _how(machine: Machine, early: bool, dead: bool, explained: bool) -> str:
    if not machine.tdx.enabled:
        return "boot log"
    if dead:
        return "death record" if explained else "SEAMCALL code"
    return "refusal record" if explained else "errno"


@frozen
class Row:
    """Combinations of policies with the same outcome: every combination of the values given."""

    values: dict[str, tuple[str, ...]]
    """Axis -> its values, all of them or some."""
    outcome: Outcome


def compare(topology: Topology, guests: tuple[Wanted, ...] | None = None) -> list[Row]:
    """Every combination of `AXES` on one machine, those with one outcome together."""
    guests = fleet(topology) if guests is None else guests
    found: dict[tuple[str, ...], Outcome] = {}
    for values in product(*AXES.values()):
        changed: dict[str, Any] = dict(zip(AXES, values, strict=True))
        policies = evolve(topology.policies, **changed)
        found[tuple(map(str, values))] = outcome(boot(topology, policies), guests)
    return list(rows(found, {axis: tuple(map(str, kind)) for axis, kind in AXES.items()}))


def rows(found: dict[tuple[str, ...], Outcome], values: dict[str, tuple[str, ...]]) -> Iterator[Row]:
    """`found`, which has an outcome for every combination of `values`, in as few products as splitting axes gives."""
    here = [found[one] for one in product(*values.values())]
    if all(one == here[0] for one in here):
        yield Row(values, here[0])
        return
    for axis, words in values.items():
        groups: dict[tuple[Outcome, ...], list[str]] = {}
        for word in words:
            others = {**values, axis: (word,)}
            groups.setdefault(tuple(found[one] for one in product(*others.values())), []).append(word)
        if len(groups) > 1:
            for group in groups.values():
                yield from rows(found, {**values, axis: tuple(group)})
            return
