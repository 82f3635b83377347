"""What threads inherit, what mappings keep, and programs of another architecture, in C."""

from pathlib import Path

import pytest
from machines import MIXED
from runner import compiled, run, started

from tdxfs.server import mounted

TASKS = "sys/kernel/debug/tdxfs/tasks"
HERE = Path(__file__).parent
BIND, PREFERRED, INTERLEAVE = 2, 1, 3
INHERITED = f"""\
thread {PREFERRED} 4 4
thread of a thread {PREFERRED} 4 4
child of a thread {PREFERRED} 4 4
spawned by a thread {PREFERRED} 4 4
run by a child of a thread {PREFERRED} 4 4
first thread {BIND} 2 3
thread of before {BIND} 2 3
"""
REMAPPED = """\
bound 2 2 2 2 4 4 4 4
unmapped 2 - 2 2 4 4 4 4
mapped again 2 0 2 2 4 4 4 4
not unmapped 2 0 2 2 4 4 4 4
smaller 2 0 2 2 4 4 - -
larger 2 0 2 2 4 4 4 4
moved from 2 0 2 2 - - - -
moved to 4 4 4 4
not replaced 2 2 2 2
replaced 2 0 0 2
"""


@pytest.fixture
def root():
    with mounted(MIXED) as where:
        yield where


def lines(process, count):
    return "".join(process.stdout.readline() for _ in range(count))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_threads_inherit_from_their_makers(root, tmp_path, dynamic):
    """A thread and a child have what the thread had that made them, and the machine forgets a thread that ended."""
    program = compiled(tmp_path, HERE / "threads.c", "-pthread", dynamic=dynamic)

    with started(root, program) as process:
        assert lines(process, INHERITED.count("\n")) == INHERITED
        tid = process.stdout.readline().strip()
        assert process.stdout.readline() == f"thread of after {INTERLEAVE} 7 f\n"
        task = root / TASKS / tid
        policies = {path.parent.name: path.read_text() for path in (root / TASKS).glob("*/policy")}
        (pid,) = [number for number, policy in policies.items() if policy == "interleave:0-2\n"]
        shown = {name: (task / name).read_text() for name in ("leader", "policy", "cpus_allowed")}
        assert {"leader": f"{pid}\n", "policy": "bind:1\n", "cpus_allowed": "1\n"} == shown

        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "gone\n"
        assert [pid] == [path.name for path in (root / TASKS).glob("[0-9]*")]
        process.communicate("\n")


def test_policies_belong_to_mappings(root, tmp_path):
    """What is unmapped has no policy when something else is mapped there; what is moved keeps its own."""
    program = compiled(tmp_path, HERE / "remap.c")

    with started(root, program) as process:
        assert lines(process, REMAPPED.count("\n")) == REMAPPED
        (mappings,) = (root / TASKS).glob("*/mappings")
        assert mappings.read_text().count("bind:1\n") == 2
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "all unmapped\n"
        assert mappings.read_text() == ""
        process.communicate("\n")


def test_calls_of_another_architecture(root, tmp_path):
    """A call by its i386 number reaches the running system, which knows nothing of the policy on the machine."""
    program = compiled(tmp_path, HERE / "i386.c", "-no-pie")
    done = run(root, program)
    if done.returncode < 0:
        pytest.skip("this kernel has no i386 calls")

    mine, other = done.stdout.split()
    assert str(BIND) == mine
    assert other in ("0", "-1")
