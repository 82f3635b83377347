"""Commands about TDX guests: guest run, touch and close, guests, plan."""

from __future__ import annotations

import errno
import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from tdxfs.cli.options import DEFAULT, boot_machine, boot_options, json_option, open_source, topology_argument
from tdxfs.errors import UserError
from tdxfs.model import PAGE_SIZE
from tdxfs.render import rounded, table
from tdxfs.sysfs.paths import bus
from tdxfs.values import Emulated, Mounted

ALLOCATED = {
    "anon": "anon",
    "shmem": "shmem",
    "pagecache": "pagecache",
    "memfd": "guest_memfd",
}
"""``--backing`` for memory that the allocator gives."""

source_argument = click.argument("source", metavar="TOPOLOGY|MOUNTPOINT", default=DEFAULT)
mountpoint_argument = click.argument("mountpoint", required=False)


def parse_size(text: str) -> int:
    """Bytes of ``512M``, ``2G`` or a plain number; UserError unless it is a positive number of whole pages."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    if not number.isascii() or not number.isdecimal():
        raise UserError(f"size {text!r}: must be a number, with K, M, G or T for units")
    size = int(number) << units.get(unit, 0)
    if not size or size % PAGE_SIZE:
        raise UserError(f"size {text!r}: must be a positive multiple of {PAGE_SIZE}")
    return size


@click.group()
def guest() -> None:
    """Play a TDX guest on a machine: give it memory, let it touch it, see what becomes of it."""


@guest.command("run")
@source_argument
@click.option("--memory", default="2G", show_default=True, help="How much memory the guest is given.")
@click.option(
    "--backing",
    default="anon",
    show_default=True,
    metavar="daxX.Y|anon|shmem|pagecache|memfd|bar:ADDRESS/resourceN",
    help="What the memory is.",
)
@click.option("--touch", help="How much of it the guest touches.  [default: all]")
@click.option("--keep", is_flag=True, help="Leave the guest on the mounted machine; tdxfs guest close ends it.")
@boot_options
def run(
    source: str, memory: str, backing: str, touch: str | None, keep: bool, policy: tuple[str, ...], kernel: str | None
) -> None:
    """
    The whole walk: open KVM, set a memory slot, touch the memory. Exit status 1 if the guest does not live.

    --policy MODE[:NODES], such as bind:0-1, is the NUMA policy of the guest's process; --policy AXIS=VALUE is
    how a TOPOLOGY boots.
    """
    numa = [word for word in policy if "=" not in word]
    axes = tuple(word for word in policy if "=" in word)
    if len(numa) > 1:
        raise UserError("--policy: one NUMA policy is enough")
    files = open_source(source, axes, kernel)
    size, touched = parse_size(memory), parse_size(touch or memory)
    typed = ["tdxfs", "guest", "run", os.path.abspath(source) if isinstance(files, Mounted) else source]
    typed += ["--memory", memory, "--backing", backing, *(["--touch", touch] if touch else [])]
    typed += [word for one in policy for word in ("--policy", one)]
    typed += ["--kernel", kernel] if kernel else []
    walk = Walk(files, shlex.join(typed))
    lived = walk.tell(size, touched, backing, numa[0] if numa else "")
    if walk.made and not keep:
        walk.event("close", walk.name)
    if not lived:
        raise SystemExit(1)


class Walk:
    """One guest's story, as it happens."""

    def __init__(self, files: Mounted | Emulated, command: str) -> None:
        from tdxfs.sysfs.guests import WHAT

        self.files = files
        self.command = command
        self.where = WHAT
        self.made = False
        try:
            known = set(files.names(WHAT))
        except OSError as error:
            raise UserError(f"no {WHAT}: no TDX platform, or mounted with --abi kernel") from error
        pid = os.getpid()
        self.name = next(f"{pid}-{n}" for n in range(len(known) + 1) if f"{pid}-{n}" not in known)

    def event(self, *words: str) -> int:
        """Write one event; the errno that it was refused with, 0 for none."""
        from tdxfs.guestctl import CONTROL

        try:
            self.files.write(CONTROL, " ".join(words).encode())
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def step(self, what: str, *words: str) -> bool:
        """An event with a line about it; whether it was accepted."""
        number = self.event(*words)
        print(f"{what + ':':46} {errno.errorcode[number] if number else 'ok'}")
        return not number

    def tell(self, size: int, touched: int, backing: str, policy: str) -> bool:
        """Play and print; whether the guest lives. UserError if the machine has no such backing."""
        kind, name = self.backing(backing)
        self.made = self.step("open /dev/kvm, a TD", "create", self.name, self.command)
        if not self.made:
            print("why: TDX is disabled on this machine, or every private KeyID is in use")
            return False
        if policy and not self.step(f"set_mempolicy {policy}", "policy", self.name, f"policy={policy}"):
            print(f"why: {policy} is no policy for a process of this machine")
            return False
        element = f"backing=0-{size:x}:{kind}:0::{name}"
        lived = self.step(
            f"KVM_SET_USER_MEMORY_REGION {rounded(size)} of {backing}",
            *("set", self.name, "slot=0", "gpa=0", f"size={size}", element),
        ) and self.step(f"the guest touches {rounded(touched)}", "touch", self.name, "gpa=0", f"size={touched}")
        self.explain()
        if lived:
            print(f"guest {self.name} lives")
        return lived

    def backing(self, text: str) -> tuple[str, str]:
        """Kind and object of a backing as the user names it."""
        if text in ALLOCATED:
            return ALLOCATED[text], ""
        if text.startswith("bar:"):
            kind, name, where = "bar", text.removeprefix("bar:"), f"{bus('pci')}/devices/{text.removeprefix('bar:')}"
        elif text.startswith("dax"):
            kind, name, where = "dax", text, f"{bus('dax')}/devices/{text}"
        else:
            known = ", ".join(ALLOCATED)
            raise UserError(f"--backing {text!r}: must be daxX.Y, bar:ADDRESS/resourceN or one of {known}")
        directory, _, last = where.rpartition("/")
        try:
            there = last in self.files.names(directory)
        except OSError:
            there = False
        if not there:
            raise UserError(f"--backing {text}: the machine has no {where}")
        return kind, name

    def explain(self) -> None:
        """Print the records of the guest."""
        from tdxfs.sysfs.guests import GuestDir
        from tdxfs.values import values

        found = values(self.files, f"{self.where}/{self.name}", GuestDir)
        if found is not None:
            print_records(found)


