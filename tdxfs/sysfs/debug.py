"""``/sys/kernel/debug/tdxfs``: what only the emulator has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from tdxfs.errors import InvalidValue
from tdxfs.faults import Fault, parse
from tdxfs.kmsg import format_dmesg
from tdxfs.model import Machine
from tdxfs.policy import Axis, parse_axis
from tdxfs.ranges import Range
from tdxfs.sysfs.attribute import Directory, Reader, Tier, ro, rw, wo
from tdxfs.sysfs.codec import LINE, RECORDS, TEXT, WORD, Codec, Records, kstrto
from tdxfs.transitions.hotplug import plug_cxl, plug_memory, unplug
from tdxfs.transitions.policy import reboot
from tdxfs.uevents import format_uevent
from tdxfs.zonelists import zonelists

VERBS = {"plug": ("node", "base", "size"), "unplug": ("base",)}
"""Verb of a hotplug request -> the numbers that it takes."""
KINDS = {"memory": plug_memory, "cxl": plug_cxl}
"""What can be plugged; a memory module unless it is said."""


@frozen
class Request:
    """One line that was written to `hotplug`."""

    verb: str
    numbers: Mapping[str, int]
    kind: str = "memory"

    def __str__(self) -> str:
        kind = f" kind={self.kind}" if self.kind != "memory" else ""
        return f"{self.verb}{kind}" + "".join(
            f" {name}={value if name == 'node' else hex(value)}" for name, value in self.numbers.items()
        )


def _request(text: str) -> Request:
    verb, *words = text.split()
    fields = dict(word.split("=", 1) for word in words)
    kind = fields.pop("kind", "memory")
    if verb not in VERBS or kind not in KINDS or fields.keys() != set(VERBS[verb]):
        raise ValueError(text)
    return Request(verb, {name: kstrto(fields[name], 0, 64) for name in VERBS[verb]}, kind)


REQUEST: Codec[Request] = Codec(
    "plug [kind=memory|cxl] node=<id> base=<address> size=<bytes>, or unplug base=<address>", str, _request
)


def _axes(text: str) -> dict[str, Axis]:
    words = [word.partition("=") for word in text.split()]
    return {name: parse_axis(name, value) for name, _, value in words}


AXES: Codec[dict[str, Axis]] = Codec(
    "policies to boot with, AXIS=VALUE",
    lambda policies: " ".join(f"{name}={value}" for name, value in policies.items()),
    _axes,
)


def _scan_faults(text: str) -> tuple[Fault, ...]:
    lines = (line.partition(": ") for line in text.splitlines())
    return tuple(evolve(parse(fault), number=int(number)) for number, _, fault in lines)


def _fault(text: str) -> Fault | int | None:
    verb, _, rest = text.strip().partition(" ")
    if verb == "clear" and not rest:
        return None
    return int(rest) if verb == "remove" else parse(text)


FAULTS: Codec[tuple[Fault, ...]] = Codec(
    "faults, a line each",
    lambda faults: "".join(f"{fault.number}: {fault}\n" for fault in faults),
    _scan_faults,
    newline="",
)
FAULT: Codec[Fault | int | None] = Codec("a fault, remove NUMBER or clear", str, _fault)


class TdxfsDir(Directory[Any]):
    """About the emulated machine itself."""

    WHAT = "/sys/kernel/debug/tdxfs"
    TIER = Tier.EMULATOR

    @ro(TEXT, size=0)
    def log(self) -> str:
        """The emulated kernel log as dmesg prints it, whole."""
        return format_dmesg(self.machine.log)

    @ro(RECORDS, size=0, reader=Reader.RECORDS)
    def uevents(self) -> Records:
        """
        What the kernel tells udev, one JSON object per line and read. At the end a read returns 0, EAGAIN with
        O_NONBLOCK, and poll waits for the next one; EPIPE once where the oldest are no longer kept.
        """
        return Records(self.machine.uevents, format_uevent, self.machine.uevents.first + 1)

    @rw(FAULTS, takes=FAULT)
    def faults(self) -> tuple[Fault, ...]:
        """
        Faults in force, a line each: its number, a colon, open, read, write or list, a pattern of paths, and
        errno=NAME, delay=SECONDS, short=BYTES or vanish, with nth=N, every=N, chance=FRACTION and seed=N. A line
        without a number adds one; remove NUMBER takes it back, clear all.
        """
        return self.machine.faults

    @faults.store
    def _set_faults(self, what: Fault | int | None) -> Machine:
        faults = self.machine.faults
        if isinstance(what, Fault):
            number = faults[-1].number + 1 if faults else 1
            return evolve(self.machine, faults=(*faults, evolve(what, number=number)))
        if what is not None and what not in {fault.number for fault in faults}:
            raise InvalidValue(f"there is no fault {what}")
        return evolve(self.machine, faults=tuple(f for f in faults if what is not None and f.number != what))

    @ro(LINE)
    def topology(self) -> str:
        """Name of the topology."""
        return self.machine.topology.name

    @ro(WORD)
    def kernel(self) -> str:
        """The kernel that is emulated."""
        return self.machine.topology.kernel

    @ro(TEXT, size=0)
    def zonelists(self) -> str:
        """One line per online node: in which order its allocations try the nodes with memory."""
        return "".join(f"{nid}: {' '.join(map(str, order))}\n" for nid, order in zonelists(self.machine).items())

    hotplug = wo(
        REQUEST,
        f"One request: {REQUEST}. EINVAL for memory that the machine cannot take there, EEXIST where something is, "
        "ENODEV if nothing is plugged at base, EBUSY for what cannot go.",
    )

    @hotplug.store
    def _hotplug(self, request: Request) -> Machine:
        numbers = request.numbers
        if request.verb == "unplug":
            return unplug(self.machine, numbers["base"])
        if not numbers["size"]:
            raise InvalidValue("a size of 0")
        memory = Range(numbers["base"], numbers["base"] + numbers["size"])
        return KINDS[request.kind](self.machine, numbers["node"], memory)

    reboot = wo(AXES, "Boots the same machine again, under the policies written: AXIS=VALUE, separated by blanks.")

    @reboot.store
    def _reboot(self, axes: dict[str, Any]) -> Machine:
        return reboot(self.machine, evolve(self.machine.policies, **axes))


FAULTS_PATH = f"{TdxfsDir.WHAT[1:]}/faults"
"""The one file that no fault is met at."""
DIRECTORIES = (TdxfsDir,)
