"""The vendor's customers (our channels): their keys, wallets, products and knobs, in memory and in the file.

What changes rows runs in the writer's thread; `now` is seconds since 1970. The event loop only reads.
"""

import random
import sqlite3
import time
from collections.abc import Iterable
from typing import Final

from kameng_api.kit.money import parse_amount
from kameng_api.simulator.config import Knobs, Product, Role, SupplierConfig

_INSERT_SUPPLIER: Final = """
INSERT INTO supplier (name, app_key, secret, role, currency, balance, knobs) VALUES (?,?,?,?,?,0,?)"""
_INSERT_PRODUCT: Final = """
INSERT INTO product (supplier, code, spec, stock) VALUES (?,?,?,?) ON CONFLICT (supplier, code) DO """
_REPLACE: Final = "UPDATE SET spec = excluded.spec, stock = excluded.stock"
_INSERT_MOVEMENT: Final = """
INSERT INTO movement (at, supplier, reference, order_id, kind, amount, balance_after) VALUES (?,?,?,?,?,?,?)"""


class Account:
    """One account. `balance` and `stock` belong to the writer's thread; the rest is swapped whole, never in place."""

    __slots__ = ("_codes", "app_key", "balance", "currency", "draw", "knobs", "name", "products", "role", "secret", "stock")

    def __init__(self, name: str, currency: str, knobs: Knobs) -> None:
        self.name = name
        self.currency = currency
        self.app_key = ""
        self.secret = b""
        self.role = Role.PRIMARY
        self.balance = 0
        self.products: dict[str, Product] = {}
        self.stock: dict[str, int | None] = {}
        self._codes: tuple[dict[str, Product], list[str]] = (self.products, [])
        self.turn(knobs)

    def turn(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.draw = random.Random(knobs.seed)  # noqa: S311  a share of orders, not a secret


    def codes(self) -> list[str]:
        """Of all products, in order; sorted once per set of products."""
        products = self.products
        if self._codes[0] is not products:
            self._codes = products, sorted(products)
        return self._codes[1]


class Accounts:
    """All accounts. Balances and stocks are written once per group of requests, by `flush`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.by_name: dict[str, Account] = {}
        self.by_app_key: dict[str, Account] = {}
        self._changed_balance: set[str] = set()
        self._changed_stock: set[tuple[str, str]] = set()
        self.load()

    def load(self) -> None:
        """Reads everything back from the file; what was not flushed is forgotten."""
        self._changed_balance.clear()
        self._changed_stock.clear()
        products: dict[str, dict[str, Product]] = {}
        stock: dict[str, dict[str, int | None]] = {}
        for row in self._db.execute("SELECT * FROM product"):
            products.setdefault(row["supplier"], {})[row["code"]] = Product.model_validate_json(row["spec"])
            stock.setdefault(row["supplier"], {})[row["code"]] = row["stock"]
        for row in self._db.execute("SELECT * FROM supplier").fetchall():
            name, knobs = row["name"], Knobs.model_validate_json(row["knobs"])
            account = self.by_name.get(name) or Account(name, row["currency"], knobs)
            account.app_key, account.secret, account.role = row["app_key"], row["secret"].encode(), Role(row["role"])
            account.balance = row["balance"]
            account.stock, account.products = stock.get(name, {}), products.get(name, {})
            if account.knobs != knobs:
                account.turn(knobs)
            self.by_name[name] = account
        self.by_app_key = {account.app_key: account for account in self.by_name.values()}

    def flush(self) -> None:
        for name in self._changed_balance:
            self._db.execute("UPDATE supplier SET balance = ? WHERE name = ?", (self.by_name[name].balance, name))
        for name, code in self._changed_stock:
            stock = self.by_name[name].stock[code]
            self._db.execute("UPDATE product SET stock = ? WHERE supplier = ? AND code = ?", (stock, name, code))
        self._changed_balance.clear()
        self._changed_stock.clear()

    def put_supplier(self, config: SupplierConfig, products: Iterable[Product], now: float, *, start: bool) -> None:
        """Creates the account and fills its wallet, or changes key, secret, role, products and knobs of a known one.

        At `start` products, stocks and knobs of a known account stay as they are. No wallet is ever filled twice.
        """
        known = config.name in self.by_name
        secret, knobs = config.secret.get_secret_value(), config.knobs.model_dump_json()
        if not known:
            identity = (config.name, config.app_key, secret, config.role.value, config.currency, knobs)
            self._db.execute(_INSERT_SUPPLIER, identity)
        else:
            changed = (config.app_key, secret, config.role.value, config.name)
            self._db.execute("UPDATE supplier SET app_key = ?, secret = ?, role = ? WHERE name = ?", changed)
            if not start:
                self._db.execute("UPDATE supplier SET knobs = ? WHERE name = ?", (knobs, config.name))
        before = self.by_name[config.name].products if known else {}
        for product in products:
            if not start and before.get(product.code) != product:
                self._note_change(config.name, product.code, now)
            values = (config.name, product.code, product.model_dump_json(), product.stock)
            self._db.execute(_INSERT_PRODUCT + ("NOTHING" if start else _REPLACE), values)
        self.flush()
        self.load()
        if not known:
            self.top_up(self.by_name[config.name], parse_amount(config.balance), now)

    def put_knobs(self, account: Account, knobs: Knobs) -> None:
        self._db.execute("UPDATE supplier SET knobs = ? WHERE name = ?", (knobs.model_dump_json(), account.name))
        old = account.knobs
        account.turn(knobs)
        if old.price_factor != knobs.price_factor or old.products or knobs.products:
            now = time.time()
            for code in account.codes():
                if old.of(code).price_factor != knobs.of(code).price_factor:
                    self._note_change(account.name, code, now)

    def put_product(self, account: Account, product: Product) -> None:
        values = (account.name, product.code, product.model_dump_json(), product.stock)
        self._db.execute(_INSERT_PRODUCT + _REPLACE, values)
        account.stock = {**account.stock, product.code: product.stock}
        account.products = {**account.products, product.code: product}
        self._changed_stock.discard((account.name, product.code))
        self._note_change(account.name, product.code, time.time())

    def remove_product(self, account: Account, code: str) -> bool:
        """It is no longer in the list; False when it was not."""
        if code not in account.products:
            return False
        self._db.execute("DELETE FROM product WHERE supplier = ? AND code = ?", (account.name, code))
        account.products = {one: product for one, product in account.products.items() if one != code}
        self._changed_stock.discard((account.name, code))
        self._note_change(account.name, code, time.time())
        return True

    def _note_change(self, supplier: str, code: str, now: float) -> None:
        self._db.execute("INSERT INTO product_change (at, supplier, code) VALUES (?,?,?)", (now, supplier, code))

    def changes(self, supplier: str, since: float, *, after: int, limit: int) -> list[sqlite3.Row]:
        """At most `limit` changes of lines since `since` with an id above `after`, oldest first."""
        return self._db.execute(
            "SELECT * FROM product_change WHERE supplier = ? AND at >= ? AND id > ? ORDER BY id LIMIT ?", (supplier, since, after, limit)
        ).fetchall()

    def top_up(self, account: Account, amount: int, now: float) -> int:
        """Adds to the wallet or, when negative, takes from it; returns the new balance."""
        self.move(account, amount, "TOP_UP" if amount >= 0 else "WITHDRAWAL", now)
        return account.balance

    def move(self, account: Account, amount: int, kind: str, now: float, *, reference: str = "", order_id: int | None = None) -> None:
        """The only way a wallet changes: one row per movement."""
        account.balance += amount
        self._changed_balance.add(account.name)
        self._db.execute(_INSERT_MOVEMENT, (now, account.name, reference, order_id, kind, amount, account.balance))

    def take_stock(self, account: Account, code: str, units: int) -> None:
        """Negative `units` put it back. Products that are not counted stay so."""
        stock = account.stock.get(code)
        if stock is not None:
            account.stock[code] = stock - units
            self._changed_stock.add((account.name, code))
            if (stock > 0) != (stock - units > 0):
                self._note_change(account.name, code, time.time())

    def movements(self, supplier: str, start: float, end: float, *, after: int, limit: int) -> list[sqlite3.Row]:
        """At most `limit` wallet movements in `[start, end)` with an id above `after`, oldest first."""
        return self._db.execute(
            "SELECT * FROM movement WHERE supplier = ? AND at >= ? AND at < ? AND id > ? ORDER BY id LIMIT ?",
            (supplier, start, end, after, limit),
        ).fetchall()

    def count_movements(self, supplier: str, start: float, end: float, *, upto: int) -> int:
        """How many movements in `[start, end)` have an id of at most `upto`."""
        row = self._db.execute(
            "SELECT count(*) FROM movement WHERE supplier = ? AND at >= ? AND at < ? AND id <= ?", (supplier, start, end, upto)
        ).fetchone()
        return int(row[0])
