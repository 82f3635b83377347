"""Commands about a machine that lives: its history, what happens to it now, and what no kernel file does to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from tdxfs.cli.options import json_option
from tdxfs.errors import UserError
from tdxfs.formats.units import parse_size
from tdxfs.policy import Policies


def _bytes(context: click.Context, option: click.Parameter, value: str) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


mountpoint_argument = click.argument("mountpoint", type=click.Path(path_type=Path))


@click.command()
@mountpoint_argument
@click.option("--node", type=int, required=True, help="The node that it belongs to.")
@click.option("--base", callback=_bytes, required=True, help="Its first physical address.")
@click.option("--size", callback=_bytes, required=True, help="Its size.")
@click.option("--cxl", is_flag=True, help="A CXL memory window, not a memory module.")
def plug(mountpoint: Path, node: int, base: int, size: int, cxl: bool) -> None:
    """Plug a memory module, or a CXL memory window, into a mounted machine."""
    from tdxfs.sysfs.debug import Request

    request = Request("plug", {"node": node, "base": base, "size": size}, "cxl" if cxl else "memory")
    _write(mountpoint, "hotplug", str(request))


@click.command()
@mountpoint_argument
@click.option("--base", callback=_bytes, required=True, help="The first physical address of what was plugged.")
def unplug(mountpoint: Path, base: int) -> None:
    """Unplug a memory module or CXL memory window; its memory goes offline first."""
    from tdxfs.sysfs.debug import Request

    _write(mountpoint, "hotplug", str(Request("unplug", {"base": base})))


@click.command()
@mountpoint_argument
@click.option("--policy", multiple=True, metavar="AXIS=VALUE", help="Boot with this policy; the others stay.")
def reboot(mountpoint: Path, policy: tuple[str, ...]) -> None:
    """Boot a mounted machine again."""
    from tdxfs.cli.options import parse_policies

    parse_policies(Policies(), policy)
    _write(mountpoint, "reboot", " ".join(policy) + "\n")


def _write(mountpoint: Path, file: str, line: str) -> None:
    from tdxfs.sysfs.debug import TdxfsDir

    path = mountpoint / TdxfsDir.WHAT.lstrip("/") / file
    try:
        handle = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        reason = "no machine is mounted here, or one with fewer files (--abi)"
        raise UserError(f"{mountpoint}: {reason}") from None
    try:
        os.write(handle, line.encode())
    except OSError as error:
        raise UserError(f"{mountpoint}: {line.strip() or file}: {error.strerror}; see tdxfs abi, {file}") from None
    finally:
        os.close(handle)


@click.command()
@click.argument("journal", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def replay(journal: Path, as_json: bool) -> None:
    """Print the history in a journal: every write that changed the machine."""
    from tdxfs.journal import read

    for number, change in enumerate(read(journal), 1):
        if as_json:
            import json

            print(json.dumps({"path": change.path, "data": change.data.decode("latin-1"), "refused": change.refused}))
            continue
        refused = f"  {errno.errorcode[change.refused]}" if change.refused else ""
        print(f"{number:6}  {change.path}  {change.data.decode('latin-1').rstrip()!r}{refused}")


@click.command()
@click.argument("mountpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
def watch(mountpoint: Path) -> None:
    """
    Follow a mounted machine: its generation, conflicts that appear and vanish, its kernel log.

    Only the mounted files are read, as any program would, and poll(2) waits for them. Ends with the mount.
    """
    from tdxfs.watch import happenings

    for line in happenings(mountpoint):
        click.echo(line)
