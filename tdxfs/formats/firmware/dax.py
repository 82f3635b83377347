"""NVDIMM and soft-reserved regions; compare drivers/acpi/nfit/core.c and drivers/dax/hmem."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from tdxfs.formats.firmware.domains import Domains
from tdxfs.formats.firmware.facts import Firmware, PersistentRange
from tdxfs.formats.firmware.pfn_device import MapMode, devdax_range
from tdxfs.formats.firmware.unsaid import Unsaid
from tdxfs.model import MIB, DaxDevice, DaxRegion, Driver, MemoryKind, Provider, Topology
from tdxfs.nodes import REMOTE_DISTANCE
from tdxfs.ranges import Ranges


def regions_of(
    firmware: Firmware, domains: Domains, topology: Topology, soft: Ranges, unsaid: Unsaid
) -> Iterator[DaxRegion]:
    """The dax regions beside `topology`'s nodes; `soft` is the soft-reserved memory."""
    regions: list[DaxRegion] = []
    for number, persistent in enumerate(firmware.persistent):
        regions.append(_nvdimm(number, persistent, domains, topology, unsaid))
    for part in soft.aligned_in(2 * MIB):
        target = domains.at(part.start)
        regions.append(
            DaxRegion(
                id=len(regions),
                provider=Provider.HMEM,
                range=part,
                target_node=target,
                numa_node=_near(target, topology, domains),
                kind=MemoryKind.HBM,
                devices=(DaxDevice(0, (part,), Driver.KMEM if target is not None else Driver.DEVICE_DAX),),
            )
        )
    yield from regions


def _nvdimm(
    number: int, persistent: PersistentRange, domains: Domains, topology: Topology, unsaid: Unsaid
) -> DaxRegion:
    target = domains.at(persistent.range.start) if persistent.domain is None else domains.node(persistent.domain)
    region = DaxRegion(
        id=number,
        provider=Provider.NVDIMM,
        range=persistent.range,
        target_node=target,
        numa_node=_near(target, topology, domains),
        kind=MemoryKind.NVDIMM,
    )
    if not unsaid.devdax:
        return region
    where = devdax_range(persistent.range, region.align, unsaid.map)
    device = DaxDevice(0, (where,), unsaid.driver, map_on_pmem=unsaid.map is MapMode.DEV)
    return evolve(region, devices=(device,))


def _near(target: int | None, topology: Topology, domains: Domains) -> int | None:
    # numa_map_to_online_node(): the nearest node that is online at boot
    if target is None:
        return None
    online = {cpu.node for cpu in topology.cpus} | {node.id for node in topology.nodes if node.memory}
    if target in online:
        return target
    order = {node.id: row for row, node in enumerate(topology.nodes)}

    def distance(nid: int) -> int:
        if topology.distances and target in order:
            return topology.distances[order[target]][order[nid]]
        return REMOTE_DISTANCE

    return min(sorted(online), key=distance)
