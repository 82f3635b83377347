"""Fixtures for tests of programs that look at NUMA nodes, dax devices and TDX; pytest finds them by itself.

::

    def test_my_agent(tdxfs):
        result = tdxfs.run(["my-agent"], topology="mixed")
        assert result.returncode == 0

    @pytest.mark.tdxfs("hotplug", hotplug="allow")
    def test_hotplug(tdxfs_machine):
        tdxfs_machine.write("sys/devices/system/memory/memory40/state", "offline")
        assert "incapable-node" in {conflict["kind"] for conflict in tdxfs_machine.conflicts()}
        assert tdxfs_machine.run(["numactl", "-H"]).returncode == 0

`tdxfs` runs commands and mounts machines; `tdxfs_machine` is one that is mounted for the test, the built-in
``mixed`` unless the marker ``tdxfs(topology, axis="value"...)`` names another; `tdxfs_conflicts` are its conflicts.
Everything ends with the test. A system that allows none of it (no FUSE, no namespaces) fails the test with its
reason: skipping is for the test to decide.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tdxfs.model import Topology

DEFAULT = "mixed"
MARKER = 'tdxfs(topology="mixed", **axes): the machine of tdxfs_machine: a topology, and policy axes that it boots with'


def _topology(topology: str | Path | Topology) -> Topology:
    from tdxfs.formats.topology import find

    return find(str(topology)) if isinstance(topology, (str, Path)) else topology


def _run(
    where: str | Path, options: Sequence[str], command: Sequence[str], more: Mapping[str, Any]
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tdxfs", "run", *options, str(where), "--", *map(os.fspath, command)]
    return subprocess.run(line, **{"capture_output": True, "text": True, "check": False, **more})


class MountedMachine:
    """A machine that is mounted until the end of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        """The mount point: ``root / "sys"`` is its /sys."""

    def run(self, command: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine; `more` goes to `subprocess.run`, output is captured as text."""
        return _run(self.root, (), command, more)

    def read(self, path: str) -> str:
        """The text of a file, without its last newline; OSError as the kernel refuses."""
        return (self.root / path.lstrip("/")).read_text().removesuffix("\n")

    def write(self, path: str, text: str) -> None:
        """Write to a file, which changes the machine; OSError as the kernel refuses."""
        (self.root / path.lstrip("/")).write_text(text)

    def conflicts(self) -> list[dict[str, Any]]:
        """The conflicts now: kind, severity, subject, reason, remedy, and node and dax where there is one."""
        from tdxfs.sysfs.tdx import ConflictsDir
        from tdxfs.values import Mounted, values

        found = values(Mounted(self.root), ConflictsDir.WHAT, ConflictsDir)
        return found["all"] if found else []


class Tdxfs:
    """Runs commands on machines, and mounts machines until the end of the test."""

    def __init__(self, scratch: Path, stack: ExitStack) -> None:
        self._scratch = scratch
        self._stack = stack

    def run(
        self,
        command: Sequence[str],
        topology: str | Path | Topology = DEFAULT,
        *,
        policies: Mapping[str, str] | None = None,
        isolated: bool = False,
        host_cpus: bool = False,
        **more: Any,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a command on a machine of its own: a built-in one, a topology file or a `Topology`, booted with
        `policies`. `more` goes to `subprocess.run`; output is captured as text.
        """
        options = [word for axis, value in (policies or {}).items() for word in ("--policy", f"{axis}={value}")]
        options += ["--isolated"] if isolated else []
        options += ["--host-cpus"] if host_cpus else []
        if not isinstance(topology, (str, Path)):
            from tdxfs.formats.topology import dumps

            where = self._scratch / f"{topology.name}.toml"
            where.write_text(dumps(topology))
            topology = where
        return _run(topology, options, command, more)

    def mount(self, topology: str | Path | Topology = DEFAULT, **axes: str) -> MountedMachine:
        """Mount a machine, booted with policy axes such as ``hotplug="allow"``."""
        from attrs import evolve

        from tdxfs.policy import parse_axis
        from tdxfs.server import mounted

        found = _topology(topology)
        chosen: dict[str, Any] = {axis: parse_axis(axis, value) for axis, value in axes.items()}
        return MountedMachine(self._stack.enter_context(mounted(found, policies=evolve(found.policies, **chosen))))


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def tdxfs(tmp_path: Path) -> Iterator[Tdxfs]:
    """Run commands on emulated machines, and mount machines."""
    with ExitStack() as stack:
        yield Tdxfs(tmp_path, stack)


@pytest.fixture
def tdxfs_machine(request: pytest.FixtureRequest, tdxfs: Tdxfs) -> MountedMachine:
    """A machine that is mounted for the test; the marker `tdxfs` says which."""
    marker = request.node.get_closest_marker("tdxfs")
    return tdxfs.mount(*marker.args, **marker.kwargs) if marker else tdxfs.mount()


@pytest.fixture
def tdxfs_conflicts(tdxfs_machine: MountedMachine) -> list[dict[str, Any]]:
    """The conflicts of `tdxfs_machine` as it was mounted."""
    return tdxfs_machine.conflicts()
