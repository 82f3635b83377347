"""Namespace operations, metadata and what users may do, through a mount (facts: sysfs-semantics 9, 10 and 14)."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest
from syscalls import AT_FDCWD, AT_SYMLINK_NOFOLLOW, RENAME_EXCHANGE, answer, as_nobody, can_open, libc

ROOT_ONLY = pytest.mark.skipif("os.geteuid() != 0", reason="the table is root's: scripts/test runs as root")
NULL = os.makedev(1, 3)


@ROOT_ONLY
@pytest.mark.parametrize("place", ["", "/sys", "/sys/devices/system/node", "/sys/devices/system/node/node0"])
class TestNewNames:
    def test_regular_files(self, machine, place):
        """A regular file cannot be made: EACCES."""
        new = f"{machine.root}{place}/zz_new"

        assert can_open(new, os.O_CREAT | os.O_WRONLY) == "EACCES"
        assert can_open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR) == "EACCES"
        assert answer(os.mknod, new, stat.S_IFREG | 0o600) == "EACCES"

    def test_everything_else(self, machine, place):
        """Nothing else can be made either: EPERM."""
        new = f"{machine.root}{place}/zz_new"

        assert answer(os.mkdir, new) == "EPERM"
        assert answer(os.symlink, "x", new) == "EPERM"
        assert answer(os.mknod, new, stat.S_IFIFO | 0o600) == "EPERM"
        assert answer(os.mknod, new, stat.S_IFCHR | 0o600, NULL) == "EPERM"
        assert answer(os.link, machine.possible, new) == "EPERM"
        assert answer(os.rename, machine.possible, new) == "EPERM"

    def test_absent(self, machine, place):
        """What is not there cannot be removed or renamed: ENOENT."""
        new = f"{machine.root}{place}/zz_new"

        assert answer(os.unlink, new) == "ENOENT"
        assert answer(os.rmdir, new) == "ENOENT"
        assert answer(os.rename, new, new + "2") == "ENOENT"


@ROOT_ONLY
class TestExistingNames:
    def test_remove(self, machine):
        """Nothing can be removed."""
        assert answer(os.unlink, machine.possible) == "EPERM"
        assert answer(os.unlink, machine.link) == "EPERM"
        assert answer(os.unlink, machine.node0) == "EISDIR"
        assert answer(os.rmdir, machine.node0) == "EPERM"
        assert answer(os.rmdir, f"{machine.node0}/power") == "EPERM"
        assert answer(os.rmdir, machine.possible) == "ENOTDIR"
        assert answer(os.rmdir, machine.root) == "EBUSY"

    def test_rename(self, machine, tmp_path):
        """Nothing can be renamed but onto itself, and nothing leaves or enters."""
        (tmp_path / "mine").touch()

        assert answer(os.rename, machine.possible, f"{machine.nodes}/online") == "EPERM"
        assert answer(os.rename, machine.node0, f"{machine.nodes}/zz") == "EPERM"
        assert answer(os.rename, machine.link, f"{machine.node0}/zz") == "EPERM"
        assert answer(os.rename, machine.possible, machine.possible) is None
        exchanged = libc(
            "renameat2",
            AT_FDCWD, os.fsencode(machine.possible),
            AT_FDCWD, os.fsencode(f"{machine.nodes}/online"),
            RENAME_EXCHANGE,
        )  # fmt: skip
        assert exchanged == "EINVAL"
        assert answer(os.rename, machine.possible, tmp_path / "out") == "EXDEV"
        assert answer(os.link, machine.possible, tmp_path / "out") == "EXDEV"
        assert answer(os.rename, tmp_path / "mine", f"{machine.nodes}/zz") == "EXDEV"

    def test_make_again(self, machine):
        """What is there is not made again."""
        assert answer(os.mkdir, machine.node0) == "EEXIST"
        assert answer(os.symlink, "x", machine.possible) == "EEXIST"


@ROOT_ONLY
class TestMetadata:
    @pytest.mark.parametrize("mode", [0o600, 0o444, 0o4755])
    def test_chmod(self, own, mode):
        """A changed mode stays."""
        os.chmod(own.possible, mode)

        assert stat.S_IFREG | mode == os.lstat(own.possible).st_mode

    def test_chmod_opens(self, own):
        """After chmod 0600 root can open a read-only attribute for writing, after 0200 not for reading."""
        os.chmod(own.possible, 0o600)
        assert can_open(own.possible, os.O_WRONLY) == "ok"
        os.chmod(own.possible, 0o200)
        assert can_open(own.possible, os.O_RDONLY) == "EACCES"

    def test_chmod_of_a_directory(self, own):
        """A directory's mode stays too."""
        os.chmod(own.node0, 0o700)

        assert stat.S_IFDIR | 0o700 == os.lstat(own.node0).st_mode

    def test_chown(self, own):
        """A changed owner stays, of a link too; one alone leaves the other."""
        os.chown(own.possible, 1000, 1001)
        os.chown(own.possible, 1002, -1)
        os.lchown(own.link, 5, 6)

        seen, link = os.lstat(own.possible), os.lstat(own.link)
        assert (1002, 1001) == (seen.st_uid, seen.st_gid)
        assert (5, 6) == (link.st_uid, link.st_gid)

    def test_chmod_of_a_link(self, own):
        """A link has no mode of its own to change."""
        changed = libc("fchmodat", AT_FDCWD, os.fsencode(own.link), 0o600, AT_SYMLINK_NOFOLLOW)

        assert changed == errno.errorcode[errno.EOPNOTSUPP]

    def test_utimes(self, own):
        """Set times stay, ctime is now; of a link too."""
        before = time.time_ns()
        os.utime(own.possible, (1000, 2000))
        os.utime(own.link, (1, 2), follow_symlinks=False)

        seen, link = os.stat(own.possible), os.lstat(own.link)
        assert (1000, 2000) == (seen.st_atime, seen.st_mtime)
        assert before - 10**9 <= seen.st_ctime_ns <= time.time_ns()
        assert (1, 2) == (link.st_atime, link.st_mtime)

    def test_utimes_now(self, own):
        """Times can be set to now."""
        os.utime(own.possible, (1000, 2000))
        os.utime(own.possible)

        assert os.stat(own.possible).st_mtime > 2000

    def test_change_of_one_file_leaves_the_others(self, own):
        """What is kept is kept for that path alone."""
        os.chmod(own.possible, 0o600)

        assert stat.S_IFREG | 0o444 == os.lstat(f"{own.nodes}/online").st_mode

    @pytest.mark.parametrize("name", ["possible", "aob", "cpumap"])
    def test_truncate(self, own, name):
        """truncate(2) succeeds and changes nothing; a negative length is EINVAL."""
        path = getattr(own, name)
        with open(path, "rb") as file:
            before = file.read()
        for length in (0, 100, 4096, 1 << 40):
            assert answer(os.truncate, path, length) is None
            assert os.stat(path).st_size == 4096
        assert answer(os.truncate, path, -1) == "EINVAL"
        with open(path, "rb") as file:
            assert before == file.read()


