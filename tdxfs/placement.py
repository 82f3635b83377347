"""Where guests of a size can go on a machine, with which policy, and what would have to change for it.

A `Placement` is a promise: after its change, a guest of that size under its policy (or over its dax device)
lives. The remedies of death and refusal records and ``tdxfs plan`` are both made of these.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from attrs import evolve, frozen

from tdxfs import allocator, remedies
from tdxfs.capability import CAPABLE, MIXED, blocks_of, incapable_blocks_of, judge_dax, judge_node
from tdxfs.idlist import format_list
from tdxfs.mempolicy import mems_allowed
from tdxfs.model import Backs, By, Driver, Guest, Machine, Stretch, Task
from tdxfs.nodes import has_memory
from tdxfs.policy import Boot, Cover
from tdxfs.ranges import Range, Ranges
from tdxfs.remedies import Remedy
from tdxfs.render import rounded

OWN_COMMAND = "tdxfs guest run"
"""How the command line of a guest begins that tdxfs itself plays."""


@frozen
class Placement:
    """A way to give a guest memory that can back it."""

    machine: Machine
    """As it is after the change."""
    nodes: frozenset[int] = frozenset()
    """Nodes to bind to, for memory that the allocator gives."""
    dax: str = ""
    """The device to map, for a device's own memory."""
    change: Remedy | None = None
    """What has to be done first."""

    def command(self, guest: Guest, stretch: Stretch | None) -> str:
        """What to type: the change, if any, and the guest's own command line under the policy, or with the device."""
        run = self._bound(guest, stretch) if self.nodes else self._mapped(guest, stretch)
        if self.change is None:
            return run
        root = _root(stretch)
        if guest.command.startswith(OWN_COMMAND):
            root = shlex.split(guest.command)[3]
            axes = re.fullmatch(r"tdxfs reboot((?: --policy \S+)+) MOUNTPOINT", self.change.command)
            if axes is not None and not root.startswith("/"):
                return f"{run}{axes[1]}"
        first = self.change.command.replace(" MOUNTPOINT", f" {root}") if root else self.change.command
        return f"{first} && {run}"

    def _bound(self, guest: Guest, stretch: Stretch | None) -> str:
        policy = f"bind:{format_list(self.nodes)}"
        if guest.command.startswith(OWN_COMMAND):
            plain = re.sub(r" --policy [a-z-]+(:\S+)?(?= |$)", "", guest.command)
            if stretch is not None and stretch.kind.of_a_device:
                plain = re.sub(r"--backing \S+", "--backing anon", plain)
            return f"{plain} --policy {policy}"
        bound = f"numactl --membind={format_list(self.nodes)} {guest.command or 'COMMAND'}"
        if stretch is not None and stretch.kind.of_a_device:
            return f"{bound}  # with anonymous memory instead of {stretch.object}"
        return bound

    def _mapped(self, guest: Guest, stretch: Stretch | None) -> str:
        command = guest.command or "COMMAND"
        if stretch is None or stretch.object == self.dax:
            return command
        if guest.command.startswith(OWN_COMMAND):
            return re.sub(r"--backing \S+", f"--backing {self.dax}", guest.command)
        if stretch.spelled and stretch.spelled in command:
            return command.replace(stretch.spelled, f"{_root(stretch)}/dev/{self.dax}")
        if stretch.object and stretch.object in command:
            return command.replace(stretch.object, self.dax)
        return f"{command}  # with /dev/{self.dax} mapped"


def _root(stretch: Stretch | None) -> str:
    # where the machine is mounted, as far as a mapping of one of its files tells
    return re.sub(r"/(dev/dax|sys/devices/pci).*", "", stretch.spelled) if stretch is not None else ""


