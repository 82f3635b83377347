"""scripts/conformance: that it finds differences, and renders what it finds."""

import gzip
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from captures import GOLDEN, needs_captures
from recordings import NODE, cache, node, place, write

ROOT = Path(__file__).resolve().parents[1]


def conformance(*arguments):
    return subprocess.run(
        [ROOT / "scripts" / "conformance", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@needs_captures
def test_a_stage_is_compared_by_every_way_in(tmp_path):
    """One stage, imported from sysfs, ACPI and the command line, has no difference; text and page say so."""
    text, page = tmp_path / "report.txt", tmp_path / "report.html"
    done = conformance("sysfs", "acpi", "qemu", "--only", "^m1/base$", "--text", text, "--html", page)

    assert done.returncode == 0, done.stdout + done.stderr
    assert text.read_text().count("1 of 1 without a difference; 50") == 3
    assert page.read_text().startswith("<!doctype html>")
    assert "<script" not in page.read_text()
    assert "http" not in page.read_text()


@needs_captures
def test_differences_are_listed(tmp_path):
    """A capture that the import does not show is listed, counted, and fails the run."""
    for name in ("log.txt", *(f"base/proc/{file.name}" for file in (GOLDEN / "m1" / "base" / "proc").iterdir())):
        (tmp_path / "m1" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GOLDEN / "m1" / name, tmp_path / "m1" / name)
    with gzip.open(GOLDEN / "m1" / "base" / "sys.jsonl.gz", "rt") as lines:
        entries = [json.loads(line) for line in lines]
    for entry in entries:
        if entry["p"] == "/sys/devices/system/node/possible":
            entry["sz"] = 17
    with gzip.open(tmp_path / "m1" / "base" / "sys.jsonl.gz", "wt") as lines:
        lines.writelines(f"{json.dumps(entry)}\n" for entry in entries)
    page = tmp_path / "report.html"
    done = conformance("sysfs", "--golden", tmp_path, "--html", page)

    assert done.returncode == 1
    assert "    size /sys/devices/system/node/possible\n" in done.stdout
    assert "<li>size /sys/devices/system/node/possible" in page.read_text()


class TestRecordings:
    """The sections of hwloc's recordings, on one that is made up."""

    @pytest.fixture
    def recording(self, tmp_path):
        machine = tmp_path / "machine"
        for cpu in range(4):
            pair = (cpu // 2 * 2, cpu // 2 * 2 + 1)
            ids = {"core_id": cpu % 2, "physical_package_id": cpu // 2}
            write(machine, place(cpu, package=pair, **ids), cache(cpu, 0, (cpu,)))
        write(machine, node(0, (0, 1), distance="10 16"), node(1, (2, 3), distance="16 10"))
        noted = "OSName: Linux\nArchitecture: x86_64\nPageSize: 4096"
        write(machine, {"sys/class/dmi/id/board_name": "X1", "proc/hwloc-nofile-info": noted})
        return machine

    def compare(self, recording):
        with tarfile.open(recording.parent / "4made-up.tar.bz2", "w:bz2") as archive:
            archive.add(recording, "4made-up")
        return conformance("hwloc-xml", "hwloc-topology", "--golden", recording, "--hwloc", recording.parent)

    def test_the_same(self, recording):
        """lstopo prints the same of the recording and of the mount."""
        done = self.compare(recording)

        assert done.returncode == 0, done.stdout + done.stderr
        assert "hwloc-xml: 1 of 1 without a difference; " in done.stdout
        assert "hwloc-topology: 1 of 1 without a difference; " in done.stdout

    def test_a_difference(self, recording):
        """What the import does not say, here that one node only lacks a file, is listed and fails the run."""
        (recording / NODE / "node1/cpumap").unlink()

        done = self.compare(recording)

        assert done.returncode == 1, done.stdout + done.stderr
        assert "    +    NUMANode L#1 (P#1 128MB)\n" in done.stdout


@pytest.mark.parametrize("arguments", [("nothing",), ("--golden", "/nonexistent")])
def test_wrong_usage(arguments):
    """Unknown sections and places are refused."""
    assert conformance(*arguments).returncode == 2
