"""The unmodified tools print over an imported machine what they printed on the real one."""

import pytest
from captures import FIRST, GOLDEN, needs_captures
from printed import COMMANDS, LOOKING, OTHERWISE, lines, look

from tdxfs.formats.sysfs import import_sysfs
from tdxfs.server import mounted

pytestmark = needs_captures
STAGES = (*FIRST, "m5/kmem-online-movable", "m7-k73/three-devices", "m7-k73/kmem-two-mappings", "m9-k73/ram-kmem")


@pytest.fixture(scope="module", params=STAGES)
def machine(request):
    """A stage's directory, and the imported machine mounted with all tiers."""
    with mounted(import_sysfs(GOLDEN / request.param, "dram")) as root:
        yield GOLDEN / request.param, root


@pytest.mark.parametrize("file", LOOKING)
def test_printed(machine, tmp_path, file):
    """numactl, daxctl, lsmem and lscpu print what was captured, but for lines that no emulation can know."""
    stage, root = machine

    assert lines((stage / file).read_text(), OTHERWISE) == lines(look(root, file, tmp_path / "dev"), OTHERWISE)


def test_every_output_is_compared():
    """All that the captures have of these tools is among the commands."""
    tools = {command.split()[0] for command in COMMANDS.values()}
    captured = {path.name for path in (GOLDEN / "m1/base").iterdir() if path.name.split("-")[0].split(".")[0] in tools}

    assert captured == set(COMMANDS)
