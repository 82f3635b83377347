"""libfuse 2.9 beyond what fusepy declares: the operations after `bmap`, a mount without ``fuse_main``, notifications.

fusepy hands the whole life of a mount to ``fuse_main``. Here libfuse mounts and unmounts, and answers the requests that
it is given; who reads them is `Session`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tdxfs.server import LIBFUSE  # before fuse: it says which libfuse

import fuse  # isort: skip


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
_inval_entry = _declare(_BLOCKING, "fuse_lowlevel_notify_inval_entry", _INT, _P, ctypes.c_int64, ctypes.c_char_p, _SIZE)
_inval_inode = _declare(
    _BLOCKING, "fuse_lowlevel_notify_inval_inode", _INT, _P, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)
_notify_poll = _declare(_BLOCKING, "fuse_notify_poll", _INT, _P)
_pollhandle_destroy = _declare(_QUICK, "fuse_pollhandle_destroy", None, _P)


class Channel:
    """A mount that libfuse has made, and what it has of it."""

    def __init__(self, handlers: Mapping[str, Callable[..., int]], arguments: Iterable[str]) -> None:
        """`handlers` by operation; RuntimeError if libfuse cannot mount: it says why on standard error."""
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
        self.descriptor: int = _chan_fd(self._channel)
        """Of ``/dev/fuse``."""
        self.longest: int = _chan_bufsize(self._channel)
        """The bytes of a request at most."""

    @property
    def mountpoint(self) -> str:
        return os.fsdecode(ctypes.string_at(self._mountpoint.value or 0))

    def process(self, request: bytearray, size: int) -> None:
        """libfuse decodes a request, calls its handler and encodes the answer."""
        where = ctypes.addressof(ctypes.c_char.from_buffer(request))
        _process(self._session, where, size, self._channel)

    def forget_name(self, directory: int, name: bytes) -> int:
        """The kernel looks `name` up anew in a directory; a negative errno where it did not know it. Blocks."""
        return int(_inval_entry(self._channel, directory, name, len(name)))

    def forget_attributes(self, nodeid: int) -> int:
        """The kernel asks anew for the attributes of a node; a negative errno where it did not know it. Blocks."""
        return int(_inval_inode(self._channel, nodeid, -1, 0))

    def unmount(self) -> None:
        """The end of it."""
        _teardown(self._fuse, self._mountpoint)


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
