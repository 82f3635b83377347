"""The machines that hwloc's own test-suite has recorded, as lstopo sees the recording and the mount."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from conformance.model import Options, Row
from tdxfs.errors import UserError
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Tier

TRANSIENT = ("gp_index",)
"""Attributes that depend on the order in which hwloc looks."""
OUTSIDE = ("info", "support", "page_type", "cpukind", "userdata")
"""Elements about other things than the topology: DMI, host name, CPU model, huge pages, frequencies."""


def whole(options: Options) -> Iterator[Row]:
    """
    lstopo on every recorded machine of hwloc's test-suite, and on a mount of it: each line of the XML counts. I/O
    devices are left out, and so is the order in which hwloc numbers what it finds.
    """
    yield from _compared(options, lambda element: True)


def topology(options: Options) -> Iterator[Row]:
    """
    The same, of the machine's topology only: objects, cpusets, nodesets, memory, caches, distances; not what DMI,
    cpuinfo and huge pages add as remarks.
    """
    yield from _compared(options, lambda element: element.tag not in OUTSIDE)


def _compared(options, wanted) -> Iterator[Row]:
    if options.hwloc is None:
        return
    for recording in sorted(options.hwloc.glob("*.tar.bz2")):
        name = recording.name.removesuffix(".tar.bz2")
        if not options.only(name):
            continue
        with tempfile.TemporaryDirectory() as directory:
            with tarfile.open(recording) as archive:
                archive.extractall(directory, filter="fully_trusted")
            want = lines(next(Path(directory).iterdir()), wanted)
        try:
            with mounted(import_sysfs(recording), tiers=(Tier.KERNEL,)) as mountpoint:
                have = lines(mountpoint, wanted)
        except (UserError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[-1]
            yield Row(name, 0, want.total(), (problem,), exact=False, note="cannot be imported")
            continue
        differences = [f"- {line}" for line in want - have] + [f"+ {line}" for line in have - want]
        # what is too much counts like what is missing
        good = max(want.total() - max((want - have).total(), (have - want).total()), 0)
        yield Row(name, good, want.total(), tuple(differences), exact=False)


def lines(root: Path, wanted) -> Counter[str]:
    """Each element that lstopo prints of a machine, with its depth and attributes: how often."""
    environment = {
        **os.environ,
        "HWLOC_FSROOT": str(root),
        "HWLOC_THISSYSTEM": "0",
        "HWLOC_COMPONENTS": "linux,stop",
        "HWLOC_HIDE_ERRORS": "2",
    }
    done = subprocess.run(
        ["lstopo-no-graphics", "--no-io", "--of", "xml"], env=environment, capture_output=True, text=True, check=True
    )
    return Counter(_elements(ElementTree.fromstring(done.stdout), wanted, 0))


def _elements(element, wanted, depth: int) -> Iterator[str]:
    if not wanted(element):
        return
    words = (f"{key}={value}" for key, value in sorted(element.items()) if key not in TRANSIENT)
    text = " ".join((element.text or "").split())
    yield " ".join(filter(None, ("." * depth + element.tag, *words, text)))
    for child in element:
        yield from _elements(child, wanted, depth + 1)