def on_nodes(machine: Machine, size: int, *, movable: bool = True, change: Remedy | None = None) -> Iterator[Placement]:
    """The capable nodes, if together they have `size` bytes free for movable or unmovable pages."""
    if not machine.tdx.enabled:
        return
    good = capable_nodes(machine)
    left = size
    for nid in good:  # a machine with a thousand nodes is not asked about all of them
        left -= allocator.room(machine, (nid,), movable=movable)
        if left <= 0:
            break
    if good and left <= 0:
        yield Placement(machine, good, change=change)


def capable_nodes(machine: Machine) -> frozenset[int]:
    """The nodes that tasks may be given memory from, all of which can back a TDX guest."""
    return mems_allowed(machine, Task(0)) & _capable_nodes(By(machine, machine.blocks))


@lru_cache(maxsize=16)
def _capable_nodes(by_blocks: By) -> frozenset[int]:
    machine = by_blocks.machine
    return frozenset(nid for nid in has_memory(machine) if judge_node(machine, nid).word == CAPABLE)


@lru_cache(maxsize=16)
def _capable_dax(by_dax: By) -> tuple[tuple[int, int], ...]:
    machine = by_dax.machine
    return tuple(key for key, device in sorted(machine.dax.items()) if device.size and judge_dax(machine, key))


def on_dax(machine: Machine, size: int, *, prefer: str = "", change: Remedy | None = None) -> Iterator[Placement]:
    """Each dax device that can be mapped, is capable, has `size` bytes and no guest; `prefer` first."""
    if not machine.tdx.enabled:
        return
    devices = [machine.dax[key] for key in _capable_dax(By(machine, machine.dax))]
    for device in sorted(devices, key=lambda device: device.name != prefer):
        taken = any(next(machine.guest_pages.within(part.start, part.end), None) for part in device.mappings)
        if device.driver is Driver.DEVICE_DAX and device.size >= size and not taken:
            yield Placement(machine, dax=device.name, change=change)


def _offlined(machine: Machine) -> Iterator[tuple[Machine, Remedy]]:
    # the machine without the incapable blocks of its mixed nodes: of one, of two, …
    runs = Ranges()
    for nid in sorted(mems_allowed(machine, Task(0))):
        if judge_node(machine, nid).word != MIXED:
            continue
        mine = incapable_blocks_of(machine, nid)
        remedy = remedies.offline(machine, runs | mine)
        if remedy.command and not mine & blocks_of(machine, (Range(a, b) for a, b, _ in machine.guest_pages.runs())):
            runs |= mine
            yield remedies.apply(machine, remedy), remedy


def _rebooted(machine: Machine) -> Iterator[tuple[Machine, Remedy]]:
    for axes in ({"cover": Cover.CONVERTIBLE}, {"boot": Boot.MIXED}, {"boot": Boot.MIXED, "cover": Cover.CONVERTIBLE}):
        if evolve(machine.policies, **axes) != machine.policies:
            remedy = remedies.reboot(machine, **axes)
            yield remedies.apply(machine, remedy), remedy


def placements(machine: Machine, size: int, *, movable: bool = True, device: str | None = None) -> Iterator[Placement]:
    """
    Every way to place a guest of `size` bytes, the smallest change first: binding to nodes, then mapping a dax
    device; with `device`, which the guest mapped, the other way round, and that device first.
    """
    bound, mapped = _bound(machine, size, movable), _mapped(machine, size, device or "")
    return chain(bound, mapped) if device is None else chain(mapped, bound)


def _bound(machine: Machine, size: int, movable: bool) -> Iterator[Placement]:
    yield from on_nodes(machine, size, movable=movable)
    for now, change in _offlined(machine):
        yield from on_nodes(now, size, movable=movable, change=change)
    for now, change in _rebooted(machine):
        yield from on_nodes(now, size, movable=movable, change=change)
        for later, offline in _offlined(now):
            both = Remedy(f"{change.command} && {offline.command}")
            yield from on_nodes(later, size, movable=movable, change=both)


