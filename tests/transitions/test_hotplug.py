"""Memory modules and CXL windows that come and go, policies that change, and reboots."""

import pytest
from attrs import evolve
from click.testing import CliRunner
from machines import MIXED, tree, wrote

from tdxfs.cli import main
from tdxfs.kmsg import format_dmesg
from tdxfs.model import GIB, Memory, MemoryLayout
from tdxfs.policy import Hotplug, Policies
from tdxfs.ranges import Range
from tdxfs.server import mounted

MEMORY, NODE, DAX = "/sys/devices/system/memory", "/sys/devices/system/node", "/sys/bus/dax"
TDXFS, POLICY = "/sys/kernel/debug/tdxfs", "/sys/kernel/mm/tdx/policy"
HOTPLUG = f"{TDXFS}/hotplug"
PLUG = f"plug node=1 base={16 * GIB:#x} size={GIB:#x}"
UNPLUG = f"unplug base={16 * GIB:#x}"
PLAIN = evolve(MIXED, tdx=None)
CONVERTIBLE = evolve(MIXED, tdx=evolve(MIXED.tdx, cmrs=(*MIXED.tdx.cmrs, Range(16 * GIB, 17 * GIB))))
"""A module at 16 GiB would be convertible memory, but no TDMR covers it."""


def read(machine, path):
    return machine.read(path).decode().removesuffix("\n")


class TestModule:
    @pytest.mark.parametrize("auto", ["offline", "online", "online_movable"])
    def test_plug(self, auto):
        """Its blocks appear, and go online as auto_online_blocks says."""
        machine = tree(evolve(PLAIN, memory=MemoryLayout(auto_online=auto)))
        assert wrote(machine, HOTPLUG, PLUG) == "ok"

        assert {f"memory{n}" for n in range(128, 136)} <= set(machine.list(f"{NODE}/node1").names)
        assert ("offline" if auto == "offline" else "online") == read(machine, f"{MEMORY}/memory130/state")
        zones = {"offline": "Normal Movable", "online": "Normal", "online_movable": "Movable"}
        assert zones[auto] == read(machine, f"{MEMORY}/memory130/valid_zones")

    def test_unplug(self):
        """Its blocks go offline and away, and everything is as before."""
        machine = tree(PLAIN)
        before = machine.machine
        assert ["ok", "ok"] == [wrote(machine, HOTPLUG, text) for text in (PLUG, UNPLUG)]

        after = machine.machine
        assert (before.ram, before.blocks, before.topology) == (after.ram, after.blocks, after.topology)
        assert wrote(machine, HOTPLUG, UNPLUG) == "ENODEV"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (f"plug node=0 base={3 * GIB:#x} size=0x8000001", "EINVAL"),
            (f"plug node=0 base={3 * GIB:#x} size=0", "EINVAL"),
            (f"plug node=9 base={3 * GIB:#x} size={GIB}", "EINVAL"),
            (f"plug node=0 base={GIB:#x} size={GIB}", "EEXIST"),
            (f"plug node=0 base={12 * GIB:#x} size={GIB}", "EEXIST"),
            ("plug node=0 size=1", "EINVAL"),
            ("plug kind=x node=0 base=0 size=1", "EINVAL"),
            ("garbage", "EINVAL"),
            ("plug garbage", "EINVAL"),
            ("unplug base=0", "EBUSY"),
            ("unplug base=0x1000", "ENODEV"),
            (f"unplug base={12 * GIB:#x}", "EBUSY"),
        ],
    )
    def test_what_is_wrong(self, text, expected):
        """Lines that mean nothing, memory that cannot be there, and what cannot go."""
        machine = tree(PLAIN)
        before = machine.machine
        assert expected == wrote(machine, HOTPLUG, text)
        assert before is machine.machine

    def test_a_node_without_anything(self):
        """Memory of a possible node that has nothing makes the node, and unplugged, the node goes."""
        machine = tree(evolve(PLAIN, possible_nodes="7"))
        assert wrote(machine, HOTPLUG, f"plug node=7 base={16 * GIB:#x} size={GIB:#x}") == "ok"
        assert read(machine, f"{NODE}/has_memory") == "0-2,7"
        assert read(machine, f"{NODE}/node7/distance") == "20 20 20 10"
        assert wrote(machine, HOTPLUG, UNPLUG) == "ok"
        assert read(machine, f"{NODE}/online") == "0-2"


