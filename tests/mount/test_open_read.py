"""open(2), read(2) and lseek(2) through a mount (facts: sysfs-semantics 6, 7 and 8)."""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import termios

import pytest
from machines import tree
from syscalls import answer, can_open, libc, opened, poll

from tdxfs.errors import Refusal
from tdxfs.sysfs.attribute import File, Reader

FLAGS = [
    (os.O_RDONLY, "ok ok EACCES"),
    (os.O_WRONLY, "EACCES ok ok"),
    (os.O_RDWR, "EACCES ok EACCES"),
    (os.O_RDONLY | os.O_TRUNC, "ok ok EACCES"),
    (os.O_WRONLY | os.O_TRUNC, "EACCES ok ok"),
    (os.O_RDONLY | os.O_APPEND, "ok ok EACCES"),
    (os.O_WRONLY | os.O_APPEND, "EACCES ok ok"),
    (os.O_RDONLY | os.O_CREAT, "ok ok EACCES"),
    (os.O_RDONLY | os.O_CREAT | os.O_EXCL, "EEXIST EEXIST EEXIST"),
    (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "EACCES ok ok"),
    (os.O_RDONLY | os.O_DIRECT, "EINVAL EINVAL EACCES"),
    (os.O_RDONLY | os.O_NONBLOCK, "ok ok EACCES"),
    (os.O_RDONLY | os.O_SYNC, "ok ok EACCES"),
    (os.O_RDONLY | os.O_NOATIME, "ok ok EACCES"),
    (os.O_PATH, "ok ok ok"),
    (3, "ok ok ok"),
]
TEXT = ["devices/system/node/possible", "devices/system/node/node0/distance", "devices/system/node/node0/meminfo"]
TEXT += ["devices/system/memory/block_size_bytes", "devices/system/memory/memory0/state", "bus/dax/devices/dax0.0/size"]


@pytest.mark.skipif("os.geteuid() != 0", reason="the table is root's: scripts/test runs as root")
@pytest.mark.parametrize(("flags", "expected"), FLAGS)
def test_open(own, flags, expected):
    """The table of flags against a 0444, a 0644 and a 0200 file, as root."""
    assert expected.split() == [can_open(path, flags) for path in (own.possible, own.aob, own.compact)]


def content(path):
    with open(path, "rb") as file:
        return file.read()


def drain(descriptor, size):
    """What reads of `size` bytes return until one returns nothing or fails."""
    parts = []
    while not parts or (parts[-1] and not isinstance(parts[-1], str)):
        parts.append(answer(os.read, descriptor, size))
    return parts


