"""dax devices and the drivers of their bus; compare drivers/dax/bus.c, drivers/base/bus.c."""

from __future__ import annotations

import re
from collections.abc import Collection

from attrs import evolve

from tdxfs.errors import Busy, InvalidValue, NoAddress, NoDevice, NoMemory, NoSpace, NotSupported, Refusal
from tdxfs.model import (
    GIB,
    MIB,
    PAGE_SIZE,
    DaxRegion,
    DaxState,
    Driver,
    Machine,
    RegionState,
    changed,
    kernel_at_least,
    with_device,
)
from tdxfs.ranges import Range
from tdxfs.transitions import kmem

Key = tuple[int, int]
ALIGNMENTS = (PAGE_SIZE, 2 * MIB, GIB)
COMPAT_ALIGN = 2 * MIB
"""memremap_compat_align(): no range is finer than a subsection."""
_NAME = re.compile("dax(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)")


# --- drivers -------------------------------------------------------------------------


def matches(machine: Machine, key: Key, driver: Driver) -> bool:
    """
    Whether a driver takes a device (``dax_bus_match``): one that ``new_id`` named; else device_dax takes all up to
    6.2, and since then static regions only, and kmem the others.
    """
    if key in machine.dax_ids.get(driver, ()):
        return True
    if not kernel_at_least(machine.topology.kernel, "6.3"):
        return driver is Driver.DEVICE_DAX
    by_default = Driver.DEVICE_DAX if machine.regions[key[0]].static else Driver.KMEM
    return driver is by_default


def bind(machine: Machine, driver: Driver, name: str) -> Machine:
    """Bind a device (``bind_store``): NoDevice if there is none or it does not match, Busy if it is bound."""
    key = find(machine, name)
    if key is None or not matches(machine, key, driver):
        raise NoDevice(f"{driver.value} does not take {name!r}")
    if machine.dax[key].driver is not None:
        raise Busy(f"{name} is bound")
    return probe(machine, key, driver)


def unbind(machine: Machine, driver: Driver, name: str) -> Machine:
    """Unbind a device (``unbind_store``): NoDevice if it is not bound to this driver."""
    key = find(machine, name)
    if key is None or machine.dax[key].driver is not driver:
        raise NoDevice(f"{name!r} is not bound to {driver.value}")
    device = machine.dax[key]
    if driver is Driver.KMEM:
        return kmem.remove(machine, device)
    return with_device(machine, evolve(device, driver=None))


def new_id(machine: Machine, driver: Driver, name: str) -> Machine:
    """Let a driver take a device from now on, whether it exists or not, and look for one: InvalidValue for no name."""
    ids = machine.dax_ids.get(driver, frozenset())
    return attach(changed(machine, dax_ids=machine.dax_ids.set(driver, ids | {_parse(name)})), driver)


def remove_id(machine: Machine, driver: Driver, name: str) -> Machine:
    """Take `new_id` back; a device that is bound stays so."""
    ids = machine.dax_ids.get(driver, frozenset())
    return changed(machine, dax_ids=machine.dax_ids.set(driver, ids - {_parse(name)}))


def with_ids(machine: Machine) -> Machine:
    """Remember what `new_id` was told before: each device that is bound to a driver which would not take it else."""
    for driver in Driver:
        named = {key for key in machine.bound_dax[driver] if not matches(machine, key, driver)}
        if named:
            machine = changed(machine, dax_ids=machine.dax_ids.set(driver, frozenset(named)))
    return machine


def attach(machine: Machine, driver: Driver) -> Machine:
    """Give a driver every unbound device that it takes (``driver_attach``)."""
    for key in sorted(machine.bound_dax[None]):
        if matches(machine, key, driver):
            machine = _try(machine, key, driver)
    return machine


def drivers_probe(machine: Machine, name: str) -> Machine:
    """Let a device look for a driver (``drivers_probe_store``): NoDevice if there is none of that name."""
    key = find(machine, name)
    if key is None:
        raise NoDevice(f"no device {name!r}")
    return look_for_driver(machine, key)


