"""Format, lint and types are tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [("ruff", "format", "--check", "--diff", "."), ("ruff", "check", "."), ("mypy",)],
    ids=["format", "lint", "types"],
)
def test_clean(command):
    """The tool finds nothing."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "scripts/demo",
        "scripts/test",
        "scripts/bench/read",
        "scripts/bench/scale",
        "scripts/clients/numactl",
        "scripts/lib/setup.sh",
        ".ci/run",
    ],
)
def test_scripts_parse(script):
    """The shell scripts are valid POSIX shell."""
    done = subprocess.run(["sh", "-n", str(ROOT / script)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
