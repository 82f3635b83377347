"""The program that walks, compiled on the spot."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def walk(tmp_path_factory):
    """The program, compiled against the kernel's own header."""
    program = tmp_path_factory.mktemp("walk") / "walk"
    source = Path(__file__).with_name("walk.c")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program
