"""The simulated vendor's books: orders, deliveries and timers, changed only inside the writer's transactions.

Every method that changes something runs in the writer's thread; `now` is seconds since 1970. What a method returns is
answered only after the commit.
"""

import base64
import secrets
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from kameng_api.kit.money import SCALE, format_amount, parse_amount
from kameng_api.simulator.accounts import Account, Accounts
from kameng_api.simulator.behaviour import Plan, Step, callback_times, sent_at
from kameng_api.simulator.config import Knobs, Product
from kameng_api.simulator.protocol import Ask, Status
from kameng_api.simulator.store import Timer

_INSERT_ORDER: Final = """
INSERT INTO sim_order (supplier, reference, product_code, product_type, units, delivered_units, unit_cost, cost,
    target, face_value, callback_url, fields, status, fail_code, created_at, finished_at)
VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"""
_INSERT_DELIVERY: Final = """
INSERT INTO delivery (at, supplier, reference, order_id, product_code, target, face_value, receipt, unit, code, pin)
VALUES (?,?,?,?,?,?,?,?,?,?,?)"""
_INSERT_CALLBACK: Final = """
INSERT INTO callback (at, supplier, reference, order_id, status, attempt, answer, acknowledged)
VALUES (?,?,?,?,?,?,?,?)"""
_INSERT_REQUEST: Final = "INSERT INTO request (at, supplier, path, reference, verdict) VALUES (?,?,?,?,?)"
FINAL: Final = frozenset({Status.SUCCESS, Status.PARTIAL, Status.FAILED, Status.REVERSED})

OrderRow = Mapping[str, Any] | sqlite3.Row


def order_no(order_id: int) -> str:
    return f"SIM{order_id:012d}"


def receipt_no(order_id: int) -> str:
    """The carrier's serial number, the merchant's proof."""
    return f"RC{order_id:012d}"


@dataclass(frozen=True, slots=True)
class Sent:
    """A callback that was sent; `answer` is the HTTP status, 0 when none came."""

    supplier: str
    reference: str
    attempt: int
    answer: int
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class Habits:
    """What a vendor does with every order, whatever its knobs say."""

    calls_back_at_once: bool = False
    """Also about orders that were final before their request was answered."""
    calls_back_early: bool = False
    """Also when it begins to work on an order: "processing", before the final callback."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A callback that is due: what is told (`view`, as the vendor says it at `query`), what else is known of the order, and how often it was sent."""

    account: Account
    url: str
    view: dict[str, Any]
    more: dict[str, Any]
    attempt: int
    notify_id: str


