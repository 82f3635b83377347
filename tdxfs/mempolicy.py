"""NUMA memory policies: what the system calls accept and what they answer; compare mm/mempolicy.c.

Arguments come in as system calls pass them: a mode with its flags, a bit mask with `maxnode`. What goes out is a
`MemPolicy`, or a Refusal with Linux's errno. Nothing here knows how the call was caught.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from attrs import evolve, frozen

from tdxfs import nodes
from tdxfs.errors import AccessDenied, InvalidValue, NoDevice, NoEntry, NotPermitted, NotSupported
from tdxfs.idlist import format_list, parse_list
from tdxfs.model import PAGE_SIZE, Machine, MemPolicy, Mode, Task, kernel_at_least
from tdxfs.ranges import Range, align_up

MAX_NUMNODES = 1024
WORD = 64
MODES = tuple(Mode)
"""By number: MPOL_DEFAULT 0 and so on (include/uapi/linux/mempolicy.h)."""
INTERLEAVING = (Mode.INTERLEAVE, Mode.WEIGHTED_INTERLEAVE)
F_STATIC_NODES, F_RELATIVE_NODES, F_NUMA_BALANCING = 1 << 15, 1 << 14, 1 << 13
MODE_FLAGS = F_STATIC_NODES | F_RELATIVE_NODES | F_NUMA_BALANCING
F_NODE, F_ADDR, F_MEMS_ALLOWED = 1, 2, 4
MF_STRICT, MF_MOVE, MF_MOVE_ALL = 1, 2, 4

DEFAULT = MemPolicy()


class System(Protocol):
    """What the rules ask of a kernel: a `States`, or what reads it where it is needed."""

    @property
    def memory(self) -> frozenset[int]: ...
    @property
    def online(self) -> frozenset[int]: ...
    @property
    def nr_node_ids(self) -> int: ...
    @property
    def kernel(self) -> str: ...


@frozen
class States:
    """The nodes as the rules see them."""

    memory: frozenset[int]
    """N_MEMORY: the nodes with memory online."""
    online: frozenset[int]
    nr_node_ids: int
    """Highest possible node + 1."""
    kernel: str
    """The Linux that answers: "6.12"."""


def states(machine: Machine) -> States:
    """The nodes of a machine."""
    return States(
        nodes.has_memory(machine),
        nodes.online_nodes(machine),
        max(nodes.possible_nodes(machine), default=0) + 1,
        machine.topology.kernel,
    )


def mems_allowed(machine: Machine, task: Task) -> frozenset[int]:
    """The nodes with memory that a task may allocate from (``cpuset_current_mems_allowed`` and N_MEMORY)."""
    found = nodes.has_memory(machine)
    for limit in (machine.default_mems, task.mems_allowed):
        if limit is not None and limit & found:
            found &= limit
    return found


# --- masks ----------------------------------------------------------------------------


def mask_size(maxnode: int, null: bool) -> int:
    """
    How many bytes of a caller's mask are read: 0 for none. `maxnode` counts one more than the bits
    (``get_nodes``); InvalidValue for more than a page of them.
    """
    bits = (maxnode - 1) % (1 << WORD)
    if bits == 0 or null:
        return 0
    if bits > PAGE_SIZE * 8:
        raise InvalidValue("the mask is longer than a page")
    return -(-bits // WORD) * (WORD // 8)


def decode_mask(maxnode: int, data: bytes) -> frozenset[int]:
    """The nodes of a mask; InvalidValue if a bit is set that no kernel has a node for."""
    value = int.from_bytes(data, "little")
    if data:
        value &= (1 << (maxnode - 1)) - 1
    if value >> MAX_NUMNODES:
        raise InvalidValue("a node beyond MAX_NUMNODES")
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def encode_mask(maxnode: int, found: Iterable[int], nr_node_ids: int) -> bytes:
    """
    What ``copy_nodes_to_user`` writes into a caller's mask of `maxnode` bits, zeros behind the possible nodes
    included; InvalidValue if it is longer than a page.
    """
    size = align_up(maxnode - 1, WORD) // 8
    if size > PAGE_SIZE and size > align_up(nr_node_ids, WORD) // 8:
        raise InvalidValue("the mask is longer than a page")
    value = sum(1 << nid for nid in found)
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def affinity(mask: bytes, cpus: frozenset[int]) -> frozenset[int]:
    """
    The CPUs that a mask of ``sched_setaffinity`` names of those that are there; InvalidValue if there are none.
    """
    value = int.from_bytes(mask, "little")
    found = frozenset(cpu for cpu in cpus if value >> cpu & 1)
    if not found:
        raise InvalidValue("no CPU of the mask is there")
    return found


# --- the calls ------------------------------------------------------------------------


def sanitize(system: System, word: int) -> MemPolicy:
    """The mode of a word and its flags, without nodes (``sanitize_mpol_flags``); InvalidValue as Linux."""
    word &= 0xFFFFFFFF
    flags, number = word & MODE_FLAGS, word & ~MODE_FLAGS
    if number >= (len(MODES) if kernel_at_least(system.kernel, "6.12") else len(MODES) - 1):
        raise InvalidValue(f"there is no mode {number}")
    mode = MODES[number]
    static, relative, balancing = (bool(flags & f) for f in (F_STATIC_NODES, F_RELATIVE_NODES, F_NUMA_BALANCING))
    if static and relative:
        raise InvalidValue("both static and relative")
    many = (Mode.PREFERRED_MANY,) if kernel_at_least(system.kernel, "6.12") else ()
    if balancing and mode not in (Mode.BIND, *many):
        raise InvalidValue(f"{mode.value} cannot balance")
    return MemPolicy(mode, static=static, relative=relative, balancing=balancing)


def make(system: System, allowed: frozenset[int], word: int, asked: frozenset[int]) -> MemPolicy:
    """
    The policy that a mode with its flags and a mask of nodes make (``mpol_new``, ``mpol_set_nodemask``);
    `allowed` are the nodes with memory that the task may use. InvalidValue as Linux.
    """
    policy = sanitize(system, word)
    mode, flags = policy.mode, policy.static or policy.relative
    if mode is Mode.DEFAULT:
        if asked:
            raise InvalidValue("default takes no nodes")
        return DEFAULT
    if mode is Mode.PREFERRED and not asked:
        if flags:
            raise InvalidValue("prefer without nodes is neither static nor relative")
        mode = Mode.LOCAL
    elif mode is Mode.LOCAL:
        if asked or flags:
            raise InvalidValue("local takes neither nodes nor flags")
    elif not asked:
        raise InvalidValue(f"{mode.value} needs nodes")
    policy = evolve(policy, mode=mode, asked=asked)
    return policy if mode is Mode.LOCAL else _contextualize(policy, allowed)


def _contextualize(policy: MemPolicy, allowed: frozenset[int]) -> MemPolicy:
    found = _onto(policy.asked, allowed) if policy.relative else policy.asked & allowed
    if not found:
        raise InvalidValue("none of the nodes is allowed and has memory")
    return evolve(policy, nodes=frozenset({min(found)}) if policy.mode is Mode.PREFERRED else found)


def _onto(asked: frozenset[int], allowed: frozenset[int]) -> frozenset[int]:
    # mpol_relative_nodemask(): the n-th node of those allowed, numbers folded to how many there are
    order = sorted(allowed)
    return frozenset(order[number % len(order)] for number in asked) if order else frozenset()


def check_mbind(address: int, length: int, mode: int, flags: int, *, privileged: bool) -> tuple[Range | None, int]:
    """
    The range of bytes that ``mbind`` is about, None if it is empty, and its flags in force;
    InvalidValue or NotPermitted as Linux. Mode and mask are `make`'s.
    """
    if flags & ~(MF_STRICT | MF_MOVE | MF_MOVE_ALL):
        raise InvalidValue("unknown flags")
    if flags & MF_MOVE_ALL and not privileged:
        raise NotPermitted("MPOL_MF_MOVE_ALL needs CAP_SYS_NICE")
    if mode & ~MODE_FLAGS == 0:
        flags &= ~MF_STRICT
    return page_range(address, length), flags


def page_range(address: int, length: int) -> Range | None:
    """The pages that a call names, None if it names none; InvalidValue if it begins within one, or wraps around."""
    if address % PAGE_SIZE:
        raise InvalidValue("the address is not page aligned")
    end = (address + align_up(length, PAGE_SIZE)) % (1 << WORD)
    if end < address:
        raise InvalidValue("the range wraps around")
    return Range(address, end) if end > address else None


def check_get(flags: int, address: int, maxnode: int, nr_node_ids: int, *, mask: bool) -> None:
    """InvalidValue for the arguments of ``get_mempolicy`` that Linux refuses whatever the policy is."""
    if mask and maxnode < nr_node_ids:
        raise InvalidValue("the mask is too short for the possible nodes")
    if flags & ~(F_NODE | F_ADDR | F_MEMS_ALLOWED):
        raise InvalidValue("unknown flags")
    if flags & F_MEMS_ALLOWED and flags & (F_NODE | F_ADDR):
        raise InvalidValue("MPOL_F_MEMS_ALLOWED stands alone")
    if not flags & (F_ADDR | F_MEMS_ALLOWED) and address:
        raise InvalidValue("an address without MPOL_F_ADDR")


def mode_word(policy: MemPolicy) -> int:
    """The mode with its flags as ``get_mempolicy`` returns it."""
    flags = ((policy.static, F_STATIC_NODES), (policy.relative, F_RELATIVE_NODES), (policy.balancing, F_NUMA_BALANCING))
    return MODES.index(policy.mode) | sum(flag for on, flag in flags if on)


def shown_nodes(policy: MemPolicy) -> frozenset[int]:
    """The mask that ``get_mempolicy`` returns: of static and relative policies what was asked for."""
    return policy.asked if policy.static or policy.relative else policy.nodes


def policy_at(task: Task, address: int) -> MemPolicy:
    """The policy in force at an address: the mapping's own, else the task's (``get_vma_policy``)."""
    own = task.mappings.get(address)
    return task.policy if own is None else own


def next_node(policy: MemPolicy) -> int:
    """
    The node of the next page of an interleaving task policy, as MPOL_F_NODE alone asks; InvalidValue for others.
    Pages that were taken do not count: it is always the first.
    """
    if policy.mode not in INTERLEAVING:
        raise InvalidValue(f"{policy.mode.value} does not interleave")
    return min(policy.nodes)


def set_home(system: System, policies: Iterable[MemPolicy | None], home: int, flags: int) -> list[MemPolicy | None]:
    """
    The policies of the mappings of a range after ``set_mempolicy_home_node``, in order (None: it has none);
    InvalidValue, NoEntry if none has one, NotSupported if one is neither bind nor prefer (many).
    """
    if flags or home not in system.online:
        raise InvalidValue(f"node {home} is not online")
    changed: list[MemPolicy | None] = []
    for policy in policies:
        if policy is not None and policy.mode not in (Mode.BIND, Mode.PREFERRED_MANY):
            raise NotSupported(f"{policy.mode.value} has no home node")
        changed.append(policy and evolve(policy, home=home))
    if not any(changed):
        raise NoEntry("no mapping of the range has a policy")
    return changed


def check_migrate(allowed: frozenset[int], to: frozenset[int], *, privileged: bool) -> None:
    """Refuse what ``migrate_pages`` refuses: NotPermitted or InvalidValue."""
    if not to <= allowed and not privileged:
        raise NotPermitted("a node that the task may not use")
    if not to & allowed:
        raise InvalidValue("no node to move to")


def check_move(system: System, allowed: frozenset[int], node: int) -> None:
    """Refuse a target node of ``move_pages``: NoDevice if it has no memory, AccessDenied if not allowed."""
    if node not in system.memory:
        raise NoDevice(f"node {node} has no memory")
    if node not in allowed:
        raise AccessDenied(f"node {node} is not allowed")


# --- text -----------------------------------------------------------------------------


def format_policy(policy: MemPolicy) -> str:
    """As numa_maps prints it (``mpol_to_str``): ``bind=static:0-1``."""
    flags = ((policy.static, "static"), (policy.relative, "relative"), (policy.balancing, "balancing"))
    words = "|".join(word for on, word in flags if on)
    shown = f":{format_list(policy.nodes)}" if policy.nodes else ""
    return policy.mode.value + (f"={words}" if words else "") + shown


def parse_policy(text: str) -> MemPolicy:
    """The policy that `format_policy` prints, as if its nodes had been asked for; ValueError if it is none."""
    head, _, listed = text.partition(":")
    word, _, flags = head.partition("=")
    found = parse_list(listed)
    on = set(filter(None, flags.split("|")))
    if not on <= {"static", "relative", "balancing"}:
        raise ValueError(f"{flags!r} are not flags of a policy")
    return MemPolicy(Mode(word), found, found, "static" in on, "relative" in on, "balancing" in on)
