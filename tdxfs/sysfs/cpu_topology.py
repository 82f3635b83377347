"""``cpuN/topology`` and ``cpuN/cache``; compare drivers/base/topology.c and cacheinfo.c."""

from __future__ import annotations

from collections.abc import Collection

from tdxfs.cpus import siblings
from tdxfs.model import Cache, Cpu, Machine
from tdxfs.sysfs.attribute import Attribute, Directory, Reader, directories, ro
from tdxfs.sysfs.codec import DECIMAL, LIST, MASK, WORD, Codec, Mask
from tdxfs.sysfs.power import uevent


def mask_width(machine: Machine) -> int:
    """Bits of a CPU mask: the possible CPUs."""
    return max(machine.topology.possible_cpus, 1 + max((cpu.id for cpu in machine.topology.cpus), default=0))


def cpumask_size(machine: Machine) -> int:
    """st_size of a CPU mask file: NR_CPUS*9/32-1 bytes, at least a page."""
    return max(4096, machine.topology.nr_cpus * 9 // 32 - 1)


def cpulist_size(machine: Machine) -> int:
    """st_size of a CPU list file: NR_CPUS*7/2 bytes, at least a page."""
    return max(4096, machine.topology.nr_cpus * 7 // 2)


SIZE: Codec[int] = Codec(
    "kibibytes with a K", lambda size: f"{size // 1024}K", lambda text: int(text.rstrip("K")) * 1024
)


class _CpuDir(Directory[int]):
    @property
    def cpu(self) -> Cpu:
        return self.machine.cpus[self.key]

    def shared(self, scope: str) -> frozenset[int]:
        return siblings(self.machine).of(self.cpu, scope)


def _mask(scope: str, doc: str) -> Attribute[_CpuDir, Mask]:
    def show(directory: _CpuDir) -> Mask:
        return Mask(directory.shared(scope), mask_width(directory.machine))

    show.__doc__ = doc + ", as a mask."
    return ro(MASK, size=cpumask_size, reader=Reader.CPUMASK)(show)


def _list(scope: str, doc: str) -> Attribute[_CpuDir, frozenset[int]]:
    def show(directory: _CpuDir) -> frozenset[int]:
        return directory.shared(scope)

    show.__doc__ = doc + ", as a range list."
    return ro(LIST, size=cpulist_size, reader=Reader.CPUMASK)(show)


def _in_book(directory: _CpuDir) -> bool:
    return directory.cpu.book is not None


def _in_drawer(directory: _CpuDir) -> bool:
    return directory.cpu.drawer is not None


class TopologyDir(_CpuDir):
    """Where the CPU sits. Absent while it is offline."""

    WHAT = "/sys/devices/system/cpu/cpu<id>/topology"

    cluster_cpus = _mask("cluster", "CPUs of the same cluster")
    cluster_cpus_list = _list("cluster", "CPUs of the same cluster")
    core_cpus = _mask("core", "CPUs of the same core")
    core_cpus_list = _list("core", "CPUs of the same core")
    core_siblings = _mask("package", "CPUs of the same package (older name)")
    core_siblings_list = _list("package", "CPUs of the same package (older name)")
    die_cpus = _mask("die", "CPUs of the same die")
    die_cpus_list = _list("die", "CPUs of the same die")
    package_cpus = _mask("package", "CPUs of the same package")
    package_cpus_list = _list("package", "CPUs of the same package")
    thread_siblings = _mask("core", "CPUs of the same core (older name)")
    thread_siblings_list = _list("core", "CPUs of the same core (older name)")
    book_siblings = _mask("book", "CPUs of the same book")
    book_siblings_list = _list("book", "CPUs of the same book")
    drawer_siblings = _mask("drawer", "CPUs of the same drawer")
    drawer_siblings_list = _list("drawer", "CPUs of the same drawer")

    @ro(DECIMAL)
    def book_id(self) -> int:
        """Id of the book. Absent where there are none: they are s390's."""
        return self.cpu.book or 0

    @ro(DECIMAL)
    def drawer_id(self) -> int:
        """Id of the drawer. Absent where there are none: they are s390's."""
        return self.cpu.drawer or 0

    book_id.visible(_in_book)
    book_siblings.visible(_in_book)
    book_siblings_list.visible(_in_book)
    drawer_id.visible(_in_drawer)
    drawer_siblings.visible(_in_drawer)
    drawer_siblings_list.visible(_in_drawer)

    @ro(DECIMAL)
    def cluster_id(self) -> int:
        """Id of the cluster."""
        return siblings(self.machine).cluster_id(self.cpu)

    @ro(DECIMAL)
    def core_id(self) -> int:
        """Id of the core in its package."""
        return self.cpu.core if self.cpu.core_id is None else self.cpu.core_id

    @ro(DECIMAL)
    def die_id(self) -> int:
        """Id of the die: in its package before 6.12, in the machine since; -1 if the kernel does not know."""
        return siblings(self.machine).die_id(self.cpu)

    @ro(DECIMAL)
    def physical_package_id(self) -> int:
        """Id of the package; -1 if the kernel does not know."""
        return self.cpu.package if self.cpu.package_id is None else self.cpu.package_id


class CacheIndexDir(Directory[tuple[int, int]]):
    """One cache of the CPU; key: (cpu id, index)."""

    WHAT = "/sys/devices/system/cpu/cpu<id>/cache/index<index>"

    @property
    def cpu(self) -> Cpu:
        return self.machine.cpus[self.key[0]]

    @property
    def number(self) -> int:
        return siblings(self.machine).caches(self.cpu)[self.key[1]]

    @property
    def cache(self) -> Cache:
        return self.machine.topology.caches[self.number]

    @uevent
    def uevent(self) -> str:
        """Reads empty."""
        return ""

    @ro(DECIMAL)
    def coherency_line_size(self) -> int:
        """Bytes of a line. Absent where the kernel does not know them."""
        return self.cache.line

    @coherency_line_size.visible
    def _has_line(self) -> bool:
        return self.cache.line > 0

    @ro(DECIMAL)
    def id(self) -> int:
        """Id of the cache among those of its level and type."""
        return siblings(self.machine).cache_id(self.cpu, self.number)

    @ro(DECIMAL)
    def level(self) -> int:
        """Level of the cache."""
        return self.cache.level

    @ro(DECIMAL)
    def number_of_sets(self) -> int:
        """Number of sets."""
        return self.cache.number_of_sets

    @ro(DECIMAL)
    def physical_line_partition(self) -> int:
        """Lines per tag."""
        return self.cache.partitions

    @ro(LIST)
    def shared_cpu_list(self) -> frozenset[int]:
        """CPUs that share the cache, as a range list."""
        return siblings(self.machine).sharing(self.cpu, self.number)

    @ro(MASK)
    def shared_cpu_map(self) -> Mask:
        """CPUs that share the cache, as a mask."""
        return Mask(siblings(self.machine).sharing(self.cpu, self.number), mask_width(self.machine))

    @ro(SIZE)
    def size(self) -> int:
        """Size of the cache, KiB with a K."""
        return self.cache.size

    @ro(WORD)
    def type(self) -> str:
        """Data, Instruction or Unified."""
        return self.cache.type

    @ro(DECIMAL)
    def ways_of_associativity(self) -> int:
        """Ways; 0 if fully associative."""
        return self.cache.ways


class CacheDir(Directory[int]):
    """The caches of the CPU. Absent while it is offline."""

    WHAT = "/sys/devices/system/cpu/cpu<id>/cache"

    @uevent
    def uevent(self) -> str:
        """Reads empty."""
        return ""

    @directories("index<index>", CacheIndexDir, nested=True)
    def indices(self) -> Collection[int]:
        """One per cache the CPU sees."""
        return range(len(siblings(self.machine).caches(self.machine.cpus[self.key])))
