"""KVM's descriptors in a run: a VM, its vCPU and its guest_memfd, as a VMM asks for them."""

import shlex
from pathlib import Path

import pytest
from runner import compiled, need, run
from walking import GUESTS, MACHINE, ROWS

from tdxfs.formats.topology import dumps
from tdxfs.policy import Boot, Cover, Policies, Validate
from tdxfs.server import mounted

MADE = ["open ok", "vm ok", "memfd ok"]
ALIVE = ["vcpu ok", "fault ok"]
DEAD = ["vcpu ok", "fault EIO", "again EIO"]
NODE0, NODE2 = "1", "4"
REFUSALS = """\
close-on-exec ok
type 77 EINVAL
VM of a VM ENOTTY
vCPU of a vCPU ENOTTY
vCPU again EEXIST
vCPU 1024 EINVAL
memfd of the device ENOTTY
memfd size EINVAL
memfd flags EINVAL
memfd reserved EINVAL
memfd pointer EFAULT
slot of a vCPU ENOTTY
slot over the same memfd EINVAL
slot beyond the memfd EINVAL
slot over a VM EINVAL
slot over nothing EBADF
not KVM ENOTTY
not open EBADF
no descriptor left EMFILE
in a thread ok
fault in a thread ok
in a child EIO
""".splitlines()


@pytest.fixture(scope="session")
def vm(tmp_path_factory):
    """The program that makes a VM."""
    return compiled(tmp_path_factory.mktemp("vm"), Path(__file__).with_name("vm.c"), "-pthread")


@pytest.fixture(scope="module", params=Validate, ids=str)
def machine(request):
    """A mount under each validation, and which it is."""
    need("numactl")
    with mounted(MACHINE, policies=Policies(cover=Cover.CONVERTIBLE, validate=request.param)) as root:
        yield root, request.param


@pytest.fixture
def plain():
    """A mount that pledges nothing."""
    need("numactl")
    with mounted(MACHINE, policies=Policies(cover=Cover.CONVERTIBLE)) as root:
        yield root


@pytest.fixture
def pledging():
    """A mount that pledges."""
    with mounted(MACHINE, policies=Policies(cover=Cover.CONVERTIBLE, validate=Validate.PLEDGE)) as root:
        yield root


def played(root, *command):
    """The lines that the program prints in a run on a mount, and the directory of its guest, if it got one."""
    before = set((root / GUESTS).glob("*-*"))
    done = run(root, *command)
    assert "" == done.stderr
    (guest,) = set((root / GUESTS).glob("*-*")) - before or {None}
    return done.stdout.splitlines(), guest


def text(path):
    return path.read_text().rstrip("\n")


@pytest.mark.parametrize(
    ("task", "file", "fate", "pledge"),
    [
        ("--membind=0", "0", "lives", "lives"),
        ("--localalloc", "0", "lives", "refused"),
        ("--membind=2", "0", "dies", "refused"),
        ("--localalloc", NODE0, "lives", "lives"),
        ("--membind=2", NODE0, "lives", "lives"),
        ("--membind=0", NODE2, "dies", "refused"),
    ],
)
def test_guest_memfd(machine, vm, task, file, fate, pledge):
    """The policy of a guest_memfd, or else that of the task, decides: the guest lives, dies, or is refused."""
    root, validate = machine
    expected = pledge if validate is Validate.PLEDGE else fate

    said, guest = played(root, "numactl", task, vm, "0x400000", file)

    bound = ["mbind ok"] if file != "0" else []
    after = {"lives": ["set ok", *ALIVE], "dies": ["set ok", *DEAD], "refused": ["set EINVAL"]}[expected]
    assert [*MADE, *bound, *after] == said
    assert ("dead" if expected == "dies" else "ended") == text(guest / "state")
    assert (expected == "dies") == (guest / "death").exists()
    assert (expected == "refused") == (guest / "refusals/0").exists()
    if expected == "dies":
        assert ["not-convertible", "2", "bind:2"] == [
            text(guest / "death" / name) for name in ("kind", "node", "policy")
        ]
    if expected == "refused":
        shown = "local" if task == "--localalloc" else "bind:2"
        assert ["policy", shown] == [text(guest / "refusals/0" / name) for name in ("kind", "policy")]


def test_ordinary_errors(plain, vm):
    """What KVM refuses is refused, with its errno, and the guest goes on."""
    done = run(plain, "env", "REFUSED=1", vm, "0x400000", NODE0)

    expected = [*MADE, "mbind ok", "set ok", "vcpu ok", *REFUSALS, "fault ok"]
    assert (expected, "") == (done.stdout.splitlines(), done.stderr)