def print_records(found: dict[str, Any]) -> None:
    """What killed a guest and what was refused to it, with what to do next time."""
    for record in found["refusals"]["all"]:
        print(f"refused with {record['error']}: {record['kind']}")
        print(f"why: {record['reason']}\nnext time: {record['remedy']}")
    death = found.get("death")
    if death is not None:
        print(f"dead: {death['seamcall']} returned {death['error_code']:#x} at gpa {death['gpa']:#x}")
        print(f"why: {death['reason']}\nnext time: {death['remedy']}")


@guest.command("touch")
@click.argument("name")
@mountpoint_argument
@click.option("--gpa", default="0", show_default=True, help="First guest physical address.")
@click.option("--size", default="4K", show_default=True, help="How much to touch.")
def touch_(name: str, mountpoint: str | None, gpa: str, size: str) -> None:
    """Let a guest on a mounted machine touch memory. Exit status 1 if it does not get it."""
    try:
        start = int(gpa, 0)
    except ValueError:
        raise UserError(f"--gpa {gpa!r}: must be a number, decimal or with 0x") from None
    walk = _walk(name, mountpoint)
    what = f"the guest touches {size} at {start:#x}"
    if not walk.step(what, "touch", name, f"gpa={start}", f"size={parse_size(size)}"):
        walk.explain()
        raise SystemExit(1)


@guest.command("close")
@click.argument("name")
@mountpoint_argument
def close(name: str, mountpoint: str | None) -> None:
    """End a guest on a mounted machine."""
    if not _walk(name, mountpoint).step(f"close {name}", "close", name):
        raise SystemExit(1)


