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
from typing import Any, Protocol

from tdxfs.server import LIBFUSE, is_mounted  # before fuse: it says which libfuse

import fuse  # isort: skip

c_stat = fuse.c_stat
LOOKUP = 1
"""Opcode of a request that becomes a `getattr` call of a name; others are of what the kernel has."""
ROOT_NODEID = 1
POLL_SCHEDULE_NOTIFY = 1
LOOKS = 30
"""How often to look for the next request before going to sleep: to be woken takes longer than most of them."""

_HEADER = struct.Struct("=4xI8xQ")
"""``struct fuse_in_header``: opcode and node number."""
GETATTR, _OPEN, _READ, _WRITE, _RELEASE, _DESTROY, _IOCTL = 3, 14, 15, 16, 18, 38, 39
_NOT_PERMITTED = frozenset({10, 11, 12, 45})
"""UNLINK, RMDIR, RENAME, RENAME2: libfuse would wait until nobody else uses the name."""
_unpack_read = struct.Struct("=40xQQI").unpack_from
"""``struct fuse_read_in`` after the header: handle, offset, size; those that end a handle begin like it."""
_unpack_open = struct.Struct("=16xQ16xI").unpack_from
"""Node number, and the flags of ``struct fuse_open_in``."""
_unpack_number = struct.Struct("=8xQ").unpack_from
_pack_reply = struct.Struct("=IiQ").pack
"""``struct fuse_out_header``, 16 bytes: length with the data, negative errno, number of the request."""
_pack_opened = struct.Struct("=QI4x").pack
"""``struct fuse_open_out``: handle, flags."""
_FOPEN_DIRECT_IO = 1
_NAME = 40
"""Where a request's name begins."""
_ATTRIBUTES = struct.Struct("=Q8x6Q10I")
"""``struct fuse_attr_out``: seconds that it holds, then what `c_stat` has."""


def missing(seconds: int) -> bytes:
    """``struct fuse_entry_out`` of a name that is not there, for so long."""
    return struct.pack("=16xQ104x", seconds)


def attributes(said: bytes, seconds: int) -> bytes:
    """``struct fuse_attr_out`` of a `c_stat` without a device number, to be held for so long."""
    of = c_stat.from_buffer_copy(said)
    times = (of.st_atimespec, of.st_mtimespec, of.st_ctimespec)
    return _ATTRIBUTES.pack(
        seconds, of.st_ino, of.st_size, 0, *(time.tv_sec for time in times), *(time.tv_nsec for time in times),
        of.st_mode, of.st_nlink, of.st_uid, of.st_gid, 0, of.st_blksize, 0,
    )  # fmt: skip


class Direct(Protocol):
    """Answers to requests for which no path need be made; negative errno, or None: libfuse is to answer."""

    def read(self, handle: int, size: int, offset: int) -> bytes | int: ...

    def open_again(self, nodeid: int, flags: int) -> int | None:
        """A handle."""

    def release_handle(self, handle: int) -> int: ...

    def attributes_of(self, nodeid: int) -> bytes | None:
        """As `attributes` makes them."""

    def look_for(self, nodeid: int, name: bytes) -> bytes | None:
        """As `missing` makes it."""


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
        direct: Direct,
        arguments: Iterable[str],
    ) -> None:
        self._direct = direct
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
        self._stopped = False

    def serve(self) -> None:
        """Answer requests until the mount is gone, or SIGTERM, SIGINT or SIGHUP comes; then unmount."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        own, descriptor, into, readv, answer = self._own, self._descriptor, [self._own.data], os.readv, self._answer
        postponed = self._postponed
        os.set_blocking(descriptor, False)
        asleep = select.poll()
        asleep.register(descriptor, select.POLLIN)
        # whichever thread a signal comes to, and whenever: it is in this pipe for good, so nobody goes to sleep again
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        asleep.register(woken, select.POLLIN)
        patience = LOOKS if len(os.sched_getaffinity(0)) > 1 else 0
        looks = 0
        try:
            while not self._stopped:
                try:
                    size = readv(descriptor, into)
                except BlockingIOError:
                    looks += 1
                    if looks > patience:
                        asleep.poll()
                        looks = 0
                    continue
                except OSError as error:
                    if error.errno == errno.ENOENT:  # the caller was interrupted before its request was read
                        continue
                    if error.errno == errno.ENODEV:
                        break
                    raise
                looks = 0
                answer(own, size)
                while postponed:
                    answer(own, own.fill(postponed.popleft()))
        finally:
            # a copy in another mount namespace can outlive the mount: then there is nothing left to unmount here
            if is_mounted(Path(os.fsdecode(ctypes.string_at(self._mountpoint.value or 0)))):
                _teardown(self._fuse, self._mountpoint)

    def _answer(self, request: _Buffer, size: int) -> None:
        data = request.data
        opcode, direct = data[4], self._direct
        said: bytes | int | None
        if opcode == _READ:
            handle, offset, length = _unpack_read(data)
            said = direct.read(handle, length, offset)
        elif opcode == LOOKUP:
            said = direct.look_for(_HEADER.unpack_from(data)[1], bytes(data[_NAME : size - 1]))
        elif opcode == _OPEN:
            said = direct.open_again(*_unpack_open(data))
            if said is not None and said >= 0:
                said = _pack_opened(said, _FOPEN_DIRECT_IO)
        elif opcode == _RELEASE:
            said = direct.release_handle(_unpack_read(data)[0])
        elif opcode == GETATTR:
            said = direct.attributes_of(_HEADER.unpack_from(data)[1])
        else:
            said = -errno.EPERM if opcode in _NOT_PERMITTED else None
        if said is None:
            _process(self._session, request.address, size, self._channel)
            return
        number = _unpack_number(data)[0]
        reply = (
            _pack_reply(16, said, number) if isinstance(said, int) else _pack_reply(16 + len(said), 0, number) + said
        )
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
        self._stopped = True

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


def caller() -> int:
    """The thread whose request is being answered, as this process's pid namespace numbers it; 0: it has no number."""
    return int(fuse.fuse_get_context()[2])
