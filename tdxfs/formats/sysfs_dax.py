"""dax regions and devices out of a recorded sysfs."""

from __future__ import annotations

import re

from attrs import evolve

from tdxfs.formats.read import iomem, numbered, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.formats.sysfs_memory import memory_of
from tdxfs.model import MIB, DaxDevice, DaxRegion, Driver, MemoryKind, Provider, Topology
from tdxfs.ranges import Range, Ranges
from tdxfs.sysfs.codec import BOOL, DECIMAL, HEX, LINE

BUS = "sys/bus/dax/devices"
DRIVERS = "sys/bus/dax/drivers"
NVDIMM_BUS = "sys/bus/nd/devices"


def read_dax(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the dax regions that the snapshot shows, idle NVDIMM regions included."""
    regions: dict[int, DaxRegion] = {}
    for name in snapshot.names(BUS):
        match = re.fullmatch(r"dax([0-9]+)\.([0-9]+)", name)
        if match:
            region, device = int(match[1]), _device(snapshot, name, int(match[2]))
            known = regions.get(region) or _region(snapshot, region, name)
            if known is not None:
                if not device.mappings and not known.devices and device.driver is Driver.KMEM:
                    device = evolve(device, mappings=(known.range,))
                if not device.size:
                    # its resource is the region's first address
                    start = value(snapshot, f"{BUS}/{name}/resource", HEX, known.range.start)
                    known = evolve(known, range=Range(start, start + known.range.size))
                regions[region] = evolve(known, devices=(*known.devices, device))
    for number in numbered(snapshot, NVDIMM_BUS, "region"):
        if number not in regions:
            idle = _idle(snapshot, number, f"{NVDIMM_BUS}/region{number}")
            if idle is not None:
                regions[idle.id] = idle
    return evolve(
        topology,
        dax_regions=tuple(_grown(regions[number]) for number in sorted(regions)),
        kmem_driver="kmem" in snapshot.names(DRIVERS) or not snapshot.names("sys/bus/dax"),
    )


def _device(snapshot: Snapshot, name: str, number: int) -> DaxDevice:
    path = f"{BUS}/{name}"
    mappings = []
    for index in numbered(snapshot, path, "mapping"):
        start = value(snapshot, f"{path}/mapping{index}/start", HEX, -1)
        end = value(snapshot, f"{path}/mapping{index}/end", HEX, -1)
        if 0 <= start < end:
            mappings.append(Range(start, end + 1))
    size = value(snapshot, f"{path}/size", DECIMAL, 0)
    start = value(snapshot, f"{path}/resource", HEX, -1)
    if not mappings and size and start >= 0:
        mappings = [Range(start, start + size)]
    driver = "kmem" if _kmem(snapshot, name) else (snapshot.link(f"{path}/driver") or "").rpartition("/")[2]
    minor = value(snapshot, f"{path}/dev", LINE, "").rpartition(":")[2]
    return DaxDevice(
        number,
        tuple(mappings),
        Driver(driver) if driver in {known.value for known in Driver} else None,
        value(snapshot, f"{path}/align", DECIMAL, 2 * MIB),
        value(snapshot, f"{path}/memmap_on_memory", BOOL, False),
        int(minor) if minor.isdecimal() else None,
        _nd(snapshot.link(path) or "", number),
        value(snapshot, f"{path}/../mode", LINE, "") == "pmem",
    )


def _kmem(snapshot: Snapshot, name: str) -> bool:
    return name in snapshot.names(f"{DRIVERS}/kmem")


def _nd(path: str, number: int) -> int | None:
    # of the nd device, where it is not the dax device's
    nd = _instance(path.rpartition("/")[0]) if "ndbus" in path else None
    return None if nd == number else nd


def _region(snapshot: Snapshot, number: int, device: str) -> DaxRegion | None:
    path = f"{BUS}/{device}"
    parent = f"{path}/../dax_region"
    target = value(snapshot, f"{path}/target_node", DECIMAL, -1)
    numa = value(snapshot, f"{path}/numa_node", DECIMAL, -1)
    start = value(snapshot, f"{path}/resource", HEX, -1)
    size = value(snapshot, f"{parent}/size", DECIMAL, 0) or value(snapshot, f"{path}/size", DECIMAL, 0)
    online = memory_of(snapshot, target) if start < 0 and _kmem(snapshot, device) else Ranges()
    if online:
        # old kernels do not say where it is: where its memory went online
        start, size = online.parts[0].start, online.parts[0].size
    if start < 0 or size <= 0:
        return None
    where = snapshot.link(path) or ""
    provider, kind = _provider(where)
    if provider is Provider.HMEM and iomem(snapshot, "CXL Window [0-9]+").covers(Range(start, start + size)):
        kind = MemoryKind.CXL
    seed = _instance(value(snapshot, f"{parent}/seed", LINE, ""))
    if provider is not Provider.HMEM:
        # the region that it was made in: a namespace has a head, and a CXL region may be larger than its devices
        start = value(snapshot, f"{path}/../../resource", HEX, start)
        size = value(snapshot, f"{path}/../../size", DECIMAL, size)
    return DaxRegion(
        number,
        provider,
        Range(start, start + size),
        target if target >= 0 else None,
        numa if numa >= 0 else None,
        value(snapshot, f"{parent}/align", DECIMAL, 2 * MIB),
        kind=kind,
        seed=_instance(value(snapshot, f"{path}/../../dax_seed", LINE, "")) if provider is Provider.NVDIMM else seed,
        youngest=_instance(value(snapshot, f"{parent}/create", LINE, "")),
        uuid=value(snapshot, f"{path}/../uuid", LINE, ""),
    )


def _provider(path: str) -> tuple[Provider, MemoryKind]:
    if "ndbus" in path:
        return Provider.NVDIMM, MemoryKind.CXL if "ACPI0017" in path else MemoryKind.NVDIMM
    return (Provider.CXL, MemoryKind.CXL) if "ACPI0017" in path else (Provider.HMEM, MemoryKind.HBM)


def _instance(name: str) -> int | None:
    number = name.rpartition(".")[2]
    return int(number) if number.isdecimal() else None


def _idle(snapshot: Snapshot, number: int, path: str) -> DaxRegion | None:
    size = value(snapshot, f"{path}/size", DECIMAL, 0)
    start = value(snapshot, f"{path}/resource", HEX, -1)
    if start < 0 or size <= 0:
        return None
    target = value(snapshot, f"{path}/target_node", DECIMAL, -1)
    numa = value(snapshot, f"{path}/numa_node", DECIMAL, -1)
    _, kind = _provider(f"ndbus {snapshot.link(path) or ''}")
    return DaxRegion(
        number,
        Provider.NVDIMM,
        Range(start, start + size),
        target if target >= 0 else None,
        numa if numa >= 0 else None,
        kind=kind,
        seed=_instance(value(snapshot, f"{path}/dax_seed", LINE, "")),
    )


def _grown(region: DaxRegion) -> DaxRegion:
    # a device may begin above its region's start, so the range found from it may be too far up
    starts = [mapping.start for device in region.devices for mapping in device.mappings]
    ends = [mapping.end for device in region.devices for mapping in device.mappings]
    start = min([region.range.start, *starts])
    end = max([start + region.range.size, *ends])
    return evolve(region, range=Range(start, end), devices=tuple(sorted(region.devices, key=lambda d: d.id)))
