"""Millions of orders with everything that hangs on them, as set-based SQL: the shape the application itself would have written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.house import CHANNEL, MONEY, PRODUCT_CODE, SKU, UNIT_COST, UNIT_PRICE
from kameng_api.kit.money import parse_amount

FILL_SETTINGS: Final = {
    "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off",
}  # fmt: skip
"""For the length of the load only; nobody writes anything else meanwhile."""

_TABLES: Final = "orders, attempts, events, tasks, transfers, rollups"
_BOOKS_AT_ONCE: Final = 50
_DAYS: Final = 30

# One line per order: book, number within the book, whether it is settled, when and in which (past) transaction it was placed, its ids.
_ORDERS: Final = """
CREATE TEMP TABLE batch ON COMMIT DROP AS
SELECT b.book_id, n, n <= {settled} AS settled, at, 3 + n * ((pg_current_xact_id()::text)::bigint - 3) / ({per_book} + 1) AS xid,
  (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || substr(md5(b.book_id || 'o' || n), 1, 20))::uuid AS order_id,
  (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint + 40), 12, '0') || substr(md5(b.book_id || 'a' || n), 1, 20))::uuid AS attempt_id
FROM unnest(ARRAY[{books}]::bigint[]) AS b (book_id), generate_series(1::bigint, {per_book}) AS n,
  LATERAL (SELECT now() - interval '1 day' * {days} * (1 - n::float8 / ({per_book} + 1)) AS at) AS t
ORDER BY b.book_id, n
"""

_INSERTS: Final = (
    """
INSERT INTO orders (book_id, order_id, merchant_order_no, fingerprint, environment, status, substatus, version, sku, product_type, quantity,
  committed_units, delivered_units, target_sealed, target_masked, face_value, unit_price, amount, captured, currency, receipt, metadata,
  deadline_at, created_at, dispatched_at, delivered_at, completed_at)
SELECT book_id, order_id, 'PO-' || to_char(at, 'YYYYMMDD') || '-' || lpad(n::text, 7, '0'), sha256(order_id::text::bytea), 'test',
  CASE WHEN settled THEN 'succeeded' ELSE 'processing' END, CASE WHEN settled THEN NULL ELSE 'awaiting_supplier' END,
  CASE WHEN settled THEN 3 ELSE 2 END, '{sku}', 'topup', 1, 1, settled::int, sha256(attempt_id::text::bytea) || '\\x00112233445566778899aabb',
  '138****8000', 1000000, {price}, {price}, CASE WHEN settled THEN {price} ELSE 0 END, 'CNY', CASE WHEN settled THEN 'R' || n END, '{{}}',
  at + interval '600 s', at, at + interval '40 ms', CASE WHEN settled THEN at + interval '90 ms' END,
  CASE WHEN settled THEN at + interval '90 ms' END
FROM batch
""",
    """
INSERT INTO attempts (book_id, attempt_id, order_id, n, channel_id, product_code, units, delivered_units, state, currency, cost, actual_cost,
  reference, supplier_order_no, reason, sent_at, settled_at)
SELECT book_id, attempt_id, order_id, 1, '{channel}', '{code}', 1, settled::int, CASE WHEN settled THEN 'delivered' ELSE 'accepted' END, 'CNY',
  {cost}, CASE WHEN settled THEN {cost} END, to_char(book_id, 'FM000') || upper(substr(replace(attempt_id::text, '-', ''), 1, 26)), 'SO' || n,
  'cheapest of 1 healthy', at + interval '40 ms', CASE WHEN settled THEN at + interval '90 ms' END
FROM batch
""",
    """
INSERT INTO transfers (book_id, event_key, line, kind, debit_account, credit_account, currency, amount, debit_balance_after, debit_version,
  order_id, xid, created_at)
SELECT book_id, key, 0, kind, debit, credit, 'CNY', amount, balance, version, order_id, xid, at
FROM (SELECT *, upper(substr(replace(order_id::text, '-', ''), 1, 26)) AS o, upper(substr(replace(attempt_id::text, '-', ''), 1, 26)) AS a
  FROM batch) AS batch,
