"""What others want of a list: hints that lines have changed, an operator's clock and terms, his agreement; and what age takes away."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson

from kameng_api.catalog import queries as catalog_queries
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound, StateConflict
from kameng_api.suppliers.listings import actions, queries, rules
from kameng_api.suppliers.listings.rules import ListTerms

# ---- hints -------------------------------------------------------------------------------------------------------------

MOST_HINTS: Final = 10_000
"""Of one channel that wait; what comes beyond makes the whole list due."""


async def note_hints(tx: Tx, channel_id: str, codes: Iterable[str]) -> None:
    """These lines may have changed: they are read again. Whatever else was said of them counts for nothing."""
    wanted = sorted({code for code in codes if 1 <= len(code) <= 128 and code.isprintable()})[:MOST_HINTS]
    [row] = await fetch(tx, "SELECT count(*) AS n FROM catalog_hints WHERE channel_id = $1", channel_id)
    if row["n"] + len(wanted) > MOST_HINTS:
        await execute(tx, "UPDATE supplier_lists SET next_full_at = least(next_full_at, now()) WHERE channel_id = $1 AND failures = 0", channel_id)
        return
    await execute(
        tx,
        """INSERT INTO catalog_hints (channel_id, product_code) SELECT $1, k FROM unnest($2::text[]) AS k
        ON CONFLICT (channel_id, product_code) DO UPDATE SET told_at = now()""",
        channel_id, wanted,
    )  # fmt: skip


async def list_hints(tx: Tx, channel_id: str, limit: int) -> list[tuple[str, datetime]]:
    """(code, when it was said last) of those that are due, the longest first."""
    rows = await fetch(
        tx,
        "SELECT product_code, told_at FROM catalog_hints WHERE channel_id = $1 AND due_at <= now() ORDER BY due_at, product_code LIMIT $2",
        channel_id, limit,
    )  # fmt: skip
    return [(row["product_code"], row["told_at"]) for row in rows]


async def drop_hints(tx: Tx, channel_id: str, followed: Sequence[tuple[str, datetime]]) -> None:
    """They were followed; what was said again meanwhile stays."""
    await execute(
        tx,
        """DELETE FROM catalog_hints h USING unnest($2::text[], $3::timestamptz[]) AS k (product_code, told_at)
        WHERE h.channel_id = $1 AND h.product_code = k.product_code AND h.told_at = k.told_at""",
        channel_id, [code for code, _ in followed], [at for _, at in followed],
    )  # fmt: skip


async def put_off_hints(tx: Tx, channel_id: str, codes: Sequence[str]) -> None:
    """These lines could not be read: behind all others, and after 1, 2, 4 … minutes, at most six hours."""
    await execute(
        tx,
        """UPDATE catalog_hints SET failures = failures + 1, due_at = now() + make_interval(secs => least(60 * 2 ^ least(failures, 10), 21600))
        WHERE channel_id = $1 AND product_code = ANY ($2::text[])""",
        channel_id, list(codes),
    )  # fmt: skip


async def ask_again(tx: Tx, channel_id: str, codes: Sequence[str]) -> None:
    """Hints of our own, as far as there is room: what is left over is asked about after the next whole reading."""
    await execute(
        tx,
        """INSERT INTO catalog_hints (channel_id, product_code) SELECT $1, k FROM unnest($2::text[]) AS k
        LIMIT greatest($3 - (SELECT count(*) FROM catalog_hints WHERE channel_id = $1), 0) ON CONFLICT DO NOTHING""",
        channel_id, list(codes), MOST_HINTS // 2,
    )  # fmt: skip


async def want_whole(tx: Tx, channel_id: str, *, at_most_every_s: float) -> None:
    """Read the whole list soon, for hints that cannot be followed one by one: they are dropped, what they said is seen in it."""
    moved = await execute(
        tx,
        """UPDATE supplier_lists SET next_full_at = least(next_full_at, now())
        WHERE channel_id = $1 AND (whole_at IS NULL OR whole_at < now() - make_interval(secs => $2))""",
        channel_id, at_most_every_s,
    )  # fmt: skip
    if moved:
        await execute(tx, "DELETE FROM catalog_hints WHERE channel_id = $1", channel_id)


async def list_numbers(tx: Tx, channel_id: str, codes: Sequence[str]) -> list[int]:
    """Of the lines among them that are known."""
    sql = "SELECT number FROM supplier_products WHERE channel_id = $1 AND product_code = ANY ($2::text[])"
    return [row["number"] for row in await fetch(tx, sql, channel_id, list(codes))]


# ---- by an operator, and by age ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListWanted:
    """How an operator wants a list read. Seconds; `pause_ms` lies between two calls."""

    enabled: bool
    every_s: int
    changes_every_s: int
    pause_ms: int
    terms: ListTerms


async def set_list(tx: Tx, channel_id: str, wanted: ListWanted) -> None:
    """The clock and the terms of a channel's list; one that nobody has read begins to be. Raises ChannelUnknown, Invalid."""
    await catalog_queries.get_channel(tx, channel_id)
    errors = [
        *rules.check_terms(wanted.terms),
        *([] if 60 <= wanted.every_s <= 2_592_000 else [FieldError("/every_s", "out_of_range", "60 to 2592000")]),
        *([] if 10 <= wanted.changes_every_s <= 86_400 else [FieldError("/changes_every_s", "out_of_range", "10 to 86400")]),
        *([] if 0 <= wanted.pause_ms <= 60_000 else [FieldError("/pause_ms", "out_of_range", "0 to 60000")]),
    ]
    if errors:
        raise Invalid("the list's terms have mistakes", errors=errors)
    wait_s = rules.first_after_s(wanted.every_s, channel_id)
    await actions.open_lists(tx, [(channel_id, wait_s)], wanted.every_s, wanted.changes_every_s, enabled=wanted.enabled)
    await execute(
        tx,
        """UPDATE supplier_lists SET enabled = $2, every_s = $3::int, changes_every_s = $4::int, pause_ms = $5, terms = $6::text::jsonb,
          updated_at = now(), next_full_at = least(next_full_at, now() + make_interval(secs => $3::int)),
          next_changes_at = least(next_changes_at, now() + make_interval(secs => $4::int)) WHERE channel_id = $1""",
        channel_id, wanted.enabled, wanted.every_s, wanted.changes_every_s, wanted.pause_ms, orjson.dumps(asdict(wanted.terms)).decode(),
    )  # fmt: skip


