"""Processors of the APIC table as CPUs; compare arch/x86/kernel/cpu/topology.c and apic/apic.c."""

from __future__ import annotations

from collections.abc import Iterable

from tdxfs.errors import UserError
from tdxfs.formats.firmware.domains import Domains
from tdxfs.formats.firmware.facts import Firmware
from tdxfs.formats.firmware.unsaid import Unsaid
from tdxfs.model import Cpu, kernel_at_least

SYSTEM_DIE_IDS = "6.12"
"""The kernel since which ``die_id`` counts through the system."""


def cpus_of(firmware: Firmware, domains: Domains, kernel: str, unsaid: Unsaid) -> tuple[Cpu, ...]:
    """The CPUs that are there, numbered in the table's order; UserError if there are none."""
    if not firmware.processors:
        raise UserError("the firmware describes no processor: the APIC table is missing")
    thread_bits = _bits(unsaid.threads)
    if unsaid.cores:
        die_shift = thread_bits + _bits(unsaid.cores)
        package_shift = die_shift + _bits(unsaid.dies)
    else:
        die_shift = package_shift = max(_package_bits(firmware), thread_bits)
    default = min(domains.described)
    through_system = kernel_at_least(kernel, SYSTEM_DIE_IDS)
    cpus = []
    for number, processor in enumerate(one for one in firmware.processors if one.enabled):
        apic_id = processor.apic_id
        package = apic_id >> package_shift
        domain = firmware.processor_domains.get(apic_id)
        die = apic_id >> die_shift
        cpus.append(
            Cpu(
                id=number,
                node=default if domain is None else domains.node(domain),
                package=package,
                # None: as in a package of one die
                die=None if unsaid.dies == 1 else die if through_system else die - package * unsaid.dies,
                core=apic_id % (1 << die_shift) >> thread_bits,
                thread=apic_id % (1 << thread_bits),
            )
        )
    return tuple(cpus)


def _bits(count: int) -> int:
    return (count - 1).bit_length()


def _package_bits(firmware: Firmware) -> int:
    # the most bits with which no package has CPUs of two domains
    ids = [processor.apic_id for processor in firmware.processors]
    bits = max(ids).bit_length()
    while bits and not _apart(ids, firmware, bits):
        bits -= 1
    return bits


def _apart(ids: Iterable[int], firmware: Firmware, bits: int) -> bool:
    owner: dict[int, int | None] = {}
    for apic_id in ids:
        domain = firmware.processor_domains.get(apic_id)
        if owner.setdefault(apic_id >> bits, domain) != domain:
            return False
    return True
