"""Tests for `tdxfs.sysfs.memory`."""

import pytest
from attrs import evolve
from machines import MIXED, tree

from tdxfs.model import MIB, MemoryLayout

MEMORY = "/sys/devices/system/memory"


def test_block_size_is_bare_hexadecimal():
    """128 MiB without 0x."""
    assert tree().read(f"{MEMORY}/block_size_bytes") == b"8000000\n"


@pytest.mark.parametrize(
    ("block", "zones"),
    [(0, b"none\n"), (1, b"DMA32\n"), (32, b"Normal\n")],
)
def test_zone_of_an_online_block(block, zones):
    """A block of one zone names it; the first one meets DMA and DMA32."""
    assert zones == tree().read(f"{MEMORY}/memory{block}/valid_zones")


def test_offline_block():
    """An offline block says so, names the zones it could join, and its memory does not count."""
    offline = tree(evolve(MIXED, memory=MemoryLayout(128 * MIB, offline="48")))

    assert offline.read(f"{MEMORY}/memory48/state") == b"offline\n"
    assert offline.read(f"{MEMORY}/memory48/online") == b"0\n"
    assert offline.read(f"{MEMORY}/memory48/valid_zones") == b"Normal Movable\n"
    assert offline.read(f"{MEMORY}/memory49/state") == b"online\n"
    assert str((2048 - 128) * 1024).encode() in offline.read("/sys/devices/system/node/node1/meminfo")


def test_capability_of_a_block():
    """Node 1 is half convertible: its first block is capable, its last one is not."""
    assert tree().read(f"{MEMORY}/memory55/x86/tdx_capable") == b"1\n"
    assert tree().read(f"{MEMORY}/memory63/x86/tdx_capable") == b"0\n"


def test_blocks_follow_memory():
    """There is a block wherever there is memory, and none in the hole below 4 GiB."""
    names = {name for name in tree().list(MEMORY).names if name[6:].isdecimal()}

    assert {f"memory{number}" for number in [*range(16), *range(32, 80)]} == names
