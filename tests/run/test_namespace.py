"""What a run shows, what it passes through, and that nothing is left of it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from runner import children, command_line, need, output, run, started

from tdxfs.formats.topology import find
from tdxfs.sandbox.launch import NOT_EXECUTABLE, NOT_FOUND, STAGE

MINE = Path("/proc/self/mounts")


def wait_until(test):
    deadline = time.monotonic() + 30
    while not test():
        assert time.monotonic() < deadline, "this does not end"
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestEnd:
    @pytest.mark.parametrize("status", [0, 1, 77])
    def test_exit_status(self, status):
        """The exit status is the command's."""
        assert status == run("mixed", "sh", "-c", f"exit {status}").returncode

    def test_signal(self):
        """A command that a signal kills ends the launcher by the same."""
        assert -signal.SIGTERM == run("mixed", "sh", "-c", "kill -TERM $$").returncode

    def test_no_such_command(self, tmp_path):
        """As a shell: 127 for a command that is not there, 126 for one that cannot be run."""
        need()
        (tmp_path / "data").write_text("")

        for command, status in (("no-such-command", NOT_FOUND), (str(tmp_path / "data"), NOT_EXECUTABLE)):
            done = subprocess.run(command_line("mixed", command), capture_output=True, text=True, check=False)
            assert status == done.returncode
            assert done.stderr.startswith(f"tdxfs: {command}: ")

    def test_standard_streams(self):
        """Input, output and errors are the command's own."""
        done = run("mixed", "sh", "-c", "cat; echo wrong >&2", input="one\ntwo\n")

        assert ("one\ntwo\n", "wrong\n") == (done.stdout, done.stderr)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
    def test_signals_reach_the_command(self, number):
        """What the launcher is sent, the command gets."""
        script = f"trap 'echo got; exit 5' {number.name[3:]}; echo ready; while :; do sleep 0.02; done"
        with started("mixed", "sh", "-c", script) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)

            assert process.stdout.readline() == "got\n"
            assert process.wait(30) == 5


class TestNothingIsLeft:
    def test_mounts_are_private(self):
        """Nobody else sees a mount of a run, during it or after."""
        with started("mixed", "sh", "-c", "echo ready; read line") as process:
            process.stdout.readline()
            during = MINE.read_text()
            process.communicate("\n")

        assert STAGE not in during
        assert STAGE not in MINE.read_text()

    @pytest.mark.parametrize("victim", ["launcher", "server"])
    def test_kill_under_load(self, victim):
        """kill -9 of the launcher ends all; of the server, nobody waits for it, and the command sees errors."""
        script = "echo ready; while cat /sys/devices/system/node/*/meminfo; do numactl -s; done >/dev/null 2>&1; exit 9"
        with started("mixed", "sh", "-c", script) as process:
            assert process.stdout.readline() == "ready\n"
            family = children(process.pid)
            (server,) = [pid for pid in family if b"sh\0" not in Path(f"/proc/{pid}/cmdline").read_bytes()[:3]]
            time.sleep(0.3)
            os.kill(process.pid if victim == "launcher" else server, signal.SIGKILL)

            assert (-signal.SIGKILL if victim == "launcher" else 9) == process.wait(30)
            wait_until(lambda: not any(map(is_running, family)))

    def test_a_stress_test_finds_nothing(self):
        """stress-ng reads and writes all over /sys at once, and neither fails nor finds anything to complain of."""
        done = run("mixed", "stress-ng", "--sysfs", "2", "--timeout", "5", "--verify")

        assert done.returncode == 0, done
        assert "fail:" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


class TestLaidOver:
    def test_the_rest_of_sys_is_the_real_one(self):
        """What the model says nothing of is there, and its relative links lead where they did."""
        before = {name: os.path.realpath(f"/sys/class/net/{name}") for name in os.listdir("/sys/class/net")}
        script = "import os; print({n: os.path.realpath(f'/sys/class/net/{n}') for n in os.listdir('/sys/class/net')})"

        assert str(before) == output("mixed", "python3", "-c", script).strip()

    def test_the_machine_is_there(self):
        """The machine's parts are there, where the real /sys has no such directory, too; links into them lead on."""
        names = [
            "bus/dax/devices/dax0.0/target_node",
            "devices/faux/tdx_host",
            "kernel/mm/tdx/state",
            "bus/node/devices",
        ]
        shown = output("mixed", "sh", "-c", f"cd /sys; for n in {' '.join(names)}; do test -e $n && echo $n; done")

        assert names == shown.split()

    def test_isolated(self):
        """Only the emulated parts, and the plainest devices."""
        shown = output("mixed", "sh", "-c", "ls /sys; ls /dev", options=["--isolated"]).split()

        assert {"bus", "devices", "kernel", "null", "dax0.0", "kmsg"} <= set(shown)
        assert {"class", "firmware", "block", "fuse"}.isdisjoint(shown)

    def test_proc(self):
        """The files of /proc that say what the machine is made of."""
        topology = find("mixed")
        shown = output(
            "mixed", "cat", "/proc/cmdline", "/proc/cpuinfo", "/proc/zoneinfo", "/proc/iomem", "/proc/meminfo"
        )

        assert shown.startswith(topology.cmdline)
        assert len(topology.cpus) == shown.count("processor\t:")
        for part in ("Node 2, zone", "Persistent Memory", "MemAvailable:"):
            assert part in shown

    def test_other_processes(self):
        """The status of a process outside the run stays its own."""
        pid = os.getpid()
        real = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Mems_allowed")]

        shown = output("mixed", "cat", f"/proc/{pid}/status").splitlines()
        assert real == [line for line in shown if line.startswith("Mems_allowed")]
