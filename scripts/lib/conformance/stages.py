"""The captured stages of real kernels, against mounts of the same machines."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from captures import differences, host, load_judge
from replaying import replays
from shown import AS_BOOTED, BOOTED, UUID, recorded, unsaid_of

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
    for stage in filter(options.only, stages(options.golden)):
        yield _judged(options, stage, import_sysfs(options.golden / stage), firmware=False, exact=True)


def this_host(options: Options) -> Iterator[Row]:
    """
    The sysfs of the machine that this runs on, imported and mounted. What drivers add that are not emulated is left
    out; counters, which go on counting, are compared by shape.
    """
    name = f"{os.uname().nodename}/now"
    if options.only(name):
        want = host()
        with mounted(import_sysfs(Path("/sys"), "all"), tiers=(Tier.KERNEL,)) as root:
            found = differences(root, want)
        listed = tuple(f"{what} {path}" for path, whats in found.items() for what in whats)
        yield Row(name, len(want) - len(found), len(want), listed, note=f"Linux {os.uname().release}")


def by_acpi(options: Options) -> Iterator[Row]:
    """
    Each stage is made of its raw ACPI tables, memory map and kernel command line, and mounted. Counters are compared
    by shape, uuids not at all. What was done to the machine since it booted is not in the tables: it is typed again, as
    the log has it, and where nothing that can be typed leads to a stage it is listed for what it has in common.
    """

    def make(stage: str) -> Topology:
        topology, base = recorded(stage, options.golden)
        log = (options.golden / stage / "dmesg.txt").read_text()
        return import_acpi([options.golden / stage / "acpi"], base, parse_memory_map(log), unsaid_of(topology))

    # no table says which memory modules are plugged
    yield from _booted(options, make, {name: stage for name, stage in BOOTED.items() if name != "m8b-k612"})


def by_qemu(options: Options) -> Iterator[Row]:
    """The same from the QEMU command line that booted the machine."""

    def make(stage: str) -> Topology:
        topology, base = recorded(stage, options.golden)
        command = (options.golden / stage).parent / "cmdline"
        return import_qemu(shlex.split(command.read_text()), base, unsaid_of(topology))

    yield from _booted(options, make, BOOTED)


def _booted(options: Options, make: Callable[[str], Topology], booted: dict[str, str]) -> Iterator[Row]:
    # the stages that a machine is when it has booted, those that typing leads to from there, and the others
    wanted = [stage for stage in stages(options.golden) if options.only(stage)]
    replayed = {}
    for machine in sorted({stage.partition("/")[0] for stage in wanted if stage not in AS_BOOTED} & booted.keys()):
        replayed.update(_replayed(options, machine, booted[machine], make))
    for stage in wanted:
        if stage in replayed and stage not in AS_BOOTED:
            yield replayed[stage]
        else:
            exact = stage in AS_BOOTED
            yield _judged(options, stage, make(stage), firmware=True, exact=exact)


def _replayed(
    options: Options, machine: str, booted: str, make: Callable[[str], Topology]
) -> Iterator[tuple[str, Row]]:
    def start(stage: str) -> Topology | None:
        name = f"{machine}/{stage}"
        return make(name) if stage == booted or name in AS_BOOTED else None

    for reached in replays(machine, options.golden, booted, start):
        stage = f"{machine}/{reached.chapter.after}"
        if reached.chapter.after:
            note = f"from {machine}/{booted} by what was typed"
            yield stage, _compared(options, stage, reached.root, firmware=True, wrong=reached.wrong, note=note)


def _judged(options: Options, stage: str, topology: Topology, *, firmware: bool, exact: bool) -> Row:
    with mounted(topology, tiers=(Tier.KERNEL,)) as root:
        note = "" if exact else "changed since it booted"
        return _compared(options, stage, root, firmware=firmware, exact=exact, note=note)


def _compared(
    options: Options,
    stage: str,
    root: Path,
    *,
    firmware: bool,
    wrong: tuple[str, ...] = (),
    exact: bool = True,
    note: str = "",
) -> Row:
    # `wrong`: what else is, before the entries are looked at. What firmware does not know is compared by shape
    judge = load_judge()
    good, total, differences = 0, len(wrong), list(wrong)
    for path, want in judge.capture(str(options.golden / stage)):
        if firmware and UUID.search(path):
            continue
        found = judge.compare(str(root), path, want, not firmware)
        total += 1
        good += not found
        differences += [f"{what} {path}" for what in found]
    return Row(stage, good, total, tuple(differences), exact, note)
