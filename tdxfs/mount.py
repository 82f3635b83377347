"""The FUSE mount of a `Tree`.

fusepy's own methods turn every unknown exception into EINVAL; here a bug is logged and answered EIO. What the kernel
knows of the tree is in `Inodes`, what is open in `Descriptions`.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from tdxfs import delta
from tdxfs import fuse_wire as wire
from tdxfs.cached import Cached, Stale
from tdxfs.caller import Caller
from tdxfs.errors import UserError
from tdxfs.failures import Failures, in_force
from tdxfs.fuse_abi import caller
from tdxfs.inodes import Inode, Inodes
from tdxfs.kvm import Call, Kvm
from tdxfs.listings import Listings
from tdxfs.model import PAGE_SIZE, Machine
from tdxfs.notifier import Notifier
from tdxfs.opened import Descriptions, Opened
from tdxfs.session import Session
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, Link
from tdxfs.tree import Tree

IOC_SIZE_SHIFT, IOC_SIZE_MASK = 16, 0x3FFF
"""Where the number of an ioctl says how large its struct is."""
HANDLERS = ("ioctl", "poll", "statfs", "init")
"""Operations that libfuse is given; the other requests that it gets it answers ENOSYS, once."""


class Server:
    """A mounted tree: a `Filesystem`."""

    def __init__(self, tree: Tree, mountpoint: str, ready: Callable[[], None], options: str) -> None:
        self.tree = tree
        self.ready = ready
        self.inodes = Inodes(tree)
        self.inodes.rehearse(_commonplaces(tree.machine))
        self.listings = Listings(tree, self.inodes)
        self.opened = Descriptions(tree, self.inodes, in_force(tree.machine.faults))
        self.cached = Cached(self.inodes, tree.tiers)
        self.kvm = Kvm(tree, mountpoint)
        self.look_up = self.inodes.look_up
        self.forget = self.inodes.forget
        self.attributes_of = self.inodes.attributes_of
        self.change_attributes = self.inodes.change_attributes
        self.open = self.opened.open
        self.read = self.opened.read
        handlers = {name: self._guarded(getattr(self, name)) for name in HANDLERS}
        self.session = Session(handlers, self, ("tdxfs", "-f", "-s", "-o", options, mountpoint))

    def serve(self) -> None:
        """Serve until the mount is gone."""
        self.notifier = Notifier(self.session)
        self.tree.watchers.append(self._changed)
        self.session.serve()

    def _changed(self, old: Machine, new: Machine) -> None:
        if delta.tasks_only(old, new):  # the kernel keeps no name of what they change
            stale = Stale()
        else:
            self.inodes.follow()
            stale = self.cached.change(self.tree.root_of(old), self.tree.root_of(new))
        self.inodes.drop_kept()
        self.notifier.post(stale)
        self.notifier.post(Stale(attributes=self.opened.change(old, new, stale.gone)))
        if old.faults != new.faults:
            self.opened.failures = in_force(new.faults)

    def failed(self) -> int:
        """The negative errno of what the emulated kernel refuses; anything else is a bug."""
        error = sys.exception()
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            return -error.errno
        traceback.print_exc()
        sys.stderr.flush()
        return -errno.EIO

    def _guarded(self, function: Callable[..., int]) -> Callable[..., int]:
        def answer(*arguments: Any) -> int:
            try:
                return function(*arguments)
            except BaseException:  # ctypes would swallow it and libfuse would read a random number
                return self.failed()

        return answer

    # --- what is answered without libfuse -------------------------------------------------

    def target_of(self, nodeid: int) -> bytes:
        """The text of a link."""
        inode = self.inodes.nodes[nodeid]
        link = self.inodes.entry(inode)
        if link is None:
            raise FileNotFoundError(errno.ENOENT, inode.path)
        self.inodes.accessed(inode)
        assert isinstance(link, Link)
        return wire.encoded(link.target)

    def open_directory(self, nodeid: int) -> bytes | int:
        """open(2) of a directory."""
        inode, stamp = self.inodes.nodes[nodeid], self.inodes.stamp
        directory = self.inodes.entry(inode)
        if not isinstance(directory, Directory):
            return -errno.ENOENT
        if self.opened.failures is not None:
            self._fail_listing(self.opened.failures, inode, directory)
        return wire.pack_opened(self.opened.add(Opened(inode, None, stamp, self.tree.told, 0)), 0)

    def _fail_listing(self, failures: Failures, inode: Inode, directory: Directory[Any]) -> None:
        # what had vanished is back, and what vanishes now is still named; told before the kernel locks the directory
        below = f"{inode.path}/"
        failures.meet("list", inode.path)
        back = {path for path in self.inodes.finder.vanished if path.rpartition("/")[0] == inode.path}
        lost = set(failures.vanishing([below + name for name in self.listings.of(directory, self.inodes.stamp).names]))
        self.inodes.finder.vanished = self.inodes.finder.vanished - back | lost
        self.inodes.forget_all()
        self.notifier.post(self.cached.names(inode.path, [path[len(below) :] for path in back | lost]))
        self.notifier.settle()

    def list(self, handle: int, size: int, offset: int, plus: bool) -> bytes:
        """One getdents(2)."""
        opened = self.opened[handle]
        return self.listings.read(opened.inode, opened.gone, size, offset, plus)

    def release(self, handle: int) -> int:
        """The end of an open description."""
        opened = self.opened.close(handle)
        if opened.kvm is not None:
            try:
                self.kvm.release(opened.kvm)
            finally:
                self.notifier.settle()
        return 0

    def write(self, handle: int, data: bytes, offset: int) -> int:
        """One write(2): one store, whatever the offset, and a page of it at most. How many bytes it took."""
        opened = self.opened[handle]
        if opened.memory is not None:
            return os.pwrite(opened.memory.fileno(), data, offset)
        if opened.gone:
            return -errno.ENODEV
        if self.opened.failures is not None:
            self.opened.failures.meet("write", opened.inode.path)
        try:
            return self.tree.write(opened.inode.path, data)
        finally:
            self.notifier.settle()

    # --- what libfuse asks ----------------------------------------------------------------

    def ioctl(self, path: bytes, number: int, argument: int | None, fip: Any, flags: int, data: int | None) -> int:
        descriptor = self.opened[fip.contents.fh].kvm
        if descriptor is None:
            return -errno.ENOTTY
        size = number >> IOC_SIZE_SHIFT & IOC_SIZE_MASK
        struct_in = ctypes.string_at(data, size) if data and size else b""
        try:
            result, struct_out = self.kvm.ioctl(number, Call(descriptor, argument or 0, struct_in, Caller(caller())))
        finally:
            self.notifier.settle()
        if struct_out:
            assert data is not None and len(struct_out) == size
            ctypes.memmove(data, struct_out, size)
        return result

    def poll(self, path: bytes, fip: Any, waiter: int | None, events: Any) -> int:
        events[0] = self.opened.wait(fip.contents.fh, waiter)
        return 0

    def statfs(self, path: bytes, buf: Any) -> int:
        buf.contents.f_bsize = buf.contents.f_frsize = PAGE_SIZE
        buf.contents.f_namemax = 255
        return 0

    def init(self, conn: Any) -> int:
        self.ready()
        for start in self.tree.starting:
            start()
        return 0


def _commonplaces(machine: Machine) -> list[str]:
    # files of a CPU, a node and a memory block
    return [
        f"{paths.cpu(machine, 0)}/online",
        f"{paths.node(machine, next(iter(machine.nodes), 0))}/meminfo",
        f"{paths.memory_block(machine, next(iter(machine.blocks), 0))}/state",
    ]


def serve(tree: Tree, mountpoint: str, ready: Callable[[], None]) -> None:
    """
    Serve `tree` at `mountpoint` until it is unmounted or the process gets SIGTERM, SIGHUP or
    SIGINT; `ready` is called once the kernel has begun to talk to us. UserError if libfuse cannot mount.
    """
    gc.freeze()
    gc.set_threshold(1_000_000, 20, 20)  # what is kept for the paths looked at makes no cycles
    options = ["default_permissions", "fsname=tdxfs", "subtype=tdxfs"]
    if os.geteuid() == 0:
        options.append("allow_other")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:  # by libfuse and fusermount: the reason, if they cannot mount
        os.dup2(said.fileno(), 2)
        try:
            server = Server(tree, mountpoint, ready, ",".join(options))
        except RuntimeError as error:
            said.seek(0)
            reason = "; ".join(said.read().decode("utf-8", "replace").split("\n")[:-1])
            raise UserError(f"{mountpoint}: libfuse cannot mount here: {reason or error}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    server.serve()
