"""The command line: what it prints, how it fails, what it leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from machines import MIXED

from tdxfs.cli import COMMANDS, main
from tdxfs.conflicts import RULES
from tdxfs.formats.topology import builtin_names, dumps
from tdxfs.policy import axes
from tdxfs.server import is_mounted, mounted


def run(*arguments):
    """The outcome of a command in this process."""
    return CliRunner().invoke(main, arguments)


def out(*arguments):
    """What a command that succeeds prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def tdxfs(*arguments, **options):
    """A command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tdxfs", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def fails(result, *words):
    """Exit status 1, one line on stderr that has the words in it, no traceback."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.fullmatch(r"tdxfs: .*\n", result.stderr)
    for word in words:
        assert word in result.stderr


@pytest.fixture
def small(tmp_path):
    """The file of a small machine."""
    file = tmp_path / "small.toml"
    file.write_text(dumps(MIXED))
    return str(file)


@pytest.fixture(scope="module")
def root():
    """A small machine, mounted."""
    with mounted(MIXED) as where:
        yield str(where)


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_explains_itself(self, command):
        """--help of a command says what it does; so does the list of commands."""
        assert f"Usage: main {command}" in out(command, "--help")
        assert f"  {command} " in out("--help")

    def test_version(self):
        """--version names the version."""
        assert "0.1.0" in out("--version")

    def test_usage(self):
        """Wrong usage is exit status 2."""
        assert run("nonsense").exit_code == 2
        assert run("show", "--nonsense").exit_code == 2
        assert run("show", "--kernel", "2.6").exit_code == 2


class TestShow:
    def test_table(self, small):
        """A row per node and per dax device, plain when piped."""
        shown = out("show", small)

        assert re.search(r"^0 +0-1 +4 GiB +capable +", shown, re.MULTILINE)
        assert re.search(r"^2 +2 GiB +incapable +0 B$", shown, re.MULTILINE)
        assert re.search(r"^dax0\.0 +1 GiB +device_dax +3 +incapable +0 B$", shown, re.MULTILINE)
        assert "\x1b" not in shown

    def test_json(self, small):
        """--json says the same with numbers."""
        shown = json.loads(out("show", small, "--json"))

        assert ["capable", "mixed", "incapable"] == [node["tdx"] for node in shown["nodes"]]
        assert list(axes()) == list(shown["policies"])
        assert shown["tdx"]["state"] == "enabled"
        assert shown["nodes"][2]["holes"] == [{"start": 8 << 30, "end": (10 << 30) - 1, "reason": "not-convertible"}]

    def test_policy_and_kernel(self, small):
        """--policy and --kernel change how the machine boots."""
        shown = json.loads(out("show", small, "--json", "--policy", "boot=strict", "--kernel", "6.12"))

        assert shown["tdx"]["state"] == "disabled"
        assert "not convertible" in shown["tdx"]["disabled_reason"]
        assert shown["kernel"] == "6.12"

    def test_wide_on_a_terminal(self, small):
        """On a terminal the table is drawn."""
        leader, follower = os.openpty()
        process = subprocess.Popen([sys.executable, "-m", "tdxfs", "show", small], stdout=follower)
        os.close(follower)
        seen = b""
        while process.poll() is None or seen[-1:] != b"\n":
            try:
                seen += os.read(leader, 4096)
            except OSError:  # the other side is closed
                break
        process.wait()
        os.close(leader)

        assert "─".encode() in seen


