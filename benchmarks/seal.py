"""How many events of the books the sealer puts into the chain per second, and what its time goes to; beside the hashing alone.

An order has four: hold, reserve, the attempt's end and the order's end, the last two with the facts of the delivery.
"""

import resource
import statistics
import time
from typing import Any, Final

from benchmarks.figures import conclude, say, spread
from benchmarks.fill import FILL_SETTINGS, Filling, statements
from benchmarks.house import House, open_house
from benchmarks.machine import Failed, machine
from kameng_api.evidence import actions
from kameng_api.evidence.rules import leaf_hash, root_of
from kameng_api.evidence.signer import load_signer
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import ulid_text
from kameng_api.orders.actions import target_binding

ORDERS: Final = 60_000
MERCHANTS: Final = 60
ROUNDS: Final = 3
WANTED_PER_S: Final = 12_000.0
_AT_ONCE: Final = 5_000

_ANSWERS: Final = """
INSERT INTO supplier_answers (book_id, answer_id, attempt_id, beat, outcome, http_status, raw_sealed, received_at)
SELECT book_id, gen_random_uuid(), attempt_id, 'place', 'delivered', 200, sha256(attempt_id::text::bytea) || repeat('x', 300)::bytea, settled_at
FROM attempts
"""
# As the application writes them: targets that can be opened, and keys that name the attempt by its ULID.
_TARGETS: Final = """
UPDATE orders o SET target_sealed = k.target FROM unnest($1::bigint[], $2::uuid[], $3::bytea[]) AS k (book_id, order_id, target)
WHERE o.book_id = k.book_id AND o.order_id = k.order_id
"""
_KEYS: Final = """
UPDATE transfers t SET event_key = 'attempt:' || k.ulid || ':' || split_part(t.event_key, ':', 3)
FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS k (book_id, order_id, ulid)
WHERE t.book_id = k.book_id AND t.order_id = k.order_id AND t.event_key LIKE 'attempt:%'
"""
_FORGET: Final = "TRUNCATE chain_blocks, chain_facts, chain_state, chain_anchors"


async def measure(orders: int = ORDERS, merchants: int = MERCHANTS, rounds: int = ROUNDS) -> bool:
    """The whole benchmark. True when one sealer keeps up with 3,000 orders a second."""
    stands_on = await machine()
    rates: list[float] = []
    shares: list[float] = []
    async with open_house("seal", merchants_count=merchants) as house:
        await _fill(house, orders, merchants)
        leaves = 0
        for _ in range(rounds):
            await house.owner_does([_FORGET])
            leaves, seconds, cpu_s = await _seal(house)
            if leaves < 4 * orders:
                raise Failed(f"{leaves} leaves of {orders} orders")
            rates.append(leaves / seconds)
            shares.append(cpu_s / seconds)
            say(f"  {leaves} leaves in {seconds:.1f} s: {rates[-1]:.0f}/s, {shares[-1]:.0%} of it this process's own work")
        hashing = _hashing()
    conclude(
        "seal",
        statistics.median(rates) / hashing,
        {
            "leaves_per_s": spread(rates), "orders_per_s": round(statistics.median(rates) / 4), "leaves": leaves,
            "own_cpu_share": spread(shares), "hashing_alone_per_s": round(hashing), "wanted_per_s": WANTED_PER_S, "machine": stands_on,
        },
    )  # fmt: skip
    return statistics.median(rates) >= WANTED_PER_S


async def _fill(house: House, orders: int, merchants: int) -> None:
    await house.restart(FILL_SETTINGS)
    books = [b.book_id for b in house.buyers]
    filling = statements(books, Filling(merchants, 0, orders // merchants))
    await house.owner_does([";\n".join(("BEGIN", *filling, _ANSWERS, "COMMIT"))])
    await house.restart()
    await _as_written(house)
    await house.owner_does([f"VACUUM (ANALYZE) {table}" for table in ("transfers", "orders", "attempts", "supplier_answers")])


async def _as_written(house: House) -> None:
    assert house.settings.database_owner_url is not None
    keyring = house.keyring  # one: its data key is made once
    owner = Database(house.settings.database_owner_url.get_secret_value(), pool_size=1)
    async with owner.transaction() as tx:
        await execute(tx, "SET LOCAL statement_timeout = 0")
        await execute(tx, "CREATE INDEX of_bench ON transfers (book_id, order_id)")
        rows = await fetch(tx, "SELECT book_id, order_id, attempt_id FROM attempts")
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            keys = [r["book_id"] for r in some], [r["order_id"] for r in some]
            await execute(tx, _TARGETS, *keys, [keyring.seal(b"13800138000", target_binding(*key)) for key in zip(*keys, strict=True)])
            await execute(tx, _KEYS, *keys, [ulid_text(r["attempt_id"]) for r in some])
        await execute(tx, "DROP INDEX of_bench")
    await owner.close()


async def _seal(house: House) -> tuple[int, float, float]:
    """(leaves, seconds, seconds of this process's own CPU)."""
    signer = load_signer(None, bytes(32))
    leaves, started, cpu = 0, time.monotonic(), _cpu_s()
    while True:
        async with house.db.transaction() as tx:
            sealed: Any = await actions.seal(tx, house.keyring, signer)
        leaves += sealed.leaves
        if not sealed.more:
            return leaves, time.monotonic() - started, _cpu_s() - cpu


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _hashing(n: int = 50_000) -> float:
    """Leaves of half a kilobyte that are hashed into a tree per second: what no sealer in this language beats."""
    leaf = b"x" * 500
    started = time.perf_counter()
    root_of([leaf_hash(leaf) for _ in range(n)])
    return n / (time.perf_counter() - started)
