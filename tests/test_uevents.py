"""uevents: derived from what a change has changed, read as a stream."""

import json
import os
import select
import threading

from attrs import evolve
from machines import MIXED, booted
from test_cached import kmem, split

from tdxfs.model import UEVENTS_KEPT, Block, Zone
from tdxfs.root import Root
from tdxfs.server import mounted
from tdxfs.tree import Tree

STREAM = "sys/kernel/debug/tdxfs/uevents"
BLOCK = "sys/devices/system/memory/memory40"


def events(*changes):
    """Action and path of the uevents that changes of a small machine send, and the last one whole."""
    tree = Tree(Root, booted(MIXED))
    for change in changes:
        tree.apply(change)
    said = [json.loads(line) for line in tree.read("/" + STREAM).splitlines()]
    assert [event["SEQNUM"] for event in said] == list(range(1, len(said) + 1))
    return [(event["ACTION"], event["DEVPATH"].rpartition("/")[2]) for event in said], said[-1] if said else None


def test_kmem_takes_a_device():
    """The node, its blocks and their going online come before the driver is bound, as kmem's probe works."""
    blocks = [f"memory{number}" for number in range(96, 104)]

    said, last = events(kmem)

    assert [
        ("unbind", "dax0.0"),
        ("add", "node3"),
        *(("add", block) for block in blocks),
        *(("online", block) for block in blocks),
        ("bind", "dax0.0"),
    ] == said
    assert {
        "SEQNUM": 19,
        "ACTION": "bind",
        "DEVPATH": "/devices/platform/hmem_platform.0/hmem.0/dax0.0",
        "SUBSYSTEM": "dax",
        "MAJOR": "251",
        "MINOR": "0",
        "DEVNAME": "dax0.0",
        "DRIVER": "kmem",
        "MODALIAS": "dax:t0",
    } == last


def test_a_device_is_made_and_removed():
    """A new device is announced without a driver, then bound; an old one is unbound before it is removed."""
    made, _ = events(split)
    removed, last = events(split, lambda machine: evolve(machine, dax=machine.dax.delete((0, 1))))

    assert [("add", "dax0.1"), ("bind", "dax0.1")] == made
    assert [*made, ("unbind", "dax0.1"), ("remove", "dax0.1")] == removed
    assert "DRIVER" not in last


def test_cpus_and_nodes():
    """A CPU goes offline and online again; the last block of a node takes the node with it."""
    gone = range(64, 80)

    assert ([("offline", "cpu3"), ("online", "cpu3")], "processor") == (
        (
            said := events(
                lambda machine: evolve(machine, cpus_online=machine.cpus_online - {3}),
                lambda machine: evolve(machine, cpus_online=machine.cpus_online | {3}),
            )
        )[0],
        said[1]["DRIVER"],
    )
    assert [
        *(("offline", f"memory{number}") for number in gone),
        *(("remove", f"memory{number}") for number in gone),
        ("remove", "node2"),
    ] == events(lambda machine: evolve(machine, blocks=machine.blocks.remove(64, 80)))[0]


def test_a_write_to_a_uevent_file_sends_one():
    """The device's own lines, the UUID that was given or 0, and the arguments; of a bus or driver too."""
    tree = Tree(Root, booted(MIXED))
    tree.write("/sys/bus/dax/devices/dax0.0/uevent", b"change")
    tree.write("/sys/devices/system/cpu/cpu1/uevent", b"add 0f8fad5b-d9cb-469f-a165-70867728950e A=1 B=2\n")
    tree.write("/sys/bus/dax/drivers/kmem/uevent", b"remove")

    said = [json.loads(line) for line in tree.read("/" + STREAM).splitlines()]

    assert [
        ("change", "dax", "0"),
        ("add", "cpu", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("remove", "drivers", "0"),
    ] == [(event["ACTION"], event["SUBSYSTEM"], event["SYNTH_UUID"]) for event in said]
    assert ("dax0.0", "1", "2") == (said[0]["DEVNAME"], said[1]["SYNTH_ARG_A"], said[1]["SYNTH_ARG_B"])


def test_only_the_newest_are_kept():
    """Numbers go on when the oldest are forgotten."""
    tree = Tree(Root, booted(MIXED))
    states = [Block((2,), online, Zone.NORMAL) for online in (False, True)]
    for turn in range(UEVENTS_KEPT // 16 + 2):
        tree.apply(lambda machine, turn=turn: evolve(machine, blocks=machine.blocks.assign(64, 80, states[turn % 2])))

    kept = [json.loads(line)["SEQNUM"] for line in tree.read("/" + STREAM).splitlines()]

    assert list(range(33, UEVENTS_KEPT + 33)) == kept


def test_a_reader_waits_for_an_event():
    """poll(2) on the stream returns when a write of another process has sent one; each read gives one."""
    with mounted(MIXED) as root:
        stream = os.open(root / STREAM, os.O_RDONLY | os.O_NONBLOCK)
        poller = select.poll()
        poller.register(stream, select.POLLIN)
        assert [] == poller.poll(0)
        for action in ("offline", "online"):
            writer = threading.Timer(0.1, (root / BLOCK / "state").write_text, (action,))
            writer.start()

            assert [(stream, select.POLLIN)] == poller.poll(20_000)
            event = json.loads(os.read(stream, 8192))
            writer.join()

            assert (action, "/devices/system/memory/memory40", "memory") == (
                event["ACTION"],
                event["DEVPATH"],
                event["SUBSYSTEM"],
            )
            assert [] == poller.poll(0)
        os.close(stream)
