"""``/proc/iomem``: the resource tree; compare kernel/resource.c, drivers/dax/kmem.c."""

from __future__ import annotations

from collections.abc import Iterator

from tdxfs.model import DaxRegion, DaxState, Driver, Machine, Provider
from tdxfs.ranges import Range, Ranges

Line = tuple[Range, int, str]
"""A resource, its depth, its name."""


def iomem(machine: Machine) -> str:
    """
    One line per resource, both ends inclusive and hexadecimal, children indented; recorded
    text where the topology has it.
    """
    recorded = machine.records.get("iomem")
    if recorded is not None:
        return recorded
    lines = [*_ram(machine), *_dax(machine), *_bars(machine)]
    groups: list[list[Line]] = []
    for line in lines:
        if line[1] == 0:
            groups.append([line])
        else:
            groups[-1].append(line)
    groups.sort(key=lambda group: group[0][0])
    return "".join(
        f"{'  ' * depth}{where.start:08x}-{where.end - 1:08x} : {name}\n"
        for group in groups
        for where, depth, name in group
    )


def _ram(machine: Machine) -> Iterator[Line]:
    # System RAM without what kmem brought, with the PAMTs inside it
    kmem = Ranges.of(mapping for device in machine.dax.values() for mapping in device.mappings)
    ram = Ranges.of(Range(start, end) for start, end, _ in machine.ram.runs()) - kmem
    for part in ram:
        yield part, 0, "System RAM"


def _dax(machine: Machine) -> Iterator[Line]:
    for region in machine.topology.dax_regions:
        depth = 0
        if region.provider is Provider.CXL:
            yield region.range, 0, f"CXL Window {region.id}"
            yield region.range, 1, f"region{region.id}"
            depth = 2
        elif region.provider is Provider.NVDIMM:
            yield region.range, 0, "Persistent Memory"
            depth = 1
            if not region.devices and not region.on_cxl:
                # nothing but a raw namespace
                yield region.range, depth, f"namespace{region.id}.0"
        elif not any(device.driver for device in _devices(machine, region)):
            yield region.range, 0, "Soft Reserved"
        end = region.range.start
        for device in _devices(machine, region):
            if region.static and end < device.mappings[0].start:
                yield Range(end, device.mappings[0].start), depth, f"namespace{region.id}.{device.id}"
            end = max([end, *(mapping.end for mapping in device.mappings)])
            for mapping in sorted(device.mappings):
                whole = next(iter(Ranges((mapping,)).aligned_in(machine.topology.memory.block_size)), mapping)
                # kmem may have left the device and not got its memory back
                is_ram = machine.ram.get(whole.start) is not None
                if is_ram or device.driver is not None:
                    yield whole if is_ram or device.driver is Driver.KMEM else mapping, depth, device.name
                if is_ram:
                    yield whole, depth + 1, "System RAM (kmem)"


def _devices(machine: Machine, region: DaxRegion) -> Iterator[DaxState]:
    for key in machine.region_devices.get(region.id, ()):
        yield machine.dax[key]


def _bars(machine: Machine) -> Iterator[Line]:
    for device in machine.topology.pci_devices:
        for bar in device.bars:
            yield bar.range, 0, f"PCI Bus {device.address[:7]}"
            yield bar.range, 1, device.address
