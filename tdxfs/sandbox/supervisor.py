"""The supervisor of a run: reads the calls that the filter sends, and has them answered."""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Collection
from functools import partial
from threading import Thread

from tdxfs.sandbox import seccomp
from tdxfs.sandbox.calls import NUMA, Calls, Handler
from tdxfs.sandbox.descriptors import Descriptors
from tdxfs.sandbox.follow import Followed
from tdxfs.sandbox.kernel import Kernel
from tdxfs.sandbox.memory import Processes
from tdxfs.sandbox.remap import Remapping


class Supervisor(Thread):
    """Answers the calls in `answered` that come from `listener` until it is told to stop."""

    def __init__(self, listener: int, root: int, proc: int, answered: Collection[str]) -> None:
        super().__init__(daemon=True)
        self.listener = listener
        self.call = 0
        """The id of the call that is being answered."""
        self.calls = Calls(Kernel(root), Processes(proc, self._waits))
        self.handlers: dict[int, Handler] = {seccomp.number(name): getattr(self.calls, name) for name in answered}
        if not self.calls.kernel.has_nodes:
            self.handlers |= dict.fromkeys(map(seccomp.number, NUMA), lambda *_: -errno.ENOSYS)
        self.handlers[seccomp.number("ioctl")] = Descriptors(self.calls).ioctl
        self.poll = select.epoll()
        self.poll.register(listener, select.EPOLLIN)
        self.followed = Followed(self.calls, root, self.poll)
        self.watchers = {
            seccomp.number(name): partial(watcher, watching)
            for watching in (self.followed, Remapping(self.calls))
            for name, watcher in watching.WATCHERS.items()
        }
        """What is done about calls that are watched: the kernel answers them, whatever comes of that."""
        self.stopper, self.stopped = os.pipe()
        self.poll.register(self.stopper, select.EPOLLIN)

    def run(self) -> None:
        seccomp.wake_here(self.listener)
        while True:
            for handle, events in self.poll.poll(maxevents=16):
                if handle == self.stopper:
                    return
                if handle in self.followed.pids:
                    self.followed.gone(handle)
                elif events & select.EPOLLIN:
                    self._one()
                else:  # nobody is left to make any
                    self.poll.unregister(self.listener)

    def stop(self) -> None:
        """Answer no more, and let the machine forget the processes: those that live on are on their own."""
        os.write(self.stopped, b"x")
        self.join()
        for pidfd in list(self.followed.pids):
            self.followed.gone(pidfd)

    def _one(self) -> None:
        call = seccomp.receive(self.listener)
        if call is None:
            return
        self.call = call.id
        result: int | seccomp.Handed | None = None
        try:
            if call.number in self.watchers:
                self.watchers[call.number](call.tid, *call.args)
            else:
                self.followed.process(call.tid)
                result = self.handlers[call.number](call.tid, *call.args)
        except OSError as error:
            result = None if call.number in self.watchers else -(error.errno or errno.EIO)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            result = None if call.number in self.watchers else -errno.EIO
        if isinstance(result, seccomp.Handed):
            result = seccomp.hand(self.listener, call, result)
        seccomp.answer(self.listener, call, result)

    def _waits(self) -> bool:
        # whether the thread whose call is being answered waits: if not, its number may be another's by now
        return seccomp.is_waiting(self.listener, self.call)
