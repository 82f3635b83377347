"""What can be done about a conflict, as a command to type and as a change of the model.

Each change is what the command does on the emulated machine; the property that keeps remedies
honest is in tests/test_conflicts.py: applied, a remedy removes its conflict and causes none worse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import evolve, frozen

from tdxfs import transitions
from tdxfs.boot import boot
from tdxfs.idlist import format_list
from tdxfs.model import Machine, MemPolicy, Mode
from tdxfs.policy import Axis, Policies
from tdxfs.ranges import Ranges, RunMap


@frozen
class Remedy:
    """A command and what it does, or why there is none."""

    command: str = ""
    """What to type; empty: there is nothing to type."""
    why_none: str = ""
    action: Callable[[Machine], Machine] | None = None

    def __str__(self) -> str:
        return self.command or f"none: {self.why_none}"


def none(why: str) -> Remedy:
    """No command helps, and why."""
    return Remedy(why_none=why)


@frozen
class OfflineBlocks:
    """Take runs of memory blocks offline: ranges of block ids."""

    runs: Ranges

    def __call__(self, machine: Machine) -> Machine:
        for run in self.runs:
            for number in range(run.start, run.end):
                machine = transitions.offline_block(machine, number)
        return machine


def offline(runs: Ranges) -> Remedy:
    """Take the blocks offline with chmem; its manual's ``--blocks`` is unknown to util-linux 2.38, ``-b`` is not."""
    commands = (f"chmem -d -b {run.start}-{run.end - 1}" for run in runs)
    return Remedy(" && ".join(commands), action=OfflineBlocks(runs))


@frozen
class BindTasks:
    """Let tasks allocate from these nodes only."""

    nodes: frozenset[int]

    def __call__(self, machine: Machine) -> Machine:
        return evolve(machine, default_mems=self.nodes)


def bind(nodes: frozenset[int]) -> Remedy:
    """Start programs with numactl."""
    return Remedy(f"numactl --membind={format_list(nodes)} COMMAND", action=BindTasks(nodes))


@frozen
class BindProcess:
    """Start one process again, bound to these nodes."""

    pid: int
    nodes: frozenset[int]

    def __call__(self, machine: Machine) -> Machine:
        tasks = machine.tasks
        for tid, task in machine.tasks.items():
            if self.pid in (tid, task.leader):
                policy = MemPolicy(Mode.BIND, self.nodes, self.nodes)
                tasks = tasks.set(tid, evolve(task, policy=policy, mappings=RunMap(), moved=RunMap()))
        return evolve(machine, tasks=tasks)


def bind_process(pid: int, nodes: frozenset[int]) -> Remedy:
    """Start a process again with numactl."""
    return Remedy(f"numactl --membind={format_list(nodes)} COMMAND", action=BindProcess(pid, nodes))


@frozen
class SetPolicy:
    """Change a policy axis that a running kernel can change."""

    axis: str
    word: str

    def __call__(self, machine: Machine) -> Machine:
        return transitions.set_policy(machine, self.axis, self.word)


def set_policy(axis: str, value: Axis) -> Remedy:
    """Write one axis of the policy directory."""
    return Remedy(f"echo {value} > /sys/kernel/mm/tdx/policy/{axis}", action=SetPolicy(axis, str(value)))


@frozen
class Reboot:
    """Boot the same machine again under other policies."""

    policies: Policies

    def __call__(self, machine: Machine) -> Machine:
        return rebooted(machine, self.policies)


@lru_cache(maxsize=16)
def rebooted(machine: Machine, policies: Policies) -> Machine:
    """The machine as it comes up under other policies."""
    return boot(machine.built, policies)


def reboot(machine: Machine, **axes: Any) -> Remedy:
    """Reboot with these axes changed; TOPOLOGY stands for what was given to tdxfs mount."""
    options = " ".join(f"--policy {name}={value}" for name, value in axes.items())
    return Remedy(f"tdxfs mount {options} TOPOLOGY MOUNTPOINT", action=Reboot(evolve(machine.policies, **axes)))


def apply(machine: Machine, remedy: Remedy) -> Machine:
    """The machine after the remedy; ValueError if there is nothing to do."""
    if remedy.action is None:
        raise ValueError(str(remedy))
    return remedy.action(machine)
