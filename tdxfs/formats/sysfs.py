"""A real machine's sysfs as a topology.

What no sysfs has, the convertible memory ranges, comes from the caller. Values are parsed by the codecs that
show them; what cannot be read (some files need root) is left at its default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from tdxfs.boot import boot
from tdxfs.errors import UserError
from tdxfs.formats.read import text, value
from tdxfs.formats.snapshot import Snapshot, open_snapshot
from tdxfs.formats.sysfs_cpu import read_cpus
from tdxfs.formats.sysfs_dax import read_dax
from tdxfs.formats.sysfs_entries import read_entries
from tdxfs.formats.sysfs_identity import read_identity, read_uname
from tdxfs.formats.sysfs_memory import read_nodes
from tdxfs.formats.sysfs_node import NODES, meminfo
from tdxfs.model import KERNELS, MIB, PAGE_SIZE, MemoryKind, NodeCounters, TdxPlatform, Topology, kernel_at_least
from tdxfs.policy import Hotplug
from tdxfs.ranges import Range, Ranges, align_down, align_up
from tdxfs.sysfs import paths
from tdxfs.sysfs.codec import STAT
from tdxfs.validate import RECORDS, problems


def import_sysfs(source: Path, convertible: str | None = None, name: str = "imported") -> Topology:
    """
    The topology of the machine that `source` shows (see `snapshot.open_snapshot`). `convertible` says where the CMRs
    are: ``all`` memory, ``dram`` (System RAM that is not a dax device's), ranges such as ``0x100000-0x7fffffff``
    separated by commas, both ends inclusive, or a file of them; None: no TDX. Where the default policies would veto
    memory that is online there, ``hotplug`` is ``allow``. UserError in one line.
    """
    return import_snapshot(open_snapshot(source), source, convertible, name)


def import_snapshot(snapshot: Snapshot, source: Path, convertible: str | None, name: str) -> Topology:
    """The same of files that are open already, `source` being what they are called."""
    topology = Topology(name=name, description=f"imported from {source.name}", kernel=_kernel(snapshot))
    topology = read_identity(snapshot, topology)
    topology = read_cpus(snapshot, topology)
    topology = read_dax(snapshot, topology)
    topology = read_nodes(snapshot, topology)
    if not topology.cpus and not snapshot.names(NODES):
        raise UserError(f"{source}: shows no CPUs and no nodes")
    topology = read_entries(snapshot, _checked(source, topology))
    topology = evolve(
        topology,
        cmdline=text(snapshot, "proc/cmdline").strip(),
        counters={node.id: _counters(snapshot, node.id) for node in topology.nodes},
        records={file: found for file in RECORDS if (found := text(snapshot, f"proc/{file}"))},
    )
    if convertible is None:
        return topology
    with_tdx = _checked(source, with_platform(topology, convertible))
    if boot(with_tdx).blocks == boot(topology).blocks:
        return with_tdx
    # what is online was not vetoed
    return evolve(with_tdx, policies=evolve(with_tdx.policies, hotplug=Hotplug.ALLOW))


def _checked(source: Path, topology: Topology) -> Topology:
    for problem in problems(topology):
        raise UserError(f"{source}: {problem}")
    return topology


def _kernel(snapshot: Snapshot) -> str:
    # the newest kernel we know that is not newer than the one recorded, or than what it shows
    uname = read_uname(snapshot)
    version = text(snapshot, "proc/version") or f"Linux version {uname.release if uname else ''}"
    match = re.search(r"Linux version ([0-9]+\.[0-9]+)", version)
    release = match[1] if match else KERNELS[-1]
    older = [kernel for kernel in KERNELS if kernel_at_least(release, kernel)]
    if match is None and snapshot.names(f"{paths.ACPI_ROOT}/{paths.NFIT}".lstrip("/")):
        older = [kernel for kernel in older if not kernel_at_least(kernel, paths.NFIT_MOVED)]
    return older[-1] if older else KERNELS[0]


def _counters(snapshot: Snapshot, nid: int) -> NodeCounters:
    directory = f"{NODES}/node{nid}"
    return NodeCounters(
        meminfo(snapshot, nid), _stat(snapshot, f"{directory}/vmstat"), _stat(snapshot, f"{directory}/numastat")
    )


def _stat(snapshot: Snapshot, path: str) -> Mapping[str, int]:
    nothing: Mapping[str, int] = {}
    return value(snapshot, path, STAT, nothing)


def with_platform(topology: Topology, convertible: str) -> Topology:
    """
    `topology` on a TDX platform, its own if it has one, with the CMRs that `convertible` names as in `import_sysfs`.
    """
    ram = [memory.range for node in topology.nodes if node.kind is MemoryKind.DRAM for memory in node.memory]
    if convertible == "all":
        ram += [memory.range for node in topology.nodes for memory in node.memory]
        ram += [region.range for region in topology.dax_regions]
    elif convertible != "dram":
        ram = _parse_ranges(convertible)
    platform = topology.tdx or TdxPlatform()
    cmrs = (Ranges.of(ram) - Ranges((Range(0, MIB),))).parts
    return evolve(topology, tdx=evolve(platform, cmrs=cmrs, max_cmrs=max(platform.max_cmrs, len(cmrs))))


def _parse_ranges(words: str) -> list[Range]:
    source = "--convertible"
    if Path(words).is_file():
        source, words = words, ",".join(Path(words).read_text(encoding="utf-8").split())
    found = []
    for part in filter(None, words.split(",")):
        low, _, high = part.partition("-")
        try:
            start, end = int(low, 0), int(high, 0) + 1
            found.append(Range(align_up(start, PAGE_SIZE), align_down(end, PAGE_SIZE)))
        except ValueError:
            raise UserError(
                f"{source}: {part}: must be all, dram, a file, or ranges such as 0x100000-0x7fffffff"
            ) from None
    return found
