"""Merchants are told while the transaction is still open: the event is stored, and sent, on a connection of its own.

Where it bites: whoever writes events (`kit.sets.write`). When the transaction is rolled back, the merchant has heard of something that never
was, and hears of it again. Needs races between answers (a rolled-back quick settlement) or a database that goes away.
"""

from collections.abc import Sequence

from tests.chaos.bugs import Recipe

from kameng_api.kit import sets
from kameng_api.kit.db import Database, Tx
from kameng_api.kit.sets import Part

RECIPE = Recipe(
    faults=("postgres backends terminated", "wire: postgres stops after N bytes"),
    knobs=({"callback_on_sync_success": True, "callback_copies": 2, "latency": {"kind": "fixed", "ms": 150}},),
    expected=frozenset({"I6", "I16"}),
)


def plant() -> None:
    write = sets.write
    own: list[Database] = []

    async def hasty(tx: Tx, parts: Sequence[Part]) -> None:
        events = [p for p in parts if p.sql.startswith("INSERT INTO events ")]
        if events:
            if not own:
                own.append(Database(tx.engine.url.render_as_string(hide_password=False), pool_size=4))
            async with own[0].transaction() as apart:
                await write(apart, events)
        await write(tx, [p for p in parts if p not in events])

    sets.write = hasty
