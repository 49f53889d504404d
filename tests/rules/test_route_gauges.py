"""What a graph shows of the channels, and what the house hears of them."""

from datetime import UTC, datetime
from math import exp
from uuid import UUID

import orjson
import pytest

from kameng_api.ledger.rules import HOUSE_LIVE, HOUSE_TEST
from kameng_api.outbox.rules import body_of
from kameng_api.suppliers import events
from kameng_api.suppliers.routing import gauges
from kameng_api.suppliers.routing.facts import Answered, Change, Circuit, Heard, Option, Sent
from kameng_api.suppliers.routing.gauges import Family, sample
from kameng_api.suppliers.routing.health import Health


def hear(health: Health, channel: str, sku: str, what: Heard, at: float) -> None:
    """One attempt and its answer half a second later."""
    attempt = f"{channel} {sku} {at}"
    health.observe(Sent(attempt, channel, sku, at))
    health.observe(Answered(attempt, channel, sku, at + 0.5, at, what))


def one(samples: dict[Family, list[gauges.Sample]], family: Family, *labels: str) -> float:
    [value] = [value for own, value in samples[family] if own == labels]
    return value


def test_an_ill_and_a_well_channel() -> None:
    health = Health()
    now = 1000.0
    for i in range(120):
        for channel, what in (("well", Heard.GOOD), ("ill", Heard.GOOD if i < 60 else Heard.BAD)):
            hear(health, channel, f"s{i % 3}", what, now)
        now += 1.0
        health.tend(now)
    health.observe(Sent("x", "well", "s0", now))
    options = {"s0": [Option("ill", 1, wallet=50_000), Option("well", 1, cap=7)], "s1": [Option("well", 1)], "u": [Option("new", 1)]}
    samples = sample(health, options, now + 1)
    assert one(samples, gauges.SUCCESS, "well") > 0.9 > 0.5 > one(samples, gauges.SUCCESS, "ill")
    assert (one(samples, gauges.CIRCUIT, "well"), one(samples, gauges.CIRCUIT, "ill"), one(samples, gauges.CIRCUIT, "new")) == (0.0, 1.0, 0.0)
    assert one(samples, gauges.EVIDENCE, "ill") > 5.0
    assert one(samples, gauges.IN_FLIGHT, "well") == 1.0
    assert one(samples, gauges.LIMIT, "well") == 7.0
    assert [labels for labels, _ in samples[gauges.LIMIT]] == [("well",)], "no limit known: no sample"
    assert samples[gauges.ROUTE_WALLET] == [(("ill",), 5.0)]
    assert set(samples) == set(gauges.FAMILIES)
    for family, each in samples.items():
        assert len({labels for labels, _ in each}) == len(each), family
        assert all(len(labels) == len(family.labels) for labels, _ in each), family


def test_a_sick_sku_is_counted_and_its_channel_is_not_open() -> None:
    health = Health()
    now = 1000.0
    for i in range(80):
        for sku, what in (("s", Heard.GOOD), ("t", Heard.GOOD), ("u", Heard.BAD if i > 40 else Heard.GOOD)):
            hear(health, "c", sku, what, now)
        now += 1.0
        health.tend(now)
    samples = sample(health, {sku: [Option("c", 1)] for sku in "stu"}, now)
    assert (one(samples, gauges.CIRCUIT, "c"), one(samples, gauges.OPEN_SKUS, "c")) == (0.0, 1.0)


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 0.3), (1.0, 0.7), (-1.0, 1.2)])
def test_the_median_is_that_of_the_law(mu: float, sigma: float) -> None:
    mean_s, late_s = exp(mu + sigma * sigma / 2), exp(mu + 1.645 * sigma)
    assert gauges._median_s(mean_s, late_s) == pytest.approx(exp(mu))


def test_a_slow_minute_does_not_break_the_quantiles() -> None:
    assert gauges._median_s(50.0, 10.0) == 50.0
    assert gauges._median_s(1.0, 1000.0) == 1.0


# ---- facts -----------------------------------------------------------------------------------------------------------

AT = datetime(2026, 11, 22, 14, 2, 11, tzinfo=UTC)


def test_a_circuit_that_opens_and_closes_is_told_to_the_house() -> None:
    opened = Change("sim-a", None, Circuit.OPEN, AT.timestamp(), 11.84, 4, 19)
    fact = events.fact_of_change(opened, "live")
    assert (fact.book_id, fact.type, fact.object_id, fact.order_id, fact.notify_url) == (HOUSE_LIVE, "channel.opened", "sim-a", None, None)
    assert orjson.loads(fact.object_json) == {
        "id": "sim-a", "object": "channel", "environment": "live", "at": "2026-11-22T14:02:11.000Z", "sku": None, "circuit": "open",
        "evidence_nats": 11.84, "failures": 4, "late_answers": 19,
    }  # fmt: skip
    closed = events.fact_of_change(Change("sim-a", "phone", Circuit.CLOSED, AT.timestamp() + 60, 0.0, 0, 0), "test")
    assert (closed.book_id, closed.type, closed.version > fact.version) == (HOUSE_TEST, "channel.closed", True)
    assert 0 < fact.version < 2**31
    assert orjson.loads(body_of(closed, UUID(int=1), AT))["data"]["object"]["sku"] == "phone"


def test_a_low_wallet_is_told_in_currency_units() -> None:
    fact = events.fact_of_low_wallet("sim-a", "live", "CNY", 1_234_500, 2_000_000, AT)
    assert fact.type == "channel.wallet_low"
    found = orjson.loads(fact.object_json)
    assert (found["balance"], found["low_at"], found["currency"]) == ("123.4500", "200.0000", "CNY")


def test_the_alarm_names_the_circuit() -> None:
    assert events.alarm_of_change(Change("sim-a", "phone", Circuit.OPEN, 0.0, 11.8, 4, 19)) == (
        "sim-a phone", "11.8 nats of evidence: 4 failures, 19 late answers; asked by probes only"
    )  # fmt: skip
