"""
Text of the README that is made from the product: between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` stands what
the generator of that name makes. TDXFS_UPDATE=1 rewrites it.
"""

import os
import re
from functools import cache
from pathlib import Path

import pytest
from attrs import evolve
from semantics import DIFFERENCES

from tdxfs.boot import boot
from tdxfs.capability import judge_dax, judge_node
from tdxfs.cli.compare import HEADERS, cells
from tdxfs.compare import compare
from tdxfs.conflicts import Severity, conflicts
from tdxfs.formats.topology import builtin_names, find
from tdxfs.model import Driver
from tdxfs.nodes import has_memory
from tdxfs.policy import axes
from tdxfs.render import rounded

README = Path(__file__).resolve().parents[1] / "README.md"
MARKED = re.compile(r"(<!-- begin ([a-z-]+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)


def outcome(machine):
    """TDX state; nodes capable, mixed, incapable; what guests can use; findings by severity."""
    words = [judge_node(machine, nid).word for nid in has_memory(machine)]
    usable = sum(judge_node(machine, nid).usable for nid in has_memory(machine))
    usable += sum(judge_dax(machine, key).usable for key, dax in machine.dax.items() if dax.driver is not Driver.KMEM)
    found = [finding.severity for finding in conflicts(machine)]
    return (
        "no TDX" if machine.topology.tdx is None else "enabled" if machine.tdx.enabled else "disabled",
        *(str(words.count(word)) for word in ("capable", "mixed", "incapable")),
        rounded(usable),
        *(str(found.count(severity)) for severity in reversed(Severity)),
    )


@cache
def policy_rows():
    """Each machine under its own policies, and under each value of each axis that changes something here."""
    return tuple(_policy_rows())


def _policy_rows():
    for name in builtin_names():
        if name == "huge":
            continue
        topology = find(name)
        own = outcome(boot(topology))
        yield (f"`{name}`", "its own", *own)
        for axis, values in axes().items():
            for value in values:
                other = outcome(boot(topology, evolve(topology.policies, **{axis: value})))
                if other != own:
                    yield ("", f"`{axis}={value}`", *other)


def policy_table():
    """What the built-in machines become under every value of every policy axis."""
    headers = (
        "machine", "policies", "TDX", "capable nodes", "mixed", "incapable", "usable",
        *(f"{severity.value}s" if severity is not Severity.INFO else "infos" for severity in reversed(Severity)),
    )  # fmt: skip
    rows = [headers, ["---"] * len(headers), *policy_rows()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def compare_table():
    """What becomes of guests on the built-in machines under every combination of four axes."""
    headers = [header.lower() for header in HEADERS]
    found = [(name, row) for name in builtin_names() if name != "huge" for row in compare(find(name))]
    rows = [headers, ["---"] * len(headers), *(cells(f"`{name}`", row) for name, row in found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def difference_table():
    """What a reader of the mount can tell from sysfs; tests/semantics/ holds each row against a mount."""
    headers = ("what", "sysfs", "tdxfs", "because")
    # what is the same of several objects is said once
    once = {rule.what.partition(": ")[2] or rule.what: rule for rule in reversed(DIFFERENCES)}
    found = [(one.what, _said(one.sysfs), _said(one.here), one.why) for one in reversed(once.values())]
    return "".join(f"| {' | '.join(row)} |\n" for row in (headers, ["---"] * len(headers), *found))


def _said(answer):
    return "nothing" if answer == [] else str(answer)


GENERATORS = {"policies": policy_table, "compare": compare_table, "differences": difference_table}
"""Name between the markers -> what makes the text."""


def regenerated(text):
    """`text` with all that is between markers made anew."""
    return MARKED.sub(lambda match: f"{match[1]}{GENERATORS[match[2]]()}{match[4]}", text)


def test_generated_text_is_current():
    """What stands between the markers is what the product says today."""
    text = README.read_text(encoding="utf-8")
    expected = regenerated(text)
    if os.environ.get("TDXFS_UPDATE") == "1":
        README.write_text(expected, encoding="utf-8")

    assert expected == README.read_text(encoding="utf-8"), "run the test with TDXFS_UPDATE=1"


def test_every_marker_has_its_generator():
    """Markers come in pairs, each with a generator, and each generator has its place."""
    text = README.read_text(encoding="utf-8")
    begun = re.findall(r"<!-- begin ([a-z-]+) -->", text)

    assert begun == re.findall(r"<!-- end ([a-z-]+) -->", text) == [match[2] for match in MARKED.finditer(text)]
    assert sorted(begun) == sorted(GENERATORS)


@pytest.mark.parametrize("axis", ["boot", "firmware", "cover", "hotplug", "validate", "report"])
def test_every_axis_matters(axis):
    """Each policy axis changes the answer on some machine."""
    assert axis in {row[1].strip("`").partition("=")[0] for row in policy_rows()}
