"""poll(2) on mounted files, as kernfs and /dev/kmsg answer it."""

import os
import select
import threading

import pytest
from attrs import evolve
from machines import MIXED

from tdxfs.policy import Hotplug, Policies
from tdxfs.server import mounted

TDX = "sys/kernel/mm/tdx"
NODE = "sys/devices/system/node/node2"
BLOCK = "sys/devices/system/memory/memory40/state"
ALWAYS = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
EVENT = select.POLLPRI | select.POLLERR
ALL = ALWAYS | EVENT
PATIENCE = 20_000
"""Milliseconds, after which a wake-up is taken to be lost."""


@pytest.fixture
def root():
    with mounted(evolve(MIXED, policies=Policies(hotplug=Hotplug.ALLOW))) as where:
        yield where


@pytest.fixture
def opened(root):
    descriptors = []

    def opened(path, flags=os.O_RDONLY):
        descriptors.append(os.open(root / path, flags))
        return descriptors[-1]

    yield opened
    for descriptor in descriptors:
        os.close(descriptor)


def poll(descriptor, events=ALL, timeout=0):
    poller = select.poll()
    poller.register(descriptor, events)
    ready = poller.poll(timeout)
    return ready[0][1] if ready else 0


def other(root):
    """Turn a memory block into the other state."""
    state = root / BLOCK
    state.write_text("online" if state.read_text() == "offline\n" else "offline")


@pytest.mark.parametrize("path", [f"{TDX}/conflicts/generation", f"{TDX}/state", f"{NODE}/distance"])
def test_a_descriptor_that_has_not_read_has_an_event(opened, path):
    """POLLPRI and POLLERR from the open to the first read, as every sysfs file has."""
    descriptor = opened(path)

    assert ALL == poll(descriptor)
    os.read(descriptor, 100)
    assert ALWAYS == poll(descriptor)


def test_a_change_wakes_who_sleeps(root, opened):
    """A poll for POLLPRI on the generation returns when another process writes; a read clears it."""
    descriptor = opened(f"{TDX}/conflicts/generation")
    before = int(os.read(descriptor, 100))
    writer = threading.Timer(0.2, other, (root,))
    writer.start()

    assert EVENT == poll(descriptor, select.POLLPRI, PATIENCE)
    assert before + 1 == int(os.pread(descriptor, 100, 0))
    assert ALWAYS == poll(descriptor)
    writer.join()


def test_every_sleeper_is_woken(root, opened):
    """Several descriptors of one file each see each event."""
    descriptors = [opened(f"{TDX}/conflicts/generation") for _ in range(5)]
    for _ in range(10):
        for descriptor in descriptors:
            os.pread(descriptor, 100, 0)
        seen = []
        sleepers = [
            threading.Thread(target=lambda d=d, s=seen: s.append(poll(d, select.POLLPRI, PATIENCE)))
            for d in descriptors
        ]
        for sleeper in sleepers:
            sleeper.start()
        other(root)
        for sleeper in sleepers:
            sleeper.join()

        assert [EVENT] * 5 == seen


def test_a_change_of_something_else_is_no_event(root, opened):
    """The state of TDX does not change with a memory block, and a memory block's state does not notify."""
    descriptors = [opened(f"{TDX}/state"), opened(BLOCK)]
    for descriptor in descriptors:
        os.read(descriptor, 100)

    other(root)

    assert [ALWAYS, ALWAYS] == [poll(descriptor) for descriptor in descriptors]


def test_the_count_notifies_when_it_changes(root, opened):
    """The node that becomes capable takes conflicts with it."""
    descriptor = opened(f"{TDX}/conflicts/count")
    before = int(os.read(descriptor, 100))
    for block in range(64, 80):
        (root / f"sys/devices/system/memory/memory{block}/state").write_text("offline")

    assert ALL == poll(descriptor)
    assert int(os.pread(descriptor, 100, 0)) != before


def test_a_removed_file_has_an_event_for_good(root, opened):
    """POLLIN, POLLPRI and POLLERR, and whoever slept on it is woken."""
    descriptor = opened(f"{NODE}/x86/tdx_capable")
    os.read(descriptor, 100)

    def offline():
        for block in range(64, 80):
            (root / f"sys/devices/system/memory/memory{block}/state").write_text("offline")

    writer = threading.Timer(0.2, offline)
    writer.start()

    assert EVENT == poll(descriptor, select.POLLPRI, PATIENCE)
    assert select.POLLIN | EVENT == poll(descriptor)
    writer.join()


def test_kmsg_is_readable_until_its_end(root, opened):
    """POLLIN while there is a record that this descriptor has not read."""
    descriptor = opened("dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    lines = 0
    while poll(descriptor, select.POLLIN) == select.POLLIN:
        assert os.read(descriptor, 8192).endswith(b"\n")
        lines += 1

    assert (root / "sys/kernel/debug/tdxfs/log").read_text().count("\n") == lines
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 8192)


def test_a_line_written_to_kmsg_wakes_its_readers(root, opened):
    """A record that a program writes is the next one read."""
    descriptor = opened("dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    while poll(descriptor, select.POLLIN):
        os.read(descriptor, 8192)
    writer = threading.Timer(0.2, (root / "dev/kmsg").write_text, ("hello",))
    writer.start()

    assert select.POLLIN == poll(descriptor, select.POLLIN, PATIENCE)
    assert os.read(descriptor, 8192).endswith(b";hello\n")
    writer.join()
