"""Laying a mounted machine over the live /sys, /proc and /dev of this mount namespace.

What the model describes comes from the machine, everything else stays the real system's. A directory or file of the
machine is bound over the real one of that name. Where the real directory lacks the name, or has one of the model's
that the machine lacks, a tmpfs is put over that directory, with what else was in it bound or linked again beside what
is new.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from tdxfs.root import Place, Root
from tdxfs.sandbox.linux import bind, mount

TMPFS = "mode=0755,size=1m"
NODES, CPUS = "/sys/devices/system/node/has_memory", "/sys/devices/system/cpu/online"
CPUSETS = {
    "cgroup2": {"cpuset.cpus.effective": CPUS, "cpuset.mems.effective": NODES},
    "cgroup": {
        "cpuset.cpus": CPUS,
        "cpuset.effective_cpus": CPUS,
        "cpuset.mems": NODES,
        "cpuset.effective_mems": NODES,
    },
}
"""Type of a cgroup mount -> files that say which CPUs and nodes a process may use -> the machine's answer."""
PLAIN_DEVICES = frozenset("console fd full null ptmx pts random shm stderr stdin stdout tty urandom zero".split())
"""The real devices that an isolated machine has, too."""


def lay(machine: str, *, isolated: bool = False, keep: Collection[str] = ()) -> None:
    """
    Lay the machine mounted at `machine` over this namespace; `isolated` shows nothing of the real /sys and only the
    plain devices, files in `keep` stay the real ones. OSError if a mount is refused.
    """
    if isolated:
        bind(f"{machine}/sys", "/sys")
    else:
        _merge(machine, "/sys", Root.TOP.below["sys"])
        _lay_cpusets(machine)
    for entry in os.scandir(f"{machine}/proc"):
        path = f"/proc/{entry.name}"
        if entry.is_file(follow_symlinks=False) and path not in keep and os.path.exists(path):
            bind(machine + path, path)
    devices = [name for name in os.listdir("/dev") if not isolated or name in PLAIN_DEVICES]
    _rebuild(machine, "/dev", devices, os.listdir(f"{machine}/dev"))


def _lay_cpusets(machine: str) -> None:
    # hwloc and others ask the cgroup, not the scheduler; its own and the topmost
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        mine = {line.rstrip("\n").split(":", 2)[2] for line in file}
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split()[1:3] for line in file]
    for where, fstype in mounts:
        for name, answer in CPUSETS.get(fstype, {}).items():
            for path in {f"{where}{group.rstrip('/')}/{name}" for group in (*mine, "/")}:
                # old kernels do not say which nodes have memory
                if os.path.exists(path) and os.path.exists(machine + answer):
                    bind(machine + answer, path)


def _merge(machine: str, path: str, place: Place | None) -> None:
    emulated, real = os.listdir(machine + path), os.listdir(path)
    missing = set(emulated).difference(real)
    extra = {name for name in set(real).difference(emulated) if place is not None and _is_owned(place, name)}
    if missing or extra:
        if not _can_be_rebuilt(path):
            emulated = [name for name in emulated if name not in missing]
        else:
            _rebuild(machine, path, set(real).difference(extra), missing)
    for name in emulated:
        here = f"{path}/{name}"
        below = place.below.get(name) if place is not None else None
        mode = os.lstat(machine + here).st_mode
        if name in missing or stat.S_ISLNK(mode):
            continue
        if stat.S_ISDIR(mode) and (_is_shared(below) if below is not None else place is not None):
            _merge(machine, here, below)
        else:
            bind(machine + here, here)


def _is_owned(place: Place, name: str) -> bool:
    # whether all that is called so there is the model's: the machine may lack it as a whole
    return name in place.below and not _is_shared(place.below[name])


def _is_shared(place: Place) -> bool:
    # whether the real system has entries of its own beside those of the model
    return place.cls is None or place.cls.SHARED


def _can_be_rebuilt(path: str) -> bool:
    # sysfs, or the tmpfs of before; directories are made and removed in a cgroup, and a copy would not follow
    return not path.startswith("/sys/fs/cgroup")


def _rebuild(machine: str, path: str, real: Collection[str], emulated: Collection[str]) -> None:
    before = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        mount("tdxfs", path, "tmpfs", data=TMPFS)
        os.fchdir(before)
        for name in set(real).difference(emulated):
            _put(name, f"{path}/{name}")
        for name in emulated:
            _put(f"{machine}{path}/{name}", f"{path}/{name}")
    finally:
        os.fchdir(here)
        os.close(here)
        os.close(before)


def _put(source: str, target: str) -> None:
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    bind(source, target, recursive=True)
