"""Papers, contacts and notes, read; and how fast wallets burn."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.ledger.forecast import Rates
from kameng_api.suppliers.desk.rules import Contact, Document, Person

_DOCUMENT: Final = (
    "document_id, channel_id, kind, number, issuer, valid_from, valid_until, remind_days, required, url, note, file_name, file_type, file_size, "
    "file_hash, created_by, created_at, withdrawn_by, withdrawn_at"
)


async def list_documents(tx: Tx, channel_id: str | None = None, *, withdrawn: bool = False) -> list[Document]:
    """Without their files; those that end first come first. `withdrawn`: those too that count no more."""
    rows = await fetch(
        tx,
        f"""SELECT {_DOCUMENT} FROM supplier_documents WHERE ($1::text IS NULL OR channel_id = $1) AND ($2 OR withdrawn_at IS NULL)
        ORDER BY channel_id, valid_until NULLS LAST, document_id""",
        channel_id, withdrawn,
    )  # fmt: skip
    return [Document(**row) for row in rows]


async def get_document(tx: Tx, channel_id: str, document_id: UUID) -> Document:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_DOCUMENT} FROM supplier_documents WHERE channel_id = $1 AND document_id = $2", channel_id, document_id)
    if not rows:
        raise NotFound("no such document")
    return Document(**rows[0])


def file_binding(document_id: UUID) -> bytes:
    """Associated data of a sealed file."""
    return b"supplier_documents:" + document_id.bytes


async def open_file(tx: Tx, keyring: Keyring, document: Document) -> bytes:
    """The bytes that were uploaded. Raises NotFound, CryptoError."""
    [row] = await fetch(tx, "SELECT file_sealed FROM supplier_documents WHERE document_id = $1", document.document_id)
    if row["file_sealed"] is None:
        raise NotFound("this document has no file")
    return keyring.open(row["file_sealed"], file_binding(document.document_id))


# ---- contacts and notes ----------------------------------------------------------------------------------------------


def contact_binding(contact_id: UUID) -> bytes:
    """Associated data of a sealed person."""
    return b"supplier_contacts:" + contact_id.bytes


async def list_contacts(tx: Tx, channel_id: str, keyring: Keyring | None) -> list[Contact]:
    """By role. Without a keyring nobody is named: that somebody is there, for what and when."""
    rows = await fetch(
        tx,
        """SELECT contact_id, channel_id, role, hours, person_sealed, updated_by, updated_at FROM supplier_contacts
        WHERE channel_id = $1 ORDER BY role, contact_id""",
        channel_id,
    )
    return [_contact(row, keyring) for row in rows]


async def get_contact(tx: Tx, channel_id: str, contact_id: UUID, keyring: Keyring | None = None) -> Contact:
    """Raises NotFound."""
    rows = await fetch(
        tx,
        """SELECT contact_id, channel_id, role, hours, person_sealed, updated_by, updated_at FROM supplier_contacts
        WHERE channel_id = $1 AND contact_id = $2""",
        channel_id, contact_id,
    )  # fmt: skip
    if not rows:
        raise NotFound("no such contact")
    return _contact(rows[0], keyring)


def _contact(row: asyncpg.Record, keyring: Keyring | None) -> Contact:
    person = None
    if keyring is not None:
        person = Person(**orjson.loads(keyring.open(row["person_sealed"], contact_binding(row["contact_id"]))))
    return Contact(row["contact_id"], row["channel_id"], row["role"], row["hours"], person, row["updated_by"], row["updated_at"])


async def list_notes(tx: Tx, channel_id: str, *, before: UUID | None, limit: int) -> list[asyncpg.Record]:
    """Newest first."""
    return await fetch(
        tx,
        """SELECT note_id, text, author, at FROM supplier_notes WHERE channel_id = $1 AND ($2::uuid IS NULL OR note_id < $2)
        ORDER BY note_id DESC LIMIT $3""",
        channel_id, before, limit,
    )  # fmt: skip


# ---- wallets ---------------------------------------------------------------------------------------------------------

# The hour that has begun counts as far as it has come, and of the one before as much as is missing. A channel that is younger than a week is
# not taken for one that rested before.
_RATES: Final = """
SELECT k.channel_id,
  coalesce(sum(b.charged * CASE WHEN b.hour >= h.this THEN 1 ELSE 1 - h.gone END) FILTER (WHERE b.hour >= h.this - interval '1 hour'), 0)::bigint
    AS last_hour,
  (coalesce(sum(b.charged) FILTER (WHERE b.hour > now() - interval '24 hours'), 0) / greatest(1, least(24, max(h.age)))) ::bigint AS last_day,
  (coalesce(sum(b.charged), 0) / greatest(1, least(168, max(h.age))))::bigint AS last_week
FROM unnest($1::text[]) AS k (channel_id)
CROSS JOIN LATERAL (
  SELECT date_trunc('hour', now(), 'UTC') AS this, extract(epoch FROM now() - date_trunc('hour', now(), 'UTC')) / 3600 AS gone,
    extract(epoch FROM now() - (SELECT min(f.hour) FROM wallet_burns f WHERE f.channel_id = k.channel_id)) / 3600 AS age
) AS h
LEFT JOIN wallet_burns b ON b.channel_id = k.channel_id AND b.hour > now() - interval '168 hours'
GROUP BY 1
"""


async def wallet_rates(tx: Tx, channel_ids: Sequence[str]) -> dict[str, Rates]:
    """channel → what its wallet is charged in an hour, from real purchases; 1/10000 units."""
    rows = await fetch(tx, _RATES, list(channel_ids))
    return {r["channel_id"]: Rates(r["last_hour"], r["last_day"], r["last_week"]) for r in rows}


async def list_burns(tx: Tx, channel_id: str, since: datetime, until: datetime) -> list[asyncpg.Record]:
    """Charges by hour, oldest first; hours without any are left out."""
    return await fetch(
        tx,
        "SELECT hour, charged, attempts FROM wallet_burns WHERE channel_id = $1 AND hour >= $2 AND hour < $3 ORDER BY hour",
        channel_id, since, until,
    )  # fmt: skip
