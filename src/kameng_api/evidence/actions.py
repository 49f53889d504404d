"""The sealer: takes what is certainly committed, in the order of transactions, and puts it into the next block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.evidence.errors import ChainBroken
from kameng_api.evidence.facts import Sealed, facts_of
from kameng_api.evidence.queries import RANGE, find_head, transfers_between
from kameng_api.evidence.rules import GENESIS, Header, canonical, event_form, leaf_hash, microseconds, root_of
from kameng_api.evidence.signer import Signer
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.turns import by_turns

# Held while a block is made. Not a row's lock: that would need a transaction id, and what has one holds the horizon back for everybody who
# tells merchants of what was committed, as long as a block is made. Everything below the horizon is over, and what of it was committed is seen
# by the statements that follow.
_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended('kameng:seal:' || $1::int, 0)) AS mine"
_WHERE = "SELECT upto_xid, epoch, xid_horizon() AS horizon, clock_timestamp() AS at FROM chain_state WHERE book_range = $1"
_OPEN = "INSERT INTO chain_state (book_range) VALUES ($1) ON CONFLICT DO NOTHING"
_SIZES = "SELECT xid, count(*) AS n FROM transfers WHERE xid >= $1 AND xid < $2 GROUP BY 1 ORDER BY 1"
_MARK = "UPDATE chain_state SET upto_xid = $4, checked_at = now() WHERE book_range = $1 AND epoch = $2 AND upto_xid = $3"
_BLOCK = """
INSERT INTO chain_blocks (book_range, no, epoch, prev, root, count, total, from_xid, upto_xid, at, hash, key_id, signature, leaves)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
_FACTS = """
INSERT INTO chain_facts (book_id, event_key, order_id, facts, salt)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::bytea[], $5::bytea[])
"""
_KEY = "INSERT INTO chain_keys (key_id, public_key) VALUES ($1, $2) ON CONFLICT DO NOTHING"

MOST_ROWS: Final = 5_000
"""Transfers that one block takes, all of them in memory at once; a single transaction larger than this still makes one block."""
_SPAN: Final = 4_096
_AT_ONCE: Final = 100
_WIDEST: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Round:
    """What one round sealed. `more`: there is more below the horizon. `leaves` 0: there was nothing, or somebody else is at it."""

    leaves: int = 0
    no: int | None = None
    more: bool = False


async def seal(tx: Tx, keyring: Keyring, signer: Signer, *, most_rows: int = MOST_ROWS) -> Round:
    """Seal at most one block of what is certainly committed. Raises ChainBroken.

    One transaction, which writes at its end: a process killed anywhere in it leaves nothing, and of two sealers one writes.
    """
    [turn] = await fetch(tx, _TURN, RANGE)
    if not turn["mine"]:
        return Round()
    marks = await fetch(tx, _WHERE, RANGE)
    if not marks:  # the first of all rounds
        await execute(tx, _OPEN, RANGE)
        marks = await fetch(tx, _WHERE, RANGE)
    [mark] = marks
    start, horizon = mark["upto_xid"], mark["horizon"]
    if horizon <= start:
        return Round()
    found, upto = await _range(tx, start, horizon, most_rows)
    if not found:
        await execute(tx, _MARK, RANGE, mark["epoch"], start, horizon)
        return Round()
    events = await transfers_between(tx, start, upto)
    facts = await facts_of(tx, keyring, events)
    leaves = [leaf_hash(leaf) async for part in by_turns(events, _AT_ONCE) for leaf in leaves_of_events(part, facts)]
    head = await find_head(tx)
    if head is not None and head.header.upto_xid > start:
        raise ChainBroken(f"block {head.header.no} is sealed up to {head.header.upto_xid}, the mark stands at {start}")
    header = Header(
        RANGE,
        1 if head is None else head.header.no + 1,
        mark["epoch"],
        GENESIS if head is None else head.hash,
        root_of(leaves),
        len(leaves),
        len(leaves) + (0 if head is None else head.header.total),
        start,
        upto,
        microseconds(mark["at"]),
    )
    if not await execute(tx, _MARK, RANGE, mark["epoch"], start, upto):
        return Round()  # a restore has put the chain elsewhere meanwhile
    await _write(tx, header, signer, leaves, list(facts.values()), mark["at"])
    return Round(len(leaves), header.no, upto < horizon)


async def _range(tx: Tx, start: int, horizon: int, most_rows: int) -> tuple[int, int]:
    """(rows, end) of the next range with rows in it, at most about `most_rows`; (0, horizon) when there are none.

    Looked for in spans that widen while they are empty: there is no order to read by but the transactions' own.
    """
    begin, span, taken = start, _SPAN, 0
    while begin < horizon:
        end = min(begin + span, horizon)
        for r in await fetch(tx, _SIZES, begin, end):
            if taken and taken + r["n"] > most_rows:
                return taken, r["xid"]
            taken += r["n"]
        if taken >= most_rows:
            return taken, end
        begin, span = end, min(span * 4, _WIDEST) if not taken else span
    return taken, horizon


def leaves_of_events(events: Sequence[Sequence[Any]], facts: Mapping[tuple[int, str], Sealed]) -> list[bytes]:
    """The canonical bytes of each event's leaf."""
    made = []
    for rows in events:
        known = facts.get((rows[0]["book_id"], rows[0]["event_key"]))
        made.append(canonical(event_form(rows, None if known is None else orjson.Fragment(known.spelt))))
    return made


def leaf_of_stored(rows: Sequence[Any], facts: bytes | None) -> bytes:
    """The leaf as it must have been: the rows of today with the facts kept when it was sealed."""
    return canonical(event_form(rows, None if facts is None else orjson.loads(facts)))


async def _write(tx: Tx, header: Header, signer: Signer, leaves: Sequence[bytes], facts: Sequence[Sealed], at: Any) -> None:
    digest = header.hash
    await execute(tx, _KEY, signer.key_id, signer.public_key)
    await execute(
        tx, _BLOCK, header.chain, header.no, header.epoch, header.prev, header.root, header.count, header.total, header.from_xid,
        header.upto_xid, at, digest, signer.key_id, signer.sign(digest), b"".join(leaves),
    )  # fmt: skip
    if facts:
        await execute(
            tx, _FACTS, [f.book_id for f in facts], [f.event_key for f in facts], [f.order_id for f in facts], [f.spelt for f in facts],
            [f.salt for f in facts],
        )  # fmt: skip


async def forget(tx: Tx, book_id: int, order_id: UUID) -> int:
    """Erase the salts of an order: from then on its leaves say nothing about target, receipt and codes, and every proof still holds."""
    return await execute(
        tx, "UPDATE chain_facts SET salt = NULL WHERE book_id = $1 AND order_id = $2 AND salt IS NOT NULL", book_id, order_id
    )


SILENCE: Final = timedelta(seconds=60)
"""A chain that lags longer than this alarms."""
