"""The unmodified tools on the captured machines: over a mount of each stage, and in a run of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

from printed import ASKED, COMMANDS, LOOKING, OTHERWISE, lines, look
from runner import outputs

from conformance.model import Options, Row
from conformance.stages import stages
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.formats.topology import dumps
from tdxfs.server import mounted


def over_a_mount(options: Options) -> Iterator[Row]:
    """
    lsmem, lscpu, numactl and daxctl over a mount of each stage, with all that tdxfs adds about TDX: each line that they
    printed on the real machine. Free memory, DMI and what lscpu asks the CPU itself are left out.
    """
    for stage in filter(options.only, stages(options.golden)):
        want = options.golden / stage
        with tempfile.TemporaryDirectory() as scratch, mounted(import_sysfs(want, "dram")) as root:
            shown = {file: look(root, file, Path(scratch) / "dev") for file in LOOKING}
        yield _row(stage, want, shown, OTHERWISE)


def in_a_run(options: Options) -> Iterator[Row]:
    """The same tools in a run of each stage, where they ask the kernel too."""
    for stage in filter(options.only, stages(options.golden)):
        want = options.golden / stage
        with tempfile.TemporaryDirectory() as scratch:
            machine = Path(scratch) / "imported.toml"
            machine.write_text(dumps(import_sysfs(want)))
            shown = outputs(machine, COMMANDS)
        yield _row(stage, want, shown, OTHERWISE, ASKED)


def _row(stage: str, want: Path, shown: dict[str, str], *but: str) -> Row:
    good, total, differences = 0, 0, []
    for file, text in shown.items():
        expected = lines((want / file).read_text(), *but)
        compared = unified_diff(expected, lines(text, *but), lineterm="", n=0)
        changed = [line for line in compared if line[:1] in "+-"][2:]
        missing = sum(line.startswith("-") for line in changed)
        total += len(expected)
        # what is too much counts like what is missing
        good += max(len(expected) - max(missing, len(changed) - missing), 0)
        differences += [f"{COMMANDS[file]}: {line}" for line in changed]
    return Row(stage, good, total, tuple(differences))