def look_for_driver(machine: Machine, key: Key) -> Machine:
    """Give a device the first driver that takes it (``device_attach``), if it has none."""
    for driver in Driver:
        there = driver is not Driver.KMEM or machine.topology.kmem_driver
        if there and machine.dax[key].driver is None and matches(machine, key, driver):
            machine = _try(machine, key, driver)
    return machine


def probe(machine: Machine, key: Key, driver: Driver) -> Machine:
    """Bind a device that matches (``dax_bus_probe``): NoAddress for one of size 0, else what kmem refuses."""
    device = machine.dax[key]
    if not device.size:
        raise NoAddress(f"{device.name} has size 0")
    if driver is Driver.KMEM:
        machine = kmem.probe(machine, device)
    else:
        machine = with_device(machine, evolve(device, driver=driver))
    state = machine.dax_regions.get(key[0])
    if state is not None and state.seed == key[1]:
        machine = _with_region(machine, key[0], evolve(state, seed=None))
    return machine


def _try(machine: Machine, key: Key, driver: Driver) -> Machine:
    # what probe refuses is only logged: the next driver, or the next device, can try its luck
    try:
        return probe(machine, key, driver)
    except Refusal as refusal:
        return refusal.machine or machine


# --- regions -------------------------------------------------------------------------


def create(machine: Machine, region_id: int, value: int) -> Machine:
    """
    Create a device of size 0 in a region (``create_store``): InvalidValue unless 1 was written, NoSpace
    if all of the region is taken.
    """
    if value != 1:
        raise InvalidValue(f"{value} is not 1")
    region = machine.regions[region_id]
    if not available(machine, region):
        raise NoSpace(f"all of region {region_id} is taken")
    instance = lowest_free({key[1] for key in machine.region_devices.get(region_id, ())})
    minor = lowest_free({device.minor for device in machine.dax.values()})
    device = DaxState(region_id, instance, (), None, region.align, False, minor)
    state = machine.dax_regions.get(region_id, RegionState())
    seed = instance if state.seed is None else state.seed
    machine = with_device(machine, device)
    return _with_region(machine, region_id, RegionState(seed, instance))


def delete(machine: Machine, region_id: int, name: str) -> Machine:
    """
    Delete a device of a region (``delete_store``): NoAddress if there is none of that name, Busy if it is
    bound, has a size, or is the region's device 0.
    """
    key = find(machine, name)
    if key is None or key[0] != region_id:
        raise NoAddress(f"region {region_id} has no {name!r}")
    device = machine.dax[key]
    if device.driver is not None or device.size or device.id == 0:
        raise Busy(f"{name} is bound, has a size, or is the region's first")
    state = machine.dax_regions.get(region_id, RegionState())
    left = RegionState(*(None if one == key[1] else one for one in (state.seed, state.youngest)))
    return _with_region(changed(machine, dax=machine.dax.delete(key)), region_id, left)


def available(machine: Machine, region: DaxRegion) -> int:
    """Bytes of a region that no device has."""
    return region.range.size - sum(mapping.size for mapping, _ in _taken(machine, region.id))


# --- devices -------------------------------------------------------------------------


def resize(machine: Machine, key: Key, size: int) -> Machine:
    """
    Give a device `size` bytes (``dev_dax_resize``): InvalidValue if it is not aligned, Busy if the device is bound,
    NoSpace if its region has too little left. It shrinks from its end and grows into the region's first gap.
    """
    device = machine.dax[key]
    region = machine.regions[key[0]]
    if size % max(device.align, COMPAT_ALIGN):
        raise InvalidValue(f"{size} is no multiple of {max(device.align, COMPAT_ALIGN)}")
    if device.driver is not None:
        raise Busy(f"{device.name} is bound")
    if size - device.size > available(machine, region):
        raise NoSpace(f"region {region.id} has {available(machine, region)} bytes left")
    mappings = _shrunk(device.mappings, device.size - size)
    while (missing := size - sum(mapping.size for mapping in mappings)) > 0:
        mappings = _grown(machine, region, key, mappings, missing)
    return with_device(machine, evolve(device, mappings=mappings))


