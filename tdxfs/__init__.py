"""A Linux machine with memory that can and cannot back TDX guests.

Load or build a topology, boot it, and ask::

    >>> import tdxfs
    >>> machine = tdxfs.boot_machine(tdxfs.load("mixed"))
    >>> machine.tdx.enabled
    True
    >>> tdxfs.judge_node(machine, 0).word
    'capable'
    >>> "incapable-node" in {finding.kind for finding in tdxfs.find_conflicts(machine)}
    True

Another kernel would have decided otherwise::

    >>> strict = tdxfs.Policies(boot=tdxfs.Boot.STRICT)
    >>> tdxfs.boot_machine(tdxfs.load("mixed"), strict).tdx.enabled
    False

A topology needs no file::

    >>> from tdxfs.model import GIB, MIB, Memory, Node
    >>> ram = tdxfs.Range(0, 8 * GIB)
    >>> tiny = tdxfs.Topology(name="tiny", nodes=(Node(0, (Memory(ram),)),), tdx=tdxfs.TdxPlatform(cmrs=(ram,)))
    >>> tdxfs.judge_node(tdxfs.boot_machine(tiny), 0).word
    'capable'

`mounted` mounts it for as long as a ``with`` block lasts, and yields the root of the tree.
Everything is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdxfs.boot import boot as boot_machine
    from tdxfs.capability import judge, judge_dax, judge_node, judge_target_node, page
    from tdxfs.conflicts import Finding, Severity
    from tdxfs.conflicts import conflicts as find_conflicts
    from tdxfs.errors import Refusal, UserError
    from tdxfs.formats.topology import find as load
    from tdxfs.model import Machine, TdxPlatform, Topology
    from tdxfs.policy import Boot, Cover, Firmware, Hotplug, Policies, Report, Validate
    from tdxfs.ranges import Range, Ranges
    from tdxfs.server import mounted

_HOME = {
    "Boot": "policy",
    "Cover": "policy",
    "Finding": "conflicts",
    "Firmware": "policy",
    "Hotplug": "policy",
    "Machine": "model",
    "Policies": "policy",
    "Range": "ranges",
    "Ranges": "ranges",
    "Refusal": "errors",
    "Report": "policy",
    "Severity": "conflicts",
    "TdxPlatform": "model",
    "Topology": "model",
    "UserError": "errors",
    "Validate": "policy",
    "boot_machine": "boot:boot",
    "find_conflicts": "conflicts:conflicts",
    "judge": "capability",
    "judge_dax": "capability",
    "judge_node": "capability",
    "judge_target_node": "capability",
    "load": "formats.topology:find",
    "mounted": "server",
    "page": "capability",
}

__all__ = [
    "Boot",
    "Cover",
    "Finding",
    "Firmware",
    "Hotplug",
    "Machine",
    "Policies",
    "Range",
    "Ranges",
    "Refusal",
    "Report",
    "Severity",
    "TdxPlatform",
    "Topology",
    "UserError",
    "Validate",
    "boot_machine",
    "find_conflicts",
    "judge",
    "judge_dax",
    "judge_node",
    "judge_target_node",
    "load",
    "mounted",
    "page",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tdxfs' has no attribute {name!r}")
    module, _, original = _HOME[name].partition(":")
    return getattr(import_module(f"tdxfs.{module}"), original or name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
