"""tdxfs compare: the same machines and guests under every combination of policies."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tdxfs.cli.guests import parse_size
from tdxfs.compare import AXES, Outcome, Row, Wanted, compare
from tdxfs.errors import UserError
from tdxfs.render import rounded, table

HEADERS = ("MACHINE", *map(str.upper, AXES), "TDX", "USABLE", "OF", "STARTED", "REFUSED", "KILLED", "LEARNED FROM")


def read_fleet(path: Path) -> tuple[Wanted, ...]:
    """The guests of a TOML file: ``[[guests]]`` with memory, backing, policy, count; UserError names what is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    found = []
    for number, entry in enumerate(document.get("guests", [])):
        unknown = set(entry) - {"memory", "backing", "policy", "count"}
        if unknown:
            raise UserError(f"{path}: guests[{number}].{min(unknown)}: must be memory, backing, policy or count")
        memory = parse_size(str(entry.pop("memory", "2G")))
        found.append(Wanted(memory, **entry))
    if not found:
        raise UserError(f"{path}: guests: must have at least one entry")
    return tuple(found)


def cells(name: str, row: Row) -> tuple[str, ...]:
    """A row as the table shows it; ``any`` stands for every value of an axis."""
    values = (
        "any" if len(row.values[axis]) == len(kind) else " ".join(row.values[axis]) for axis, kind in AXES.items()
    )
    one = row.outcome
    return (
        name,
        *values,
        "on" if one.tdx else "off",
        rounded(one.usable),
        rounded(one.total),
        *map(str, (one.started, one.refused, one.killed)),
        one.learns or "-",
    )


@click.command("compare")
@click.argument("topologies", metavar="TOPOLOGY…", nargs=-1, required=True)
@click.option("--guests", "fleet", type=click.Path(path_type=Path), help="A TOML file that says which guests.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the first message of each kind.")
def compare_(topologies: tuple[str, ...], fleet: Path | None, as_json: bool) -> None:
    """
    Boot each machine under every combination of boot, firmware, cover and validate, and play guests on it.

    Counts guests started, refused before they touched memory, and killed when they did. Combinations with
    the same outcome share a row. Without --guests every machine gets one guest of each kind that it invites.
    """
    guests = None if fleet is None else read_fleet(fleet)
    found = list(_rows(topologies, guests))
    if as_json:
        print(json.dumps([_plain(name, row) for name, row in found], indent=2))
    else:
        table(HEADERS, [cells(name, row) for name, row in found])


def _rows(topologies: Sequence[str], guests: tuple[Wanted, ...] | None) -> Iterator[tuple[str, Row]]:
    from tdxfs.formats.topology import find

    hidden = not sys.stderr.isatty() or len(topologies) < 2
    with click.progressbar(topologies, label="machines", file=sys.stderr, hidden=hidden) as names:
        for name in names:
            for row in compare(find(name), guests):
                yield Path(name).name.removesuffix(".toml"), row


def _plain(name: str, row: Row) -> dict[str, Any]:
    one: Outcome = row.outcome
    return {
        "machine": name,
        **{axis: list(values) for axis, values in row.values.items()},
        "tdx": one.tdx,
        "usable": one.usable,
        "total": one.total,
        "started": one.started,
        "refused": one.refused,
        "killed": one.killed,
        "messages": list(one.told),
    }
