"""uevents: what the kernel tells udev, derived from what a change has changed; compare lib/kobject_uevent.c."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from tdxfs import delta
from tdxfs.model import Machine, Uevent, changed
from tdxfs.ring import Ring
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, File

Root = Callable[[Machine], Directory[Any]]


@frozen
class _Happened:
    action: str
    path: str
    """Below the root of the tree."""
    subsystem: str
    on: Machine
    """The machine whose ``uevent`` file says the rest."""
    without: str = "\0"
    """Start of the lines of that file that are not said."""


def following(old: Machine, new: Machine, root: Root) -> Ring[Uevent]:
    """
    The uevents of `new`, which follows `old`: those of `old` that are still kept, those that a store asked for and
    those of what differs, in the kernel's order: what goes before what comes, a driver's own work before its bind.
    """
    if old.tdx is not new.tdx:
        return new.uevents  # it has booted again
    events = [
        Uevent(happened.action, happened.path.removeprefix("/sys"), happened.subsystem, _lines(happened, root))
        for happened in _differences(old, new)
    ]
    return new.uevents.extended(events) if events else new.uevents


def with_uevent(machine: Machine, action: str, path: str, subsystem: str, lines: tuple[str, ...]) -> Machine:
    """The machine after its kernel has sent one uevent about what is at a path of the tree."""
    event = Uevent(action, path.removeprefix("/sys"), subsystem, lines)
    return changed(machine, uevents=machine.uevents.extended((event,)))


def _lines(happened: _Happened, root: Root) -> tuple[str, ...]:
    entry: Any = root(happened.on)
    for name in (*happened.path.split("/")[1:], "uevent"):
        entry = entry.lookup(name) if isinstance(entry, Directory) else None
    if not isinstance(entry, File):
        return ()
    return tuple(line for line in entry.show().decode().splitlines() if not line.startswith(happened.without))


def _differences(old: Machine, new: Machine) -> Iterator[_Happened]:
    blocks = [(number, old.blocks.get(number), new.blocks.get(number)) for number in delta.blocks(old, new)]
    for number, was, now in blocks:
        if was is not None and was.online and not (now is not None and now.online):
            yield _Happened("offline", paths.memory_block(old, number), "memory", old)
    for number, was, now in blocks:
        if was is not None and now is None:
            yield _Happened("remove", paths.memory_block(old, number), "memory", old)
    nodes = sorted(delta.online_nodes(old, new))
    for node in nodes:
        if node not in new.node_blocks and node in old.node_blocks:
            yield _Happened("remove", paths.node(old, node), "node", old)
    for cpu in delta.cpus(old, new):
        yield _Happened("online" if cpu in new.cpus_online else "offline", paths.cpu(new, cpu), "cpu", new)
    yield from _dax_gone(old, new)
    for node in nodes:
        if node in new.node_blocks and node not in old.node_blocks:
            yield _Happened("add", paths.node(new, node), "node", new)
    for number, was, now in blocks:
        if was is None and now is not None:
            yield _Happened("add", paths.memory_block(new, number), "memory", new)
    for number, was, now in blocks:
        if now is not None and now.online and not (was is not None and was.online):
            yield _Happened("online", paths.memory_block(new, number), "memory", new)
    yield from _dax_come(old, new)


def _dax_gone(old: Machine, new: Machine) -> Iterator[_Happened]:
    for key in delta.dax(old, new):
        was, now = old.dax.get(key), new.dax.get(key)
        if was is not None and was.driver is not None and (now is None or now.driver is not was.driver):
            yield _Happened("unbind", paths.dax(old, key), "dax", old, "DRIVER=")
        if was is not None and now is None:
            yield _Happened("remove", paths.dax(old, key), "dax", old, "DRIVER=")


def _dax_come(old: Machine, new: Machine) -> Iterator[_Happened]:
    for key in delta.dax(old, new):
        was, now = old.dax.get(key), new.dax.get(key)
        if was is None and now is not None:
            yield _Happened("add", paths.dax(new, key), "dax", new, "DRIVER=")
        if now is not None and now.driver is not None and (was is None or now.driver is not was.driver):
            yield _Happened("bind", paths.dax(new, key), "dax", new)


def format_uevent(number: int, event: Uevent) -> str:
    """One line of JSON: SEQNUM, ACTION, DEVPATH, SUBSYSTEM and the lines of the device's uevent file."""
    import json

    lines = dict(line.partition("=")[::2] for line in event.lines)
    said = {"SEQNUM": number, "ACTION": event.action, "DEVPATH": event.path, "SUBSYSTEM": event.subsystem, **lines}
    return json.dumps(said) + "\n"