class TestHotplugPolicy:
    @pytest.mark.parametrize(
        ("hotplug", "plugged", "onlined"),
        [(Hotplug.REJECT, "ok", "EPERM"), (Hotplug.REJECT_RANGE, "EINVAL", "ENODEV"), (Hotplug.ALLOW, "ok", "EINVAL")],
    )
    def test_memory_outside_tdx_memory(self, hotplug, plugged, onlined):
        """reject: EPERM for each block and no message; reject-range: EINVAL and one message; allow: it is online."""
        machine = tree(evolve(MIXED, policies=Policies(hotplug=hotplug)))
        before = machine.machine.log.end
        assert plugged == wrote(machine, HOTPLUG, PLUG)
        assert onlined == wrote(machine, f"{MEMORY}/memory128/state", "online")

        said = format_dmesg(machine.machine.log.since(before))
        assert (hotplug is Hotplug.REJECT_RANGE) is ("Reject hot-adding memory range: 0x400000000-0x440000000" in said)
        assert (hotplug is Hotplug.REJECT_RANGE) is bool(said)
        if hotplug is Hotplug.ALLOW:
            assert "1" in read(machine, f"{NODE}/tdx_mixed")

    def test_a_policy_that_is_written(self):
        """After echo allow, what was refused goes online."""
        machine = tree(MIXED)
        wrote(machine, HOTPLUG, PLUG)
        assert wrote(machine, f"{MEMORY}/memory128/state", "online") == "EPERM"
        assert wrote(machine, f"{POLICY}/hotplug", "allow\n") == "ok"
        assert read(machine, f"{POLICY}/hotplug") == "reject reject-range [allow]"
        assert wrote(machine, f"{MEMORY}/memory128/state", "online") == "ok"


class TestPolicy:
    @pytest.mark.parametrize(
        ("axis", "word"), [("hotplug", "reject-range"), ("validate", "pledge"), ("report", "silent")]
    )
    def test_at_run_time(self, axis, word):
        """What a running kernel can change takes writes; another word is EINVAL."""
        machine = tree(MIXED)
        assert wrote(machine, f"{POLICY}/{axis}", word) == "ok"
        assert f"[{word}]" in read(machine, f"{POLICY}/{axis}")
        assert wrote(machine, f"{POLICY}/{axis}", "garbage") == "EINVAL"

    @pytest.mark.parametrize(("axis", "word"), [("boot", "off"), ("firmware", "permissive"), ("cover", "convertible")])
    def test_at_boot(self, axis, word):
        """What only a boot can change is EPERM, and a line of the log names the option; another word is EINVAL."""
        machine = tree(MIXED)
        policies = machine.machine.policies
        assert wrote(machine, f"{POLICY}/{axis}", word) == "EPERM"
        assert policies == machine.machine.policies
        assert f"boot with {axis}={word}" in machine.machine.log[-1].text
        log = machine.machine.log
        assert wrote(machine, f"{POLICY}/{axis}", "garbage") == "EINVAL"
        assert log == machine.machine.log


class TestReboot:
    def test_it_covers_what_was_plugged(self):
        """A convertible module that came too late is TDX memory after a reboot."""
        machine = tree(CONVERTIBLE)
        wrote(machine, HOTPLUG, PLUG)
        assert read(machine, f"{MEMORY}/memory128/x86/tdx_capable") == "0"
        assert wrote(machine, f"{TDXFS}/reboot", "\n") == "ok"
        assert read(machine, f"{MEMORY}/memory128/x86/tdx_capable") == "1"
        assert read(machine, f"{MEMORY}/memory128/state") == "online"

    def test_under_other_policies(self):
        """Policies that are written are those that it boots with; generation and mount go on."""
        machine = tree(MIXED)
        wrote(machine, f"{MEMORY}/memory40/state", "offline")
        generation = machine.machine.generation
        assert wrote(machine, f"{TDXFS}/reboot", "boot=strict hotplug=allow\n") == "ok"
        assert read(machine, "/sys/kernel/mm/tdx/state") == "disabled"
        assert read(machine, f"{POLICY}/hotplug") == "reject reject-range [allow]"
        assert read(machine, f"{MEMORY}/memory40/state") == "online"
        assert generation < machine.machine.generation
        assert wrote(machine, f"{TDXFS}/reboot", "boot=garbage") == "EINVAL"


