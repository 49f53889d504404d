"""Why an order went where it went, as an operator asks: through real dispatches, from the rows they wrote."""

from datetime import datetime, timedelta

import pytest
from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.counter import Counter

from kameng_api.api.admin import route_shapes
from kameng_api.kit import sets
from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.orders.route_facts import UnderWay
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.suppliers.actions import RouteDecision, RouteInputs, parts_of_choices
from kameng_api.suppliers.port import Delivered, RefusalReason, Refused, Scope
from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Ask, Circuit, Option, Reading
from kameng_api.suppliers.routing.record import Shadow, remember
from kameng_api.suppliers.routing.shadow import shadow, tuning_with
from kameng_api.suppliers.routing.tuning import DEFAULT


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


def wire(order: Order) -> str:
    return public_id("ord", order.order_id)


async def test_every_choice_is_told_with_what_it_saw_and_the_attempt_it_led_to(counter: Counter, admin: Operator) -> None:
    order, first = await counter.buy()
    await counter.told(first, Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK))
    await counter.everything_due()
    [second] = await counter.dispatch()
    await counter.told(second, Delivered(1, cost=950_000))
    attempts = await counter.attempts(order)

    route = await ok(await admin.get(f"/orders/{wire(order)}/route"))
    assert (route["order_id"], route["sku"], route["status"]) == (wire(order), "phone", "succeeded")
    one, other = route["decisions"]
    assert (one["n"], one["action"], one["channel_id"], one["reason"]) == (1, "dispatch", "a", "BEST_VALUE")
    assert one["sentence"].startswith("a chosen: b is worth ")
    assert (one["attempt_id"], one["attempt_n"]) == (public_id("att", attempts[0].attempt_id), 1)
    assert [(c["channel_id"], c["code"], c["cost"]) for c in one["channels"]] == [("a", None, "90.0000"), ("b", None, "95.0000")]
    assert float(one["channels"][0]["value"]) > float(one["channels"][1]["value"]) > 0
    assert (other["n"], other["action"], other["channel_id"], other["reason"]) == (2, "dispatch", "b", "FAILOVER")
    assert other["sentence"] == "b chosen after a (out_of_stock)"
    assert [(c["channel_id"], c["code"], c["detail"]) for c in other["channels"]] == [
        ("a", "TRIED", "it was tried already (out_of_stock)"), ("b", None, None)
    ]  # fmt: skip
    assert other["attempt_id"] == public_id("att", attempts[1].attempt_id)

    case = await ok(await admin.get(f"/orders/{wire(order)}"))
    assert [(step["n"], step["sentence"]) for step in case["route"]] == [(1, one["sentence"]), (2, other["sentence"])]


async def test_an_open_circuit_is_told_as_it_was_seen(counter: Counter, admin: Operator) -> None:
    now = utc_now()
    ill = Reading(
        p=0.05, latency_s=20.0, circuit=Circuit.OPEN, nats=11.8, failures=4, silent=19, opened_at=now.timestamp() - 25,
        probed_at=now.timestamp() - 1, probe_at=now.timestamp() + 3, p_healthy=0.99, demand=0.5,
    )  # fmt: skip
    read = {"a": ill, "b": Reading(p=0.99)}
    known = UnderWay(read=lambda channel, _sku: read[channel])
    order = await counter.order()
    await counter.dispatch(under_way=lambda _now: known)
    [decision] = (await ok(await admin.get(f"/orders/{wire(order)}/route")))["decisions"]
    assert decision["channel_id"] == "b"
    assert decision["sentence"].startswith("b chosen: a would earn 5.00 more but its circuit is open since ")
    assert "(11.8 nats: 4 failures, 19 late answers; next probe " in decision["sentence"]
    [a, _] = decision["channels"]
    assert a["code"] == "CIRCUIT_OPEN"
    assert (a["circuit"]["state"], a["circuit"]["nats"], a["circuit"]["late_answers"]) == ("open", 11.8, 19)
    assert a["circuit"]["next_probe_at"] > a["circuit"]["opened_at"]


