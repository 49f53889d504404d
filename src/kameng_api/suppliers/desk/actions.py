"""Keep papers, contacts and notes of a channel, and count what its wallet was charged."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as channels
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound, StateConflict
from kameng_api.kit.ids import new_ulid
from kameng_api.suppliers.desk import queries, rules
from kameng_api.suppliers.desk.rules import Contact, Document, Person

_BURNS_KEPT_DAYS: Final = 40
_COUNTED_AGAIN_H: Final = 3
"""Purchases of these hours may still be refused, or cost something else: they are counted anew each time."""
_FIRST_DAYS: Final = 7


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Invalid("this cannot be kept", errors=errors)


async def add_document(tx: Tx, wanted: Document) -> Document:
    """Keep a document; its id and times are made here. Raises ChannelUnknown, Invalid."""
    _refuse(rules.check_document(wanted))
    await channels.get_channel(tx, wanted.channel_id)
    document_id = new_ulid()
    await execute(
        tx,
        """INSERT INTO supplier_documents (document_id, channel_id, kind, number, issuer, valid_from, valid_until, remind_days, required, url, note,
        created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)""",
        document_id, wanted.channel_id, wanted.kind, wanted.number, wanted.issuer, wanted.valid_from, wanted.valid_until, wanted.remind_days,
        wanted.required, wanted.url, wanted.note, wanted.created_by,
    )  # fmt: skip
    await _weigh(tx, wanted.channel_id)
    return await queries.get_document(tx, wanted.channel_id, document_id)


async def change_document(tx: Tx, wanted: Document) -> Document:
    """Say it anew; the file stays. Raises NotFound, Invalid, StateConflict when it was withdrawn."""
    _refuse(rules.check_document(wanted))
    changed = await execute(
        tx,
        """UPDATE supplier_documents SET kind = $3, number = $4, issuer = $5, valid_from = $6, valid_until = $7, remind_days = $8, required = $9,
        url = $10, note = $11 WHERE channel_id = $1 AND document_id = $2 AND withdrawn_at IS NULL""",
        wanted.channel_id, wanted.document_id, wanted.kind, wanted.number, wanted.issuer, wanted.valid_from, wanted.valid_until,
        wanted.remind_days, wanted.required, wanted.url, wanted.note,
    )  # fmt: skip
    if not changed:
        await queries.get_document(tx, wanted.channel_id, wanted.document_id)
        raise StateConflict("this document was withdrawn")
    await _weigh(tx, wanted.channel_id)
    return await queries.get_document(tx, wanted.channel_id, wanted.document_id)


async def store_file(
    tx: Tx, keyring: Keyring, channel_id: str, document_id: UUID, content: bytes, name: str, file_type: str
) -> tuple[Document, bool]:
    """Seal a document's file; False when these very bytes were there. One file for ever: another one is another document.

    Raises NotFound, Invalid, StateConflict.
    """
    _refuse(rules.check_file(content, file_type))
    if not (name.isprintable() and 0 < len(name) <= 200):
        _refuse([FieldError("/query/name", "format", "1–200 printable characters")])
    sha256 = hashlib.sha256(content).digest()
    document = await queries.get_document(tx, channel_id, document_id)
    if document.file_hash is not None and document.file_hash != sha256:
        raise StateConflict("this document has a file; another file is another document")
    if document.file_hash is not None:
        return document, False
    sealed = keyring.seal(content, queries.file_binding(document_id))
    written = await execute(
        tx,
        """UPDATE supplier_documents SET file_name = $2, file_type = $3, file_size = $4, file_hash = $5, file_sealed = $6
        WHERE document_id = $1 AND file_hash IS NULL AND withdrawn_at IS NULL""",
        document_id, name, file_type, len(content), sha256, sealed,
    )  # fmt: skip
    if not written:
        raise StateConflict("this document was withdrawn, or has got another file")
    return await queries.get_document(tx, channel_id, document_id), True


async def withdraw_document(tx: Tx, channel_id: str, document_id: UUID, by: str) -> Document:
    """It counts no more and stays to be read. Twice is once. Raises NotFound."""
    await execute(
        tx,
        "UPDATE supplier_documents SET withdrawn_at = now(), withdrawn_by = $3 WHERE channel_id = $1 AND document_id = $2 AND withdrawn_at IS NULL",
        channel_id, document_id, by,
    )  # fmt: skip
    document = await queries.get_document(tx, channel_id, document_id)
    await _weigh(tx, channel_id)
    return document


async def _weigh(tx: Tx, channel_id: str) -> None:
    """The channel knows when the first document ends without which it takes no orders."""
    await catalog.set_no_orders_after(tx, channel_id, rules.no_orders_after(await queries.list_documents(tx, channel_id)))


# ---- contacts and notes ----------------------------------------------------------------------------------------------


async def put_contact(
    tx: Tx, keyring: Keyring, channel_id: str, contact_id: UUID | None, *, role: str, hours: str, person: Person, by: str
) -> Contact:
    """Keep a contact, or say an old one anew. Raises ChannelUnknown, NotFound, Invalid."""
    _refuse(rules.check_contact(role, hours, person))
    await channels.get_channel(tx, channel_id)
    wanted = contact_id or new_ulid()
    sealed = keyring.seal(person.plain(), queries.contact_binding(wanted))
    if contact_id is None:
        await execute(
            tx,
            "INSERT INTO supplier_contacts (contact_id, channel_id, role, hours, person_sealed, updated_by) VALUES ($1, $2, $3, $4, $5, $6)",
            wanted, channel_id, role, hours, sealed, by,
        )  # fmt: skip
    elif not await execute(
        tx,
        """UPDATE supplier_contacts SET role = $3, hours = $4, person_sealed = $5, updated_by = $6, updated_at = now()
        WHERE channel_id = $1 AND contact_id = $2""",
        channel_id, wanted, role, hours, sealed, by,
    ):  # fmt: skip
        raise NotFound("no such contact")
    return await queries.get_contact(tx, channel_id, wanted, keyring)


async def remove_contact(tx: Tx, channel_id: str, contact_id: UUID) -> Contact:
    """Personal data that is not needed is not kept. Raises NotFound."""
    contact = await queries.get_contact(tx, channel_id, contact_id)
    await execute(tx, "DELETE FROM supplier_contacts WHERE channel_id = $1 AND contact_id = $2", channel_id, contact_id)
    return contact


async def add_note(tx: Tx, channel_id: str, text: str, author: str) -> asyncpg.Record:
    """Write something down. Raises ChannelUnknown, Invalid."""
    if not 0 < len(text.strip()) <= 2000:
        _refuse([FieldError("/text", "too_long", "1 to 2000 characters")])
    await channels.get_channel(tx, channel_id)
    [row] = await fetch(
        tx,
        "INSERT INTO supplier_notes (note_id, channel_id, text, author) VALUES ($1, $2, $3, $4) RETURNING note_id, text, author, at",
        new_ulid(), channel_id, text, author,
    )  # fmt: skip
    return row


# ---- wallets ---------------------------------------------------------------------------------------------------------

_COUNT: Final = """
INSERT INTO wallet_burns (channel_id, hour, charged, attempts)
SELECT k.channel_id, date_trunc('hour', a.sent_at, 'UTC'),
  sum(CASE WHEN a.state = 'delivered' THEN greatest(coalesce(a.actual_cost, a.cost) - a.reversed_amount, 0) ELSE a.cost END), count(*)
