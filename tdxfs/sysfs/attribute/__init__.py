"""The declaration machinery: a directory is a class, a file in it is declared like a property.

::

    class NodeDir(Directory[int]):
        '''A NUMA node.'''

        WHAT = "/sys/devices/system/node/node<id>"

        @ro(LIST, size=cpulist_size)
        def cpulist(self) -> frozenset[int]:
            '''Online CPUs of the node.'''
            return ...

        @link
        def subsystem(self) -> str:
            '''The node bus.'''
            return "/sys/bus/node"

        @links("memory<id>", block_path)
        def memory_blocks(self) -> Collection[int]:
            '''Memory blocks that lie in the node.'''
            return ...

        @rw(WORD)
        def state(self) -> str:
            '''online or offline.'''
            return ...

        @state.store
        def _set_state(self, word: str) -> Machine:
            return transitions.set_block_state(self.machine, self.key, word)

One declaration gives the file, its mode and size, its absence (`visible`, `since`, `until`,
`tier`), its ABI text (the docstring), its JSON value and its parser (the codec).

A `Directory` is a view: (path, machine, key). It is made when somebody looks, holds nothing,
and resolves one name at a time; a family of a million children is a collection of keys.
"""

from tdxfs.sysfs.attribute.declarations import (
    Attribute,
    Declared,
    Directories,
    DirectoryClass,
    Edited,
    Family,
    Files,
    Links,
    LinkTo,
    MemoryFiles,
    Subdirectory,
)
from tdxfs.sysfs.attribute.declare import always, directories, edited, files, link, links, ro, rw, subdirectory, wo
from tdxfs.sysfs.attribute.directory import Directory, Documented, documented, fixed, variable
from tdxfs.sysfs.attribute.entry import ALL_TIERS, UNSET, Entry, File, Link, Reader, Shape, Shapes, Tier, relative

__all__ = [
    "ALL_TIERS",
    "UNSET",
    "Attribute",
    "Declared",
    "Directories",
    "Directory",
    "DirectoryClass",
    "Documented",
    "Edited",
    "Entry",
    "Family",
    "File",
    "Files",
    "Link",
    "LinkTo",
    "Links",
    "MemoryFiles",
    "Reader",
    "Shape",
    "Shapes",
    "Subdirectory",
    "Tier",
    "always",
    "directories",
    "documented",
    "edited",
    "files",
    "fixed",
    "link",
    "links",
    "relative",
    "ro",
    "rw",
    "subdirectory",
    "variable",
    "wo",
]
