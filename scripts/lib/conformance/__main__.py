"""``scripts/conformance``: runs the sections and writes the report. Exit status 1 if there is a defect."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path

import click

from conformance import clients, hwloc, render, stages, system_calls, transitions
from conformance.model import Maker, Options, Row, Section

SECTIONS: dict[str, Maker] = {
    "sysfs": stages.by_sysfs,
    "host": stages.this_host,
    "acpi": stages.by_acpi,
    "qemu": stages.by_qemu,
    "transitions": transitions.typed,
    "semantics": system_calls.rules,
    "clients": clients.over_a_mount,
    "runs": clients.in_a_run,
    "hwloc-topology": hwloc.topology,
    "hwloc-xml": hwloc.whole,
}
"""Name on the command line -> what makes the rows."""
MOST_SHOWN = 20
"""Differences of a row that the terminal shows; the files have them all."""
ROOT = Path(__file__).resolve().parents[3]


def captures() -> Path | None:
    """The captures beside the checkout, if they are there."""
    return next((up / "shared" / "golden" for up in ROOT.parents if (up / "shared" / "golden").is_dir()), None)


def _noted(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    # a long run says where it is
    for row in rows:
        click.echo(f"{name}: {row.name}: {row.good} of {row.total}", err=True)
        yield row


@click.command()
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option("--golden", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where the captures are.")
@click.option(
    "--hwloc",
    "recordings",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="tests/hwloc/linux of hwloc's source.",
)
@click.option("--only", default="", metavar="REGEX", help="Only rows whose name matches, such as m5/.")
@click.option("--text", "text_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the text there too.")
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the page there.")
def main(
    sections: tuple[str, ...],
    golden: Path | None,
    recordings: Path | None,
    only: str,
    text_file: Path | None,
    html_file: Path | None,
) -> None:
    """Compare tdxfs with what real kernels showed. All SECTIONS run unless some are named."""
    golden = golden or captures()
    if golden is None:
        raise click.ClickException("no captures beside the checkout: --golden must be given")
    options = Options(golden, lambda name: bool(re.search(only, name)), recordings)
    made = []
    for name in sections or SECTIONS:
        maker = SECTIONS[name]
        if name.startswith("hwloc") and recordings is None:
            click.echo(f"{name}: left out, no --hwloc", err=True)
            continue
        text = " ".join((getdoc(maker) or "").split())
        made.append(Section(name, text, tuple(_noted(name, maker(options)))))
    if text_file:
        text_file.write_text(render.text(made))
    if html_file:
        html_file.write_text(render.html(made))
    print(render.text(made, MOST_SHOWN))
    sys.exit(any(section.defects for section in made))


main()
