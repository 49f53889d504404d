"""The orders of the tour and what must become of each: magic targets, cards, refusals, and a heap of ordinary ones."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from kameng_api.demo.clients import Merchant, Surprise, was_sent_again
from kameng_api.demo.screen import Screen

FINAL: Final = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled"})
MAGIC: Final = "100000000{:02d}"
ORDINARY: Final = 60
_UNKNOWN_WITHIN_S: Final = 3.0
_GLANCE_S: Final = 0.3

Order = dict[str, Any]


class Unmet(Exception):
    """Something did not go as the contract says."""


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Unmet(otherwise)


@dataclass(slots=True)
class Bought:
    """An order of the tour, as it was when its errand ended. `codes` are those its merchant has opened."""

    merchant: Merchant
    order: Order
    notified: bool = False
    codes: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Watched:
    """An order on its way to its end; `seen` are the states that were visible."""

    bought: Bought
    seen: list[str]

    @property
    def order(self) -> Order:
        return self.bought.order


@dataclass(frozen=True, slots=True)
class Errand:
    """An order and its end. `more` looks at what else must be true."""

    title: str
    body: Mapping[str, Any]
    ending: str
    failure: str | None = None
    delivered: int | None = None
    patience_s: float = 30.0
    more: "Callable[[Scenario, Watched], Awaitable[None]] | None" = None
    notified: bool = False
    until: str | None = None
    """A substatus at which `more` takes over, for orders that do not end by themselves."""


class Scenario:
    """Runs every errand at once, and remembers what was bought and what did not hold."""

    def __init__(self, screen: Screen, shop: Merchant, app: Merchant, poor: Merchant, notify_url: str) -> None:
        self.shop, self.app, self.poor = shop, app, poor
        self.bought: list[Bought] = []
        self.verdicts: list[tuple[str, str | None]] = []
        self._screen = screen
        self._notify_url = notify_url
        self._number = 0

    def next_number(self) -> str:
        self._number += 1
        return f"TOUR-{self._number:04d}"

    async def before_the_worker(self) -> None:
        """While nobody works, an order surely is not dispatched: cancelling it must go well."""
        await self._judge("cancel before dispatch", "mobile-cn-50", self._cancelled())

    async def run(self) -> None:
        """Everything else. Nothing is raised: see `verdicts`."""
        await asyncio.gather(
            *(self._judge(errand.title, _told(errand.body), self._run_errand(errand)) for errand in ERRANDS),
            *(self._judge(title, what, refusal(self)) for title, what, refusal in REFUSALS),
            self._judge(f"{ORDINARY} ordinary orders", "7 SKUs, 2 merchants", self._ordinary()),
        )

    async def _judge(self, title: str, what: str, errand: Coroutine[Any, Any, None]) -> None:
        self._screen.add(title, what)
        trouble: str | None = None
        try:
            await errand
        except (Unmet, Surprise) as unmet:
            trouble = str(unmet)
        except Exception as broken:
            trouble = f"{type(broken).__name__}: {broken}"
        self.verdicts.append((title, trouble))
        if trouble is not None:
            self._screen.move(title, f"NOT AS IT SHOULD BE: {trouble}")
        self._screen.end(title, trouble is None)

    async def _run_errand(self, errand: Errand) -> None:
        body = {"merchant_order_no": self.next_number(), **errand.body}
        if errand.notified:
            body["notify_url"] = self._notify_url
        watched = await self._place(self.shop, body, errand.title)
        watched.bought.notified = errand.notified
        await self.follow(watched, errand.title, errand.patience_s, errand.until)
        if errand.more is not None:
            await errand.more(self, watched)
        order = watched.order
        demand(order["status"] == errand.ending, f"ended {order['status']}, not {errand.ending}")
        failure = order["failure"]["code"] if order["failure"] else None
        demand(failure == errand.failure or errand.until is not None, f"failure is {failure}, not {errand.failure}")
        wanted = errand.delivered if errand.delivered is not None else order["quantity"] * (errand.ending == "succeeded")
        demand(order["delivered_quantity"] == wanted, f"{order['delivered_quantity']} delivered, not {wanted}")

    async def _place(self, merchant: Merchant, body: Mapping[str, Any], title: str | None) -> Watched:
        answer = await merchant.send("POST", "/v1/orders", body)
        again = was_sent_again(answer)
        demand(answer.status_code == 201 or (again and answer.status_code == 200), f"{answer.status_code} {answer.text[:300]}")
        order = answer.json()
        demand(order["status"] == "accepted" or again, f"a new order is {order['status']}")
        bought = Bought(merchant, order)
        self.bought.append(bought)
        if title is not None:
            self._screen.move(title, "accepted")
        return Watched(bought, ["accepted"])

    async def follow(self, watched: Watched, title: str | None, patience_s: float, until: str | None = None) -> None:
        """Until the order is final (or has reached the substatus). Raises Unmet when that takes too long."""
        deadline = time.monotonic() + patience_s
        while True:
            await self.refresh(watched)
            order = watched.order
            state = order["status"] + (f"/{order['substatus']}" if order["substatus"] else "")
            if watched.seen[-1] != state:
                watched.seen.append(state)
            if title is not None:
                self._screen.move(title, state)
            if order["status"] in FINAL or (until is not None and order["substatus"] == until):
                return
            demand(time.monotonic() < deadline, f"still {state} after {patience_s:.0f} s")
            await asyncio.sleep(_GLANCE_S)

    async def refresh(self, watched: Watched) -> None:
        watched.bought.order = await watched.bought.merchant.get(f"/v1/orders/{watched.order['id']}")

    def show(self, title: str, state: str) -> None:
        self._screen.move(title, state)

    async def _cancelled(self) -> None:
        title = "cancel before dispatch"
        body = {"merchant_order_no": self.next_number(), "sku": "mobile-cn-50", "target": "10000001001"}
        watched = await self._place(self.shop, body, title)
        path = f"/v1/orders/{watched.order['id']}/cancel"
        for _ in range(2):  # cancelled again answers the same
            watched.bought.order = await self.shop.post(path, None, well=(200,))
            demand(watched.order["status"] == "cancelled", f"is {watched.order['status']}")
        self.show(title, "cancelled")

    async def _ordinary(self) -> None:
        title = f"{ORDINARY} ordinary orders"
        done = 0

        async def one(n: int) -> None:
            nonlocal done
            merchant = self.shop if n % 2 else self.app
            watched = await self._place(merchant, {"merchant_order_no": self.next_number(), **_ordinary_body(n)}, None)
            await self.follow(watched, None, 60.0)
            demand(watched.order["status"] == "succeeded", f"{watched.order['id']} {watched.order['status']}")
            done += 1

        results = await asyncio.gather(*(one(n) for n in range(ORDINARY)), return_exceptions=True)
        self.show(title, f"{done} succeeded")
        troubles = [str(result) for result in results if result is not None]
        demand(not troubles, f"{len(troubles)} went wrong, the first: {troubles[0] if troubles else ''}")


def _ordinary_body(n: int) -> dict[str, Any]:
    bodies: tuple[dict[str, Any], ...] = (
        {"sku": "mobile-cn-10", "target": f"1000000{2000 + n}"},
        {"sku": "mobile-cn-30", "target": f"1000000{2000 + n}"},
        {"sku": "qq-coin", "target": f"9000{n:05d}", "fields": {"face_value": str(1 + n)}},
        {"sku": "mobile-cn-200", "target": f"1000000{2000 + n}", "max_unit_price": "199"},
        {"sku": "video-month", "target": f"visitor-{n}@example.com"},
        {"sku": "game-card-30", "quantity": 2},
        {"sku": "mobile-data-1gb", "target": f"1000000{2000 + n}", "metadata": {"n": n}},
    )
    return bodies[n % len(bodies)]


def _told(body: Mapping[str, Any]) -> str:
    units = f" × {body['quantity']}" if body.get("quantity", 1) > 1 else ""
    return f"{body['sku']}{units}" + (f" → {body['target']}" if "target" in body else "")


def seconds_between(earlier: str, later: str) -> float:
    """Of two RFC 3339 times."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def _took_s(order: Order) -> float:
    return seconds_between(order["created_at"], order["completed_at"])


