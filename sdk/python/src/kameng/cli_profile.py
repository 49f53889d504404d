"""Where `kameng-merchant` keeps a key between two commands: one file that only its owner can read."""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kameng._sync.client import Client

FILE_VARIABLE: Final = "KAMENG_MERCHANT_CONFIG"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class ProfileTrouble(Exception):
    """The file cannot be used; the text says what to do and holds no secret."""


@dataclass(frozen=True)
class Profile:
    """One key of one house. `secret` (HMAC) or `private_key` (base64 of 32 bytes); `listen_secret` is this machine's own, for `listen`."""

    base_url: str
    key_id: str
    secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    listen_secret: str | None = field(default=None, repr=False)

    def client(self, **options: Any) -> Client:
        """Raises ValueError for a malformed key."""
        return Client(self.base_url, self.key_id, self.secret, private_key=self.private_key, **options)


def place(environ: Mapping[str, str] | None = None) -> Path:
    """The file: KAMENG_MERCHANT_CONFIG, else kameng/merchant.json below XDG_CONFIG_HOME or ~/.config."""
    found = os.environ if environ is None else environ
    if found.get(FILE_VARIABLE):
        return Path(found[FILE_VARIABLE])
    return Path(found.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kameng" / "merchant.json"


def check_url(url: str) -> str:
    """The address without the slash at its end. Raises ProfileTrouble for anything but https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ProfileTrouble("http is for this machine only; use https")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ProfileTrouble("the address must look like https://hub.example")
    return url.rstrip("/")


def load(name: str) -> Profile:
    """Raises ProfileTrouble when there is none, or when others could read the file."""
    known = _read(place())
    if name not in known:
        raise ProfileTrouble(f"there is no profile {name!r}: run `kameng-merchant login` first, or set KAMENG_KEY_ID and its like")
    try:
        return Profile(**known[name])
    except TypeError:
        raise ProfileTrouble(f"{place()}: the profile {name!r} was written by another version; log in again") from None


def store(name: str, profile: Profile) -> None:
    """Written whole or not at all, readable by its owner only. Raises ProfileTrouble."""
    known = _read(place())
    _write(place(), {**known, name: {key: value for key, value in asdict(profile).items() if value is not None}})


def forget(name: str) -> bool:
    """Whether there was one. Raises ProfileTrouble."""
    known = _read(place())
    if name not in known:
        return False
    del known[name]
    _write(place(), known)
    return True


def read_private(path: Path) -> Any:
    """JSON from a file that only its owner can read; None when there is none. Raises ProfileTrouble."""
    try:
        with path.open(encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
                raise ProfileTrouble(f"others can read {path}: chmod 600 it, and revoke the key if they should not have")
            return json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as trouble:
        raise ProfileTrouble(f"{path} cannot be read ({type(trouble).__name__})") from None


def write_private(path: Path, content: Any) -> None:
    """The same, written whole or not at all. Raises ProfileTrouble."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".merchant-")  # made 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as trouble:
        raise ProfileTrouble(f"{path} cannot be written ({trouble.strerror})") from None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    content = read_private(path)
    known = {} if content is None else content.get("profiles") if isinstance(content, dict) else None
    if not isinstance(known, dict):
        raise ProfileTrouble(f"{path} is not a file of ours")
    return known


def _write(path: Path, known: Mapping[str, Any]) -> None:
    write_private(path, {"profiles": known})
