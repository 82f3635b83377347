"""``/sys/devices/system/cpu``; compare drivers/base/cpu.c."""

from __future__ import annotations

from collections.abc import Collection

from tdxfs import delta
from tdxfs.cpus import siblings
from tdxfs.errors import Busy, InvalidValue, OutOfRange
from tdxfs.model import Cpu, Machine
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, directories, link, links, ro, rw, subdirectory
from tdxfs.sysfs.codec import BARE_HEX, BOOL, DECIMAL, HEX, INT, LINE, LIST, TEXT, WORD, kstrto
from tdxfs.sysfs.cpu_topology import CacheDir, TopologyDir, mask_width
from tdxfs.sysfs.knob import between, knob, one_of
from tdxfs.sysfs.power import DeviceDir, PowerDir, uevent
from tdxfs.transitions.cpu import set_online, set_smt

GENERIC_MODALIAS = "cpu:type:x86,ven0000fam0006mod00CF:feature:"
ONLINE_STATE = 235  # CPUHP_ONLINE
NO_CONSTRAINT = (1 << 31) - 1
VULNERABILITIES = """
gather_data_sampling indirect_target_selection itlb_multihit l1tf mds meltdown mmio_stale_data
reg_file_data_sampling retbleed spec_rstack_overflow srbds tsa tsx_async_abort vmscape
""".split()
MITIGATIONS = {
    "spec_store_bypass": "Mitigation: Speculative Store Bypass disabled via prctl",
    "spectre_v1": "Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    "spectre_v2": "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: BHI_DIS_S",
}


def _latency(directory: Directory[int], text: str) -> str:
    if text == "n/a":
        return text
    try:
        number = kstrto(text, 0, 32, signed=True)
    except (ValueError, OutOfRange) as error:
        raise InvalidValue(text) from error
    if not 0 <= number < NO_CONSTRAINT:
        raise InvalidValue(text)
    return str(number)


class CpuPowerDir(PowerDir):
    """Power management of the CPU."""

    @knob(LINE, check=_latency)
    def pm_qos_resume_latency_us(self) -> str:
        """Longest resume latency that is tolerated, microseconds; 0: any; n/a: none at all."""
        return "0"


class CpuHotplugDir(Directory[int]):
    """The CPU's hotplug state machine."""

    WHAT = "/sys/devices/system/cpu/cpu<id>/hotplug"

    def _state(self) -> int:
        return ONLINE_STATE if self.key in self.machine.cpus_online else 0

    @ro(DECIMAL)
    def state(self) -> int:
        """The state the CPU is in."""
        return self._state()

    @rw(DECIMAL, takes=INT)
    def target(self) -> int:
        """The state the CPU is to reach: online or offline, nothing between. EBUSY for CPU 0, which stays online."""
        return self._state()

    @target.store
    def _set_target(self, state: int) -> Machine:
        if state not in (0, ONLINE_STATE):
            raise InvalidValue(f"{state} is not 0 or {ONLINE_STATE}")
        if state == 0 and self.key == 0:
            raise Busy("CPU 0 stays online")
        return set_online(self.machine, (self.key,), state == ONLINE_STATE)

    @knob(DECIMAL, takes=INT, check=between(-1, -1))
    def fail(self) -> int:
        """The state whose callback is to fail; -1: none. EINVAL for any other: tdxfs has no callbacks."""
        return -1


class MicrocodeDir(Directory[int]):
    """The microcode of the CPU. Absent while it is offline, and in a virtual machine."""

    WHAT = "/sys/devices/system/cpu/cpu<id>/microcode"

    @ro(HEX)
    def processor_flags(self) -> int:
        """Which platform the microcode is for, one bit of eight."""
        return 1

    @ro(HEX)
    def version(self) -> int:
        """Revision of the microcode."""
        return self.machine.topology.microcode