class TestWithoutPrivileges:
    def test_reading(self, machine):
        """What is 0444 or 0644 can be read by anybody, what is 0400 or 0200 not."""
        for path in (machine.possible, machine.aob):
            assert as_nobody(can_open, path, os.O_RDONLY) == "ok"
        assert as_nobody(Path(machine.possible).read_text) == "0-3\n"
        for path in (machine.compact, f"{machine.sys}/bus/dax/devices/dax0.0/resource"):
            assert as_nobody(can_open, path, os.O_RDONLY) == "EACCES"
        assert "node0" in as_nobody(os.listdir, machine.nodes)

    def test_writing(self, machine):
        """Nothing can be opened for writing or truncated."""
        for path in (machine.possible, machine.aob, machine.compact):
            assert as_nobody(can_open, path, os.O_WRONLY) == "EACCES"
            assert as_nobody(os.truncate, path, 0) == "EACCES"
        assert as_nobody(can_open, machine.possible, os.O_CREAT | os.O_EXCL) == "EEXIST"

    def test_metadata(self, machine):
        """Metadata are the owner's to change."""
        assert as_nobody(os.chmod, machine.possible, 0o777) == "EPERM"
        assert as_nobody(os.chown, machine.possible, 65534, 65534) == "EPERM"
        assert as_nobody(os.utime, machine.possible, (1, 2)) == "EPERM"
        assert as_nobody(os.utime, machine.possible) == "EACCES"

    def test_names(self, machine):
        """No name can be made or removed: EACCES."""
        new = f"{machine.nodes}/zz_new"

        assert as_nobody(os.mkdir, new) == "EACCES"
        assert as_nobody(can_open, new, os.O_CREAT | os.O_WRONLY) == "EACCES"
        assert as_nobody(os.symlink, "x", new) == "EACCES"
        assert as_nobody(os.mknod, new, stat.S_IFIFO | 0o600) == "EACCES"
        assert as_nobody(os.unlink, machine.possible) == "EACCES"
        assert as_nobody(os.rmdir, machine.node0) == "EACCES"
        assert as_nobody(os.rename, machine.possible, new) == "EACCES"
