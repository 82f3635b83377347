"""Running unmodified programs over a sysroot; one that is missing is a skip with its name."""

import os
import shutil
import subprocess

import pytest

BOUND = """
mount --bind "$ROOT/sys" /sys
mount -t tmpfs tmpfs "$SCRATCH"
cp -a /dev/null /dev/zero /dev/urandom "$SCRATCH"
for device in "$ROOT"/dev/dax*; do
    test -e "$device" || continue
    touch "$SCRATCH/${device##*/}"
    mount --bind "$device" "$SCRATCH/${device##*/}"
done
mount --rbind "$SCRATCH" /dev
exec "$@"
"""
"""The emulated /sys and dax devices in the place of the real ones."""


def need(*programs):
    """Skip the test if one of the programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def output(*command, **environment):
    """What a program prints; it must succeed and complain of nothing."""
    need(command[0])
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", **environment},
    )
    assert (0, "") == (done.returncode, done.stderr), done
    return done.stdout


def bound(root, scratch, *command):
    """What a program prints that knows no other place than /sys, in a mount namespace of its own."""
    need("unshare", command[0])
    if os.geteuid() != 0:
        pytest.skip("only root may bind a tree over /sys")
    scratch.mkdir(exist_ok=True)
    return output("unshare", "-m", "sh", "-ec", BOUND, "sh", *command, ROOT=str(root), SCRATCH=str(scratch))
