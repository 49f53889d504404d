"""Whatever a dispatch decides, its row makes the same decision again to the last bit and says why."""

import random
from collections import Counter as Count
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.factories.counter import Counter, shop

from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, fetch
from kameng_api.orders.route_facts import UnderWay
from kameng_api.orders.rules import NO_EVIDENCE
from kameng_api.settings import Settings
from kameng_api.suppliers import route_queries as routes
from kameng_api.suppliers.port import Delivered, NotSent, RefusalReason, Refused, Scope, Unknown
from kameng_api.suppliers.routing.facts import Circuit, Reading
from kameng_api.suppliers.routing.record import is_same, recall, replay
from kameng_api.suppliers.routing.telling import tell


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings, money="1000000")


async def stored(counter: Counter) -> list[Any]:
    async with counter.db.transaction() as tx:
        return list(
            await fetch(
                tx,
                """SELECT d.*, i.body FROM route_decisions d JOIN route_inputs i ON i.inputs_id = d.inputs_id AND i.day = d.day
                ORDER BY d.decided_at, d.order_id""",
            )
        )


def _reading(rng: random.Random, now: float) -> Reading:
    """A channel that is well, busy, unsure or shut, as it happens."""
    if rng.random() < 0.3:
        return Reading(
            p=0.1 * rng.random(), latency_s=20.0, circuit=Circuit.OPEN, of_sku=rng.random() < 0.5, nats=5 + 9 * rng.random(), failures=4, silent=19,
            opened_at=now - 90, probed_at=now - 60 * rng.random(), probe_at=now - 30, p_healthy=0.97, demand=rng.random(),
        )  # fmt: skip
    return Reading(
        p=0.5 + rng.random() / 2, n=100 * rng.random(), latency_s=5 * rng.random(), doubt=0.1 * rng.random(), in_flight=rng.randrange(5),
        limit=rng.choice([None, 4.5]), inferred=False,
    )  # fmt: skip


async def _trouble(counter: Counter, rng: random.Random, costs: dict[str, int]) -> None:
    """One round in which channels are ill, full or out of reach, and answer what they like."""
    now = utc_now().timestamp()
    read = {channel: _reading(rng, now) for channel in costs}
    known = UnderWay(read=lambda channel, _sku: read[channel])
    for sent in await counter.dispatch(under_way=lambda _now: known, room={channel: rng.choice([0, 1, 100]) for channel in costs}):
        outcomes = [
            Delivered(1, cost=costs[sent.channel_id]),
            Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK),
            Refused(Scope.ORDER, RefusalReason.TARGET_INVALID),
            NotSent("refused"),
            Unknown("timeout"),
        ]
        await counter.told(sent, rng.choice(outcomes))
    await counter.everything_due()


async def test_every_decision_of_a_troubled_day_is_made_again(counter: Counter) -> None:
    rng = random.Random(3)
    costs = {"a": 900_000, "b": 930_000, "c": 950_000, "d": 1_010_000}
    counter.around = replace(counter.around, snapshot=shop(costs=costs))
    for n in range(40):
        await counter.order(f"PO-{n}", sku=rng.choice(["phone", "card"]))
        if n % 3 == 2:
            await _trouble(counter, rng, costs)
    await counter.order("PO-refused by all")
    for _ in range(4):
        for sent in await counter.dispatch():
            await counter.told(sent, Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK))
        await counter.everything_due()
    rows = await stored(counter)
    actions = Count(row["action"] for row in rows)
    assert min(actions["dispatch"], actions["hold"], actions["probe"], actions["give_up"]) >= 1
    assert len(rows) > 60
    for row in rows:
        found = recall(row["body"])
        assert is_same(replay(row["body"]), found.decision)
        assert (found.decision.action, found.decision.channel, found.decision.reason) == (row["action"], row["channel_id"], row["reason"])
        assert found.now == row["decided_at"].timestamp()
        assert tell(found)


async def test_every_attempt_has_its_decision(counter: Counter) -> None:
    order, sent = await counter.buy()
    await counter.told(sent, Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK))
    await counter.everything_due()
    await counter.dispatch()
    attempts = await counter.attempts(order)
    async with counter.db.transaction() as tx:
        decided = await routes.list_of_order(tx, order.book_id, order.order_id, order.created_at, None)
    assert [(one.attempt_id, one.attempt_n, one.channel_id) for one in decided] == [(a.attempt_id, a.n, a.channel_id) for a in attempts]


async def test_alike_orders_share_their_inputs_and_the_first_ones_ask(counter: Counter) -> None:
    for n in range(5):
        await counter.order(f"PO-{n}")
    await counter.dispatch()
    rows = await stored(counter)
    assert (len(rows), len({row["inputs_id"] for row in rows}), len({row["order_id"] for row in rows})) == (5, 1, 5)


async def test_a_period_is_loaded_in_parts_and_by_share(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_CHUNK", 3)
    for n in range(10):
        await counter.order(f"PO-{n}")
    for n, sent in enumerate(await counter.dispatch()):
        if n != 4:  # one stays open
            await counter.told(sent, Delivered(1, cost=900_000))
    begin, end = utc_now() - timedelta(hours=1), utc_now() + timedelta(hours=1)
    async with counter.db.transaction() as tx:
        whole = await routes.load_period(tx, begin, end, "test", NO_EVIDENCE)
        some = await routes.load_period(tx, begin, end, "test", NO_EVIDENCE, most=4)
        half = await routes.load_period(tx, begin, end, "test", NO_EVIDENCE, share=0.5)
        live = await routes.load_period(tx, begin, end, "live", NO_EVIDENCE)
        before = await routes.load_period(tx, begin - timedelta(hours=2), begin, "test", NO_EVIDENCE)
        events = await routes.load_events(tx, begin, end, "test", NO_EVIDENCE)
    assert (len(whole.ended), whole.unfinished, whole.cut, len(whole.inputs)) == (9, 1, False, 1)
    assert (len(some.ended) + some.unfinished, some.cut) == (4, True)
    assert 0 < len(half.ended) + half.unfinished < 10
    assert (live.ended, before.ended) == ([], [])
    assert all(order.undelivered == 0.0 and len(order.tried) == 1 and len(order.steps) == 1 for order in whole.ended)
    assert {(each.revenue, each.cost) for order in whole.ended for each in order.tried} == {(1_000_000, 900_000)}
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert len(events) == 10 + 9
