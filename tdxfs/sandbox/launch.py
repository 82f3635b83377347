"""Starting a command on an emulated machine, and ending with it.

Three processes: the launcher, which stays as the command's parent and answers its calls; the server of a machine
of its own; the command. The server mounts in a private namespace that only it keeps; the launcher and the command
have a copy of that. If the launcher is killed, the kernel kills the other two, and the mounts go with them.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tdxfs.descriptors import Create
from tdxfs.errors import UserError
from tdxfs.sandbox import linux, overlay, seccomp
from tdxfs.sandbox.calls import CPU, NUMA
from tdxfs.sandbox.follow import Followed
from tdxfs.sandbox.remap import Remapping
from tdxfs.sandbox.supervisor import Supervisor
from tdxfs.tree import Tree

STAGE = "/sys/fs/fuse/connections"
"""An empty directory of every system that has FUSE; what is mounted there is hidden again."""
KEPT_CPUS = ("/proc/cpuinfo",)
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_FORWARDED = frozenset(
    {
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
        signal.SIGALRM, signal.SIGWINCH,
    }
)  # fmt: skip
_FROM_KERNEL = 0x80  # SI_KERNEL: the terminal's own, which the command has got as well


def run(
    machine: Tree | Path,
    command: Sequence[str],
    *,
    isolated: bool = False,
    host_cpus: bool = False,
    environment: Mapping[str, str] | None = None,
) -> int:
    """
    Run `command` on a machine of its own, or on the one mounted at a path, and wait for it: its exit status, or
    minus the signal that killed it. `isolated` hides the rest of the real /sys and /dev; with `host_cpus` the CPUs
    are the real ones, which the machine must have as well. UserError if the system does not allow it.
    """
    environment = dict(os.environ if environment is None else environment)
    server = None
    try:
        try:
            linux.enter_private_namespace()
            if isinstance(machine, Tree):
                server, where = _serve(machine)
                linux.unshare(linux.CLONE_NEWNS)
            else:
                where = os.path.abspath(machine)
            root = os.open(where, os.O_PATH | os.O_DIRECTORY)
            processes = linux.clone_tree("/proc")
            overlay.lay(f"/proc/self/fd/{root}", isolated=isolated, keep=KEPT_CPUS if host_cpus else ())
            if server is not None and not isolated:
                linux.mount("tdxfs", STAGE, "tmpfs", linux.MS_RDONLY)
        except OSError as error:
            raise UserError(f"run: {error.filename}: {error.strerror}") from error
        return _start_and_wait(root, processes, command, environment, NUMA if host_cpus else (*NUMA, *CPU))
    finally:
        if server is not None:
            os.kill(server, signal.SIGKILL)  # it has nothing to save, and a signal that can be caught can be missed
            os.waitpid(server, 0)


def _serve(tree: Tree) -> tuple[int, str]:
    from tdxfs.server import run_background

    linux.mount("tdxfs", STAGE, "tmpfs")
    where = f"{STAGE}/machine"
    os.mkdir(where)
    launcher = os.getpid()
    return run_background(tree, Path(where), _complaints(), lambda: linux.die_with_parent(launcher)), where


def _complaints() -> Path | None:
    # where the server's errors are seen: this process's own standard error, if it can be opened again
    path = f"/proc/{os.getpid()}/fd/2"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    except OSError:
        return None
    return Path(path)


def _start_and_wait(
    root: int, proc: int, command: Sequence[str], environment: Mapping[str, str], answered: Collection[str]
) -> int:
    program = shutil.which(command[0], path=environment.get("PATH")) or command[0]
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    ours, theirs = socket.socketpair()
    launcher = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become(program, command, environment, answered, launcher, theirs)
    theirs.close()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for every process of the run
    message, listeners, _, _ = socket.recv_fds(ours, 4096, 1)
    if not listeners:
        os.waitpid(pid, 0)
        raise UserError(message.decode() or "run: the command's process died")
    gc.freeze()  # what is there by now stays: looking through it again and again only delays an answer
    supervisor = Supervisor(listeners[0], root, proc, answered)
    supervisor.start()
    status = _wait(pid)
    supervisor.stop()
    return status


def _become(
    program: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    answered: Collection[str],
    launcher: int,
    control: socket.socket,
) -> NoReturn:
    status = NOT_FOUND
    try:
        linux.die_with_parent(launcher)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED | {signal.SIGCHLD})
        for number in (signal.SIGPIPE, signal.SIGINT):  # as Python found them, not as it left them
            signal.signal(number, signal.SIG_DFL)
        listener = seccomp.install((*answered, *Followed.WATCHERS, *Remapping.WATCHERS), Create)
        socket.send_fds(control, [b"ready"], [listener])
        os.close(listener)
        os.execve(program, list(command), environment)
    except UserError as error:
        control.send(str(error).encode())
    except OSError as error:
        print(f"tdxfs: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        os._exit(status)


def _wait(pid: int) -> int:
    while True:
        got = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        if got.si_signo == signal.SIGCHLD:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
        elif got.si_code != _FROM_KERNEL:
            os.kill(pid, got.si_signo)
