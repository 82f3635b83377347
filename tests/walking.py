"""A machine on which the walk has every outcome, and the program that walks it."""

import subprocess

from attrs import evolve
from machines import MIXED

from tdxfs.guestctl import CONTROL
from tdxfs.model import GIB, MIB, Bar, DaxDevice, DaxRegion, PciDevice, Provider, TdxPlatform
from tdxfs.ranges import Range

GUESTS = "sys/kernel/mm/tdx/guests"
BAR = "sys/devices/pci0000:17/0000:17:00.0/resource2"
LIVES = ["map ok", "open ok", "version ok", "set ok", "fault ok"]
DIES = [*LIVES[:4], "fault EIO", "again EIO"]
REFUSED = [*LIVES[:3], "set EINVAL"]
ROWS = [
    ("dev/dax0.0", "", LIVES, LIVES, LIVES),
    ("dev/dax1.0", "", DIES, REFUSED, REFUSED),
    (BAR, "", DIES, REFUSED, REFUSED),
    ("anon", "bind:0", LIVES, LIVES, LIVES),
    ("anon", "", LIVES, LIVES, REFUSED),
    ("anon", "prefer:2", DIES, DIES, REFUSED),
    ("anon", "bind:2", DIES, DIES, REFUSED),
    ("anon", "interleave:0,2", DIES, DIES, REFUSED),
    ("shmem", "bind:0", LIVES, LIVES, LIVES),
    ("shmem", "", LIVES, LIVES, REFUSED),
    ("shmem", "bind:2", DIES, DIES, REFUSED),
    ("shmem-touched", "bind:0", LIVES, LIVES, LIVES),
    ("shmem-touched", "", LIVES, LIVES, LIVES),
    ("shmem-touched", "bind:2", DIES, DIES, REFUSED),
    ("file", "bind:0", LIVES, LIVES, LIVES),
    ("file", "", LIVES, LIVES, REFUSED),
    ("file", "bind:2", DIES, DIES, REFUSED),
]
"""What backs the memory, the NUMA policy, and what becomes of the guest under each validation."""


def region(number, start):
    memory = Range(start, start + GIB)
    return DaxRegion(number, Provider.HMEM, memory, 3 + number, 0, devices=(DaxDevice(0, (memory,)),))


MACHINE = evolve(
    MIXED,
    dax_regions=(region(0, 12 * GIB), region(1, 16 * GIB)),
    pci_devices=(PciDevice("0000:17:00.0", 0x10DE, 0x2330, 0x030200, 0, (Bar(2, Range(32 * GIB, 64 * GIB)),)),),
    tdx=TdxPlatform(cmrs=(Range(MIB, 2 * GIB), Range(4 * GIB, 7 * GIB), Range(12 * GIB, 13 * GIB))),
)
"""Node 0 is capable, node 1 mixed, node 2 not; dax0.0 is capable if it is covered, dax1.0 and the BAR are not."""


def run(root, walk, backing, size=4 * MIB, policy=""):
    """What the walk prints, line by line, and the directory of its guest (which may not be there)."""
    script = 'if [ "$4" ]; then echo "policy $$-0 policy=$4" > "$1/$5"; fi; exec "$0" "$1" "$2" "$3"'
    words = ["sh", "-c", script, walk, root, backing, hex(size), policy, CONTROL.lstrip("/")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said, _ = process.communicate(timeout=30)
    return said.splitlines(), root / GUESTS / f"{process.pid}-0"
