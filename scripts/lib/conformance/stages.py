"""The captured stages of real kernels, against mounts of the same machines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from captures import load_judge
from shown import AS_BOOTED, UUID, recorded, unsaid_of

from conformance.model import Options, Row
from tdxfs.formats.acpi import import_acpi
from tdxfs.formats.firmware.memory_map import parse_memory_map
from tdxfs.formats.qemu import import_qemu
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.model import Topology
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Tier


def stages(golden: Path) -> list[str]:
    """``machine/stage`` of all captures, in the order in which each machine went through them."""
    found = []
    for log in sorted(golden.glob("*/log.txt")):
        captured = re.findall(r"^CAPTURED (\S+)", log.read_text(), re.MULTILINE)
        found += [f"{log.parent.name}/{stage}" for stage in captured if (log.parent / stage).is_dir()]
    return found


def by_sysfs(options: Options) -> Iterator[Row]:
    """
    Each stage is imported from its sysfs and mounted, and every entry in the judge's scope is compared: type, mode,
    size, link count, link, content, listing order, and the recorded counters to the byte.
    """
    yield from _judged(options, lambda stage: import_sysfs(options.golden / stage), counters=True, firmware=False)


def by_acpi(options: Options) -> Iterator[Row]:
    """
    Each stage is made of its raw ACPI tables, memory map and kernel command line, and mounted. Counters are compared
    by shape, uuids not at all. What was done to the machine since it booted is not in the tables: those stages are
    listed for what they have in common.
    """

    def make(stage: str) -> Topology:
        topology, base = recorded(stage, options.golden)
        log = (options.golden / stage / "dmesg.txt").read_text()
        return import_acpi([options.golden / stage / "acpi"], base, parse_memory_map(log), unsaid_of(topology))

    yield from _judged(options, make, counters=False, firmware=True)


def by_qemu(options: Options) -> Iterator[Row]:
    """The same from the QEMU command line that booted the machine."""

    def make(stage: str) -> Topology:
        topology, base = recorded(stage, options.golden)
        command = (options.golden / stage).parent / "cmdline"
        return import_qemu(shlex.split(command.read_text()), base, unsaid_of(topology))

    yield from _judged(options, make, counters=False, firmware=True)


def _judged(options: Options, make: Callable[[str], Topology], *, counters: bool, firmware: bool) -> Iterator[Row]:
    judge = load_judge()
    for stage in filter(options.only, stages(options.golden)):
        good, total, differences = 0, 0, []
        with mounted(make(stage), tiers=(Tier.KERNEL,)) as mountpoint:
            for path, want in judge.capture(str(options.golden / stage)):
                if firmware and UUID.search(path):
                    continue
                found = judge.compare(str(mountpoint), path, want, counters)
                total += 1
                good += not found
                differences += [f"{what} {path}" for what in found]
        exact = not firmware or stage in AS_BOOTED
        yield Row(stage, good, total, tuple(differences), exact, "" if exact else "changed since it booted")
