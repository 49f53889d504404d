"""Starts, checks and stops the Redis of one `var/`: a doorbell and a memory of nonces, so nothing is kept on disk."""

import signal
import socket
from pathlib import Path

from kameng_api.embedded import places, processes
from kameng_api.embedded.errors import EmbeddedError
from kameng_api.embedded.places import Ground

_START_S = 20.0

_CONFIGURATION = """\
# Written anew at each start by kameng_api.embedded; changes here are lost.
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
dir "{folder}"
logfile ""
daemonize no
supervised no
proc-title-template "redis-server {title}"
databases 16
appendonly no
save ""
maxmemory 1gb
maxmemory-policy noeviction
"""


def url(ground: Ground) -> str:
    """The address for redis-py and arq, over the unix socket."""
    return f"unix://:{ground.record.redis_password}@{_socket(ground)}?db=0"


def pid_of(place: Path) -> int | None:
    """The process id of the living server of this place, or None."""
    return next(iter(_pids(place)), None)


def answers(ground: Ground) -> bool:
    """Whether the server behind our socket takes our password and answers."""
    return _say(ground, "PING") == "+PONG\r\n"


def start(ground: Ground) -> bool:
    """Brings the server up; False when it ran and answered already. Raises EmbeddedError when it does not come up."""
    if answers(ground):
        return False
    stop(ground)
    folder = places.private_folder(_folder(ground.place), ground.account)
    configuration = _CONFIGURATION.format(
        socket=_socket(ground),
        password=ground.record.redis_password,
        folder=str(folder).replace("\\", "\\\\").replace('"', '\\"'),
        title=places.title(folder),
    )
    places.write_private(folder / "redis.conf", configuration, ground.account)
    _socket(ground).unlink(missing_ok=True)
    with places.log_file(ground.var, "redis") as log:
        # The shell ends at once, so the server is nobody's child here and leaves no zombie when it is killed.
        processes.run(
            ["/bin/sh", "-c", '"$0" "$1" &', ground.redis_server, folder / "redis.conf"], ground.account, output_fd=log
        )
    if not processes.wait_until(lambda: answers(ground), _START_S):
        raise EmbeddedError(f"Redis does not start:\n{places.log_tail(ground.var, 'redis')}")
    return True


def stop(ground: Ground) -> None:
    """Ends the server of this place; what it remembered is gone, by design."""
    asked = _say(ground, "SHUTDOWN NOSAVE")
    for number in (None if asked is not None else signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            processes.signal_all(_pids(ground.place), number)
        if processes.wait_until(lambda: not _pids(ground.place), 3.0):
            return
    raise EmbeddedError(f"Redis does not stop: {_pids(ground.place)}\n{places.log_tail(ground.var, 'redis')}")


def _pids(place: Path) -> list[int]:
    """Our servers by their title, so that one is found even when its files were deleted under it."""
    ours = ["redis-server", places.title(_folder(place))]
    return [pid for pid, command in processes.all_commands().items() if command.replace("\0", " ").split()[:2] == ours]


def _folder(place: Path) -> Path:
    return place / "redis"


def _socket(ground: Ground) -> Path:
    return ground.sockets / "redis.sock"


def _say(ground: Ground, command: str) -> str | None:
    """One command after the password; the server's answer to it ("" to SHUTDOWN), or None where no server takes it."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(2.0)
        try:
            line.connect(str(_socket(ground)))
            answered = line.makefile("r", encoding="ascii", errors="replace", newline="")
            line.sendall(f"AUTH {ground.record.redis_password}\r\n".encode())
            if not answered.readline().startswith("+OK"):
                return None
            line.sendall(f"{command}\r\n".encode())
            return answered.readline()
        except OSError:
            return None
