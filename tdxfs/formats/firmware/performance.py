"""What Linux makes of HMAT: best initiators, side caches and memory tiers.

Compare drivers/acpi/numa/hmat.c and mm/memory-tiers.c. Domains are proximity domains, as in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from tdxfs.formats.firmware.facts import CacheInfo, Hmat, Locality, Metric
from tdxfs.model import Access, SideCache

DRAM_DISTANCE = 576
"""MEMTIER_ADISTANCE_DRAM: the abstract distance of DRAM."""
CHUNK_BITS = 7
"""A tier is 2^7 of abstract distance wide."""
DIRECT_MAPPED, COMPLEX = 1, 2
WRITE_BACK, WRITE_THROUGH = 1, 2


def access(
    hmat: Hmat, target: int, known: Collection[int], with_cpus: Collection[int], number: int, node: Callable[[int], int]
) -> Access:
    """
    Access class `number` of a target domain: 0 for initiators of any kind, 1 for CPUs. `known` are the domains that
    have processors or generic initiators, `node` turns a domain into its node id.
    """
    attached = hmat.attached.get(target)
    if attached is not None and (number == 0 or attached in with_cpus):
        found = {
            metric: locality.values.get((attached, target), 0)
            for locality in hmat.localities
            for metric in locality.metrics
        }
        return _access((node(attached),), found)
    initiators = {domain for locality in hmat.localities for domain, _ in locality.values} & set(known)
    best_initiators = set(initiators if number == 0 else initiators & set(with_cpus))
    best: dict[Metric, int] = {}
    for metric in Metric:
        locality = _latest(hmat.localities, metric)
        if locality is not None:
            values = {domain: locality.values.get((domain, target), 0) for domain in best_initiators}
            given = [value for value in values.values() if value]
            best[metric] = (min if metric.is_latency else max)(given, default=0)
            best_initiators = {domain for domain, value in values.items() if value == best[metric]}
    return _access(tuple(sorted(map(node, best_initiators))) if best else (), best)


def _latest(localities: Iterable[Locality], metric: Metric) -> Locality | None:
    found = None
    for locality in localities:
        if metric in locality.metrics:
            found = locality
    return found


def _access(initiators: tuple[int, ...], found: dict[Metric, int]) -> Access:
    return Access(initiators, **{metric.value: found.get(metric, 0) for metric in Metric})


def side_caches(caches: Iterable[CacheInfo], domain: int) -> tuple[SideCache, ...]:
    """The memory-side caches of a domain, by level."""
    found = (
        SideCache(
            level=cache.level,
            size=cache.size,
            line_size=cache.line_size,
            indexing={DIRECT_MAPPED: 0, COMPLEX: 1}.get(cache.associativity, 2),
            write_policy={WRITE_BACK: 0, WRITE_THROUGH: 1}.get(cache.policy, 2),
            address_mode=cache.address_mode,
        )
        for cache in caches
        if cache.domain == domain
    )
    return tuple(sorted(found, key=lambda cache: cache.level))


def tier(performance: Access, dram: Access) -> int | None:
    """
    The memory tier of memory with that access1 performance, `dram` being that of the first node with CPUs; None if
    either is not whole (mt_perf_to_adistance()).
    """
    latency, bandwidth = _sums(performance)
    dram_latency, dram_bandwidth = _sums(dram)
    if not (latency and bandwidth and dram_latency and dram_bandwidth):
        return None
    return DRAM_DISTANCE * latency // dram_latency * dram_bandwidth // bandwidth >> CHUNK_BITS


def _sums(access: Access) -> tuple[int, int]:
    return (
        (access.read_latency or 0) + (access.write_latency or 0),
        (access.read_bandwidth or 0) + (access.write_bandwidth or 0),
    )
