"""Scenarios: a TOML file of timed steps that a mount plays by itself, for tests of ordering ::

    [[step]]
    at = "2 s"
    write = { path = "sys/devices/system/memory/memory40/state", data = "offline" }

    [[step]]
    at = "2500 ms"
    fail = "read sys/devices/system/node/* errno=EIO nth=1"

`plug` and `unplug` take what ``hotplug`` of the emulator tier takes after that word. `refused` names the errno
that a step is answered; without it a step succeeds.
"""

from __future__ import annotations

import errno
import re
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

from attrs import frozen

from tdxfs.errors import Refusal, UserError
from tdxfs.model import Machine
from tdxfs.root import Root
from tdxfs.sysfs.debug import FAULTS_PATH, TdxfsDir
from tdxfs.tree import Tree

UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_DURATION = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(UNITS)})")
ACTIONS = ("write", "plug", "unplug", "fail")


@frozen
class Step:
    """One step: at `at` seconds after the mount is there, `data` is written to `path`."""

    at: float
    path: str
    """Absolute, below the root of the mount."""
    data: bytes
    refused: int = 0
    """errno with which it is refused; 0: it is not."""


def load(path: Path, booted: Machine) -> tuple[Step, ...]:
    """
    The steps of a scenario file, played once on a machine of its own to see that each does what it says;
    UserError is one line: file, step, rule.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    unknown = sorted(document.keys() - {"step"})
    if unknown:
        raise UserError(f"{path}: {unknown[0]}: unknown key: must be step")
    tables = document.get("step", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path}: step: must be an array of tables, [[step]]")
    tree = Tree(Root, booted)
    steps: list[Step] = []
    for number, table in enumerate(tables, 1):
        try:
            step = _step(table)
            if steps and step.at < steps[-1].at:
                raise ValueError(f"at: {table['at']!r}: is before the step before it")
            _try(tree, step)
        except ValueError as error:
            raise UserError(f"{path}: step {number}: {error}") from error
        steps.append(step)
    return tuple(steps)


def _step(table: dict[str, Any]) -> Step:
    unknown = sorted(table.keys() - {"at", "refused", *ACTIONS})
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key: must be at, refused, {', '.join(ACTIONS)}")
    actions = [action for action in ACTIONS if action in table]
    if len(actions) != 1:
        raise ValueError(f"must have one of {', '.join(ACTIONS)}")
    at = table.get("at")
    duration = _DURATION.fullmatch(at) if isinstance(at, str) else None
    if duration is None:
        raise ValueError(f"at: {at!r}: must be a text such as '2 s' or '500 ms'")
    refused = table.get("refused", "")
    numbers = {name: number for number, name in errno.errorcode.items()}
    if refused and refused not in numbers:
        raise ValueError(f"refused: {refused!r}: must be the name of an errno such as 'EBUSY'")
    path, data = _written(actions[0], table[actions[0]])
    return Step(float(duration[1]) * UNITS[duration[2]], path, data.encode(), numbers.get(refused, 0))


def _written(action: str, value: Any) -> tuple[str, str]:
    if action != "write":
        if not isinstance(value, str):
            raise ValueError(f"{action}: {value!r}: must be a text")
        if action == "fail":
            return f"/{FAULTS_PATH}", value
        return f"{TdxfsDir.WHAT}/hotplug", f"{action} {value}"
    if not isinstance(value, dict) or value.keys() != {"path", "data"}:
        raise ValueError("write: must be a table of path and data")
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError("write: path and data must be texts")
    return f"/{value['path'].lstrip('/')}", value["data"]


def _try(tree: Tree, step: Step) -> None:
    refused, why = 0, ""
    try:
        tree.write(step.path, step.data)
    except Refusal as refusal:
        refused, why = refusal.errno or 0, refusal.strerror or ""
    except IsADirectoryError:
        refused, why = errno.EISDIR, "is a directory"
    if refused != step.refused:
        was = f"is refused: {errno.errorcode[refused]}: {why}" if refused else "is not refused"
        raise ValueError(f"{step.path}: a write of {step.data.decode()!r} {was}")


def play(tree: Tree, steps: tuple[Step, ...]) -> None:
    """Play the steps on a tree from now on, in a thread; what goes otherwise than it did at start is told on stderr."""
    threading.Thread(target=_play, args=(tree, steps), name="scenario", daemon=True).start()


def _play(tree: Tree, steps: tuple[Step, ...]) -> None:
    begin = time.monotonic()
    for number, step in enumerate(steps, 1):
        time.sleep(max(begin + step.at - time.monotonic(), 0))
        try:
            _try(tree, step)
        except (ValueError, OSError) as error:
            print(f"tdxfs: scenario: step {number}: {error}", file=sys.stderr, flush=True)
