"""What the kernel must forget after a change, against two whole walks of the tree."""

import pytest
from attrs import evolve, fields
from machines import MIXED, booted

from tdxfs import fuse_wire as wire
from tdxfs.cached import Cached
from tdxfs.counters import free_kib
from tdxfs.finder import upwards
from tdxfs.inodes import Inodes
from tdxfs.model import DERIVED, GIB, Block, Driver, MemPolicy, Mode, Zone, changed
from tdxfs.nodes import has_cpu, has_memory, has_normal_memory, online_nodes, possible_nodes
from tdxfs.ranges import Range
from tdxfs.root import Root
from tdxfs.sysfs.attribute import ALL_TIERS, Directory
from tdxfs.tasks import executed, policy_set, tell
from tdxfs.tree import Tree, stat_of
from tdxfs.zonelists import zonelists

OFFLINE = Block(nodes=(2,), online=False, zone=Zone.NORMAL)
KMEM = Block(nodes=(3,), online=True, zone=Zone.MOVABLE, dax=True)


def kmem(machine):
    device = machine.dax[0, 0]
    return evolve(
        machine,
        dax=machine.dax.set((0, 0), evolve(device, driver=Driver.KMEM)),
        blocks=machine.blocks.assign(96, 104, KMEM),
        ram=machine.ram.assign(12 * GIB, 13 * GIB, 3),
    )


def split(machine):
    halves = (Range(12 * GIB, 12 * GIB + GIB // 4), Range(12 * GIB + GIB // 2, 13 * GIB))
    first = evolve(machine.dax[0, 0], mappings=halves)
    return evolve(machine, dax=machine.dax.set((0, 0), first).set((0, 1), evolve(first, id=1, mappings=(), minor=7)))


def plugged(machine):
    region = evolve(machine.topology.dax_regions[0], id=5, range=Range(20 * GIB, 21 * GIB), target_node=7)
    return evolve(machine, topology=evolve(machine.topology, dax_regions=(*machine.topology.dax_regions, region)))


CHANGES = {
    "a block goes offline": lambda m: evolve(m, blocks=m.blocks.assign(70, 71, OFFLINE)),
    "all memory of a node goes offline": lambda m: evolve(m, blocks=m.blocks.assign(64, 80, OFFLINE)),
    "blocks are removed": lambda m: evolve(m, blocks=m.blocks.remove(50, 60)),
    "a node is removed": lambda m: evolve(m, blocks=m.blocks.remove(64, 80)),
    "a CPU goes offline": lambda m: evolve(m, cpus_online=m.cpus_online - {3}),
    "a dax device is unbound": lambda m: evolve(m, dax=m.dax.set((0, 0), evolve(m.dax[0, 0], driver=None))),
    "a dax device is removed": lambda m: evolve(m, dax=m.dax.delete((0, 0))),
    "kmem takes a dax device": kmem,
    "a dax device is split": split,
    "a region is plugged": plugged,
    "a task comes": lambda m: tell(m, executed(77, 1, "one")),
    "a task has a policy": lambda m: tell(m, policy_set(78, 77, MemPolicy(Mode.BIND, frozenset({1}), frozenset({1})))),
    "nothing": lambda m: evolve(m),
}


def seen(tree):
    """Path -> what stat(2) says, link counts included; of what the kernel may keep: tasks come and go."""
    everything = dict(tree.walk())
    of_tasks = {path for path, entry in everything.items() if isinstance(entry, Directory) and entry.OF_TASKS}
    return {
        path: (isinstance(entry, Directory), stat_of(entry), tree.nlink(entry))
        for path, entry in everything.items()
        if of_tasks.isdisjoint(upwards(path))
    }


def known(tree):
    """The inodes of a kernel that has looked up every name, and one that is not there in every directory."""
    inodes = Inodes(tree)
    for path, entry in tree.walk():
        directory, _, name = path.rpartition("/")
        if name:
            inodes.look_up(inodes.at(directory).nodeid, name)
        if isinstance(entry, Directory):
            inodes.look_up(inodes.at(path.rstrip("/")).nodeid, "absent")
    return inodes


@pytest.mark.parametrize("backwards", [False, True], ids=["forth", "back"])
@pytest.mark.parametrize("change", CHANGES)
def test_all_that_differs_is_forgotten_and_nothing_else(change, backwards):
    """A kernel that knows every name of the old tree is told exactly what the new one has differently."""
    old = booted(MIXED)
    machines = [old, CHANGES[change](old)]
    before, after = (Tree(Root, machine) for machine in (reversed(machines) if backwards else machines))
    was, now = seen(before), seen(after)
    inodes = known(before)

    stale = Cached(inodes, ALL_TIERS).change(before.root, after.root)

    told = {f"{inodes.nodes[number].path}/{name.decode()}" for number, name in stale.names}
    told |= {inodes.nodes[number].path for number in stale.attributes}
    differing = {path for path in was.keys() | now.keys() if was.get(path) != now.get(path)}
    lost = was.keys() - now.keys()
    above = {path: path.rpartition("/")[0] or "/" for path in differing}
    uppermost = {path for path in differing if above[path] in was and above[path] in now}

    moved = {path for path in uppermost if (path in was) != (path in now)}
    below = {path for path in was.keys() | now.keys() if not moved.isdisjoint(upwards(path) - {path})}

    assert uppermost == told - below
    assert {path for path in below if path in was} <= told
    assert {path for path in lost if path.rpartition("/")[0] not in lost} == stale.gone


@pytest.mark.parametrize("change", CHANGES)
def test_a_machine_inherits_what_its_fields_share(change):
    """Every value that a machine takes over from the one before is the one that it would have made itself."""
    old = booted(MIXED)
    expected = {name: getattr(old, name) for name in DERIVED}
    new = CHANGES[change](old).after(old)
    inherited = {name: vars(new)[name] for name in DERIVED if name in vars(new)}
    fresh = evolve(new)

    assert expected.keys() >= inherited.keys()
    assert {name: getattr(fresh, name) for name in inherited} == inherited


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_machine_shares_what_its_fields_give(change):
    """A value that a change of other fields left alone is the one that the new machine would have made itself."""
    functions = (possible_nodes, online_nodes, has_memory, has_normal_memory, has_cpu, zonelists)
    old = booted(MIXED)
    for function in functions:
        function(old)
    new = CHANGES[change](old)
    differing = {field.name for field in fields(type(old)) if getattr(old, field.name) is not getattr(new, field.name)}
    following = changed(old, **{name: getattr(new, name) for name in differing})
    online = [nid for nid in has_memory(evolve(new)) if free_kib(old, nid) is not None]

    assert [function(evolve(new)) for function in functions] == [function(following) for function in functions]
    assert [free_kib(evolve(new), nid) for nid in online] == [free_kib(following, nid) for nid in online]


@pytest.mark.parametrize("directory", ["/sys/kernel/mm/tdx/conflicts", "/sys/kernel/debug/tdxfs/tasks"])
def test_what_depends_on_tasks_is_not_kept(directory):
    """The kernel asks anew each time for a directory whose entries come and go with tasks, and for names in it."""
    tree = Tree(Root, tell(booted(MIXED), executed(77, 1, "one")))
    inodes = known(tree)
    found = [inodes.at(directory), *(inodes.at(f"{directory}/{name}") for name in tree.list(directory).names)]

    assert all(inode.brief for inode in found)
    assert wire.MISSING_NOW == inodes.look_up(inodes.at(directory).nodeid, "absent")
    assert not inodes.at("/sys/kernel/mm").brief
