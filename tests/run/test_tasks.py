"""The tasks of a run, as files and conflicts of the machine, and two runs on one machine."""

import re
import shutil
from pathlib import Path

import pytest
from machines import MIXED
from runner import compiled, outputs, run, started

from tdxfs.server import mounted

TASKS = "sys/kernel/debug/tdxfs/tasks"
BLOCK = "sys/devices/system/memory/memory40"
EMPTY_PATH, EXECVE_CHECK = 0x1000, 0x10000


@pytest.fixture
def root():
    with mounted(MIXED) as where:
        yield where


def tasks(root):
    """Pid -> name of the tasks that the machine knows."""
    return {int(path.parent.name): path.read_text().strip() for path in (root / TASKS).glob("*/name")}


def test_two_runs_share_a_machine(root):
    """Both are tasks of it, each sees what the other writes, and they are gone with their runs."""
    script = f"echo offline > /{BLOCK}/state; echo done; read line"
    with started(root, "numactl", "-m1", "sh", "-c", script) as process:
        assert process.stdout.readline() == "done\n"
        shown = outputs(root, {"state": f"cat /{BLOCK}/state", "tasks": f"cat /{TASKS}/*/name"})
        assert {"state": "offline\n", "tasks": "sh\nsh\n"} == shown

        (pid,) = [pid for pid, name in tasks(root).items() if name == "sh"]
        assert (root / TASKS / str(pid) / "policy").read_text() == "bind:1\n"
        assert re.fullmatch(r"N1 [1-9][0-9]*\n", (root / TASKS / str(pid) / "resident").read_text())
        process.communicate("\n")

    assert {} == tasks(root)


def test_conflicts_name_the_task(root):
    """A task that can be given incapable memory is a conflict of the machine for as long as it runs."""

    def reasons():
        conflicts = (root / "sys/kernel/mm/tdx/conflicts").glob("conflict*/reason")
        return [text for text in (path.read_text() for path in conflicts) if text.startswith("PID")]

    with started(root, "numactl", "-m0,2", "sh", "-c", "echo ready; read line") as process:
        process.stdout.readline()
        assert re.fullmatch(r"PID [0-9]+ \(sh\) may allocate on node 2, which .*\n", "".join(reasons()))
        process.communicate("\n")

    assert [] == reasons()


def test_offline_memory_is_no_choice(root):
    """A node whose memory went offline meanwhile is refused as on Linux."""
    script = "for b in /sys/devices/system/node/node2/memory*; do echo offline > $b/state; done; exec numactl -m2 true"
    done = run(root, "sh", "-c", script)

    assert done.returncode == 1
    assert "node argument 2 is out of range" in done.stderr


@pytest.mark.parametrize("script", [False, True], ids=["program", "script"])
@pytest.mark.parametrize("path", ["", "aäääääääääää"], ids=["descriptor", "below"])
def test_execveat(root, tmp_path, script, path):
    """A program that is run by a descriptor, or by its path below one, has its own name and none of the mappings."""
    program = compiled(tmp_path, Path(__file__).with_name("execveat.c"))
    below = tmp_path / (path or "below")
    if script:
        below.write_text(f"#!{shutil.which('sh')}\necho ready; read line; read line\n")
        below.chmod(0o755)
    else:
        below.symlink_to(shutil.which("cat"))

    with started(root, program, tmp_path if path else below, path, EMPTY_PATH) as process:
        assert "bound\n" == process.stdout.readline()
        (pid,) = tasks(root)
        where = root / TASKS / str(pid)
        assert ("execveat\n", 1) == ((where / "name").read_text(), (where / "mappings").read_text().count("bind:2"))

        process.stdin.write("\nready\n")
        process.stdin.flush()
        assert "ready\n" == process.stdout.readline()
        shown = [(where / name).read_text() for name in ("name", "mappings")]
        assert [Path(f"/proc/{pid}/comm").read_text(), ""] == shown
        assert ("", "") == process.communicate()

    assert {} == tasks(root)


@pytest.mark.parametrize("flags", [0, EXECVE_CHECK | EMPTY_PATH], ids=["empty path", "only a check"])
def test_execveat_that_runs_nothing(root, tmp_path, flags):
    """A task that execveat left as it was keeps its name and its mappings."""
    program = compiled(tmp_path, Path(__file__).with_name("execveat.c"))

    with started(root, program, shutil.which("cat"), "", flags) as process:
        assert "bound\n" == process.stdout.readline()
        (pid,) = tasks(root)
        before = [(root / TASKS / str(pid) / name).read_text() for name in ("name", "mappings")]
        process.stdin.write("\n")
        process.stdin.flush()
        assert "still there\n" == process.stdout.readline()
        assert before == [(root / TASKS / str(pid) / name).read_text() for name in ("name", "mappings")]
        process.communicate("\n")
