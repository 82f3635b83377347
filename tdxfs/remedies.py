"""What can be done about a conflict, as a command to type and as a change of the model.

Each change is the very transition that the command causes; the property that keeps remedies honest is in
tests/test_conflicts.py: applied, a remedy removes its conflict and causes none worse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import evolve, frozen

from tdxfs.errors import Refusal
from tdxfs.idlist import format_list
from tdxfs.model import By, Machine, MemPolicy, Mode
from tdxfs.policy import Axis, Policies
from tdxfs.ranges import Ranges, RunMap
from tdxfs.transitions.memory import offline_blocks
from tdxfs.transitions.policy import reboot as boot_again
from tdxfs.transitions.policy import set_policy as change_policy


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
            machine = offline_blocks(machine, run.start, run.end)
        return machine


def offline(machine: Machine, runs: Ranges) -> Remedy:
    """Take the blocks offline with chmem; none if the kernel refuses that for one of them."""
    action = OfflineBlocks(runs)
    try:
        action(machine)
    except Refusal as refusal:
        return none(f"the blocks cannot go offline: {refusal.strerror}")
    commands = (f"chmem --disable -b {run.start}-{run.end - 1}" for run in runs)
    return Remedy(" && ".join(commands), action=action)


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
    value: Axis

    def __call__(self, machine: Machine) -> Machine:
        return change_policy(machine, self.axis, str(self.value))


def set_policy(**axis: Axis) -> Remedy:
    """Write one axis of the policy directory."""
    ((name, value),) = axis.items()
    return Remedy(f"echo {value} > /sys/kernel/mm/tdx/policy/{name}", action=SetPolicy(name, value))


@frozen
class Reboot:
    """Boot the same machine again under other policies."""

    policies: Policies

    def __call__(self, machine: Machine) -> Machine:
        return rebooted(machine, self.policies)


def rebooted(machine: Machine, policies: Policies) -> Machine:
    """The machine as it comes up under other policies."""
    return _rebooted(By(machine, machine.built), policies)


@lru_cache(maxsize=16)
def _rebooted(by_built: By, policies: Policies) -> Machine:
    return boot_again(by_built.machine, policies)


def reboot(machine: Machine, **axes: Any) -> Remedy:
    """Reboot with these axes changed; MOUNTPOINT stands for where the machine is mounted."""
    options = " ".join(f"--policy {name}={value}" for name, value in axes.items())
    return Remedy(f"tdxfs reboot {options} MOUNTPOINT", action=Reboot(evolve(machine.policies, **axes)))


def apply(machine: Machine, remedy: Remedy) -> Machine:
    """The machine after the remedy; ValueError if there is nothing to do."""
    if remedy.action is None:
        raise ValueError(str(remedy))
    return remedy.action(machine)
