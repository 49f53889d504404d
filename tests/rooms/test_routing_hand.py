"""The operator's hand on routing: what people have said, as rows, as a snapshot, and as the router's own words."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.factories import listing
from tests.factories.counter import Counter
from tests.rooms.test_catalog import KEYRING, TOPUP, add_merchant

from kameng_api.catalog import actions, hand, hand_definitions, queries
from kameng_api.catalog.errors import ChannelUnknown, ProductUnknown, RuleUnknown
from kameng_api.catalog.hand import Buyer, Counted, Facts, Hand, Period, Rule, Scope
from kameng_api.catalog.rules import Channel, Offer, Product, Snapshot
from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid
from kameng_api.kit.ids import new_ulid
from kameng_api.orders.route_facts import UnderWay, ask_of, options_of
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.suppliers import volumes
from kameng_api.suppliers.port import Delivered
from kameng_api.suppliers.routing import commitments
from kameng_api.suppliers.routing.facts import Circuit, Reading, Weights

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)  # a Sunday, 20:00 in Shanghai
HOUR = timedelta(hours=1)
ANNA, BO = UUID(int=1), UUID(int=2)
GOLDEN = Buyer(ANNA, "gold")


def said(facts: Facts, channel: str | None = None, sku: str | None = None, **more: Any) -> Rule:
    scope = Scope(channel, sku, more.pop("merchant", None), more.pop("level", None), more.pop("name", ""))
    return Rule(new_ulid(), scope, facts, "because", "ann", **({"created_at": NOW - HOUR} | more))


def told(*rules: Rule) -> Hand:
    return hand.gather(rules)


# ---- what counts ---------------------------------------------------------------------------------------------------


def test_the_narrowest_pin_wins() -> None:
    rules = told(
        said(hand.Pin(("all",))),
        said(hand.Pin(("sku",)), sku="a"),
        said(hand.Pin(("level",)), level="gold"),
        said(hand.Pin(("level-sku",), hard=True), sku="a", level="gold"),
        said(hand.Pin(("own",)), merchant=BO),
    )
    expected = [
        (GOLDEN, "a", "level-sku"), (GOLDEN, "b", "level"), (Buyer(BO, "gold"), "a", "own"),
        (Buyer(None, "common"), "a", "sku"), (Buyer(None, "common"), "b", "all"),
    ]  # fmt: skip
    for buyer, sku, channel in expected:
        pin = hand.pin_of(rules, buyer, sku, NOW)
        assert pin is not None and pin.channels == (channel,), (buyer, sku)
    assert rules.personal and not told(said(hand.Pin(("x",)))).personal


def test_bans_add_up_and_every_allow_list_holds() -> None:
    rules = told(
        said(hand.Ban(), "one"),
        said(hand.Ban(), "two", merchant=ANNA),
        said(hand.Ban(), "three", sku="b"),
        said(hand.Allow(("one", "two", "three")), level="gold"),
        said(hand.Allow(("two", "four")), sku="a"),
    )
    assert hand.banned_channels(rules, GOLDEN, "a", NOW) == {"one", "two"}
    assert hand.banned_channels(rules, Buyer(BO, "gold"), "b", NOW) == {"one", "three"}
    assert hand.allowed_channels(rules, GOLDEN, "a", NOW) == {"two"}
    assert hand.allowed_channels(rules, GOLDEN, "b", NOW) == {"one", "two", "three"}
    assert hand.allowed_channels(rules, Buyer(BO, "common"), "b", NOW) is None


def test_what_has_not_begun_or_has_ended_says_nothing() -> None:
    rules = told(said(hand.Force("open"), "one", starts_at=NOW, expires_at=NOW + HOUR), said(hand.Weight(2_000_000), "one", expires_at=NOW))
    seconds = [-1, 0, 3599, 3600]
    assert [hand.forced_state(rules, "one", "a", NOW + timedelta(seconds=s)) for s in seconds] == [None, "open", "open", None]
    assert [hand.weight_of(rules, "one", "a", NOW + timedelta(seconds=s)) for s in (-1, 0)] == [2.0, 1.0]


def test_a_skus_word_about_a_channel_goes_before_the_channels() -> None:
    rules = told(
        said(hand.Force("open"), "one"),
        said(hand.Force("closed"), "one", "a"),
        said(hand.Terms(regions=("gd",), quote_ttl_s=600, cap=5), "one"),
        said(hand.Terms(regions=("gd", "bj")), "one", "a"),
    )
    assert [hand.forced_state(rules, "one", sku, NOW) for sku in ("a", "b")] == ["closed", "open"]
    assert hand.terms_of(rules, "one", "a", NOW) == hand.Terms(regions=("gd", "bj"), quote_ttl_s=600, cap=5)
    assert hand.terms_of(rules, "two", "a", NOW) == hand.Terms()


def test_stakes_and_needs_come_from_several_rules() -> None:
    rules = told(
        said(hand.Stakes(undelivered_ppm=50_000, second_ppm=10)),
        said(hand.Stakes(second_ppm=500, premium=True), level="gold"),
        said(hand.Needs(region="gd", qualifications=("invoice",)), sku="a"),
        said(hand.Needs(qualifications=("id-card",)), merchant=ANNA),
    )
    assert hand.stakes_of(rules, GOLDEN, "a", NOW) == hand.Stakes(50_000, None, 500, True)
    assert hand.needs_of(rules, GOLDEN, "a", NOW) == hand.Needs("gd", None, ("id-card", "invoice"))


@pytest.mark.parametrize(
    ("now", "wait_s"),
    [
        ("2026-11-22T17:00:00Z", 3600.0),  # Monday 01:00 in Shanghai
        ("2026-11-22T18:00:00Z", 0.0),
        ("2026-11-22T19:29:59Z", -5399.0),
        ("2026-11-22T19:30:00Z", None),  # over; the next one is a week away
        ("2026-11-28T18:00:00Z", 86_400.0),
        ("2026-11-28T17:59:59Z", None),
    ],
)
def test_a_weekly_window(now: str, wait_s: float | None) -> None:
    rules = told(said(hand.Maintenance((0,), time(2), 90), "one"))
    assert hand.maintenance_in_s(rules, "one", "a", datetime.fromisoformat(now)) == wait_s
    assert hand.maintenance_in_s(rules, "two", "a", datetime.fromisoformat(now)) is None


def test_a_window_that_passes_midnight_and_one_in_a_zone_that_changes_its_clock() -> None:
    late = told(said(hand.Maintenance((5,), time(23, 30), 120), "one"))
    assert hand.maintenance_in_s(late, "one", "a", datetime(2026, 11, 21, 17, 0, tzinfo=UTC)) == -5400.0  # Sunday 01:00
    berlin = told(said(hand.Maintenance((0,), time(2), 60, "Europe/Berlin"), "one"))
    for at in (datetime(2026, 10, 19, 0, tzinfo=UTC), datetime(2026, 10, 26, 1, tzinfo=UTC)):  # before and after the hour is given back
        assert hand.maintenance_in_s(berlin, "one", "a", at) == 0.0


def test_a_window_once_and_the_nearest_of_several() -> None:
    once = said(hand.Maintenance(), "one", starts_at=NOW + HOUR, expires_at=NOW + 2 * HOUR)
    rules = told(once, said(hand.Maintenance(tuple(range(7)), time(23), 30), "one", "a"))
    assert [hand.maintenance_in_s(rules, "one", "b", NOW + n * HOUR) for n in range(3)] == [3600.0, 0.0, None]
    assert hand.maintenance_in_s(rules, "one", "a", NOW + 2 * HOUR) == 3600.0
    assert not hand.counts_now(once, NOW) and hand.counts_now(once, NOW + HOUR)


def test_periods_begin_in_the_businesss_time_zone() -> None:
    late = datetime(2026, 11, 30, 16, 30, tzinfo=UTC)  # Tuesday 1 December, 00:30
    assert hand.period_days(Period.DAY, late) == (date(2026, 12, 1), date(2026, 12, 2))
    assert hand.period_days(Period.WEEK, late) == (date(2026, 11, 30), date(2026, 12, 7))
    assert hand.period_days(Period.MONTH, late) == (date(2026, 12, 1), date(2027, 1, 1))
    assert hand.elapsed_share(Period.DAY, datetime(2026, 11, 30, 22, 0, tzinfo=UTC)) == 0.25


def test_a_commitment_is_worth_more_the_further_it_lags() -> None:
    lags = [commitments.lag(1000, done, 0.5) for done in (1000, 500, 499, 450, 390, 0)]
    assert lags[:2] == [0.0, 0.0] and lags == sorted(lags) and lags[-2:] == [1.0, 1.0]
    assert 0 < lags[2] < 0.05 and 0.4 < lags[3] < 0.6
    assert commitments.lag(1000, 0, 0.0) == 0.0
    assert commitments.lag(1000, 960, 0.99) == 1.0, "a twentieth is missing and no time is left"
    assert commitments.lag(1000, 999, 1.5) == 1.0
    assert commitments.bonus(1_000_000, 5_000, 0.5) == 2_500


# ---- mistakes ------------------------------------------------------------------------------------------------------

AT = {"expires_at": NOW + HOUR}


@pytest.mark.parametrize(
    ("rule", "pointers"),
    [
        (said(hand.Pin(("a", "b")), "one"), ["/channel_id"]),
        (said(hand.Pin(())), ["/channels"]),
        (said(hand.Pin(("a", "a"))), ["/channels/1"]),
        (said(hand.Ban()), ["/channel_id"]),
        (said(hand.Ban(), "one", merchant=ANNA, level="gold"), ["/level"]),
        (said(hand.Ban(), "one", level="Gold!"), ["/level"]),
        (said(hand.Ban(), "one", name="x"), ["/name"]),
        (said(hand.Allow(("a",))), ["/sku"]),
        (said(hand.Weight(10_000_001), "one"), ["/factor"]),
        (said(hand.Weight(1), "one", merchant=ANNA), ["/merchant_id"]),
        (said(hand.Commitment(0, Counted.UNITS, Period.DAY, 0), "one"), ["/target_units", "/bonus_rate"]),
        (said(hand.Force("closed"), "one"), ["/expires_at"]),
        (said(hand.Force("closed"), "one", expires_at=NOW + timedelta(days=32)), ["/expires_at"]),
        (said(hand.Force("ajar"), "one", **AT), ["/state"]),
        (said(hand.Ban(), "one", expires_at=NOW), ["/expires_at"]),
        (said(hand.Ban(), "one", starts_at=NOW + HOUR, expires_at=NOW + HOUR), ["/expires_at"]),
        (said(hand.Ban(), "one", expires_at=datetime(9999, 1, 1, tzinfo=UTC)), ["/expires_at"]),
        (said(hand.Maintenance(), "one"), ["/expires_at"]),
        (said(hand.Maintenance(at=time(2)), "one", **AT), ["/weekdays"]),
        (said(hand.Maintenance((0, 7), None, 0, "Nowhere/City"), "one"), ["/weekdays", "/at", "/minutes", "/timezone"]),
        (said(hand.Maintenance((1, 1), time(2), 1441), "one"), ["/weekdays", "/minutes"]),
        (said(hand.Stakes()), ["/undelivered_rate"]),
        (said(hand.Stakes(second_ppm=-1)), ["/second_rate"]),
        (said(hand.Terms(), "one"), ["/"]),
        (said(hand.Terms(cap=1, qps=0), "one", "a"), ["/cap", "/qps", "/qps"]),
        (said(hand.Terms(regions=(), carriers=("a b",)), "one"), ["/carriers", "/regions"]),
        (said(hand.Terms(face_min=2, face_max=1), "one"), ["/face_max"]),
        (said(hand.Needs(), sku="a"), ["/"]),
        (said(hand.Needs(region="gd\n")), ["/sku", "/region"]),
        (replace(said(hand.Ban(), "one"), reason=" "), ["/reason"]),
    ],
)
def test_mistakes_are_found_at_once_with_their_places(rule: Rule, pointers: list[str]) -> None:
    assert [error.pointer for error in hand_definitions.check_rule(rule, NOW)] == pointers


def test_stored_facts_read_back_as_they_were_said() -> None:
    every: list[Facts] = [
        hand.Pin(("a", "b"), True), hand.Ban(), hand.Allow(("a",)), hand.Weight(1_500_000),
        hand.Commitment(10, Counted.COST, Period.WEEK, 5_000), hand.Maintenance((0, 6), time(2, 30), 90), hand.Maintenance(),
        hand.Force("open"), hand.Stakes(premium=False), hand.Terms(regions=("gd",), qualifications=()), hand.Needs("gd", None, ("x",)),
    ]  # fmt: skip
    assert {hand.KINDS[type(facts)] for facts in every} == set(hand.Kind)
    for facts in every:
        assert hand.read_facts(hand.KINDS[type(facts)], hand.write_facts(facts)) == facts


# ---- the router's words --------------------------------------------------------------------------------------------


def catalogue(*rules: Rule) -> Snapshot:
    offers = (
        Offer("one", "a", "code-1", unit_cost=900_000, stock=9, quoted_at=NOW - HOUR),
        Offer("two", "a", "code-2", unit_cost=950_000, status="disabled"),
        Offer("other", "a", "code-3", unit_cost=1),
    )
    return Snapshot(
        products={"a": Product("a", "A", "topup", face_value=1_000_000, target_kind="mobile")},
        offers={"a": offers},
        channels={
            "two": Channel("two", "Two", "simulator", "test"),
            "one": Channel("one", "One", "simulator", "test", wallet_balance=5_000_000),
            "other": Channel("other", "Other", "simulator", "live"),
        },
        hand=told(*rules),
    )


def test_options_tell_the_router_everything_but_who_orders() -> None:
    promise = said(hand.Commitment(100, Counted.UNITS, Period.DAY, 10_000), "one")
    snapshot = catalogue(
        promise,
        said(hand.Weight(500_000), "one", "a"),
        said(hand.Force("open"), "one", expires_at=NOW + HOUR),
        said(hand.Maintenance(), "one", starts_at=NOW + HOUR, expires_at=NOW + 2 * HOUR),
        said(
            hand.Terms(("gd",), ("cmcc",), 10_000, None, ("invoice",), 600, 7, 3, 1_000_000, 2_000_000),
            "one",
        ),
    )
    known = Reading(p=0.5)
    under_way = UnderWay(
        frozenset({"one"}), {"one": 1_000_000}, {("one", "a"): 4}, {"one": 2}, {promise.rule_id: 0},
        lambda channel, sku: known if (channel, sku) == ("one", "a") else Reading(),
    )  # fmt: skip
    one, two = options_of(snapshot, "a", "test", 2, None, NOW, under_way)
    assert (one.channel, one.cost, one.product_code, one.enabled) == ("one", 1_800_000, "code-1", True)
    assert (one.stock, one.wallet, one.wallet_floor) == (5, 4_000_000, 1_000_000)
    assert (one.quote_age_s, one.quote_ttl_s, one.maintenance_in_s) == (3600.0, 600.0, 3600.0)
    assert (one.queryable, one.value_limit, one.cap, one.qps, one.sent_last_second) == (False, 2_000_000, 7, 3.0, 2)
    assert (one.regions, one.carriers, one.qualifications) == ({"gd"}, {"cmcc"}, {"invoice"})
    assert one.face_values is not None and one.face_values[0] == 10_000 and one.face_values[1] >= 10**15
    assert (one.forced, one.weight, one.bonus, one.reading) == (Circuit.OPEN, 0.5, 18_000, known)
    assert (two.channel, two.enabled, two.stock, two.wallet, two.queryable, two.reading) == ("two", False, None, None, True, Reading())
    assert (two.forced, two.weight, two.bonus, two.cap, two.regions) == (None, 1.0, 0, None, None)
    assert [o.channel for o in options_of(snapshot, "a", "live", 1, None, NOW)] == ["other"]
    assert options_of(snapshot, "b", "test", 1, None, NOW) == []


def an_order(**more: Any) -> Order:
    times = {"deadline_at": NOW + HOUR, "created_at": NOW - timedelta(seconds=30)}
    return Order(1, new_ulid(), "PO-1", b"", "test", "a", "topup", 3, 1_000_000, 3_000_000, "CNY", **(times | more))


def test_an_ask_tells_the_router_who_orders_and_what_is_at_stake() -> None:
    snapshot = catalogue(
        said(hand.Pin(("two", "one"), hard=True), merchant=ANNA),
        said(hand.Ban(), "one", level="gold"),
        said(hand.Allow(("one", "two")), sku="a"),
        said(hand.Stakes(undelivered_ppm=60_000, premium=True), level="gold"),
        said(hand.Needs("gd", "cmcc", ("invoice",)), sku="a"),
    )
    ask = ask_of(snapshot, an_order(committed_units=1), NOW, buyer=GOLDEN, attempts=2, tried={"one": "refused"}, carrier="cucc")
    assert (ask.sku, ask.price, ask.units, ask.age_s, ask.left_s, ask.attempts, ask.tried) == (
        "a", 2_000_000, 2, 30.0, 3600.0, 2, {"one": "refused"},
    )  # fmt: skip
    assert (ask.pins, ask.pin_hard, ask.banned, ask.allowed) == (("two", "one"), True, {"one"}, {"one", "two"})
    assert (ask.weights, ask.premium) == (Weights(60_000, 1_000, 100), True)
    assert (ask.region, ask.carrier, ask.qualifications, ask.face_value) == ("gd", "cucc", {"invoice"}, 1_000_000)
    stranger = ask_of(snapshot, an_order(), NOW)
    assert (stranger.pins, stranger.banned, stranger.weights, stranger.premium) == ((), frozenset(), Weights(), False)


# ---- rows ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def db(database: Database) -> AsyncIterator[Database]:
    """A product, two channels that offer it, and Anna."""
    await add_merchant(database, ANNA, 1001, level="gold")
    async with database.transaction() as tx:
        await actions.put_product(tx, TOPUP)
        for channel in ("one", "two"):
            await actions.create_channel(tx, KEYRING, actions.NewChannel(channel, channel, "simulator", "live", b"{}"))
            await actions.set_offer(tx, Offer(channel, TOPUP.sku, "code", rate_ppm=900_000))
    yield database


async def put(db: Database, rule: Rule) -> tuple[Rule, bool]:
    async with db.transaction() as tx:
        [clock] = await fetch(tx, "SELECT now() AS now")
        return await actions.put_rule(tx, rule, clock["now"])


async def test_a_rule_is_in_the_next_snapshot_and_saying_it_again_replaces_it(db: Database) -> None:
    async with db.transaction() as tx:
        before = await queries.load_snapshot(tx)
    first, new = await put(db, said(hand.Pin(("two",)), sku=TOPUP.sku, merchant=ANNA))
    assert new
    second, new = await put(db, said(hand.Pin(("one", "two"), hard=True), sku=TOPUP.sku, merchant=ANNA))
    assert (new, second.rule_id, second.created_at) == (False, first.rule_id, first.created_at)
    await put(db, said(hand.Pin(("two",)), sku=TOPUP.sku))
    async with db.transaction() as tx:
        after = await queries.reload(tx, before)
        assert after.version > before.version
        assert hand.pin_of(after.hand, GOLDEN, TOPUP.sku, NOW) == hand.Pin(("one", "two"), True)
        assert hand.pin_of(after.hand, Buyer(BO, "gold"), TOPUP.sku, NOW) == hand.Pin(("two",))
        assert await queries.reload(tx, after) is after
        await actions.remove_rule(tx, first.rule_id)
        last = await queries.reload(tx, after)
        assert hand.pin_of(last.hand, GOLDEN, TOPUP.sku, NOW) == hand.Pin(("two",))
        with pytest.raises(RuleUnknown):
            await actions.remove_rule(tx, first.rule_id)


async def test_several_windows_of_one_channel_have_names(db: Database) -> None:
    for name, day in (("", 0), ("second", 1), ("second", 2)):
        await put(db, said(hand.Maintenance((day,), time(2), 60), "one", name=name))
    async with db.transaction() as tx:
        found = await queries.list_rules(tx, kind="maintenance", channel_id="one")
    assert [(one.scope.name, one.facts) for one in found] == [
        ("", hand.Maintenance((0,), time(2), 60)),
        ("second", hand.Maintenance((2,), time(2), 60)),
    ]


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (said(hand.Ban(), "nowhere"), ChannelUnknown),
        (said(hand.Ban(), "one", "nothing"), ProductUnknown),
        (said(hand.Ban(), "one", merchant=BO), Invalid),
        (said(hand.Pin(("one", "nowhere"))), Invalid),
        (said(hand.Force("open"), "one"), Invalid),
    ],
)
async def test_what_a_rule_names_must_exist(db: Database, rule: Rule, error: type[Exception]) -> None:
    with pytest.raises(error):
        await put(db, rule)
    async with db.transaction() as tx:
        assert await queries.list_rules(tx, over=True) == []


async def test_what_has_ended_leaves_the_snapshot_and_later_the_table(db: Database) -> None:
    await put(db, said(hand.Ban(), "one"))
    await put(db, said(hand.Force("open"), "one", expires_at=datetime.now(UTC) + HOUR))
    async with db.transaction() as tx:
        await execute(tx, "UPDATE routing_rules SET expires_at = now() - interval '40 days' WHERE kind = 'force'")
        assert [one.kind for one in await queries.list_rules(tx)] == ["ban"]
        assert [one.kind for one in await queries.list_rules(tx, over=True)] == ["ban", "force"]
        assert "force" not in (await queries.load_snapshot(tx)).hand.about_channels.get("one", {})
        assert await actions.prune_rules(tx, days=41) == 0
        assert await actions.prune_rules(tx, days=30) == 1
        assert [one.kind for one in await queries.list_rules(tx, over=True)] == ["ban"]


async def test_buyers_are_found_by_book(db: Database) -> None:
    async with db.transaction() as tx:
        assert await queries.list_buyers(tx, [1, 1001, 1002, 9]) == {1001: GOLDEN, 1002: GOLDEN}


async def test_a_quote_is_as_old_as_the_last_time_it_was_said(db: Database) -> None:
    async def age() -> dict[str, tuple[int, int | None, int | None]]:
        async with db.transaction() as tx:
            rows = await fetch(tx, "SELECT channel_id, extract(epoch FROM now() - quoted_at)::int AS age, unit_cost, rate_ppm FROM offers")
        return {r["channel_id"]: (r["age"] // 3600, r["unit_cost"], r["rate_ppm"]) for r in rows}

    async with db.transaction() as tx:
        await actions.set_offer(tx, Offer("two", TOPUP.sku, "code", unit_cost=910_000))
        await execute(tx, "UPDATE offers SET quoted_at = now() - interval '2 hours'")
    async with db.transaction() as tx:
        await listing.hear(tx, "one", TOPUP.sku, stock=5)
    assert await age() == {"one": (2, None, 900_000), "two": (2, 910_000, None)}
    async with db.transaction() as tx:
        version = await queries.find_version(tx)
        await listing.confirm(tx, "one", TOPUP.sku)
        await listing.hear(tx, "two", TOPUP.sku, cost=930_000)
        assert await queries.find_version(tx) > version
    assert await age() == {"one": (0, None, 900_000), "two": (0, 930_000, None)}


async def test_commitments_are_counted_from_what_was_delivered(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    async with database.transaction() as tx:
        for product in counter.around.snapshot.products.values():
            await actions.put_product(tx, product)
        await actions.create_channel(tx, KEYRING, actions.NewChannel("a", "a", "simulator", "test", b"{}"))
        await actions.create_channel(tx, KEYRING, actions.NewChannel("b", "b", "simulator", "test", b"{}"))
    units, _ = await put(database, said(hand.Commitment(100, Counted.UNITS, Period.MONTH, 1_000), "a"))
    cost, _ = await put(database, said(hand.Commitment(100, Counted.COST, Period.DAY, 1_000), "a", "phone"))
    none, _ = await put(database, said(hand.Commitment(100, Counted.COST, Period.DAY, 1_000), "b"))
    for number in range(2):
        _, submission = await counter.buy(f"PO-{number}", quantity=2)
        await counter.told(submission, Delivered(2, 1_700_000))
    await counter.buy("PO-open")
    now = datetime.now(UTC)
    today = hand.period_days(Period.DAY, now)[0]
    async with database.transaction() as tx:
        snapshot = await queries.load_snapshot(tx)
        assert await volumes.record_volumes(tx, today, ["a", "b"]) == 1
        assert await volumes.record_volumes(tx, today, ["a", "b"]) == 0
        assert await volumes.load_done(tx, snapshot.hand, now) == {units.rule_id: 4, cost.rule_id: 3_400_000, none.rule_id: 0}
        assert await volumes.load_done(tx, Hand(), now) == {}
        later = now + timedelta(days=40)
        assert await volumes.load_done(tx, snapshot.hand, later) == dict.fromkeys((units.rule_id, cost.rule_id, none.rule_id), 0)


# ---- tables of the router ------------------------------------------------------------------------------------------

_DECISION = """INSERT INTO route_decisions (book_id, order_id, n, day, decided_at, action, reason, inputs_id, ask, seed)
VALUES (1, $1, 1, $2, now(), 'hold', 'all_open', $1, '', 0)"""


async def test_decisions_are_kept_by_day_and_dropped_by_age(database: Database, migrated: Servers) -> None:
    owner = await asyncpg.connect(migrated.owner_url.replace("+asyncpg", ""))
    today = datetime.now(UTC).date()
    order = new_ulid()

    async def homes() -> list[str]:
        return [r["home"] for r in await owner.fetch("SELECT tableoid::regclass::text AS home FROM route_decisions ORDER BY day")]

    try:
        async with database.transaction() as tx:
            await fetch(tx, "SELECT route_partitions(3, 30)")
            for days in (-400, 0, 3, 20):
                await execute(tx, _DECISION, order, today + timedelta(days=days))
        assert await homes() == [
            "route_decisions_default", f"route_decisions_p{today:%Y%m%d}", f"route_decisions_p{today + timedelta(days=3):%Y%m%d}",
            "route_decisions_default",
        ]  # fmt: skip
        await owner.execute("CREATE TABLE route_decisions_p20200101 PARTITION OF route_decisions FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')")
        async with database.transaction() as tx:
            [row] = await fetch(tx, "SELECT route_partitions(22, 30) AS changed")
        assert row["changed"] >= 1
        left = {r["name"] for r in await owner.fetch("SELECT relname AS name FROM pg_class WHERE relname LIKE 'route\\_%\\_p2%'")}
        assert "route_decisions_p20200101" not in left
        assert f"route_inputs_p{today + timedelta(days=20):%Y%m%d}" in left
        assert f"route_decisions_p{today + timedelta(days=22):%Y%m%d}" in left
        assert f"route_decisions_p{today + timedelta(days=20):%Y%m%d}" not in left, "its row already lies in the default partition"
        assert await homes() == [
            f"route_decisions_p{today:%Y%m%d}", f"route_decisions_p{today + timedelta(days=3):%Y%m%d}", "route_decisions_default",
        ]  # fmt: skip
        for bad in ("0, 0", "32, 30", "NULL, 30"):
            with pytest.raises(asyncpg.InvalidParameterValueError):
                async with database.transaction() as tx:
                    await fetch(tx, f"SELECT route_partitions({bad})")
    finally:
        await owner.close()


@pytest.mark.parametrize(
    "statement", ["UPDATE route_decisions SET reason = ''", "DELETE FROM route_decisions", "DELETE FROM route_inputs", "DROP TABLE route_inputs"]
)
async def test_the_application_cannot_rewrite_decisions(database: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction() as tx:
            await execute(tx, statement)


async def test_the_database_refuses_a_purchase_at_a_loss(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    _, submission = await counter.buy()
    change = "UPDATE attempts SET price = $2, loss_allowed = $3 WHERE attempt_id = $1"
    with pytest.raises(asyncpg.CheckViolationError):
        async with database.transaction() as tx:
            await execute(tx, change, submission.attempt_key[1], 899_999, False)
    async with database.transaction() as tx:
        assert await execute(tx, change, submission.attempt_key[1], 899_999, True) == 1
        assert await execute(tx, change, submission.attempt_key[1], 900_000, False) == 1
