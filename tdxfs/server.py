"""Starting and stopping servers: ready means ready, and nothing is left behind."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tdxfs.boot import boot
from tdxfs.errors import UserError
from tdxfs.model import Topology
from tdxfs.policy import Policies
from tdxfs.root import Root
from tdxfs.sysfs.attribute import ALL_TIERS, Tier
from tdxfs.tree import Tree

LIBFUSE = os.environ.setdefault("FUSE_LIBRARY_PATH", "libfuse.so.2")
"""What fusepy loads: set here, find_library() would start a compiler to look."""
FSTYPE = "fuse.tdxfs"
MNT_DETACH = 2
GRACE, PATIENCE = 5.0, 30.0
"""Seconds to wait for a server to come or to go."""


def mounts() -> list[str]:
    """Mount points of every tdxfs that this process sees."""
    found = []
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        _, where, fstype, *_ = line.split(b" ")
        if fstype == FSTYPE.encode():
            found.append(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes((int(octal[1], 8),)), where)))
    return found


def is_mounted(mountpoint: Path) -> bool:
    """Whether a tdxfs is mounted there, dead or alive."""
    return os.path.realpath(mountpoint) in mounts()


def is_stale(mountpoint: Path) -> bool:
    """Whether a mount is there whose server is dead."""
    try:
        os.statvfs(mountpoint)  # stat(2) would be answered from the kernel's cache
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def prepare(mountpoint: Path) -> None:
    """
    See to it that `mountpoint` can be mounted on: a dead mount is detached;
    UserError with the reason if it cannot.
    """
    try:
        ctypes.CDLL(LIBFUSE)
    except OSError:
        raise UserError(f"{LIBFUSE} is missing: install libfuse 2 (Debian: apt-get install libfuse2 fuse3)") from None
    if not os.path.exists("/dev/fuse"):
        raise UserError("/dev/fuse is missing: load the fuse module, or let the container have the device")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise UserError("/dev/fuse: no permission to open it")
    if is_stale(mountpoint):
        detach(mountpoint)
    if not mountpoint.exists():
        raise UserError(f"{mountpoint}: mount point does not exist")
    if not mountpoint.is_dir():
        raise UserError(f"{mountpoint}: mount point is not a directory")
    if os.path.ismount(mountpoint):
        raise UserError(f"{mountpoint}: mount point is busy: something is mounted there")
    if any(mountpoint.iterdir()):
        raise UserError(f"{mountpoint}: mount point is not empty")


def detach(mountpoint: Path) -> None:
    """Take a mount out of the tree, whoever uses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), MNT_DETACH) != 0:
        subprocess.run(["fusermount", "-u", "-z", str(mountpoint)], check=False, capture_output=True)


def unmount(mountpoint: Path) -> None:
    """Unmount a tdxfs and wait until it is gone; UserError if it is none, or busy."""
    if not is_mounted(mountpoint):
        raise UserError(f"{mountpoint}: no tdxfs is mounted there")
    if is_stale(mountpoint):
        detach(mountpoint)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), 0) != 0:
        number = ctypes.get_errno()
        if number == errno.EBUSY:
            raise UserError(f"{mountpoint}: busy: a program has a file or its working directory there")
        done = subprocess.run(["fusermount", "-u", str(mountpoint)], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise UserError(f"{mountpoint}: {done.stderr.strip() or os.strerror(number)}")


def run_foreground(tree: Tree, mountpoint: Path, ready: Callable[[], None]) -> None:
    """Serve until unmounted."""
    prepare(mountpoint)
    from tdxfs.mount import serve

    serve(tree, os.path.abspath(mountpoint), ready)


def run_background(
    tree: Tree, mountpoint: Path, log: Path | None = None, before: Callable[[], None] = lambda: None
) -> int:
    """
    Serve in a process of its own and return its pid once the mount answers; UserError with
    its reason if it does not come up. What the server writes goes to `log`; `before` is called in it first.
    """
    prepare(mountpoint)
    import tdxfs.mount  # noqa: F401  imported before the fork: a failure is told here

    hear, tell = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        _become_server(tree, mountpoint, tell, log, before)
    os.close(tell)
    with os.fdopen(hear, "rb") as answers:
        answer = answers.read()
    if answer != b"ready":
        os.waitpid(pid, 0)
        raise UserError(
            answer.decode("utf-8", "replace").strip() or f"{mountpoint}: the server died before it was ready"
        )
    os.stat(mountpoint)
    return pid


def _become_server(tree: Tree, mountpoint: Path, tell: int, log: Path | None, before: Callable[[], None]) -> None:
    status = 1
    try:
        before()
        os.setsid()
        sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        source = os.open(os.devnull, os.O_RDONLY)
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)

        def ready() -> None:
            os.write(tell, b"ready")
            os.close(tell)

        run_foreground(tree, mountpoint, ready)
        status = 0
    except BaseException as error:
        os.write(tell, f"{error}".encode())
    finally:
        os._exit(status)


