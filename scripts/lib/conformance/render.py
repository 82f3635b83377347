"""The report as text, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from conformance.model import Row, Section

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: .5rem 0 2rem; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { width: 9rem; height: .7rem; background: #f0c4bc; display: inline-block; }
.bar i { display: block; height: 100%; background: #3f8f5a; }
.other .bar { background: #e3e3e3; } .other .bar i { background: #9aa8b8; }
details ul { margin: .2rem 0; padding-left: 1.2rem; font: 12px/1.5 ui-monospace, monospace; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd; } .bar { background: #6b3a32; } }
"""


def percent(good: int, total: int) -> str:
    """Never 100 % unless all of it is."""
    if not total or good == total:
        return "100 %"
    return f"{int(good * 1000 / total) / 10} %"


def text(sections: Sequence[Section], most: int | None = None) -> str:
    """The whole report. With `most`, only differences that are defects are listed, and no more than that of a row."""
    lines = [summary(sections), "", *_matrix(sections), ""]
    return "\n".join([*lines, *(line for section in sections for line in _text(section, most))])


def summary(sections: Sequence[Section]) -> str:
    """One line about everything."""
    good, total = sum(section.good for section in sections), sum(section.total for section in sections)
    defects = sum(section.defects for section in sections)
    rows = sum(len(section.rows) for section in sections)
    return f"{good} of {total} identical, {percent(good, total)}; {defects} of {rows} comparisons have a defect"


def _by_machine(sections: Sequence[Section]) -> dict[str, list[tuple[int, int]]]:
    # machine -> identical and total in each section; only machines that more than one row is about
    machines = dict.fromkeys(row.machine for section in sections for row in section.rows if "/" in row.name)
    return {
        machine: [
            (sum(row.good for row in rows), sum(row.total for row in rows))
            for rows in ([row for row in section.rows if row.machine == machine] for section in sections)
        ]
        for machine in machines
    }


def _matrix(sections: Sequence[Section]) -> Iterator[str]:
    table = [["", *(section.name for section in sections)]]
    table += [
        [machine, *(f"{good}/{total}" if total else "-" for good, total in figures)]
        for machine, figures in _by_machine(sections).items()
    ]
    table.append(["all", *(f"{section.good}/{section.total}" for section in sections)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join((f"{first:{widths[0]}}", *cells)).rstrip()


def _text(section: Section, most: int | None) -> Iterator[str]:
    yield f"{section.name}: {section.whole} of {len(section.rows)} without a difference; {_figure(section)}"
    yield ""
    width = max((len(row.name) for row in section.rows), default=0)
    for row in section.rows:
        note = f"  ({row.note})" if row.note else ""
        yield f"  {row.name:{width}}  {row.good:6} of {row.total:6}  {percent(row.good, row.total):>7}{note}"
    yield ""
    for row in section.rows:
        if row.differences and (row.exact or most is None):
            yield f"  {row.name}:"
            yield from (f"    {difference}" for difference in row.differences[:most])
            if most is not None and len(row.differences) > most:
                yield f"    ... and {len(row.differences) - most} more"
            yield ""


def _figure(section: Section) -> str:
    return f"{section.good} of {section.total} entries identical, {percent(section.good, section.total)}"


def html(sections: Sequence[Section], title: str = "Conformance of tdxfs") -> str:
    """The whole report as a page."""
    body = "\n".join(line for section in sections for line in _html(section))
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n<p><b>{escape(summary(sections))}</b></p>\n"
        f"{_html_matrix(sections)}\n{body}\n</html>\n"
    )


def _html_matrix(sections: Sequence[Section]) -> str:
    heads = "".join(f"<th>{escape(section.name)}" for section in sections)
    body = "".join(
        f"<tr><td>{escape(machine)}{''.join(_cell(good, total) for good, total in figures)}</tr>"
        for machine, figures in _by_machine(sections).items()
    )
    totals = "".join(_cell(section.good, section.total) for section in sections)
    return f"<table><tr><th>{heads}</tr>{body}<tr><th>all{totals}</tr></table>"


def _cell(good: int, total: int) -> str:
    if not total:
        return '<td class="n">'
    return f'<td class="n">{good} of {total}<br>{percent(good, total)}'


def _html(section: Section) -> Iterator[str]:
    yield f"<h2>{escape(section.name)}</h2>"
    yield f"<p>{escape(section.text)}</p>"
    yield f"<p><b>{section.whole} of {len(section.rows)}</b> without a difference; {escape(_figure(section))}.</p>"
    yield "<table><tr><th>what<th><th>identical<th>of<th><th>differences</tr>"
    yield from map(_row, section.rows)
    yield "</table>"


def _row(row: Row) -> str:
    width = 100 * row.good / row.total if row.total else 100
    items = "".join(f"<li>{escape(difference)}" for difference in row.differences)
    listed = f"<details><summary>{len(row.differences)}</summary><ul>{items}</ul></details>" if items else ""
    return (
        f'<tr class="{"exact" if row.exact else "other"}"><td>{escape(row.name)}'
        f'<td><span class="bar"><i style="width:{width:.1f}%"></i></span>'
        f'<td class="n">{row.good}<td class="n">{row.total}<td class="n">{percent(row.good, row.total)}'
        f"<td>{escape(row.note)} {listed}</tr>"
    )
