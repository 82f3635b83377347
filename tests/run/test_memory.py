"""A thread's memory through /proc, for as long as the thread waits for an answer."""

import ctypes
import os

import pytest

from tdxfs.caller import parse_maps
from tdxfs.errors import BadAddress, NoProcess
from tdxfs.model import PAGE_SIZE
from tdxfs.sandbox.memory import Processes


@pytest.fixture
def proc():
    descriptor = os.open("/proc", os.O_PATH)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def there():
    return ctypes.create_string_buffer(b"before")


def test_who_waits(proc, there):
    """Bytes are read and written, and an address where nothing is mapped is refused."""
    processes = Processes(proc, lambda: True)
    address = ctypes.addressof(there)
    processes.write(os.getpid(), address, b"after\0")

    assert ("after", b"after\0") == (processes.string(os.getpid(), address), there.raw[:6])
    with pytest.raises(BadAddress):
        processes.read(os.getpid(), 1, 1)


def test_who_waits_no_more(proc, there):
    """The memory of a thread that has not waited for its answer is left alone: its number may be another's by now."""
    processes = Processes(proc, lambda: False)

    with pytest.raises(NoProcess):
        processes.write(os.getpid(), ctypes.addressof(there), b"after\0")
    assert there.value == b"before"


def test_what_proc_says(proc):
    """Who a thread's process is, its name and parent, and what it holds and has mapped, to the end."""
    processes = Processes(proc)

    assert os.getpid() == processes.leader(os.getpid())
    with open("/proc/self/comm", encoding="utf-8") as file:
        assert (file.read().rstrip("\n"), os.getppid()) == processes.origin(os.getpid())
    assert 0 < processes.anonymous(os.getpid())
    with open("/proc/self/maps", encoding="utf-8") as file:
        text = file.read()
    assert len(text) > PAGE_SIZE
    assert parse_maps(text)[-1] == processes.maps(os.getpid())[-1]
    with pytest.raises(NoProcess):
        processes.leader(1 << 30)