class TestConflicts:
    def test_mount_and_topology_agree(self, root, small):
        """The mounted files say what the topology says."""
        assert json.loads(out("conflicts", root, "--json")) == json.loads(out("conflicts", small, "--json"))

    def test_the_mount_is_read_through_its_files(self, root):
        """What is enumerated is what a reader of the files counts."""
        directory = Path(root, "sys/kernel/mm/tdx/conflicts")
        found = json.loads(out("conflicts", root, "--json"))

        assert len(found) == int((directory / "count").read_text())
        assert [one["kind"] for one in found] == [
            (directory / f"conflict{number}" / "kind").read_text().strip() for number in range(len(found))
        ]

    def test_table(self, small):
        """A line per conflict, with reason and remedy."""
        shown = out("conflicts", small)

        assert re.search(r"^warning +incapable-node +node2 .*numactl --membind=0 COMMAND$", shown, re.MULTILINE)

    def test_exit_code(self, small):
        """With --exit-code anything worse than an info is status 1, without it nothing is."""
        assert run("conflicts", small).exit_code == 0
        assert run("conflicts", small, "--exit-code").exit_code == 1
        assert run("conflicts", "clean", "--exit-code").exit_code == 0

    def test_none(self):
        """A machine without conflicts says so, as text and as JSON."""
        assert out("conflicts", "clean") == "no conflicts\n"
        assert json.loads(out("conflicts", "clean", "--json")) == []

    def test_no_tdx(self):
        """Without a TDX platform there is no directory to read, and that is said on stderr."""
        result = run("conflicts", "no-tdx")

        assert result.exit_code == 0
        assert result.stdout == "no conflicts\n"
        assert "no TDX platform" in result.stderr

    def test_wrong_place(self, tmp_path, root):
        """A directory that is no mount, or options that a mount cannot take, are refused."""
        fails(run("conflicts", str(tmp_path)), str(tmp_path), "nothing is mounted")
        fails(run("conflicts", root, "--policy", "boot=strict"), root)


class TestExplain:
    @pytest.mark.parametrize("kind", RULES)
    def test_every_kind(self, kind):
        """Every kind of conflict has an explanation, and stands in the list."""
        assert len(out("explain", kind)) > 80
        assert re.search(rf"^{kind} ", out("explain"), re.MULTILINE)

    def test_unknown_kind(self):
        """An unknown kind is answered with the known ones."""
        fails(run("explain", "nonsense"), "nonsense", "mixed-node")


class TestLooking:
    def test_dmesg(self, small):
        """The log of the boot, in Linux's words."""
        assert re.search(r"^\[ +0\.\d{6}\] virt/tdx: TDX-Module initialized$", out("dmesg", small), re.MULTILINE)
        assert "is not fully convertible memory" in out("dmesg", small, "--policy", "boot=strict")

    @pytest.mark.parametrize(
        ("address", "node", "dax", "tdx"),
        [
            (str(5 << 30), 0, None, "capable"),
            (hex(9 << 30), 2, None, "not-convertible"),
            (hex(12 << 30), 3, "dax0.0", "not-convertible"),
            (hex(3 << 30), None, None, "not-convertible"),
        ],
    )
    def test_pfn(self, small, address, node, dax, tdx):
        """Node, dax device and verdict of the page at an address; dax pages have their target node."""
        shown = json.loads(out("pfn", address, small, "--json"))

        assert (node, dax, tdx) == (shown["node"], shown["dax"], shown["tdx"])
        assert f"tdx:   {tdx}\n" in out("pfn", address, small)

    @pytest.mark.parametrize("address", ["banana", "-1", "0x10000000000000000"])
    def test_pfn_of_no_address(self, small, address):
        """What is no address is named."""
        fails(run("pfn", "--", address, small), address)

    def test_topologies(self):
        """Every built-in machine, with a description."""
        lines = out("topologies").splitlines()[1:]

        assert [line.split()[0] for line in lines] == list(builtin_names())
        assert all(len(line.split()) > 3 for line in lines)

    def test_abi(self):
        """--abi leaves the later tiers out."""
        assert "Tier: emulator" in out("abi")
        assert "tdx_capable" in out("abi", "--abi", "proposed")
        assert "tdx_capable" not in out("abi", "--abi", "kernel")


class TestWrongInput:
    @pytest.mark.parametrize("policy", ["boot", "boot=maybe", "moot=strict", "=", "boot="])
    def test_policy(self, small, policy):
        """A wrong policy is named, with what is allowed."""
        fails(run("show", small, "--policy", policy), repr(policy) if "=" not in policy else policy)

    def test_no_such_topology(self):
        """A name that is neither a file nor a built-in machine."""
        fails(run("show", "nonsense.toml"), "nonsense.toml")

    def test_check(self, tmp_path, small):
        """check says that a file is fine, or which key is wrong."""
        assert out("check", small).startswith(f"{small}: ok")
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(dumps(MIXED).replace("kernel", "colonel") + "\nnonsense = 1\n")
        fails(run("check", str(wrong)), "wrong.toml", "nonsense")

    def test_no_permission_is_one_line(self, small, tmp_path):
        """An operating system's error names the file."""
        fails(run("import", str(tmp_path / "absent"), "-o", str(tmp_path / "x.toml")), "absent")


