"""Tasks and their memory policies, and guests and their memory."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import Factory, frozen
from immutables import Map

from tdxfs.ranges import Range, Ranges, RunMap


class Mode(Enum):
    """A memory policy's mode, spelled as in ``numa_maps``; compare include/uapi/linux/mempolicy.h."""

    DEFAULT = "default"
    PREFERRED = "prefer"
    BIND = "bind"
    INTERLEAVE = "interleave"
    LOCAL = "local"
    PREFERRED_MANY = "prefer (many)"
    WEIGHTED_INTERLEAVE = "weighted interleave"


@frozen
class MemPolicy:
    """A NUMA policy of a task or of a mapping, as the kernel keeps it."""

    mode: Mode = Mode.DEFAULT
    nodes: frozenset[int] = frozenset()
    """The nodes in force: what was asked for, cut to the nodes with memory that are allowed."""
    asked: frozenset[int] = frozenset()
    """The nodes as they were asked for; static and relative ones are computed from them again."""
    static: bool = False
    relative: bool = False
    balancing: bool = False
    home: int | None = None
    """``set_mempolicy_home_node``."""


@frozen
class Task:
    """A process or thread of the emulated machine whose policy calls it answers."""

    pid: int
    """As the mount's own pid namespace numbers it; a thread's is its tid."""
    name: str = ""
    leader: int = 0
    """The process that a thread belongs to; 0: it is a process."""
    policy: MemPolicy = MemPolicy()
    mappings: RunMap[MemPolicy] = RunMap()
    """Address -> policy of the mappings that have their own (mbind)."""
    moved: RunMap[int] = RunMap()
    """Address -> node of the pages that were moved (move_pages, migrate_pages)."""
    mems_allowed: frozenset[int] | None = None
    """None: every node with memory."""
    cpus: frozenset[int] | None = None
    """CPUs that it may run on when they are online (sched_setaffinity); None: every CPU."""
    resident: Mapping[int, int] = Factory(dict)
    """Node -> anonymous pages, when somebody last looked."""
    interleaved: Mapping[int, int] = Factory(dict)
    """Node -> those of them that an interleaving policy put there."""


class Backs(Enum):
    """What stands behind guest memory."""

    DAX = "dax"
    """A dax device's own pages."""
    BAR = "bar"
    """A PCI BAR."""
    ANON = "anon"
    """Anonymous memory: pages are allocated at the first touch, under the mapping's or the task's policy."""
    SHMEM = "shmem"
    """Shared memory (tmpfs, memfd, shared anonymous): likewise."""
    PAGECACHE = "pagecache"
    """Any other file: its pages are allocated under the task's policy."""
    GUEST_MEMFD = "guest_memfd"
    """``KVM_CREATE_GUEST_MEMFD``: unmovable pages, allocated at the first touch."""

    @property
    def of_a_device(self) -> bool:
        """Whether its pages are known before anybody touches them."""
        return self in (Backs.DAX, Backs.BAR)


@frozen
class Stretch:
    """A part of a memory slot that one thing backs; all numbers are bytes."""

    range: Range
    """Offsets from the slot's first byte."""
    kind: Backs
    object: str = ""
    """
    ``dax0.0``, a BAR as ``0000:17:00.0/resource2``, a guest_memfd by its name; empty for whatever else the
    allocator backs.
    """
    offset: int = 0
    """Where in the object it begins."""
    spelled: str = ""
    """The path by which the program mapped it, if it did."""


@frozen
class Frames:
    """Pages of a slot and where in host memory they are; all numbers are bytes."""

    offset: int
    size: int
    hpa: int


@frozen
class Memslot:
    """A memory slot of a guest (``struct kvm_userspace_memory_region2``); all numbers are bytes."""

    id: int
    gpa: int
    """First guest physical address."""
    size: int
    address: int = 0
    """``userspace_addr``."""
    flags: int = 0
    backing: tuple[Stretch, ...] = ()
    """Sorted by offset; what no stretch names is not mapped."""
    touched: Ranges = Ranges()
    """Offsets of the pages that the TD has."""
    pages: Ranges = Ranges()
    """Host physical memory that is behind it, devices' pages included."""
    resident: tuple[Frames, ...] = ()
    """Pages that were allocated before the slot was set."""
    pledged: bool = False
    """Admitted under validate=pledge: changes that could kill the guest are declined."""

    @property
    def guest_range(self) -> Range:
        return Range(self.gpa, self.gpa + self.size)


@frozen
class Record:
    """What was impossible, and what to do next time: a guest's death or a refusal."""

    kind: str
    """A `Why`, or ``owned``, ``policy``, ``out-of-memory``, ``mapping``, ``undermined``."""
    reason: str
    """One sentence."""
    remedy: str
    """A command, or ``none:`` and why there is none."""
    slot: int | None = None
    gpa: int | None = None
    hpa: int | None = None
    node: int | None = None
    dax: str = ""
    policy: str = ""
    """The NUMA policy in force, as ``numa_maps`` prints it; empty where none matters."""
    seamcall: str = ""
    code: int = 0
    """What the SEAMCALL returned."""
    errno: str = ""
    """Name of the errno that the caller saw."""


class Life(Enum):
    """Where a guest is in its life."""

    RUNNING = "running"
    DEAD = "dead"
    """A SEAMCALL failed (``vm_dead``): every ioctl is EIO."""
    ENDED = "ended"
    """Its last descriptor was closed while it was running."""


@frozen
class Memfd:
    """A guest_memfd of a guest."""

    size: int
    """Bytes."""
    policies: RunMap[MemPolicy] = RunMap()
    """Offsets of the file -> the policy that mbind() of a mapping gave them."""


@frozen
class Guest:
    """A TD, as KVM knows it."""

    name: str
    """``PID-N``: the N-th guest of that process."""
    pid: int
    command: str = ""
    """The command line of the process that made it."""
    life: Life = Life.RUNNING
    open: bool = True
    """Whether a descriptor of it is open: it holds memory and a KeyID."""
    slots: Map[int, Memslot] = Map()
    layout: RunMap[int] = RunMap()
    """Guest physical address -> id of the slot that holds it."""
    memfds: Map[str, Memfd] = Map()
    """``DEVICE:INODE``, as ``/proc/PID/maps`` names the file -> its guest_memfd."""
    private: Ranges = Ranges()
    """Guest physical addresses with the PRIVATE attribute."""
    finalized: bool = False
    """``KVM_TDX_FINALIZE_VM``: no more initial memory."""
    death: Record | None = None
    refusals: tuple[Record, ...] = ()
    """The last ones."""
    refused: int = 0
    """How many there were."""

    @property
    def pages(self) -> Ranges:
        """Host physical memory that it holds, devices' pages included."""
        return Ranges.of(part for slot in self.slots.values() for part in slot.pages)

    @property
    def size(self) -> int:
        """Bytes of all its slots."""
        return sum(slot.size for slot in self.slots.values())