def add_mapping(machine: Machine, key: Key, start: int, end: int) -> Machine:
    """
    Allocate ``[start, end]`` for a device, bound or not (``mapping_store``): NoMemory if it is outside the region or
    taken. A length that is not aligned is NoAddress up to 6.2; since then it is accepted and does nothing.
    """
    device = machine.dax[key]
    region = machine.regions[key[0]]
    length = (end - start + 1) % (1 << 64)
    if length % max(device.align, COMPAT_ALIGN):
        if kernel_at_least(machine.topology.kernel, "6.3"):
            return machine
        raise NoAddress(f"{length} is no multiple of {max(device.align, COMPAT_ALIGN)}")
    if not length:
        if device.mappings:
            raise Busy("only a device of size 0 takes a range of size 0")
        return machine
    wanted = Range(start, start + length)
    if not region.range.covers(wanted) or any(wanted.overlaps(taken) for taken, _ in _taken(machine, region.id)):
        raise NoMemory(f"{wanted} is not free in region {region.id}")
    return with_device(machine, evolve(device, mappings=(*device.mappings, wanted)))


def set_align(machine: Machine, key: Key, align: int) -> Machine:
    """
    Change a device's alignment (``align_store``): InvalidValue for one that x86-64 does not have or that the
    device's ranges do not fit, Busy if the device is bound.
    """
    device = machine.dax[key]
    if align not in ALIGNMENTS:
        raise InvalidValue(f"{align} is not one of {ALIGNMENTS}")
    if device.driver is not None:
        raise Busy(f"{device.name} is bound")
    if any(mapping.size % max(align, COMPAT_ALIGN) for mapping in device.mappings):
        raise InvalidValue(f"ranges of {device.name} are no multiples of {align}")
    return with_device(machine, evolve(device, align=align))


def set_memmap_on_memory(machine: Machine, key: Key, on: bool) -> Machine:
    """
    Whether kmem keeps page structures on the device's memory: NotSupported to switch it on (it takes
    memory_hotplug.memmap_on_memory at boot), Busy to change it while the device is bound to kmem.
    """
    device = machine.dax[key]
    if on:
        raise NotSupported("memory_hotplug.memmap_on_memory is not set")
    if device.memmap_on_memory and device.driver is Driver.KMEM:
        raise Busy(f"{device.name} is bound to kmem")
    return with_device(machine, evolve(device, memmap_on_memory=False))


def _shrunk(mappings: tuple[Range, ...], less: int) -> tuple[Range, ...]:
    while less > 0:
        last = mappings[-1]
        kept = (Range(last.start, last.end - less),) if less < last.size else ()
        mappings, less = (*mappings[:-1], *kept), less - last.size
    return mappings


def _grown(
    machine: Machine, region: DaxRegion, key: Key, mappings: tuple[Range, ...], missing: int
) -> tuple[Range, ...]:
    # into the first gap of the region; the device's last range grows if the gap is behind it
    others = [mapping for mapping, owner in _taken(machine, region.id) if owner != key]
    at = region.range.start
    for taken in sorted((*others, *mappings)):
        if at < taken.start:
            break
        at = taken.end
    else:
        taken = Range(region.range.end, region.range.end + 1)
    new = Range(at, min(taken.start, at + missing))
    if mappings and mappings[-1].end == at:
        return (*mappings[:-1], Range(mappings[-1].start, new.end))
    return (*mappings, new)


# --- names and places ------------------------------------------------------------------


def find(machine: Machine, name: str) -> Key | None:
    """The device called `name`."""
    match = _NAME.fullmatch(name)
    key = (int(match[1]), int(match[2])) if match else None
    return key if key in machine.dax else None


def _parse(name: str) -> Key:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidValue(f"{name!r} is not dax<region>.<id>")
    return int(match[1]), int(match[2])


def _taken(machine: Machine, region_id: int) -> list[tuple[Range, Key]]:
    keys = machine.region_devices.get(region_id, ())
    return [(mapping, key) for key in keys for mapping in machine.dax[key].mappings]


def _with_region(machine: Machine, region_id: int, state: RegionState) -> Machine:
    return changed(machine, dax_regions=machine.dax_regions.set(region_id, state))


def lowest_free(used: Collection[int]) -> int:
    """The lowest id that is not in use, as an ida gives it."""
    number = 0
    while number in used:
        number += 1
    return number
