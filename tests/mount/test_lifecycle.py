"""How mounts come and go: stale ones, many at once, and those that cannot be."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from attrs import evolve
from machines import MIXED
from syscalls import answer, opened

from tdxfs.formats.topology import dumps
from tdxfs.server import FSTYPE, detach, is_mounted, is_stale, launch, mounted, mounts, stop


def tdxfs(*arguments, before=(), **options):
    """The command as a process of its own, `before` it."""
    return subprocess.run(
        [*before, sys.executable, "-m", "tdxfs", *map(str, arguments)],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def environment(**more):
    return {**os.environ, **more}


@pytest.fixture
def small(tmp_path):
    """The file of a small machine."""
    file = tmp_path / "small.toml"
    file.write_text(dumps(MIXED))
    return file


@pytest.fixture
def where(tmp_path):
    """A directory to mount on; nothing is mounted there afterwards."""
    place = tmp_path / "mnt"
    place.mkdir()
    yield place
    if is_mounted(place):
        detach(place)


def test_stale_mount_is_replaced(small, where, tmp_path):
    """When the server was killed its mount is dead; the next mount command puts a live one in its place."""
    with (tmp_path / "errors").open("w+b") as errors:
        server = launch(MIXED, where, errors)
        server.send_signal(signal.SIGKILL)
        server.wait()

        assert answer(os.listdir, where) == "ENOTCONN"
        assert is_mounted(where)
        assert is_stale(where)

    done = tdxfs("mount", small, where)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(where / "sys")
    assert not is_stale(where)
    assert [str(where)] == [place for place in mounts() if place == str(where)]
    assert tdxfs("umount", where).returncode == 0
    assert not is_mounted(where)


def test_stale_mount_is_unmounted(where, tmp_path):
    """A dead mount can be unmounted like a live one."""
    with (tmp_path / "errors").open("w+b") as errors:
        server = launch(MIXED, where, errors)
        server.kill()
        server.wait()

    assert tdxfs("umount", where).returncode == 0
    assert not is_mounted(where)


def test_readers_of_a_killed_server(where, tmp_path):
    """Who has a file open when the server is killed gets an error, and does not hang."""
    with (tmp_path / "errors").open("w+b") as errors:
        server = launch(MIXED, where, errors)
        with opened(where / "proc/cmdline") as file:
            server.kill()
            server.wait()
            assert answer(os.read, file, 100) in ("ENOTCONN", "ECONNABORTED")
    detach(where)


def test_many_at_once():
    """Mounts do not know of each other: each shows its own machine, whichever came or goes first."""
    with ExitStack() as stack:
        roots = {
            number: stack.enter_context(mounted(evolve(MIXED, cmdline=f"machine={number}"))) for number in range(6)
        }
        for number, root in roots.items():
            assert f"machine={number}\n" == (root / "proc/cmdline").read_text()
        assert {str(root) for root in roots.values()} <= set(mounts())
    assert not {str(root) for root in roots.values()} & set(mounts())


def test_on_a_path_with_blanks(small, tmp_path):
    """A mount point may have blanks, commas and other letters in its name."""
    place = tmp_path / "a b,c\u00e9"
    place.mkdir()

    assert tdxfs("mount", small, place).returncode == 0
    assert is_mounted(place)
    assert (place / "sys").is_dir()
    assert tdxfs("umount", place).returncode == 0


def test_through_a_link(small, where, tmp_path):
    """A mount point may be reached through a symbolic link."""
    link = tmp_path / "link"
    link.symlink_to(where)

    assert tdxfs("mount", small, link).returncode == 0
    assert (where / "sys").is_dir()
    assert tdxfs("umount", link).returncode == 0
    assert not is_mounted(where)


def test_fstype(machine):
    """/proc/mounts tells what it is."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        rows = [line.split() for line in file if line.split()[1] == machine.root]

    assert [("tdxfs", FSTYPE)] == [(row[0], row[2]) for row in rows]


