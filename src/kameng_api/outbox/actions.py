"""Record that something happened."""

from collections.abc import Sequence

from kameng_api.kit import sets
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Tx
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.sets import Column, Part
from kameng_api.outbox.rules import Fact, body_of


async def record(tx: Tx, facts: Sequence[Fact]) -> None:
    """Store facts with the bytes that will be sent. Who is told is decided later, when the transaction stands."""
    await sets.write(tx, parts_of(facts))


def parts_of(facts: Sequence[Fact]) -> list[Part]:
    """`record` as a part of a larger write."""
    if not facts:
        return []
    now = utc_now()
    ids = [new_ulid() for _ in facts]
    part = sets.inserting(
        "events",
        [
            Column("event_id", "uuid", ids),
            Column("book_id", "bigint", [f.book_id for f in facts]),
            Column("type", "text", [f.type for f in facts]),
            Column("order_id", "uuid", [f.order_id for f in facts]),
            Column("version", "int", [f.version for f in facts]),
            Column("body", "bytea", [body_of(f, i, now) for f, i in zip(facts, ids, strict=True)]),
            Column("notify_url", "text", [f.notify_url for f in facts]),
        ],
    )
    return [part]
