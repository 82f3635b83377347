"""The walk of the discussion by a real program on a real mount: map, open KVM, set a memory slot, touch it."""

import errno
import signal
import subprocess
import sys

import pytest
from attrs import evolve
from walking import DIES, LIVES, MACHINE, REFUSED, ROWS, run

from tdxfs.model import GIB, MIB, TdxPlatform
from tdxfs.policy import Boot, Cover, Policies, Report, Validate
from tdxfs.ranges import Range
from tdxfs.server import mounted


@pytest.fixture(scope="module", params=Validate, ids=str)
def machine(request):
    """A mount under each validation, and which it is."""
    with mounted(MACHINE, policies=Policies(cover=Cover.CONVERTIBLE, validate=request.param)) as root:
        yield root, request.param


@pytest.fixture(scope="module")
def root():
    """A mount with cover=ram: dax0.0 is convertible, and no TDMR covers it."""
    with mounted(MACHINE) as where:
        yield where


def read(directory):
    """Name -> content of the files in a directory."""
    return {path.name: path.read_text().rstrip("\n") for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(("backing", "policy", *map(str, Validate)), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_the_table(machine, walk, tmp_path, backing, policy, none, file, pledge):
    """Every backing under every validation: the errno, the log and the record are as the discussion wants them."""
    root, validate = machine
    expected = {Validate.NONE: none, Validate.FILE: file, Validate.PLEDGE: pledge}[validate]
    if backing == "file":
        path = tmp_path / "memory"
        path.touch()
        subprocess.run(["truncate", "-s", "4M", path], check=True)
    else:
        path = root / backing if "/" in backing else backing

    said, guest = run(root, walk, path, policy=policy)

    assert expected == said
    assert ("dead" if expected is DIES else "ended") == (guest / "state").read_text().strip()
    assert (guest / "death").exists() == (expected is DIES)
    assert (guest / "refusals/0").exists() == (expected is REFUSED)
    if expected is not LIVES:
        record = read(guest / ("death" if expected is DIES else "refusals/0"))
        log = (root / "sys/kernel/debug/tdxfs/log").read_text()
        assert record["error"] == ("EIO" if expected is DIES else "EINVAL")
        assert f"TD {guest.name}: gpa {record['gpa']}: {record['reason']}" in log
        assert f"TD {guest.name}: next time: {record['remedy']}" in log


class TestDeath:
    def test_outside_every_tdmr(self, root, walk):
        """TDX_OPERAND_ADDR_RANGE_ERROR with operand R8: the record and mainline's log line have it."""
        _, guest = run(root, walk, root / "dev/dax1.0")
        death = read(guest / "death")

        assert {
            "kind": "not-convertible",
            "seamcall": "TDH_MEM_PAGE_AUG",
            "error_code": "0xc000010100000008",
            "gpa": "0x0",
            "hpa": hex(16 * GIB),
            "pfn": hex(16 * GIB // 4096),
            "node": "4",
            "dax": "dax1.0",
            "slot": "0",
        }.items() <= death.items()
        line = "kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0xc000010100000008, entry 0x0, level_state 0x0"
        assert line == (root / "sys/kernel/debug/tdxfs/log").read_text().splitlines()[-1].partition("] ")[2]

    def test_inside_a_tdmr(self, root, walk):
        """TDX_PAGE_METADATA_INCORRECT where a TDMR has a reserved area: node 1 ends in the middle of one."""
        machine = evolve(MACHINE, tdx=TdxPlatform(cmrs=(Range(MIB, 2 * GIB), Range(4 * GIB, 6 * GIB + 512 * MIB))))
        with mounted(machine) as where:
            said, guest = run(where, walk, "anon", GIB, "bind:1")
            death = read(guest / "death")

        assert DIES == said
        assert "0xc000030000000008" == death["error_code"]
        assert "bind:1" == death["policy"]

    def test_covered_by_no_tdmr(self, root, walk):
        """Convertible memory that no TDMR covers kills as well, and the record says what would cover it."""
        said, guest = run(root, walk, root / "dev/dax0.0")
        death = read(guest / "death")

        assert DIES == said
        assert "not-covered" == death["kind"]
        reboot = f"tdxfs reboot --policy cover=convertible {root}"
        assert f"{reboot} && {walk} {root} {root}/dev/dax0.0 0x400000" == death["remedy"]

    def test_silent(self, walk):
        """Under report=silent there is what mainline has: the code in the log, and nothing else."""
        with mounted(MACHINE, policies=Policies(report=Report.SILENT)) as where:
            before = len((where / "sys/kernel/debug/tdxfs/log").read_text().splitlines())
            said, guest = run(where, walk, where / "dev/dax1.0")
            log = (where / "sys/kernel/debug/tdxfs/log").read_text().splitlines()[before:]

            assert DIES == said
            assert "dead" == (guest / "state").read_text().strip()
            assert not (guest / "death").exists()
            assert 1 == len(log)


def test_tdx_disabled(walk):
    """Without TDX a TD is no type of VM that KVM supports."""
    with mounted(MACHINE, policies=Policies(boot=Boot.OFF)) as root:
        said, guest = run(root, walk, "anon")

        assert REFUSED == said
        assert not guest.exists()


class TestDaxMemory:
    def test_reads_back(self, root):
        """What one program writes into a mapping another one reads, far into the device; the rest is zero."""
        write = "import mmap, sys; f = open(sys.argv[1], 'r+b', 0); m = mmap.mmap(f.fileno(), 1 << 30)"
        there = f"m[{GIB - 4096}:{GIB - 4091}]"
        subprocess.run(["python3", "-c", f"{write}; {there} = b'hello'", root / "dev/dax0.0"], check=True)
        shown = subprocess.run(
            ["python3", "-c", f"{write}; print({there}, m[0])", root / "dev/dax0.0"], check=True, capture_output=True
        )

        assert b"b'hello' 0\n" == shown.stdout

    def test_ends_where_the_device_ends(self, root):
        """A touch beyond the last byte of the device is SIGBUS."""
        beyond = (
            "import ctypes, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); libc = ctypes.CDLL(None);"
            "libc.mmap.restype = ctypes.c_void_p; libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 5];"
            f"at = libc.mmap(None, {2 * MIB}, 3, 1, fd, {GIB - MIB});"
            f"print(ctypes.string_at(at + {MIB} - 1, 1), flush=True); ctypes.string_at(at + {MIB}, 1)"
        )
        done = subprocess.run([sys.executable, "-c", beyond, root / "dev/dax0.0"], capture_output=True)

        assert b"b'\\x00'\n" == done.stdout
        assert -signal.SIGBUS == done.returncode

    def test_cannot_be_read(self, root):
        """read(2) is EINVAL, as of the device: a program that reads every file does not read a gigabyte of zeros."""
        with pytest.raises(OSError) as refused:
            (root / "dev/dax0.0").read_bytes()

        assert errno.EINVAL == refused.value.errno

    def test_unbound(self, walk):
        """A device that device_dax does not have cannot be opened: ENXIO."""
        first, second = MACHINE.dax_regions
        unbound = evolve(first, devices=(evolve(first.devices[0], driver=None),))
        with mounted(evolve(MACHINE, dax_regions=(unbound, second))) as root, pytest.raises(OSError) as refused:
            (root / "dev/dax0.0").open("r+b")

        assert errno.ENXIO == refused.value.errno

    def test_alignment(self, root, walk):
        """A mapping that device-DAX would not make, because of its alignment, is no memory to KVM."""
        said, guest = run(root, walk, root / "dev/dax1.0", 4096)

        assert "fault EFAULT" in said
        assert "mapping" == (guest / "refusals/0/kind").read_text().strip()
