"""CPUs that go offline and online; compare kernel/cpu.c, drivers/base/cpu.c."""

from __future__ import annotations

from collections.abc import Iterable

from tdxfs.errors import InvalidValue, NoDevice, NotPermitted
from tdxfs.model import Machine, changed

SMT = ("on", "off", "forceoff")


def set_online(machine: Machine, cpus: Iterable[int], online: bool) -> Machine:
    """Bring CPUs online or take them offline; those that are so already stay so."""
    some = frozenset(cpus)
    after = machine.cpus_online | some if online else machine.cpus_online - some
    if after == machine.cpus_online:
        return machine
    records = {name: text for name, text in machine.records.items() if name != "cpuinfo"}
    return changed(machine, cpus_online=after, records=records)


def set_smt(machine: Machine, word: str) -> Machine:
    """
    Switch the second threads of all cores on or off: NotPermitted after forceoff, NoDevice on a machine without
    any, InvalidValue for another word (``store_smt_control``).
    """
    if machine.smt == "forceoff":
        raise NotPermitted("simultaneous multithreading was switched off for good")
    siblings = [cpu.id for cpu in machine.topology.cpus if cpu.thread]
    if not siblings:
        raise NoDevice("no core has a second thread")
    if word not in SMT:
        raise InvalidValue(f"{word!r} is not one of {', '.join(SMT)}")
    return changed(set_online(machine, siblings, word == "on"), smt=word)
