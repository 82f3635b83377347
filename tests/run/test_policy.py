"""The NUMA and affinity calls as C programs make them, statically linked or without a libc."""

import errno
from pathlib import Path

import pytest
from machines import MIXED
from runner import compiled, output

from tdxfs.formats.topology import dumps

EXPECTED = f"""\
at first mode 0 mask 0
bind 1 0 0
bound mode 2 mask 2
unknown mode -1 {errno.EINVAL}
empty bind -1 {errno.EINVAL}
null bind -1 {errno.EINVAL}
default with nodes -1 {errno.EINVAL}
local with nodes -1 {errno.EINVAL}
absent node -1 {errno.EINVAL}
too long -1 {errno.EINVAL}
bad pointer -1 {errno.EFAULT}
unchanged mode 2 mask 2
thread inherits mode 2 mask 2
thread sets mode 1 mask 4
after the thread mode 2 mask 2
child inherits mode 2 mask 2
child sets mode 0 mask 0
after the child mode 2 mask 2
allowed 0 0
allowed mask 7
short mask -1 {errno.EINVAL}
next of bind -1 {errno.EINVAL}
address without flag -1 {errno.EINVAL}
mbind 0 0
mbind unaligned -1 {errno.EINVAL}
mbind flags -1 {errno.EINVAL}
mbind empty 0 0
mbind unmapped -1 {errno.EFAULT}
policy at 0 0
policy at mode 2 mask 4
node at 0 0 0
node at 0 is 1
node at 1 0 0
node at 1 is 2
strict -1 {errno.EIO}
strict in place 0 0
back 0 0
nothing at -1 {errno.EFAULT}
where are pages 0 0
pages are 1 2 {-errno.EFAULT}
move pages 0 0
where now 0 0
page is 2
move to no node -1 {errno.ENODEV}
move of nobody -1 {errno.ESRCH}
home 0 0
home of none -1 {errno.ENOENT}
home on no node -1 {errno.EINVAL}
migrate 0 0
migrate to no node -1 {errno.EINVAL}
affinity 8 0
cpus f
affinity short -1 {errno.EINVAL}
bind cpus 0 0
affinity again 8 0
cpus 3
bind no cpus -1 {errno.EINVAL}
"""


@pytest.fixture
def machine(tmp_path):
    where = tmp_path / "small.toml"
    where.write_text(dumps(MIXED))
    return where


def test_every_call(machine, tmp_path):
    """Results and errno of Linux, for threads and children as well."""
    program = compiled(tmp_path, Path(__file__).with_name("policy.c"), "-pthread")

    assert EXPECTED == output(machine, program)


def test_without_libc(machine, tmp_path):
    """A program that makes its calls itself sees the same machine."""
    program = compiled(tmp_path, Path(__file__).with_name("raw.c"), "-nostdlib", "-fno-stack-protector")
    cpus, refused, online, *rest = output(machine, program).splitlines()

    assert (str(len(MIXED.cpus)), "0", "0-2") == (cpus, refused, online)
    assert rest[0].split()[1] == "bind:1"
    assert "Mems_allowed_list:\t0-2" in rest


def test_weighted_interleave(machine, tmp_path):
    """Pages are on the nodes in the shares that were written, each by its address, whichever way the program asks."""
    program = compiled(tmp_path, Path(__file__).with_name("weights.c"))
    at = "/sys/kernel/mm/mempolicy/weighted_interleave"
    told = output(machine, "sh", "-c", f"echo 3 > {at}/node0; {program}; echo 1 > {at}/node0; {program}").splitlines()
    first, *weighted = told[:5]
    _, *plain = told[5:]

    turn = [0, 0, 0, 2] * 3
    here = turn[(start := int(first.split()[2])) : start + 8]
    assert ["move_pages 45 0 15", "get_mempolicy 45 0 15", f"in turn {' '.join(map(str, here))}"] == weighted[:3]
    assert {"weighted", "interleave:0,2", "N0=45", "N2=15"} <= set(weighted[3].split())
    assert ["move_pages 30 0 30", "get_mempolicy 30 0 30"] == plain[:2]
    assert {"N0=30", "N2=30"} <= set(plain[3].split())
