"""What stands in a directory: files, links, and what stat(2) says of them."""

from __future__ import annotations

import stat
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from attrs import define, field, frozen

from tdxfs.model import Machine
from tdxfs.sysfs.codec import Records

if TYPE_CHECKING:
    from tdxfs.sysfs.attribute.directory import Directory

UNSET: Any = None
"""Default of what every declaration is given."""


class Tier(Enum):
    """Where an entry comes from; ``--abi`` chooses which are shown."""

    KERNEL = "kernel"
    """Exists in Linux, byte for byte."""
    PROPOSED = "proposed"
    """The ABI that the discussion asks for."""
    EMULATOR = "emulator"
    """Only tdxfs."""


ALL_TIERS = frozenset(Tier)


class Reader(Enum):
    """How read(2) serves a file's text."""

    TEXT = "text"
    """seq_file: any offset, cut at PAGE_SIZE - 1 for sysfs files."""
    CPUMASK = "cpumask"
    """cpumap_print_to_pagebuf(): short reads, EPERM past the end (facts: sysfs-semantics 7.2)."""
    RECORDS = "records"
    """One record per read(2), as /dev/kmsg; at the end 0, not a wait: poll(2) waits for the next one."""
    MEMORY = "memory"
    """A device's memory: bytes at offsets, to be mapped; who opens it for reading only gets what it shows."""
    KVM = "kvm"
    """ioctls, as /dev/kvm."""


@define(eq=False)
class File:
    """A file of the tree: what stat says, and how it is shown."""

    mode: int
    """Type and permission bits."""
    size: int
    show: Callable[[], bytes]
    """The whole content, made anew; raises Refusal when the kernel would."""
    store: Callable[[bytes], Machine]
    """One write(2): the machine that it makes; raises Refusal when the kernel would."""
    reader: Reader = Reader.TEXT
    rdev: int = 0
    sampled: bool = False
    """Whether it speaks of what running tasks hold: they are looked at before it is shown."""
    sources: tuple[str, ...] = ()
    """Files of the running system that `edit` changes into what it shows; none: `show` makes it."""
    edit: Callable[..., str] = UNSET
    """Their texts -> its own."""
    notifies: bool = False
    """Whether poll(2) reports a change of what it shows."""
    records: Callable[[], Records] | None = None
    """What a file of `Reader.RECORDS` is read from."""
    may_open: Callable[[], None] | None = None
    """Raises the Refusal that open(2) gets; None: it opens."""
    nlink: ClassVar[int] = 1
    plain: bool = field(init=False)
    """Whether it is read as a text that its machine alone makes."""
    text: bytes | None = field(default=None, init=False)
    """That text, once it has been shown: a machine never changes."""

    @plain.default
    def _is_plain(self) -> bool:
        return self.reader is Reader.TEXT and not self.sampled and not self.sources


@define(eq=False)
class Link:
    """A symbolic link."""

    to: str
    """The absolute path it leads to."""
    directory: str
    """The path of the directory it is in."""
    mode: ClassVar[int] = stat.S_IFLNK | 0o777
    size: ClassVar[int] = 0
    nlink: ClassVar[int] = 1
    rdev: ClassVar[int] = 0

    @property
    def target(self) -> str:
        """The text of the link, relative as the kernel makes it."""
        return relative(self.to, self.directory)


Entry: TypeAlias = "File | Link | Directory[Any]"


@frozen
class Shape:
    """What stat(2) says of an entry that has no device number."""

    mode: int
    """Type and permission bits."""
    size: int = 0
    nlink: int = 1


@frozen
class Shapes:
    """What is the same in every directory of a class."""

    declared: dict[str, tuple[Shape | None, Callable[[Any], bool] | None, Callable[[Any], Entry | None]]]
    """Name -> its shape, whether it is there in a directory (None: always), and what makes the entry."""
    families: tuple[tuple[Callable[[Any, str], Any], Shape | None, Callable[[Any, str, Any], Entry]], ...]
    """What finds a name's key in a directory, the shape of what has one, and what makes its entry."""


def relative(target: str, directory: str) -> str:
    """The relative link text from `directory` to `target`, as sysfs_create_link() makes it."""
    to, here = target.split("/"), directory.split("/")
    common = 0
    # the target itself is never what both share, not even for a link from below it
    while common < min(len(to) - 1, len(here)) and to[common] == here[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + to[common:])
