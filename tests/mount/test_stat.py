"""stat(2), statfs(2) and times through a mount (facts: sysfs-semantics 3)."""

import os
import stat
import time

import pytest
from machines import tree
from syscalls import answer, statx

from tdxfs.sysfs.attribute import Directory, File


class TestStat:
    @pytest.mark.parametrize(
        ("path", "mode"),
        [("sys", 0o555), ("proc", 0o555), ("dev", 0o755), ("sys/devices/system/node/node0", 0o755)],
    )
    def test_directory(self, machine, path, mode):
        """A directory has size 0; the roots of sysfs and proc are 0555, the others 0755."""
        seen = os.stat(f"{machine.root}/{path}")

        assert (stat.S_IFDIR | mode, 0) == (seen.st_mode, seen.st_size)

    @pytest.mark.parametrize(
        ("name", "mode", "size"),
        [
            ("possible", 0o444, 4096),
            ("aob", 0o644, 4096),
            ("compact", 0o200, 4096),
            ("cpumap", 0o444, 4096),
            ("cpulist", 0o444, 28672),
        ],
    )
    def test_attribute(self, machine, name, mode, size):
        """A text attribute has its declared mode and a page of size, a CPU list what NR_CPUS makes of it."""
        seen = os.stat(getattr(machine, name))

        assert (stat.S_IFREG | mode, size, 1) == (seen.st_mode, seen.st_size, seen.st_nlink)

    def test_link(self, machine):
        """A link is 0777 and of size 0, however long its target."""
        seen = os.lstat(machine.link)

        assert (stat.S_IFLNK | 0o777, 0, 1) == (seen.st_mode, seen.st_size, seen.st_nlink)

    def test_everything_else(self, machine):
        """Whatever it is, it has no blocks, belongs to root, has block size 4096 and one device number."""
        seen = [os.lstat(path) for path in (machine.sys, machine.node0, machine.possible, machine.link)]

        for one in seen:
            assert (0, 4096, 0, 0, 0) == (one.st_blocks, one.st_blksize, one.st_uid, one.st_gid, one.st_rdev)
        assert len({one.st_dev for one in seen}) == 1
        assert os.major(seen[0].st_dev) == 0

    def test_inode_numbers(self, machine):
        """Two files differ; what a link leads to has the number of the real path."""
        assert os.stat(machine.possible).st_ino != os.stat(machine.aob).st_ino
        assert os.stat(f"{machine.sys}/bus/node/devices/node0").st_ino == os.stat(machine.node0).st_ino

    def test_every_entry_as_the_tree_says(self, machine):
        """Type, mode, size, device number and link count of every entry are the tree's."""
        emulated = tree()
        for path, entry in emulated.walk():
            seen = os.lstat(machine.root + path)
            if isinstance(entry, Directory):
                assert entry.MODE == seen.st_mode, path
                kinds = [child.is_dir(follow_symlinks=False) for child in os.scandir(machine.root + path)]
                assert 2 + sum(kinds) == seen.st_nlink, path
            else:
                assert (entry.mode, entry.size) == (seen.st_mode, seen.st_size), path
                assert entry.nlink == seen.st_nlink, path
            if isinstance(entry, File):
                assert entry.rdev == seen.st_rdev, path

    def test_statx(self, machine):
        """The basic fields and no birth time; a file has no attributes, a mount point has that one."""
        mask, attributes, _ = statx(machine.possible)

        assert (0x7FF, 0) == (mask & 0xFFF, attributes)
        assert statx(machine.root)[1] == 0x2000  # STATX_ATTR_MOUNT_ROOT

    def test_access(self, machine):
        """access(2) says yes to root where open(2) says no."""
        if os.geteuid() == 0:
            assert [True, True, False] == [os.access(machine.possible, how) for how in (os.R_OK, os.W_OK, os.X_OK)]
            assert os.access(machine.compact, os.R_OK)
        assert os.access(machine.node0, os.R_OK | os.X_OK)


class TestStatfs:
    def test_counters(self, machine):
        """Block size 4096, names of up to 255 bytes, nothing counted."""
        seen = os.statvfs(machine.sys)

        assert (4096, 4096, 255) == (seen.f_bsize, seen.f_frsize, seen.f_namemax)
        assert {0} == {seen.f_blocks, seen.f_bfree, seen.f_bavail, seen.f_files, seen.f_ffree}

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("PC_NAME_MAX", 255), ("PC_LINK_MAX", 127), ("PC_PATH_MAX", 4096), ("PC_PIPE_BUF", 4096)],
    )
    def test_pathconf(self, machine, name, expected):
        """pathconf(3) is sysfs's."""
        assert expected == answer(os.pathconf, machine.possible, name)


class TestTimes:
    def test_moment_of_the_first_look(self, own):
        """All three times of a file never touched are the moment of its first look-up."""
        before = time.time_ns()
        seen = os.stat(own.possible)

        assert seen.st_atime_ns == seen.st_mtime_ns == seen.st_ctime_ns
        assert before - 10**9 <= seen.st_mtime_ns <= time.time_ns()

    def test_reading_changes_none(self, own):
        """read(2) changes no time."""
        before = os.stat(own.possible)
        with open(own.possible, "rb") as file:
            file.read()

        after = os.stat(own.possible)
        assert (before.st_atime_ns, before.st_mtime_ns, before.st_ctime_ns) == (
            after.st_atime_ns,
            after.st_mtime_ns,
            after.st_ctime_ns,
        )

    def test_o_trunc_sets_them(self, own):
        """Opening with O_TRUNC, as the shell's redirection does, sets all three to now."""
        before = os.stat(own.aob).st_mtime_ns
        os.close(os.open(own.aob, os.O_WRONLY | os.O_TRUNC))

        after = os.stat(own.aob)
        assert before < after.st_mtime_ns == after.st_atime_ns == after.st_ctime_ns
        assert after.st_size == 4096