@pytest.mark.parametrize("path", TEXT)
class TestText:
    def test_whole(self, machine, path):
        """A read gives everything, the next one nothing, and the offset is the length."""
        path = f"{machine.sys}/{path}"
        expected = content(path)
        with opened(path) as file:
            assert [expected, b""] == drain(file, 1 << 16)
            assert len(expected) == os.lseek(file, 0, os.SEEK_CUR)
            os.lseek(file, 0, os.SEEK_SET)
            assert expected == os.read(file, 1 << 16)

    @pytest.mark.parametrize("size", [1, 3])
    def test_in_pieces(self, machine, path, size):
        """Small reads give everything."""
        path = f"{machine.sys}/{path}"
        with opened(path) as file:
            assert content(path) == b"".join(drain(file, size))

    def test_at(self, machine, path):
        """pread(2) gives the content from there; at and past the end nothing, below 0 EINVAL."""
        path = f"{machine.sys}/{path}"
        expected = content(path)
        with opened(path) as file:
            assert expected[1:101] == os.pread(file, 100, 1)
            for beyond in (len(expected), len(expected) + 100, 1 << 40):
                assert b"" == os.pread(file, 100, beyond)
            assert answer(os.pread, file, 100, -1) == "EINVAL"
            assert expected[:100] == os.pread(file, 100, 0)
            assert expected[:100] == os.read(file, 100)

    def test_seek(self, machine, path):
        """The end is st_size, all of it is data, and a read beyond the content is empty."""
        path = f"{machine.sys}/{path}"
        expected = content(path)
        with opened(path) as file:
            assert os.lseek(file, 0, os.SEEK_END) == 4096
            assert os.read(file, 10) == b""
            assert (0, 4096) == (os.lseek(file, 0, os.SEEK_DATA), os.lseek(file, 0, os.SEEK_HOLE))
            assert answer(os.lseek, file, -1, os.SEEK_SET) == "EINVAL"
            assert os.lseek(file, 5, os.SEEK_SET) == 5
            assert expected[5:] == os.read(file, 4096)
            os.lseek(file, 5, os.SEEK_SET)
            assert os.lseek(file, -2, os.SEEK_CUR) == 3
            assert expected[3:] == os.read(file, 4096)
            assert os.lseek(file, 1000000, os.SEEK_SET) == 1000000
            assert os.read(file, 4096) == b""

    def test_vector_copy_and_nothing(self, machine, path):
        """readv(2) is one read, a copied descriptor shares the offset, and a read of nothing is nothing."""
        path = f"{machine.sys}/{path}"
        expected = content(path)
        with opened(path) as file:
            assert os.read(file, 0) == b""
            first, second = bytearray(4), bytearray(100)
            assert len(expected[:104]) == os.readv(file, [first, second])
            assert expected[:104] == (first + second)[: len(expected[:104])]
        with opened(path) as file:
            copy = os.dup(file)
            assert expected[:2] == os.read(file, 2)
            assert expected[2:102] == os.read(copy, 100)
            os.close(copy)


def test_nothing_to_say(machine):
    """A file with nothing to say reads empty."""
    assert content(f"{machine.node0}/uevent") == b""


@pytest.mark.parametrize("name", ["cpumap", "cpulist"])
class TestCpumask:
    def test_whole(self, machine, name):
        """A large read gives everything."""
        path = getattr(machine, name)
        with opened(path) as file:
            whole = os.read(file, 1 << 16)
            assert whole.endswith(b"\n")
            assert [b""] == drain(file, 1 << 16)
            os.lseek(file, 0, os.SEEK_SET)
            assert whole == os.read(file, 1 << 16)

    def test_short_reads(self, machine, name):
        """A read returns one byte less than it takes: one of one byte is empty at once."""
        path = getattr(machine, name)
        with opened(path) as file:
            assert os.read(file, 1) == b""
        with opened(path) as file:
            parts = drain(file, 3)
        assert content(path) == b"".join(parts)
        assert {2} == {len(part) for part in parts[:-2]} | {2}
        with opened(path) as file:
            assert len(content(path)) == os.readv(file, [bytearray(4), bytearray(100)])

    def test_beyond_the_end(self, machine, name):
        """An offset beyond the length is EPERM, one beyond st_size is the end."""
        path = getattr(machine, name)
        length, size = len(content(path)), os.stat(path).st_size
        with opened(path) as file:
            assert content(path)[1:] == os.pread(file, 100, 1)
            assert os.pread(file, 100, length) == b""
            assert answer(os.pread, file, 100, length + 1) == "EPERM"
            assert answer(os.pread, file, 100, length + 100) == "EPERM"
            assert answer(os.pread, file, 100, size - 1) == "EPERM"
            assert os.pread(file, 100, size) == b""
            assert os.pread(file, 100, 1 << 40) == b""
            assert answer(os.pread, file, 100, -1) == "EINVAL"
            os.lseek(file, length + 1, os.SEEK_SET)
            assert answer(os.read, file, 10) == "EPERM"
            assert length + 1 == os.lseek(file, 0, os.SEEK_CUR)

    def test_ends(self, machine, name):
        """SEEK_END and SEEK_HOLE are st_size; a copied descriptor shares the offset."""
        path = getattr(machine, name)
        size = os.stat(path).st_size
        with opened(path) as file:
            assert size == os.lseek(file, 0, os.SEEK_END)
            assert (0, size) == (os.lseek(file, 0, os.SEEK_DATA), os.lseek(file, 0, os.SEEK_HOLE))
        with opened(path) as file:
            copy = os.dup(file)
            assert content(path)[:1] == os.read(file, 2)
            assert content(path)[1:] == os.read(copy, 100)
            os.close(copy)


