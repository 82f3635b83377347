"""Scenarios: validated whole at start, played by a mount."""

import json
import os
import select
import subprocess
import sys

import pytest
from attrs import evolve
from machines import MIXED, booted

from tdxfs.errors import UserError
from tdxfs.formats.topology import dumps
from tdxfs.policy import Hotplug, Policies
from tdxfs.scenario import load
from tdxfs.server import unmount

ALLOW = evolve(MIXED, policies=Policies(hotplug=Hotplug.ALLOW))
STATE = "sys/devices/system/memory/memory{}/state"
PLAYED = f"""
[[step]]
at = "300 ms"
write = {{ path = "{STATE.format(70)}", data = "offline" }}

[[step]]
at = "300 ms"
write = {{ path = "{STATE.format(70)}", data = "offline" }}
refused = "EINVAL"

[[step]]
at = "0.6 s"
fail = "read {STATE.format(70)} errno=EIO"

[[step]]
at = "0.6 s"
write = {{ path = "{STATE.format(71)}", data = "offline" }}
"""


def test_a_mount_plays_it(tmp_path):
    """The steps happen in order, seen as uevents; the server has nothing to complain about."""
    topology, where, scenario, log = (tmp_path / name for name in ("small.toml", "mnt", "scenario.toml", "log"))
    topology.write_text(dumps(ALLOW))
    scenario.write_text(PLAYED)
    where.mkdir()
    command = [sys.executable, "-m", "tdxfs", "mount", topology, where, "--scenario", scenario, "--log", log]
    subprocess.run(command, check=True)
    try:
        stream = os.open(where / "sys/kernel/debug/tdxfs/uevents", os.O_RDONLY)
        poller = select.poll()
        poller.register(stream, select.POLLIN)
        seen = []
        while len(seen) < 2:
            assert poller.poll(30_000)
            seen.append(json.loads(os.read(stream, 8192))["DEVPATH"].rpartition("/")[2])
        os.close(stream)

        assert ["memory70", "memory71"] == seen
        assert "offline\n" == (where / STATE.format(71)).read_text()
        with pytest.raises(OSError, match="Input/output error"):
            (where / STATE.format(70)).read_text()
    finally:
        unmount(where)
    assert "" == log.read_text()


WRITE = f'write = {{ path = "{STATE.format(70)}", data = "offline" }}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = 1", "steps: unknown key: must be step"),
        ("step = 1", "step: must be an array of tables, [[step]]"),
        ("[[step", "Expected ']]' at the end of an array declaration (at end of document)"),
        (f"[[step]]\n{WRITE}", "step 1: at: None: must be a text such as '2 s' or '500 ms'"),
        (f'[[step]]\nat = "2 h"\n{WRITE}', "step 1: at: '2 h': must be a text such as '2 s' or '500 ms'"),
        ('[[step]]\nat = "2 s"', "step 1: must have one of write, plug, unplug, fail"),
        ('[[step]]\nat = "2 s"\nwhen = 1', "step 1: when: unknown key: must be at, refused, write, plug, unplug, fail"),
        ('[[step]]\nat = "2 s"\nfail = 3', "step 1: fail: 3: must be a text"),
        ('[[step]]\nat = "2 s"\nwrite = "x"', "step 1: write: must be a table of path and data"),
        (
            f'[[step]]\nat = "2 s"\n{WRITE}\nrefused = "EWHAT"',
            "step 1: refused: 'EWHAT': must be the name of an errno such as 'EBUSY'",
        ),
        (
            f'[[step]]\nat = "2 s"\n{WRITE}\n[[step]]\nat = "1 s"\n{WRITE}',
            "step 2: at: '1 s': is before the step before it",
        ),
        (
            f'[[step]]\nat = "1 s"\n{WRITE}\n[[step]]\nat = "1 s"\n{WRITE}',
            f"step 2: /{STATE.format(70)}: a write of 'offline' is refused: EINVAL: memory70 is offline",
        ),
        (
            f'[[step]]\nat = "1 s"\n{WRITE}\nrefused = "EBUSY"',
            f"step 1: /{STATE.format(70)}: a write of 'offline' is not refused",
        ),
        (
            '[[step]]\nat = "1 s"\nwrite = { path = "sys/none", data = "" }',
            "step 1: /sys/none: a write of '' is refused: ENODEV: /sys/none",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, text, says):
    """File, step, key and rule; each step is tried on a machine of its own."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(text)
    with pytest.raises(UserError) as wrong:
        load(scenario, booted(ALLOW))

    assert f"{scenario}: {says}" == str(wrong.value)
