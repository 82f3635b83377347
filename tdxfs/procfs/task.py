"""``/proc/PID``: what the running system says of a process, with the emulated nodes and CPUs; compare fs/proc."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from functools import cache

from tdxfs import counters, nodes
from tdxfs.idlist import format_list
from tdxfs.mempolicy import INTERLEAVING, MAX_NUMNODES, format_policy, mems_allowed, policy_at
from tdxfs.model import PAGE_SIZE, Machine, Task
from tdxfs.sysfs.attribute import Directory, edited
from tdxfs.sysfs.codec import MASK, Mask
from tdxfs.sysfs.cpu_topology import mask_width
from tdxfs.tasks import Held
from tdxfs.zonelists import local_node, place

_LINE = re.compile(
    r"(?P<start>[0-9a-f]+) (?:prefer \(many\)|weighted interleave|[a-z]+)(?:=\S*)?(?::\S*)?(?P<rest>(?: .*)?)"
)
_PROCESSOR = 37
"""Which word of stat, counted from the name of the program, says on which CPU the process was last."""
_PAGES = ("anon", "dirty", "mapped", "active")


def status(machine: Machine, task: Task, real: str) -> str:
    """``/proc/PID/status`` with the CPUs and nodes that the task may use on the machine."""
    cpus = machine.cpus_online if task.cpus is None else task.cpus
    mems = mems_allowed(machine, task)
    changed = {
        "Cpus_allowed": MASK.emit(Mask(cpus, mask_width(machine))),
        "Cpus_allowed_list": format_list(cpus),
        "Mems_allowed": MASK.emit(Mask(mems, MAX_NUMNODES)),
        "Mems_allowed_list": format_list(mems),
    }
    lines = []
    for line in real.splitlines():
        key = line.partition(":")[0]
        lines.append(f"{key}:\t{changed[key]}" if key in changed else line)
    return "\n".join(lines) + "\n"


def stat(machine: Machine, task: Task, real: str) -> str:
    """``/proc/PID/stat`` with a CPU of the machine that the task may run on: the real one, or the first."""
    cpus = machine.cpus_online if task.cpus is None else task.cpus
    head, bracket, tail = real.rpartition(")")
    words = tail.split(" ")
    if cpus and int(words[_PROCESSOR]) not in cpus:
        words[_PROCESSOR] = str(min(cpus & machine.cpus_online, default=min(cpus)))
    return head + bracket + " ".join(words)


def numa_maps(machine: Machine, task: Task, real: str, maps: str) -> str:
    """
    ``/proc/PID/numa_maps`` with the policies of the machine and its nodes. A mapping that has several policies here
    and is one to the running system is shown as several, its pages counted to the first ones.
    """
    free = free_pages(machine, task)
    lines = []
    for start, policy, rest, pages in _mappings(machine, task, real, maps):
        counts = " ".join(f"N{nid}={n}" for nid, n in sorted(_nodes(machine, task, start, pages, free).items()))
        words = [f"{start:08x}", policy, *rest]
        if counts:
            words.insert(-1, counts)
        lines.append(" ".join(words))
    return "".join(f"{line}\n" for line in lines)


def anonymous(statm: str) -> int:
    """Pages of anonymous memory that a process holds, by ``/proc/PID/statm``."""
    _, resident, shared, *_ = map(int, statm.split())
    return resident - shared


def held(machine: Machine, task: Task, anonymous: int, read: Callable[[str], str]) -> Held:
    """
    What a process holds of anonymous memory, `anonymous` pages in all: if they are as many as at the last look, they
    are where they were. Where mappings have their own policies or pages were moved, `read` gives ``maps`` and
    ``numa_maps`` of the running system, mapping by mapping.
    """
    if not task.mappings and not task.moved:
        if sum(task.resident.values()) == anonymous and nodes.has_memory(machine) >= task.resident.keys():
            return Held(task.resident, task.interleaved)
        return held_by_policy(machine, task, anonymous)
    free = free_pages(machine, task)
    pages: dict[int, int] = {}
    interleaved: dict[int, int] = {}
    for start, _, rest, count in _mappings(machine, task, read("numa_maps"), read("maps")):
        if not any(word.startswith("anon=") for word in rest):
            continue
        size = next((int(word[18:]) for word in rest if word.startswith("kernelpagesize_kB=")), 4)
        found = _nodes(machine, task, start, count * (size * 1024 // PAGE_SIZE), free)
        for counted in (pages, interleaved) if policy_at(task, start).mode in INTERLEAVING else (pages,):
            for nid, here in found.items():
                counted[nid] = counted.get(nid, 0) + here
    return Held(pages, interleaved)


def held_by_policy(machine: Machine, task: Task, anonymous: int) -> Held:
    """The same of a process whose pages are all where its own policy puts them."""
    free = free_pages(machine, task)
    pages = place(machine, task, task.policy, local_node(machine, task), 0, anonymous, free)
    return Held(pages, pages if task.policy.mode in INTERLEAVING else {})


def free_pages(machine: Machine, task: Task) -> Callable[[int], int]:
    """The function from a node to its pages that are free or the task's own."""

    @cache
    def free(nid: int) -> int:
        kib = counters.free_kib(machine, nid)
        return kib * 1024 // PAGE_SIZE - counters.held_pages(machine, nid) + task.resident.get(nid, 0)

    return free


