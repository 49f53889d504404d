"""What stands in a statement and how its manifest is written and signed. No I/O.

The manifest is what is signed: canonical JSON (keys sorted, no spaces, ASCII) with the day's figures and the SHA-256 of every file. Amounts are
integers in 1/10000 of the currency unit in here, decimal strings in files and manifest.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kameng_api.kit.clock import wire_time
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount

FORMATS: Final = ("csv", "xlsx", "json")
MEDIA_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "json": "application/json",
}
MANIFEST_TYPE: Final = "kameng.statement/1"
_SIGNED: Final = b"kameng-statement/1\n"
READY: Final = "statement.ready"
ID_PREFIX: Final = "stm"


class Disagrees(Exception):
    """The movements do not lead from the opening to the closing balance: nothing is made of them, and nothing signed."""


class NotGenuine(Exception):
    """A file, a manifest or a signature is not what it says; the message says which."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A day as it was cut: the movements with `from_version < version <= to_version`, for ever."""

    book_id: int
    merchant_id: UUID
    environment: str
    currency: str
    day: date
    timezone: str
    starts_at: datetime
    ends_at: datetime
    from_version: int
    to_version: int
    opening: int
    closing: int
    upto: date | None = None
    """The last day of several that are exported as one; a statement is of one day."""


@dataclass(frozen=True, slots=True)
class Line:
    """One movement of the spendable balance. `reference` is the ledger's own name of the event; the target is masked as stored."""

    version: int
    at: datetime
    kind: str
    amount: int
    balance_after: int
    transaction_id: str
    reference: str
    order_id: str
    merchant_order_no: str
    sku: str
    target: str


@dataclass(slots=True)
class Tally:
    """Checks a day's movements as they go by, and sums them by kind. Raises Disagrees."""

    cut: Cut
    version: int = field(init=False)
    balance: int = field(init=False)
    kinds: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.version, self.balance = self.cut.from_version, self.cut.opening

    def add(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.version += 1
            self.balance += line.amount
            if (line.version, line.balance_after) != (self.version, self.balance):
                raise Disagrees(f"movement {line.version} stands at {line.balance_after}, {self.balance} was to be expected")
            known = self.kinds.setdefault(line.kind, [0, 0])
            known[0] += 1
            known[1] += line.amount

    def close(self) -> None:
        """After the last movement."""
        if (self.version, self.balance) != (self.cut.to_version, self.cut.closing):
            raise Disagrees(f"the day ends at {self.balance} after {self.version}, {self.cut.closing} was to be expected")

    def subtotals(self) -> list[tuple[str, int, int]]:
        """(kind, how many, amount), by kind."""
        return [(kind, n, amount) for kind, (n, amount) in sorted(self.kinds.items())]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a statement as it was stored."""

    format: str
    size: int
    sha256: str


def head_of(cut: Cut) -> dict[str, Any]:
    """What a statement says of itself before its first movement."""
    return {
        "merchant_id": public_id("mer", cut.merchant_id),
        "environment": cut.environment,
        "date": cut.day.isoformat() if cut.upto is None else f"{cut.day}/{cut.upto}",
        "timezone": cut.timezone,
        "starts_at": wire_time(cut.starts_at),
        "ends_at": wire_time(cut.ends_at),
        "currency": cut.currency,
        "opening": format_amount(cut.opening),
    }


def foot_of(cut: Cut, tally: Tally) -> dict[str, Any]:
    """What it says after the last one."""
    return {
        "subtotals": [{"type": kind, "count": n, "amount": format_amount(amount)} for kind, n, amount in tally.subtotals()],
        "movements_count": cut.to_version - cut.from_version,
        "closing": format_amount(cut.closing),
    }


def manifest_of(cut: Cut, statement_id: UUID, tally: Tally, files: Sequence[File], key_id: str) -> bytes:
    """The bytes that are signed."""
    content = {
        "type": MANIFEST_TYPE,
        "id": public_id(ID_PREFIX, statement_id),
        **head_of(cut),
        **foot_of(cut, tally),
        "first_version": cut.from_version + 1,
        "last_version": cut.to_version,
        "files": {f.format: {"bytes": f.size, "sha256": f.sha256} for f in files},
        "key_id": key_id,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@dataclass(frozen=True, slots=True)
class Key:
    """A key of this house that may sign statements."""

    key_id: str
    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, manifest: bytes) -> bytes:
        return self.private.sign(_SIGNED + manifest)


def keys_of(configured: Sequence[str], fallback_seed: bytes) -> list[Key]:
    """The keys in use, the signing one first; last the one that is derived where nothing is configured.

    `configured` are `name:base64 of a 32-byte seed`. Raises ValueError.
    """
    keys = []
    for item in configured:
        name, _, text = item.partition(":")
        seed = base64.b64decode(text, validate=True)
        if len(seed) != 32 or not name.isascii() or not name.isalnum() or len(name) > 32:
            raise ValueError("a statement key is name:base64 of 32 bytes, the name alphanumeric")
        keys.append(Key(name, Ed25519PrivateKey.from_private_bytes(seed)))
    derived = Ed25519PrivateKey.from_private_bytes(fallback_seed)
    name = "d" + hashlib.sha256(derived.public_key().public_bytes_raw()).hexdigest()[:12]
    return [*keys, Key(name, derived)]


def check_signature(manifest: bytes, signature: bytes, public_key: bytes) -> Mapping[str, Any]:
    """The manifest's content, when the signature is this key's over these very bytes. Raises NotGenuine."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _SIGNED + manifest)
        content = json.loads(manifest)
    except (InvalidSignature, ValueError):
        raise NotGenuine("the signature is not this key's over this manifest") from None
    if not isinstance(content, dict) or content.get("type") != MANIFEST_TYPE:
        raise NotGenuine("this is not the manifest of a statement")
    return content


def check_file(content: Mapping[str, Any], sha256: str, size: int) -> str:
    """Which format of the statement a file with this hash is. Raises NotGenuine."""
    for name, known in content["files"].items():
        if (known["sha256"], known["bytes"]) == (sha256, size):
            return str(name)
    raise NotGenuine("the file is none of those that the manifest names: it was changed, or belongs to another day")