async def want_now(tx: Tx, channel_id: str, by: str) -> None:
    """Read the whole list as soon as a worker is free, whatever its clock says. Raises NotFound."""
    if not await execute(tx, "UPDATE supplier_lists SET asked_by = $2 WHERE channel_id = $1", channel_id, by):
        raise NotFound("this channel's list is not read")


async def let_go(tx: Tx, sync_id: UUID, by: str) -> queries.Sync:
    """A person agrees that so many lines are gone: the list is read again at once, and may close as many. Raises NotFound, StateConflict."""
    sync = await queries.get_sync(tx, sync_id)
    await queries.get_list(tx, sync.channel_id, lock=True)
    [last] = await queries.list_syncs(tx, channel_id=sync.channel_id, kind="full", limit=1)
    if sync.state != "stopped" or sync.missing is None or last.sync_id != sync.sync_id:
        raise StateConflict("this reading does not wait for anybody")
    await execute(tx, "UPDATE supplier_lists SET may_vanish = $2, asked_by = $3 WHERE channel_id = $1", sync.channel_id, sync.missing, by)
    return sync


async def prune(tx: Tx, days: int, most: int) -> int:
    """Throw away readings and decided reviews that are older; costs are kept for ever. Of each list its last reading stays."""
    gone = await execute(
        tx,
        """DELETE FROM catalog_syncs WHERE ctid = ANY (ARRAY(
          SELECT s.ctid FROM catalog_syncs s WHERE s.ended_at < now() - make_interval(days => $1) AND EXISTS (
            SELECT FROM catalog_syncs n WHERE n.channel_id = s.channel_id AND n.kind = s.kind AND n.sync_id > s.sync_id) LIMIT $2))""",
        days, most,
    )  # fmt: skip
    # What was turned down is remembered by its review: the last one of its kind stays.
    return gone + await execute(
        tx,
        """DELETE FROM offer_reviews WHERE ctid = ANY (ARRAY(
          SELECT r.ctid FROM offer_reviews r WHERE r.decided_at < now() - make_interval(days => $1) AND EXISTS (
            SELECT FROM offer_reviews n WHERE n.channel_id = r.channel_id AND n.product_code = r.product_code AND n.sku = r.sku
              AND n.kind = r.kind AND n.review_id > r.review_id) LIMIT $2))""",
        days, most,
    )  # fmt: skip
