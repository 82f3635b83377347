"""CPUs and caches out of a recorded sysfs."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import evolve

from tdxfs.cpus import group
from tdxfs.formats.read import id_set, text, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.model import Cache, Cpu, Topology
from tdxfs.sysfs.codec import DECIMAL, HEX, LINE, WORD
from tdxfs.sysfs.cpu_topology import SIZE

ROOT = "sys/devices/system/cpu"
VULNERABILITIES = f"{ROOT}/vulnerabilities"
SCOPES = (
    ("core", "core_cpus_list"),
    ("cluster", "cluster_cpus_list"),
    ("package", "package_cpus_list"),
    ("die", "die_cpus_list"),
)


def read_cpus(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the CPUs that the snapshot shows; needs its kernel."""
    present = sorted(id_set(snapshot, f"{ROOT}/present"))
    if not present:
        names = (re.fullmatch(r"cpu([0-9]+)", name) for name in snapshot.names(ROOT))
        present = sorted(int(match[1]) for match in names if match)
    online = id_set(snapshot, f"{ROOT}/online", frozenset(present))
    possible = id_set(snapshot, f"{ROOT}/possible", frozenset(present))
    first = min(online, default=0)
    nodes = _nodes(snapshot)
    model_name = re.search(r"^model name\s*: (.*)$", text(snapshot, "proc/cpuinfo"), re.MULTILINE)
    topology = evolve(
        topology,
        cpus=tuple(_cpu(snapshot, number, number in online, nodes.get(number, 0)) for number in present),
        possible_cpus=max(possible, default=0) + 1 if possible else 0,
        nr_cpus=value(snapshot, f"{ROOT}/kernel_max", DECIMAL, topology.nr_cpus - 1) + 1,
        modalias=value(snapshot, f"{ROOT}/modalias", LINE, ""),
        microcode=_microcode(snapshot, first),
        vulnerabilities={
            name: value(snapshot, f"{VULNERABILITIES}/{name}", LINE, "") for name in snapshot.names(VULNERABILITIES)
        },
        model_name=model_name[1] if model_name else topology.model_name,
        caches=_caches(snapshot, first),
    )
    return _with_cache_ids(snapshot, _with_dies_and_clusters(snapshot, topology), online)


def _nodes(snapshot: Snapshot) -> dict[int, int]:
    found = {}
    for name in snapshot.names("sys/devices/system/node"):
        if re.fullmatch(r"node[0-9]+", name):
            for entry in snapshot.names(f"sys/devices/system/node/{name}"):
                if re.fullmatch(r"cpu[0-9]+", entry):
                    found[int(entry[3:])] = int(name[4:])
    return found


def _cpu(snapshot: Snapshot, number: int, online: bool, node: int) -> Cpu:
    directory = f"{ROOT}/cpu{number}/topology"

    def read(name: str) -> int:
        return max(value(snapshot, f"{directory}/{name}", DECIMAL, 0), 0)

    alone = frozenset((number,))
    siblings = sorted(id_set(snapshot, f"{directory}/thread_siblings_list", alone))
    return Cpu(
        number,
        node,
        package=read("physical_package_id"),
        core=read("core_id"),
        thread=siblings.index(number) if number in siblings else 0,
        online=online,
    )


def _with_dies_and_clusters(snapshot: Snapshot, topology: Topology) -> Topology:
    dies = _recorded(snapshot, topology, "die_id", group(topology, ()).die_id)
    topology = evolve(topology, cpus=tuple(evolve(cpu, die=dies.get(cpu.id)) for cpu in topology.cpus))
    clusters = _recorded(snapshot, topology, "cluster_id", group(topology, ()).cluster_id)
    return evolve(topology, cpus=tuple(evolve(cpu, cluster=clusters.get(cpu.id)) for cpu in topology.cpus))


def _recorded(snapshot: Snapshot, topology: Topology, file: str, derived: Callable[[Cpu], int]) -> dict[int, int]:
    # the ids by CPU, or nothing if they are what the CPUs' other places say
    shown = {cpu: value(snapshot, f"{ROOT}/cpu{cpu.id}/topology/{file}", DECIMAL, -1) for cpu in topology.cpus}
    known = {cpu: number for cpu, number in shown.items() if number >= 0}
    if all(number == derived(cpu) for cpu, number in known.items()):
        return {}
    return {cpu.id: number for cpu, number in known.items()}


def _microcode(snapshot: Snapshot, cpu: int) -> int:
    if not snapshot.names(f"{ROOT}/cpu{cpu}/microcode"):
        return 0
    return value(snapshot, f"{ROOT}/cpu{cpu}/microcode/version", HEX, Topology().microcode)


def _cache_names(snapshot: Snapshot, cpu: int) -> list[str]:
    names = [name for name in snapshot.names(f"{ROOT}/cpu{cpu}/cache") if name.startswith("index")]
    return sorted(names, key=lambda name: int(name[5:]))


def _caches(snapshot: Snapshot, cpu: int) -> tuple[Cache, ...]:
    found = []
    for name in _cache_names(snapshot, cpu):
        index = f"{ROOT}/cpu{cpu}/cache/{name}"

        def number(file: str, default: int, index: str = index) -> int:
            return value(snapshot, f"{index}/{file}", DECIMAL, default)

        found.append(
            Cache(
                level=number("level", 0),
                type=value(snapshot, f"{index}/type", WORD, "Unified"),
                size=value(snapshot, f"{index}/size", SIZE, 1024),
                ways=number("ways_of_associativity", 1),
                line=number("coherency_line_size", 64),
                partitions=number("physical_line_partition", 1),
                shared=_shared(snapshot, cpu, id_set(snapshot, f"{index}/shared_cpu_list", frozenset((cpu,)))),
            )
        )
    return tuple(found)


def _shared(snapshot: Snapshot, cpu: int, cpus: frozenset[int]) -> str:
    # where no scope is right, cache_ids say it
    directory = f"{ROOT}/cpu{cpu}/topology"
    return next((scope for scope, file in SCOPES if cpus == id_set(snapshot, f"{directory}/{file}")), "thread")


def _with_cache_ids(snapshot: Snapshot, topology: Topology, online: frozenset[int]) -> Topology:
    # only where the CPUs' places do not say which caches they share, and by which number
    derived = group(topology, online)
    cpus = [cpu for cpu in topology.cpus if cpu.id in online]
    indices = range(len(topology.caches))
    shown = {cpu.id: [_shown_cache(snapshot, cpu, at) for at in indices] for cpu in cpus}
    if all(shown[cpu.id] == [(derived.cache_id(cpu, at), derived.sharing(cpu, at)) for at in indices] for cpu in cpus):
        return topology
    ids = {number: tuple(cache_id for cache_id, _ in caches) for number, caches in shown.items()}
    return evolve(topology, cpus=tuple(evolve(cpu, cache_ids=ids.get(cpu.id, ())) for cpu in topology.cpus))


def _shown_cache(snapshot: Snapshot, cpu: Cpu, at: int) -> tuple[int, frozenset[int]]:
    index = f"{ROOT}/cpu{cpu.id}/cache/index{at}"
    cpus = id_set(snapshot, f"{index}/shared_cpu_list", frozenset((cpu.id,)))
    return value(snapshot, f"{index}/id", DECIMAL, min(cpus)), cpus