async def write(counter: Counter, order: Order, body: bytes | None, at: datetime | None = None, n: int = 7) -> None:
    """A choice as a dispatch writes it; `body` None: its inputs have been dropped."""
    inputs_id, now = new_ulid(), at or utc_now()
    row = RouteDecision(order.book_id, order.order_id, n, now, "dispatch", "a", "BEST_VALUE", inputs_id, 1)
    kept = RouteInputs(inputs_id if body is not None else new_ulid(), now, body or b"")
    async with counter.db.transaction() as tx:
        await sets.write(tx, parts_of_choices([kept], [row]))


async def test_a_shadow_that_differs_is_shown(counter: Counter, admin: Operator) -> None:
    order = await counter.order()
    ask = Ask("o", "phone", 1_000_000)
    options = [Option("a", 990_000, reading=Reading(circuit=Circuit.OPEN, p=0.1, probed_at=0.0, probe_at=0.0, demand=1.0))]
    decision = choose(ask, options, 100.0, 1)
    candidate = tuning_with({"probes_out": 0})
    other = shadow(ask, options, 100.0, 1, candidate, decision)
    assert other is not None
    await write(counter, order, remember(ask, options, 100.0, 1, DEFAULT, decision, None, Shadow(candidate, other)))
    [shown] = (await ok(await admin.get(f"/orders/{wire(order)}/route")))["decisions"]
    assert shown["tuning"] == DEFAULT.version
    assert shown["shadow"] == {
        "tuning": {"version": f"{DEFAULT.version}+", "probes_out": 0}, "agrees": False, "action": other.action, "channel_id": other.channel,
        "reason": other.reason,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "told"),
    [(None, route_shapes.GONE), (b"[9]", route_shapes.UNREADABLE), (b"", route_shapes.UNREADABLE)],
)
async def test_a_choice_whose_inputs_are_gone_or_damaged_is_still_told(counter: Counter, admin: Operator, body: bytes | None, told: str) -> None:
    order = await counter.order()
    await write(counter, order, body)
    [shown] = (await ok(await admin.get(f"/orders/{wire(order)}/route")))["decisions"]
    assert (shown["sentence"], shown["action"], shown["channel_id"], shown["channels"]) == (told, "dispatch", "a", [])


async def test_numbers_without_an_end_are_shown_as_nothing(counter: Counter, admin: Operator) -> None:
    order = await counter.order()
    ask, endless = Ask("o", "phone", 1_000_000), Reading(limit=float("inf"), opened_at=float("inf"), late_s=float("inf"))
    options = [Option("a", 990_000, reading=endless)]
    await write(counter, order, remember(ask, options, 100.0, 1, DEFAULT, choose(ask, options, 100.0, 1)))
    [shown] = (await ok(await admin.get(f"/orders/{wire(order)}/route")))["decisions"]
    assert (shown["channels"][0]["limit"], shown["channels"][0]["circuit"]["opened_at"]) == (None, None)


async def test_orders_that_have_not_been_decided_have_no_route(counter: Counter, admin: Operator, hire: Hire) -> None:
    order = await counter.order()
    assert (await ok(await admin.get(f"/orders/{wire(order)}/route")))["decisions"] == []
    assert (await ok(await admin.get(f"/orders/{wire(order)}")))["route"] == []
    assert (await (await hire("viewer")).get(f"/orders/{wire(order)}/route")).status_code == 200
    assert (await admin.get(f"/orders/{public_id('ord', new_ulid())}/route")).status_code == 404
    assert (await admin.get("/orders/nonsense/route")).status_code == 404


async def test_a_choice_made_after_midnight_is_found(counter: Counter, admin: Operator) -> None:
    """Rows lie by day: an order that waits over midnight has them on two."""
    order, _ = await counter.buy()
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT decided_at FROM route_decisions WHERE order_id = $1", order.order_id)
    await write(counter, order, b"", row["decided_at"] + timedelta(days=1), 86_400_000)
    first, second = (await ok(await admin.get(f"/orders/{wire(order)}/route")))["decisions"]
    assert (first["n"], first["decided_at"], second["n"]) == (1, wire_time(row["decided_at"]), 2)
    assert second["decided_at"] > first["decided_at"]
