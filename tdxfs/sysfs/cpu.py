"""``/sys/devices/system/cpu``; compare drivers/base/cpu.c."""

from __future__ import annotations

from collections.abc import Collection

from tdxfs.model import Cpu
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, link, links, ro, rw, subdirectory
from tdxfs.sysfs.codec import BARE_HEX, BOOL, DECIMAL, LINE, LIST, TEXT, WORD
from tdxfs.sysfs.cpu_topology import CacheDir, TopologyDir, mask_width
from tdxfs.sysfs.power import DeviceDir, PowerDir, uevent

GENERIC_MODALIAS = "cpu:type:x86,ven0000fam0006mod00CF:feature:"
ONLINE_STATE = 235  # CPUHP_ONLINE
VULNERABILITIES = """
gather_data_sampling indirect_target_selection itlb_multihit l1tf mds meltdown mmio_stale_data
reg_file_data_sampling retbleed spec_rstack_overflow srbds tsa tsx_async_abort vmscape
""".split()
MITIGATIONS = {
    "spec_store_bypass": "Mitigation: Speculative Store Bypass disabled via prctl",
    "spectre_v1": "Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    "spectre_v2": "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: BHI_DIS_S",
}


class CpuPowerDir(PowerDir):
    """Power management of the CPU."""

    @rw(DECIMAL)
    def pm_qos_resume_latency_us(self) -> int:
        """Longest resume latency that is tolerated, microseconds; 0: any."""
        return 0


class CpuHotplugDir(Directory[int]):
    """The CPU's hotplug state machine."""

    WHAT = "/sys/devices/system/cpu/cpu<id>/hotplug"

    def _state(self) -> int:
        return ONLINE_STATE if self.key in self.machine.cpus_online else 0

    @ro(DECIMAL)
    def state(self) -> int:
        """The state the CPU is in."""
        return self._state()

    @rw(DECIMAL)
    def target(self) -> int:
        """The state the CPU is to reach."""
        return self._state()

    @rw(DECIMAL)
    def fail(self) -> int:
        """The state whose callback is to fail; -1: none."""
        return -1


class CpuDir(DeviceDir[int]):
    """A present CPU, online or not."""

    WHAT = "/sys/devices/system/cpu/cpu<id>"

    power = always(CpuPowerDir)
    hotplug = always(CpuHotplugDir)

    @property
    def cpu(self) -> Cpu:
        return self.machine.cpus[self.key]

    def _online(self) -> bool:
        return self.key in self.machine.cpus_online

    @rw(BOOL)
    def online(self) -> bool:
        """1 if the CPU is online. Absent on CPU 0."""
        return self._online()

    @online.visible
    def _can_go_offline(self) -> bool:
        return self.key != 0

    @uevent
    def uevent(self) -> str:
        """Driver and modalias of the CPU."""
        return f"DRIVER=processor\nMODALIAS={self.machine.topology.modalias or GENERIC_MODALIAS}\n"

    @ro(BARE_HEX, mode=0o400)
    def crash_notes(self) -> int:
        """Physical address of the CPU's crash notes, hexadecimal without 0x."""
        return (1 << 30) + 0x400 * self.key

    @ro(DECIMAL, mode=0o400)
    def crash_notes_size(self) -> int:
        """Bytes of the CPU's crash notes."""
        return 368

    @ro(DECIMAL, since="7.3")
    def cpu_capacity(self) -> int:
        """Capacity of the CPU relative to the fastest, which has 1024."""
        return 1024

    @subdirectory(TopologyDir)
    def topology(self) -> bool:
        """Where the CPU sits. Absent while it is offline."""
        return self._online()

    @subdirectory(CacheDir)
    def cache(self) -> bool:
        """Its caches. Absent while it is offline."""
        return self._online() and bool(self.machine.topology.caches)

    @link
    def subsystem(self) -> str:
        """The CPU bus."""
        return paths.bus("cpu")

    @link
    def driver(self) -> str:
        """The processor driver."""
        return f"{paths.bus('cpu')}/drivers/processor"

    @links("node<id>", paths.node)
    def nodes(self) -> Collection[int]:
        """The node of the CPU."""
        return (self.cpu.node,)


class VulnerabilitiesDir(Directory[None]):
    """What the CPUs suffer from, and what is done about it."""

    WHAT = "/sys/devices/system/cpu/vulnerabilities"


