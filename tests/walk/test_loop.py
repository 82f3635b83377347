"""The whole loop: a guest dies, its remedy is read and run as printed, and the guest lives (T7)."""

import subprocess
import sys

import pytest
from attrs import evolve
from machines import MIXED
from walking import BAR, DIES, LIVES, MACHINE

from tdxfs.model import GIB, MIB, TdxPlatform
from tdxfs.policy import Cover, Hotplug, Policies, Validate
from tdxfs.ranges import Range
from tdxfs.server import mounted

COVERED = Policies(cover=Cover.CONVERTIBLE)
HALF = evolve(
    MIXED, nodes=MIXED.nodes[:1], distances=(), tdx=TdxPlatform(cmrs=(Range(MIB, 2 * GIB), Range(4 * GIB, 5 * GIB)))
)
"""One node, of which the last gigabyte is not convertible."""

SCRIPT = """
{walk}
for death in /sys/kernel/mm/tdx/guests/*/death; do remedy=$(cat $death/remedy); done
echo "remedy: $remedy"
eval "$remedy"
"""
"""What a person does, on the machine itself."""


def on(root, script):
    """What a script prints that runs on the emulated machine mounted at `root`, line by line."""
    run = [sys.executable, "-m", "tdxfs", "run", root, "--", "sh", "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("topology", "policies", "command", "remedy"),
    [
        (
            MACHINE,
            COVERED,
            "numactl --membind=2 {walk} '' anon 0x400000",
            "numactl --membind=0 {walk} '' anon 0x400000",
        ),
        (MACHINE, COVERED, "{walk} '' /dev/dax1.0 0x400000", "{walk} '' /dev/dax0.0 0x400000"),
        (MACHINE, COVERED, "{walk} '' /" + BAR + " 0x400000", "{walk} '' /dev/dax0.0 0x400000"),
        (
            HALF,
            Policies(),
            "{walk} '' anon 0xb0000000",
            "chmem --disable -b 40-47 && numactl --membind=0 {walk} '' anon 0xb0000000",
        ),
    ],
    ids=["node policy", "incapable dax device", "BAR", "mixed node"],
)
def test_run_as_printed(walk, topology, policies, command, remedy):
    """A script that knows nothing runs what `remedy` says, with the real numactl and chmem, and the guest lives."""
    with mounted(topology, policies=policies) as root:
        said = on(root, SCRIPT.format(walk=command.format(walk=walk)))

    assert [*DIES, "remedy: " + remedy.format(walk=walk), *LIVES] == [line for line in said if "disabled" not in line]


def test_memory_that_is_not_covered(walk):
    """The remedy boots the machine again under cover=convertible; it is a command outside of the machine."""
    with mounted(MACHINE) as root:
        first = subprocess.run([walk, root, root / "dev/dax0.0", "0x400000"], capture_output=True, text=True)
        (death,) = (root / "sys/kernel/mm/tdx/guests").glob("*/death")
        remedy = (death / "remedy").read_text().strip()
        again = subprocess.run(
            remedy.replace("tdxfs ", f"{sys.executable} -m tdxfs "), shell=True, capture_output=True, text=True
        )

    assert DIES == first.stdout.splitlines()
    assert LIVES == again.stdout.splitlines()[-5:]


def test_pledge_against_real_calls(walk):
    """Under validate=pledge a real set_mempolicy() that would undermine a live guest's slot is EPERM."""
    script = """
import ctypes, errno, fcntl, mmap, struct
libc = ctypes.CDLL(None, use_errno=True)
def bind(mask):
    word = ctypes.c_ulong(mask)
    done = libc.syscall(238, 2, ctypes.byref(word), 65)
    print(errno.errorcode[ctypes.get_errno()] if done else "ok")
bind(1)
memory = mmap.mmap(-1, 1 << 22)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
kvm = open("/dev/kvm", "r+b", 0)
fcntl.ioctl(kvm, 0x4020AE46, struct.pack("=IIQQQ", 0, 0, 0, 1 << 22, address))
bind(5)
fcntl.ioctl(kvm, 0xC040AED5, bytearray(struct.pack("=QQQ5Q", 0, 1 << 22, *[0] * 6)))
kvm.close()
bind(5)
"""
    policies = Policies(validate=Validate.PLEDGE, cover=Cover.CONVERTIBLE, hotplug=Hotplug.ALLOW)
    with mounted(MACHINE, policies=policies) as root:
        said = on(root, f"{sys.executable} - <<'END'\n{script}\nEND")

        (undermined,) = (root / "sys/kernel/mm/tdx/guests").glob("*/refusals/0/kind")
        assert "undermined\n" == undermined.read_text()
    assert ["ok", "EPERM", "ok"] == said
