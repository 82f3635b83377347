"""``/sys/kernel/debug/tdxfs/tasks``: the processes that run on the machine, and their memory policies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tdxfs.mempolicy import format_policy, mems_allowed
from tdxfs.model import Machine, Task
from tdxfs.procfs.task import held_by_policy
from tdxfs.sysfs.attribute import Directory, Tier, directories, ro, wo
from tdxfs.sysfs.codec import DECIMAL, LINE, LIST, STAT, TEXT
from tdxfs.tasks import account, ending, tell
from tdxfs.zonelists import reachable


class TaskDir(Directory[int]):
    """A process, or a thread that has a policy of its own."""

    WHAT = "/sys/kernel/debug/tdxfs/tasks/<pid>"
    TIER = Tier.EMULATOR
    OF_TASKS = True

    @property
    def task(self) -> Task:
        return self.machine.tasks[self.key]

    @ro(LINE)
    def name(self) -> str:
        """Name of the program."""
        return self.task.name

    @ro(DECIMAL)
    def leader(self) -> int:
        """The process that a thread belongs to. Absent for processes."""
        return self.task.leader

    @leader.visible
    def _is_thread(self) -> bool:
        return self.task.leader != 0

    @ro(LINE)
    def policy(self) -> str:
        """Memory policy as numa_maps writes it: bind:0-1."""
        return format_policy(self.task.policy)

    @ro(TEXT, size=0)
    def mappings(self) -> str:
        """One line per range of addresses with a policy of its own: first, end (exclusive), policy."""
        runs = self.task.mappings.runs()
        return "".join(f"{start:x}-{end:x} {format_policy(policy)}\n" for start, end, policy in runs)

    @ro(LIST)
    def mems_allowed(self) -> frozenset[int]:
        """Nodes with memory that it may allocate from."""
        return mems_allowed(self.machine, self.task)

    @ro(LIST)
    def reachable(self) -> frozenset[int]:
        """Nodes that its pages can come from under its policy, mappings with their own aside."""
        return reachable(self.machine, self.task, self.task.policy)

    @ro(LIST)
    def cpus_allowed(self) -> frozenset[int]:
        """CPUs that it may run on."""
        return self.machine.cpus_online if self.task.cpus is None else self.task.cpus

    @ro(STAT, sampled=True)
    def resident(self) -> Mapping[str, int]:
        """Pages of anonymous memory that it holds, by node."""
        return {f"N{nid}": pages for nid, pages in sorted(self.task.resident.items())}


class TasksDir(Directory[Any]):
    """The tasks of the machine: those of `tdxfs run`."""

    WHAT = "/sys/kernel/debug/tdxfs/tasks"
    TIER = Tier.EMULATOR
    OF_TASKS = True

    @directories("<pid>", TaskDir)
    def all(self) -> Collection[int]:
        """One per task."""
        return self.machine.tasks


class TaskControlDir(Directory[Any]):
    """
    Where `tdxfs run` tells of its tasks. Not in their own directory, in which every name is a task.
    """

    WHAT = "/sys/kernel/debug/tdxfs/task_control"
    TIER = Tier.EMULATOR

    change = wo(LINE, "One line per write: how a task changes.")

    @change.store
    def _tell(self, line: str) -> Machine:
        told = tell(self.machine, line)
        end = ending(line)
        if end is None or end[0] not in self.machine.tasks:
            return told
        pid, anonymous = end
        holds = held_by_policy(self.machine, self.machine.tasks[pid], anonymous)
        return tell(account(self.machine, {pid: holds}), line)


DIRECTORIES = (TasksDir, TaskControlDir)
