"""Commands that look at a machine: show, conflicts, explain, dmesg, pfn."""

from __future__ import annotations

import inspect
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tdxfs.cli.options import (
    DEFAULT,
    boot_machine,
    boot_options,
    json_option,
    open_source,
    topology_argument,
)
from tdxfs.errors import UserError
from tdxfs.idlist import format_list
from tdxfs.model import PAGE_SIZE, Machine
from tdxfs.policy import axes
from tdxfs.render import size, table

if TYPE_CHECKING:
    from tdxfs.values import Emulated, Mounted


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


@click.command()
@topology_argument
@boot_options
@json_option
def show(topology: str, policy: tuple[str, ...], kernel: str | None, as_json: bool) -> None:
    """Show a machine: nodes, dax devices, TDX, policies."""
    described = describe(boot_machine(topology, policy, kernel))
    if as_json:
        _print_json(described)
        return
    tdx = described["tdx"]
    print(f"{described['name']}: Linux {described['kernel']}, {described['cpus']} CPUs, TDX {tdx['state']}", end="")
    print(f" ({tdx['disabled_reason']})" if tdx["disabled_reason"] else "")
    print("policies:", " ".join(f"{axis}={value}" for axis, value in described["policies"].items()))
    if described["description"]:
        print(described["description"])
    print()
    table(
        ("NODE", "CPUS", "MEMORY", "TDX", "USABLE"),
        [
            (str(node["id"]), node["cpus"], size(node["memory"]), node["tdx"], size(node["usable"]))
            for node in described["nodes"]
        ],
    )
    if described["dax"]:
        print()
        table(
            ("DAX", "SIZE", "DRIVER", "TARGET NODE", "TDX", "USABLE"),
            [
                (
                    device["name"],
                    size(device["size"]),
                    device["driver"] or "-",
                    "-" if device["target_node"] is None else str(device["target_node"]),
                    device["tdx"],
                    size(device["usable"]),
                )
                for device in described["dax"]
            ],
        )


def describe(machine: Machine) -> dict[str, Any]:
    """What ``show --json`` prints: plain values, sizes in bytes, CPUs as a range list."""
    from tdxfs.capability import judge_dax, judge_node
    from tdxfs.nodes import online_nodes

    nodes = []
    for nid in sorted(online_nodes(machine)):
        verdict = judge_node(machine, nid)
        nodes.append(
            {
                "id": nid,
                "cpus": format_list(machine.node_cpus.get(nid, ())),
                "memory": verdict.total,
                "tdx": verdict.word if verdict.total else "no memory",
                "convertible": verdict.convertible,
                "usable": verdict.usable,
                "holes": [
                    {"start": hole.range.start, "end": hole.range.end - 1, "reason": hole.why.value}
                    for hole in verdict.holes
                ],
            }
        )
    devices = []
    for key, device in sorted(machine.dax.items()):
        verdict = judge_dax(machine, key)
        devices.append(
            {
                "name": device.name,
                "size": device.size,
                "driver": device.driver and device.driver.value,
                "target_node": machine.regions[key[0]].target_node,
                "tdx": verdict.word,
                "usable": verdict.usable,
            }
        )
    return {
        "name": machine.topology.name,
        "description": machine.topology.description,
        "kernel": machine.topology.kernel,
        "cpus": len(machine.topology.cpus),
        "policies": {axis: str(getattr(machine.policies, axis)) for axis in axes()},
        "tdx": {
            "state": "enabled" if machine.tdx.enabled else "disabled",
            "disabled_reason": machine.tdx.disabled_reason,
        },
        "nodes": nodes,
        "dax": devices,
    }


@click.command()
@click.argument("source", metavar="TOPOLOGY|MOUNTPOINT", default=DEFAULT)
@boot_options
@json_option
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything worse than an info is found.")
def conflicts(source: str, policy: tuple[str, ...], kernel: str | None, as_json: bool, exit_code: bool) -> None:
    """
    Enumerate what a TDX guest cannot have, why, and what to type.

    Of a mount point, only the mounted files are read, as any program would.
    """
    found = _enumerate(source, policy, kernel)
    if as_json:
        _print_json(found)
    elif found:
        table(
            ("SEVERITY", "KIND", "SUBJECT", "REASON", "REMEDY"),
            [tuple(one[column] for column in ("severity", "kind", "subject", "reason", "remedy")) for one in found],
        )
    else:
        print("no conflicts")
    if exit_code and any(one["severity"] != "info" for one in found):
        sys.exit(1)


def _enumerate(source: str, policy: tuple[str, ...], kernel: str | None) -> list[dict[str, Any]]:
    from tdxfs.sysfs.tdx import ConflictsDir
    from tdxfs.values import values

    files = open_source(source, policy, kernel)
    said = values(files, ConflictsDir.WHAT, ConflictsDir)
    if said is None:
        click.echo(f"{source}: no {ConflictsDir.WHAT}: no TDX platform, or mounted with --abi kernel", err=True)
        return []
    found = said["all"]
    assert isinstance(found, list)
    return found


@click.command()
@click.argument("kind", metavar="[KIND|GUEST]", required=False)
@click.argument("mountpoint", required=False)
def explain(kind: str | None, mountpoint: str | None) -> None:
    """Explain a kind of conflict, or what became of a guest of a mounted machine; or list the kinds."""
    from tdxfs.conflicts import RULES
    from tdxfs.guestctl import NAME

    if kind is not None and NAME.fullmatch(kind):
        from tdxfs.cli.guests import explain_guest

        explain_guest(kind, mountpoint)
        return
    texts = {name: inspect.getdoc(rule) or "" for name, rule in RULES.items()}
    if kind is None:
        table(
            ("KIND", "MEANING"),
            [(name, " ".join(text.split()).split(". ")[0].rstrip(".") + ".") for name, text in texts.items()],
        )
        return
    if kind not in texts:
        raise UserError(f"{kind!r} is no kind of conflict: it must be one of {', '.join(texts)}")
    print(texts[kind])


@click.command()
@topology_argument
@boot_options
def dmesg(topology: str, policy: tuple[str, ...], kernel: str | None) -> None:
    """Print the kernel log of a machine's boot."""
    from tdxfs.kmsg import format_dmesg

    print(format_dmesg(boot_machine(topology, policy, kernel).log), end="")


@click.command()
@click.argument("address")
@click.argument("source", metavar="TOPOLOGY|MOUNTPOINT", default=DEFAULT)
@boot_options
@json_option
def pfn(address: str, source: str, policy: tuple[str, ...], kernel: str | None, as_json: bool) -> None:
    """
    Say what is known about the page at a physical ADDRESS (0x… or decimal, bytes):
    its node, dax device and TDMR, and whether it can back a TDX guest.
    """
    try:
        number = int(address, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UserError(f"address {address!r}: must be a number of bytes below 2^64, decimal or with 0x")
    facts = page_facts(open_source(source, policy, kernel), number)
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        shown = "none" if value is None else f"{value:#x}" if name == "pfn" else str(value)
        print(f"{name + ':':7}{shown}")


def page_facts(files: Mounted | Emulated, address: int) -> dict[str, Any]:
    """What the files of a machine say about the page at a physical address."""
    from tdxfs.sysfs.pages import PageDir, PagesDir
    from tdxfs.values import values

    said = values(files, f"{PagesDir.WHAT}/{address // PAGE_SIZE}", PageDir)
    if said is None:
        raise UserError(f"no {PagesDir.WHAT}: mounted with --abi kernel or --abi proposed, or no such address")
    facts = {name: said.get(name) for name in PageDir.DECLARED}
    return {"pfn": address // PAGE_SIZE, **facts}