def _nodes(machine: Machine, task: Task, start: int, pages: int, free: Callable[[int], int]) -> dict[int, int]:
    if not pages:
        return {}
    moved = task.moved.get(start)
    if moved is not None:
        return {moved: pages}
    policy = policy_at(task, start)
    return place(machine, task, policy, local_node(machine, task), start // PAGE_SIZE, pages, free)


def _mappings(machine: Machine, task: Task, real: str, maps: str) -> Iterator[tuple[int, str, list[str], int]]:
    # start, policy, what follows it, pages: one per mapping and policy in it
    ends = {int(at, 16): int(end, 16) for at, end in (line.split()[0].split("-") for line in maps.splitlines())}
    for line in real.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        start, rest = int(match["start"], 16), match["rest"].split(" ")[1:]
        pages = sum(int(word.partition("=")[2]) for word in rest if re.match(r"N\d+=", word))
        rest = [word for word in rest if not re.match(r"N\d+=", word)]
        parts = _parts(task, start, ends.get(start, start + PAGE_SIZE))
        for at, end in parts:
            here = min(pages, (end - at) // PAGE_SIZE) if end != parts[-1][1] else pages
            pages -= here
            mine = rest if len(parts) == 1 else [*_counted(rest, here)]
            yield at, format_policy(policy_at(task, at)), mine, here


def _parts(task: Task, start: int, end: int) -> list[tuple[int, int]]:
    cuts = {start, end}
    for runs in (task.mappings, task.moved):
        for low, high, _ in runs.within(start, end):
            cuts |= {low, high}
    edges = sorted(cuts)
    return list(itertools.pairwise(edges))


def _counted(rest: list[str], pages: int) -> Iterator[str]:
    for word in rest:
        key, equals, _ = word.partition("=")
        if not equals or key not in _PAGES:
            yield word
        elif pages:
            yield f"{key}={pages}"


class PidDir(Directory[int]):
    """A process that runs on the machine."""

    WHAT = "/proc/<pid>"
    OF_TASKS = True

    @property
    def task(self) -> Task:
        return self.machine.tasks.get(self.key, Task(self.key))

    @edited("/proc/{}/status")
    def status(self, real: str) -> str:
        """The running system's, with the CPUs and nodes that the process may use."""
        return status(self.machine, self.task, real)

    @edited("/proc/{}/stat")
    def stat(self, real: str) -> str:
        """The running system's, with a CPU of the machine."""
        return stat(self.machine, self.task, real)

    @edited("/proc/{}/numa_maps", "/proc/{}/maps")
    def numa_maps(self, real: str, maps: str) -> str:
        """The running system's, with the policies of the machine and pages on its nodes."""
        return numa_maps(self.machine, self.task, real, maps)
