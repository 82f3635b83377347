"""How a class declares its entries: decorators and functions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from tdxfs.model import PAGE_SIZE, Machine
from tdxfs.sysfs.attribute.declarations import (
    Attribute,
    Directories,
    DirectoryClass,
    Edited,
    Files,
    Links,
    LinkTo,
    Subdirectory,
    no_show,
)
from tdxfs.sysfs.attribute.directory import Directory
from tdxfs.sysfs.attribute.entry import Reader, Tier
from tdxfs.sysfs.codec import Codec

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D", bound="Directory[Any]")


def _doc(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split())


def ro(
    codec: Codec[V],
    *,
    name: str = "",
    mode: int = 0o444,
    size: int | Callable[[Machine], int] = PAGE_SIZE,
    reader: Reader = Reader.TEXT,
    tier: Tier = Tier.KERNEL,
    since: str = "",
    until: str = "",
    sampled: bool = False,
    notifies: bool = False,
) -> Callable[[Callable[[D], V]], Attribute[D, V]]:
    """
    A file that is shown, 0444 unless `mode` says otherwise; the function returns its value. Before a `sampled` one
    is shown, the machine learns how much memory its tasks hold.
    """

    def declare(show: Callable[[D], V]) -> Attribute[D, V]:
        return Attribute(
            name=name, doc=_doc(show), tier=tier, since=since, until=until,
            codec=codec, mode=mode, size=size, reader=reader,
            show_value=show, sampled=sampled, notifies=notifies,
        )  # fmt: skip

    return declare


def rw(
    codec: Codec[V],
    *,
    takes: Codec[Any] | None = None,
    name: str = "",
    since: str = "",
    until: str = "",
    mode: int = 0o644,
) -> Callable[[Callable[[D], V]], Attribute[D, V]]:
    """A file that the kernel lets root write, 0644; `takes` is the format of what is written, if it is another."""

    def declare(show: Callable[[D], V]) -> Attribute[D, V]:
        attribute = ro(codec, name=name, mode=mode, since=since, until=until)(show)
        attribute.takes = takes
        return attribute

    return declare


def wo(codec: Codec[V], doc: str, *, since: str = "", until: str = "") -> Attribute[Any, V]:
    """A file that can only be written: 0200."""
    return Attribute(doc=doc, since=since, until=until, codec=codec, mode=0o200, show_value=no_show)


def edited(*templates: str, mode: int = 0o444) -> Callable[[Callable[..., str]], Edited[Any]]:
    """A file made from those of the running system at `templates`; the function gets their texts."""

    def declare(edit: Callable[..., str]) -> Edited[Any]:
        return Edited(doc=_doc(edit), templates=templates, edit=edit, mode=mode)

    return declare


def link(target: Callable[[D], str | None]) -> LinkTo[D]:
    """A symbolic link; the function returns the absolute path it leads to, or None."""
    return LinkTo(doc=_doc(target), target=target)


def subdirectory(
    cls: DirectoryClass, *, name: str = "", tier: Tier = Tier.KERNEL, since: str = "", until: str = ""
) -> Callable[[Callable[[D], bool]], Subdirectory[D]]:
    """A subdirectory over the same key, there when the decorated function says so."""

    def declare(test: Callable[[D], bool]) -> Subdirectory[D]:
        return Subdirectory(name=name, doc=_doc(test), tier=tier, since=since, until=until, cls=cls, is_visible=test)

    return declare


def always(cls: DirectoryClass, *, name: str = "", tier: Tier = Tier.KERNEL, since: str = "") -> Subdirectory[Any]:
    """A subdirectory over the same key that is always there."""
    return Subdirectory(name=name, doc=_doc(cast(Any, cls)), tier=tier, since=since, cls=cls)


def directories(
    template: str, cls: DirectoryClass, *, nested: bool = False, text: bool = False, tier: Tier = Tier.KERNEL
) -> Callable[[Callable[[D], Collection[Any]]], Directories[D]]:
    """
    A family of subdirectories, one per key that the decorated function returns;
    `nested` ones get (this directory's key, their own) as theirs.
    """

    def declare(keys: Callable[[D], Collection[Any]]) -> Directories[D]:
        return Directories(doc=_doc(keys), tier=tier, template=template, keys=keys, cls=cls, nested=nested, text=text)

    return declare


def links(
    template: str, to: Callable[[Machine, Any], str], *, text: bool = False
) -> Callable[[Callable[[D], Collection[Any]]], Links[D]]:
    """A family of links, one per key, to the path that ``to(machine, key)`` gives."""

    def declare(keys: Callable[[D], Collection[Any]]) -> Links[D]:
        return Links(doc=_doc(keys), template=template, keys=keys, to=to, text=text)

    return declare


def files(
    template: str,
    codec: Codec[Any],
    *,
    takes: Codec[Any] | None = None,
    mode: int = 0o444,
    size: int = PAGE_SIZE,
    tier: Tier = Tier.KERNEL,
    since: str = "",
) -> Callable[[Callable[[D], Collection[Any]]], Files[D]]:
    """A family of files, one per key; `Files.shows` gives their values."""

    def declare(keys: Callable[[D], Collection[Any]]) -> Files[D]:
        return Files(
            doc=_doc(keys), tier=tier, since=since, template=template, keys=keys,
            codec=codec, takes=takes, mode=mode, size=size,
        )  # fmt: skip

    return declare
