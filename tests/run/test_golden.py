"""What the tools printed on real machines, they print in a run of the machine that was imported from there."""

import pytest
from captures import GOLDEN, needs_captures
from printed import ASKED, COMMANDS, OTHERWISE, lines
from runner import outputs

from tdxfs.cli import main

STAGES = ("m1/base", "m2-k73/base", "m4-k73/devdax", "m9-k73/ram-devdax")
pytestmark = needs_captures


@pytest.mark.parametrize("stage", STAGES)
def test_every_tool(stage, tmp_path):
    """numactl, daxctl, lsmem and lscpu print what was captured; lines that no emulation can know aside."""
    machine = tmp_path / "imported.toml"
    main(["import", str(GOLDEN / stage), "-o", str(machine)], standalone_mode=False)
    shown = outputs(machine, COMMANDS)

    for file, text in shown.items():
        assert lines((GOLDEN / stage / file).read_text(), OTHERWISE, ASKED) == lines(text, OTHERWISE, ASKED), file
    assert set(COMMANDS) == set(shown)
