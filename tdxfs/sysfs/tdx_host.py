"""What Linux itself says of a TDX host.

``devices/faux/tdx_host`` (drivers/virt/coco/tdx-host), ``module/kvm_intel/parameters/tdx``
(arch/x86/kvm/vmx/tdx.c), ``fs/cgroup/misc.capacity`` (kernel/cgroup/misc.c).
"""

from __future__ import annotations

from tdxfs.errors import NoAddress
from tdxfs.model import Machine, TdxPlatform, kernel_at_least
from tdxfs.sysfs import paths
from tdxfs.sysfs.attribute import Directory, always, link, ro
from tdxfs.sysfs.codec import DECIMAL, VERSION, YES_NO
from tdxfs.sysfs.power import DeviceDir, PowerDir


def _platform(machine: Machine) -> TdxPlatform:
    assert machine.topology.tdx is not None
    return machine.topology.tdx


class TdxHostDir(DeviceDir[None]):
    """The TDX module of the host."""

    WHAT = "/sys/devices/faux/tdx_host"

    power = always(PowerDir)

    @classmethod
    def exists(cls, machine: Machine) -> bool:
        """Since 7.2, on platforms with TDX."""
        return machine.topology.tdx is not None and kernel_at_least(machine.topology.kernel, "7.2")

    def _initialized(self) -> TdxPlatform:
        if not self.machine.tdx.enabled:
            raise NoAddress("the TDX module is not initialised")
        return _platform(self.machine)

    @ro(VERSION)
    def version(self) -> tuple[int, int, int]:
        """Version of the TDX module, major.minor.update; ENXIO while it is not initialised."""
        return self._initialized().module_version

    @ro(VERSION, mode=0o400)
    def seamldr_version(self) -> tuple[int, int, int]:
        """Version of the SEAM loader. Absent where the module cannot be updated at run time."""
        return self._initialized().seamldr_version

    @ro(DECIMAL, mode=0o400)
    def num_remaining_updates(self) -> int:
        """How often the module can still be updated. Absent where it cannot be at run time."""
        return self._initialized().remaining_updates

    def _updatable(self) -> bool:
        return _platform(self.machine).runtime_update

    seamldr_version.visible(_updatable)
    num_remaining_updates.visible(_updatable)

    @link
    def subsystem(self) -> str:
        """The faux bus."""
        return paths.bus("faux")


class KvmIntelParameters(Directory[None]):
    """Parameters of kvm_intel."""

    WHAT = "/sys/module/kvm_intel/parameters"

    @ro(YES_NO)
    def tdx(self) -> bool:
        """Y if KVM can run TDX guests."""
        return self.machine.tdx.enabled

    @tdx.visible
    def _knows_tdx(self) -> bool:
        return self.machine.topology.tdx is not None


DIRECTORIES = (TdxHostDir, KvmIntelParameters)
