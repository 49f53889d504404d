"""Finds out which processes are really ours, because a remembered process id may by now belong to somebody else."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kameng_api.embedded.errors import EmbeddedError

_PROC = Path("/proc")


@dataclass(frozen=True)
class Account:
    """Who a server runs as. None of the three numbers is ever 0: PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


def command_of(pid: int) -> str:
    """The command line of a living process, arguments joined by NUL; empty for one that is gone or a zombie.

    The command line is readable for every process even in containers where root may not inspect others.
    """
    if (_PROC / "self").exists():
        try:
            return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0 ")
        except OSError:
            return ""
    shown = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def all_commands() -> dict[int, str]:
    """Command lines of all processes by process id."""
    if (_PROC / "self").exists():
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
        return {pid: command_of(pid) for pid in pids}
    shown = subprocess.run(["/bin/ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False)
    pairs = (line.strip().split(None, 1) for line in shown.stdout.splitlines())
    return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2}


def run(
    arguments: Sequence[str | Path],
    account: Account | None,
    *,
    stdin: str | None = None,
    output_fd: int | None = None,
    keep_fd: int | None = None,
    extra_environment: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Runs one program to its end as `account` (None: as ourselves), out of reach of the terminal's Ctrl-C.

    The environment is a fresh one: PGPORT or PGDATA of the person's shell must not lead us to another server.
    With `output_fd` both outputs go there (a server started this way must not hold our pipes), else they are returned.
    `keep_fd` stays open in the program, so that a lock held here is held until it ends even when we are killed.
    Raises EmbeddedError when the program cannot be started or does not end within `timeout_s`.
    """
    environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC", **(extra_environment or {})}
    captured = subprocess.PIPE if output_fd is None else output_fd
    try:
        return subprocess.run(  # noqa: S603
            [str(argument) for argument in arguments],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=captured,
            stderr=captured,
            env=environment,
            cwd="/",
            text=True,
            check=False,
            timeout=timeout_s,
            start_new_session=True,
            pass_fds=() if keep_fd is None else (keep_fd,),
            umask=0o077,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(f"{arguments[0]} did not end within {timeout_s:.0f} s") from error
    except OSError as error:
        who = "" if account is None else f" as {account.name}"
        raise EmbeddedError(f"cannot run {arguments[0]}{who}: {error}") from error


def wait_until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.02) -> bool:
    """True as soon as `condition()` holds, False when it never did within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def signal_all(pids: Sequence[int], number: int) -> None:
    """Sends a signal to processes that may already be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
