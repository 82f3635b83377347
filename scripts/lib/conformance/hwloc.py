"""
The machines that hwloc's own test-suite has recorded, as lstopo sees the recording and the mount.

Left out on both sides, since tdxfs emulates no such thing: I/O devices, and what hwloc's own program for KNL's
memory modes leaves in ``/var/run/hwloc``.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

from conformance.model import Options, Row
from tdxfs.errors import UserError
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.formats.topology import dumps, loads
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Tier

TIERS = (Tier.KERNEL, Tier.EMULATOR)
"""The second for what uname(2) says: hwloc's recordings have it as a file that no kernel has."""
SUFFIX = ".tar.bz2"
NOWHERE = "/nonexistent"


def whole(options: Options) -> Iterator[Row]:
    """
    lstopo on every recorded machine of hwloc's test-suite, and on a mount of it through a topology file: each line
    of the XML counts, in its place. I/O devices are left out.
    """
    yield from _compared(options, "xml")


def topology(options: Options) -> Iterator[Row]:
    """The same as lstopo prints it for people: the tree of packages, nodes, caches, cores and threads."""
    yield from _compared(options, "console")


def _compared(options: Options, form: str) -> Iterator[Row]:
    if options.hwloc is None:
        return
    for recording in sorted(options.hwloc.glob(f"*{SUFFIX}")):
        name = recording.name.removesuffix(SUFFIX)
        if not options.only(name):
            continue
        with tempfile.TemporaryDirectory() as directory:
            with tarfile.open(recording) as archive:
                archive.extraction_filter = lambda member, _: member  # the first 3.11 has no argument for it
                archive.extractall(directory)
            want = lines(next(Path(directory).iterdir()), form)
        try:
            with mounted(loads(dumps(import_sysfs(recording))), tiers=TIERS) as mountpoint:
                have = lines(mountpoint, form)
        except (UserError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[-1]
            yield Row(name, 0, len(want), (problem,), note="cannot be imported")
            continue
        differences = list(unified_diff(want, have, n=0, lineterm=""))[2:]
        # what is too much counts like what is missing
        missing = sum(line.startswith("-") for line in differences)
        extra = sum(line.startswith("+") for line in differences)
        yield Row(name, max(len(want) - max(missing, extra), 0), len(want), tuple(differences))


def lines(root: Path, form: str) -> list[str]:
    """What lstopo prints of a machine, in one of its output formats."""
    environment = {
        **os.environ,
        "HWLOC_FSROOT": str(root),
        "HWLOC_THISSYSTEM": "0",
        "HWLOC_COMPONENTS": "linux,stop",
        "HWLOC_HIDE_ERRORS": "2",
        "HWLOC_DUMPED_HWDATA_DIR": NOWHERE,
    }
    done = subprocess.run(
        ["lstopo-no-graphics", "--no-io", "--of", form], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()
