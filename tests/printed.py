"""What the unmodified tools printed on the captured machines, and how they are made to print it again."""

import re
import shlex

from tools import bound, output

LSMEM = "RANGE,SIZE,STATE,REMOVABLE,BLOCK,NODE,ZONES"
COMMANDS = {
    "lsmem-default.txt": "lsmem",
    "lsmem.txt": "lsmem -o+ZONES -b",
    "lsmem-a.txt": f"lsmem -a -b -o {LSMEM}",
    "lsmem.json": f"lsmem -J -a -b -o {LSMEM}",
    "lscpu.txt": "lscpu",
    "lscpu.json": "lscpu -J",
    "lscpu-p.txt": "lscpu -p",
    "lscpu-e.txt": "lscpu -a -e",
    "lscpu-e.json": "lscpu -a -e -J",
    "lscpu-C.txt": "lscpu -C",
    "numactl-H.txt": "numactl -H",
    "numactl-s.txt": "numactl -s",
    "daxctl-devices.json": "daxctl list",
    "daxctl.json": "daxctl list -RDi",
    "daxctl-u.json": "daxctl list -RDi -u",
    "daxctl-M.json": "daxctl list -RDMi",
}
"""File of a stage -> the command whose output it is."""
OF_A_TASK = ("numactl-s.txt",)
"""What a tool asks the kernel about itself: only a run answers."""
LOOKING = tuple(file for file in COMMANDS if file not in OF_A_TASK)
"""What a tool reads in files: a mount answers."""
WITH_SYSROOT = ("lsmem", "lscpu")
OTHERWISE = r"node [0-9]+ free:|BIOS "
"""Lines that are another machine's: free memory was another in the moment of capture; lscpu reads DMI tables."""
ASKED = "Model name:|Hypervisor vendor:|Virtualization type:"
"""Lines about what lscpu asks the CPU itself, where it is not told of a sysroot."""


def look(root, file, scratch):
    """What the tool prints over a mount."""
    program, *arguments = shlex.split(COMMANDS[file])
    if program in WITH_SYSROOT:
        return output(program, "--sysroot", root, *arguments)
    return bound(root, scratch, program, *arguments)


def lines(text, *but):
    """The lines of what was printed, but those that begin so, and the JSON records of such fields."""
    known = "|".join(but)
    text = re.sub(rf'{{\s*"field": "(?:{known})[^}}]*}},?', "", text)
    return [line for line in text.splitlines() if not re.match(known, line)]
