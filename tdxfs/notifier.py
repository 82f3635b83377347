"""A thread that tells the kernel what to forget: a handler must not, it would wait for itself.

To forget a name the kernel takes the lock of its directory, which somebody may hold who waits for an answer of this
very server. So others are answered while a writer waits until the kernel has been told.
"""

from __future__ import annotations

import errno
import os
import sys
from queue import SimpleQueue
from threading import Lock, Thread

from tdxfs.cached import Stale
from tdxfs.session import Session

PATIENCE = 5.0
"""Seconds that a writer waits at most."""
HARMLESS = frozenset({0, -errno.ENOENT, -errno.ENOTDIR, -errno.ENODEV, -errno.EBADF})
"""The kernel did not know the name, or the mount is gone."""


class Notifier:
    """Tells the kernel, in order, what is stale."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queue: SimpleQueue[Stale | None] = SimpleQueue()
        self._pending = 0
        self._lock = Lock()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def post(self, stale: Stale) -> None:
        """Tell the kernel soon."""
        if stale.names or stale.attributes:
            with self._lock:
                self._pending += 1
            self._queue.put(stale)

    def settle(self) -> None:
        """Within a request: wait until the kernel has been told everything."""
        if self._pending and not self._session.answer_others(self._is_idle, self._bell, PATIENCE):
            print("tdxfs: the kernel has not been told everything in time", file=sys.stderr, flush=True)

    def _is_idle(self) -> bool:
        return not self._pending

    def _run(self) -> None:
        channel = self._session.channel
        while (stale := self._queue.get()) is not None:
            results = {channel.forget_name(directory, name) for directory, name in stale.names}
            results |= {channel.forget_attributes(nodeid) for nodeid in stale.attributes}
            for result in results - HARMLESS:
                print(f"tdxfs: the kernel does not forget: {errno.errorcode.get(-result, result)}", file=sys.stderr)
            with self._lock:
                self._pending -= 1
            os.eventfd_write(self._bell, 1)
