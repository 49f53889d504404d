"""An example shop with one mistake in it: `python broken_examples.py MISTAKE APP`, served as APP itself would be. For the tests of the kit only."""

import importlib
import json
import runpy
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from kameng import ApiError, Client, Event, NoAnswer, Order, RetryPolicy, Webhooks

EXAMPLES = Path(__file__).parents[2] / "sdk" / "python" / "examples"
sys.path.insert(0, str(EXAMPLES))
shop: Any = importlib.import_module("shop")  # of that folder
Sound: Any = shop.Shop


class BelievesAnyone(Sound):  # type: ignore[misc]
    """Takes a webhook for what it says, whoever signed it."""

    def hear(self, headers: Any, body: bytes) -> None:
        with self._transaction() as db:
            self._hear(db, Event.read(json.loads(body)))


class CountsEveryDelivery(Sound):  # type: ignore[misc]
    """Takes a webhook that comes again for a new one, and hands over once more."""

    def _hear(self, db: sqlite3.Connection, event: Event) -> None:
        if event.order is not None:
            self._apply(db, event.order)

    def _apply(self, db: sqlite3.Connection, order: Order) -> None:
        db.execute("UPDATE orders SET version = 0 WHERE number = ? AND version = ?", (order.merchant_order_no, order.version))
        super()._apply(db, order)

    def _do_once(self, db: sqlite3.Connection, number: str, what: str) -> None:
        db.execute("CREATE TABLE IF NOT EXISTS each_time (number TEXT, what TEXT)")
        db.execute("INSERT INTO each_time VALUES (?, ?)", (number, what))

    def look(self, number: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = super().look(number)
        with self._transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS each_time (number TEXT, what TEXT)")
            done = [what for (what,) in db.execute("SELECT what FROM each_time WHERE number = ?", (number,))]
        return found and {**found, "deliveries": done.count("handed over"), "refunds": done.count("paid back")}


class OrdersAgainAfterSilence(Sound):  # type: ignore[misc]
    """Takes silence for a failure: pays back, and buys the same under a new number."""

    _client: Client

    def __init__(self, path: str, client: Client, webhooks: Webhooks) -> None:
        super().__init__(path, Client.from_env(retry=RetryPolicy(attempts=1), trust_env=False), webhooks)
        self._patient = client

    def send(self, number: str) -> None:
        with self._transaction() as db:
            sku, quantity, target = db.execute("SELECT sku, quantity, target FROM orders WHERE number = ?", (number,)).fetchone()
        try:
            order = self._client.orders.create(number, sku, quantity=quantity, target=target)
        except (NoAnswer, ApiError) as trouble:
            if isinstance(trouble, NoAnswer) or trouble.status >= 500:
                self._refuse(number, "no answer")
                self.buy(sku, quantity, target)
                return
            time.sleep(trouble.retry_after_s or 0.0)
            hasty, self._client = self._client, self._patient  # in anything but silence it is as sound as the example
            super().send(number)
            self._client = hasty
            return
        with self._transaction() as db:
            self._apply(db, order)

    def _refuse(self, number: str, code: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE orders SET status = 'failed', reason = ? WHERE number = ?", (code, number))
            self._do_once(db, number, "paid back")


MISTAKES = {
    "believes_anyone": BelievesAnyone,
    "counts_every_delivery": CountsEveryDelivery,
    "orders_again_after_silence": OrdersAgainAfterSilence,
}


def main() -> None:
    mistake, app = sys.argv[1:]
    shop.Shop = MISTAKES[mistake]  # what the app imports
    runpy.run_path(str(EXAMPLES / app), run_name="__main__")


if __name__ == "__main__":
    main()
