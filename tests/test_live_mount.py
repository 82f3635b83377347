"""A mount whose machine changes: names, attributes and open descriptors follow at once."""

import errno
import os
import threading
from functools import partial

import pytest
from attrs import evolve
from machines import MIXED

from tdxfs.policy import Hotplug, Policies
from tdxfs.server import mounted
from tdxfs.tasks import executed, exited

ALLOW = evolve(MIXED, policies=Policies(hotplug=Hotplug.ALLOW))
NODE = "sys/devices/system/node/node2"
VERDICT = f"{NODE}/x86/tdx_capable"
CONFLICTS = "sys/kernel/mm/tdx/conflicts"


@pytest.fixture
def root():
    with mounted(ALLOW) as where:
        yield where


def turn(root, word, blocks=range(64, 80)):
    """Write `word` to the state of memory blocks; those of node 2 unless others are named."""
    for block in blocks:
        (root / f"sys/devices/system/memory/memory{block}/state").write_text(word)


def error(call, *arguments):
    with pytest.raises(OSError) as refused:
        call(*arguments)
    return refused.value.errno


def test_names_vanish_and_appear_at_once(root):
    """stat(2) never answers from what the kernel had cached, neither for a name that was nor for one that was not."""
    for _ in range(50):
        assert (root / VERDICT).exists()
        turn(root, "offline")
        assert not (root / VERDICT).exists()
        turn(root, "online")


def test_a_descriptor_outlives_its_object_but_reads_no_more(root):
    """ENODEV, also when a new object has the name; fstat(2) goes on."""
    held = os.open(root / VERDICT, os.O_RDONLY)
    before = os.fstat(held)
    assert b"0\n" == os.read(held, 10)

    turn(root, "offline")
    assert errno.ENODEV == error(os.pread, held, 10, 0)
    turn(root, "online")

    assert errno.ENODEV == error(os.pread, held, 10, 0)
    assert errno.ENODEV == error(os.read, held, 10)
    assert before.st_mode == os.fstat(held).st_mode
    assert "0\n" == (root / VERDICT).read_text()
    os.close(held)


def test_a_directory_that_is_held_over_its_removal(root):
    """Nothing is found in it while it is gone, and everything in the next one of its name."""
    hotplug, module = root / "sys/kernel/debug/tdxfs/hotplug", "base=0x400000000"
    block = root / "sys/devices/system/memory/memory128"
    names = ["state", "power", "power/control", "uevent", "absent"]
    for known in (names[:2], names):
        hotplug.write_text(f"plug node=2 {module} size=0x40000000")
        held = [os.open(path, os.O_RDONLY) for path in (block, block / "power", block / "state")]
        for name in known:
            (block / name).exists()
        hotplug.write_text(f"unplug {module}")
        assert [errno.ENOENT] * 5 == [error(partial(os.stat, name, dir_fd=held[0])) for name in names]
        assert errno.ENOENT == error(partial(os.stat, "control", dir_fd=held[1]))
        hotplug.write_text(f"plug node=2 {module} size=0x40000000")

        assert [True, True, True, True, False] == [(block / name).exists() for name in names]
        assert errno.ENODEV == error(os.read, held[2], 10)
        hotplug.write_text(f"unplug {module}")
        for descriptor in held:
            os.close(descriptor)


def test_tasks_come_and_go_at_once(root):
    """So do their names and their directory's link count; what was open of one that is gone is not the next one's."""
    tasks = root / "sys/kernel/debug/tdxfs/tasks"

    def tell(line):
        (root / "sys/kernel/debug/tdxfs/task_control/change").write_text(line)

    directory = os.open(tasks, os.O_RDONLY)
    for _ in range(3):
        assert not (tasks / "77").exists()
        assert 2 == tasks.stat().st_nlink
        tell(executed(77, 1, "one"))
        held = os.open(tasks / "77/name", os.O_RDONLY)
        assert b"one\n" == os.read(held, 10)
        assert (["77"], 3, 3) == (os.listdir(tasks), tasks.stat().st_nlink, os.fstat(directory).st_nlink)
        tell(exited(77))
        tell(executed(77, 1, "another"))

        assert errno.ENODEV == error(os.pread, held, 10, 0)
        assert "another\n" == (tasks / "77/name").read_text()
        tell(exited(77))
        assert 2 == os.fstat(directory).st_nlink
        os.close(held)
    os.close(directory)


def test_descriptors_of_what_stays_are_not_disturbed(root):
    """A file that the change does not touch goes on from where it was; a read of offset 0 shows the new machine."""
    held = os.open(root / "sys/devices/system/node/has_memory", os.O_RDONLY)
    assert b"0" == os.read(held, 1)

    turn(root, "offline")

    assert b"-2\n" == os.read(held, 10)
    assert b"0-1\n" == os.pread(held, 10, 0)
    os.close(held)


def test_conflicts_come_and_go_at_once(root):
    """The directory, its link count and its entries agree after every change."""
    directory = root / CONFLICTS
    for word in ("offline", "online") * 3:
        turn(root, word)
        names = {name for name in os.listdir(directory) if name.startswith("conflict")}

        assert int((directory / "count").read_text()) == len(names) == directory.stat().st_nlink - 2
        for name in names:
            assert (directory / name / "kind").read_text()
        assert all((directory / f"conflict{n}").exists() == (f"conflict{n}" in names) for n in range(20))


def test_writers_and_readers_do_not_wait_for_each_other_for_ever(root):
    """Readers that hold directories' locks while a writer has names of them forgotten."""
    done = threading.Event()
    wrong = []

    def walk():
        while not done.is_set():
            for where, _, names in os.walk(root / NODE):
                for name in names:
                    try:
                        os.stat(os.path.join(where, name))
                    except FileNotFoundError:
                        if not where.endswith("x86"):
                            wrong.append(os.path.join(where, name))

    readers = [threading.Thread(target=walk) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        turn(root, "offline")
        seen = (root / VERDICT).exists()
        turn(root, "online")
        if seen or not (root / VERDICT).exists():
            wrong.append(VERDICT)
    done.set()
    for reader in readers:
        reader.join()

    assert [] == wrong


def numbers(root):
    return {
        (entry / "kind").read_text() + (entry / "subject").read_text(): int(entry.name.removeprefix("conflict"))
        for entry in (root / CONFLICTS).iterdir()
        if entry.is_dir()
    }


def test_a_conflict_keeps_its_number_while_it_lasts(root):
    """Conflicts that stay keep their numbers, one that comes gets a new one, and none is ever used twice."""
    before = numbers(root)
    turn(root, "offline")
    without = numbers(root)
    turn(root, "online")
    after = numbers(root)

    assert without.keys() < before.keys() == after.keys()
    assert without == {name: before[name] for name in without} == {name: after[name] for name in without}
    assert min(after[name] for name in after.keys() - without.keys()) > max(before.values())
