"""CPUs and caches out of a recorded sysfs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import evolve

from tdxfs.cpus import group
from tdxfs.formats.read import cpu_set, id_set, number, numbered, text, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.formats.sysfs_cache import ROOT, read_caches
from tdxfs.formats.sysfs_node import NODES, node_ids
from tdxfs.idlist import format_list
from tdxfs.model import Cpu, Topology
from tdxfs.sysfs.codec import BOOL, DECIMAL, HEX, LINE

VULNERABILITIES = f"{ROOT}/vulnerabilities"
SIBLINGS = {
    "core": ("core_cpus", "thread_siblings"),
    "cluster": ("cluster_cpus",),
    "die": ("die_cpus",),
    "package": ("package_cpus", "core_siblings"),
    "book": ("book_siblings",),
    "drawer": ("drawer_siblings",),
}
"""Scope -> what its files in ``topology`` are called, newest name first: masks, and lists with ``_list``."""


def read_cpus(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the CPUs that the snapshot shows; needs its kernel."""
    present = sorted(id_set(snapshot, f"{ROOT}/present")) or numbered(snapshot, ROOT, "cpu")
    online = id_set(snapshot, f"{ROOT}/online") or _online(snapshot, present)
    possible = id_set(snapshot, f"{ROOT}/possible", frozenset(present))
    model_name = re.search(r"^model name\s*: (.*)$", text(snapshot, "proc/cpuinfo"), re.MULTILINE)
    topology = evolve(
        topology,
        cpus=_cpus(snapshot, present, online),
        possible_cpus=max(possible, default=0) + 1 if possible else 0,
        nr_cpus=value(snapshot, f"{ROOT}/kernel_max", DECIMAL, topology.nr_cpus - 1) + 1,
        modalias=value(snapshot, f"{ROOT}/modalias", LINE, ""),
        microcode=_microcode(snapshot, min(online, default=0)),
        vulnerabilities={
            name: value(snapshot, f"{VULNERABILITIES}/{name}", LINE, "") for name in snapshot.names(VULNERABILITIES)
        },
        model_name=model_name[1] if model_name else topology.model_name,
    )
    topology = _with_contradictions(snapshot, _with_dies_and_clusters(snapshot, topology), online)
    return read_caches(snapshot, topology, online)


def _online(snapshot: Snapshot, present: list[int]) -> frozenset[int]:
    # before Linux 2.6.28 only each CPU says it; one without a place in the topology is as good as offline
    placed = {number for number in present if snapshot.names(f"{ROOT}/cpu{number}/topology")} or {*present}
    return frozenset(number for number in placed if value(snapshot, f"{ROOT}/cpu{number}/online", BOOL, True))


def _nodes(snapshot: Snapshot) -> dict[int, int]:
    # by the links, which offline CPUs have too, or by the masks
    found: dict[int, int] = {}
    for nid in node_ids(snapshot):
        directory = f"{NODES}/node{nid}"
        linked = numbered(snapshot, directory, "cpu")
        for cpu in linked or sorted(cpu_set(snapshot, f"{directory}/cpumap", f"{directory}/cpulist") or ()):
            found.setdefault(cpu, nid)
    return found


def _cpus(snapshot: Snapshot, present: list[int], online: frozenset[int]) -> tuple[Cpu, ...]:
    nodes = _nodes(snapshot)
    there = sorted(online.intersection(present))
    cores = {cpu: _said(snapshot, cpu, "core") for cpu in there}
    packages = {cpu: _said(snapshot, cpu, "package") for cpu in there}
    package_ids = {cpu: _topology(snapshot, cpu, "physical_package_id") for cpu in there}
    core_ids = {cpu: _topology(snapshot, cpu, "core_id") for cpu in there}
    dies = {cpu: _topology(snapshot, cpu, "die_id") or 0 for cpu in there}
    package_of = _places(packages, package_ids, dict.fromkeys(there, ()), online)
    core_of = _places(cores, core_ids, {cpu: (package_of[cpu], dies[cpu]) for cpu in there}, frozenset())
    found = []
    for cpu_id in present:
        cpu = _cpu(snapshot, cpu_id, cpu_id in online, nodes.get(cpu_id, min(nodes.values(), default=0)))
        if cpu.online:
            core, package = core_of[cpu_id], package_of[cpu_id]
            siblings = sorted(cores[cpu_id] or (cpu_id,))
            cpu = evolve(
                cpu,
                package=package,
                core=core,
                thread=siblings.index(cpu_id) if cpu_id in siblings else 0,
                package_id=None if package_ids[cpu_id] == package else package_ids[cpu_id],
                core_id=None if core_ids[cpu_id] == core else core_ids[cpu_id],
            )
        found.append(cpu)
    return tuple(found)


