"""CPUs and caches out of a recorded sysfs."""

from __future__ import annotations

import re

from attrs import evolve

from tdxfs.formats.read import id_set, text, value
from tdxfs.formats.snapshot import Snapshot
from tdxfs.model import Cache, Cpu, Topology
from tdxfs.sysfs.codec import DECIMAL, LINE, WORD
from tdxfs.sysfs.cpu_topology import SIZE

ROOT = "sys/devices/system/cpu"
SCOPES = (("core", "core_cpus_list"), ("cluster", "cluster_cpus_list"), ("die", "die_cpus_list"))


def read_cpus(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with the CPUs that the snapshot shows."""
    present = sorted(id_set(snapshot, f"{ROOT}/present"))
    if not present:
        names = (re.fullmatch(r"cpu([0-9]+)", name) for name in snapshot.names(ROOT))
        present = sorted(int(match[1]) for match in names if match)
    online = id_set(snapshot, f"{ROOT}/online", frozenset(present))
    possible = id_set(snapshot, f"{ROOT}/possible", frozenset(present))
    nodes = _nodes(snapshot)
    model_name = re.search(r"^model name\s*: (.*)$", text(snapshot, "proc/cpuinfo"), re.MULTILINE)
    return evolve(
        topology,
        cpus=tuple(_cpu(snapshot, number, number in online, nodes.get(number, 0)) for number in present),
        possible_cpus=max(possible, default=0) + 1 if possible else 0,
        nr_cpus=value(snapshot, f"{ROOT}/kernel_max", DECIMAL, topology.nr_cpus - 1) + 1,
        modalias=value(snapshot, f"{ROOT}/modalias", LINE, ""),
        model_name=model_name[1] if model_name else topology.model_name,
        caches=_caches(snapshot, min(online, default=0)),
    )


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

    cluster = value(snapshot, f"{directory}/cluster_id", DECIMAL, -1)
    alone = frozenset((number,))
    siblings = sorted(id_set(snapshot, f"{directory}/thread_siblings_list", alone))
    return Cpu(
        number,
        node,
        package=read("physical_package_id"),
        die=read("die_id"),
        cluster=cluster if 0 <= cluster < 65535 else None,
        core=read("core_id"),
        thread=siblings.index(number) if number in siblings else 0,
        online=online,
    )


def _caches(snapshot: Snapshot, cpu: int) -> tuple[Cache, ...]:
    found = []
    directory = f"{ROOT}/cpu{cpu}/cache"
    names = [name for name in snapshot.names(directory) if name.startswith("index")]
    for name in sorted(names, key=lambda name: int(name[5:])):
        index = f"{directory}/{name}"

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
    for scope, file in SCOPES:
        members = id_set(snapshot, f"{ROOT}/cpu{cpu}/topology/{file}")
        if cpus == members:
            return scope
        if len(members) > len(cpus):
            return "thread" if len(cpus) == 1 else scope
    return "package" if len(cpus) > 1 else "thread"
