"""The CPUs of the machine that tdxfs runs on, under the nodes of another."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from tdxfs.formats.snapshot import open_snapshot
from tdxfs.formats.sysfs_cpu import read_cpus
from tdxfs.model import Topology


def with_host_cpus(topology: Topology) -> Topology:
    """
    `topology` with the running system's CPUs and caches in the place of its own: spread evenly, neighbours together,
    over the nodes that had CPUs (over the first node, if none had). UserError if there is no sysfs.
    """
    host = read_cpus(open_snapshot(Path("/sys")), Topology())
    homes = sorted({cpu.node for cpu in topology.cpus}) or [node.id for node in topology.nodes[:1]]
    near = sorted(host.cpus, key=lambda cpu: (cpu.package, cpu.die, cpu.core, cpu.thread))
    node_of = {cpu.id: homes[at * len(homes) // len(near)] for at, cpu in enumerate(near)}
    return evolve(
        topology,
        cpus=tuple(evolve(cpu, node=node_of[cpu.id]) for cpu in host.cpus),
        possible_cpus=host.possible_cpus,
        nr_cpus=host.nr_cpus,
        modalias=host.modalias,
        caches=host.caches,
        records={name: text for name, text in topology.records.items() if name != "cpuinfo"},
    )
