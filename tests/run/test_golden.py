"""What the tools printed on real machines, they print in a run of the machine that was imported from there."""

import re
from pathlib import Path

import pytest
from runner import outputs

from tdxfs.cli import main

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
STAGES = ("m1/base", "m2-k73/base", "m4-k73/devdax", "m9-k73/ram-devdax")
COMMANDS = {
    "numactl-H.txt": "numactl -H",
    "numactl-s.txt": "numactl -s",
    "daxctl.json": "daxctl list -RDi",
    "daxctl-M.json": "daxctl list -RDMi",
    "daxctl-u.json": "daxctl list -RDi -u",
    "lsmem-default.txt": "lsmem",
    "lsmem.txt": "lsmem -o+ZONES -b",
    "lscpu-e.txt": "lscpu -a -e",
    "lscpu-C.txt": "lscpu -C",
    "lscpu-p.txt": "lscpu -p",
    "lscpu.txt": "lscpu",
}
"""File of a stage -> the command whose output it is."""
OTHERWISE = re.compile(r"node [0-9]+ free: .*|(?:BIOS |Model name|Hypervisor vendor|Virtualization type).*")
"""Lines that are another machine's: free memory, firmware, and what lscpu asks the CPU itself."""

pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="needs the golden captures beside the repository")


@pytest.mark.parametrize("stage", STAGES)
def test_every_tool(stage, tmp_path):
    """numactl, daxctl, lsmem and lscpu print what was captured; lines that no emulation can know aside."""
    machine = tmp_path / "imported.toml"
    main(["import", str(GOLDEN / stage), "-o", str(machine)], standalone_mode=False)
    shown = outputs(machine, COMMANDS)

    expected = {name: (GOLDEN / stage / name).read_text() for name in COMMANDS}
    assert {name: lines(text) for name, text in expected.items()} == {name: lines(text) for name, text in shown.items()}


def lines(text):
    return [line for line in text.splitlines() if not OTHERWISE.fullmatch(line)]
