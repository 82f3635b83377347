"""What a rule is, and the mounts on which it is asked."""

import os
from contextlib import contextmanager

from attrs import evolve, field, frozen
from machines import MIXED
from syscalls import answer, opened

from tdxfs.model import (
    GIB,
    KERNELS,
    MIB,
    Cache,
    Cpu,
    DaxDevice,
    DaxRegion,
    Driver,
    Memory,
    MemoryLayout,
    Node,
    Provider,
    Topology,
)
from tdxfs.ranges import Range
from tdxfs.server import mounted

OK = "ok"


@frozen
class By:
    """An answer that depends on the kernel: on 6.1, on 6.12 and on 7.3."""

    answers: tuple

    def __str__(self):
        said = {}
        for kernel, one in zip(KERNELS, self.answers, strict=True):
            said.setdefault(str(one), kernel)
        return ", ".join(f"{one} since {kernel}" if kernel != KERNELS[0] else one for one, kernel in said.items())


def by(*answers):
    return By(answers)


def calls_on(place):
    """What makes probes of a call and its arguments: the call on a place of the mount that is open for reading."""

    def made(call, *arguments):
        def probe(m):
            with opened(getattr(m, place)) as descriptor:
                return answer(call, descriptor, *arguments)

        return probe

    return made


def _on(kernel, one):
    return one.answers[KERNELS.index(kernel)] if isinstance(one, By) else one


@frozen
class Rule:
    """One thing that a program can ask of sysfs, and its answer."""

    section: str
    """Of the document."""
    what: str
    sysfs: object
    """What sysfs answers: a value, or one `By` kernel."""
    probe: object = field(repr=False)
    """Called with a `Mount`; makes the system calls and returns what they answer."""
    on: str = "small"
    """The machine on which it is asked, one of `MACHINES`."""
    here: object = None
    """What a mount answers instead, if `why` says that it must."""
    why: str = ""
    """Why a FUSE mount cannot answer as sysfs does."""

    def __str__(self):
        return f"{self.section} {self.what}"

    def expected(self, kernel):
        """What sysfs answers on a kernel."""
        return _on(kernel, self.sysfs)

    def allowed(self, kernel):
        """What a mount must answer there."""
        return _on(kernel, self.here) if self.why else self.expected(kernel)


@frozen
class Mount:
    """A mounted machine, with the short names that the document uses, and what programs do with files there."""

    root: str
    kernel: str = KERNELS[-1]

    @property
    def sys(self):
        return f"{self.root}/sys"

    @property
    def nodes(self):
        return f"{self.sys}/devices/system/node"

    @property
    def node0(self):
        return f"{self.nodes}/node0"

    @property
    def memory(self):
        return f"{self.sys}/devices/system/memory"

    @property
    def possible(self):
        """0444."""
        return f"{self.nodes}/possible"

    @property
    def aob(self):
        """0644."""
        return f"{self.memory}/auto_online_blocks"

    @property
    def compact(self):
        """0200."""
        return f"{self.node0}/compact"

    @property
    def cpumap(self):
        return f"{self.node0}/cpumap"

    @property
    def cpulist(self):
        return f"{self.node0}/cpulist"

    @property
    def link(self):
        return f"{self.node0}/cpu0"

    def at(self, path):
        """A path below /sys."""
        return f"{self.sys}/{path}"

    def write(self, path, data):
        """What one write(2) of text or bytes answers: ok for all of it, the count, or an errno, open(2)'s too."""
        descriptor = answer(os.open, path if path.startswith("/") else self.at(path), os.O_WRONLY)
        if isinstance(descriptor, str):
            return descriptor
        try:
            data = data.encode() if isinstance(data, str) else data
            count = answer(os.write, descriptor, data)
        finally:
            os.close(descriptor)
        return OK if count == len(data) else count

    def read(self, path):
        """The content without its newline, or the errno."""

        def whole():
            with open(path if path.startswith("/") else self.at(path), "rb") as file:
                return file.read().decode().removesuffix("\n")

        return answer(whole)

    def reboot(self):
        """The machine as it was at first; what was changed of the mount's metadata stays."""
        with open(self.at("kernel/debug/tdxfs/reboot"), "wb", buffering=0) as file:
            file.write(b"\n")


SMALL = evolve(MIXED, caches=(Cache(1, "Data", 32 << 10, 8),))
PLAIN = evolve(MIXED, tdx=None)
ODD = evolve(PLAIN, nodes=(Node(0, (Memory(Range(0, 2 * GIB)), Memory(Range(4 * GIB, 5 * GIB - 64 * MIB)))),))
"""Block 0 meets two zones, block 39 ends in a hole."""
SOFT = Range(0x50000000, 0x70000000)
NAMESPACE = Range(0x100200000, 0x140000000)
CPUS = tuple(Cpu(n, node=n // 2, package=n // 2, core=n % 2) for n in range(4))
TWO_NODES = (Node(0, (Memory(Range(0, 512 * MIB)),)), Node(1, (Memory(Range(512 * MIB, GIB)),)))
OFFLINE = MemoryLayout(auto_online="offline")
PERSISTENT = DaxRegion(0, Provider.NVDIMM, Range(4 * GIB, 5 * GIB), 2, 0, devices=(DaxDevice(0, (NAMESPACE,)),))
STATIC = Topology(cpus=CPUS, nodes=TWO_NODES, dax_regions=(PERSISTENT,), memory=OFFLINE)
"""A persistent-memory namespace in devdax mode."""


def _dynamic(driver=Driver.DEVICE_DAX, mappings=(SOFT,)):
    # soft-reserved memory inside node 2
    rest = Node(2, (Memory(Range(GIB, SOFT.start)), Memory(Range(SOFT.end, 2 * GIB))))
    region = DaxRegion(0, Provider.HMEM, SOFT, 2, 2, devices=(DaxDevice(0, mappings, driver),))
    return evolve(STATIC, nodes=(*TWO_NODES, rest), dax_regions=(region,))


def _unbound(topology):
    regions = (evolve(r, devices=tuple(evolve(d, driver=None) for d in r.devices)) for r in topology.dax_regions)
    return evolve(topology, dax_regions=tuple(regions))


MACHINES = {
    "mixed": MIXED,
    "small": SMALL,
    "plain": PLAIN,
    "odd": ODD,
    "static": STATIC,
    "static, unbound": _unbound(STATIC),
    "dynamic": _dynamic(),
    "dynamic, unbound": _dynamic(None),
    "dynamic, empty": _dynamic(None, ()),
}
"""Those of the document are the static and the dynamic one."""


@contextmanager
def mount(name, kernel):
    """A machine of `MACHINES` on a kernel, mounted."""
    with mounted(evolve(MACHINES[name], kernel=kernel)) as root:
        yield Mount(str(root), kernel)