def test_every_file_reads_as_the_tree_says(machine):
    """Every file of the mount has the content that the tree shows, or its errno."""
    emulated = tree()
    for path, entry in emulated.walk():
        if not isinstance(entry, File) or not entry.mode & 0o444 or entry.rdev or entry.reader is Reader.RECORDS:
            continue
        try:
            expected = emulated.read(path)
        except Refusal as refusal:
            expected = errno.errorcode[refusal.errno]
        assert expected == answer(content, machine.root + path), path


class TestOtherOperations:
    """What else can be done to the descriptor of a file (facts: sysfs-semantics 8)."""

    def test_of_a_reader(self, machine):
        """Each row of the table."""
        with opened(machine.possible) as file:
            for number in (termios.TCGETS, 0x80086601, 0x12345):
                assert answer(fcntl.ioctl, file, number, b"\0" * 64) == "ENOTTY"
            assert not os.isatty(file)
            for number in (termios.FIONREAD, termios.FIONBIO, 2):
                assert isinstance(answer(fcntl.ioctl, file, number, b"\0" * 8), bytes)
            assert answer(fcntl.ioctl, file, 0xC020660B, b"\0" * 64) == errno.errorcode[errno.EOPNOTSUPP]
            assert answer(os.fsync, file) is None
            assert answer(os.fdatasync, file) is None
            assert libc("syncfs", file) == 0
            assert answer(os.ftruncate, file, 0) == "EINVAL"
            assert answer(os.write, file, b"x") == "EBADF"
            assert answer(os.posix_fallocate, file, 0, 10) == "EBADF"
            assert answer(os.posix_fadvise, file, 0, 10, os.POSIX_FADV_WILLNEED) is None
            assert answer(fcntl.flock, file, fcntl.LOCK_EX) is None
            assert answer(fcntl.lockf, file, fcntl.LOCK_SH) is None
            assert answer(fcntl.fcntl, file, 1034) == "EINVAL"  # F_GET_SEALS
            assert answer(mmap.mmap, file, 4096, mmap.MAP_SHARED, mmap.PROT_READ) == "ENODEV"
            spare = os.memfd_create("spare")
            assert answer(os.copy_file_range, file, spare, 100, 0, 0) == "EXDEV"
            os.close(spare)

    def test_of_a_writer(self, own):
        """ftruncate(2) does nothing, fallocate(2) is not there."""
        with opened(own.aob, os.O_WRONLY) as file:
            assert answer(os.ftruncate, file, 0) is None
            assert answer(os.ftruncate, file, 5) is None
            assert os.fstat(file).st_size == 4096
            assert libc("fallocate", file, 0, ctypes.c_long(0), ctypes.c_long(5)) == errno.errorcode[errno.EOPNOTSUPP]

    @pytest.mark.parametrize("call", ["splice", "sendfile"])
    def test_to_a_pipe(self, own, call):
        """splice(2) and sendfile(2) give the content."""
        expected = content(own.possible)
        reader, writer = os.pipe()
        with opened(own.possible) as file:
            if call == "splice":
                assert len(expected) == os.splice(file, writer, 100)
            else:
                assert len(expected) == os.sendfile(writer, file, 0, 100)
        os.close(writer)
        assert expected == os.read(reader, 100)
        os.close(reader)

    def test_poll(self, machine):
        """After a read a file is readable and writable, and has nothing urgent."""
        every = select.POLLIN | select.POLLPRI | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
        with opened(machine.possible) as file:
            os.read(file, 100)
            assert poll(file, every) == 0x145
            assert poll(file, select.POLLPRI) == 0
            with select.epoll() as epoll:
                assert answer(epoll.register, file) is None
