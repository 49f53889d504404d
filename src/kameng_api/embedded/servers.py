"""What command line, tour and tests call: the servers of one `var/`, started once, found again, stopped cleanly."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kameng_api.embedded import places, postgres, processes, redis
from kameng_api.embedded.errors import EmbeddedError

_LOCK_S = 180.0


@dataclass(frozen=True)
class Servers:
    """Where the running servers answer. The addresses carry passwords, so they are not shown by repr().

    An address is "" for a server that was not asked for.
    """

    owner_url: str = field(repr=False)
    """SQLAlchemy address of the role that owns the schema: migrations only."""
    app_url: str = field(repr=False)
    """SQLAlchemy address of the role the application runs as: it may do what migrations granted."""
    redis_url: str = field(repr=False)
    var: Path


@dataclass(frozen=True)
class ServerStatus:
    """One server: its process id if alive, and whether it answers with our password."""

    pid: int | None
    answers: bool


@dataclass(frozen=True)
class Status:
    """The servers of one `var/`. Data stands in `place`, which is `var` except for root below a closed folder."""

    var: Path
    place: Path
    postgres: ServerStatus
    redis: ServerStatus


def start(
    var: Path, *, postgres: bool = True, redis: bool = True, settings: Mapping[str, str] | None = None
) -> Servers:
    """Starts the servers of this `var/`, or finds those that run and answer, and says where.

    They outlive the calling process. `settings` are PostgreSQL settings for a server started now; one that runs keeps
    its own. Raises EmbeddedError when a server does not come up, ValueError for a setting that may not be overridden.
    """
    return _start(var, with_postgres=postgres, with_redis=redis, settings=settings or {})[0]


def stop(var: Path) -> None:
    """Stops the servers of this `var/` cleanly, if any run. Raises EmbeddedError when one does not end."""
    _stop(var, with_postgres=True, with_redis=True)


def remove(var: Path) -> None:
    """Stops the servers of this `var/` and deletes their data for ever, wherever it stands; logs stay.

    For tests and for a person who was asked twice. Raises EmbeddedError when a server does not end.
    """
    _stop(var, with_postgres=True, with_redis=True)
    ground = places.recall(var)
    if ground is not None:
        with _lock(ground.var):
            places.clear(ground)


def status(var: Path) -> Status:
    """Which servers of this `var/` are alive; starts and writes nothing."""
    ground = places.recall(var)
    if ground is None:
        nothing = ServerStatus(None, answers=False)
        return Status(var.resolve(), var.resolve(), nothing, nothing)
    return Status(
        ground.var,
        ground.place,
        ServerStatus(postgres.pid_of(ground.place), postgres.answers(ground)),
        ServerStatus(redis.pid_of(ground.place), redis.answers(ground)),
    )


@contextmanager
def running(
    var: Path, *, postgres: bool = True, redis: bool = True, settings: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """The servers for the length of a `with` block, which stops at its end those it started and no others."""
    servers, started_postgres, started_redis = _start(
        var, with_postgres=postgres, with_redis=redis, settings=settings or {}
    )
    try:
        yield servers
    finally:
        _stop(var, with_postgres=started_postgres, with_redis=started_redis)


def _start(
    var: Path, *, with_postgres: bool, with_redis: bool, settings: Mapping[str, str]
) -> tuple[Servers, bool, bool]:
    """The servers, and which of the two were started by this call."""
    postgres.check_settings(settings)
    var = places.make_var(var)
    with _lock(var) as lock_fd:
        ground = places.prepare(var, lock_fd)
        started_postgres = with_postgres and postgres.start(ground, settings)
        started_redis = with_redis and redis.start(ground)
    record = ground.record
    servers = Servers(
        owner_url=postgres.url(ground, postgres.OWNER, record.owner_password) if with_postgres else "",
        app_url=postgres.url(ground, postgres.APP, record.app_password) if with_postgres else "",
        redis_url=redis.url(ground) if with_redis else "",
        var=var,
    )
    return servers, started_postgres, started_redis


def _stop(var: Path, *, with_postgres: bool, with_redis: bool) -> None:
    if not places.record_path(var.resolve()).exists():
        return
    with _lock(var.resolve()):
        ground = places.recall(var)
        if ground is not None and with_redis:
            redis.stop(ground)
        if ground is not None and with_postgres:
            postgres.stop(ground)


@contextmanager
def _lock(var: Path) -> Iterator[int]:
    """One start or stop at a time per `var/`. The kernel frees the lock when its holder dies."""
    path = var / "embedded.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except PermissionError as error:
        raise EmbeddedError(f"{path} belongs to another account; use that account, or another var folder") from error

    def taken() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        if not processes.wait_until(taken, _LOCK_S, every_s=0.05):
            raise EmbeddedError(
                f"another process has been starting or stopping the servers of {var} for {_LOCK_S:.0f} s"
            )
        yield descriptor
    finally:
        os.close(descriptor)