def test_undermining(pledging, vm):
    """A guest_memfd that was pledged is not bound to memory that could kill the guest: EPERM."""
    bad, guest = played(pledging, vm, "0x400000", NODE0, NODE2)
    good, _ = played(pledging, vm, "0x400000", NODE0, NODE0)

    assert [*MADE, "mbind ok", "set ok", "later EPERM", *ALIVE] == bad
    assert "undermined" == text(guest / "refusals/0/kind")
    assert [*MADE, "mbind ok", "set ok", "later ok", *ALIVE] == good


def test_later_policy_counts(plain, vm):
    """Without a pledge the policy at the fault is the one that counts, not that of the moment the slot was set."""
    said, _ = played(plain, vm, "0x400000", NODE0, NODE2)

    assert [*MADE, "mbind ok", "set ok", "later ok", *DEAD] == said


def test_the_remedy_helps(plain, vm):
    """A guest that died lives when its remedy is typed."""
    died, guest = played(plain, "numactl", "--preferred=2", vm, "0x400000")
    remedy = text(guest / "death/remedy")
    lived, _ = played(plain, *shlex.split(remedy))

    assert [*MADE, "set ok", *DEAD] == died
    assert f"numactl --membind=0 {vm} 0x400000" == remedy
    assert [*MADE, "set ok", *ALIVE] == lived


@pytest.mark.parametrize(
    ("options", "command", "expected"),
    [
        ((), ("numactl", "--membind=0-1", "VM", "0x1000000000"), ["set ok", *ALIVE]),
        ((), ("VM", "0x2000000000"), ["set ok", *DEAD]),
        (("--policy", "validate=pledge"), ("VM", "0x400000"), ["set EINVAL"]),
        (("--policy", "validate=pledge"), ("numactl", "--membind=0-1", "VM", "0x400000"), ["set ok", *ALIVE]),
    ],
    ids=["bound", "falls on node 2", "refused", "pledged"],
)
def test_the_default_machine(vm, options, command, expected):
    """On `mixed` 64 GiB of nodes 0 and 1 live; under the default policy 128 GiB reach node 2, which kills."""
    done = run("mixed", *(vm if word == "VM" else word for word in command), options=options)

    assert ([*MADE, *expected], "") == (done.stdout.splitlines(), done.stderr)


def test_tdx_disabled(vm):
    """Without TDX a TD is no type of VM."""
    with mounted(MACHINE, policies=Policies(boot=Boot.OFF)) as root:
        assert (["open ok", "vm EINVAL"], None) == played(root, vm, "0x400000")


def test_key_ids_come_back(plain, vm):
    """A guest whose descriptors are closed gives its KeyID back: there can be more of them, one after the other."""
    again = f"i=0; while [ $i -lt 70 ]; do {vm} 0x1000 > /dev/null || exit 1; i=$((i + 1)); done"

    done = run(plain, "sh", "-c", again)

    assert (0, "") == (done.returncode, done.stderr)


def test_killed_meanwhile(plain, vm):
    """A caller that is killed at any moment leaves neither a live guest nor a stuck run."""
    kill = f"{vm} 0x100000 > /dev/null & sleep 0.00$((i % 10)); kill -9 $!"
    kills = f"i=0; while [ $i -lt 30 ]; do {kill}; i=$((i + 1)); done"

    done = run(plain, "sh", "-c", f"{kills}; wait; {vm} 0x1000 1")

    assert [*MADE, "mbind ok", "set ok", *ALIVE] == done.stdout.splitlines()
    assert "running" not in {text(path / "state") for path in (plain / GUESTS).glob("*-*")}


def numactl(policy):
    """How numactl spells a policy."""
    mode, _, nodes = policy.partition(":")
    return f"numactl --{ {'bind': 'membind', 'prefer': 'preferred'}.get(mode, mode) }={nodes} " if mode else ""


@pytest.mark.parametrize("validate", Validate, ids=str)
def test_an_open_is_a_td(tmp_path, validate):
    """A program that makes no VM has a TD in its open of /dev/kvm, and the outcomes of the discussion's table."""
    walk = compiled(tmp_path, Path(__file__).parents[1] / "walk/walk.c")
    topology = tmp_path / "walk.toml"
    topology.write_text(dumps(MACHINE))
    memory = tmp_path / "memory"
    script = []
    for backing, policy, *_ in ROWS:
        path = memory if backing == "file" else f"/{backing}" if "/" in backing else backing
        script.append(f"rm -f {memory}; truncate -s 4M {memory}; echo @; {numactl(policy)}{walk} '' {path} 0x400000")

    options = ("--policy", "cover=convertible", "--policy", f"validate={validate}")
    done = run(topology, "sh", "-c", "\n".join(script), options=options)

    expected = {(row[0], row[1]): row[2 + list(Validate).index(validate)] for row in ROWS}
    said = (part.split("\n")[1:-1] for part in done.stdout.split("@")[1:])
    assert expected == dict(zip(expected, said, strict=True))
