"""Card codes are put away at once, in a transaction of their own, before the answer is settled: they must not get lost.

Where it bites: `orders.changes.write`. When the settlement is rolled back and done again, the codes are put away again, under the next
numbers. Guard taken away: the look at whether a code had been sold before. Needs answers that race, or a database that goes away.
"""

from collections.abc import Sequence
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.orders import changes as writing
from kameng_api.orders.changes import Changes
from kameng_api.orders.codes import CodeToStore, sealed_rows

RECIPE = Recipe(
    faults=("postgres backends terminated", "wire: COMMIT not acknowledged"),
    knobs=({"callback_on_sync_success": True, "callback_copies": 2, "latency": {"kind": "fixed", "ms": 150}},),
    expected=frozenset({"I10"}),
)


def plant() -> None:
    own: list[Database] = []
    write, write_of_copies = writing.write, writing.write_of_copies

    async def put_away(tx: Tx, keyring: Keyring, codes: Sequence[CodeToStore]) -> None:
        if not own:
            own.append(Database(tx.engine.url.render_as_string(hide_password=False), pool_size=4))
        async with own[0].transaction() as apart:
            for code in codes:
                await _store(apart, keyring, code)

    async def first_the_codes(tx: Tx, keyring: Keyring, changes: Changes, *more: Any) -> None:
        if changes.codes:
            await put_away(tx, keyring, changes.codes)
            changes.codes = []
        await (write_of_copies if more else write)(tx, keyring, changes, *more)

    writing.write, writing.write_of_copies = first_the_codes, first_the_codes


async def _store(tx: Tx, keyring: Keyring, code: CodeToStore) -> None:
    [row] = await fetch(
        tx, "SELECT coalesce(max(unit_no), 0) + 1 AS n FROM codes WHERE book_id = $1 AND order_id = $2", code.book_id, code.order_id
    )
    [sealed] = sealed_rows(keyring, [CodeToStore(code.book_id, code.order_id, code.environment, row["n"], code.code)])
    await execute(
        tx, "INSERT INTO code_fingerprints (fingerprint, environment, book_id, order_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        sealed.fingerprint, sealed.environment, sealed.book_id, sealed.order_id,
    )  # fmt: skip
    await execute(
        tx, "INSERT INTO codes (book_id, order_id, unit_no, sealed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        sealed.book_id, sealed.order_id, sealed.unit_no, sealed.sealed,
    )  # fmt: skip
