"""Who a caller is and what a key may do, decided from values. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_network
from typing import Final
from uuid import UUID

from kameng_api.kit.client_address import Address, Network, is_inside
from kameng_api.kit.errors import FieldError
from kameng_api.kit.zones import is_zone

ENVIRONMENTS: Final = ("live", "test")
SCOPES: Final = (
    "orders:write",
    "orders:read",
    "codes:read",
    "balance:read",
    "catalog:read",
    "webhooks:write",
    "targets:read",
)
"""`targets:read` shows full numbers and accounts where answers are otherwise masked."""
DEFAULT_SCOPES: Final = tuple(scope for scope in SCOPES if scope != "targets:read")
ALGORITHMS: Final = ("hmac", "ed25519")
MAX_ACTIVE_KEYS: Final = 20
"""Per merchant and environment."""
MAX_RATE_PER_S: Final = 100_000

_KEY_ID: Final = re.compile(r"ak_(?:live|test)_[0-7][0-9A-HJKMNP-TV-Z]{25}")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_LEVEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_MAX_CIDRS: Final = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent this request, proven by its signature."""

    key_id: str
    merchant_id: UUID
    merchant_name: str
    book_id: int
    environment: str
    level: str
    currency: str
    scopes: frozenset[str]
    address: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Key:
    """An API key with its merchant, ready to verify with. Rates are requests per second, None for the default."""

    key_id: str
    merchant_id: UUID
    merchant_name: str
    merchant_active: bool
    book_id: int
    environment: str
    level: str
    currency: str
    algorithm: str
    secret: bytes | None = field(repr=False)
    public_key: bytes | None
    scopes: frozenset[str]
    networks: tuple[Network, ...]
    not_before: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    reads_per_s: int | None
    writes_per_s: int | None

    def why_unusable(self, now: datetime) -> str | None:
        """A sentence when the key is not valid at `now`, else None."""
        if self.revoked_at is not None:
            return "the key was revoked"
        if self.not_before is not None and now < self.not_before:
            return "the key is not valid yet"
        if self.expires_at is not None and now >= self.expires_at:
            return "the key has expired"
        return None

    def allows(self, address: Address) -> bool:
        """Whether the caller's address is in the allowlist; without a list every address is."""
        return not self.networks or is_inside(address, self.networks)


def is_key_id(text: str) -> bool:
    """Whether we could have given out this key id."""
    return _KEY_ID.fullmatch(text) is not None


def parse_networks(cidrs: Sequence[str]) -> tuple[Network, ...]:
    """Networks of an allowlist as stored."""
    return tuple(ip_network(cidr) for cidr in cidrs)


def check_merchant(name: str, level: str, currency: str, timezone: str) -> list[FieldError]:
    """What is wrong with a merchant to be."""
    checks = (
        (_NAME.fullmatch(name) and name.strip() == name, "/name", "format", "1–100 characters, no spaces at the ends"),
        (_LEVEL.fullmatch(level), "/level", "format", "lower-case letters, digits, _ and -, at most 32"),
        (_CURRENCY.fullmatch(currency), "/currency", "format", "three capital letters"),
        (is_zone(timezone), "/timezone", "unknown_value", "a zone name such as Asia/Shanghai"),
    )
    return [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]


def check_key(
    environment: str,
    scopes: Sequence[str],
    cidrs: Sequence[str],
    label: str,
    not_before: datetime | None,
    expires_at: datetime | None,
    rates: Sequence[int | None],
) -> list[FieldError]:
    """What is wrong with a key to be."""
    errors = [
        FieldError(f"/scopes/{n}", "unknown_value", " | ".join(SCOPES)) for n, scope in enumerate(scopes) if scope not in SCOPES
    ]
    errors += [
        FieldError(f"/cidrs/{n}", "format", "a network such as 203.0.113.0/24, without host bits")
        for n, cidr in enumerate(cidrs)
        if not _is_network(cidr)
    ]
    checks = (
        (environment in ENVIRONMENTS, "/environment", "unknown_value", " | ".join(ENVIRONMENTS)),
        (bool(scopes), "/scopes", "required", "at least one"),
        (len(cidrs) <= _MAX_CIDRS, "/cidrs", "too_long", f"at most {_MAX_CIDRS}"),
        (len(label) <= 100 and (label.isprintable() or not label), "/label", "format", "at most 100 printable characters"),
        (
            not_before is None or expires_at is None or not_before < expires_at,
            "/expires_at",
            "out_of_range",
            "after not_before",
        ),
        (all(r is None or 1 <= r <= MAX_RATE_PER_S for r in rates), "/writes_per_s", "out_of_range", "1 to 100000"),
    )
    return errors + [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]


def _is_network(cidr: str) -> bool:
    try:
        ip_network(cidr)
    except ValueError:
        return False
    return True
