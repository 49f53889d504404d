"""Creates, starts, checks and stops the PostgreSQL server of one `var/` with PostgreSQL's own programs."""

import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from kameng_api.embedded import places, processes
from kameng_api.embedded.errors import EmbeddedError
from kameng_api.embedded.places import Ground

DATABASE, OWNER, APP = "kameng", "kameng_owner", "kameng_app"
_PORT = 5432
"""Only the name of the socket file; the server listens on no network address."""

_SUPERUSER = "postgres"
_START_S = 60
_STOP_S = 60
_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
_ADDRESS = ("listen_addresses", "port", "unix_socket_directories", "cluster_name")
_LOCKED_SETTINGS = frozenset((*_DURABILITY, *_ADDRESS))
"""What no caller may override: money must survive a power cut, and nobody else may connect."""

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    # Money: a commit that was answered survives a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A developer's machine with two cores and much memory.
    "shared_buffers": "512MB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "track_io_timing": "off",
    # Segments as files in the data folder: /dev/shm is 64 MB in containers, and logging out may empty it.
    "dynamic_shared_memory_type": "mmap",
    # Queue tables live on few rows and many updates.
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    # Terse: the details of an error quote row values, and logs hold no personal data.
    "log_error_verbosity": "terse",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_lock_waits": "on",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "lc_messages": "C",
    "default_text_search_config": "pg_catalog.simple",
}

_ROLES = """\
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{owner}') THEN CREATE ROLE {owner}; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{app}') THEN CREATE ROLE {app}; END IF;
END $$;

ALTER ROLE {superuser} PASSWORD '{superuser_password}';

ALTER ROLE {owner} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{owner_password}';

ALTER ROLE {app} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{app_password}';

"""

_DATABASE = """\
CREATE DATABASE {database} OWNER {owner};

REVOKE ALL ON DATABASE {database} FROM PUBLIC;

GRANT CONNECT ON DATABASE {database} TO {app};

"""


def url(ground: Ground, role: str, password: str) -> str:
    """The SQLAlchemy address of the database for one role, over the unix socket."""
    return f"postgresql+asyncpg://{role}:{password}@/{DATABASE}?host={ground.sockets}&port={_PORT}"


def check_settings(settings: Mapping[str, str]) -> None:
    """Raises ValueError for a setting that would weaken what a commit means or who may connect."""
    if refused := sorted(_LOCKED_SETTINGS & {name.lower() for name in settings}):
        raise ValueError(f"not to be overridden: {', '.join(refused)}")


def pid_of(place: Path) -> int | None:
    """The process id of the living server whose data this is, or None."""
    data = places.data_folder(place)
    pid = _written_pid(data)
    return pid if pid is not None and _folder_named_in(processes.command_of(pid)) == str(data) else None


def answers(ground: Ground) -> bool:
    """Whether our application role can log in with its password over our private socket."""
    asked = processes.run(
        [
            ground.postgres_bin / "psql",
            *("-X", "-q", "-A", "-t", *_where(ground), "-U", APP, "-d", DATABASE, "-c", "SELECT 'here'"),
        ],
        None,
        extra_environment={"PGPASSWORD": ground.record.app_password, "PGCONNECT_TIMEOUT": "5"},
        timeout_s=20.0,
    )
    return asked.returncode == 0 and asked.stdout.strip() == "here"


def accepts(ground: Ground) -> bool:
    """Whether a server behind our socket takes connections at all, whatever the password."""
    return (
        processes.run([ground.postgres_bin / "pg_isready", "-q", *_where(ground)], None, timeout_s=20.0).returncode == 0
    )


def start(ground: Ground, settings: Mapping[str, str]) -> bool:
    """Brings the server up, creating its data the first time. False when it was running and answering already.

    Raises EmbeddedError with the end of the log when the server does not come up.
    """
    data = places.data_folder(ground.place)
    if pid_of(ground.place) is not None:
        # One that is still recovering, or being stopped, is given its time before it is judged.
        processes.wait_until(lambda: accepts(ground) or pid_of(ground.place) is None, _START_S)
        if answers(ground):
            return False
        stop(ground)
    if not data.exists():
        _create(ground)
    _clear_stale_lock(data)
    _end_leftovers(data)
    _clear_stale_socket(ground)
    places.write_private(data / "postgresql.conf", _configuration(ground, settings), ground.account)
    places.write_private(data / "pg_hba.conf", "local all all scram-sha-256\n", ground.account)
    _launch(ground, data)
    if not answers(ground):
        # Our record of passwords was lost and made anew: teach them to the data we kept.
        stop(ground)
        _single_user(ground, data, "postgres", _roles(ground))
        _launch(ground, data)
    if not answers(ground):
        raise EmbeddedError(f"PostgreSQL runs but refuses {APP}:\n{places.log_tail(ground.var, 'postgres')}")
    return True


def stop(ground: Ground) -> None:
    """Ends the server of this place cleanly: open transactions are rolled back, everything is written."""
    pid = pid_of(ground.place)
    if pid is None:
        return
    for number in (signal.SIGINT, signal.SIGQUIT):  # pg_ctl's "fast", then its "immediate"
        processes.signal_all([pid], number)
        if processes.wait_until(lambda: processes.command_of(pid) == "", _STOP_S):
            return
    raise EmbeddedError(f"PostgreSQL (process {pid}) does not stop:\n{places.log_tail(ground.var, 'postgres')}")


def _where(ground: Ground) -> tuple[str, ...]:
    return ("-h", str(ground.sockets), "-p", str(_PORT))


