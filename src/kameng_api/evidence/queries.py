"""What stands in the chain, and the rows that leaves are made of."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from kameng_api.evidence.rules import Header, microseconds
from kameng_api.evidence.verify import Anchor
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.ids import ulid_text

RANGE: Final = 0
"""One server holds one range of books; its chain has the range's number."""

_HEADER = "book_range, no, epoch, prev, root, count, total, from_xid, upto_xid, at, hash, key_id, signature"

# The leaves' own order, whatever collation the database has.
_COLUMNS = (
    "t.book_id, t.event_key, t.line, t.kind, t.debit_account, t.credit_account, t.currency, t.amount, t.debit_balance_after, "
    "t.debit_version, t.credit_balance_after, t.credit_version, t.order_id, t.note, t.xid, t.created_at"
)
_TRANSFERS = f"""
SELECT {_COLUMNS} FROM transfers t WHERE xid >= $1 AND xid < $2 ORDER BY xid, book_id, event_key COLLATE "C", line
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A sealed block: its header, what was made of it, and its signature."""

    header: Header
    hash: bytes
    key_id: str
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the books as sealed: its rows, and the stored bytes of its facts, if it has any."""

    rows: Sequence[Any]
    facts: bytes | None

    @property
    def key(self) -> tuple[int, str]:
        return self.rows[0]["book_id"], self.rows[0]["event_key"]


def block_from(r: Any) -> Block:
    header = Header(
        r["book_range"], r["no"], r["epoch"], r["prev"], r["root"], r["count"], r["total"], r["from_xid"], r["upto_xid"], microseconds(r["at"])
    )
    return Block(header, r["hash"], r["key_id"], r["signature"])


async def find_head(tx: Tx, chain: int = RANGE) -> Block | None:
    """The newest block."""
    rows = await fetch(tx, f"SELECT {_HEADER} FROM chain_blocks WHERE book_range = $1 ORDER BY no DESC LIMIT 1", chain)
    return block_from(rows[0]) if rows else None


async def find_block(tx: Tx, no: int, chain: int = RANGE) -> Block | None:
    rows = await fetch(tx, f"SELECT {_HEADER} FROM chain_blocks WHERE book_range = $1 AND no = $2", chain, no)
    return block_from(rows[0]) if rows else None


async def list_blocks(tx: Tx, first: int, limit: int, chain: int = RANGE) -> list[Block]:
    """Blocks from number `first` on, in order."""
    rows = await fetch(tx, f"SELECT {_HEADER} FROM chain_blocks WHERE book_range = $1 AND no >= $2 ORDER BY no LIMIT $3", chain, first, limit)
    return [block_from(r) for r in rows]


async def blocks_of_xids(tx: Tx, xids: Sequence[int], chain: int = RANGE) -> dict[int, Block]:
    """xid → the block whose range holds it, for those that are sealed."""
    rows = await fetch(
        tx,
        f"""SELECT k.xid AS wanted, b.* FROM unnest($2::bigint[]) AS k (xid), LATERAL (
          SELECT {_HEADER} FROM chain_blocks WHERE book_range = $1 AND upto_xid > k.xid ORDER BY upto_xid LIMIT 1) AS b
        WHERE b.from_xid <= k.xid""",
        chain, sorted(set(xids)),
    )  # fmt: skip
    return {r["wanted"]: block_from(r) for r in rows}


async def leaves_of(tx: Tx, no: int, chain: int = RANGE) -> list[bytes]:
    """The stored hashes of a block's leaves, in order."""
    rows = await fetch(tx, "SELECT leaves FROM chain_blocks WHERE book_range = $1 AND no = $2", chain, no)
    packed: bytes = rows[0]["leaves"] if rows else b""
    return [packed[i : i + 32] for i in range(0, len(packed), 32)]


async def transfers_between(tx: Tx, from_xid: int, upto_xid: int) -> list[list[Any]]:
    """The events of a range of transactions, each as its rows, in the order of leaves."""
    rows = await fetch(tx, _TRANSFERS, from_xid, upto_xid)
    return [list(of_event) for _, of_event in groupby(rows, lambda r: (r["xid"], r["book_id"], r["event_key"]))]


async def stored_facts(tx: Tx, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], bytes]:
    """(book, event key) → the bytes of the facts that its leaf was made with."""
    rows = await fetch(
        tx,
        """SELECT f.book_id, f.event_key, f.facts FROM unnest($1::bigint[], $2::text[]) AS k (book_id, event_key)
        JOIN chain_facts f ON f.book_id = k.book_id AND f.event_key = k.event_key""",
        [k[0] for k in keys], [k[1] for k in keys],
    )  # fmt: skip
    return {(r["book_id"], r["event_key"]): r["facts"] for r in rows}


