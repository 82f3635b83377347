"""What sysfs answers when it is used as a file system, rule by rule (facts: sysfs-semantics).

A rule is declared once, with what measured kernels answer and a probe that makes the system calls on a mount. Where a
FUSE mount cannot answer so, the rule says what it answers, and why: the README's table is made of those.
``test_rules.py`` holds every rule against mounts of every kernel, ``scripts/conformance semantics`` reports them.

Left out is what is not emulated: ACPI tables, ``dev/char`` of other devices, NVDIMM namespaces that come and go.
"""

from itertools import chain

from semantics import (
    daxes,
    descriptors,
    directories,
    links,
    metadata,
    names,
    nobody,
    opening,
    reading,
    removal,
    status,
    writing,
)

RULES = tuple(
    chain.from_iterable(
        module.RULES
        for module in (
            status,
            directories,
            links,
            opening,
            reading,
            descriptors,
            names,
            metadata,
            writing,
            daxes,
            removal,
            nobody,
        )
    )
)
"""In the order of the document."""
DIFFERENCES = tuple(rule for rule in RULES if rule.why)
"""Those that a FUSE mount breaks."""
