"""What the three example shops have in common: their own books, and the few habits that make an integration safe.

1. The number of an order is stored before it is sent. Whatever happens then, the same number is sent again, never a new one.
2. A webhook and a poll of events end in the same function: an event is applied once (by its id), and only if it is newer (by its version).
3. What the shop does for its customer (hand over, pay back) is written in the same transaction, under a key that can exist only once.
4. Events are polled besides: a webhook that got lost is found within seconds.
"""

import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from kameng import ApiError, Client, CursorInvalid, Event, KamengError, NoAnswer, NotFound, NumberConflict, Order, Webhooks

log = logging.getLogger("shop")

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    number TEXT PRIMARY KEY, sku TEXT NOT NULL, quantity INTEGER NOT NULL, target TEXT,
    status TEXT NOT NULL DEFAULT 'sending', version INTEGER NOT NULL DEFAULT 0, reason TEXT, busy_until REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS seen_events (id TEXT PRIMARY KEY, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS done_for_customers (number TEXT, what TEXT, PRIMARY KEY (number, what));
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), after TEXT);
"""
LONGEST_SEND_S = 120.0  # longer than the client's deadline: a process that was still sending by then is gone


class Shop:
    """One shop. Its methods may be called from any thread."""

    def __init__(self, path: str, client: Client, webhooks: Webhooks) -> None:
        self._path, self._client, self._webhooks = path, client, webhooks
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(TABLES)

    @classmethod
    def from_env(cls) -> "Shop":
        """KAMENG_… for the client, SHOP_WEBHOOK_SECRETS (one, or old and new with a space between), SHOP_DB, SHOP_POLL_S (0: no polling)."""
        shop = cls(os.environ.get("SHOP_DB", "shop.sqlite"), Client.from_env(), Webhooks(*os.environ["SHOP_WEBHOOK_SECRETS"].split()))
        every_s = float(os.environ.get("SHOP_POLL_S", "5"))
        if every_s:
            threading.Thread(target=shop.keep_up, args=(every_s,), daemon=True).start()
        return shop

    # --- buying --------------------------------------------------------------------------------------------------------

    def buy(self, sku: str, quantity: int = 1, target: str | None = None) -> str:
        """The number of the order. It is in our books before the hub hears of it."""
        number = f"SHOP-{uuid.uuid4().hex}"
        with self._transaction() as db:
            row = (number, sku, quantity, target, time.time() + LONGEST_SEND_S)
            db.execute("INSERT INTO orders (number, sku, quantity, target, busy_until) VALUES (?, ?, ?, ?, ?)", row)
        self.send(number)
        return number

    def send(self, number: str) -> None:
        """Sends what our books say, as often as it takes: the same number and content buys once."""
        with self._transaction() as db:  # whoever looks for open orders leaves alone what is being sent
            db.execute("UPDATE orders SET busy_until = ? WHERE number = ?", (time.time() + LONGEST_SEND_S, number))
            sku, quantity, target = db.execute("SELECT sku, quantity, target FROM orders WHERE number = ?", (number,)).fetchone()
        try:
            order = self._client.orders.create(number, sku, quantity=quantity, target=target)
        except NumberConflict as other:  # the number bought something else: asking again will not help, and neither would another number
            self._set_aside(number, other.code)
            return
        except (NoAnswer, ApiError) as trouble:
            if isinstance(trouble, ApiError) and trouble.charged == "no" and trouble.retry == "never":
                self._refuse(number, trouble.code)
            else:
                log.warning("%s stays open: %s", number, trouble)
                self._leave_open(number)
            return
        with self._transaction() as db:
            self._apply(db, order)

    def _refuse(self, number: str, code: str) -> None:
        with self._transaction() as db:
            if db.execute("UPDATE orders SET status = 'refused', reason = ? WHERE number = ? AND version = 0", (code, number)).rowcount:
                self._do_once(db, number, "paid back")

    def _set_aside(self, number: str, code: str) -> None:
        log.error("%s: %s; a person must look at it", number, code)
        with self._transaction() as db:
            db.execute("UPDATE orders SET status = 'needs_a_person', reason = ? WHERE number = ? AND version = 0", (code, number))

    def _leave_open(self, number: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE orders SET busy_until = 0 WHERE number = ?", (number,))  # `keep_up` sends it again

    # --- hearing -------------------------------------------------------------------------------------------------------

    def hear(self, headers: Any, body: bytes) -> None:
        """A webhook. Raises WebhookRefused: answer 400. Returns only when it is safely in our books: answer 2xx."""
        event = self._webhooks.verify(headers, body)
        with self._transaction() as db:
            self._hear(db, event)

    def _hear(self, db: sqlite3.Connection, event: Event) -> None:
        if not db.execute("INSERT OR IGNORE INTO seen_events (id) VALUES (?)", (event.id,)).rowcount:
            return  # the same event again
        order = event.order
        if order is not None:
            self._apply(db, order)

    def _apply(self, db: sqlite3.Connection, order: Order) -> None:
        """However often and in whatever order it is told, only what is newer changes anything."""
        newer = db.execute(
            "UPDATE orders SET status = ?, version = ?, reason = ? WHERE number = ? AND version < ?",
            (order.status, order.version, order.failure and order.failure.code, order.merchant_order_no, order.version),
        )
        if not newer.rowcount:
            return
        if order.delivered_quantity and order.is_final:
            self._do_once(db, order.merchant_order_no, "handed over")
        if order.status in ("failed", "cancelled", "partially_succeeded") or order.refunded_amount:
            self._do_once(db, order.merchant_order_no, "paid back")

    def _do_once(self, db: sqlite3.Connection, number: str, what: str) -> None:
        db.execute("INSERT OR IGNORE INTO done_for_customers VALUES (?, ?)", (number, what))

    # --- asking --------------------------------------------------------------------------------------------------------

    def keep_up(self, every_s: float) -> None:
        """For ever: send again what was never answered, and fetch the events that no webhook brought."""
        pause = threading.Event()
        while not pause.wait(every_s):
            try:
                for number in self.open_numbers():
                    self.send(number)
                self.catch_up()
            except (KamengError, sqlite3.OperationalError) as trouble:
                log.warning("asked in vain: %s", trouble)

    def open_numbers(self) -> list[str]:
        with self._transaction() as db:
            return [row[0] for row in db.execute("SELECT number FROM orders WHERE status = 'sending' AND busy_until < ?", (time.time(),))]

    def catch_up(self) -> None:
        """Every event since the last one we asked for, each together with our place in one transaction."""
        with self._transaction() as db:
            row = db.execute("SELECT after FROM place").fetchone()
        try:
            for event in self._client.events.list(after=row and row[0]):
                with self._transaction() as db:
                    self._hear(db, event)
                    db.execute("INSERT INTO place VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET after = excluded.after", (event.id,))
        except CursorInvalid:  # away for more than 90 days: begin with the oldest event there is
            with self._transaction() as db:
                db.execute("DELETE FROM place")
        except NotFound:
            log.warning("this house tells no events")

    # --- telling -------------------------------------------------------------------------------------------------------

    def look(self, number: str) -> dict[str, Any] | None:
        """What our books say."""
        with self._transaction() as db:
            row = db.execute("SELECT status, version, reason FROM orders WHERE number = ?", (number,)).fetchone()
            done = [what for (what,) in db.execute("SELECT what FROM done_for_customers WHERE number = ?", (number,))]
        if row is None:
            return None
        status, version, reason = row
        return {
            "merchant_order_no": number, "status": status, "version": version, "reason": reason,
            "deliveries": done.count("handed over"), "refunds": done.count("paid back"),
        }  # fmt: skip

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
