"""libfuse 2.9 beyond what fusepy declares: the operations after `bmap`, the loop that serves a mount, notifications.

fusepy hands the whole life of a mount to ``fuse_main``. A server that tells the kernel what it must forget needs to
know under which number the kernel knows a directory, and only the request itself says that: the loop here is libfuse's
own (``fuse_session_loop``), with the request left readable while it is answered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tdxfs.server import LIBFUSE, is_mounted  # before fuse: it says which libfuse

import fuse  # isort: skip

c_stat = fuse.c_stat
LOOKUP = 1
"""Opcode of a request that becomes a `getattr` call of a name; others are of what the kernel has."""
ROOT_NODEID = 1
POLL_SCHEDULE_NOTIFY = 1

_HEADER = struct.Struct("=4xI8xQ")
"""``struct fuse_in_header``: opcode and node number."""
_READ, _WRITE, _DESTROY, _IOCTL = 15, 16, 38, 39
_NOT_PERMITTED = frozenset({10, 11, 12, 45})
"""UNLINK, RMDIR, RENAME, RENAME2: libfuse would wait until nobody else uses the name."""
_READ_IN = struct.Struct("=8xQ24xQQI")
"""The same and ``struct fuse_read_in``: number of the request, handle, offset, size."""
_unpack_read, _pack_reply = _READ_IN.unpack_from, struct.Struct("=IiQ").pack
"""``struct fuse_out_header``, 16 bytes: length with the data, negative errno, number of the request."""


class Operations(fuse.fuse_operations):  # type: ignore[misc]
    """``struct fuse_operations``, whole."""

    _fields_ = [
        (
            "poll",
            ctypes.CFUNCTYPE(
                ctypes.c_int,
                ctypes.c_char_p,
                ctypes.POINTER(fuse.fuse_file_info),
                ctypes.c_void_p,
                ctypes.POINTER(ctypes.c_uint),
            ),
        ),
        ("write_buf", ctypes.c_void_p),
        ("read_buf", ctypes.c_void_p),
        ("flock", ctypes.c_void_p),
        ("fallocate", ctypes.c_void_p),
    ]


def prototypes() -> Mapping[str, Any]:
    """Operation -> its ctypes function type."""
    fields = (*fuse.fuse_operations._fields_, *Operations._fields_)
    return {field[0]: field[1] for field in fields if hasattr(field[1], "argtypes")}


def _declare(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_BLOCKING = ctypes.CDLL(LIBFUSE)
_QUICK = ctypes.PyDLL(LIBFUSE)
"""Calls that keep the interpreter's lock: their callbacks need not take it again."""
_P, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t

_setup = _declare(_BLOCKING, "fuse_setup", _P, _INT, _P, _P, _SIZE, _P, _P, _P)
_teardown = _declare(_BLOCKING, "fuse_teardown", None, _P, _P)
_get_session = _declare(_QUICK, "fuse_get_session", _P, _P)
_next_chan = _declare(_QUICK, "fuse_session_next_chan", _P, _P, _P)
_chan_fd = _declare(_QUICK, "fuse_chan_fd", _INT, _P)
_chan_bufsize = _declare(_QUICK, "fuse_chan_bufsize", _SIZE, _P)
_process = _declare(_QUICK, "fuse_session_process", None, _P, _P, _SIZE, _P)
_exited = _declare(_QUICK, "fuse_session_exited", _INT, _P)
_inval_entry = _declare(
    _BLOCKING, "fuse_lowlevel_notify_inval_entry", _INT, _P, ctypes.c_uint64, ctypes.c_char_p, _SIZE
)
_inval_inode = _declare(
    _BLOCKING, "fuse_lowlevel_notify_inval_inode", _INT, _P, ctypes.c_uint64, ctypes.c_int64, ctypes.c_int64
)
_notify_poll = _declare(_BLOCKING, "fuse_notify_poll", _INT, _P)
_pollhandle_destroy = _declare(_QUICK, "fuse_pollhandle_destroy", None, _P)


class _Stop(Exception):
    pass