def _walk(name: str, mountpoint: str | None) -> Walk:
    walk = Walk(Mounted(the_mount(mountpoint)), "")
    walk.name = name
    if name not in walk.files.names(walk.where):
        raise UserError(f"{name}: no such guest: see tdxfs guests")
    return walk


def the_mount(mountpoint: str | None) -> Path:
    """The mount that is meant: the one given, else the only one there is; UserError."""
    from tdxfs.server import mounts

    if mountpoint is not None:
        if not (Path(mountpoint) / "sys").is_dir():
            raise UserError(f"{mountpoint}: nothing is mounted here (there is no sys directory)")
        return Path(mountpoint)
    found = mounts()
    if len(found) != 1:
        raise UserError(f"MOUNTPOINT: must be given: {len(found) or 'no'} machines are mounted")
    return Path(found[0])


def guest_values(mountpoint: str | None) -> list[dict[str, Any]]:
    """Every guest of a mounted machine, with its name, as its files say."""
    from tdxfs.sysfs.guests import WHAT, GuestDir
    from tdxfs.values import values

    files = Mounted(the_mount(mountpoint))
    try:
        names = [name for name in files.names(WHAT) if "-" in name]
    except FileNotFoundError:
        raise UserError(f"{mountpoint}: no {WHAT}: no TDX platform, or mounted with --abi kernel") from None
    order = sorted(names, key=lambda name: [int(part) for part in name.split("-")])
    found = ((name, values(files, f"{WHAT}/{name}", GuestDir)) for name in order)
    return [{"name": name, **said} for name, said in found if said is not None]


@click.command()
@mountpoint_argument
@json_option
def guests(mountpoint: str | None, as_json: bool) -> None:
    """List the TDX guests of a mounted machine, those that are gone too."""
    found = guest_values(mountpoint)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        print("no guests")
        return
    rows = []
    for one in found:
        backing = {part.get("object") or part["kind"] for slot in one["memslots"]["slots"] for part in slot["backing"]}
        last = one.get("death") or (one["refusals"]["all"] or [None])[-1]
        why = f"{last['error']}: {last['reason']}" if last else "-"
        rows.append((one["name"], one["state"], rounded(one["size"]), ",".join(sorted(backing)) or "-", why))
    table(("GUEST", "STATE", "MEMORY", "BACKING", "WHY"), rows)


def explain_guest(name: str, mountpoint: str | None) -> None:
    """Print what became of one guest; UserError if there is none of that name."""
    one = next((found for found in guest_values(mountpoint) if found["name"] == name), None)
    if one is None:
        raise UserError(f"{name}: no such guest: see tdxfs guests")
    print(f"guest {name} is {one['state']}: {one['command'] or 'no command known'}")
    for slot in one["memslots"]["slots"]:
        parts = ", ".join(part.get("object") or part["kind"] for part in slot["backing"]) or "nothing"
        print(f"slot at gpa {slot['gpa']:#x}: {rounded(slot['size'])} of {parts}, {rounded(slot['touched'])} touched")
    print_records(one)


@click.command()
@topology_argument
@click.option("--memory", default="2G", show_default=True, help="How much memory each guest needs.")
@click.option("--guests", "count", default=1, show_default=True, type=click.IntRange(1), help="How many guests.")
@boot_options
@json_option
def plan(topology: str, memory: str, count: int, policy: tuple[str, ...], kernel: str | None, as_json: bool) -> None:
    """
    Where TDX guests of a size can go on a machine, with which policy, and what would have to change for more.

    Exit status 1 if no way is found that holds them all.
    """
    from tdxfs.placement import plans

    found = list(plans(boot_machine(topology, policy, kernel), parse_size(memory)))
    if as_json:
        rows = [{"change": one.change, "where": one.where, "guests": one.guests} for one in found]
        print(json.dumps(rows, indent=2))
    elif found:
        rows_of = [(one.change or "none", "; ".join(one.where), str(one.guests)) for one in found]
        table(("CHANGE", "WHERE", f"GUESTS OF {memory}"), rows_of)
    else:
        print(f"this machine cannot host a TDX guest of {memory}, whatever is changed")
    if max((one.guests for one in found), default=0) < count:
        raise SystemExit(1)
