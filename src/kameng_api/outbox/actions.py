"""Record that something happened."""

from collections.abc import Sequence

from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Tx, execute
from kameng_api.kit.ids import new_ulid
from kameng_api.outbox.rules import Fact, body_of

_RECORD = """
INSERT INTO events (book_id, event_id, type, order_id, version, body, notify_url)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::uuid[], $5::int[], $6::bytea[], $7::text[])
"""


async def record(tx: Tx, facts: Sequence[Fact]) -> None:
    """Store facts with the bytes that will be sent. Who is told is decided later, when the transaction stands."""
    if not facts:
        return
    now = utc_now()
    ids = [new_ulid() for _ in facts]
    await execute(
        tx,
        _RECORD,
        [f.book_id for f in facts],
        ids,
        [f.type for f in facts],
        [f.order_id for f in facts],
        [f.version for f in facts],
        [body_of(f, i, now) for f, i in zip(facts, ids, strict=True)],
        [f.notify_url for f in facts],
    )