def _at_least(seconds: float) -> Callable[[Scenario, Watched], Awaitable[None]]:
    async def look(_: Scenario, watched: Watched) -> None:
        demand(_took_s(watched.order) >= seconds, f"took {_took_s(watched.order):.1f} s only")

    return look


async def _was_unknown(scenario: Scenario, watched: Watched) -> None:
    """A supplier's 500 is not a failure: it shows as unknown, soon, and only evidence ends it."""
    demand("processing/outcome_unknown" in watched.seen, f"outcome_unknown was never visible: {watched.seen}")
    steps = await _steps(scenario, watched)
    at = next((step["at"] for step in steps if step["step"] == "outcome_unknown"), None)
    demand(at is not None, "outcome_unknown is not in the timeline")
    created = watched.order["created_at"]
    waited = seconds_between(created, str(at))
    told = ", ".join(f"{step['step']} {seconds_between(created, step['at']):.1f} s" for step in steps)
    demand(waited <= _UNKNOWN_WITHIN_S, f"outcome_unknown after {waited:.1f} s: {told}")
    demand(_took_s(watched.order) >= 58, f"took {_took_s(watched.order):.1f} s only")


async def _steps(scenario: Scenario, watched: Watched) -> list[dict[str, Any]]:
    answer = await watched.bought.merchant.get(f"/v1/orders/{watched.order['id']}/timeline")
    steps: list[dict[str, Any]] = answer["items"]
    return steps


