"""What a broken or hostile program can do to dev/kvm: it gets an errno, and the server goes on."""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

import pytest
from walking import GUESTS, LIVES, MACHINE, run

from tdxfs.caller import Caller
from tdxfs.descriptors import MADE, MAKE, TAKE, Create
from tdxfs.errors import BadAddress
from tdxfs.guestctl import CONTROL
from tdxfs.memslots import USER_MEM_SLOTS
from tdxfs.model import GIB, MIB
from tdxfs.policy import Cover, Policies, Validate
from tdxfs.server import mounted

SET_REGION, SET_REGION2, SET_ATTRIBUTES, PRE_FAULT = 0x4020AE46, 0x40A0AE49, 0x4020AED2, 0xC040AED5
ENCRYPT_OP, CREATE_VM, CHECK_EXTENSION = 0xC008AEBA, 0xAE01, 0xAE03


@pytest.fixture(scope="module")
def root():
    with mounted(MACHINE, policies=Policies(cover=Cover.CONVERTIBLE)) as where:
        yield where


@pytest.fixture
def kvm(root):
    """A fresh open of dev/kvm."""
    with (root / "dev/kvm").open("r+b", 0) as file:
        yield file


@pytest.fixture(scope="module")
def memory():
    """The address of some anonymous memory of this process."""
    area = mmap.mmap(-1, 64 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    first = ctypes.c_char.from_buffer(area)
    yield ctypes.addressof(first)
    del first
    area.close()


def region(slot=0, flags=0, gpa=0, size=MIB, address=0):
    return struct.pack("=IIQQQ", slot, flags, gpa, size, address)


def refused(kvm, number, argument):
    """The errno of an ioctl, 0 if it is accepted."""
    try:
        fcntl.ioctl(kvm, number, argument)
    except OSError as error:
        return error.errno
    return 0


class TestSlots:
    @pytest.mark.parametrize(
        "bad",
        [
            {"size": 100},
            {"gpa": 100},
            {"address": 100},
            {"flags": 2},
            {"flags": 4},
            {"flags": 0x80},
            {"slot": 1 << 16},
            {"slot": USER_MEM_SLOTS},
            {"size": 1 << 63},
            {"gpa": (1 << 64) - 4096},
            {"gpa": 1 << 52},
            {"address": 1 << 48},
            {"size": 0},
        ],
        ids=str,
    )
    def test_einval(self, kvm, bad):
        """Alignment, flags, numbers and overflows are EINVAL, as is the deletion of a slot that is not there."""
        assert errno.EINVAL == refused(kvm, SET_REGION, region(**bad))

    def test_overlap(self, kvm, memory):
        """Two slots with one guest address are EEXIST; what touches does not overlap."""
        assert 0 == refused(kvm, SET_REGION, region(0, gpa=MIB, address=memory))
        assert errno.EEXIST == refused(kvm, SET_REGION, region(1, gpa=2 * MIB - 4096, address=memory))
        assert 0 == refused(kvm, SET_REGION, region(1, gpa=2 * MIB, address=memory))

    def test_changes(self, kvm, memory):
        """A slot can move, take flags and go; its size and its memory cannot change."""
        assert 0 == refused(kvm, SET_REGION, region(address=memory))
        assert errno.EINVAL == refused(kvm, SET_REGION, region(size=2 * MIB, address=memory))
        assert errno.EINVAL == refused(kvm, SET_REGION, region(address=memory + MIB))
        assert 0 == refused(kvm, SET_REGION, region(gpa=GIB, address=memory))
        assert 0 == refused(kvm, SET_REGION, region(flags=1, gpa=GIB, address=memory))
        assert 0 == refused(kvm, SET_REGION, region(size=0))
        assert errno.EINVAL == refused(kvm, SET_REGION, region(size=0))

    def test_guest_memfd(self, kvm, memory):
        """A descriptor that is not open is EBADF, one that is no guest_memfd EINVAL."""
        slot = region(flags=4, address=memory)
        assert errno.EBADF == refused(kvm, SET_REGION2, slot + struct.pack("=QI", 0, 4000) + bytes(116))
        assert errno.EINVAL == refused(kvm, SET_REGION2, slot + struct.pack("=QI", 0, kvm.fileno()) + bytes(116))

    def test_making_without_a_supervisor(self, root, kvm):
        """The ioctls of a supervisor make nothing for a thread that is not there, of no kind, or by no number."""
        with (root / "dev/kvm").open("r+b", 0) as other:
            me = os.getpid()
            assert errno.EFAULT == refused(kvm, MAKE, MADE.pack(Create.VM, 0, 5, 0, 0, 0))
            assert errno.EINVAL == refused(kvm, MAKE, MADE.pack(Create.VM, me, 4, 0, 0, 0))
            assert errno.ENOTTY == refused(kvm, MAKE, MADE.pack(0, me, 5, 0, 0, 0))
            assert errno.ENOTTY == refused(kvm, MAKE, MADE.pack(Create.VCPU, me, 0, 0, 0, 0))
            assert errno.EINVAL == refused(other, TAKE, 1 << 30)
            made = fcntl.ioctl(kvm, MAKE, bytearray(MADE.pack(Create.VM, me, 5, 0, 0, 0)))
            assert 0 == refused(other, TAKE, made)
            assert errno.ENOTTY == refused(other, TAKE, made)
            assert errno.EINVAL == refused(kvm, TAKE, made)
            assert errno.ENOTTY == refused(other, CREATE_VM, 5)

    def test_ten_thousand(self, root):
        """Ten thousand slots are set, and each of them is there."""
        script = (
            "import fcntl, struct, sys\n"
            "kvm = open(sys.argv[1], 'r+b', 0)\n"
            "for n in range(10000):\n"
            f"    fcntl.ioctl(kvm, {SET_REGION}, struct.pack('=IIQQQ', n, 0, n << 12, 4096, 0))\n"
            "print(len(__import__('os').listdir(sys.argv[2] + f'/{__import__(\"os\").getpid()}-0/memslots')))\n"
        )
        words = [sys.executable, "-c", script, root / "dev/kvm", root / GUESTS]

        assert "10000\n" == subprocess.run(words, capture_output=True, text=True, check=True).stdout


class TestFaults:
    def test_outside_any_mapping(self, kvm):
        """KVM takes a slot over nothing; its pages are EFAULT, and the guest does not die of it."""
        assert 0 == refused(kvm, SET_REGION, region(address=0x10000000000))
        assert errno.EFAULT == refused(kvm, PRE_FAULT, struct.pack("=QQQ5Q", 0, 4096, *[0] * 6))
        assert 0 == refused(kvm, SET_REGION, region(size=0))

    @pytest.mark.parametrize(
        ("gpa", "size", "flags", "expected"),
        [
            (1, 4096, 0, "EINVAL"),
            (0, 0, 0, "EINVAL"),
            (0, 4096, 1, "EINVAL"),
            (0, 1 << 63, 0, 0),
            (8 * GIB, 4096, 0, "ENOENT"),
        ],
    )
    def test_numbers(self, kvm, memory, gpa, size, flags, expected):
        """Bad ranges are EINVAL, a range without a slot ENOENT; one that begins in a slot gets what there is."""
        assert 0 == refused(kvm, SET_REGION, region(address=memory))
        number = refused(kvm, PRE_FAULT, struct.pack("=QQQ5Q", gpa, size, flags, *[0] * 5))

        assert expected == (errno.errorcode[number] if number else 0)

    def test_progress(self, kvm, memory):
        """What was mapped before an error is told in the struct, and the call succeeds."""
        assert 0 == refused(kvm, SET_REGION, region(address=memory))
        fault = bytearray(struct.pack("=QQQ5Q", 0, 4 * MIB, *[0] * 6))
        fcntl.ioctl(kvm, PRE_FAULT, fault)

        assert (MIB, 3 * MIB) == struct.unpack_from("=QQ", fault)

    def test_a_mapping_that_is_replaced(self, walk):
        """KVM looks at the mapping when it faults: bad memory put there later kills, or is EFAULT after a pledge."""
        script = """
import ctypes, fcntl, os, struct, sys, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_size_t]
good, bad, kvm = (os.open(f"{sys.argv[1]}/dev/{name}", os.O_RDWR) for name in ("dax0.0", "dax1.0", "kvm"))
at = libc.mmap(None, 1 << 22, 3, 1, good, 0)
fcntl.ioctl(kvm, 0x4020AE46, struct.pack("=IIQQQ", 0, 0, 0, 1 << 22, at))
libc.mmap(at, 1 << 22, 3, 0x11, bad, 0)
for _ in range(2):
    try:
        fcntl.ioctl(kvm, 0xC040AED5, struct.pack("=QQQ5Q", 0, 4096, *[0] * 6))
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
        for validate, expected in ((Validate.NONE, "EIO\nEIO\n"), (Validate.PLEDGE, "EFAULT\nEFAULT\n")):
            with mounted(MACHINE, policies=Policies(cover=Cover.CONVERTIBLE, validate=validate)) as root:
                done = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
                assert expected == done.stdout


class TestIoctls:
    def test_unknown_numbers(self, kvm, root):
        """A number or a size that KVM does not know is ENOTTY, and so is every number on another file."""
        for number in (0xAEFF, 0x4010AE46, 0x4024AE46, 0xC038AED5, 0x1234):
            assert errno.ENOTTY == refused(kvm, number, bytearray(64))
        with (root / "dev/kmsg").open("rb", 0) as kmsg:
            assert errno.ENOTTY == refused(kmsg, SET_REGION, region())

    def test_truncated_struct(self, kvm):
        """A struct that runs into unmapped memory is EFAULT."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        area = libc.mmap(None, 2 * mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        end = area + mmap.PAGESIZE
        assert 0 == libc.munmap(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE))

        for where in (1, end - 8):
            assert -1 == libc.ioctl(kvm.fileno(), ctypes.c_ulong(SET_REGION), ctypes.c_void_p(where))
            assert errno.EFAULT == ctypes.get_errno()
        libc.munmap(ctypes.c_void_p(area), ctypes.c_size_t(mmap.PAGESIZE))

    def test_capabilities(self, kvm):
        """TDX is a type of VM; there are memory attributes, and what nobody knows is 0."""
        assert 1 << 5 & fcntl.ioctl(kvm, CHECK_EXTENSION, 235)
        assert 8 == fcntl.ioctl(kvm, CHECK_EXTENSION, 233)
        assert 0 == fcntl.ioctl(kvm, CHECK_EXTENSION, 9999)

    def test_create_vm(self, kvm):
        """An unknown type is EINVAL; a TD cannot be returned as a descriptor here."""
        assert errno.EINVAL == refused(kvm, CREATE_VM, 77)
        assert errno.EOPNOTSUPP == refused(kvm, CREATE_VM, 5)

    def test_initial_memory(self, kvm, memory):
        """KVM_TDX_INIT_MEM_REGION needs private memory, adds it and tells how far it came, once not final."""
        assert 0 == refused(kvm, SET_REGION, region(address=memory))
        what = ctypes.create_string_buffer(struct.pack("=QQQ", memory, 0, 4), 24)

        def call(identity, data=0, hw_error=0):
            return refused(kvm, ENCRYPT_OP, bytearray(struct.pack("=IIQQ", identity, 0, data, hw_error)))

        assert errno.EINVAL == call(3, ctypes.addressof(what))
        assert 0 == refused(kvm, SET_ATTRIBUTES, struct.pack("=QQQQ", 0, MIB, 8, 0))
        assert errno.EINVAL == call(3, ctypes.addressof(what), hw_error=1)
        assert 0 == call(3, ctypes.addressof(what))
        assert (memory + 4 * 4096, 4 * 4096, 0) == struct.unpack("=QQQ", what.raw)
        assert errno.EFAULT == call(3, 0x10000000000)
        assert errno.EINVAL == call(99)
        assert 0 == call(4)
        assert errno.EINVAL == call(4)