class TestWhatCannotBeMounted:
    """One line on stderr, status 1, and nothing left behind; in the foreground too."""

    @pytest.fixture(params=["background", "foreground"])
    def flags(self, request):
        return ["-f"] if request.param == "foreground" else []

    def refused(self, done, where, *words):
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("tdxfs: ")
        for word in words:
            assert word in done.stderr
        assert not is_mounted(where)

    def test_no_libfuse(self, small, where, flags):
        """Without libfuse 2 it says what to install."""
        done = tdxfs("mount", small, where, *flags, env=environment(FUSE_LIBRARY_PATH="/nonexistent/libfuse.so.2"))

        self.refused(done, where, "/nonexistent/libfuse.so.2", "install")
        assert list(where.iterdir()) == []

    def test_missing_mount_point(self, small, tmp_path, flags):
        """The mount point must exist, and is not made."""
        absent = tmp_path / "absent"

        self.refused(tdxfs("mount", small, absent, *flags), absent, str(absent), "does not exist")
        assert not absent.exists()

    def test_not_a_directory(self, small, tmp_path, flags):
        """The mount point must be a directory."""
        file = tmp_path / "file"
        file.write_text("precious")

        self.refused(tdxfs("mount", small, file, *flags), file, str(file), "not a directory")
        assert file.read_text() == "precious"

    def test_not_empty(self, small, where, flags):
        """The mount point must be empty."""
        (where / "mine").write_text("precious")

        self.refused(tdxfs("mount", small, where, *flags), where, str(where), "not empty")
        assert (where / "mine").read_text() == "precious"

    def test_busy(self, small, where, flags):
        """The mount point must be free; what is there stays."""
        with mounted(MIXED, where):
            done = tdxfs("mount", small, where, *flags)

            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert "busy" in done.stderr
            assert (where / "sys").is_dir()

    @pytest.mark.skipif("os.geteuid() != 0", reason="needs a /dev of its own: scripts/test runs as root")
    def test_no_device(self, small, where, flags):
        """Without /dev/fuse it says so."""
        unshared = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh")

        self.refused(tdxfs("mount", small, where, *flags, before=unshared), where, "/dev/fuse is missing")

    @pytest.mark.skipif("os.geteuid() != 0", reason="needs capabilities to drop: scripts/test runs as root")
    def test_no_permission_to_mount(self, small, where, flags):
        """Who may not mount is told so, by libfuse's reason."""
        dropped = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")

        self.refused(tdxfs("mount", small, where, *flags, before=dropped), where, str(where), "Operation not permitted")

    @pytest.mark.skipif("os.geteuid() != 0", reason="needs capabilities to drop: scripts/test runs as root")
    def test_no_permission_for_the_device(self, small, where, flags, tmp_path):
        """Who may not open /dev/fuse is told so."""
        device = tmp_path / "fuse"
        os.mknod(device, 0o20000, os.makedev(10, 229))
        script = f'mount --bind {device} /dev/fuse && shift && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
        unshared = ("unshare", "-m", "sh", "-c", script, "sh", "x")

        done = tdxfs("mount", small, where, *flags, before=unshared)

        self.refused(done, where, "/dev/fuse", "no permission")


def kill_server_of(root):
    """SIGKILL the one server of this mount point, and wait until its mount is dead."""
    (pid,) = servers_of(root)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not is_stale(root):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_dies_early_is_told(where):
    """The end of a `mounted` block fails when the server died before."""
    block = ExitStack()
    kill_server_of(block.enter_context(mounted(MIXED, where)))

    with pytest.raises(RuntimeError, match="died with status"):
        block.close()
    assert not is_mounted(where)


def servers_of(root):
    """Pids of the processes that serve this mount point."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"{entry.path}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if b"tdxfs.server" in words and os.fsencode(root) in words:
                yield int(entry.name)


def test_stop_is_patient_with_none(where, tmp_path):
    """Stopping a server that is gone leaves nothing mounted."""
    with (tmp_path / "errors").open("w+b") as errors:
        server = launch(MIXED, where, errors)
        server.kill()
        server.wait()
        stop(server, where)
    assert not is_mounted(where)