class CpuDir(DeviceDir[int]):
    """A present CPU, online or not."""

    WHAT = "/sys/devices/system/cpu/cpu<id>"
    FOLLOWS = staticmethod(delta.cpus)

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

    @online.store
    def _set_online(self, online: bool) -> Machine:
        return set_online(self.machine, (self.key,), online)

    @online.visible
    def _can_go_offline(self) -> bool:
        return self.key != 0

    @uevent
    def uevent(self) -> str:
        """Driver and modalias of the CPU; an empty line ends it."""
        driver = "DRIVER=processor\n" if "driver" in self else ""
        return f"{driver}MODALIAS={self.machine.topology.modalias or GENERIC_MODALIAS}\n\n"

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
        return self.cpu.capacity

    @subdirectory(TopologyDir)
    def topology(self) -> bool:
        """Where the CPU sits. Absent while it is offline."""
        return self._online()

    @subdirectory(CacheDir)
    def cache(self) -> bool:
        """Its caches. Absent while it is offline."""
        return self._online() and bool(siblings(self.machine).caches(self.cpu))

    @subdirectory(MicrocodeDir)
    def microcode(self) -> bool:
        """Its microcode. Absent while it is offline, and in a virtual machine."""
        return self._online() and self.machine.topology.microcode != 0

    @link
    def cpufreq(self) -> str | None:
        """Its frequencies. Absent without a driver that scales them, and while it is offline."""
        return f"{paths.CPU_ROOT}/cpufreq/policy{self.key}" if self._online() and self.cpu.max_frequency else None

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
        recorded = directory.machine.topology.vulnerabilities
        return recorded.get(name, MITIGATIONS.get(name, "Not affected"))

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

    @knob(WORD, check=one_of("ladder", "menu"))
    def current_governor(self) -> str:
        """The governor in use."""
        return "menu"

    @ro(WORD)
    def current_governor_ro(self) -> str:
        """The governor in use."""
        governor: str = self.current_governor
        return governor


class HotplugDir(Directory[None]):
    """States of the CPU hotplug machinery."""

    WHAT = "/sys/devices/system/cpu/hotplug"

    @ro(TEXT)
    def states(self) -> str:
        """Number and name of each state."""
        return f"  0: offline\n{ONLINE_STATE:3}: online\n"


class CpufreqPolicyDir(Directory[int]):
    """Frequencies of a CPU, which has a policy of its own; compare drivers/cpufreq/cpufreq.c."""

    WHAT = "/sys/devices/system/cpu/cpufreq/policy<id>"

    def _cpu(self) -> Cpu:
        return self.machine.cpus[self.key]

    @ro(DECIMAL)
    def affected_cpus(self) -> int:
        """Online CPUs that change frequency together."""
        return self.key

    @ro(DECIMAL)
    def related_cpus(self) -> int:
        """CPUs that change frequency together."""
        return self.key

    @ro(DECIMAL)
    def cpuinfo_max_freq(self) -> int:
        """Highest frequency of the hardware, kHz."""
        return self._cpu().max_frequency or 0

    @ro(DECIMAL)
    def base_frequency(self) -> int:
        """Frequency without turbo, kHz. Absent where the driver does not know it."""
        return self._cpu().base_frequency or 0

    @base_frequency.visible
    def _has_base(self) -> bool:
        return self._cpu().base_frequency is not None


class CpufreqDir(Directory[None]):
    """Frequency scaling; empty without a driver."""

    WHAT = "/sys/devices/system/cpu/cpufreq"

    @directories("policy<id>", CpufreqPolicyDir)
    def policies(self) -> Collection[int]:
        """One per CPU that is online."""
        online = self.machine.cpus_online
        return [cpu.id for cpu in self.machine.topology.cpus if cpu.max_frequency and cpu.id in online]


class UpdateDir(Directory[None]):
    """Microcode updates; empty unless they can be loaded late."""

    WHAT = "/sys/devices/system/cpu/microcode"


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
        """
        on, off, forceoff (for good) or notsupported. Written, it takes the second threads of all cores on or
        offline.
        """
        return self.machine.smt if self._threads() else "notsupported"

    @control.store
    def _set_control(self, word: str) -> Machine:
        return set_smt(self.machine, word)


class CpuRoot(DeviceDir[None]):
    """CPUs and the sets they belong to."""

    WHAT = paths.CPU_ROOT

    power = always(PowerDir)
    vulnerabilities = always(VulnerabilitiesDir)
    cpuidle = always(CpuidleDir)
    cpufreq = always(CpufreqDir)
    hotplug = always(HotplugDir)
    smt = always(SmtDir)

    @subdirectory(UpdateDir)
    def microcode(self) -> bool:
        """Microcode updates. Absent in a virtual machine."""
        return self.machine.topology.microcode != 0

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