class Books:
    """Orders, deliveries and timers of all accounts."""

    def __init__(self, connection: sqlite3.Connection, time_scale: float, habits: Habits = Habits()) -> None:
        self._db = connection
        self._time_scale = time_scale
        self._habits = habits
        self.accounts = Accounts(connection)
        self._new_timers: list[Timer] = []
        self.due: deque[Timer] = deque()  # committed timers the clock has not seen yet
        self.due.extend(Timer(*row) for row in connection.execute("SELECT due_at, id, kind FROM timer"))

    # ---- what the writer calls around each commit

    def flush(self) -> None:
        self.accounts.flush()

    def committed(self) -> None:
        self.due.extend(self._new_timers)
        self._new_timers.clear()

    def rolled_back(self) -> None:
        self._new_timers.clear()
        self.accounts.load()

    # ---- orders

    def record_request(self, supplier: str, path: str, reference: str, verdict: str, now: float) -> None:
        self._db.execute(_INSERT_REQUEST, (now, supplier, path, reference, verdict))

    def count_open(self, account: Account) -> int:
        """Orders that are being worked on."""
        row = self._db.execute("SELECT count(*) FROM sim_order WHERE supplier = ? AND status = 'PROCESSING'", (account.name,)).fetchone()
        return int(row[0])

    def place(self, account: Account, ask: Ask, plan: Plan, now: float, *, always_new: bool = False) -> tuple[dict[str, Any], bool]:
        """Places an order and returns what the vendor says about it, and whether it is new.

        A known reference returns the first order unless the account is not idempotent, or this order is `always_new`.
        """
        known = self._find(account.name, ask.reference)
        if known is not None and account.knobs.idempotent and not always_new:
            self.record_request(account.name, "place", ask.reference, f"repeated {known['status']}", now)
            return self._view(known, account), False
        product = account.products.get(ask.product_code)
        unit_cost = 0 if product is None else _unit_cost(product, ask.face_value, account.knobs.of(ask.product_code).price_factor)
        if plan.start != Status.FAILED:
            refusal = _refusal(account, product, ask, unit_cost)
            plan = Plan(Status.FAILED, fail_code=refusal) if refusal else plan
        order = self._open(account, ask, plan, now, unit_cost=unit_cost, product_type=product.type if product else "topup")
        self.record_request(account.name, "place", ask.reference, order["fail_code"] or order["status"], now)
        return self._view(order, account), True

    def _open(self, account: Account, ask: Ask, plan: Plan, now: float, *, unit_cost: int, product_type: str) -> dict[str, Any]:
        done = plan.start in FINAL
        units = 0 if plan.start == Status.FAILED else ask.units if plan.units is None else plan.units
        order: dict[str, Any] = {
            "supplier": account.name,
            "reference": ask.reference,
            "product_code": ask.product_code,
            "product_type": product_type,
            "units": ask.units,
            "delivered_units": units if done else 0,
            "unit_cost": unit_cost,
            "cost": unit_cost * units,
            "target": ask.target,
            "face_value": ask.face_value,
            "callback_url": ask.callback_url,
            "fields": ask.fields,
            "status": plan.start,
            "fail_code": plan.fail_code,
            "created_at": now,
            "finished_at": now if done else None,
        }
        order_id = self._db.execute(_INSERT_ORDER, tuple(order.values())).lastrowid
        assert order_id is not None
        order |= {"id": order_id, "said_status": None, "said_fail_code": None, "reversal_no": "", "reversed_amount": 0}
        if units:
            self.accounts.take_stock(account, ask.product_code, units)
            self.accounts.move(account, -order["cost"], "CHARGE", now, reference=ask.reference, order_id=order_id)
        if done and units:
            self._deliver(order, units, now)
        for step in plan.later:
            due_at = now + step.after_s * self._time_scale
            self._timer(due_at, step.kind, order_id, orjson.dumps(asdict(step)).decode())
        at_once = account.knobs.callback_on_sync_success or self._habits.calls_back_at_once
        if at_once if done else self._habits.calls_back_early and plan.start == Status.PROCESSING:
            self._call_back(order, account.knobs, plan.start, None, now)
        return order

    def _deliver(self, order: OrderRow, units: int, now: float) -> None:
        """The moment something really happens: one row per unit."""
        same = (now, *(order[name] for name in ("supplier", "reference", "id", "product_code", "target", "face_value")))
        card = order["product_type"] != "topup"
        rows = [(*same, receipt_no(order["id"]), unit, *(_test_card() if card else (None, None))) for unit in range(1, units + 1)]
        self._db.executemany(_INSERT_DELIVERY, rows)

    def look_up(self, account: Account, reference: str, now: float) -> dict[str, Any] | None:
        order = self._find(account.name, reference)
        hidden_s = account.knobs.not_found_for_s * self._time_scale
        if order is None or now < order["created_at"] + hidden_s:
            self.record_request(account.name, "query", reference, "ORDER_NOT_FOUND", now)
            return None
        self.record_request(account.name, "query", reference, order["status"], now)
        return self._view(order, account)

    def describe(self, account: Account, *, reference: str = "", number: str = "") -> dict[str, Any] | None:
        """All that is known of the order under our `reference` or under the vendor's `number`: what it says of it, and its request."""
        if number:
            sql = "SELECT * FROM sim_order WHERE id = ? AND supplier = ?"
            order = self._db.execute(sql, (int(number.removeprefix("SIM") or 0), account.name)).fetchone()
        else:
            order = self._find(account.name, reference)
        return None if order is None else {**_more(order), **self._view(order, account)}

    def list_orders(self, account: Account, start: float, end: float, *, after: int, limit: int) -> list[dict[str, Any]]:
        """Orders placed in `[start, end)` (seconds since 1970), oldest first, with an id above `after`, as `describe` tells one."""
        rows = self._db.execute(
            "SELECT * FROM sim_order WHERE supplier = ? AND created_at >= ? AND created_at < ? AND id > ? ORDER BY id LIMIT ?",
            (account.name, start, end, after, limit),
        ).fetchall()
        return [{**_more(row), **self._view(row, account)} for row in rows]

    def _find(self, supplier: str, reference: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            "SELECT * FROM sim_order WHERE reference = ? AND supplier = ? ORDER BY id LIMIT 1", (reference, supplier)
        ).fetchone()
        return row

    def _get(self, order_id: int) -> sqlite3.Row:
        row: sqlite3.Row = self._db.execute("SELECT * FROM sim_order WHERE id = ?", (order_id,)).fetchone()
        return row

    def _view(self, order: OrderRow, account: Account) -> dict[str, Any]:
        """What the vendor says about an order: the truth, unless a contradiction was planned."""
        status = order["said_status"] or order["status"]
        fail_code = order["said_fail_code"] if order["said_status"] else order["fail_code"]
        delivered = order["delivered_units"] if status in (Status.SUCCESS, Status.PARTIAL, Status.REVERSED) else 0
        view = {
            "order_no": order_no(order["id"]),
            "out_order_no": order["reference"],
            "status": status,
            "product_code": order["product_code"],
            "product_type": order["product_type"],
            "units": order["units"],
            "delivered_units": delivered,
            "cost": format_amount(order["cost"]),
            "currency": account.currency,
            "receipt": receipt_no(order["id"]) if delivered else "",
            "fail_code": fail_code or "",
            "reversal_no": order["reversal_no"],
            "reversed_amount": format_amount(order["reversed_amount"]),
        }
        if delivered and order["product_type"] != "topup":
            rows = self._db.execute("SELECT code, pin FROM delivery WHERE order_id = ? ORDER BY unit", (order["id"],))
            view["cards"] = [{"code": row["code"], "pin": row["pin"]} for row in rows]
        return view

    # ---- what happens later

    def _timer(self, due_at: float, kind: str, order_id: int, step: str) -> None:
        cursor = self._db.execute("INSERT INTO timer (due_at, kind, order_id, step) VALUES (?,?,?,?)", (due_at, kind, order_id, step))
        assert cursor.lastrowid is not None
        self._new_timers.append(Timer(due_at, cursor.lastrowid, kind))

    def _call_back(self, order: OrderRow, knobs: Knobs, status: str, step: Step | None, now: float) -> None:
        if order["callback_url"]:
            for after_s, told in callback_times(knobs, status, step):
                self._timer(sent_at(knobs, now + after_s * self._time_scale, self._time_scale), "callback", order["id"], told)

    def fire(self, timer_ids: Iterable[int], now: float) -> None:
        """Does what is due (every kind but callbacks, which the clock sends)."""
        for timer_id in timer_ids:
            row = self._db.execute("DELETE FROM timer WHERE id = ? RETURNING order_id, step", (timer_id,)).fetchone()
            if row is None:
                continue
            raw = orjson.loads(row["step"])
            step = Step(**{**raw, "stale_callbacks": tuple(raw["stale_callbacks"])})
            order = self._get(row["order_id"])
            match step.kind:
                case "finish":
                    self._finish(order, step, now)
                case "reverse":
                    self._reverse(order, now)
                case "contradict":
                    self._db.execute(
                        "UPDATE sim_order SET said_status = ?, said_fail_code = ? WHERE id = ?",
                        (step.status, step.fail_code, order["id"]),
                    )
                    self._call_back(order, self.accounts.by_name[order["supplier"]].knobs, step.status, step, now)

    def _finish(self, order: sqlite3.Row, step: Step, now: float) -> None:
        account = self.accounts.by_name[order["supplier"]]
        failed_before = order["status"] == Status.FAILED
        if order["status"] in FINAL and not failed_before:
            return
        if step.status == Status.SUCCESS:
            cost = order["unit_cost"] * order["units"]
            if failed_before:  # the contradiction: refused, then delivered and charged
                self._pay(order, -cost, "CHARGE", now)
            self._deliver(order, order["units"], now)
            delivered = order["units"]
        elif failed_before:
            return
        else:
            self._pay(order, order["cost"], "REFUND", now)
            self.accounts.take_stock(account, order["product_code"], -order["units"])
            cost, delivered = 0, 0
        self._db.execute(
            """UPDATE sim_order SET status = ?, fail_code = ?, delivered_units = ?, cost = ?, finished_at = ?
            WHERE id = ?""",
            (step.status, step.fail_code, delivered, cost, now, order["id"]),
        )
        self._call_back(order, account.knobs, step.status, step, now)

    def _reverse(self, order: sqlite3.Row, now: float) -> None:
        if order["status"] not in (Status.SUCCESS, Status.PARTIAL):
            return
        account = self.accounts.by_name[order["supplier"]]
        self._pay(order, order["cost"], "REVERSAL", now)
        self._db.execute("UPDATE delivery SET reversed_at = ? WHERE order_id = ?", (now, order["id"]))
        self._db.execute(
            "UPDATE sim_order SET status = ?, reversal_no = ?, reversed_amount = ? WHERE id = ?",
            (Status.REVERSED, f"RV{order['id']:012d}", order["cost"], order["id"]),
        )
        self._call_back(order, account.knobs, Status.REVERSED, None, now)

    def _pay(self, order: sqlite3.Row, amount: int, kind: str, now: float) -> None:
        account = self.accounts.by_name[order["supplier"]]
        self.accounts.move(account, amount, kind, now, reference=order["reference"], order_id=order["id"])

    def advance(self, account: Account, reference: str, status: str, now: float) -> bool:
        """What the vendor's staff do: bring an open order to SUCCESS or FAILED, a delivered one to REVERSED.

        False: there is no such order.
        """
        order = self._find(account.name, reference)
        if order is None:
            return False
        if status == Status.REVERSED:
            self._reverse(order, now)
        else:
            fail_code = "" if status == Status.SUCCESS else "ORDER_REJECTED"
            if order["status"] == Status.PROCESSING:  # whatever it was to become by itself, it no longer does
                self._db.execute("DELETE FROM timer WHERE order_id = ? AND kind = 'finish'", (order["id"],))
            self._finish(order, Step(0, "finish", status, fail_code), now)
        return True

    def hurry(self, account: Account, reference: str, now: float) -> int | None:
        """Makes everything that this order still waits for due now; returns how much that was, None when there is no such order."""
        order = self._find(account.name, reference)
        if order is None:
            return None
        sql = "UPDATE timer SET due_at = ? WHERE order_id = ? AND due_at > ? RETURNING id, kind"
        rows = self._db.execute(sql, (now, order["id"], now)).fetchall()
        self._new_timers.extend(Timer(now, row["id"], row["kind"]) for row in rows)  # the old times find nothing to do when they come
        return len(rows)

    # ---- callbacks

    def open_callback(self, timer_id: int) -> Letter | None:
        """A due callback; None when it was sent or forgotten."""
        timer = self._db.execute("SELECT order_id, step, attempts FROM timer WHERE id = ?", (timer_id,)).fetchone()
        if timer is None:
            return None
        order, told = self._get(timer["order_id"]), timer["step"]
        account = self.accounts.by_name[order["supplier"]]
        reason = order["said_fail_code"] or order["fail_code"]
        view = self._view({**dict(order), "said_status": told, "said_fail_code": reason}, account)
        return Letter(account, order["callback_url"], view, _more(order), timer["attempts"] + 1, f"N{timer_id}")

    def close_callback(self, timer_id: int, sent: Sent, retry_at: float | None, now: float) -> None:
        """Records what the receiver answered; sends again at `retry_at` unless it is None."""
        row = self._db.execute("SELECT order_id, step FROM timer WHERE id = ?", (timer_id,)).fetchone()
        if row is None:
            return
        self._db.execute(
            _INSERT_CALLBACK,
            (
                now,
                sent.supplier,
                sent.reference,
                row["order_id"],
                row["step"],
                sent.attempt,
                sent.answer,
                sent.acknowledged,
            ),
        )
        if retry_at is None:
            self._db.execute("DELETE FROM timer WHERE id = ?", (timer_id,))
            return
        self._db.execute("UPDATE timer SET attempts = ?, due_at = ? WHERE id = ?", (sent.attempt, retry_at, timer_id))
        self._new_timers.append(Timer(retry_at, timer_id, "callback"))