def _create(ground: Ground) -> None:
    """initdb, roles and database in a folder aside, renamed when complete: a half-made one is never taken for data."""
    for leftover in ground.place.glob(".postgres-new-*"):
        shutil.rmtree(leftover)
    fresh = places.private_folder(ground.place / f".postgres-new-{secrets.token_hex(4)}", ground.account)
    made = processes.run(
        [
            ground.postgres_bin / "initdb",
            *("-D", fresh, "-U", _SUPERUSER, "-E", "UTF8", "--data-checksums", "--auth=reject"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ],
        ground.account,
        keep_fd=ground.lock_fd,
    )
    if made.returncode != 0:
        raise EmbeddedError(f"initdb failed:\n{made.stdout}{made.stderr}")
    names = {"database": DATABASE, "owner": OWNER, "app": APP}
    _single_user(ground, fresh, "postgres", _roles(ground) + _DATABASE.format(**names))
    fresh.rename(places.data_folder(ground.place))


def _roles(ground: Ground) -> str:
    record = ground.record
    return _ROLES.format(
        owner=OWNER,
        app=APP,
        superuser=_SUPERUSER,
        superuser_password=record.superuser_password,
        owner_password=record.owner_password,
        app_password=record.app_password,
    )


def _single_user(ground: Ground, data: Path, database: str, sql: str) -> None:
    """Runs statements without a server listening. With -j a statement ends at an empty line."""
    program = [str(ground.postgres_bin / "postgres"), "--single", "-j", "-D", str(data), database]
    ran = processes.run(program, ground.account, stdin=sql, keep_fd=ground.lock_fd)
    # Single-user mode goes on after an error and ends with 0 all the same.
    if ran.returncode != 0 or any(word in ran.stderr for word in ("ERROR:", "FATAL:", "PANIC:")):
        raise EmbeddedError(f"the database roles could not be set:\n{ran.stderr}")


def _configuration(ground: Ground, settings: Mapping[str, str]) -> str:
    chosen = {
        **_SETTINGS,
        **settings,
        "unix_socket_directories": str(ground.sockets),
        "cluster_name": places.title(places.data_folder(ground.place)),
    }
    quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in chosen.items()}
    lines = [f"{name} = '{value}'" for name, value in quoted.items()]
    return "\n".join(["# Written anew at each start by kameng_api.embedded; changes here are lost.", *lines, ""])


def _launch(ground: Ground, data: Path) -> None:
    """pg_ctl start, which gives the server its own session; tried again while an interrupted start still ends."""
    for attempt in range(3):
        with places.log_file(ground.var, "postgres") as log:
            processes.run(
                [ground.postgres_bin / "pg_ctl", "start", "-D", data, "-w", "-s", "-t", str(_START_S)],
                ground.account,
                output_fd=log,
                timeout_s=_START_S + 10,
            )
        if pid_of(ground.place) is not None and accepts(ground):
            return
        time.sleep(0.5 * (attempt + 1))
    raise EmbeddedError(f"PostgreSQL does not start:\n{places.log_tail(ground.var, 'postgres')}")


def _written_pid(data: Path) -> int | None:
    try:
        first = (data / "postmaster.pid").read_text().split("\n", 1)[0].strip()
    except OSError:
        return None
    return abs(int(first)) if first.lstrip("-").isdigit() else None


def _folder_named_in(command: str) -> str | None:
    """The data folder in the command line of a postmaster; None when it is another program's."""
    arguments = command.replace(" -D ", "\0-D\0").split("\0")
    if Path(arguments[0]).name != "postgres" or "-D" not in arguments[:-1] or "--single" in arguments:
        return None
    return arguments[arguments.index("-D") + 1]


def _clear_stale_lock(data: Path) -> None:
    """Removes a postmaster.pid whose process id now belongs to something else, as after a container's restart.

    PostgreSQL itself clears the file of a dead process, but takes any living one of the same user for its own.
    Should the data be in use after all, its shared memory key, made from the folder's inode, still refuses a
    second server.
    """
    pid = _written_pid(data)
    if pid is None:
        return
    other = _folder_named_in(processes.command_of(pid))
    if other is not None and not Path(other).is_dir():
        raise EmbeddedError(f"process {pid} is a PostgreSQL whose data folder {other} was moved; stop it first")
    (data / "postmaster.pid").unlink(missing_ok=True)


def _clear_stale_socket(ground: Ground) -> None:
    """Removes the socket and its lock when nothing of this server is left: a killed one that nobody has reaped yet still looks alive to
    PostgreSQL, which asks only whether the process id exists. The folder is ours alone.
    """
    for name in (f".s.PGSQL.{_PORT}", f".s.PGSQL.{_PORT}.lock"):
        (ground.sockets / name).unlink(missing_ok=True)


def _end_leftovers(data: Path) -> None:
    """Waits for what is left of a killed server, then ends it: its children hold the shared memory a new one needs.

    A whole server may be left as well, where somebody deleted the data folder under it.
    """
    title = f"postgres: {places.title(data)}: "

    def leftovers() -> list[int]:
        return [
            pid
            for pid, command in processes.all_commands().items()
            if command.startswith(title) or _folder_named_in(command) == str(data)
        ]

    if processes.wait_until(lambda: not leftovers(), 2.0):
        return
    for number in (signal.SIGQUIT, signal.SIGKILL):
        processes.signal_all(leftovers(), number)
        if processes.wait_until(lambda: not leftovers(), 3.0):
            return
    raise EmbeddedError(f"processes of a killed PostgreSQL do not end: {leftovers()}")
