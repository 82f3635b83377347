"""A server of files that misbehave: ``python hazards.py MOUNTPOINT`` says ``ready`` and serves until unmounted."""

import itertools
import sys
from pathlib import Path
from typing import Any

from tdxfs.boot import boot
from tdxfs.model import Topology
from tdxfs.server import run_foreground
from tdxfs.sysfs.attribute import Directory, ro
from tdxfs.sysfs.codec import DECIMAL, LINE, Codec
from tdxfs.tree import Tree

SHOWN = itertools.count(5)
LENGTHS = (1, 200, 9, 3000, 20)


class Hazards(Directory[Any]):
    """Files whose show fails in every way, and files that change: sampled ones, which are shown anew at each read."""

    WHAT = "/"

    @ro(DECIMAL, sampled=True)
    def counter(self) -> int:
        """One more at every show: 9 is followed by 10, which is longer."""
        return next(SHOWN)

    @ro(LINE, sampled=True)
    def changing(self) -> str:
        """A text of another length at every show, of one letter, ended by a newline."""
        number = next(SHOWN)
        return "abcde"[number % 5] * LENGTHS[number % 5]

    @ro(DECIMAL, sampled=True)
    def bug(self) -> int:
        """An exception of ours."""
        return 1 // 0

    @ro(DECIMAL, sampled=True)
    def no_errno(self) -> int:
        """An OSError that lacks its errno."""
        raise OSError("no errno")

    @ro(DECIMAL, sampled=True)
    def leave(self) -> int:
        """What would end a program."""
        raise SystemExit(3)

    @ro(DECIMAL, sampled=True)
    def interrupt(self) -> int:
        """What Ctrl-C raises."""
        raise KeyboardInterrupt

    @ro(Codec("no bytes", lambda value: value, int), sampled=True)
    def no_text(self) -> int:
        """A codec that does not make text."""
        return 5


if __name__ == "__main__":
    run_foreground(Tree(Hazards, boot(Topology())), Path(sys.argv[1]), lambda: print("ready", flush=True))
