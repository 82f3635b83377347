"""Running commands in `tdxfs run`; a machine that allows no sandbox is a skip with its reason."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 120
"""After which a run is stuck: none takes a tenth of it."""


def need(*programs):
    """Skip the test if one of the programs is not installed, or nobody may mount here."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def command_line(machine, *command, options=()):
    return [sys.executable, "-m", "tdxfs", "run", *options, str(machine), "--", *map(str, command)]


def run(machine, *command, options=(), **more):
    """A command in a run of its own, finished."""
    need(command[0])
    return subprocess.run(
        command_line(machine, *command, options=options),
        **{"capture_output": True, "text": True, "check": False, "timeout": SECONDS, **more},
        env={**os.environ, "LC_ALL": "C"},
    )


def output(machine, *command, options=()):
    """What a command prints in a run; it must succeed and complain of nothing."""
    done = run(machine, *command, options=options)
    assert (0, "") == (done.returncode, done.stderr), done
    return done.stdout


def outputs(machine, commands, options=()):
    """What each of several commands prints in one run: name -> text, standard error beside it."""
    need("sh", *(command.split()[0] for command in commands.values()))
    script = "".join(f"echo '@@ {name}'; {command} 2>&1; echo \"@= $?\"\n" for name, command in commands.items())
    found = {}
    for part in output(machine, "sh", "-c", script, options=options).split("@@ ")[1:]:
        name, _, text = part.partition("\n")
        text, _, status = text.rpartition("@= ")
        assert status.strip() == "0", part
        found[name] = text
    return found


@contextmanager
def started(machine, *command, options=(), **more):
    """The launcher of a command that runs meanwhile; it is killed at the end if it is still there."""
    need(command[0])
    process = subprocess.Popen(
        command_line(machine, *command, options=options),
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=SECONDS)


def children(pid):
    """The processes that a process has forked."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid:
            found.append(int(path.parent.name))
    return found


def compiled(directory, source, *options, dynamic=False):
    """A program made from a C source beside the tests, statically linked unless it is `dynamic`."""
    need("gcc")
    program = directory / source.stem
    linked = [] if dynamic else ["-static"]
    subprocess.run(["gcc", *linked, "-O1", "-Wall", *options, "-o", str(program), str(source)], check=True)
    return program