class _Buffer:
    """Where a request is read into."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        self.header = partial(_HEADER.unpack_from, self.data)

    def fill(self, request: bytes) -> int:
        self.data[: len(request)] = request
        return len(request)


class Session:
    """One mount: what libfuse has of it, and the loop that serves it until it is unmounted or a signal ends it."""

    def __init__(
        self,
        handlers: Mapping[str, Callable[..., int]],
        read: Callable[[int, int, int], bytes | int],
        arguments: Iterable[str],
    ) -> None:
        # reads are most of what is asked: (handle, size, offset) -> data or negative errno, without a path made for it
        self._read = read
        self._operations = Operations()
        types = prototypes()
        # ctypes itself keeps only one of a base's and a subclass's first field alive
        self._callbacks = {name: types[name](handler) for name, handler in handlers.items()}
        for name, callback in self._callbacks.items():
            setattr(self._operations, name, callback)
        argv = [os.fsencode(argument) for argument in arguments]
        self._argv = (ctypes.c_char_p * len(argv))(*argv)
        self._mountpoint = ctypes.c_void_p()
        self._fuse = _setup(
            len(argv),
            self._argv,
            ctypes.byref(self._operations),
            ctypes.sizeof(self._operations),
            ctypes.byref(self._mountpoint),
            ctypes.byref(ctypes.c_int()),
            None,
        )
        if not self._fuse:
            raise RuntimeError("it does not say why")
        self._session = _get_session(self._fuse)
        self._channel = _next_chan(self._session, None)
        self._descriptor = _chan_fd(self._channel)
        self._own, self._other = (_Buffer(_chan_bufsize(self._channel)) for _ in range(2))
        self.header = self._own.header
        """Opcode and node number of the request that is being answered."""
        self._postponed: deque[bytes] = deque()
        self._waiting = self._stopped = False

    def serve(self) -> None:
        """Answer requests until the mount is gone, or SIGTERM, SIGINT or SIGHUP comes; then unmount."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        own, descriptor, into, readv, answer = self._own, self._descriptor, [self._own.data], os.readv, self._answer
        postponed = self._postponed
        try:
            while not self._stopped:
                self._waiting = True
                try:
                    size = readv(descriptor, into)
                except OSError as error:
                    if error.errno == errno.ENOENT:  # the caller was interrupted before its request was read
                        continue
                    if error.errno == errno.ENODEV:
                        break
                    raise
                self._waiting = False
                answer(own, size)
                while postponed:
                    answer(own, own.fill(postponed.popleft()))
        except _Stop:
            pass
        finally:
            self._waiting = False
            # a copy in another mount namespace can outlive the mount: then there is nothing left to unmount here
            if is_mounted(Path(os.fsdecode(ctypes.string_at(self._mountpoint.value or 0)))):
                _teardown(self._fuse, self._mountpoint)

    def _answer(self, request: _Buffer, size: int) -> None:
        data = request.data
        opcode = data[4]
        if opcode == _READ:
            unique, handle, offset, length = _unpack_read(data)
            said = self._read(handle, length, offset)
            reply = (
                _pack_reply(16, said, unique)
                if isinstance(said, int)
                else _pack_reply(16 + len(said), 0, unique) + said
            )
        elif opcode in _NOT_PERMITTED:
            reply = _pack_reply(16, -errno.EPERM, _unpack_read(data)[0])
        else:
            _process(self._session, request.address, size, self._channel)
            return
        try:  # noqa: SIM105  contextlib.suppress() costs more
            os.write(self._descriptor, reply)
        except FileNotFoundError:  # the caller was interrupted meanwhile
            pass

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
        self.header = self._other.header
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
            self.header = self._own.header
            os.set_blocking(self._descriptor, True)

    def _answer_one(self) -> None:
        try:
            size = os.readv(self._descriptor, [self._other.data])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EAGAIN):
                return
            raise
        if self._other.data[4] in (_WRITE, _IOCTL, _DESTROY):
            self._postponed.append(bytes(self._other.data[:size]))
        else:
            self._answer(self._other, size)

    def _on_signal(self, *_: Any) -> None:
        # while a request is answered the loop ends after it, otherwise at once
        self._stopped = True
        if self._waiting:
            raise _Stop

    def forget_name(self, directory: int, name: bytes) -> int:
        """The kernel looks `name` up anew in a directory; a negative errno where it did not know it. Blocks."""
        return int(_inval_entry(self._channel, directory, name, len(name)))

    def forget_attributes(self, nodeid: int) -> int:
        """The kernel asks anew for the attributes of a node; a negative errno where it did not know it. Blocks."""
        return int(_inval_inode(self._channel, nodeid, -1, 0))


def wake(handle: int) -> None:
    """End the wait of whoever polls on a poll handle, and free it."""
    _notify_poll(handle)
    _pollhandle_destroy(handle)


def drop(handle: int) -> None:
    """Free a poll handle nobody waits on."""
    _pollhandle_destroy(handle)