class TestCxl:
    PLUG = f"plug kind=cxl node=3 base={16 * GIB:#x} size={GIB:#x}"

    @pytest.mark.parametrize(("kernel", "driver"), [("6.1", "device_dax"), ("6.12", "kmem"), ("7.3", "kmem")])
    def test_plug(self, kernel, driver):
        """A region with one device, which finds the driver that the kernel gives it."""
        machine = tree(evolve(PLAIN, kernel=kernel))
        assert wrote(machine, HOTPLUG, self.PLUG) == "ok"

        assert "dax1.0" in machine.list(f"{DAX}/drivers/{driver}").names
        assert (driver == "kmem") is ("memory128" in machine.list(MEMORY).names)
        assert read(machine, f"{DAX}/devices/dax1.0/size") == str(GIB)
        assert wrote(machine, HOTPLUG, UNPLUG) == "ok"
        assert "dax1.0" not in machine.list(f"{DAX}/devices").names
        assert "memory128" not in machine.list(MEMORY).names

    def test_without_autoprobe(self):
        """Where drivers_autoprobe is 0 it waits for somebody."""
        machine = tree(PLAIN)
        wrote(machine, f"{DAX}/drivers_autoprobe", "0")
        assert read(machine, f"{DAX}/drivers_autoprobe") == "0"
        wrote(machine, HOTPLUG, self.PLUG)
        assert "dax1.0" not in machine.list(f"{DAX}/drivers/kmem").names
        assert wrote(machine, f"{DAX}/drivers_probe", "dax1.0") == "ok"
        assert "dax1.0" in machine.list(f"{DAX}/drivers/kmem").names

    def test_there_after_a_reboot(self):
        """The device is there, bound as before."""
        machine = tree(PLAIN)
        wrote(machine, HOTPLUG, self.PLUG)
        wrote(machine, f"{TDXFS}/reboot", "\n")
        assert "dax1.0" in machine.list(f"{DAX}/drivers/kmem").names


def test_unplug_is_all_or_nothing():
    """If one of its blocks cannot go offline, none does."""
    only = evolve(PLAIN, nodes=(evolve(PLAIN.nodes[0], memory=(Memory(Range(4 * GIB, 5 * GIB), movable=False),)),))
    machine = tree(evolve(only, distances=(), possible_nodes="1"))
    wrote(machine, HOTPLUG, PLUG)
    for block in range(32, 40):
        assert wrote(machine, f"{MEMORY}/memory{block}/state", "offline") == "ok"

    assert wrote(machine, HOTPLUG, UNPLUG) == "EBUSY"
    assert all(read(machine, f"{MEMORY}/memory{block}/state") == "online" for block in range(128, 136))


class TestCommands:
    """``tdxfs plug``, ``unplug`` and ``reboot`` on a mount point."""

    @pytest.fixture
    def root(self):
        with mounted(PLAIN) as where:
            yield where

    def run(self, *arguments):
        result = CliRunner().invoke(main, [str(word) for word in arguments])
        return result.exit_code, result.stderr

    def test_plug_and_unplug(self, root):
        """Sizes may have units; what the machine refuses is one line on stderr."""
        plug = ("plug", root, "--node", 1, "--base", "16 GiB", "--size", "1 GiB")
        assert (0, "") == self.run(*plug)
        assert (root / MEMORY.lstrip("/") / "memory128").is_dir()
        status, said = self.run(*plug)
        assert (status, "File exists" in said, said.count("\n")) == (1, True, 1)
        assert (0, "") == self.run("unplug", root, "--base", hex(16 * GIB))

    def test_reboot(self, root):
        """A block that was offline is online again; a wrong policy is refused before anything is written."""
        state = root / MEMORY.lstrip("/") / "memory40/state"
        state.write_text("offline")
        assert 1 == self.run("reboot", root, "--policy", "boot=garbage")[0]
        assert "offline\n" == state.read_text()
        assert (0, "") == self.run("reboot", root, "--policy", "hotplug=allow")
        assert "online\n" == state.read_text()

    def test_nothing_mounted(self, tmp_path):
        """One line on stderr."""
        status, said = self.run("reboot", tmp_path)
        assert (status, "no machine is mounted here" in said) == (1, True)