class TestCallers:
    def test_another_process(self, kvm, memory):
        """A guest belongs to the process that made it: its child gets EIO."""
        assert 0 == refused(kvm, SET_REGION, region(address=memory))
        words = [sys.executable, "-c", f"import fcntl; fcntl.ioctl({kvm.fileno()}, {SET_REGION}, {region(3)!r})"]
        done = subprocess.run(words, pass_fds=[kvm.fileno()], capture_output=True, text=True)

        assert "Errno 5" in done.stderr

    def test_another_pid_namespace(self, root, walk):
        """A caller in a pid namespace of its own is found; one that has no pid here is EFAULT."""
        words = ["unshare", "--pid", "--fork", walk, root, root / "dev/dax0.0", "0x400000"]
        assert LIVES == subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
        with pytest.raises(BadAddress):
            Caller(0).process()

    def test_killed_in_the_middle(self, root, walk):
        """Programs that are killed while they call leave no guest open and the server unharmed."""
        for delay in range(20):
            with subprocess.Popen([walk, root, "anon", hex(GIB)], stdout=subprocess.DEVNULL) as process:
                time.sleep(delay / 200)
                process.send_signal(signal.SIGKILL)

        assert LIVES == run(root, walk, root / "dev/dax0.0")[0]

    def test_nonsense_in_control(self, root):
        """Lines that are none are EINVAL, whatever bytes they hold."""
        for line in (
            b"x",
            b"create",
            b"create 0-0",
            b"set 1-0",
            b"touch 1-0 gpa=z size=1",
            b"\xff\xfe",
            b"create 1-x",
            os.urandom(64),
        ):
            with pytest.raises(OSError, match="Invalid argument"):
                (root / CONTROL.lstrip("/")).write_bytes(line)