def _vulnerability(name: str) -> None:
    def show(directory: VulnerabilitiesDir) -> str:
        return MITIGATIONS.get(name, "Not affected")

    show.__doc__ = f"State of {name}: Not affected, Vulnerable or the mitigation."
    late = {"ghostwrite", "old_microcode"}
    attribute = ro(LINE, name=name, since="7.3" if name in late else "")(show)
    VulnerabilitiesDir.DECLARED[name] = attribute


for _name in (*VULNERABILITIES, *MITIGATIONS, "ghostwrite", "old_microcode"):
    _vulnerability(_name)


class CpuidleDir(Directory[None]):
    """Idle governors."""

    WHAT = "/sys/devices/system/cpu/cpuidle"

    @ro(LINE)
    def available_governors(self) -> str:
        """The governors there are."""
        return "ladder menu "

    @ro(WORD)
    def current_driver(self) -> str:
        """The idle driver."""
        return "intel_idle"

    @rw(WORD)
    def current_governor(self) -> str:
        """The governor in use."""
        return "menu"

    @ro(WORD)
    def current_governor_ro(self) -> str:
        """The governor in use."""
        return "menu"


class HotplugDir(Directory[None]):
    """States of the CPU hotplug machinery."""

    WHAT = "/sys/devices/system/cpu/hotplug"

    @ro(TEXT)
    def states(self) -> str:
        """Number and name of each state."""
        return f"  0: offline\n{ONLINE_STATE:3}: online\n"


class CpufreqDir(Directory[None]):
    """Frequency scaling; empty without a driver."""

    WHAT = "/sys/devices/system/cpu/cpufreq"


class SmtDir(Directory[None]):
    """Simultaneous multithreading."""

    WHAT = "/sys/devices/system/cpu/smt"

    def _threads(self) -> bool:
        return any(cpu.thread for cpu in self.machine.topology.cpus)

    @ro(BOOL)
    def active(self) -> bool:
        """1 if a core has more than one thread online."""
        return any(cpu.thread and cpu.id in self.machine.cpus_online for cpu in self.machine.topology.cpus)

    @rw(WORD)
    def control(self) -> str:
        """on, off or notsupported."""
        return "on" if self._threads() else "notsupported"


class CpuRoot(DeviceDir[None]):
    """CPUs and the sets they belong to."""

    WHAT = paths.CPU_ROOT

    power = always(PowerDir)
    vulnerabilities = always(VulnerabilitiesDir)
    cpuidle = always(CpuidleDir)
    cpufreq = always(CpufreqDir)
    hotplug = always(HotplugDir)
    smt = always(SmtDir)

    @ro(LIST)
    def possible(self) -> frozenset[int]:
        """CPUs that can ever be present."""
        return frozenset(range(mask_width(self.machine)))

    @ro(LIST)
    def present(self) -> frozenset[int]:
        """CPUs that are there."""
        return frozenset(self.machine.cpus)

    @ro(LIST)
    def online(self) -> frozenset[int]:
        """CPUs that are online."""
        return self.machine.cpus_online

    @ro(LIST)
    def offline(self) -> frozenset[int]:
        """Possible CPUs that are not online."""
        return frozenset(range(mask_width(self.machine))) - self.machine.cpus_online

    @ro(LIST, since="6.12")
    def enabled(self) -> frozenset[int]:
        """CPUs that can be brought online."""
        return frozenset(self.machine.cpus)

    @ro(LIST)
    def isolated(self) -> frozenset[int]:
        """CPUs that the scheduler leaves alone."""
        return frozenset()

    @ro(LINE, since="7.3")
    def housekeeping(self) -> str:
        """CPUs that do the kernel's chores; empty if all do."""
        return ""

    @ro(LINE)
    def nohz_full(self) -> str:
        """CPUs without a tick; before 7.3 an unset mask reads (null), as wide as the CPUs."""
        if self.machine.topology.kernel == "7.3":
            return ""
        width = mask_width(self.machine)
        return "(null)".rjust(width if width > len("(null)") else 0)

    @ro(DECIMAL)
    def kernel_max(self) -> int:
        """Highest CPU number the kernel can have."""
        return self.machine.topology.nr_cpus - 1

    @ro(LINE)
    def modalias(self) -> str:
        """Modalias of the CPUs."""
        return self.machine.topology.modalias or GENERIC_MODALIAS

    @ro(BOOL, since="6.12")
    def crash_hotplug(self) -> bool:
        """1 if the crash kernel follows CPU hotplug by itself."""
        return False

    @directories("cpu<id>", CpuDir)
    def cpus(self) -> Collection[int]:
        """One per present CPU, online or not."""
        return self.machine.cpus


DIRECTORIES = (CpuRoot,)
