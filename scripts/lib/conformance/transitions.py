"""The captured stages, reached by what was typed on the real machines."""

from __future__ import annotations

from collections.abc import Iterator

from captures import captured, differences
from replaying import chapters, replays

from conformance.model import Options, Row


def typed(options: Options) -> Iterator[Row]:
    """
    The commands of each machine's log, typed over a mount of the stage before: each must print and end as it did, and
    every entry of the stage that they reach is compared, counters by their shape. A stage that is not listed was
    reached by what no write to these directories can do.
    """
    for machine in sorted(log.parent.name for log in options.golden.glob("*/log.txt")):
        named = {
            chapter: f"{machine}/{chapter.after or chapter.before}" for chapter in chapters(machine, options.golden)
        }
        if not any(map(options.only, named.values())):
            continue
        for reached in replays(machine, options.golden):
            name = named[reached.chapter]
            stage = reached.chapter.after
            want = captured(f"{machine}/{stage}", options.golden) if stage else []
            found = differences(reached.root, want)
            listed = [f"{what} {path}" for path, whats in found.items() for what in whats]
            total = len(want) + len(reached.chapter.typed)
            good = total - len(found) - len(reached.wrong)
            note = "" if stage else "what was typed there"
            if options.only(name):
                yield Row(name, good, total, (*reached.wrong, *listed), note=note)
