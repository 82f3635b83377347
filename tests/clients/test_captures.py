"""The unmodified tools print over an imported machine what they printed on the real one."""

import re

import pytest
from captures import FIRST, GOLDEN, needs_captures
from tools import bound, output

from tdxfs.formats.sysfs import import_sysfs
from tdxfs.server import mounted

pytestmark = needs_captures
STAGES = (*FIRST, "m5/kmem-online-movable", "m7-k73/three-devices", "m7-k73/kmem-two-mappings", "m9-k73/ram-kmem")
LSMEM = "RANGE,SIZE,STATE,REMOVABLE,BLOCK,NODE,ZONES"


@pytest.fixture(scope="module", params=STAGES)
def machine(request):
    """A stage's directory, and the imported machine mounted with all tiers."""
    with mounted(import_sysfs(GOLDEN / request.param, "dram")) as root:
        yield GOLDEN / request.param, root


def without(pattern, text):
    """The lines of `text` that do not match."""
    return [line for line in text.splitlines() if not re.match(pattern, line)]


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("lsmem-default.txt", ()),
        ("lsmem.txt", ("-o+ZONES", "-b")),
        ("lsmem-a.txt", ("-a", "-b", "-o", LSMEM)),
        ("lsmem.json", ("-J", "-a", "-b", "-o", LSMEM)),
    ],
)
def test_lsmem(machine, file, arguments):
    """Ranges, states, zones, nodes and sums."""
    stage, root = machine

    assert (stage / file).read_text() == output("lsmem", "--sysroot", root, *arguments)


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("lscpu-p.txt", ("-p",)),
        ("lscpu-e.txt", ("-a", "-e")),
        ("lscpu-e.json", ("-a", "-e", "-J")),
        ("lscpu-C.txt", ("-C",)),
    ],
)
def test_lscpu_tables(machine, file, arguments):
    """CPUs with their nodes, sockets, cores and caches."""
    stage, root = machine

    assert (stage / file).read_text() == output("lscpu", "--sysroot", root, *arguments)


def test_lscpu(machine):
    """The summary, but for what lscpu reads in the firmware's own tables."""
    stage, root = machine

    assert without("BIOS ", (stage / "lscpu.txt").read_text()) == without("BIOS ", output("lscpu", "--sysroot", root))


def test_numactl(machine, tmp_path):
    """Nodes, CPUs, sizes and distances; free memory was another when the capture was made."""
    stage, root = machine
    free = r"node [0-9]+ free: "

    assert without(free, (stage / "numactl-H.txt").read_text()) == without(
        free, bound(root, tmp_path / "dev", "numactl", "-H")
    )


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("daxctl-devices.json", ()),
        ("daxctl.json", ("-RDi",)),
        ("daxctl-u.json", ("-RDi", "-u")),
        ("daxctl-M.json", ("-RDMi",)),
    ],
)
def test_daxctl(machine, tmp_path, file, arguments):
    """Regions, devices, mappings, modes and how much of the memory is online."""
    stage, root = machine

    assert (stage / file).read_text() == bound(root, tmp_path / "dev", "daxctl", "list", *arguments)
