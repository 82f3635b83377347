"""``-numa``: nodes, distances and HMAT, as the tables say them; compare QEMU's hw/core/numa.c and hw/acpi/hmat.c."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from tdxfs.errors import UserError
from tdxfs.formats.firmware.facts import CacheInfo, Firmware, Hmat, Locality, MemoryAffinity, Metric
from tdxfs.formats.qemu.layout import HOLE_640K, Layout
from tdxfs.formats.qemu.options import Option, named
from tdxfs.formats.qemu.processors import Processors
from tdxfs.idlist import parse_list
from tdxfs.model import MIB
from tdxfs.nodes import LOCAL_DISTANCE
from tdxfs.ranges import Ranges

METRICS = {
    "access-latency": (Metric.WRITE_LATENCY, Metric.READ_LATENCY),
    "read-latency": (Metric.READ_LATENCY,),
    "write-latency": (Metric.WRITE_LATENCY,),
    "access-bandwidth": (Metric.WRITE_BANDWIDTH, Metric.READ_BANDWIDTH),
    "read-bandwidth": (Metric.READ_BANDWIDTH,),
    "write-bandwidth": (Metric.WRITE_BANDWIDTH,),
}
ASSOCIATIVITIES = ("none", "direct", "complex")
POLICIES = ("none", "write-back", "write-through")


@frozen
class GuestNode:
    """One node of the command line."""

    size: int = 0
    initiator: int | None = None
    processors: frozenset[int] = field(factory=frozenset)


def read_numa(
    options: Sequence[Option],
    layout: Layout,
    processors: Processors,
    backends: Mapping[str, int],
    hmat: bool,
    firmware: Firmware,
) -> Firmware:
    """
    `firmware` with SRAT, SLIT and HMAT; without ``-numa`` there are none, or one node where memory can be plugged
    in. `backends` are the sizes of the memory backends by id; the NVDIMMs that `firmware` has already come after the
    nodes' memory, and after them the room for more, which is the last node's. UserError if nodes and memory do not fit.
    """
    numa = named(options, "numa")
    nodes = _nodes(numa, processors, backends)
    if not nodes:
        if layout.devices is None:
            return firmware
        nodes = {0: GuestNode(layout.ram)}
    if sorted(nodes) != list(range(len(nodes))):
        raise UserError(f"-numa node: nodeid: must be 0 to {len(nodes) - 1}, each given once")
    total = sum(node.size for node in nodes.values())
    if total != layout.ram:
        raise UserError(f"-numa node: the nodes have {total} bytes, -m says {layout.ram}")
    return evolve(
        firmware,
        processor_domains=_domains(nodes, processors),
        memory=(*_memory(nodes, layout), *firmware.memory, *_room(nodes, layout)),
        distances=_distances(numa, len(nodes)),
        hmat=_hmat(numa, nodes) if hmat else None,
    )


def _room(nodes: Mapping[int, GuestNode], layout: Layout) -> Iterator[MemoryAffinity]:
    if layout.devices is not None:
        yield MemoryAffinity(max(nodes), layout.devices, hotplug=True)


def _nodes(numa: Sequence[Option], processors: Processors, backends: Mapping[str, int]) -> dict[int, GuestNode]:
    nodes: dict[int, GuestNode] = {}
    for option in numa:
        if option.get("type") == "node":
            nid = option.number("nodeid", len(nodes))
            if nid in nodes:
                raise UserError(f"{option}: nodeid: {nid} is given twice")
            size = option.size("mem", unit="M")
            memdev = option.get("memdev")
            if memdev:
                if memdev not in backends:
                    raise UserError(f"{option}: memdev: there is no memory backend {memdev!r}")
                size = backends[memdev]
            initiator = option.number("initiator") if option.get("initiator") else None
            nodes[nid] = GuestNode(size, initiator, parse_list(",".join(option.all("cpus"))))
    for option in numa:
        if option.get("type") == "cpu":
            nid = option.number("node-id")
            if nid not in nodes:
                raise UserError(f"{option}: node-id: there is no such node")
            more = frozenset(processors.matching(option))
            nodes[nid] = evolve(nodes[nid], processors=nodes[nid].processors | more)
    return nodes


def _domains(nodes: Mapping[int, GuestNode], processors: Processors) -> dict[int, int]:
    owner = {index: nid for nid, node in sorted(nodes.items()) for index in node.processors}
    # those of no node are dealt out by socket if there are only such, else they go to node 0
    spread = not owner
    return {
        processors.apic_id(index): owner.get(index, processors.place(index)[0] % len(nodes) if spread else 0)
        for index in range(processors.possible)
    }


def _memory(nodes: Mapping[int, GuestNode], layout: Layout) -> Iterator[MemoryAffinity]:
    at = 0
    for nid, node in sorted(nodes.items()):
        for part in Ranges.of(layout.placed(at, node.size)) - Ranges((HOLE_640K,)):
            yield MemoryAffinity(nid, part)
        at += node.size


def _distances(numa: Sequence[Option], count: int) -> tuple[tuple[int, ...], ...]:
    given = {
        (option.number("src"), option.number("dst")): option.number("val")
        for option in numa
        if option.get("type") == "dist"
    }
    if not given:
        return ()

    def distance(a: int, b: int) -> int:
        if a == b:
            return LOCAL_DISTANCE
        value = given.get((a, b), given.get((b, a)))
        if value is None:
            raise UserError(f"-numa dist: the distance between {a} and {b} is missing")
        return value

    return tuple(tuple(distance(a, b) for b in range(count)) for a in range(count))


def _hmat(numa: Sequence[Option], nodes: Mapping[int, GuestNode]) -> Hmat:
    matrices: dict[str, dict[tuple[int, int], int]] = {}
    caches = []
    for option in numa:
        if option.get("type") == "hmat-lb" and option.get("hierarchy", "memory") == "memory":
            kind = option.need("data-type")
            if kind not in METRICS:
                raise UserError(f"{option}: data-type: must be one of {', '.join(METRICS)}")
            latency = METRICS[kind][0].is_latency
            value = option.number("latency") if latency else option.size("bandwidth") // MIB
            matrices.setdefault(kind, {})[option.number("initiator"), option.number("target")] = value
        elif option.get("type") == "hmat-cache":
            caches.append(
                CacheInfo(
                    domain=option.number("node-id"),
                    level=option.number("level"),
                    size=option.size("size"),
                    line_size=option.number("line", 0),
                    associativity=_choice(option, "associativity", ASSOCIATIVITIES),
                    policy=_choice(option, "policy", POLICIES),
                )
            )
    return Hmat(
        {nid: node.initiator for nid, node in nodes.items()},
        # in the order in which QEMU writes them
        tuple(Locality(METRICS[kind], matrices[kind]) for kind in METRICS if kind in matrices),
        tuple(caches),
    )


def _choice(option: Option, key: str, words: tuple[str, ...]) -> int:
    word = option.get(key, words[0])
    if word not in words:
        raise UserError(f"{option}: {key}: must be one of {', '.join(words)}")
    return words.index(word)
