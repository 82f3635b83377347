"""The yardstick: server.c, compiled on the spot and mounted; other servers that are started like it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tdxfs.server import detach, is_mounted

HERE = Path(__file__).resolve().parent
OPTIONS = "direct_io,default_permissions,use_ino,entry_timeout=3600,attr_timeout=3600,negative_timeout=3600"


def build(work: Path, *names: str) -> None:
    """Compile C programs of this directory."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse"], capture_output=True, text=True, check=True)
    for name in names:
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-o", work / name, HERE / f"{name}.c", *flags.stdout.split()]
        subprocess.run(command, check=True)


def command(work: Path, tree: Path, root: Path) -> list[str | Path]:
    """What serves a directory of plain files, from memory."""
    allow = ",allow_other" if os.geteuid() == 0 else ""
    return [work / "server", tree, root, "-f", "-s", "-o", OPTIONS + allow]


@contextmanager
def served(command: list[str | Path], root: Path, errors: IO[bytes]) -> Iterator[int]:
    """A mount by a command that stays in the foreground: its pid; RuntimeError if it does not come up."""
    server = subprocess.Popen(command, stderr=errors)
    try:
        while not os.path.ismount(root):
            if server.poll() is not None:
                errors.seek(0)
                raise RuntimeError(f"{command[0]}: {errors.read().decode()}")
            time.sleep(0.01)
        os.stat(root)
        yield server.pid
    finally:
        subprocess.run(["umount", root], check=False)
        server.terminate()
        server.wait(20)
        if is_mounted(root):
            detach(root)
