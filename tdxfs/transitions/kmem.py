"""System RAM of a dax device; compare drivers/dax/kmem.c.

kmem takes whole memory blocks only, so what lies outside them is lost while it has the device. It gives
memory back only when all of it is offline: what is online at unbind stays System RAM until the next boot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import evolve

from tdxfs.errors import Busy, Exists, InvalidValue, Refusal
from tdxfs.kmsg import ERR, INFO, WARN, said
from tdxfs.model import DaxState, Driver, Machine, kernel_at_least, with_device
from tdxfs.ranges import Range, align_down, align_up
from tdxfs.transitions.memory import ONLINE_TYPES, add_memory, offline_and_remove, remove_memory

UNPLUGGED = "unplugged"


def probe(machine: Machine, device: DaxState, how: Callable[[int], str] | None = None) -> Machine:
    """
    Make System RAM of a device and bind it to kmem (``dev_dax_kmem_probe``). InvalidValue without a target node or
    a whole memory block, and under hotplug=reject-range outside TDX memory; Busy where its memory is in use. The
    log says what was lost.
    """
    target = machine.regions[device.region].target_node
    if target is None:
        machine = _say(machine, WARN, device, "rejecting DAX region with invalid node: -1")
        raise InvalidValue(f"{device.name} has no target node").leaving(machine)
    machine = _say_what_is_lost(machine, device)
    if not any(_whole(machine, device)):
        raise InvalidValue(f"{device.name} has no whole memory block").leaving(machine)
    machine = _plug(machine, device, how)
    device = evolve(device, driver=Driver.KMEM, plugged=machine.auto_online)
    return with_device(machine, device)


def remove(machine: Machine, device: DaxState) -> Machine:
    """
    Take a device from kmem (``dev_dax_kmem_remove``): its memory is removed where it is offline, and a line of the
    log says which is not. It never fails.
    """
    late = kernel_at_least(machine.topology.kernel, "7.3")
    stuck = False
    for index, memory in _whole(machine, device):
        if not any(machine.ram.within(memory.start, memory.end)):
            continue
        try:
            machine = remove_memory(machine, memory)
        except Busy:
            stuck = True
            where = f"mapping{index}: {memory.start:#x}-{memory.end - 1:#x}"
            text = (
                f"{where} stuck online until reboot" if late else f"{where} cannot be hotremoved until the next reboot"
            )
            machine = said(machine, WARN if late else ERR, f"kmem {device.name}: {text}")
    if stuck and late:
        machine = _say(machine, ERR, device, "Hotplug regions stuck online until reboot")
    device = evolve(device, driver=None, plugged="")
    return with_device(machine, device)


def set_state(machine: Machine, key: tuple[int, int], word: str) -> Machine:
    """
    What writing to ``daxX.Y/state`` does: unplugged takes all of the device's memory offline and away, or
    none of it; an online type adds it again. InvalidValue for another word, Busy if the device is not unplugged.
    """
    device = machine.dax[key]
    if word not in (UNPLUGGED, *ONLINE_TYPES):
        raise InvalidValue(f"{word!r} is not {UNPLUGGED} or one of {', '.join(ONLINE_TYPES)}")
    if device.plugged == word:
        return machine
    if word == UNPLUGGED:
        memories = [memory for _, memory in _whole(machine, device) if machine.ram.get(memory.start) is not None]
        before = machine
        try:
            machine = offline_and_remove(machine, memories)
        except Refusal as refusal:
            text = f"hotremove failed, device left online: -{refusal.errno}"
            raise refusal.leaving(_say(before, ERR, device, text)) from None
    elif device.plugged != UNPLUGGED:
        raise Busy(f"{device.name} is not unplugged")
    else:
        machine = _plug(machine, device, lambda _: word)
    return with_device(machine, evolve(device, plugged=word))


def _plug(machine: Machine, device: DaxState, how: Callable[[int], str] | None) -> Machine:
    target = machine.regions[device.region].target_node
    assert target is not None
    added = False
    for index, memory in _whole(machine, device):
        try:
            machine = add_memory(machine, target, memory, how, dax=True)
        except Refusal as refusal:
            why = "could not reserve region" if isinstance(refusal, Exists) else "memory add failed"
            machine = _say(refusal.machine or machine, WARN, device, f"{_where(index, memory)} {why}")
            if not added:
                raise (Busy(str(refusal)) if isinstance(refusal, Exists) else refusal).leaving(machine) from None
        else:
            added = True
    return machine


def _whole(machine: Machine, device: DaxState) -> Iterator[tuple[int, Range]]:
    # index and whole memory blocks of each mapping that has any (dax_kmem_range)
    size = machine.topology.memory.block_size
    for index, mapping in enumerate(device.mappings):
        start, end = align_up(mapping.start, size), align_down(mapping.end, size)
        if start < end:
            yield index, Range(start, end)


def _say_what_is_lost(machine: Machine, device: DaxState) -> Machine:
    kept = dict(_whole(machine, device))
    for index, mapping in enumerate(device.mappings):
        if index not in kept:
            machine = _say(machine, INFO, device, f"{_where(index, mapping)} too small after alignment")
    lost = device.size - sum(memory.size for memory in kept.values())
    if not kept:
        return _say(machine, WARN, device, "rejecting DAX region without any memory after alignment")
    if lost and kernel_at_least(machine.topology.kernel, "7.3"):
        return _say(machine, WARN, device, f"DAX region truncated by {_size(lost)} due to alignment")
    return machine


def _size(value: float) -> str:
    # string_get_size(): three significant digits
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024:
        value, unit = value / 1024, next(units)
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def _where(index: int, memory: Range) -> str:
    return f"mapping{index}: {memory.start:#x}-{memory.end - 1:#x}"


def _say(machine: Machine, level: int, device: DaxState, text: str) -> Machine:
    return said(machine, level, f"kmem {device.name}: {text}")
