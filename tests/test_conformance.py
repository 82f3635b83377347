"""scripts/conformance: that it finds differences, and renders what it finds."""

import gzip
import importlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from attrs import evolve
from captures import GOLDEN, host, needs_captures
from recordings import NODE, cache, node, place, write
from semantics import DIFFERENCES, RULES

ROOT = Path(__file__).resolve().parents[1]
POSSIBLE = "/sys/devices/system/node/possible"


def conformance(*arguments):
    return subprocess.run(
        [ROOT / "scripts" / "conformance", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def planted(golden, machine, stages):
    """A copy of a machine's captures in which each stage says that a file has another size."""
    unpacked = {f"{stage}/sys.jsonl.gz" for stage in stages}
    for file in (GOLDEN / machine).rglob("*"):
        name = file.relative_to(GOLDEN / machine)
        if file.is_file() and (len(name.parts) == 1 or name.parts[0] in stages) and str(name) not in unpacked:
            (golden / machine / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, golden / machine / name)
    for name in unpacked:
        with gzip.open(GOLDEN / machine / name, "rt") as lines:
            entries = [json.loads(line) for line in lines]
        for entry in entries:
            if entry["p"] == POSSIBLE:
                entry["sz"] = 17
        with gzip.open(golden / machine / name, "wt") as lines:
            lines.writelines(f"{json.dumps(entry)}\n" for entry in entries)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@needs_captures
def test_a_stage_is_compared_by_every_way_in(tmp_path):
    """One stage, imported from sysfs, ACPI and the command line, has no difference; text and page say so."""
    text, page = tmp_path / "report.txt", tmp_path / "report.html"
    done = conformance("sysfs", "acpi", "qemu", "--only", "^m1/base$", "--text", text, "--html", page)

    assert done.returncode == 0, done.stdout + done.stderr
    assert text.read_text().count("1 of 1 without a difference; 50") == 3
    assert text.read_text().startswith("1521 of 1521 identical, 100 %; 0 of 3 comparisons have a defect\n")
    assert "\nm1   507/507  507/507  507/507\n" in text.read_text()
    assert page.read_text().startswith("<!doctype html>")
    assert "<b>1521 of 1521 identical" in page.read_text()
    assert "<script" not in page.read_text()
    assert "http" not in page.read_text()


@needs_captures
def test_differences_of_a_stage_are_listed(tmp_path):
    """What an import does not show, and what a tool does not print, is listed and counted, and fails the run."""
    planted(tmp_path, "m1", ["base"])
    edit(tmp_path / "m1/base/lsmem.txt", "DMA32", "DMA64")
    page = tmp_path / "report.html"
    done = conformance("sysfs", "acpi", "qemu", "clients", "runs", "--golden", tmp_path, "--html", page)

    assert done.returncode == 1, done.stderr
    assert done.stdout.count(f"    size {POSSIBLE}\n") == 3
    assert done.stdout.count("    lsmem -o+ZONES -b: -") == 2
    assert "5 of 5 comparisons have a defect" in done.stdout
    assert f"<li>size {POSSIBLE}" in page.read_text()


@needs_captures
def test_differences_of_a_replay_are_listed(tmp_path):
    """So is what a stage that was reached by commands does not show, and a command that ended otherwise."""
    planted(tmp_path, "m13-k73", ["devdax", "kmem"])
    edit(tmp_path / "m13-k73/log.txt", "reconfigured 1 device", "reconfigured 7 devices")
    done = conformance("transitions", "--golden", tmp_path)

    assert done.returncode == 1, done.stderr
    assert f"    size {POSSIBLE}\n" in done.stdout
    assert "    daxctl reconfigure-device --mode=system-ram dax0.0: [rc=0, not 0]" in done.stdout


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


def test_differences_of_this_host_are_listed(monkeypatch):
    """So is what the machine that this runs on shows, and its import does not."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "lib")
    stages = importlib.import_module("conformance.stages")
    options = importlib.import_module("conformance.model").Options(GOLDEN, lambda name: True)
    entry = next(entry for entry in host() if entry["p"] == POSSIBLE)
    monkeypatch.setattr(stages, "host", lambda: [entry, {**entry, "sz": 17}])
    (row,) = stages.this_host(options)

    assert (1, 2, (f"size {POSSIBLE}",)) == (row.good, row.total, row.differences)


def test_broken_rules_are_listed(monkeypatch):
    """
    So is a rule that a mount breaks, with what was expected and what it answered, and a probe that cannot be made; what
    the table of differences allows is a difference, but no defect.
    """
    monkeypatch.syspath_prepend(ROOT / "scripts" / "lib")
    rules = importlib.import_module("conformance.system_calls").rules
    options = importlib.import_module("conformance.model").Options(GOLDEN, lambda name: "7.3" in name)
    kept = next(rule for rule in RULES if str(rule) == "4.2 read")
    allowed = next(rule for rule in DIFFERENCES if rule.section == "3")
    broken = [evolve(kept, sysfs="EBUSY"), evolve(kept, probe=lambda m: m.nothing)]
    good, defect, impossible, known = rules(options, [kept, *broken, allowed])

    assert ("Linux 7.3/4.2 read", 1, False) == (good.name, good.good, good.defect)
    assert (True, ("expected 'EBUSY', actual 'EISDIR'",)) == (defect.defect, defect.differences)
    assert impossible.defect and "nothing" in impossible.note
    assert (0, False) == (known.good, known.defect)
    assert allowed.why in known.note


@pytest.mark.parametrize("arguments", [("nothing",), ("--golden", "/nonexistent")])
def test_wrong_usage(arguments):
    """Unknown sections and places are refused."""
    assert conformance(*arguments).returncode == 2
