"""The supervisor of a run: reads the calls that the filter sends, has them answered, and follows the processes.

A process is known from its first call that is seen: the exec of a program, or the one by which libc begins in a
new process or thread. From then on its `OVER` files below /proc are the machine's. It is looked at once more when
it ends, so that what it allocated counts.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import Thread

from tdxfs import tasks
from tdxfs.sandbox import linux, seccomp
from tdxfs.sandbox.calls import Calls, Handler
from tdxfs.sandbox.descriptors import Descriptors
from tdxfs.sandbox.kernel import Kernel
from tdxfs.sandbox.memory import Processes

EXEC, BEGIN, END = "execve", "set_robust_list", "exit_group"
OVER = ("status", "stat", "numa_maps")
"""Files of every process that are the machine's."""


class Supervisor(Thread):
    """Answers the calls in `answered` that come from `listener` until it is told to stop."""

    def __init__(self, listener: int, root: int, proc: int, answered: Collection[str]) -> None:
        super().__init__(daemon=True)
        self.listener = listener
        self.root = root
        self.call = 0
        """The id of the call that is being answered."""
        self.calls = Calls(Kernel(root), Processes(proc, self._waits))
        self.handlers: dict[int, Handler] = {seccomp.number(name): getattr(self.calls, name) for name in answered}
        self.handlers[seccomp.number("ioctl")] = Descriptors(self.calls).ioctl
        self.watchers: dict[int, Callable[..., None]] = {
            seccomp.number(EXEC): self._exec,
            seccomp.number(BEGIN): self._begin,
            seccomp.number(END): self._end,
        }
        """What is done about calls that are only watched: the kernel answers them, whatever comes of that."""
        self.processes: dict[int, int] = {}
        """Pid -> its pidfd."""
        self.poll = select.epoll()
        self.poll.register(listener, select.EPOLLIN)
        self.pids: dict[int, int] = {}
        """Pidfd -> its process."""
        self.stopper, self.stopped = os.pipe()
        self.poll.register(self.stopper, select.EPOLLIN)

    def run(self) -> None:
        seccomp.wake_here(self.listener)
        while True:
            for handle, events in self.poll.poll(maxevents=16):
                if handle == self.stopper:
                    return
                if handle in self.pids:
                    self._gone(handle)
                elif events & select.EPOLLIN:
                    self._one()
                else:  # nobody is left to make any
                    self.poll.unregister(self.listener)

    def stop(self) -> None:
        """Answer no more, and let the machine forget the processes: those that live on are on their own."""
        os.write(self.stopped, b"x")
        self.join()
        for pidfd in list(self.pids):
            self._gone(pidfd)

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
                self._process(call.tid)
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

    # --- processes ---------------------------------------------------------------------

    def _exec(self, tid: int, path: int, *_: int) -> None:
        name = os.path.basename(self.calls.processes.string(tid, path))[: tasks.NAME_LENGTH]
        known = self.calls.leaders.get(tid) in self.processes
        pid = self._process(tid, name)
        task = self.calls.tasks.get(pid)
        if known and task is not None and (task.name != name or task.mappings or task.moved):
            self.calls.tell(tasks.executed(pid, 0, name))

    def _begin(self, tid: int, *_: int) -> None:
        self._process(tid)
        self.calls.began(tid)

    def _end(self, tid: int, *_: int) -> None:
        # the last chance to see what it has allocated
        pid = self.calls.leaders.get(tid, 0)
        task = self.calls.tasks.get(pid)
        if task is None or pid not in self.processes:
            return
        if task.mappings or task.moved:
            self.calls.kernel.look()
            self.calls.tell(tasks.exited(pid))
        else:
            self.calls.tell(tasks.exited(pid, self.calls.processes.anonymous(pid)))

    def _process(self, tid: int, program: str = "") -> int:
        """
        The process of a thread. From its first call on it is a task of the machine; that may be the exec of `program`.
        """
        pid = self.calls.leaders.get(tid)
        if pid in self.processes:
            return pid
        try:
            pidfd, pid = os.pidfd_open(tid), tid  # refused for other threads than a process's first
        except OSError:
            pid = self.calls.leader(tid)
            if pid in self.processes:
                return pid
            pidfd = os.pidfd_open(pid)
        name, parent = self.calls.processes.origin(pid)
        self.processes[pid], self.pids[pidfd] = pidfd, pid
        self.poll.register(pidfd, select.EPOLLIN)
        self.calls.leaders[tid] = self.calls.leaders[pid] = pid
        self.calls.tell(tasks.executed(pid, parent, program) if program else tasks.forked(pid, parent, name))
        for file in OVER:
            with suppress(FileNotFoundError):  # --abi kernel, or a kernel without NUMA
                linux.bind(f"/proc/self/fd/{self.root}/proc/{pid}/{file}", f"/proc/{pid}/{file}")
        return pid

    def _gone(self, pidfd: int) -> None:
        pid = self.pids.pop(pidfd)
        del self.processes[pid]
        self.poll.unregister(pidfd)
        os.close(pidfd)
        for tid in [tid for tid, leader in self.calls.leaders.items() if leader == pid]:
            del self.calls.leaders[tid]
        if pid in self.calls.tasks:  # killed; or a thread made a call while another ended it
            with suppress(OSError):  # the server is gone as well
                self.calls.tell(tasks.exited(pid))


def calls_of(answered: Collection[str]) -> tuple[str, ...]:
    """The calls to send to a supervisor that answers these."""
    return (*answered, EXEC, BEGIN, END)
