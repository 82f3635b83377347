"""What a recording says of the machine as a whole: its names, and the control group it was recorded from."""

from __future__ import annotations

from attrs import evolve

from tdxfs.formats.read import ascii_text, numbered, text
from tdxfs.formats.snapshot import Snapshot
from tdxfs.model import DMI_IDS, Cgroup, MemoryModule, Topology, Uname
from tdxfs.procfs.nofile_info import parse_nofile_info
from tdxfs.sysfs.dmi import ID
from tdxfs.sysfs.dmi_entries import DmiEntries, decode

NOFILE_INFO = "proc/hwloc-nofile-info"
DMI = (ID.lstrip("/"), "sys/class/dmi/id")
"""Where the DMI ids are, in the kernel and in recordings without its links."""


def read_identity(snapshot: Snapshot, topology: Topology) -> Topology:
    """`topology` with its DMI ids, memory modules, what uname(2) said and its control group, where recorded."""
    return evolve(
        topology,
        dmi=_dmi(snapshot),
        memory_modules=_memory_modules(snapshot),
        uname=read_uname(snapshot),
        cgroup=_cgroup(snapshot),
    )


def read_uname(snapshot: Snapshot) -> Uname | None:
    """What uname(2) said; None where nobody noted it."""
    noted = ascii_text(snapshot, NOFILE_INFO)
    return parse_nofile_info(noted) if noted else None


def _dmi(snapshot: Snapshot) -> dict[str, str]:
    directory = next((place for place in DMI if snapshot.names(place)), DMI[0])
    # an empty file could not be read
    lines = {name: ascii_text(snapshot, f"{directory}/{name}") for name in DMI_IDS}
    return {name: line.removesuffix("\n") for name, line in lines.items() if line}


def _memory_modules(snapshot: Snapshot) -> tuple[MemoryModule, ...]:
    entries = DmiEntries.WHAT.lstrip("/")
    instances = numbered(snapshot, entries, "17-")
    modules = (decode(snapshot.read(f"{entries}/17-{instance}/raw") or b"") for instance in instances)
    return tuple(module for module in modules if module is not None)


def _cgroup(snapshot: Snapshot) -> Cgroup | None:
    # as hwloc looks for it: the first hierarchy with cpusets, and the group in it
    name = text(snapshot, "proc/self/cpuset").strip() or _listed_group(snapshot)
    if snapshot.live or not name:
        return None
    for line in text(snapshot, "proc/mounts").splitlines():
        _, where, kind, options, *_ = [*line.split(), "", "", "", ""]
        file = _cpuset_file(snapshot, where, kind, options.split(","))
        if file:
            path = f"{where}{name}/{file}".lstrip("/")
            return Cgroup(name, *(text(snapshot, path.format(what)).strip() for what in ("cpus", "mems")))
    return None


def _listed_group(snapshot: Snapshot) -> str:
    for line in text(snapshot, "proc/self/cgroup").splitlines():
        _, controllers, name = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "cpuset"):
            return name
    return ""


def _cpuset_file(snapshot: Snapshot, where: str, kind: str, options: list[str]) -> str:
    # which files of a mounted hierarchy say what a group may use; nothing if it has none
    if kind == "cgroup2":
        controllers = text(snapshot, f"{where}/cgroup.controllers".lstrip("/")).split()
        return "cpuset.{}.effective" if "cpuset" in controllers else ""
    if kind == "cpuset" or (kind == "cgroup" and {"cpuset", "noprefix"} <= {*options}):
        return "{}"
    return "cpuset.{}" if kind == "cgroup" and "cpuset" in options else ""
