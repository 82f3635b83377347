"""`tdxfs run` with its options, `tdxfs shell`, and a run without being root."""

import os
import subprocess
import sys

import pytest
from recordings import place, write
from runner import SECONDS, need, output, outputs, run

from tdxfs.formats.sysfs import import_sysfs
from tdxfs.formats.topology import dumps

HOST = {
    "nproc": "nproc",
    "configured": "getconf _NPROCESSORS_CONF",
    "lscpu": "lscpu -p=CPU",
    "model": "cat /proc/cpuinfo",
}


def test_host_cpus():
    """The CPUs are the real ones, every one on a node of the machine."""
    shown = outputs("mixed", {**HOST, "numactl": "numactl -H"}, options=["--host-cpus"])

    assert str(len(os.sched_getaffinity(0))) == shown["nproc"].strip()
    assert str(os.cpu_count()) == shown["configured"].strip()
    with open("/proc/cpuinfo") as file:
        assert names(file.read()) == names(shown["model"])
    cpus = [line for line in shown["lscpu"].splitlines() if not line.startswith("#")]
    nodes = [line.split("cpus:")[1] for line in shown["numactl"].splitlines() if " cpus:" in line]
    assert sorted(cpus) == sorted(" ".join(nodes).split())
    assert len(nodes) == 3


def names(cpuinfo):
    return [line for line in cpuinfo.splitlines() if line.startswith(("processor", "model name"))]


@pytest.mark.parametrize("options", [[], ["--isolated"]], ids=["laid over", "isolated"])
def test_a_kernel_without_nodes(tmp_path, options):
    """A machine that was recorded with little in it, and no nodes, runs programs, which see no real ones either."""
    write(tmp_path / "recorded", *(place(cpu, package=range(3)) for cpu in range(3)))
    write(tmp_path / "recorded", {"proc/cpuinfo": "processor : 0", "proc/meminfo": "MemTotal:   1048576 kB"})
    (tmp_path / "old.toml").write_text(dumps(import_sysfs(tmp_path / "recorded")))

    commands = {"nproc": "nproc", "system": "ls /sys/devices/system", "bus": "ls /sys/bus", "cpu": HOST["model"]}
    shown = outputs(tmp_path / "old.toml", commands, options=options)
    done = run(tmp_path / "old.toml", "numactl", "--hardware", options=options)

    assert (1, "No NUMA available on this system\n") == (done.returncode, done.stdout)
    assert "3" == shown["nproc"].strip()
    for name in ("system", "bus"):
        assert "cpu" in shown[name].split()
        assert "node" not in shown[name].split()
    assert "processor : 0" == shown["cpu"].strip()
    if not options:
        assert set(os.listdir("/sys/devices/system")) - {"node"} <= set(shown["system"].split())


def test_policies_and_kernels():
    """A machine of its own is booted as the options say; a mounted one has booted."""
    off = output("mixed", "cat", "/sys/kernel/mm/tdx/state", options=["--policy", "boot=off"])
    old = output("mixed", "cat", "/sys/kernel/debug/tdxfs/kernel", options=["--kernel", "6.1"])

    assert ("disabled\n", "6.1\n") == (off, old)


def test_the_abi_of_today():
    """With --abi kernel there is nothing of tdxfs to see, and policies hold all the same."""
    script = "ls /sys/kernel/mm/tdx /sys/kernel/debug/tdxfs 2>/dev/null; numactl -m1 numactl -s"
    shown = output("mixed", "sh", "-c", script, options=["--abi", "kernel"])

    assert shown.startswith("policy: bind\n")


def test_without_a_command():
    """It says what is missing, and how it is used."""
    done = subprocess.run([sys.executable, "-m", "tdxfs", "run", "mixed"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "-- COMMAND" in done.stderr


def test_inside_another():
    """A run in a run is refused with the reason."""
    done = run("mixed", sys.executable, "-m", "tdxfs", "run", "mixed", "--", "true")

    assert done.returncode == 1
    assert "inside another" in done.stderr


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shell(shell):
    """The user's shell, with the machine in the prompt."""
    need("script", shell)
    environment = {**os.environ, "SHELL": f"/bin/{shell}", "PS1": "$ ", "HOME": "/nonexistent", "TERM": "dumb"}
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} -m tdxfs shell mixed", "/dev/null"],
        input="cat /sys/devices/system/node/has_memory\nexit 3\n",
        capture_output=True, text=True, check=False, env=environment, timeout=SECONDS,
    )  # fmt: skip

    assert done.returncode == 3
    assert "(tdxfs mixed) " in done.stdout
    assert "0-2" in done.stdout


NOBODY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
os.makedirs(sys.argv[1])
assert libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, None) == 0
os.mknod(sys.argv[1] + "/fuse", 0o020666, os.makedev(10, 229))
os.chmod(sys.argv[1] + "/fuse", 0o666)
assert libc.mount((sys.argv[1] + "/fuse").encode(), b"/dev/fuse", None, 0x1000, None) == 0
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Become nobody, with a /dev/fuse that everybody may open."""


def python_for_everybody():
    """A Python of this version that other users may run, and where it finds what this one has."""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-c", "import sys, attrs; print(sys.version_info[:2])"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        nobody = {"user": 65534, "group": 65534, "extra_groups": ()}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment, cwd="/", **nobody
            )
        except PermissionError:
            continue
        if done.stdout.strip() == str(sys.version_info[:2]):
            return python, environment
    pytest.skip("nobody may run this Python and what is installed for it")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_not_being_root(tmp_path):
    """With a user namespace it needs no privileges; the command is the user that it was, and has none either."""
    need("numactl")
    python, environment = python_for_everybody()
    script = "id -u; cat /sys/devices/system/node/has_memory; numactl -m1 numactl -s; grep CapEff /proc/self/status"
    done = subprocess.run(
        [python, "-c", NOBODY, str(tmp_path / "dev"), python, "-m", "tdxfs", "run", "mixed", "--", "sh", "-c", script],
        capture_output=True, text=True, check=False, env=environment, timeout=SECONDS, cwd="/",
    )  # fmt: skip

    user, memory, policy, *_, capabilities = done.stdout.splitlines() or done.stderr.splitlines()
    assert ("65534", "0-2", "policy: bind", "CapEff:\t0000000000000000") == (user, memory, policy, capabilities)
