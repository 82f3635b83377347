"""Made-up recordings of what hwloc reads, as old kernels and other architectures would show it."""

from tdxfs.boot import boot
from tdxfs.formats.sysfs import import_sysfs
from tdxfs.formats.topology import dumps, loads
from tdxfs.root import Root
from tdxfs.sysfs.attribute import Tier
from tdxfs.tree import Tree

CPU, NODE = "sys/devices/system/cpu", "sys/devices/system/node"


def mask(*cpus):
    """A CPU mask as the kernel prints it, one group of 32 bits."""
    return f"{sum(1 << cpu for cpu in cpus):08x}"


def place(cpu, core=(), package=(), **others):
    """The files of ``cpuN/topology``: masks only, as before Linux 2.6.25, and `others` as they are."""
    files = {"thread_siblings": mask(*(core or (cpu,))), "core_siblings": mask(*(package or (cpu,))), **others}
    return {f"{CPU}/cpu{cpu}/topology/{name}": str(text) for name, text in files.items()}


def cache(cpu, index, shared, size="32K", **others):
    """The files of ``cpuN/cache/indexM``, as before Linux 4.11."""
    files = {
        "level": "1",
        "type": "Data",
        "size": size,
        "coherency_line_size": "64",
        "ways_of_associativity": "8",
        "number_of_sets": str(int(size.rstrip("K")) * 2),
        "physical_line_partition": "1",
        "shared_cpu_map": mask(*shared),
        **others,
    }
    return {f"{CPU}/cpu{cpu}/cache/index{index}/{name}": text for name, text in files.items() if text is not None}


def node(nid, cpus, megabytes=128, **others):
    """The files of ``nodeN``."""
    files = {
        "cpumap": mask(*cpus),
        "meminfo": f"Node {nid} MemTotal:     {megabytes << 10} kB\nNode {nid} MemFree:      1024 kB",
        **others,
    }
    return {f"{NODE}/node{nid}/{name}": text for name, text in files.items()}


def write(root, *groups, newline="\n"):
    """Write the files of all `groups` below a root directory."""
    for group in groups:
        for path, text in group.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text + newline if text else "")


def imported(root):
    """Its machine, through a topology file."""
    topology = import_sysfs(root)
    again = loads(dumps(topology))
    assert topology == again
    return again


def tree_of(topology):
    """What the machine shows of the kernel's and the emulator's own."""
    return Tree(Root, boot(topology), frozenset((Tier.KERNEL, Tier.EMULATOR)))


def shown(tree, path):
    """What a file of the tree says, without the last newline; None if it is not there."""
    return tree.read(f"/{path}").decode().removesuffix("\n") if there(tree, path) else None


def there(tree, path):
    """Whether the tree has an entry of that path."""
    parent, _, name = f"/{path}".rpartition("/")
    return name in tree.list(parent).names
