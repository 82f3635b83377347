"""Directories and links through a mount (facts: sysfs-semantics 4 and 5)."""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import stat
import termios

import pytest
from machines import tree
from syscalls import answer, can_open, getdents, libc, opened, poll

from tdxfs.tree import LAST_OFFSET, name_hash

KINDS = {4: stat.S_IFDIR, 8: stat.S_IFREG, 10: stat.S_IFLNK, 2: stat.S_IFCHR}


class TestListing:
    def test_order_offsets_types_and_inodes(self, machine):
        """Sorted by kernfs's hash, d_off the next entry's, d_type and d_ino as stat says, in every directory."""
        for path, entry in tree().walk():
            if not stat.S_ISDIR(getattr(entry, "MODE", 0)):
                continue
            with opened(machine.root + path) as directory:
                rows = getdents(directory, 1 << 20)
                assert getdents(directory) == []
            names = [row[3] for row in rows]
            assert names[:2] == [".", ".."], path
            assert names[2:] == sorted(names[2:], key=lambda name: (name_hash(name), name)), path
            assert [1, *map(name_hash, names[2:]), LAST_OFFSET] == [row[1] for row in rows], path
            assert rows[0][0] == os.stat(machine.root + path).st_ino, path
            for ino, _, kind, name in rows[2:]:
                seen = os.lstat(f"{machine.root}{path}/{name}")
                assert (seen.st_ino, stat.S_IFMT(seen.st_mode)) == (ino, KINDS[kind]), f"{path}/{name}"

    def test_parent(self, machine):
        """d_ino of .. is the parent's."""
        with opened(machine.node0) as directory:
            assert getdents(directory)[1][0] == os.stat(machine.nodes).st_ino

    def test_listings_are_identical(self, machine):
        """An unchanged directory lists the same twice, on one descriptor too."""
        with opened(machine.node0) as directory:
            first = getdents(directory)
            os.lseek(directory, 0, os.SEEK_SET)
            assert first == getdents(directory)

    def test_small_buffers(self, machine):
        """24 bytes hold one entry, 10 none; many small reads give what one large one gives."""
        with opened(machine.node0) as directory:
            assert getdents(directory, 10) == "EINVAL"
            assert ["."] == [row[3] for row in getdents(directory, 24)]
            rest = []
            while part := getdents(directory, 64):
                rest += part
        with opened(machine.node0) as directory:
            assert getdents(directory)[1:] == rest

    def test_seek_to_a_hash(self, machine):
        """A d_off continues behind its entry, on another descriptor too; 1 is behind the dot."""
        with opened(machine.node0) as directory:
            rows = getdents(directory)
        for at in range(0, len(rows) - 1, 5):
            with opened(machine.node0) as directory:
                assert rows[at][1] == os.lseek(directory, rows[at][1], os.SEEK_SET)
                assert rows[at + 1 :] == getdents(directory)

    def test_seek_between_hashes(self, machine):
        """A number that is nobody's hash continues at the next one above it."""
        with opened(machine.node0) as directory:
            rows = getdents(directory)
            os.lseek(directory, rows[5][1] - 1, os.SEEK_SET)
            assert rows[6:] == getdents(directory)

    def test_half_read_while_others_read(self, machine):
        """Descriptors keep their own place, whatever else is listed in between."""
        with opened(machine.node0) as one, opened(machine.nodes) as other:
            rows = getdents(one, 256)
            getdents(other)
            while part := getdents(one, 256):
                rows += part
        with opened(machine.node0) as again:
            assert getdents(again) == rows