def _more(order: OrderRow) -> dict[str, Any]:
    """Of an order what its view does not say."""
    return {name: order[name] for name in ("id", "target", "face_value", "callback_url", "fields", "created_at", "finished_at", "unit_cost")}


def _refusal(account: Account, product: Product | None, ask: Ask, unit_cost: int) -> str:
    """The code with which the vendor refuses by itself, or nothing."""
    if product is None or not product.on_sale:
        return "PRODUCT_OFF_SHELF"
    if not _is_in_range(product, ask.face_value) or (product.type == "topup" and not ask.target):
        return "PARAM_INVALID"
    stock = account.stock[product.code]
    if stock is not None and stock < ask.units:
        return "STOCK_EMPTY"
    if product.price_moved or (ask.max_cost is not None and unit_cost * ask.units > ask.max_cost):
        return "PRICE_CHANGED"
    if account.balance < unit_cost * ask.units:
        return "BALANCE_NOT_ENOUGH"
    return ""


def _is_in_range(product: Product, face_value: int | None) -> bool:
    if product.face_min is None or product.face_max is None:
        return True
    return face_value is not None and parse_amount(product.face_min) <= face_value <= parse_amount(product.face_max)


def _unit_cost(product: Product, face_value: int | None, price_factor: float) -> int:
    cost = cost_now(product, price_factor)
    return cost if product.face_min is None else -(-cost * (face_value or 0) // SCALE)


def cost_now(product: Product, price_factor: float) -> int:
    """What the list says now, 1/10000 units."""
    cost = parse_amount(product.cost)
    return cost if price_factor == 1 else round(cost * price_factor)


def _test_card() -> tuple[str, str]:
    """`(code, pin)`, random; the code says what it is."""
    letters = base64.b32encode(secrets.token_bytes(8))[:12].decode()
    return f"TEST-{letters[:4]}-{letters[4:8]}-{letters[8:]}", f"{secrets.randbelow(10_000):04d}"
