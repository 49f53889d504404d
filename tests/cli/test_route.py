"""`kameng route why | replay | backtest` as people type them, on the rows of real dispatches."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from sqlalchemy.engine import make_url
from tests.cli.test_cli import Kameng, kameng
from tests.factories.counter import Counter

from kameng_api.kit import sets
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.orders.route_facts import UnderWay
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.suppliers.actions import RouteDecision, RouteInputs, parts_of_choices
from kameng_api.suppliers.port import Delivered, RefusalReason, Refused, Scope
from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Ask, Decision, Option, Reading
from kameng_api.suppliers.routing.record import Shadow, recall, remember
from kameng_api.suppliers.routing.shadow import shadow, tuning_with
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

__all__ = ["kameng"]


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings, money="1000000")


def wire(order: Order) -> str:
    return public_id("ord", order.order_id)


async def failed_over(counter: Counter) -> Order:
    """An order that `a` refused and `b` delivered."""
    order, first = await counter.buy()
    await counter.told(first, Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK))
    await counter.everything_due()
    [second] = await counter.dispatch()
    assert await counter.told(second, Delivered(1, cost=950_000)) == "succeeded"
    return order


async def test_why_says_one_sentence_per_step(kameng: Kameng, counter: Counter) -> None:
    order = await failed_over(counter)
    lines = (await kameng("route", "why", wire(order), plain=True)).out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1. 20")
    assert " a chosen: b is worth " in lines[0]
    assert lines[1].endswith(" b chosen after a (out_of_stock)")
    steps = (await kameng("route", "why", wire(order))).json["items"]
    assert [(step["n"], step["channel_id"], step["attempt_n"]) for step in steps] == [(1, "a", 1), (2, "b", 2)]
    waiting = await counter.order("PO-2")
    assert (await kameng("route", "why", wire(waiting), plain=True)).out == "no choice has been written down\n"
    assert (await kameng("route", "why", public_id("ord", new_ulid()))).status == 2


async def test_every_stored_choice_is_made_again(kameng: Kameng, counter: Counter) -> None:
    order = await failed_over(counter)
    ended = await kameng("route", "replay", wire(order))
    again = ended.json["items"]
    assert [(one["n"], one["same"], one["decided"]) for one in again] == [(1, True, "dispatch a"), (2, True, "dispatch b")]
    [alone] = (await kameng("route", "replay", again[0]["inputs_id"])).json["items"]
    assert (alone["same"], alone["differences"]) == (True, [])
    assert (await kameng("route", "replay", public_id("rti", new_ulid()))).status == 2


async def write(counter: Counter, order: Order, body: bytes, *, says: str = "a", kept: bool = True) -> str:
    """A choice beside those of real dispatches; returns the id of its inputs."""
    inputs_id, now = new_ulid(), utc_now()
    row = RouteDecision(order.book_id, order.order_id, 7, now, "dispatch", says, "ONLY_ELIGIBLE", inputs_id, 1)
    async with counter.db.transaction() as tx:
        await sets.write(tx, parts_of_choices([RouteInputs(inputs_id if kept else new_ulid(), now, body)], [row]))
    return public_id("rti", inputs_id)


def only_a() -> tuple[Ask, list[Option], Decision]:
    ask, options = Ask("o", "phone", 1_000_000), [Option("a", 970_000)]
    return ask, options, choose(ask, options, 100.0, 1)


async def test_a_choice_that_would_be_another_now_ends_with_one_and_says_what(kameng: Kameng, counter: Counter) -> None:
    order = await counter.order()
    ask, options, decision = only_a()
    row = orjson.loads(remember(ask, options, 100.0, 1, DEFAULT, decision))
    row[7][4][0][2] += 1e-9  # the value of the only channel, by less than anybody would see
    inputs_id = await write(counter, order, orjson.dumps(row))
    ended = await kameng("route", "replay", wire(order))
    assert ended.status == 1
    [one] = json.loads(ended.out)["items"]
    assert one["same"] is False
    assert one["differences"][0].startswith("a value: stored ")
    assert (await kameng("route", "replay", inputs_id, plain=True)).status == 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [({"says": "b"}, "the order's row says dispatch b"), ({"kept": False}, "no longer kept"), ({"body": b"[]"}, "cannot be read")],
)
async def test_a_choice_that_cannot_be_made_again_ends_with_one(kameng: Kameng, counter: Counter, damage: dict[str, Any], told: str) -> None:
    order = await counter.order()
    ask, options, decision = only_a()
    await write(counter, order, **{"body": remember(ask, options, 100.0, 1, DEFAULT, decision)} | damage)
    ended = await kameng("route", "replay", wire(order))
    assert ended.status == 1
    assert told in ended.out


async def test_an_order_without_choices_was_not_replayed(kameng: Kameng, counter: Counter) -> None:
    assert (await kameng("route", "replay", wire(await counter.order()))).status == 1


# ---- backtest --------------------------------------------------------------------------------------------------------


def since_an_hour() -> tuple[str, ...]:
    begin, end = utc_now() - timedelta(hours=1), utc_now() + timedelta(hours=1)
    return "route", "backtest", "-e", "test", "--from", begin.isoformat(), "--to", end.isoformat()


async def sell(counter: Counter, orders: int) -> None:
    """Some orders, every fifth refused by `a` and delivered by `b`; the last stays open."""
    for n in range(orders):
        await counter.order(f"PO-{n}")
    for n, sent in enumerate(await counter.dispatch()):
        if n == orders - 1:
            break
        await counter.told(sent, Delivered(1, cost=900_000) if n % 5 else Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK))
    await counter.everything_due()
    for sent in await counter.dispatch():
        await counter.told(sent, Delivered(1, cost=950_000))


async def test_the_same_tuning_is_worth_what_really_came(kameng: Kameng, counter: Counter) -> None:
    await sell(counter, 11)
    answer = (await kameng(*since_an_hour())).json
    assert (answer["left_out"], answer["cut"], answer["readings"]) == (1, False, "as recorded")
    [result] = answer["results"]
    value = result["value_per_1000_orders"]
    assert (result["currency"], result["orders"], result["choices"]) == ("CNY", 10, 12)
    assert result["matched"] == {"current": 1.0, "candidate": 1.0}
    # 8 earn 10, 2 earn 5 after a refusal that costs a thousandth of 100; the seconds of waiting cost next to nothing.
    assert 8970 < value["recorded"]["mean"] <= (8 * 10 + 2 * (5 - 0.1)) * 100
    assert value["recorded"] == value["current"] == value["candidate"]
    assert value["candidate_less_current"]["mean"] == 0.0
    assert result["first_differences"] == []


async def test_a_candidate_that_differs_is_estimated_and_the_output_says_so(kameng: Kameng, counter: Counter, tmp_path: Path) -> None:
    """An order waits while both channels are full; the candidate may not hold, and would have gone to the cheaper one at once."""
    await counter.order("PO-1")
    full = UnderWay(read=lambda channel, sku: Reading(in_flight=10, limit=10.0, inferred=False))
    assert await counter.dispatch(under_way=lambda now: full) == []
    await counter.everything_due()
    [sent] = await counter.dispatch()
    await counter.told(sent, Delivered(1, cost=900_000))
    file = tmp_path / "candidate.json"
    file.write_text('{"hold": false}')
    for tuning in (str(file), "hold=false", '{"hold": false}'):
        answer = (await kameng(*since_an_hour(), "--tuning", tuning)).json
        assert answer["candidate"] == {"version": f"{DEFAULT.version}+", "hold": False}
        [result] = answer["results"]
        assert result["matched"] == {"current": 1.0, "candidate": 0.0}
        assert result["first_differences"] == [{"change": "hold -> dispatch a", "orders": 1}]
        # Ten earned at a chance of 0.95, with b behind it, and the five seconds that it is thought to take.
        assert 9000 < result["value_per_1000_orders"]["candidate"]["mean"] < 10_000
    plain = (await kameng(*since_an_hour(), "--tuning", "hold=false", plain=True)).out
    assert "too few to say how sure" in plain
    assert "0.0% of the orders as recorded, the rest estimated" in plain
    assert "trust them no further than" in plain


async def test_a_candidate_that_reads_otherwise_gets_readings_of_its_own(kameng: Kameng, counter: Counter) -> None:
    await sell(counter, 6)
    answer = (await kameng(*since_an_hour(), "--tuning", "h_min=3.0")).json
    assert answer["readings"].startswith("folded anew")
    [result] = answer["results"]
    assert result["orders"] == 5


async def test_the_shadow_that_ran_is_judged_where_it_ran(kameng: Kameng, counter: Counter, settings: Settings) -> None:
    await sell(counter, 4)
    assert (await kameng(*since_an_hour(), "--shadow")).json["results"] == []
    await _let_a_shadow_have_run(settings, tuning_with({"look_ahead": False}))
    answer = (await kameng(*since_an_hour(), "--shadow")).json
    assert answer["candidate"] == "the recorded shadow"
    [result] = answer["results"]
    assert (result["orders"], result["without_shadow"], result["matched"]["candidate"]) == (3, 0, 1.0)


async def _let_a_shadow_have_run(settings: Settings, candidate: Tuning) -> None:
    """Rewrites the recorded inputs, as the owner: the application itself cannot change what it has decided."""
    assert settings.database_owner_url is not None
    url = make_url(settings.database_owner_url.get_secret_value()).set(drivername="postgresql")
    owner = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        for row in await owner.fetch("SELECT inputs_id, body FROM route_inputs"):
            it = recall(row["body"])
            other = Shadow(candidate, shadow(it.ask, it.options, it.now, it.seed, candidate, it.decision))
            body = remember(it.ask, it.options, it.now, it.seed, it.tuning, it.decision, None, other)
            await owner.execute("UPDATE route_inputs SET body = $2 WHERE inputs_id = $1", row["inputs_id"], body)
    finally:
        await owner.close()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--tuning", "h_minimum=3"), "a tuning has no 'h_minimum'"),
        (("--tuning", "h_min=much"), "h_min"),
        (("--tuning", "hold=1"), "hold wants bool"),
        (("--tuning", "/nowhere.json"), "--tuning"),
        (("--shadow", "--tuning", "h_min=3"), "takes no --tuning"),
        (("--from", "yesterday"), "--from wants a time"),
        (("--to", "2026-11-22T12:00:00"), "--to wants a time"),
    ],
)
async def test_mistakes_end_with_two_and_a_sentence(kameng: Kameng, more: tuple[str, ...], told: str) -> None:
    ended = await kameng(*since_an_hour(), *more)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err


async def test_an_empty_period_says_so(kameng: Kameng) -> None:
    assert "Nothing to compare" in (await kameng(*since_an_hour(), plain=True)).out