class TestOperations:
    """Each row of the table of operations on a directory."""

    def test_seek(self, machine):
        """lseek(2) to the start, where it is and the end is 0."""
        with opened(machine.node0) as directory:
            ends = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)
            assert [0, 0, 0] == [os.lseek(directory, 0, whence) for whence in ends]

    def test_data_operations(self, machine):
        """A directory cannot be read, written, mapped or waited for with epoll."""
        with opened(machine.node0) as directory:
            assert answer(os.read, directory, 10) == "EISDIR"
            assert answer(os.pread, directory, 10, 0) == "EISDIR"
            assert answer(os.write, directory, b"x") == "EBADF"
            assert answer(mmap.mmap, directory, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ) == "ENODEV"
            assert answer(fcntl.ioctl, directory, termios.TCGETS) == "ENOTTY"
            assert libc("syncfs", directory) == 0
            assert answer(fcntl.flock, directory, fcntl.LOCK_EX) is None
            assert poll(directory, select.POLLIN | select.POLLOUT | select.POLLPRI) == 0x5
            with select.epoll() as epoll:
                assert answer(epoll.register, directory) == "EPERM"

    @pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC])
    def test_open_for_writing(self, machine, flags):
        """A directory cannot be opened so."""
        assert can_open(machine.node0, flags) == "EISDIR"

    def test_other_opens(self, machine):
        """O_EXCL, O_TMPFILE and truncate(2) of a directory."""
        assert can_open(machine.node0, os.O_CREAT | os.O_EXCL) == "EEXIST"
        assert can_open(machine.node0, os.O_TMPFILE | os.O_RDWR) == errno.errorcode[errno.EOPNOTSUPP]
        assert answer(os.truncate, machine.node0, 0) == "EISDIR"

    def test_working_directory(self, machine):
        """A relative path from inside a directory leads where it should."""
        with opened(machine.node0) as directory:
            assert stat.S_ISDIR(os.stat("../../cpu/cpu0", dir_fd=directory).st_mode)
            assert os.readlink(f"/proc/self/fd/{directory}") == os.path.realpath(machine.node0)

    def test_files_are_no_directories(self, machine):
        """A file is ENOTDIR where a directory is asked for."""
        assert can_open(machine.possible, os.O_DIRECTORY) == "ENOTDIR"
        assert can_open(machine.possible + "/", os.O_RDONLY) == "ENOTDIR"
        assert can_open(machine.possible + "/x", os.O_RDONLY) == "ENOTDIR"

    @pytest.mark.parametrize(
        "name", ["absent", "Node0", "node00", "a" * 255, "a" * 300, "bad\udcff\udcfename", "caf\u00e9"]
    )
    def test_absent_names(self, machine, name):
        """An absent name is ENOENT: in the wrong case, of 255 and of 300 bytes, and not UTF-8."""
        assert can_open(f"{machine.nodes}/{name}", os.O_RDONLY) == "ENOENT"
        assert answer(os.lstat, f"{machine.nodes}/{name}") == "ENOENT"


class TestLinks:
    @pytest.mark.parametrize(
        ("path", "target"),
        [
            ("devices/system/node/node0/cpu0", "../../cpu/cpu0"),
            ("devices/system/cpu/cpu0/node0", "../../node/node0"),
            ("devices/system/node/node0/memory0", "../../memory/memory0"),
            ("devices/system/memory/memory0/node0", "../../node/node0"),
            ("devices/system/node/node0/subsystem", "../../../../bus/node"),
            ("devices/system/memory/memory0/subsystem", "../../../../bus/memory"),
            ("devices/system/cpu/cpu0/subsystem", "../../../../bus/cpu"),
            ("bus/node/devices/node0", "../../../devices/system/node/node0"),
        ],
    )
    def test_targets(self, machine, path, target):
        """Targets are relative, and the kernel's."""
        assert target == os.readlink(f"{machine.sys}/{path}")
        assert os.path.exists(f"{machine.sys}/{path}")

    def test_short_buffer(self, machine):
        """readlink(2) into four bytes returns four."""
        buffer = ctypes.create_string_buffer(5)

        assert libc("readlink", os.fsencode(machine.link), buffer, ctypes.c_size_t(4)) == 4
        assert buffer.value == b"../."

    def test_what_is_no_link(self, machine):
        """readlink(2) of a file or a directory is EINVAL."""
        assert answer(os.readlink, machine.possible) == "EINVAL"
        assert answer(os.readlink, machine.node0) == "EINVAL"

    def test_not_followed(self, machine):
        """O_NOFOLLOW is ELOOP, with O_PATH it is the link."""
        assert can_open(machine.link, os.O_NOFOLLOW) == "ELOOP"
        assert can_open(machine.link, os.O_NOFOLLOW | os.O_PATH) == "ok"
