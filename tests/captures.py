"""The golden captures beside the repository, and their judge, which holds one tree against another."""

import importlib.util
import os
import stat
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
FIRST = (
    "m1/base",
    "m2-k73/base",
    "m3-k73/base",
    "m4-k73/base",
    "m5/kmem-offline",
    "m5-k612/kmem-offline",
    "m7-k73/base",
    "m8b-k612/all-movable",
    "m9-k73/base",
    "m13-k73/devdax",
    "m15/base",
)
"""The first stage of every machine."""

OTHER_DRIVERS = {"intel_pstate", "amd_pstate", "umwait_control", "probe", "dscr_default", "sgx_total_bytes"}
"""What drivers that are not emulated add to the judge's directories on some machines."""

needs_captures = pytest.mark.skipif(not GOLDEN.exists(), reason="needs the golden captures beside the repository")


def load_judge():
    """judge.py as a module."""
    spec = importlib.util.spec_from_file_location("judge", GOLDEN / "judge.py")
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    return judge


def captured(stage, golden=GOLDEN):
    """The entries of a stage in the judge's scope."""
    return [entry for _, entry in load_judge().capture(str(golden / stage))]


def host():
    """The entries of the sysfs of the machine that this runs on, in the judge's scope, but for other drivers'."""
    return list(_without_other_drivers(portrait("")))


def portrait(root):
    """The entries of a sysroot in the judge's scope, in the captures' form."""
    judge = load_judge()
    todo = [path for path in _tops(root, judge) if os.path.lexists(f"{root}{path}")]
    found = []
    while todo:
        path = todo.pop()
        status = os.lstat(f"{root}{path}")
        entry = {
            "p": path,
            "t": judge.KIND[stat.S_IFMT(status.st_mode)],
            "m": f"{stat.S_IMODE(status.st_mode):04o}",
            "sz": status.st_size,
            "nl": status.st_nlink,
        }
        if entry["t"] == "d":
            names = os.listdir(f"{root}{path}")
            entry["e"] = [[name] for name in names]
            entry["out"] = _out_of_scope(root, path, judge)
            todo += [f"{path}/{name}" for name in names if not judge.OUT.search(f"{path}/{name}")]
        elif entry["t"] == "l":
            entry["l"] = os.readlink(f"{root}{path}")
        elif status.st_mode & 0o444:
            content = judge.read(f"{root}{path}")
            if isinstance(content, tuple):
                entry["err"] = content[1]
            else:
                entry["c"] = content.decode("utf-8", "surrogateescape")
        found.append(entry)
    return found


def _without_other_drivers(entries):
    # those of `OTHER_DRIVERS` their directories do not count either
    directories = {entry["p"] for entry in entries if entry["t"] == "d"}
    for entry in entries:
        if OTHER_DRIVERS & set(entry["p"].split("/")):
            continue
        if entry["t"] == "d":
            foreign = [row for row in entry["e"] if row[0] in OTHER_DRIVERS]
            entry["e"] = [row for row in entry["e"] if row not in foreign]
            entry["nl"] -= sum(f"{entry['p']}/{name}" in directories for name, *_ in foreign)
        yield entry


def _tops(root, judge):
    # where the judge's scope begins; a dax device's place is known by its link on the bus
    for part in ("node", "memory", "cpu"):
        yield from (f"/sys/devices/system/{part}", f"/sys/bus/{part}")
    yield from ("/sys/bus/dax", "/sys/devices/virtual/memory_tiering")
    parents = set()
    for link in Path(f"{root}/sys/bus/dax/devices").glob("*"):
        device = "/" + os.path.relpath(os.path.realpath(link), os.path.realpath(root or "/"))
        parent = os.path.dirname(device)
        if not judge.SCOPE.match(parent):
            yield device
            parent += "/dax_region"
        if parent not in parents:
            parents.add(parent)
            yield parent


def _out_of_scope(root, path, judge):
    return sum(
        entry.is_dir(follow_symlinks=False) and bool(judge.OUT.search(f"{path}/{entry.name}"))
        for entry in os.scandir(f"{root}{path}")
    )


def differences(root, entries, counters=False):
    """What the judge finds different below `root`: path -> the differences."""
    judge = load_judge()
    found = {}
    for entry in entries:
        path, want = entry["p"], entry
        if "out" in entry and os.path.isdir(f"{root}{path}"):
            # directories that are out of scope are so in a link count too
            want = {**entry, "nl": entry["nl"] - entry["out"] + _out_of_scope(root, path, judge)}
        wrong = judge.compare(str(root), path, want, counters)
        if wrong:
            found[path] = wrong
    return found