def _cpu(snapshot: Snapshot, cpu: int, online: bool, node: int) -> Cpu:
    directory = f"{ROOT}/cpu{cpu}"
    capacity = number(snapshot, f"{directory}/cpu_capacity")
    return Cpu(
        cpu,
        node,
        online=online,
        book=_topology(snapshot, cpu, "book_id"),
        drawer=_topology(snapshot, cpu, "drawer_id"),
        max_frequency=number(snapshot, f"{directory}/cpufreq/cpuinfo_max_freq"),
        base_frequency=number(snapshot, f"{directory}/cpufreq/base_frequency"),
        capacity=Cpu(cpu).capacity if capacity is None else capacity,
    )


def _topology(snapshot: Snapshot, cpu: int, name: str) -> int | None:
    return number(snapshot, f"{ROOT}/cpu{cpu}/topology/{name}")


def _said(snapshot: Snapshot, cpu: int, scope: str) -> frozenset[int] | None:
    # with which CPUs it says to share that; None if it does not say it
    files = [f"{ROOT}/cpu{cpu}/topology/{name}{end}" for name in SIBLINGS[scope] for end in ("", "_list")]
    return cpu_set(snapshot, *files)


def _places(
    said: Mapping[int, frozenset[int] | None],
    ids: Mapping[int, int | None],
    inside: Mapping[int, tuple[int, ...]],
    default: frozenset[int],
) -> dict[int, int]:
    # the number of each CPU's place inside another: the kernel's, if those that have the same are siblings for the
    # most part; otherwise those that say the same are, and those that say nothing are with `default` or alone
    shown: dict[tuple[tuple[int, ...], int | None], set[int]] = {}
    for cpu, where in inside.items():
        shown.setdefault((where, ids[cpu]), set()).add(cpu)
    siblings = {cpu: cpus & inside.keys() for cpu, cpus in said.items() if cpus is not None}
    agree = sum(siblings.get(cpu) in (None, shown[where, ids[cpu]]) for cpu, where in inside.items())
    known = {cpu: at for cpu, at in ids.items() if at is not None and at >= 0}
    if len(known) == len(ids) and 2 * agree > len(ids):
        return known
    places = {cpu: (where, tuple(sorted(siblings.get(cpu) or default or {cpu}))) for cpu, where in inside.items()}
    order = {place: at for at, place in enumerate(sorted(set(places.values())))}
    return {cpu: order[place] for cpu, place in places.items()}


def _with_dies_and_clusters(snapshot: Snapshot, topology: Topology) -> Topology:
    dies = _recorded(snapshot, topology, "die_id", group(topology, ()).die_id)
    topology = evolve(topology, cpus=tuple(evolve(cpu, die=dies.get(cpu.id)) for cpu in topology.cpus))
    clusters = _recorded(snapshot, topology, "cluster_id", group(topology, ()).cluster_id)
    return evolve(topology, cpus=tuple(evolve(cpu, cluster=clusters.get(cpu.id)) for cpu in topology.cpus))


def _recorded(snapshot: Snapshot, topology: Topology, file: str, derived: Callable[[Cpu], int]) -> dict[int, int]:
    # the ids by CPU, or nothing if they are what the CPUs' other places say
    shown = {cpu.id: _topology(snapshot, cpu.id, file) for cpu in topology.cpus}
    known = {cpu: at for cpu, at in shown.items() if at is not None}
    return {} if all(known.get(cpu.id) in (None, derived(cpu)) for cpu in topology.cpus) else known


def _with_contradictions(snapshot: Snapshot, topology: Topology, online: frozenset[int]) -> Topology:
    # what some CPUs say against their places
    derived = group(topology, online)

    def against(cpu: Cpu) -> dict[str, str]:
        said = {scope: _said(snapshot, cpu.id, scope) for scope in SIBLINGS}
        return {
            scope: format_list(cpus & online)
            for scope, cpus in said.items()
            if cpus is not None and cpus & online != derived.of(cpu, scope)
        }

    cpus = tuple(evolve(cpu, siblings=against(cpu)) if cpu.online else cpu for cpu in topology.cpus)
    return evolve(topology, cpus=cpus)


def _microcode(snapshot: Snapshot, cpu: int) -> int:
    if not snapshot.names(f"{ROOT}/cpu{cpu}/microcode"):
        return 0
    return value(snapshot, f"{ROOT}/cpu{cpu}/microcode/version", HEX, Topology().microcode)
