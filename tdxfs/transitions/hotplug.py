"""Memory that comes and goes with hardware: a memory module, a CXL memory window.

What is plugged is part of the machine as it was built, so after a reboot it is there from the start: a module
that came too late to be TDX memory can be TDX memory then.
"""

from __future__ import annotations

from attrs import evolve

from tdxfs.errors import Busy, Exists, InvalidValue, NoDevice, Refusal
from tdxfs.model import (
    MIB,
    DaxDevice,
    DaxRegion,
    DaxState,
    Driver,
    Machine,
    Memory,
    MemoryKind,
    Node,
    Provider,
    Topology,
    changed,
)
from tdxfs.nodes import REMOTE_DISTANCE, possible_nodes
from tdxfs.ranges import Range, Ranges
from tdxfs.transitions import dax
from tdxfs.transitions.memory import add_memory, offline_and_remove

CXL_ALIGN = 2 * MIB


def plug_memory(machine: Machine, nid: int, memory: Range) -> Machine:
    """
    A memory module is plugged (``acpi_memory_enable_device``): its blocks appear and go online as
    ``auto_online_blocks`` says. InvalidValue if it is not whole blocks of a possible node, Exists if something is
    there, and what `add_memory` refuses; the module stays plugged then.
    """
    _check(machine, nid, memory, machine.topology.memory.block_size)
    topology = _with_memory(machine.topology, nid, Memory(memory, hotplug=True))
    machine = changed(machine, topology=topology, built=_with_memory(machine.built, nid, Memory(memory)))
    try:
        return add_memory(machine, nid, memory)
    except Refusal as refusal:
        raise refusal.leaving(refusal.machine or machine) from None


def plug_cxl(machine: Machine, nid: int, memory: Range) -> Machine:
    """
    A CXL memory window is plugged: a dynamic dax region with one device of its size, which looks for a driver
    unless ``drivers_autoprobe`` is 0. InvalidValue if it is not aligned to 2 MiB or the node is not possible,
    Exists if something is there.
    """
    _check(machine, nid, memory, CXL_ALIGN)
    number = dax.lowest_free(machine.regions.keys())
    minor = dax.lowest_free({device.minor for device in machine.dax.values()})
    region = DaxRegion(number, Provider.CXL, memory, nid, kind=MemoryKind.CXL)
    device = DaxState(number, 0, (memory,), None, region.align, True, minor)
    machine = changed(
        machine, topology=_with_region(machine.topology, region), dax=machine.dax.set((number, 0), device)
    )
    if "dax" not in machine.no_autoprobe:
        machine = dax.look_for_driver(machine, (number, 0))
    at_boot = next((driver for driver in Driver if dax.matches(machine, (number, 0), driver)), None)
    driver = at_boot if at_boot is not Driver.KMEM or machine.topology.kmem_driver else None
    built = evolve(region, devices=(DaxDevice(0, (memory,), driver, memmap_on_memory=True),))
    return changed(machine, built=_with_region(machine.built, built))


def unplug(machine: Machine, base: int) -> Machine:
    """
    What was plugged at `base` is ejected (``acpi_scan_hot_remove``): its blocks go offline, all or none of them,
    and away. NoDevice if nothing begins there, Busy for what was there at boot, and what offlining refuses.
    """
    for node in machine.topology.nodes:
        for memory in node.memory:
            if memory.range.start == base:
                if not memory.hotplug:
                    raise Busy(f"{memory.range} of node {node.id} was there at boot")
                return _eject_memory(machine, node.id, memory.range)
    for region in machine.topology.dax_regions:
        if region.range.start == base:
            if region.provider is not Provider.CXL:
                raise Busy(f"region {region.id} is no CXL memory")
            return _eject_region(machine, region)
    raise NoDevice(f"nothing is plugged at {base:#x}")


def _eject_memory(machine: Machine, nid: int, memory: Range) -> Machine:
    if any(machine.ram.within(memory.start, memory.end)):
        machine = offline_and_remove(machine, (memory,))
    without = (_without_memory(topology, nid, memory) for topology in (machine.topology, machine.built))
    return changed(machine, **dict(zip(("topology", "built"), without, strict=True)))


def _eject_region(machine: Machine, region: DaxRegion) -> Machine:
    size = machine.topology.memory.block_size
    keys = machine.region_devices.get(region.id, ())
    whole = Ranges.of(mapping for key in keys for mapping in machine.dax[key].mappings).aligned_in(size)
    held = [Range(start, end) for part in whole for start, end, _ in machine.ram.within(part.start, part.end)]
    machine = offline_and_remove(machine, held)
    devices = machine.dax
    for key in keys:
        devices = devices.delete(key)
    without = (
        evolve(topology, dax_regions=tuple(other for other in topology.dax_regions if other.id != region.id))
        for topology in (machine.topology, machine.built)
    )
    states = machine.dax_regions.delete(region.id) if region.id in machine.dax_regions else machine.dax_regions
    fields = dict(zip(("topology", "built"), without, strict=True))
    return changed(machine, dax=devices, dax_regions=states, **fields)


def _check(machine: Machine, nid: int, memory: Range, unit: int) -> None:
    if nid not in possible_nodes(machine):
        raise InvalidValue(f"node {nid} is not possible")
    if memory.start % unit or memory.end % unit or memory.end > 1 << 52:
        raise InvalidValue(f"{memory} is not whole units of {unit:#x} bytes below 2^52")
    topology = machine.topology
    there = [
        *(known.range for node in topology.nodes for known in node.memory),
        *(region.range for region in topology.dax_regions),
        *(bar.range for device in topology.pci_devices for bar in device.bars),
        *(Range(start, end) for start, end, _ in machine.hidden.runs()),
    ]
    if any(memory.overlaps(known) for known in there):
        raise Exists(f"something is in {memory} already")


def _with_memory(topology: Topology, nid: int, memory: Memory) -> Topology:
    ids = [node.id for node in topology.nodes]
    if nid not in ids:
        at = sum(known < nid for known in ids)
        nodes = (*topology.nodes[:at], Node(nid), *topology.nodes[at:])
        topology = evolve(topology, nodes=nodes, distances=_with_distance(topology.distances, at))
    nodes = tuple(
        evolve(node, memory=tuple(sorted((*node.memory, memory), key=lambda known: known.range)))
        if node.id == nid
        else node
        for node in topology.nodes
    )
    return evolve(topology, nodes=nodes)


def _with_distance(distances: tuple[tuple[int, ...], ...], at: int) -> tuple[tuple[int, ...], ...]:
    # what the firmware's table does not name is remote
    if not distances:
        return distances
    rows = [(*row[:at], REMOTE_DISTANCE, *row[at:]) for row in distances]
    own = tuple(10 if column == at else REMOTE_DISTANCE for column in range(len(rows) + 1))
    return (*rows[:at], own, *rows[at:])


def _without_memory(topology: Topology, nid: int, memory: Range) -> Topology:
    nodes = tuple(
        evolve(node, memory=tuple(known for known in node.memory if known.range != memory)) if node.id == nid else node
        for node in topology.nodes
    )
    return evolve(topology, nodes=nodes)


def _with_region(topology: Topology, region: DaxRegion) -> Topology:
    regions = sorted((*topology.dax_regions, region), key=lambda known: known.id)
    return evolve(topology, dax_regions=tuple(regions))
