"""The loop that serves a mount.

The requests that come all the time are answered fastest where they are read, and a server that tells the kernel what it
must forget needs to number the kernel's nodes itself: this is libfuse's own loop (``fuse_session_loop``), which keeps
those from libfuse and gives it the others.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from io import FileIO
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Protocol

from tdxfs import fuse_wire as wire
from tdxfs.fuse_abi import Channel
from tdxfs.fuse_wire import (
    BODY,
    GETATTR,
    LOOKUP,
    OPEN,
    READ,
    RELEASE,
    pack_reply,
    unpack_head,
    unpack_open,
    unpack_read,
)
from tdxfs.server import is_mounted

LOOKS = 30
"""How often to look for the next request before going to sleep: to be woken takes longer than most of them."""


class Filesystem(Protocol):
    """
    Answers to the requests that come all the time; a negative errno instead of what is described, or an exception.
    The others libfuse gives to its handlers, as if they were all about the root: what they are about they know by
    handle.
    """

    def look_up(self, nodeid: int, name: str) -> bytes:
        """``struct fuse_entry_out`` of a name in a directory."""

    def forget(self, nodeid: int, lookups: int) -> None:
        """The kernel has forgotten so many answers about a node."""

    def attributes_of(self, nodeid: int) -> bytes:
        """``struct fuse_attr_out``."""

    def change_attributes(self, nodeid: int, change: wire.Change) -> bytes:
        """``struct fuse_attr_out`` afterwards."""

    def target_of(self, nodeid: int) -> bytes:
        """The text of a link."""

    def open(self, nodeid: int, flags: int) -> bytes | int:
        """``struct fuse_open_out``."""

    def open_directory(self, nodeid: int) -> bytes | int:
        """``struct fuse_open_out``."""

    def read(self, handle: int, size: int, offset: int) -> bytes | int: ...

    def write(self, handle: int, data: bytes, offset: int) -> int:
        """How many bytes it took."""

    def list(self, handle: int, size: int, offset: int, plus: bool) -> bytes:
        """``struct fuse_dirent`` of the entries that follow an offset, with `plus` ``struct fuse_direntplus``."""

    def release(self, handle: int) -> int:
        """0."""

    def failed(self) -> int:
        """The negative errno that stands for the exception being handled."""


class Session:
    """One mount, and the loop that serves it until it is unmounted or a signal ends it."""

    def __init__(
        self,
        handlers: Mapping[str, Callable[..., int]],
        filesystem: Filesystem,
        arguments: Iterable[str],
    ) -> None:
        """`handlers` are libfuse's."""
        self._filesystem = filesystem
        self.channel = Channel(handlers, arguments)
        self._descriptor = self.channel.descriptor
        # reads for less than os.read() and os.readv() do
        self._device = FileIO(self._descriptor, "r+", closefd=False)
        self._own, self._other = (bytearray(self.channel.longest) for _ in range(2))
        self._postponed: deque[bytes] = deque()
        self._stopped = False
        self._ended = Event()
        # with one CPU nobody sends a request while this looks for one
        self._sleeps = len(os.sched_getaffinity(0)) == 1

    def serve(self) -> None:
        """Answer requests until the mount is gone, or SIGTERM, SIGINT or SIGHUP comes; then unmount."""
        own, readinto, answer = self._own, self._device.readinto, self._answer
        descriptor, postponed = self._descriptor, self._postponed
        os.set_blocking(descriptor, self._sleeps)
        looks, patience = 0, -1 if self._sleeps else LOOKS
        wakes = self._end_at_signals()
        try:
            while not self._stopped:
                try:
                    if looks == patience:
                        os.set_blocking(descriptor, True)
                        try:
                            size = readinto(own)
                        finally:
                            os.set_blocking(descriptor, False)
                    else:
                        size = readinto(own)
                except OSError as error:
                    if error.errno == errno.ENOENT:  # the caller was interrupted before its request was read
                        continue
                    if error.errno == errno.ENODEV:
                        break
                    raise
                if size is None:  # there is none yet
                    looks += 1
                    continue
                looks = 0
                answer(own, size)
                while postponed:
                    request = postponed.popleft()
                    own[: len(request)] = request
                    answer(own, len(request))
        finally:
            self._ended.set()
            signal.set_wakeup_fd(-1)
            os.close(wakes)
            # a copy in another mount namespace can outlive the mount: then there is nothing left to unmount here
            if is_mounted(Path(self.channel.mountpoint)):
                self.channel.unmount()

    def _end_at_signals(self) -> int:
        # whichever thread a signal comes to, and whenever, it is in a pipe for good; the end of it that is written to
        woken, wakes = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(wakes, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        Thread(target=self._end, name="end", args=(woken, get_ident()), daemon=True).start()
        return wakes

    def _end(self, woken: int, loop: int) -> None:
        # a read that waits for a request is interrupted until the loop is seen to have ended
        if os.read(woken, 1):
            self._stopped = True
            while not self._ended.wait(0.01):
                os.set_blocking(self._descriptor, False)
                signal.pthread_kill(loop, signal.SIGTERM)
        os.close(woken)

    def _answer(self, data: bytearray, size: int) -> None:
        filesystem, opcode = self._filesystem, data[4]
        number, nodeid = unpack_head(data)
        said: bytes | int | None
        try:
            if opcode == READ:
                handle, offset, length = unpack_read(data)
                said = filesystem.read(handle, length, offset)
            elif opcode == LOOKUP:
                name = data[BODY : size - 1].decode("utf-8", "surrogateescape")
                said = filesystem.look_up(nodeid, name)
            elif opcode == OPEN:
                said = filesystem.open(*unpack_open(data))
            elif opcode == RELEASE:
                said = filesystem.release(unpack_read(data)[0])
            elif opcode == GETATTR:
                said = filesystem.attributes_of(nodeid)
            else:
                said = self._said(opcode, nodeid, data)
        except BaseException:
            said = filesystem.failed()
        if said is None:
            self._pass_on(data, size)
            return
        reply = pack_reply(16, said, number) if isinstance(said, int) else pack_reply(16 + len(said), 0, number) + said
        try:  # noqa: SIM105  contextlib.suppress() costs more
            os.write(self._descriptor, reply)
        except FileNotFoundError:  # the caller was interrupted meanwhile
            pass

    def _said(self, opcode: int, nodeid: int, data: bytearray) -> bytes | int | None:
        # the answer, a negative errno or 0; None: libfuse is to answer, or nobody
        filesystem = self._filesystem
        if opcode == wire.WRITE:
            handle, offset, length = unpack_read(data)
            written = filesystem.write(handle, bytes(data[wire.WRITTEN : wire.WRITTEN + length]), offset)
            return written if written < 0 else wire.pack_written(written)
        if opcode in (wire.READDIR, wire.READDIRPLUS):
            handle, offset, length = unpack_read(data)
            return filesystem.list(handle, length, offset, opcode == wire.READDIRPLUS)
        if opcode == wire.OPENDIR:
            return filesystem.open_directory(nodeid)
        if opcode == wire.RELEASEDIR:
            return filesystem.release(unpack_read(data)[0])
        if opcode == wire.READLINK:
            return filesystem.target_of(nodeid)
        if opcode == wire.SETATTR:
            return filesystem.change_attributes(nodeid, wire.change(data))
        if opcode == wire.MKNOD:
            return -errno.EACCES if stat.S_ISREG(wire.unpack_mode(data)[0]) else -errno.EPERM
        if opcode == wire.IOCTL and data[BODY + 8] & wire.IOCTL_DIR:
            return -errno.ENOTTY
        return wire.REFUSED.get(opcode)

    def _pass_on(self, data: bytearray, size: int) -> None:
        # libfuse knows no node except the root
        opcode = data[4]
        if opcode in (wire.FORGET, wire.BATCH_FORGET):
            for nodeid, lookups in wire.forgotten(data):
                self._filesystem.forget(nodeid, lookups)
        elif opcode == wire.INIT:
            self._greet(data, size)
        else:
            if unpack_head(data)[1]:
                data[wire.NODEID] = wire.ROOT
            self.channel.process(data, size)

    def _greet(self, request: bytearray, size: int) -> None:
        # libfuse's own answer goes into a pipe instead, to be completed
        device = os.dup(self._descriptor)
        said, says = os.pipe2(os.O_CLOEXEC)
        os.dup2(says, self._descriptor)
        try:
            self.channel.process(request, size)
        finally:
            os.dup2(device, self._descriptor, inheritable=False)
            os.close(device)
            os.close(says)
        with os.fdopen(said, "rb") as pipe:
            reply = pipe.read()
        os.write(self._descriptor, wire.with_readdirplus(request, reply))

    def answer_others(self, done: Callable[[], bool], bell: int, patience: float) -> bool:
        """
        Within a request, answer those of others until `done`, to be looked at when the eventfd `bell` rings, or
        `patience` seconds are over: whether it is done. What would change the machine waits for this request's end.
        """
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        waiting.register(bell, select.POLLIN)
        end = time.monotonic() + patience
        os.set_blocking(self._descriptor, False)
        try:
            while not done():
                ready = waiting.poll(max(end - time.monotonic(), 0) * 1000)
                if not ready:
                    return False
                if any(descriptor == self._descriptor for descriptor, _ in ready):
                    self._answer_one()
                else:
                    os.eventfd_read(bell)
            return True
        finally:
            os.set_blocking(self._descriptor, self._sleeps)

    def _answer_one(self) -> None:
        try:
            size = self._device.readinto(self._other)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        if size is None:
            return
        if self._other[4] in (wire.WRITE, wire.IOCTL, wire.DESTROY):
            self._postponed.append(bytes(self._other[:size]))
        else:
            self._answer(self._other, size)