async def events_of_block(tx: Tx, block: Block) -> list[Event]:
    """What the leaves of a block are made of today, in order."""
    events = await transfers_between(tx, block.header.from_xid, block.header.upto_xid)
    facts = await stored_facts(tx, [(e[0]["book_id"], e[0]["event_key"]) for e in events if has_facts(e[0]["event_key"])])
    return [Event(e, facts.get((e[0]["book_id"], e[0]["event_key"]))) for e in events]


def has_facts(event_key: str) -> bool:
    """The end of an attempt and of an order are sealed with what is known of the delivery."""
    return event_key.endswith(":settle") or (event_key.endswith(":final") and event_key.startswith("order:"))


_OF_ORDER = f"""
SELECT t.* FROM (SELECT DISTINCT head FROM unnest($2::text[]) AS p (head)) AS p, LATERAL (
  SELECT {_COLUMNS} FROM transfers t WHERE t.book_id = $1 AND t.event_key >= p.head AND t.event_key < p.head || chr(1114109)
    AND starts_with(t.event_key, p.head) AND t.order_id = $4) AS t
UNION ALL SELECT {_COLUMNS} FROM transfers t WHERE t.book_id = $1 AND t.event_key = ANY ($3::text[]) AND t.order_id = $4
"""


async def transfers_of_order(tx: Tx, book_id: int, order_id: UUID, attempts: Sequence[UUID], refund_nos: Sequence[str]) -> list[list[Any]]:
    """The events of one order, each as its rows: found by their keys, which begin with what the order has."""
    below = [f"order:{ulid_text(order_id)}:", *(f"attempt:{ulid_text(a)}:" for a in attempts)]
    rows = await fetch(tx, _OF_ORDER, book_id, below, [f"refund:{n}" for n in refund_nos], order_id)
    ordered = sorted(rows, key=lambda r: (r["xid"], r["event_key"].encode(), r["line"]))
    return [list(of_event) for _, of_event in groupby(ordered, lambda r: (r["xid"], r["event_key"]))]


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the chain is behind. Seconds; 0 where nothing waits."""

    seal_s: float
    anchor_s: float
    head: int
    total: int


_LAG = """
SELECT coalesce((SELECT extract(epoch FROM now() - min(created_at)) FROM (SELECT created_at FROM transfers
    WHERE xid >= coalesce((SELECT upto_xid FROM chain_state WHERE book_range = $1), 0) LIMIT 100000) AS t), 0)::float8 AS seal,
  coalesce((SELECT max(extract(epoch FROM now() - b.at)) FROM unnest($2::text[]) AS k (target), LATERAL (
    SELECT at FROM chain_blocks WHERE book_range = $1
      AND no > coalesce((SELECT max(no) FROM chain_anchors a WHERE a.book_range = $1 AND a.target = k.target), 0)
    ORDER BY no LIMIT 1) AS b), 0)::float8 AS anchor,
  coalesce((SELECT max(no) FROM chain_blocks WHERE book_range = $1), 0) AS head,
  coalesce((SELECT total FROM chain_blocks WHERE book_range = $1 ORDER BY no DESC LIMIT 1), 0) AS total
"""


async def lag_of(tx: Tx, targets: Sequence[str], chain: int = RANGE) -> Lag:
    """`targets`: names of the anchors that are set up."""
    [r] = await fetch(tx, _LAG, chain, list(targets))
    return Lag(r["seal"], r["anchor"], r["head"], r["total"])


async def last_anchor(tx: Tx, target: str, chain: int = RANGE) -> Anchor | None:
    """The last head that a target took, as far as we know."""
    rows = await fetch(
        tx,
        """SELECT b.book_range, b.no, b.epoch, b.total, b.hash FROM chain_blocks b WHERE b.book_range = $1
        AND b.no = (SELECT max(no) FROM chain_anchors WHERE book_range = $1 AND target = $2)""",
        chain, target,
    )  # fmt: skip
    return Anchor(*rows[0]) if rows else None


async def public_keys(tx: Tx) -> dict[str, bytes]:
    """Key id → 32 bytes, of every key that ever signed a head."""
    return {r["key_id"]: r["public_key"] for r in await fetch(tx, "SELECT key_id, public_key FROM chain_keys ORDER BY key_id")}


async def each_block(tx: Tx, first: int, last: int) -> AsyncIterator[tuple[Block, list[Event], list[bytes]]]:
    """Blocks `first` to `last` one after the other with what their leaves are made of today and the stored hashes."""
    no = first
    while no <= last:
        blocks = await list_blocks(tx, no, 1)
        if not blocks or blocks[0].header.no > last:
            return
        yield blocks[0], await events_of_block(tx, blocks[0]), await leaves_of(tx, blocks[0].header.no)
        no = blocks[0].header.no + 1


async def books_of(tx: Tx, merchant_id: UUID, environment: str) -> list[int]:
    """The merchant's book there, if it has one."""
    rows = await fetch(tx, "SELECT book_id FROM books WHERE merchant_id = $1 AND environment = $2", merchant_id, environment)
    return [r["book_id"] for r in rows]
