"""Every declared file, on every kind of machine: documented, one page, and read back by its own codec."""

import stat

import pytest
from hypothesis import given, settings
from strategies import machines

from tdxfs.errors import Refusal
from tdxfs.model import PAGE_SIZE, Machine
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Attribute, Directory, Tier, documented, ro
from tdxfs.sysfs.codec import BINARY, DECIMAL
from tdxfs.sysfs.node import NODE_MEMINFO
from tdxfs.tree import Tree


def classes(cls=Directory):
    """Every class of directory there is."""
    for sub in cls.__subclasses__():
        yield sub
        yield from classes(sub)


DECLARED = {found.what: found for found in documented(cls for cls in classes() if cls.WHAT)}


@pytest.mark.parametrize("what", DECLARED)
def test_documented(what):
    """A declaration has a docstring of whole sentences, and so has its directory."""
    found = DECLARED[what]

    assert found.declared.doc.endswith(".")
    assert found.owner.__doc__.rstrip().endswith(".")


def shown(machine: Machine):
    """Every file of the machine that a codec made: (path, attribute, directory, file)."""
    tree = Tree(Root, machine)
    for path, entry in tree.walk():
        if not isinstance(entry, Directory):
            continue
        for name, declared in entry.DECLARED.items():
            if isinstance(declared, Attribute) and declared.on(type(entry), machine.build, frozenset(Tier)):
                file = declared.entry(entry)
                if file is not None:
                    yield f"{path}/{name}", declared, entry, file


@settings(max_examples=25)
@given(machines)
def test_files(machine):
    """Each file ends with a newline, fits a page, and its text parses back to the value it shows."""
    for path, declared, directory, file in shown(machine):
        if not file.mode & 0o444 or not stat.S_ISREG(file.mode) or declared.codec is BINARY:
            continue
        try:
            value = declared.show_value(directory)
            text = declared.codec.show(value)
        except Refusal:
            continue
        assert text == file.show(), path
        assert not text or text.endswith(b"\n"), path
        assert file.size == 0 or len(text) < PAGE_SIZE, path
        parsed = declared.codec.parse(text)
        assert declared.codec.plain(value) == declared.codec.plain(parsed), path
        if declared.codec is not NODE_MEMINFO:
            # its text names the kernel only by which lines there are
            assert declared.codec.show(parsed) == text, path


def test_a_name_of_the_machinery_is_refused():
    """A file whose function would hide a method that every directory has fails when its class is made, with advice."""
    with pytest.raises(TypeError, match="call it touched_, with name='touched'"):

        class Hides(Directory[None]):
            @ro(DECIMAL)
            def touched(self) -> int:
                """Bytes."""
                return 0
