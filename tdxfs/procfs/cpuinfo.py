"""``/proc/cpuinfo``; compare arch/x86/kernel/cpu/proc.c."""

from __future__ import annotations

from collections import Counter

from tdxfs.model import Machine

FLAGS = " ".join(
    """
fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx pdpe1gb
rdtscp lm constant_tsc rep_good nopl xtopology cpuid pni pclmulqdq vmx ssse3 fma cx16 sse4_1 sse4_2 x2apic movbe popcnt
aes xsave avx f16c rdrand lahf_lm abm fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq clflushopt clwb
avx512cd sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 movdiri movdir64b
""".split()
)


def cpuinfo(machine: Machine) -> str:
    """One paragraph per online CPU; recorded text where the topology has it."""
    topology = machine.topology
    recorded = machine.records.get("cpuinfo")
    if recorded is not None:
        return recorded
    flags = FLAGS + (" tdx_host_platform" if topology.tdx is not None else "")
    siblings = Counter(cpu.package for cpu in topology.cpus)
    cores = Counter(package for package, _ in {(cpu.package, (cpu.die, cpu.core)) for cpu in topology.cpus})
    last = max((cache for cache in topology.caches), key=lambda cache: cache.level, default=None)
    paragraphs = []
    for apic_id, cpu in enumerate(topology.cpus):
        if cpu.id not in machine.cpus_online:
            continue
        rows = [
            ("processor", str(cpu.id)),
            ("vendor_id", "GenuineIntel"),
            ("cpu family", "6"),
            ("model", "207"),
            ("model name", topology.model_name),
            ("stepping", "2"),
            ("microcode", f"{topology.microcode or 1:#x}"),
            ("cpu MHz", "1900.000"),
            ("cache size", f"{last.size // 1024 if last else 0} KB"),
            ("physical id", str(cpu.package)),
            ("siblings", str(siblings[cpu.package])),
            ("core id", str(cpu.core)),
            ("cpu cores", str(cores[cpu.package])),
            ("apicid", str(apic_id)),
            ("initial apicid", str(apic_id)),
            ("fpu", "yes"),
            ("fpu_exception", "yes"),
            ("cpuid level", "36"),
            ("wp", "yes"),
            ("flags", flags),
            ("bugs", "spectre_v1 spectre_v2 spec_store_bypass swapgs bhi"),
            ("bogomips", "3800.00"),
            ("clflush size", "64"),
            ("cache_alignment", "64"),
            ("address sizes", "52 bits physical, 57 bits virtual"),
        ]
        # names shorter than a tab stop get a second tab, as in the kernel's format strings
        lines = [f"{name}{chr(9) * (2 if len(name) < 8 else 1)}: {value}" for name, value in rows]
        paragraphs.append("\n".join([*lines, "power management:", "", ""]))
    return "".join(paragraphs)
