"""The journal: whatever ends the server, the machine goes on where it was."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from attrs import evolve
from machines import MIXED, booted, everything

from tdxfs.errors import UserError
from tdxfs.formats.topology import dumps
from tdxfs.journal import attach, read
from tdxfs.policy import Hotplug, Policies
from tdxfs.root import Root
from tdxfs.server import detach
from tdxfs.tree import Tree

ALLOW = evolve(MIXED, policies=Policies(hotplug=Hotplug.ALLOW))
CONFLICTS = "/sys/kernel/mm/tdx/conflicts"


def state(block):
    return f"/sys/devices/system/memory/memory{block}/state"


def lived(path):
    """A tree with a journal in which things have happened, some of them seen and some refused."""
    tree = Tree(Root, booted(ALLOW))
    attach(tree, path)
    for word in ("offline", "online", "offline"):
        for block in range(64, 80):
            tree.write(state(block), word.encode())
        tree.list(CONFLICTS)
    with pytest.raises(OSError):
        tree.write(state(64), b"garbage")
    tree.write(state(70), b"online\n")
    return tree


def test_the_same_machine_again(tmp_path):
    """A tree that is attached to the journal of another shows what that one shows, numbers of conflicts included."""
    journal = tmp_path / "journal"
    before = lived(journal)
    after = Tree(Root, booted(ALLOW))
    attach(after, journal)

    assert before.list(CONFLICTS).names == after.list(CONFLICTS).names
    assert everything(before) == everything(after)
    assert 49 == len(list(read(journal)))


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_record_is_dropped(tmp_path, capsys, cut):
    """The end of the file is not a whole record: it is told, cut off, and the journal goes on from there."""
    journal = tmp_path / "journal"
    lived(journal)
    os.truncate(journal, journal.stat().st_size - cut)
    tree = Tree(Root, booted(ALLOW))

    attach(tree, journal)

    assert "the last record is torn and dropped" in capsys.readouterr().err
    assert b"offline\n" == tree.read(state(70))
    tree.write(state(71), b"online")
    changes = list(read(journal))
    assert 49 == len(changes)
    assert (state(71), b"online") == (changes[-1].path, changes[-1].data)


def test_a_journal_of_another_machine_is_refused(tmp_path):
    """One line; so is a file that is no journal, and one that is damaged in the middle."""
    journal = tmp_path / "journal"
    lived(journal)
    with pytest.raises(UserError, match=r"^\S+: is the journal of another machine: of small, not of small as it is"):
        attach(Tree(Root, booted(MIXED)), journal)

    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([*lines[:5], b"x" + lines[5], *lines[6:]]))
    with pytest.raises(UserError, match=r"^\S+:6: the record is damaged$"):
        attach(Tree(Root, booted(ALLOW)), journal)

    for text in ("something else\n", "something else"):
        journal.write_text(text)
        with pytest.raises(UserError, match=r"^\S+: is not a journal of tdxfs$"):
            attach(Tree(Root, booted(ALLOW)), journal)
        assert text == journal.read_text()


def test_a_journal_that_was_just_begun(tmp_path):
    """A server that died while it wrote the first record has left a journal without changes."""
    journal = tmp_path / "journal"
    lived(journal)
    os.truncate(journal, 20)
    tree = Tree(Root, booted(ALLOW))

    attach(tree, journal)

    assert 0 == tree.generation
    assert [] == list(read(journal))


def test_a_write_that_cannot_be_recorded_is_refused(tmp_path):
    """The disk is full: the writer gets ENOSPC and the machine stays what it was."""
    tree = Tree(Root, booted(ALLOW))

    def full(*_):
        raise OSError(28, "No space left on device")

    tree.journal = full
    before = tree.machine
    with pytest.raises(OSError, match="No space left"):
        tree.write(state(64), b"offline")

    assert before is tree.machine


@contextmanager
def server(topology, where, journal):
    """``tdxfs mount --foreground``, killed at the end."""
    command = [sys.executable, "-m", "tdxfs", "mount", topology, where, "--foreground", "--journal", journal]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        while not os.path.ismount(where):
            assert process.poll() is None, process.stderr.read().decode()
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        detach(where)


def test_a_killed_server_goes_on(tmp_path):
    """kill -9 between a write and the next: another server with the journal shows all that was written."""
    topology, where, journal = tmp_path / "small.toml", tmp_path / "mnt", tmp_path / "journal"
    topology.write_text(dumps(ALLOW))
    where.mkdir()

    with server(topology, where, journal):
        for block in range(64, 72):
            (where / state(block)[1:]).write_text("offline")
        names = sorted(os.listdir(where / CONFLICTS[1:]))
    with server(topology, where, journal):
        assert ["offline\n"] * 8 == [(where / state(block)[1:]).read_text() for block in range(64, 72)]
        assert names == sorted(os.listdir(where / CONFLICTS[1:]))
        (where / state(64)[1:]).write_text("online")

    said = subprocess.run(
        [sys.executable, "-m", "tdxfs", "replay", journal], capture_output=True, text=True, check=True
    )
    assert 9 == len(said.stdout.splitlines())
    assert f"     9  {state(64)}  'online'" == said.stdout.splitlines()[-1]


def test_watch_follows(tmp_path):
    """tdxfs watch prints the generation and the conflicts that vanish and appear, and ends with the mount."""
    topology, where = tmp_path / "small.toml", tmp_path / "mnt"
    topology.write_text(dumps(ALLOW))
    where.mkdir()
    with server(topology, where, tmp_path / "journal") as process:
        watcher = subprocess.Popen(
            [sys.executable, "-u", "-m", "tdxfs", "watch", where], stdout=subprocess.PIPE, text=True
        )
        with watcher.stdout as said:
            assert any(line.startswith("+ incapable-node node2: ") for line in iter(said.readline, ""))
            for block in range(64, 80):
                (where / state(block)[1:]).write_text("offline")

            assert any(line.startswith("- incapable-node node2: ") for line in iter(said.readline, ""))
            detach(where)
            process.kill()
            assert 0 == watcher.wait(60)