async def _is_taken_back(scenario: Scenario, watched: Watched) -> None:
    demand(watched.order["status"] == "succeeded", f"ended {watched.order['status']}")
    deadline = time.monotonic() + 60
    while watched.order["refunded_amount"] != watched.order["amount"]:
        demand(time.monotonic() < deadline, f"refunded_amount is {watched.order['refunded_amount']} after 60 s")
        await asyncio.sleep(_GLANCE_S)
        await scenario.refresh(watched)
    scenario.show(ERRANDS[6].title, f"refunded {watched.order['refunded_amount']}")
    refunds = (await watched.bought.merchant.get(f"/v1/orders/{watched.order['id']}/refunds"))["items"]
    demand([refund["amount"] for refund in refunds] == [watched.order["amount"]], f"refunds are {refunds}")


async def _stays(scenario: Scenario, watched: Watched) -> None:
    """Late and repeated callbacks change nothing any more."""
    before = watched.order
    await asyncio.sleep(5)
    await scenario.refresh(watched)
    demand(watched.order == before, "changed after its end")


async def _person_decides(scenario: Scenario, watched: Watched) -> None:
    await asyncio.sleep(2)
    await scenario.refresh(watched)
    demand(watched.order["substatus"] == "manual_review", "did not wait for a person")
    path = f"/v1/test/orders/{watched.order['id']}/advance"
    watched.bought.order = await watched.bought.merchant.post(path, {"outcome": "failed"}, well=(200,))
    scenario.show(ERRANDS[8].title, watched.order["status"])


async def _went_to_the_second(scenario: Scenario, watched: Watched) -> None:
    asked = [step["detail"].split(" was ")[0] for step in await _steps(scenario, watched) if step["step"] == "sent_to_supplier"]
    demand(asked == ["supplier 1", "supplier 2"], f"the timeline shows {asked}")


async def _has_test_codes(scenario: Scenario, watched: Watched) -> None:
    await _has_codes(scenario, watched)
    demand(all(code["code"].startswith("TEST-") for code in watched.bought.codes), "codes of test-card begin with TEST-")


async def _has_codes(scenario: Scenario, watched: Watched) -> None:
    merchant, order = watched.bought.merchant, watched.order
    demand(order["codes_available"], "no codes are there")
    watched.bought.codes = await merchant.codes(order["id"])
    again = await merchant.codes(order["id"])
    demand(again == watched.bought.codes, "a second look shows other codes")
    demand(len({code["code"] for code in again}) == order["quantity"], f"{len(again)} codes for {order['quantity']} units")


async def _cancel_comes_too_late(scenario: Scenario, watched: Watched) -> None:
    answer = await watched.bought.merchant.send("POST", f"/v1/orders/{watched.order['id']}/cancel")
    _refused(answer.status_code, answer.json(), 409, "state_conflict")


def _magic(n: int, says: str, ending: str, **more: Any) -> Errand:
    quantity = more.pop("quantity", 1)
    body = {"sku": "mobile-cn-100", "target": MAGIC.format(n), "quantity": quantity}
    return Errand(f"target …{n:02d}: {says}", body, ending, **more)


