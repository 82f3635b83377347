"""CPU caches out of a recorded sysfs."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

from tdxfs.cpus import Siblings, group
from tdxfs.formats.read import cpu_set, number, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.idlist import format_list
from tdxfs.model import NO_CACHE, Cache, Cpu, Topology
from tdxfs.sysfs.codec import WORD
from tdxfs.sysfs.cpu_topology import SIZE

ROOT = "sys/devices/system/cpu"


@frozen
class Shown:
    """One cache as a CPU's directory shows it."""

    kind: Cache
    """Not yet shared."""
    id: int | None
    cpus: frozenset[int]
    """Online CPUs that share it."""


def read_caches(snapshot: Snapshot, topology: Topology, online: frozenset[int]) -> Topology:
    """`topology` with the caches that its CPUs show."""
    siblings = group(topology, online)
    shown = {cpu.id: _shown(snapshot, cpu, siblings, online) for cpu in topology.cpus if cpu.id in online}
    kinds = _kinds([cache.kind for cache in caches] for caches in shown.values())
    first = next(iter(shown), None)
    if first is not None and [cache.kind for cache in shown[first]] == kinds:
        shared = [_shared(siblings, first, topology, cache.cpus) for cache in shown[first]]
        kinds = [evolve(kind, shared=scope) for kind, scope in zip(kinds, shared, strict=True)]
    return _with_ids(evolve(topology, caches=tuple(kinds)), shown, online)


def _shown(snapshot: Snapshot, cpu: Cpu, siblings: Siblings, online: frozenset[int]) -> list[Shown]:
    names = [name for name in snapshot.names(f"{ROOT}/cpu{cpu.id}/cache") if name.startswith("index")]
    found = []
    for name in sorted(names, key=lambda name: int(name[5:])):
        index = f"{ROOT}/cpu{cpu.id}/cache/{name}"

        def read(file: str, default: int, index: str = index) -> int:
            shown = number(snapshot, f"{index}/{file}")
            return default if shown is None else shown

        kind = Cache(
            level=read("level", 0),
            type=value(snapshot, f"{index}/type", WORD, "Unified"),
            size=value(snapshot, f"{index}/size", SIZE, 0),
            ways=max(read("ways_of_associativity", 0), 0),
            line=read("coherency_line_size", 0),
            partitions=read("physical_line_partition", 1),
        )
        sets = number(snapshot, f"{index}/number_of_sets")
        cpus = cpu_set(snapshot, f"{index}/shared_cpu_map", f"{index}/shared_cpu_list")
        found.append(
            Shown(
                kind if sets in (None, kind.number_of_sets) else evolve(kind, sets=sets),
                number(snapshot, f"{index}/id"),
                # some kernels name nobody where the core is meant
                (cpus or siblings.of(cpu, "core")) & online,
            )
        )
    return found


def _kinds(sequences: Iterable[list[Cache]]) -> list[Cache]:
    # every CPU's caches are among these, in their order
    found: list[Cache] = []
    for sequence in sequences:
        at = 0
        for after, kind in enumerate(sequence, 1):
            if kind in found[at:]:
                at = found.index(kind, at)
            else:
                later = [found.index(other, at) for other in sequence[after:] if other in found[at:]]
                at = min(later, default=len(found))
                found.insert(at, kind)
            at += 1
    return found


def _shared(siblings: Siblings, cpu: int, topology: Topology, cpus: frozenset[int]) -> str:
    # where no scope is right, the ids of the caches say it
    mine = next(one for one in topology.cpus if one.id == cpu)
    scopes = ("core", "cluster", "package", "die")
    return next((scope for scope in scopes if siblings.of(mine, scope) == cpus), "thread")


def _with_ids(topology: Topology, shown: dict[int, list[Shown]], online: frozenset[int]) -> Topology:
    # only where the CPUs' places do not say which caches they share, and by which number
    derived = group(topology, online)
    cpus = [cpu for cpu in topology.cpus if cpu.id in online]
    numbers = {cpu.id: _numbers(topology.caches, shown[cpu.id]) for cpu in cpus}
    agree = sum(_shared_as(derived, cpu, shown[cpu.id]) for cpu in cpus)
    if 2 * agree <= len(cpus) or not all(_numbered_as(derived, cpu, shown[cpu.id]) for cpu in cpus):
        ids = {number: _ids(topology.caches, numbers[number], caches) for number, caches in shown.items()}
        topology = evolve(topology, cpus=tuple(evolve(cpu, cache_ids=ids.get(cpu.id, ())) for cpu in topology.cpus))
        derived = group(topology, online)

    def against(cpu: Cpu) -> dict[str, str]:
        # what some CPUs say against the others
        mine = zip(numbers[cpu.id], shown[cpu.id], strict=True)
        return {f"cache{at}": format_list(cache.cpus) for at, cache in mine if cache.cpus != derived.sharing(cpu, at)}

    return evolve(
        topology,
        cpus=tuple(
            evolve(cpu, siblings={**cpu.siblings, **against(cpu)}) if cpu.id in online else cpu for cpu in topology.cpus
        ),
    )


def _shared_as(derived: Siblings, cpu: Cpu, caches: list[Shown]) -> bool:
    return len(caches) == len(derived.topology.caches) and all(
        cache.cpus == derived.sharing(cpu, at) for at, cache in enumerate(caches)
    )


def _numbered_as(derived: Siblings, cpu: Cpu, caches: list[Shown]) -> bool:
    return len(caches) == len(derived.topology.caches) and all(
        cache.id in (None, derived.cache_id(cpu, at)) for at, cache in enumerate(caches)
    )


def _numbers(kinds: tuple[Cache, ...], caches: list[Shown]) -> list[int]:
    # which of all kinds a CPU's caches are
    found: list[int] = []
    for cache in caches:
        at = found[-1] + 1 if found else 0
        while evolve(kinds[at], shared=cache.kind.shared) != cache.kind:
            at += 1
        found.append(at)
    return found


def _ids(kinds: tuple[Cache, ...], numbers: list[int], caches: list[Shown]) -> tuple[int, ...]:
    # the first of the CPUs that share one stands for it where the kernel numbers none
    found = [NO_CACHE] * len(kinds)
    for at, cache in zip(numbers, caches, strict=True):
        found[at] = min(cache.cpus) if cache.id is None else cache.id
    return tuple(found)