LATERAL (VALUES
  ('order:' || o || ':hold', 'hold', 'merchant_available', 'merchant_held', {price}, {money} - n * {price}, n + 1, true),
  ('attempt:' || a || ':reserve', 'attempt_reserve', 'supplier_wip:{channel}', 'supplier_prepaid:{channel}', {cost}, NULL, NULL, true),
  ('attempt:' || a || ':settle', 'attempt_delivered', 'cogs:{channel}', 'supplier_wip:{channel}', {cost}, NULL, NULL, settled),
  ('order:' || o || ':final', 'capture', 'merchant_held', 'sales', {price}, NULL, NULL, settled)
) AS t (key, kind, debit, credit, amount, balance, version, happened) WHERE happened
""",
    """
INSERT INTO events (book_id, event_id, type, order_id, version, body, xid, created_at)
SELECT book_id, (substr(order_id::text, 1, 8) || substr(md5(order_id::text || version), 1, 24))::uuid, type, order_id, version,
  convert_to(rpad('{{"id":"evt_' || order_id || '","type":"' || type || '","data":{{"object":{{"merchant_order_no":"', {body}, 'abc123'), 'UTF8'),
  xid, at + interval '30 ms' * version
FROM batch,
  LATERAL (VALUES ('order.accepted', 1, true), ('order.processing', 2, true), ('order.succeeded', 3, settled)) AS e (type, version, happened)
WHERE happened
""",
    """
INSERT INTO tasks (book_id, lane, ref, state, run_at, attempts)
SELECT book_id, 'look_up', attempt_id, 'ready', now() + interval '2 days' + interval '1 s' * (n % 86400), 1 FROM batch WHERE NOT settled
""",
    "DROP TABLE batch",
)

_AFTER: Final = (
    """
UPDATE accounts SET balance = {money} - {per_book}::bigint * {price}, version = {per_book} + 1
WHERE account = 'merchant_available' AND book_id = ANY(ARRAY[{books}]::bigint[])
""",
    """
INSERT INTO rollups (book_id, account, currency, debits, credits)
SELECT book_id, account, currency, sum(debit), sum(credit)
FROM transfers, LATERAL (VALUES (debit_account, amount, 0), (credit_account, 0, amount)) AS x (account, debit, credit)
WHERE account <> 'merchant_available' GROUP BY 1, 2, 3
""",
    "UPDATE rollup_marks SET upto_xid = (pg_current_xact_id()::text)::bigint",
    "UPDATE fanout_marks SET upto_xid = (pg_current_xact_id()::text)::bigint",
)


@dataclass(frozen=True, slots=True)
class Filling:
    """How much: `in_flight` and `settled` orders per book."""

    books: int
    in_flight: int
    settled: int

    @property
    def per_book(self) -> int:
        return self.in_flight + self.settled


def statements(books: Sequence[int], filling: Filling) -> Iterator[str]:
    """For one transaction. The tables are emptied in it, so that with `wal_level = minimal` what follows needs no log; money stays."""
    facts = {
        "sku": SKU, "price": UNIT_PRICE, "cost": UNIT_COST, "money": parse_amount(MONEY), "channel": CHANNEL, "code": PRODUCT_CODE,
        "settled": filling.settled, "per_book": filling.per_book, "days": _DAYS, "body": 720,
    }  # fmt: skip
    yield "CREATE TEMP TABLE funded ON COMMIT DROP AS SELECT * FROM transfers"
    yield f"TRUNCATE {_TABLES}"
    yield "INSERT INTO transfers SELECT * FROM funded"
    for start in range(0, len(books), _BOOKS_AT_ONCE):
        some = ",".join(str(b) for b in books[start : start + _BOOKS_AT_ONCE])
        for statement in (_ORDERS, *_INSERTS):
            yield statement.format(books=some, **facts)
    for statement in _AFTER:
        yield statement.format(books=",".join(map(str, books)), **facts)