ERRANDS: Final = (
    _magic(1, "succeeds after 1 s", "succeeded", notified=True),
    _magic(2, "is refused after 1 s", "failed", failure="supplier_rejected", notified=True),
    _magic(3, "takes 30 s", "succeeded", patience_s=75, more=_at_least(29)),
    _magic(4, "500, then delivers at 60 s", "succeeded", patience_s=120, more=_was_unknown),
    _magic(5, "500, then fails at 60 s", "failed", failure="supplier_rejected", patience_s=120, more=_was_unknown),
    _magic(6, "one unit of three", "partially_succeeded", failure="all_channels_refused", quantity=3, delivered=1, notified=True),
    _magic(7, "is taken back after 30 s", "succeeded", more=_is_taken_back),
    _magic(8, "callbacks twice, out of order", "succeeded", more=_stays),
    _magic(9, "waits for a person", "failed", until="manual_review", more=_person_decides),
    _magic(10, "second supplier delivers", "succeeded", more=_went_to_the_second),
    Errand("card codes", {"sku": "test-card", "quantity": 3}, "succeeded", more=_has_test_codes, notified=True),
    Errand("game cards", {"sku": "game-card-100", "quantity": 2}, "succeeded", more=_has_codes),
    Errand("a voucher", {"sku": "coffee-30"}, "succeeded", more=_has_codes),
    Errand("Q币, any amount", {"sku": "qq-coin", "target": "900012345", "fields": {"face_value": "66"}}, "succeeded"),
    Errand("a membership", {"sku": "video-year", "target": "visitor@example.com"}, "succeeded", more=_cancel_comes_too_late),
)
FAILOVER: Final = ERRANDS[9].title


def _refused(status: int, problem: Mapping[str, Any], wanted: int, code: str) -> None:
    demand(status == wanted and problem.get("code") == code, f"{status} {problem.get('code')}, not {wanted} {code}")
    demand(problem.get("charged") == "no", f"charged is {problem.get('charged')}")


async def _replay(scenario: Scenario) -> None:
    """Five at once with one number are one order; the same again later too."""
    body = {"merchant_order_no": scenario.next_number(), "sku": "mobile-cn-30", "target": "10000001002"}
    answers = await asyncio.gather(*(scenario.app.send("POST", "/v1/orders", body) for _ in range(5)))
    answers = [*answers, await scenario.app.send("POST", "/v1/orders", body)]
    demand(sorted(a.status_code for a in answers) == [200] * 5 + [201], f"statuses {[a.status_code for a in answers]}")
    demand(len({a.json()["id"] for a in answers}) == 1, "several orders")
    replayed = [a.headers.get("idempotent-replayed") for a in answers if a.status_code == 200]
    demand(replayed == ["true"] * 5, f"Idempotent-Replayed is {replayed}")
    watched = Watched(Bought(scenario.app, answers[0].json()), ["accepted"])
    scenario.bought.append(watched.bought)
    await scenario.follow(watched, REFUSALS[0][0], 30.0)
    other = await scenario.app.send("POST", "/v1/orders", {**body, "quantity": 2})
    _refused(other.status_code, other.json(), 409, "merchant_order_no_conflict")
    demand(other.json().get("existing_order_id") == watched.order["id"], "existing_order_id names another order")
    scenario.show(REFUSALS[0][0], "409 merchant_order_no_conflict")


async def _refuse(scenario: Scenario, title: str, merchant: Merchant, body: Mapping[str, Any], status: int, code: str) -> None:
    """Refused with the code, and the number is free as before."""
    number = scenario.next_number()
    answer = await merchant.send("POST", "/v1/orders", {"merchant_order_no": number, **body})
    _refused(answer.status_code, answer.json(), status, code)
    kept = await merchant.send("GET", f"/v1/orders/by-merchant-no/{number}")
    demand(kept.status_code == 404, "a refused order was stored")
    scenario.show(title, f"{status} {code}")


def _refusal(
    title: str, body: Mapping[str, Any], status: int, code: str, *, poor: bool = False
) -> tuple[str, str, Callable[[Scenario], Coroutine[Any, Any, None]]]:
    async def run(scenario: Scenario) -> None:
        await _refuse(scenario, title, scenario.poor if poor else scenario.shop, body, status, code)

    return title, _told(body), run


REFUSALS: Final[tuple[tuple[str, str, Callable[[Scenario], Coroutine[Any, Any, None]]], ...]] = (
    ("the same again, then a conflict", "mobile-cn-30 × 6 times", _replay),
    _refusal("not enough money", {"sku": "mobile-cn-200", "target": "10000001003"}, 402, "insufficient_balance", poor=True),
    _refusal("out of stock", {"sku": "test-out-of-stock"}, 422, "out_of_stock"),
    _refusal("the price has moved", {"sku": "test-price-moved", "target": "10000001004"}, 422, "price_changed"),
    _refusal("dearer than wanted", {"sku": "mobile-cn-10", "target": "10000001005", "max_unit_price": "9"}, 422, "price_changed"),
    _refusal("not a phone number", {"sku": "mobile-cn-10", "target": "12345"}, 422, "target_not_supported"),
)