def _mapped(machine: Machine, size: int, device: str) -> Iterator[Placement]:
    yield from on_dax(machine, size, prefer=device)
    for now, change in _rebooted(machine):
        yield from on_dax(now, size, prefer=device, change=change)


def best(machine: Machine, guest: Guest, stretch: Stretch | None) -> Placement | None:
    """The smallest change after which `guest`, which is not on `machine` any more, would have lived; None: none."""
    device = stretch.object if stretch is not None and stretch.kind.of_a_device else None
    movable = stretch is None or stretch.kind is not Backs.GUEST_MEMFD
    return next(placements(machine, guest.size, movable=movable, device=device), None)


def remedy(machine: Machine, guest: Guest, stretch: Stretch | None) -> str:
    """What to type so that `guest` lives next time, or the sentence that this machine cannot host it, and why."""
    placement = best(machine, guest, stretch)
    if placement is not None:
        return placement.command(guest, stretch)
    return f"none: this machine cannot host a TDX guest of {rounded(guest.size)}: {shortage(machine)}"


def shortage(machine: Machine) -> str:
    """Why no guest larger than some size can be hosted: how much there is."""
    good = capable_nodes(machine)
    largest = max((machine.dax[key].size for key in _capable_dax(By(machine, machine.dax))), default=0)
    most = f"its capable nodes have {rounded(allocator.room(machine, good))} free" if good else "no node is capable"
    return f"{most}, its largest capable dax device has {rounded(largest)}" if largest else f"{most}, no dax device is"


@frozen
class Plan:
    """A change, and how many guests of one size the machine holds after it."""

    change: str
    """A command; empty: none is needed."""
    where: tuple[str, ...]
    """Policies and dax devices, each with how many guests it holds."""
    guests: int


def plans(machine: Machine, size: int) -> Iterator[Plan]:
    """
    How many guests of `size` bytes the machine holds as it is, and after every change that lets it hold more.
    """
    most = 0
    for now, change in chain([(machine, Remedy())], _changes(machine)):
        plan = _plan(now, size, change.command)
        if plan.guests > most or (plan.guests and not change.command):
            most = plan.guests
            yield plan


def _changes(machine: Machine) -> Iterator[tuple[Machine, Remedy]]:
    yield from _bound_to_device_dax(machine)
    yield from _offlined(machine)
    for now, change in _rebooted(machine):
        yield now, change
        for later, offline in _offlined(now):
            yield later, Remedy(f"{change.command} && {offline.command}")


def _bound_to_device_dax(machine: Machine) -> Iterator[tuple[Machine, Remedy]]:
    # capable devices that nothing uses: those of kmem are System RAM already
    keys = [key for key, device in sorted(machine.dax.items()) if device.driver is None and device.size]
    capable = [key for key in keys if judge_dax(machine, key)]
    dax = machine.dax
    for key in capable:
        dax = dax.set(key, evolve(dax[key], driver=Driver.DEVICE_DAX))
    if capable:
        bind = "/sys/bus/dax/drivers/device_dax/bind"
        command = " && ".join(f"echo {machine.dax[key].name} > {bind}" for key in capable)
        yield evolve(machine, dax=dax), Remedy(command)


def _plan(machine: Machine, size: int, change: str) -> Plan:
    if not machine.tdx.enabled or machine.topology.tdx is None:
        return Plan(change, (), 0)
    where, total = [], 0
    good = capable_nodes(machine)
    if count := allocator.room(machine, good) // size if good else 0:
        where.append(f"{count} with bind:{format_list(good)}")
        total += count
    for placement in on_dax(machine, size):
        count = next(one.size for one in machine.dax.values() if one.name == placement.dax) // size
        where.append(f"{count} in {placement.dax}")
        total += count
    keys = machine.topology.tdx.keyids - 1
    if total > keys:
        where.append(f"no more than the {keys} KeyIDs")
    return Plan(change, tuple(where), min(total, keys))
