"""The tasks of a machine: how they come, inherit, change and go, one line of text per change.

`tdxfs run` answers the calls of its processes and tells the machine with these lines, through ``task_control/change``
below ``sys/kernel/debug/tdxfs``; it keeps its own tasks by the same function. Pids are those of processes, tids
those of threads, the first thread's being its process's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from attrs import Factory, evolve, frozen
from immutables import Map

from tdxfs.errors import InvalidValue
from tdxfs.idlist import format_list, parse_list
from tdxfs.mempolicy import format_policy, parse_policy
from tdxfs.model import Machine, MemPolicy, Mode, Task, changed
from tdxfs.ranges import Range, RunMap
from tdxfs.zonelists import local_node

Tasks = Map[int, Task]
NAME_LENGTH = 15
"""Bytes: TASK_COMM_LEN - 1."""


def program_name(path: str) -> str:
    """The name of a task that runs the program at a path (``begin_new_exec``)."""
    last = path.rpartition("/")[2].encode("utf-8", "surrogateescape")
    return last[:NAME_LENGTH].decode("utf-8", "surrogateescape")


# --- the lines ------------------------------------------------------------------------


def forked(pid: int, parent: int, name: str) -> str:
    """A process came; it inherits everything of `parent`, if that is known."""
    return f"fork {pid} {parent} {name}"


def executed(pid: int, parent: int, name: str) -> str:
    """A process, new or known, runs another program: it keeps its policy and loses its memory and threads."""
    return f"exec {pid} {parent} {name}"


def thread_began(tid: int, pid: int, maker: Task) -> str:
    """A thread of a process came; it has what its maker had, another thread of it."""
    cpus = "-" if maker.cpus is None else format_list(maker.cpus)
    return f"thread {tid} {pid} {cpus} {format_whole(maker.policy)}"


def exited(pid: int, anonymous: int | None = None) -> str:
    """A process is gone, its threads too, or a thread is; at its end it held so many pages of anonymous memory."""
    return f"exit {pid}" if anonymous is None else f"exit {pid} {anonymous}"


def policy_set(tid: int, pid: int, policy: MemPolicy) -> str:
    """A thread has a policy."""
    return f"policy {tid} {pid} {format_whole(policy)}"


def mapping_set(pid: int, where: Range, policy: MemPolicy) -> str:
    """A range of a process's addresses has a policy of its own, or none if it is the default one."""
    return f"mapping {pid} {where.start} {where.end} {format_whole(policy)}"


def pages_moved(pid: int, where: Range, node: int) -> str:
    """The pages of a range of a process's addresses were moved to a node."""
    return f"move {pid} {where.start} {where.end} {node}"


def affinity_set(tid: int, pid: int, cpus: Iterable[int]) -> str:
    """A thread may run on these CPUs."""
    return f"cpus {tid} {pid} {format_list(cpus)}"


def format_whole(policy: MemPolicy) -> str:
    """A policy with the nodes that were asked for and its home node."""
    home = "-" if policy.home is None else policy.home
    return f"{format_list(policy.asked) or '-'} {home} {format_policy(policy)}"


def parse_whole(text: str) -> MemPolicy:
    """The inverse of `format_whole`; ValueError."""
    return _parse(text.split(" "))


def _parse(words: list[str]) -> MemPolicy:
    asked, home, *text = words
    policy = parse_policy(" ".join(text))
    wanted = frozenset() if asked == "-" else parse_list(asked)
    return evolve(policy, asked=wanted, home=None if home == "-" else int(home))


# --- what they do ---------------------------------------------------------------------


def change(tasks: Tasks, line: str) -> Tasks:
    """The tasks after a line; InvalidValue if it is none."""
    kind, *words = line.split(" ")
    try:
        return _CHANGES[kind](tasks, words)
    except (KeyError, ValueError) as error:
        raise InvalidValue(f"{line!r} is not a change of a task") from error


def _fork(tasks: Tasks, words: list[str]) -> Tasks:
    pid, parent, name = int(words[0]), int(words[1]), " ".join(words[2:])
    task = tasks.get(parent, Task(parent))
    leader = tasks.get(task.leader, task)
    child = evolve(task, pid=pid, name=name, leader=0, mappings=leader.mappings, moved=leader.moved)
    child = evolve(child, resident={}, interleaved={})
    return tasks.set(pid, child)


def _exec(tasks: Tasks, words: list[str]) -> Tasks:
    pid, name = int(words[0]), " ".join(words[2:])
    if pid not in tasks:
        tasks = _fork(tasks, words)
    for tid in [tid for tid, task in tasks.items() if task.leader == pid]:
        tasks = tasks.delete(tid)
    return tasks.set(pid, evolve(tasks[pid], name=name, mappings=RunMap(), moved=RunMap(), resident={}, interleaved={}))


def _thread(tasks: Tasks, words: list[str]) -> Tasks:
    tid, pid, cpus = int(words[0]), int(words[1]), words[2]
    name = tasks.get(pid, Task(pid)).name
    return tasks.set(tid, Task(tid, name, pid, _parse(words[3:]), cpus=None if cpus == "-" else parse_list(cpus)))


