"""What each supervised system call does: its arguments to the rules of `mempolicy`, its result to the caller."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from functools import cache

from attrs import evolve
from immutables import Map

from tdxfs import mempolicy, tasks, zonelists
from tdxfs.errors import BadAddress, InputOutput, InvalidValue, NoProcess
from tdxfs.guestctl import memfd_bound
from tdxfs.model import PAGE_SIZE, MemPolicy, Mode, Task
from tdxfs.ranges import Range, align_up
from tdxfs.sandbox.kernel import Kernel
from tdxfs.sandbox.memory import Processes
from tdxfs.sandbox.seccomp import Handed

INT = 1 << 32
Handler = Callable[..., "int | Handed | None"]


def signed(value: int) -> int:
    """An int argument, which stands in the low half of a register."""
    value %= INT
    return value - INT if value >= INT // 2 else value


class Calls:
    """The calls of the processes of one run. A handler returns what the call returns, or raises its Refusal."""

    def __init__(self, kernel: Kernel, processes: Processes) -> None:
        self.kernel = kernel
        self.processes = processes
        self.tasks: Map[int, Task] = Map()
        self.leaders: dict[int, int] = {}
        """Thread -> its process."""
        self.threads: dict[int, set[int]] = {}
        """Process -> its threads that are known, without the first."""
        self.told: set[int] = set()
        """Threads that the machine knows as tasks of their own."""
        self.memfds: dict[str, str] = {}
        """File, as `Mapped.file` names it -> the guest whose guest_memfd it is."""

    # --- what is known of the callers ------------------------------------------------

    def tell(self, line: str) -> None:
        """Change a task, here and in the machine; OSError if the machine refuses."""
        self.kernel.tell(line)
        self.tasks = tasks.change(self.tasks, line)

    def leader(self, tid: int) -> int:
        """The process of a thread; NoProcess."""
        if tid not in self.leaders:
            pid = self.processes.leader(tid)
            if not self.processes.waits():
                raise NoProcess(str(tid))
            self.leaders[tid] = pid
        return self.leaders[tid]

    def task(self, tid: int) -> Task:
        """A thread as the machine has it."""
        return tasks.thread(self.tasks, tid, self.leader(tid))

    def different(self, pid: int) -> list[int]:
        """The threads that have another policy or other CPUs than their process."""
        return [tid for tid in self.threads.get(pid, ()) if not tasks.alike(self.tasks, tid, pid)]

    def began(self, tid: int, maker: Task) -> None:
        """
        A thread began: it has what its maker had. The machine is told as soon as that is something else than what its
        process has.
        """
        pid = self.leader(tid)
        self.threads.setdefault(pid, set()).add(tid)
        line = tasks.thread_began(tid, pid, maker)
        self.tasks = tasks.change(self.tasks, line)
        if not tasks.alike(self.tasks, tid, pid):
            self.kernel.tell(line)
            self.told.add(tid)

    def ended(self, tid: int) -> None:
        """A thread ended."""
        for threads in self.threads.values():
            threads.discard(tid)
        line = tasks.exited(tid)
        self.tasks = tasks.change(self.tasks, line)
        if tid in self.told:
            self.told.discard(tid)
            self.kernel.tell(line)

    def alone(self, pid: int) -> None:
        """A process has no other threads any more: it runs another program, or is gone."""
        self.told -= self.threads.pop(pid, set())

    def _changes(self, tid: int, pid: int, line: str) -> None:
        # of one thread; those that began with what the first one has now keep that
        if tid == pid:
            for other in self.threads.get(pid, set()) - self.told:
                self.kernel.tell(tasks.thread_began(other, pid, self.task(other)))
                self.told.add(other)
        else:
            self.threads.setdefault(pid, set()).add(tid)
            self.told.add(tid)
        self.tell(line)

    def allowed(self, tid: int) -> frozenset[int]:
        """The nodes with memory that a thread may use."""
        limit = self.task(tid).mems_allowed
        memory = self.kernel.memory
        return memory if limit is None else memory & limit

    def nodes(self, tid: int, pointer: int, maxnode: int) -> frozenset[int]:
        """The nodes of a mask in a thread's memory."""
        size = mempolicy.mask_size(maxnode, pointer == 0)
        return mempolicy.decode_mask(maxnode, self.processes.read(tid, pointer, size))

    def places(self, task: Task) -> Callable[[int], int]:
        """Address -> the node of the page there, for a process as it is now."""
        cpus = (self.kernel.cpus if task.cpus is None else task.cpus & self.kernel.cpus) or {0}
        local = self.kernel.node_of_cpu(min(cpus))
        lists, memory, weight = self.kernel.zonelists(), self.kernel.memory, self.kernel.weight

        @cache
        def turns(policy: MemPolicy) -> tuple[zonelists.Turn, ...]:
            return zonelists.take_turns(lists, memory, policy, local, weight)

        def place(address: int) -> int:
            moved = task.moved.get(address)
            if moved is not None:
                return moved
            mine = turns(mempolicy.policy_at(task, address))
            number, _ = zonelists.position([turn.weight for turn in mine], address // PAGE_SIZE)
            return mine[number].nodes[0]

        return place

    # --- NUMA policy -------------------------------------------------------------------

    def set_mempolicy(self, tid: int, mode: int, mask: int, maxnode: int, *_: int) -> int:
        mempolicy.sanitize(self.kernel, mode)
        policy = mempolicy.make(self.kernel, self.allowed(tid), mode, self.nodes(tid, mask, maxnode))
        if policy != self.task(tid).policy:
            self._changes(tid, self.leader(tid), tasks.policy_set(tid, self.leader(tid), policy))
        return 0

    def mbind(self, tid: int, start: int, length: int, mode: int, mask: int, maxnode: int, flags: int) -> int:
        mempolicy.sanitize(self.kernel, mode)
        asked = self.nodes(tid, mask, maxnode)
        privileged = not flags & mempolicy.MF_MOVE_ALL or self.processes.is_privileged(tid)
        where, flags = mempolicy.check_mbind(start, length, mode, flags, privileged=privileged)
        if where is None:
            return 0
        policy = mempolicy.make(self.kernel, self.allowed(tid), mode, asked)
        pid = self.leader(tid)
        mapped = self.processes.mappings(pid)
        if policy.mode is not Mode.DEFAULT and not mapped.covers(where):
            raise BadAddress(str(where))
        if not any(mapped.within(where)):
            raise BadAddress(str(where))
        if flags & mempolicy.MF_STRICT and not flags & (mempolicy.MF_MOVE | mempolicy.MF_MOVE_ALL):
            self._refuse_misplaced(pid, where, policy)
        self._bind_memfds(pid, where, policy)
        self.tell(tasks.mapping_set(pid, where, policy))
        return 0

    def _bind_memfds(self, pid: int, where: Range, policy: MemPolicy) -> None:
        # the policy of a guest_memfd is the file's, whoever maps it
        for one in self.processes.maps(pid) if self.memfds else ():
            start, end = max(one.range.start, where.start), min(one.range.end, where.end)
            if start < end and one.file in self.memfds:
                offset = one.offset + start - one.range.start
                part = Range(offset, offset + end - start)
                try:
                    self.kernel.tell_guest(memfd_bound(self.memfds[one.file], one.file, part, policy))
                except FileNotFoundError:  # the guest is gone
                    del self.memfds[one.file]

    def _refuse_misplaced(self, pid: int, where: Range, policy: MemPolicy) -> None:
        place = self.places(self.task(pid))
        for address in self.processes.resident(pid, where):
            if place(address) not in policy.nodes:
                raise InputOutput(f"a page at {address:#x} is elsewhere")

    def get_mempolicy(self, tid: int, mode: int, mask: int, maxnode: int, address: int, flags: int, *_: int) -> int:
        mempolicy.check_get(flags, address, maxnode, self.kernel.nr_node_ids, mask=mask != 0)
        task = self.task(tid)
        policy, word = task.policy, 0
        if flags & mempolicy.F_MEMS_ALLOWED:
            shown = self.allowed(tid)
        else:
            if flags & mempolicy.F_ADDR:
                policy = self._policy_at(tid, address)
            if not flags & mempolicy.F_NODE:
                word = mempolicy.mode_word(policy)
            elif flags & mempolicy.F_ADDR:
                self.processes.read(tid, address, 1)
                word = self.places(self._mapped(tid))(address)
            else:
                word = mempolicy.next_node(policy)
            shown = mempolicy.shown_nodes(policy)
        if mode:
            self.processes.write(tid, mode, struct.pack("=i", word))
        if mask:
            self.processes.write(tid, mask, mempolicy.encode_mask(maxnode, shown, self.kernel.nr_node_ids))
        return 0

    def _policy_at(self, tid: int, address: int) -> MemPolicy:
        # the mapping's own or none: what the task's is does not matter here
        pid = self.leader(tid)
        if address not in self.processes.mappings(pid):
            raise BadAddress(hex(address))
        return self.task(pid).mappings.get(address) or mempolicy.DEFAULT

    def _mapped(self, tid: int) -> Task:
        # a thread with the mappings, which are its process's
        leader = self.task(self.leader(tid))
        return evolve(self.task(tid), mappings=leader.mappings, moved=leader.moved)

    def set_mempolicy_home_node(self, tid: int, start: int, length: int, home: int, flags: int, *_: int) -> int:
        where = mempolicy.page_range(start, length)
        mempolicy.set_home(self.kernel, (MemPolicy(Mode.BIND),), home, flags)  # what does not depend on the range
        if where is None:
            return 0
        pid = self.leader(tid)
        runs = list(self.task(pid).mappings.within(where.start, where.end))
        changed = mempolicy.set_home(self.kernel, [run[2] for run in runs], home, flags)
        for (low, high, _old), policy in zip(runs, changed, strict=True):
            self._bind_memfds(pid, Range(low, high), policy or mempolicy.DEFAULT)
            self.tell(tasks.mapping_set(pid, Range(low, high), policy or mempolicy.DEFAULT))
        return 0

    # --- moving pages ------------------------------------------------------------------

    def _target(self, tid: int, pid: int) -> int:
        if signed(pid) == 0:
            return self.leader(tid)
        if signed(pid) < 0:
            raise NoProcess(str(signed(pid)))
        return self.leader(signed(pid))

    def migrate_pages(self, tid: int, pid: int, maxnode: int, old: int, new: int, *_: int) -> int:
        away, to = self.nodes(tid, old, maxnode), self.nodes(tid, new, maxnode)
        target = self._target(tid, pid)
        mempolicy.check_migrate(self.allowed(target), to, privileged=self.processes.is_privileged(tid))
        to &= self.allowed(target)
        place = self.places(self.task(target))
        turns = dict(zip(sorted(away), sorted(to) * (len(away) // len(to) + 1), strict=False))
        for part in self.processes.mappings(target):
            node = place(part.start)
            if turns.get(node, node) != node:
                self.tell(tasks.pages_moved(target, part, turns[node]))
        return 0

    def move_pages(self, tid: int, pid: int, count: int, pages: int, nodes: int, status: int, flags: int) -> int:
        if flags & ~(mempolicy.MF_MOVE | mempolicy.MF_MOVE_ALL):
            raise InvalidValue("unknown flags")
        mempolicy.check_mbind(0, 0, 1, flags, privileged=self.processes.is_privileged(tid))
        target = self._target(tid, pid)
        allowed, mapped = self.allowed(target), self.processes.mappings(target)
        addresses = struct.unpack(f"={count}Q", self.processes.read(tid, pages, 8 * count))
        wanted = struct.unpack(f"={count}i", self.processes.read(tid, nodes, 4 * count)) if nodes else None
        place = self.places(self.task(target))
        for index, address in enumerate(addresses):
            where = None if wanted is None else wanted[index]
            if where is not None:
                mempolicy.check_move(self.kernel, allowed, where)
            found = self._move(target, address, where, address in mapped, place)
            self.processes.write(tid, status + 4 * index, struct.pack("=i", found))
        return 0

    def _move(self, pid: int, address: int, node: int | None, mapped: bool, place: Callable[[int], int]) -> int:
        if not mapped:
            return -errno.EFAULT
        if not any(self.processes.resident(pid, Range(address, address + 1))):
            return -errno.ENOENT
        if node is None or node == place(address):
            return place(address)
        start = address // PAGE_SIZE * PAGE_SIZE
        self.tell(tasks.pages_moved(pid, Range(start, start + PAGE_SIZE), node))
        return node

    # --- CPUs --------------------------------------------------------------------------

    def _thread(self, tid: int, pid: int) -> int:
        if signed(pid) < 0:
            raise InvalidValue("a negative pid") if signed(pid) != -1 else NoProcess("-1")
        return signed(pid) or tid

    def sched_getaffinity(self, tid: int, pid: int, size: int, mask: int, *_: int) -> int:
        size %= INT
        if size * 8 < self.kernel.nr_cpu_ids or size % 8:
            raise InvalidValue("the mask is too short for the possible CPUs")
        cpus = self.task(self._thread(tid, pid)).cpus
        online = self.kernel.cpus
        value = sum(1 << cpu for cpu in (online if cpus is None else cpus & online))
        length = min(size, align_up(self.kernel.nr_cpu_ids, 64) // 8)
        self.processes.write(tid, mask, value.to_bytes(length, "little"))
        return length

    def sched_setaffinity(self, tid: int, pid: int, size: int, mask: int, *_: int) -> int:
        target = self._thread(tid, pid)
        length = min(size % INT, align_up(self.kernel.nr_cpu_ids, 64) // 8)
        asked = self.processes.read(tid, mask, length)
        cpus = mempolicy.affinity(asked, self.kernel.cpus_possible if self.kernel.listens else self.kernel.cpus)
        pid = self.leader(target)
        self._changes(target, pid, tasks.affinity_set(target, pid, cpus))
        return 0


NUMA = ("set_mempolicy", "mbind", "get_mempolicy", "migrate_pages", "move_pages", "set_mempolicy_home_node")
CPU = ("sched_getaffinity", "sched_setaffinity")
"""The calls that are answered, by what they are about."""
