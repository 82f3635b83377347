"""Imports point up the table of layers: a module knows those above it, never those below."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tdxfs"

LAYERS = (
    ("errors", "ranges", "ring", "idlist", "render", "faults"),
    ("policy", "model", "kmsg", "validate"),
    ("nodes", "cpus", "zones", "counters", "capability", "tdmr", "delta", "mempolicy", "zonelists", "allocator"),
    (
        "tdxinit",
        "boot",
        "remedies",
        "transitions",
        "tasks",
        "placement",
        "memslots",
        "guests",
        "pledge",
        "guestctl",
        "compare",
    ),
    ("conflicts", "sysfs.codec", "sysfs.attribute", "sysfs.paths", "sysfs.knob", "rules"),
    ("sysfs", "procfs", "devfs", "uevents"),
    ("root", "tree", "values", "abi", "processes", "caller", "descriptors", "kvm"),
    (
        "formats",
        "journal",
        "watch",
        "scenario",
        "machines",
        "fuse_abi",
        "session",
        "cached",
        "notifier",
        "mount",
        "fuse_wire",
        "finder",
        "inodes",
        "listings",
        "opened",
        "failures",
        "server",
    ),
    ("sandbox",),
    ("cli", "pytest_plugin", "__main__", "__init__"),
)
"""Top to bottom; a package stands for its modules unless one is listed by itself."""


def modules():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def dotted(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer(name):
    while name:
        for number, names in enumerate(LAYERS):
            if name in names:
                return number
        name = name.rpartition(".")[0]
    return None


def imported(path):
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_up(path):
    """A module has a layer, and imports from its own and from those above."""
    here = layer(dotted(path))
    assert here is not None, f"{path} has no layer"

    for name in imported(path):
        if name.startswith("tdxfs."):
            there = layer(name.removeprefix("tdxfs."))
            assert there is not None and there <= here, f"{path} imports {name}"


def test_only_one_module_knows_fuse():
    """fusepy is imported in one place, below the core."""
    users = [str(path) for path in modules() if any(name.split(".")[0] == "fuse" for name in imported(path))]

    assert users == ["fuse_abi.py"]


def test_the_core_does_no_io():
    """From the model to the conflicts nothing opens a file, starts a process or prints."""
    core = {name for names in LAYERS[1:5] for name in names}
    forbidden = {"io", "logging", "pathlib", "shutil", "socket", "subprocess", "sys", "tempfile"}
    for path in modules():
        name = dotted(path)
        if name in core or name.split(".")[0] in {"procfs", "rules", "sysfs"}:
            assert not forbidden & set(imported(path)), path
            calls = [
                n.func.id
                for n in ast.walk(ast.parse((PACKAGE / path).read_text()))
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            ]
            assert not {"open", "print"} & set(calls), path
