"""HMAT: how fast memory is for whom; compare drivers/acpi/numa/hmat.c."""

from __future__ import annotations

from attrs import evolve

from tdxfs.errors import UserError
from tdxfs.formats.acpi.tables import HEADER, Table, take
from tdxfs.formats.firmware.facts import CacheInfo, Firmware, Hmat, Locality, Metric

ENTRIES = HEADER + 4
PROXIMITY, LOCALITY, CACHE = 0, 1, 2
INITIATOR_VALID = 1
METRICS = {
    0: (Metric.WRITE_LATENCY, Metric.READ_LATENCY),
    1: (Metric.READ_LATENCY,),
    2: (Metric.WRITE_LATENCY,),
    3: (Metric.WRITE_BANDWIDTH, Metric.READ_BANDWIDTH),
    4: (Metric.READ_BANDWIDTH,),
    5: (Metric.WRITE_BANDWIDTH,),
}
"""Data type of a matrix -> what it measures."""
NO_ENTRY = 0xFFFF
MOST = 0xFFFFFFFF
"""The kernel computes in 32 bits."""


def read_hmat(table: Table, firmware: Firmware) -> Firmware:
    """`firmware` with the memory attributes; matrices of side caches are passed over, as Linux does."""
    if table.revision not in (1, 2):
        raise UserError(f"{table.where}: HMAT: revision {table.revision} is not known")
    attached: dict[int, int | None] = {}
    localities: list[Locality] = []
    caches: list[CacheInfo] = []
    for kind, data in table.structures(ENTRIES, "<HxxI"):
        where = f"{table.where}: HMAT"
        if kind == PROXIMITY:
            valid = take(data, 8, 2, where) & INITIATOR_VALID
            attached[take(data, 16, 4, where)] = take(data, 12, 4, where) if valid else None
        elif kind == LOCALITY and not take(data, 8, 1, where) & 0xF:
            localities.append(_locality(data, table.revision, where))
        elif kind == CACHE:
            bits = take(data, 24, 4, where)
            caches.append(
                CacheInfo(
                    domain=take(data, 8, 4, where),
                    level=bits >> 4 & 0xF,
                    size=take(data, 16, 8, where),
                    line_size=bits >> 16,
                    associativity=bits >> 8 & 0xF,
                    policy=bits >> 12 & 0xF,
                    address_mode=take(data, 28, 2, where),
                )
            )
    return evolve(firmware, hmat=Hmat(attached, tuple(localities), tuple(caches)))


def _locality(data: bytes, revision: int, where: str) -> Locality:
    metrics = METRICS.get(take(data, 9, 1, where), ())
    rows, columns = take(data, 12, 4, where), take(data, 16, 4, where)
    unit = take(data, 24, 8, where)
    initiators = [take(data, 32 + 4 * at, 4, where) for at in range(rows)]
    targets = [take(data, 32 + 4 * (rows + at), 4, where) for at in range(columns)]
    matrix = 32 + 4 * (rows + columns)
    latency = bool(metrics) and metrics[0].is_latency
    values = {
        (initiator, target): _normal(
            take(data, matrix + 2 * (row * columns + column), 2, where), unit, revision, latency
        )
        for row, initiator in enumerate(initiators)
        for column, target in enumerate(targets)
    }
    return Locality(metrics, values)


def _normal(entry: int, unit: int, revision: int, latency: bool) -> int:
    # hmat_normalize(): nanoseconds or MiB/s, 0 for what is not given
    value = entry * unit
    if entry == NO_ENTRY or value > MOST:
        return 0
    if revision == 1:
        return 0 if value < 10 else -(-value // 10)
    return -(-value // 1000) if latency else value
