"""What a machine shows in the judge's scope, without mounting it: for comparing two topologies of one machine."""

import re
from pathlib import Path

import pytest
from attrs import evolve

from tdxfs.boot import boot
from tdxfs.errors import Refusal
from tdxfs.formats.firmware.unsaid import default_base
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Directory, File, Tier
from tdxfs.tree import Tree, content

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
COUNTERS = re.compile(r"/(meminfo|vmstat|numastat|free_hugepages|seed)$")
UUID = re.compile(r"/uuid$")
"""What no firmware says."""

needs_captures = pytest.mark.skipif(not GOLDEN.exists(), reason="needs the golden captures beside the repository")


def shown(topology, top="/sys"):
    """Path -> mode and content, link text or names below `top`; counters by their shape, no uuid."""
    tree = Tree(Root, boot(topology), frozenset({Tier.KERNEL}))
    found = {}
    todo = [top]
    while todo:
        path = todo.pop()
        entry = tree.lookup(path)
        if isinstance(entry, Directory):
            names = tuple(tree.list(path).names)
            found[path] = names
            todo += [f"{path}/{name}" for name in names]
        elif isinstance(entry, File):
            found[path] = (oct(entry.mode), _content(path, entry))
        else:
            found[path] = entry.target
    return found


def _content(path, file):
    if not file.mode & 0o444 or UUID.search(path):
        return None
    try:
        text = content(file).decode("latin1")
    except Refusal as refusal:
        return refusal.errno
    return re.sub(r" *\d+", " #", text) if COUNTERS.search(path) else text


def difference(one, other):
    """The paths that two machines do not show alike, with what each shows."""
    return {
        path: (one.get(path), other.get(path)) for path in one.keys() | other.keys() if one.get(path) != other.get(path)
    }


def recorded(stage):
    """A captured stage as the sysfs import reads it, and a base with everything of it that firmware does not say."""
    topology = import_sysfs(GOLDEN / stage)
    silent = default_base(evolve(topology, dax_regions=()))
    return topology, evolve(silent, cpus=(), nodes=(), distances=(), possible_nodes="", generic_initiators="")
