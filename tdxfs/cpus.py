"""Which CPUs belong together: siblings by thread, core, cluster, die and package.

APIC ids are put together as x86 does, from the fewest bits that hold each part; cache and
cluster ids follow from them (arch/x86/kernel/cpu/cacheinfo.c).
"""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen

from tdxfs.model import Cpu, Machine

SCOPES = ("thread", "core", "cluster", "die", "package")


@frozen(eq=False)
class Siblings:
    """The online CPUs of a machine by what they share; made once per machine."""

    groups: dict[tuple[str, tuple[int, ...]], frozenset[int]]
    apic_ids: dict[int, int]
    shift: dict[str, int]
    """Scope -> how many low APIC id bits its CPUs differ in."""

    def of(self, cpu: Cpu, scope: str) -> frozenset[int]:
        """Online CPUs that share `scope` with `cpu`, itself included."""
        return self.groups[scope, _key(cpu, scope, self.apic_ids[cpu.id] >> self.shift["core"])]

    def cluster_id(self, cpu: Cpu) -> int:
        return self.apic_ids[cpu.id] >> self.shift["core"] << self.shift["core"] if cpu.cluster is None else cpu.cluster

    def cache_id(self, cpu: Cpu, scope: str) -> int:
        """``id`` of a cache that the CPUs of `scope` share."""
        return self.apic_ids[cpu.id] >> self.shift[scope]


@lru_cache(maxsize=4)
def siblings(machine: Machine) -> Siblings:
    cpus = machine.topology.cpus
    thread_bits = _bits(max((cpu.thread for cpu in cpus), default=0))
    core_bits = _bits(max((cpu.core for cpu in cpus), default=0))
    die_bits = _bits(max((cpu.die for cpu in cpus), default=0))
    core_shift, die_shift = thread_bits, thread_bits + core_bits
    shift = {
        "thread": 0,
        "core": core_shift,
        "cluster": core_shift,
        "die": die_shift,
        "package": die_shift + die_bits,
    }
    apic_ids = {
        cpu.id: cpu.package << shift["package"] | cpu.die << die_shift | cpu.core << core_shift | cpu.thread
        for cpu in cpus
    }
    groups: dict[tuple[str, tuple[int, ...]], set[int]] = {}
    for cpu in cpus:
        if cpu.id in machine.cpus_online:
            for scope in SCOPES:
                key = _key(cpu, scope, apic_ids[cpu.id] >> core_shift)
                groups.setdefault((scope, key), set()).add(cpu.id)
    return Siblings({key: frozenset(ids) for key, ids in groups.items()}, apic_ids, shift)


def _bits(highest: int) -> int:
    return highest.bit_length()


def _key(cpu: Cpu, scope: str, core_id: int) -> tuple[int, ...]:
    if scope == "thread":
        return (cpu.id,)
    if scope == "core" or (scope == "cluster" and cpu.cluster is None):
        return (cpu.package, core_id)
    if scope == "cluster":
        return (cpu.package, cpu.cluster or 0)
    return (cpu.package, cpu.die) if scope == "die" else (cpu.package,)