FROM unnest($1::text[], $2::timestamptz[]) AS k (channel_id, since)
JOIN attempts a ON a.channel_id = k.channel_id AND a.sent_at >= k.since AND a.state NOT IN ('refused', 'not_sent')
GROUP BY 1, 2
"""


async def count_burns(tx: Tx, now: datetime) -> int:
    """Count the charges of the last hours anew; a channel that was never counted, of its last week. Returns rows written."""
    rows = await fetch(
        tx,
        """SELECT c.channel_id, date_trunc('hour', $1::timestamptz, 'UTC') - CASE WHEN EXISTS (SELECT FROM wallet_burns b
          WHERE b.channel_id = c.channel_id) THEN make_interval(hours => $2) ELSE make_interval(days => $3) END AS since FROM channels c""",
        now, _COUNTED_AGAIN_H, _FIRST_DAYS,
    )  # fmt: skip
    channel_ids, since = [r["channel_id"] for r in rows], [r["since"] for r in rows]
    await execute(
        tx,
        "DELETE FROM wallet_burns b USING unnest($1::text[], $2::timestamptz[]) AS k (channel_id, since) "
        "WHERE b.channel_id = k.channel_id AND b.hour >= k.since",
        channel_ids, since,
    )  # fmt: skip
    await execute(tx, "DELETE FROM wallet_burns WHERE hour < $1::timestamptz - make_interval(days => $2)", now, _BURNS_KEPT_DAYS)
    return await execute(tx, _COUNT, channel_ids, since)
