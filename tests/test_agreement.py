"""The tree, the exported directory and a real mount must agree: on names, stat, content, links and errno."""

import errno
import os
import stat

import pytest
from attrs import define, evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test
from machines import MIXED, tree
from syscalls import answer

from tdxfs.errors import Refusal
from tdxfs.formats.export import export
from tdxfs.model import KERNELS
from tdxfs.server import mounted
from tdxfs.sysfs.attribute import Directory, File, Link
from tdxfs.tree import Tree, stat_of

NAMES = st.sampled_from(["absent", "node0", "node00", "memory1", "power", "cpu0", "..", ".", "caf\u00e9", "a" * 255])


@define
class InTree:
    """The tree itself, without any file system."""

    tree: Tree

    def entry(self, path):
        # as the kernel walks: every component but the last through links
        parent, _, name = path.rstrip("/").rpartition("/")
        where, directory = self.tree.follow(parent or "/")
        if not isinstance(directory, Directory):
            raise NotADirectoryError(errno.ENOTDIR, path)
        if name == "..":
            where, name = where.rpartition("/")[0], "."
        return self.tree.lookup(where if name in (".", "") else f"{where}/{name}")

    def names(self, path):
        where, entry = self.tree.follow(path)
        if not isinstance(entry, Directory):
            raise NotADirectoryError(errno.ENOTDIR, path)
        listing = self.tree.list(where)
        return {name: kind for name, kind in zip(listing.names, listing.types, strict=True) if kind != stat.S_IFCHR}

    def mode(self, path):
        return stat_of(self.entry(path)).mode

    def target(self, path):
        entry = self.entry(path)
        if not isinstance(entry, Link):
            raise OSError(errno.EINVAL, path)
        return entry.target

    def read(self, path):
        entry = self.tree.follow(path)[1]
        if isinstance(entry, Directory):
            raise IsADirectoryError(errno.EISDIR, path)
        if not entry.mode & 0o444:
            raise PermissionError(errno.EACCES, path)
        return self.tree.read(path)


@define
class OnDisk:
    """Files below a directory: the mount, or plain ones."""

    root: str

    def names(self, path):
        with os.scandir(self.root + path) as entries:
            found = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in entries}
        return {name: kind for name, kind in found.items() if kind != stat.S_IFCHR}

    def mode(self, path):
        return os.lstat(self.root + path).st_mode

    def target(self, path):
        return os.readlink(self.root + path)

    def read(self, path):
        with open(self.root + path, "rb") as file:
            return file.read()


class Agreement(RuleBasedStateMachine):
    """Walks about, and asks all three the same."""

    paths = Bundle("paths")

    def __init__(self, subjects):
        super().__init__()
        self.in_tree, self.on_mount, self.in_export = subjects

    def ask(self, question, path, *, plain=True):
        expected = answer(getattr(self.in_tree, question), path)
        assert expected == answer(getattr(self.on_mount, question), path), f"{question} {path}: mount"
        if plain:
            assert expected == answer(getattr(self.in_export, question), path), f"{question} {path}: export"
        return expected

    @rule(target=paths)
    def top(self):
        return multiple("/sys", "/proc", "/sys/devices/system/node", "/sys/bus/dax/devices", "/sys/kernel/mm")

    @rule(target=paths, path=paths, data=st.data())
    def enter(self, path, data):
        """Lists a directory and goes on with one of its entries."""
        names = self.ask("names", path)
        if isinstance(names, str) or not names:
            return multiple()
        return f"{path}/{data.draw(st.sampled_from(sorted(names)))}"

    @rule(target=paths, path=paths, name=NAMES)
    def guess(self, path, name):
        """Goes to a name that may not be there, below a file too."""
        found = self.ask("mode", f"{path}/{name}", plain=not self.beyond(f"{path}/{name}"))
        return multiple() if isinstance(found, str) or name in (".", "..") else f"{path}/{name}"

    @rule(path=paths)
    def look(self, path):
        self.ask("mode", path, plain=not self.beyond(path))

    @rule(path=paths)
    def follow(self, path):
        self.ask("target", path, plain=not self.beyond(path))

    @rule(path=paths)
    def read(self, path):
        """The content, or why there is none; an export has no errno to show and lets root read everything."""
        self.ask("read", path, plain=self.readable(path))

    def beyond(self, path):
        # what an export cannot have: device nodes; and the modes of directories, which are the writer's
        try:
            entry = self.in_tree.entry(path)
        except OSError:
            return False
        return isinstance(entry, Directory) or stat.S_ISCHR(entry.mode)

    def readable(self, path):
        try:
            entry = self.in_tree.tree.follow(path)[1]
            return not isinstance(entry, File) or (entry.mode & 0o444 and bool(entry.show()) is not None)
        except Refusal as refusal:
            return isinstance(refusal, FileNotFoundError | NotADirectoryError)


@pytest.mark.skipif("os.geteuid() != 0", reason="what root may open differs: scripts/test runs as root")
@pytest.mark.parametrize("kernel", KERNELS)
def test_agreement(kernel, tmp_path):
    """Whatever is asked, and in whatever order, all three answer alike."""
    topology = evolve(MIXED, kernel=kernel)
    plain = tmp_path / "plain"
    export(tree(topology), plain)
    with mounted(topology) as root:
        subjects = (InTree(tree(topology)), OnDisk(str(root)), OnDisk(str(plain)))
        run_state_machine_as_test(
            lambda: Agreement(subjects), settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
        )