def _exit(tasks: Tasks, words: list[str]) -> Tasks:
    pid, *_ = map(int, words)
    for tid in [tid for tid, task in tasks.items() if pid in (tid, task.leader)]:
        tasks = tasks.delete(tid)
    return tasks


def _set_policy(tasks: Tasks, words: list[str]) -> Tasks:
    tid, pid = int(words[0]), int(words[1])
    return tasks.set(tid, evolve(thread(tasks, tid, pid), policy=_parse(words[2:])))


def _set_cpus(tasks: Tasks, words: list[str]) -> Tasks:
    tid, pid, cpus = int(words[0]), int(words[1]), words[2]
    return tasks.set(tid, evolve(thread(tasks, tid, pid), cpus=parse_list(cpus)))


def _set_mapping(tasks: Tasks, words: list[str]) -> Tasks:
    pid, start, end, policy = int(words[0]), int(words[1]), int(words[2]), _parse(words[3:])
    task = tasks.get(pid, Task(pid))
    if policy.mode is Mode.DEFAULT:
        mappings = task.mappings.remove(start, end)
    else:
        mappings = task.mappings.assign(start, end, policy)
    return tasks.set(pid, evolve(task, mappings=mappings, moved=task.moved.remove(start, end)))


def _move(tasks: Tasks, words: list[str]) -> Tasks:
    pid, start, end, node = map(int, words)
    task = tasks.get(pid, Task(pid))
    return tasks.set(pid, evolve(task, moved=task.moved.assign(start, end, node)))


_CHANGES = {
    "fork": _fork,
    "exec": _exec,
    "thread": _thread,
    "exit": _exit,
    "policy": _set_policy,
    "cpus": _set_cpus,
    "mapping": _set_mapping,
    "move": _move,
}


def thread(tasks: Tasks, tid: int, pid: int) -> Task:
    """What is known of a thread: its own, or what it has from its process."""
    known = tasks.get(tid)
    if known is not None:
        return known
    leader = tasks.get(pid, Task(pid))
    return leader if tid == pid else Task(tid, leader.name, pid, leader.policy, cpus=leader.cpus)


def alike(tasks: Tasks, tid: int, pid: int) -> bool:
    """Whether a thread has the policy and the CPUs that its process has."""
    one, other = thread(tasks, tid, pid), thread(tasks, pid, pid)
    return (one.policy, one.cpus) == (other.policy, other.cpus)


class Processes(Collection[int]):
    """The pids of a machine's processes: those it knows are listed, and every other number may be one, too."""

    def __init__(self, machine: Machine) -> None:
        self.known = [pid for pid, task in machine.tasks.items() if not task.leader]

    def __contains__(self, pid: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


def ending(line: str) -> tuple[int, int] | None:
    """The process that a line says is gone, and the pages that it says it held."""
    kind, *words = line.split(" ")
    return (int(words[0]), int(words[1])) if kind == "exit" and len(words) == 2 else None


def tell(machine: Machine, line: str) -> Machine:
    """
    The machine after a change of its tasks; InvalidValue if the line is none, or leaves a task no CPU that is online.
    """
    tasks = change(machine.tasks, line)
    if line.startswith("cpus "):
        cpus = tasks[int(line.split(" ")[1])].cpus
        if cpus is not None and cpus.isdisjoint(machine.cpus_online):
            raise InvalidValue("no CPU of the mask is online")
    return changed(machine, tasks=tasks)


# --- the memory that they hold --------------------------------------------------------


@frozen
class Held:
    """The anonymous memory of a process: node -> pages."""

    pages: Mapping[int, int] = Factory(dict)
    interleaved: Mapping[int, int] = Factory(dict)
    """Those of them that an interleaving policy put there."""


def account(machine: Machine, held: Mapping[int, Held]) -> Machine:
    """
    The machine after a look at what each process holds. What is more than at the last look was allocated in
    between: numastat counts it (``zone_statistics``).
    """
    tasks, allocated = machine.tasks, machine.allocated
    for pid, now in held.items():
        task = tasks.get(pid)
        if task is None or (task.resident, task.interleaved) == (now.pages, now.interleaved):
            continue
        local = local_node(machine, task)
        for nid, pages in now.pages.items():
            allocated = _add(allocated, (nid, "numa_hit"), pages - task.resident.get(nid, 0))
            where = "local_node" if nid == local else "other_node"
            allocated = _add(allocated, (nid, where), pages - task.resident.get(nid, 0))
        for nid, pages in now.interleaved.items():
            allocated = _add(allocated, (nid, "interleave_hit"), pages - task.interleaved.get(nid, 0))
        tasks = tasks.set(pid, evolve(task, resident=now.pages, interleaved=now.interleaved))
    if tasks is machine.tasks:
        return machine
    return changed(machine, tasks=tasks, allocated=allocated)


def _add(allocated: Map[tuple[int, str], int], key: tuple[int, str], pages: int) -> Map[tuple[int, str], int]:
    return allocated.set(key, allocated.get(key, 0) + pages) if pages > 0 else allocated