class TestExport:
    def test_plain_files(self, small, tmp_path):
        """The tree as plain files reads like the mount, and conflicts can be asked of it."""
        target = tmp_path / "tree"

        out("export", str(target), small)

        assert (target / "sys/devices/system/node/tdx_incapable").read_text() == "2\n"
        assert json.loads(out("conflicts", str(target), "--json")) == json.loads(out("conflicts", small, "--json"))

    def test_only_into_an_empty_directory(self, small, tmp_path):
        """A directory with something in it stays as it is."""
        (tmp_path / "mine").write_text("precious")

        fails(run("export", str(tmp_path), small), str(tmp_path))
        assert (tmp_path / "mine").read_text() == "precious"


class TestMount:
    @pytest.fixture
    def where(self, tmp_path):
        """A directory to mount on; nothing is mounted there afterwards."""
        place = tmp_path / "mnt"
        place.mkdir()
        yield place
        if is_mounted(place):
            tdxfs("umount", "--lazy", place)

    def test_ready_means_ready(self, small, where):
        """When mount returns the files can be read; umount ends it."""
        done = tdxfs("mount", small, where)

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (where / "sys/devices/system/node/tdx_capable").read_text() == "0\n"
        assert tdxfs("umount", where).returncode == 0
        assert not is_mounted(where)
        assert list(where.iterdir()) == []

    def test_tiers_policies_and_kernel(self, small, where):
        """The options reach the mount."""
        tdxfs("mount", small, where, "--abi", "kernel", "--kernel", "6.12", "--policy", "boot=off")

        assert not (where / "sys/devices/system/node/tdx_capable").exists()
        assert not (where / "sys/kernel/mm/tdx").exists()
        assert (where / "sys/module/kvm_intel/parameters/tdx").read_text() == "N\n"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_foreground(self, small, where, number):
        """In the foreground it stays until a signal ends it, and leaves nothing behind."""
        server = subprocess.Popen([sys.executable, "-m", "tdxfs", "mount", small, where, "-f"])
        deadline = time.monotonic() + 10
        while not is_mounted(where) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (where / "sys").is_dir()

        server.send_signal(number)
        server.wait(10)

        assert not is_mounted(where)

    def test_busy_and_lazy(self, small, where):
        """A mount in use is not unmounted, and says so; --lazy takes it out of the tree."""
        tdxfs("mount", small, where)
        with (where / "proc/cmdline").open():
            busy = tdxfs("umount", where)
            assert (busy.returncode, busy.stderr.count("\n")) == (1, 1)
            assert "busy" in busy.stderr
            assert tdxfs("umount", "--lazy", where).returncode == 0
        assert not is_mounted(where)

    def test_twice(self, small, where):
        """A mount point that is taken is refused, and the first mount lives on."""
        tdxfs("mount", small, where)

        again = tdxfs("mount", small, where)

        assert again.returncode == 1
        assert "busy" in again.stderr
        assert (where / "sys").is_dir()

    def test_missing_mount_point(self, small, tmp_path):
        """A mount point that does not exist is named."""
        result = tdxfs("mount", small, tmp_path / "absent")

        assert result.returncode == 1
        assert result.stderr == f"tdxfs: {tmp_path / 'absent'}: mount point does not exist\n"

    def test_nothing_to_unmount(self, tmp_path):
        """What is no tdxfs is not unmounted."""
        fails(run("umount", str(tmp_path)), str(tmp_path))
        fails(run("umount", "--lazy", str(tmp_path)), str(tmp_path))


def test_broken_pipe(small):
    """A reader that goes away ends the command without a traceback."""
    command = f"{sys.executable} -m tdxfs abi | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    assert done.stdout == "Tier: kernel\n"
    assert done.stderr == ""


def test_a_mount_starts_light(small):
    """The mount command does not import what it does not need."""
    code = (
        f"import sys\nfrom tdxfs.cli import main\nmain(['mount', {small!r}, '/nonexistent'], standalone_mode=False)\n"
    )
    check = "import atexit, sys\natexit.register(lambda: print(*sorted(sys.modules)))\n"
    done = subprocess.run([sys.executable, "-c", check + code], capture_output=True, text=True, check=False)

    assert not {"rich", "hypothesis", "tdxfs.abi", "json"} & set(done.stdout.split())
