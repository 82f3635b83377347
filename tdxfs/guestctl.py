"""The guests' control language: every event in the life of a guest is one line of text.

The ioctls of ``/dev/kvm`` and the command line write such lines to ``guests/control`` below
``/sys/kernel/debug/tdxfs``, so that whoever records writes can play a machine again. Numbers are bytes, decimal
or with 0x::

    create 4711-0 qemu-system-x86_64 -m 2G
    set 4711-0 slot=0 gpa=0 size=0x200000 address=0x7f0000000000 flags=0 backing=0-200000:dax:0::dax0.0
    touch 4711-0 gpa=0 size=0x1000
    close 4711-0

Each element of a backing is ``START-END:KIND:OFFSET:PATH:OBJECT``: offsets in the slot (hexadecimal, end
exclusive), a `Backs`, where in the object it begins (hexadecimal), how the program spelled its path (quoted as
in a URL), and the object. ``resident=`` takes offsets of pages that are allocated. ``memfd`` makes a guest_memfd,
and ``mbind`` gives a part of it a policy, which is quoted as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from urllib.parse import quote, unquote

from tdxfs import guests, pledge, tasks
from tdxfs.errors import InvalidValue
from tdxfs.idlist import parse_list
from tdxfs.mempolicy import MODES, make, mems_allowed, states
from tdxfs.model import Backs, Machine, MemPolicy, Memslot, Mode, Stretch, Task
from tdxfs.ranges import Range, Ranges

CONTROL = "/sys/kernel/debug/tdxfs/guests/control"
NAME = re.compile(r"[1-9][0-9]*-(0|[1-9][0-9]*)")
WORDS = {mode.value.replace(" (", "-").rstrip(")").replace(" ", "-"): mode for mode in Mode}
"""How a person writes the mode of a memory policy: ``bind``, ``prefer-many``, ``weighted-interleave``."""


def command(machine: Machine, line: str) -> Machine:
    """The machine after one line of control; InvalidValue if it is none, else whatever the event is refused with."""
    verb, _, rest = line.strip().partition(" ")
    name, _, rest = rest.strip().partition(" ")
    if verb not in VERBS or not NAME.fullmatch(name):
        raise InvalidValue(f"{line!r} is not VERB PID-N …, VERB one of {', '.join(VERBS)}")
    if verb == "create":
        return guests.create(machine, name, rest.strip())
    words = dict(word.partition("=")[::2] for word in rest.split())
    try:
        return VERBS[verb](machine, name, words)
    except (ValueError, KeyError) as error:
        raise InvalidValue(f"{line!r}: {error}") from error


def _number(words: dict[str, str], name: str, default: str | None = None) -> int:
    number = int(words.get(name, default) if default is not None else words[name], 0)
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{name} does not fit 64 bits")
    return number


def _set(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    slot = Memslot(
        _number(words, "slot"),
        _number(words, "gpa"),
        _number(words, "size"),
        _number(words, "address", "0"),
        _number(words, "flags", "0"),
        parse_backing(words.get("backing", "")),
    )
    return guests.set_slot(
        machine, name, slot, Ranges.of(map(_range, filter(None, words.get("resident", "").split(","))))
    )


def _remap(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    return guests.remap(machine, name, _number(words, "slot"), parse_backing(words.get("backing", "")))


def _touch(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    return guests.touch(machine, name, _number(words, "gpa"), _number(words, "size"))


def _add(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    return guests.add_memory(machine, name, _number(words, "gpa"), _number(words, "size"))


def _memfd(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    return guests.create_memfd(machine, name, words["file"], _number(words, "size"))


def _mbind(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    policy = tasks.parse_whole(unquote(words["policy"]))
    start = _number(words, "offset")
    return pledge.bind_memfd(machine, name, words["file"], Range(start, start + _number(words, "size")), policy)


def memfd_bound(name: str, file: str, where: Range, policy: MemPolicy) -> str:
    """The line for an mbind() of a mapping of a guest_memfd; `where` are offsets of the file."""
    text = quote(tasks.format_whole(policy))
    return f"mbind {name} file={file} offset={where.start:#x} size={where.size:#x} policy={text}"


def _attributes(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    private = _number(words, "private") != 0
    return guests.set_attributes(machine, name, _number(words, "gpa"), _number(words, "size"), private=private)


def _finalize(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    return guests.finalize(machine, name)


def _close(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    return guests.close(machine, name)


def _policy(machine: Machine, name: str, words: dict[str, str]) -> Machine:
    # set_mempolicy() or mbind() of a process that does not run on the emulated machine
    pid = int(name.partition("-")[0])
    policy = parse_policy(machine, pid, words["policy"])
    if "address" not in words:
        return tasks.tell(machine, tasks.policy_set(pid, pid, policy))
    start = _number(words, "address")
    return tasks.tell(machine, tasks.mapping_set(pid, Range(start, start + _number(words, "size")), policy))


VERBS: dict[str, Callable[[Machine, str, dict[str, str]], Machine]] = {
    "create": lambda machine, name, words: machine,
    "set": _set,
    "remap": _remap,
    "touch": _touch,
    "add": _add,
    "attributes": _attributes,
    "finalize": _finalize,
    "close": _close,
    "memfd": _memfd,
    "mbind": _mbind,
    "policy": _policy,
}
"""The events, each with what follows the guest's name."""


def parse_policy(machine: Machine, pid: int, text: str) -> MemPolicy:
    """The policy that ``bind:0-1`` makes for a process; ValueError or InvalidValue if it makes none."""
    word, _, nodes = text.partition(":")
    if word not in WORDS:
        raise ValueError(f"policy {text!r}: must be one of {', '.join(WORDS)}, with :NODES where it takes nodes")
    allowed = mems_allowed(machine, machine.tasks.get(pid) or Task(pid))
    return make(states(machine), allowed, MODES.index(WORDS[word]), parse_list(nodes))


def format_backing(backing: Iterable[Stretch]) -> str:
    """The backing of a slot as the control language writes it."""
    return ",".join(
        f"{one.range.start:x}-{one.range.end:x}:{one.kind.value}:{one.offset:x}:{quote(one.spelled)}:{one.object}"
        for one in backing
    )


def parse_backing(text: str) -> tuple[Stretch, ...]:
    """The stretches that such a text names, sorted; ValueError if they overlap or are none."""
    found = []
    for element in filter(None, text.split(",")):
        where, kind, offset, spelled, name = element.split(":", 4)
        found.append(Stretch(_range(where), Backs(kind), name, int(offset, 16), unquote(spelled)))
    found.sort(key=lambda one: one.range.start)
    if any(one.range.end > other.range.start for one, other in pairwise(found)):
        raise ValueError("stretches overlap")
    return tuple(found)


def format_ranges(ranges: Ranges) -> str:
    """Offsets as ``resident=`` takes them."""
    return ",".join(f"{part.start:x}-{part.end:x}" for part in ranges)


def _range(text: str) -> Range:
    start, _, end = text.partition("-")
    return Range(int(start, 16), int(end, 16))