@contextmanager
def mounted(
    topology: Topology,
    mountpoint: Path | None = None,
    *,
    policies: Policies | None = None,
    tiers: Collection[Tier] = ALL_TIERS,
) -> Iterator[Path]:
    """
    Mount a topology for the time of a ``with`` block, served by a process of its own; the value is the mount
    point, a temporary directory unless one is given. UserError if it does not come up; RuntimeError at the end of
    the block if the server wrote anything or died before its time.
    """
    with tempfile.TemporaryDirectory(prefix="tdxfs-") as temporary, tempfile.TemporaryFile() as errors:
        where = Path(temporary) if mountpoint is None else mountpoint
        server = launch(topology, where, errors, policies, tiers)
        try:
            yield where
        finally:
            early = server.poll()
            sent = stop(server, where)
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip()
        ended = server.returncode == 0 or -server.returncode in sent
        if early is not None or not ended or said:
            died = "" if early is None and ended else f" died with status {server.returncode}"
            raise RuntimeError(f"the server of {where}{died}: {said or 'it wrote nothing'}")


def launch(
    topology: Topology,
    mountpoint: Path,
    errors: IO[bytes],
    policies: Policies | None = None,
    tiers: Collection[Tier] = ALL_TIERS,
) -> subprocess.Popen[bytes]:
    """Start a server process that writes its complaints to `errors`, and wait until its mount answers."""
    prepare(mountpoint)
    server = subprocess.Popen(
        [sys.executable, "-m", "tdxfs.server", str(mountpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    assert server.stdin is not None and server.stdout is not None
    with server.stdin:
        pickle.dump((topology, policies, frozenset(tiers)), server.stdin)
    with server.stdout:
        ready = server.stdout.readline() == b"ready\n"
    if not ready:
        server.wait()
        errors.seek(0)
        raise UserError(errors.read().decode("utf-8", "replace").strip())
    os.stat(mountpoint)
    return server


def stop(server: subprocess.Popen[bytes], mountpoint: Path) -> list[int]:
    """End a launched server: unmount, by force if need be, and reap it; the signals that it took."""
    sent: list[int] = []
    with suppress(UserError):  # busy: the signal takes it out of the tree all the same
        unmount(mountpoint)
    # a copy of the mount in another mount namespace keeps the server: then a signal ends it; at SIGTERM libfuse
    # unmounts, and complains where nothing is mounted any more
    first = signal.SIGTERM if is_mounted(mountpoint) else signal.SIGKILL
    for patience, number in ((GRACE, first), (PATIENCE, signal.SIGKILL)):
        try:
            server.wait(patience)
            break
        except subprocess.TimeoutExpired:
            server.send_signal(number)
            sent.append(number)
    server.wait()
    if is_mounted(mountpoint):
        detach(mountpoint)
    return sent


def main() -> int:
    """``python -m tdxfs.server MOUNTPOINT``: serve a pickled (topology, policies, tiers) from stdin."""
    topology, policies, tiers = pickle.load(sys.stdin.buffer)
    tree = Tree(Root, boot(topology, policies), tiers)
    try:
        run_foreground(tree, Path(sys.argv[1]), lambda: print("ready", flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
