"""The rules of sysfs as a file system, asked on mounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from semantics import RULES
from semantics.rule import Mount, Rule, mount

from conformance.model import Options, Row
from tdxfs.model import KERNELS


def rules(options: Options, asked: Iterable[Rule] = RULES) -> Iterator[Row]:
    """
    Each rule of what sysfs answers to system calls, as measured on real kernels, asked on a mount of that kernel.
    Where a FUSE mount cannot answer so, the row says why; it counts as a difference, but not as a defect.
    """
    for kernel in KERNELS:
        with ExitStack() as stack:
            mounts: dict[str, Mount] = {}
            for rule in asked:
                name = f"Linux {kernel}/{rule}"
                if not options.only(name):
                    continue
                if rule.on not in mounts:
                    mounts[rule.on] = stack.enter_context(mount(rule.on, kernel))
                yield _row(name, rule, kernel, mounts[rule.on])


def _row(name: str, rule: Rule, kernel: str, where: Mount) -> Row:
    where.reboot()
    expected = rule.expected(kernel)
    try:
        actual = rule.probe(where)
    except Exception as error:
        # a probe that cannot even be made is a difference, not the end of the report
        actual = error
    if actual == expected:
        return Row(name, 1, 1, note=f"{actual!r}")
    known = bool(rule.why) and actual == rule.allowed(kernel)
    note = f"{expected!r}, here {actual!r}" + (f": {rule.why}" if known else "")
    return Row(name, 0, 1, (f"expected {expected!r}, actual {actual!r}",), exact=not known, note=note)
