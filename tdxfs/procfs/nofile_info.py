"""``/proc/hwloc-nofile-info``: what no file of the kernel says, where hwloc looks for it in a sysroot.

hwloc's own recordings have it: a line per field of uname(2), and the page size.
"""

from __future__ import annotations

from tdxfs.model import Machine, Uname

KEYS = {
    "OSName": "sysname",
    "OSRelease": "release",
    "OSVersion": "version",
    "HostName": "nodename",
    "Architecture": "machine",
    "PageSize": "page_size",
}
"""Key of a line -> field of `Uname`."""


def nofile_info(machine: Machine) -> str:
    """One line per fact that is known."""
    uname = machine.topology.uname or Uname()
    facts = {key: getattr(uname, field) for key, field in KEYS.items()}
    return "".join(f"{key}: {value}\n" for key, value in facts.items() if value)


def parse_nofile_info(text: str) -> Uname:
    """The inverse; lines of another kind are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if colon and key in KEYS:
            found[KEYS[key]] = value
    pages = found.pop("page_size", "")
    return Uname(**found, page_size=int(pages) if pages.isdecimal() else 0)
