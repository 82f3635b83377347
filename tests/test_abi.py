"""The ABI text says something about every attribute."""

import re

import pytest

from tdxfs.abi import entries, text
from tdxfs.sysfs.attribute import Tier


@pytest.mark.parametrize("tier", list(Tier))
def test_every_entry_is_documented(tier):
    """A path and a description in sentences, whatever the tier."""
    mine = [entry for entry in entries() if entry.tier is tier]

    assert mine
    for entry in mine:
        assert re.fullmatch(r"/(sys|proc|dev)/\S+", entry.what), entry.what
        assert entry.doc.endswith("."), entry.what


def test_a_proposed_attribute():
    """Path, format, mode and description stand together, under the tier."""
    shown = text([Tier.PROPOSED])

    assert shown.startswith("Tier: proposed\n")
    assert "What:           /sys/devices/system/node/tdx_capable\nFormat:         a range list, mode 0444\n" in shown
    assert "/sys/devices/system/node/has_memory\n" not in shown
