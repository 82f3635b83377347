"""Tests for `tdxfs.pytest_plugin`, in a pytest of its own."""

import pytest
from runner import need

pytest_plugins = ("pytester",)

TESTS = """
import pytest
from tdxfs.formats.topology import find

@pytest.mark.parametrize("number", range(3))
def test_run(tdxfs, number):
    result = tdxfs.run(["cat", "/sys/devices/system/node/has_memory"], topology="mixed")
    assert (result.returncode, result.stdout) == (0, "0-2\\n")

def test_options(tdxfs):
    off = tdxfs.run(["cat", "/sys/kernel/mm/tdx/state"], find("mixed"), policies={"boot": "off"}, timeout=60)
    assert off.stdout == "disabled\\n"

@pytest.mark.tdxfs("mixed", hotplug="allow")
def test_change(tdxfs_machine):
    block = "sys/devices/system/memory/memory40/state"
    tdxfs_machine.write(block, "offline")
    assert tdxfs_machine.read(block) == "offline"
    assert tdxfs_machine.read("/sys/kernel/mm/tdx/policy/hotplug") == "reject reject-range [allow]"
    assert tdxfs_machine.run(["cat", f"/{block}"]).stdout == "offline\\n"
    with pytest.raises(OSError):
        tdxfs_machine.write(block, "nonsense")

def test_conflicts(tdxfs_machine, tdxfs_conflicts):
    assert {"kind", "severity", "subject", "reason", "remedy"} <= set(tdxfs_conflicts[0])
    assert "incapable-node" in {conflict["kind"] for conflict in tdxfs_conflicts}

@pytest.mark.tdxfs("clean")
def test_another(tdxfs_machine):
    assert tdxfs_machine.read("sys/kernel/debug/tdxfs/topology") == "clean"
"""


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_fixtures(pytester, options):
    """Everything that the plugin's documentation shows works, in one process and in several."""
    need("cat")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider", *options)

    result.assert_outcomes(passed=7)


def test_it_is_documented(pytester):
    """pytest --markers and --fixtures say what there is."""
    pytester.makepyfile(TESTS)

    pytester.runpytest_subprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.tdxfs(*"])
    pytester.runpytest_subprocess("--fixtures").stdout.fnmatch_lines(["tdxfs --*", "tdxfs_machine --*"])
