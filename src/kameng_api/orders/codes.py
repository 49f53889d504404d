"""Card codes (卡密) between supplier and merchant: sealed at rest, one sold once, out only as an envelope."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

import orjson

from kameng_api.kit.crypto import Keyring
from kameng_api.suppliers.port import Code


@dataclass(frozen=True, slots=True)
class CodeToStore:
    """A code that a supplier delivered for unit `unit_no` (from 1) of an order."""

    book_id: int
    order_id: UUID
    environment: str
    unit_no: int
    code: Code = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedCode:
    book_id: int
    order_id: UUID
    environment: str
    unit_no: int
    sealed: bytes = field(repr=False)
    fingerprint: bytes = field(repr=False)


def _row_bound(book_id: int, order_id: UUID, unit_no: int) -> bytes:
    return b"codes:%d:%s:%d" % (book_id, order_id.bytes, unit_no)


def sealed_rows(keyring: Keyring, codes: Sequence[CodeToStore]) -> list[SealedCode]:
    """Seal each code to its row, so that a ciphertext moved elsewhere does not open."""
    rows = []
    for c in codes:
        plain = orjson.dumps(_plain(c.code))
        sealed = keyring.seal(plain, _row_bound(c.book_id, c.order_id, c.unit_no))
        # Test codes and live codes never meet, not even as duplicates of each other.
        mark = keyring.fingerprint(f"{c.environment}\n{c.code.code}\n{c.code.pin or ''}".encode(), "card-code")
        rows.append(SealedCode(c.book_id, c.order_id, c.environment, c.unit_no, sealed, mark))
    return rows


def duplicates(rows: Sequence[SealedCode]) -> tuple[int, UUID] | None:
    """The order of a row whose code stands twice in this batch, if any."""
    seen: set[bytes] = set()
    for r in rows:
        if r.fingerprint in seen:
            return r.book_id, r.order_id
        seen.add(r.fingerprint)
    return None


def opened(keyring: Keyring, book_id: int, order_id: UUID, sealed: Sequence[tuple[int, bytes]]) -> bytes:
    """The codes as the JSON list that goes into the merchant's envelope."""
    return orjson.dumps([orjson.loads(keyring.open(s, _row_bound(book_id, order_id, n))) for n, s in sealed])


def _plain(code: Code) -> dict[str, Any]:
    plain: dict[str, Any] = {"code": code.code}
    if code.pin is not None:
        plain["pin"] = code.pin
    if code.expires_on is not None:
        plain["expires_on"] = date.isoformat(code.expires_on)
    return plain
