"""Which CPUs belong together: siblings by thread, core, cluster, die, package, book and drawer, and by cache.

APIC ids are put together as x86 does, from the fewest bits that hold each part; cache and
cluster ids follow from them (arch/x86/kernel/cpu/cacheinfo.c) unless they were recorded.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from attrs import frozen

from tdxfs.idlist import parse_list
from tdxfs.model import NO_CACHE, NO_CLUSTER, NO_DIE, SCOPES, Cpu, Machine, Topology, kernel_at_least


@frozen(eq=False)
class Siblings:
    """The online CPUs of a machine by what they share; made once per machine."""

    topology: Topology
    online: frozenset[int]
    groups: dict[tuple[str, tuple[int, ...]], frozenset[int]]
    apic_ids: dict[int, int]
    shift: dict[str, int]
    """Scope -> how many low APIC id bits its CPUs differ in."""

    def of(self, cpu: Cpu, scope: str) -> frozenset[int]:
        """Online CPUs that share `scope` with `cpu`, itself included."""
        if scope in cpu.siblings:
            return parse_list(cpu.siblings[scope]) & self.online
        return self.groups[scope, _key(cpu, scope, self.apic_ids[cpu.id] >> self.shift["core"])]

    def cluster_id(self, cpu: Cpu) -> int:
        return self.apic_ids[cpu.id] >> self.shift["core"] << self.shift["core"] if cpu.cluster is None else cpu.cluster

    def die_id(self, cpu: Cpu) -> int:
        """``die_id``: dies are counted in their package, since 6.12 (Linux 6.9) through the machine."""
        if cpu.die is not None:
            return cpu.die
        return cpu.package if kernel_at_least(self.topology.kernel, "6.12") else 0

    def caches(self, cpu: Cpu) -> tuple[int, ...]:
        """Numbers of the caches that `cpu` has, in their order: those of ``cache/index0`` and the following."""
        ids = cpu.cache_ids or (0,) * len(self.topology.caches)
        return tuple(number for number, cache_id in enumerate(ids) if cache_id != NO_CACHE)

    def sharing(self, cpu: Cpu, index: int) -> frozenset[int]:
        """Online CPUs that share cache number `index` with `cpu`, itself included."""
        if f"cache{index}" in cpu.siblings:
            return parse_list(cpu.siblings[f"cache{index}"]) & self.online
        if not cpu.cache_ids:
            return self.of(cpu, self.topology.caches[index].shared)
        return self.groups[f"cache{index}", (cpu.cache_ids[index],)]

    def cache_id(self, cpu: Cpu, index: int) -> int:
        """``id`` of cache number `index` of `cpu`."""
        if cpu.cache_ids:
            return cpu.cache_ids[index]
        return self.apic_ids[cpu.id] >> self.shift[self.topology.caches[index].shared]


@lru_cache(maxsize=4)
def siblings(machine: Machine) -> Siblings:
    """Those of a machine."""
    return group(machine.topology, machine.cpus_online)


def group(topology: Topology, online: Collection[int]) -> Siblings:
    """Those of a topology of whose CPUs the `online` ones are."""
    cpus = topology.cpus
    dies: dict[int, set[int]] = {}
    for cpu in cpus:
        dies.setdefault(cpu.package, set()).add(cpu.die or 0)
    # which die of its package
    rank = {package: {die: at for at, die in enumerate(sorted(members))} for package, members in dies.items()}
    thread_bits = _bits(max((cpu.thread for cpu in cpus), default=0))
    core_bits = _bits(max((cpu.core for cpu in cpus), default=0))
    die_bits = _bits(max((len(members) - 1 for members in dies.values()), default=0))
    core_shift, die_shift = thread_bits, thread_bits + core_bits
    shift = {
        "thread": 0,
        "core": core_shift,
        "cluster": core_shift,
        "die": die_shift,
        "package": die_shift + die_bits,
    }
    apic_ids = {
        cpu.id: cpu.package << shift["package"]
        | rank[cpu.package][cpu.die or 0] << die_shift
        | cpu.core << core_shift
        | cpu.thread
        for cpu in cpus
    }
    groups: dict[tuple[str, tuple[int, ...]], set[int]] = {}
    for cpu in cpus:
        if cpu.id in online:
            for scope in SCOPES:
                key = _key(cpu, scope, apic_ids[cpu.id] >> core_shift)
                groups.setdefault((scope, key), set()).add(cpu.id)
            for index, cache_id in enumerate(cpu.cache_ids):
                # no CPU asks for those of NO_CACHE
                groups.setdefault((f"cache{index}", (cache_id,)), set()).add(cpu.id)
    return Siblings(topology, frozenset(online), {key: frozenset(ids) for key, ids in groups.items()}, apic_ids, shift)


def _bits(highest: int) -> int:
    return highest.bit_length()


def _key(cpu: Cpu, scope: str, core_id: int) -> tuple[int, ...]:
    if scope == "thread" or (scope == "die" and cpu.die == NO_DIE):
        return (cpu.id,)
    if scope == "core" or (scope == "cluster" and cpu.cluster in (None, NO_CLUSTER, -1)):
        return (cpu.package, core_id)
    if scope == "cluster":
        return (cpu.package, cpu.cluster or 0)
    if scope in ("book", "drawer"):
        return (cpu.drawer or 0, cpu.book or 0) if scope == "book" else (cpu.drawer or 0,)
    return (cpu.package, cpu.die or 0) if scope == "die" else (cpu.package,)
