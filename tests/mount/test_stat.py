"""stat(2) through a mount; tests/semantics/ has the rules of sysfs."""

import os
import time

from machines import tree

from tdxfs.sysfs.attribute import Directory, File


def test_every_entry_as_the_tree_says(machine):
    """Type, mode, size, device number and link count of every entry are the tree's."""
    emulated = tree()
    for path, entry in emulated.walk():
        seen = os.lstat(machine.root + path)
        if isinstance(entry, Directory):
            assert entry.MODE == seen.st_mode, path
            kinds = [child.is_dir(follow_symlinks=False) for child in os.scandir(machine.root + path)]
            assert 2 + sum(kinds) == seen.st_nlink, path
        else:
            assert (entry.mode, entry.size) == (seen.st_mode, seen.st_size), path
            assert entry.nlink == seen.st_nlink, path
        if isinstance(entry, File):
            assert entry.rdev == seen.st_rdev, path


def test_moment_of_the_first_look(own):
    """All three times of a file never touched are the moment of its first look-up."""
    before = time.time_ns()
    seen = os.stat(own.possible)

    assert seen.st_atime_ns == seen.st_mtime_ns == seen.st_ctime_ns
    assert before - 10**9 <= seen.st_mtime_ns <= time.time_ns()
