"""What processes know of the channels' health: they agree, they forget nothing, and what nobody told them stands in the attempts."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from tests.factories.counter import Counter, shop
from tests.factories.merchants import keyring_of
from tests.factories.shop import eventually

from kameng_api.catalog.rules import Snapshot
from kameng_api.jobs import pulse as pulses
from kameng_api.jobs.pulse import Pulse
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.fresh import Fresh
from kameng_api.kit.http import build_client
from kameng_api.settings import Settings
from kameng_api.suppliers import vitals
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import Delivered, RefusalReason, Refused, Scope
from kameng_api.suppliers.routing.facts import Answered, Change, Circuit, Event, Heard, Reading, Sent

NO = Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED)
SKU = "phone"
OUTAGE = 12
"""Refusals in a row that nobody takes for chance."""


class Fleet:
    """Several processes' views, in one process. They end with the test."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db, self._settings, self._stack = db, settings, AsyncExitStack()

    async def join(self, name: str = "w", snapshot: Snapshot | None = None, *, redis: bool = True) -> Pulse:
        found = snapshot or shop()

        async def load() -> Snapshot:
            return found

        catalog: Fresh[Snapshot] = Fresh(load, 3600.0)
        await catalog.refresh()
        client = build_client(max_connections=2, connect_timeout_s=1.0, guard=False)
        self._stack.push_async_callback(client.aclose)
        connections = Connections(keyring_of(self._settings), client, base_url="http://127.0.0.1:9", timeout_s=1.0)
        assert self._settings.redis_url is not None
        pulse = Pulse(self.db, self._settings.redis_url.get_secret_value() if redis else None, catalog, connections, name)
        await pulse.start()
        self._stack.push_async_callback(pulse.stop)
        return pulse

    async def leave(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def fleet(database: Database, settings: Settings, redis: "Redis[bytes]") -> AsyncIterator[Fleet]:
    found = Fleet(database, settings)
    yield found
    await found.leave()


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings, money="1000000")


def read(pulse: Pulse, channel: str = "a", sku: str = SKU, now: datetime | None = None) -> Reading:
    return pulse.under_way(now or datetime.now(UTC)).read(channel, sku)


def alike(one: Pulse, other: Pulse, channel: str = "a") -> Reading | None:
    """What both read at one moment; None while they differ.

    When a circuit opened depends on when each of them looked, and with it whether one attempt more or fewer counts as of the trouble."""
    now = datetime.now(UTC)
    mine, others = read(one, channel, now=now), read(other, channel, now=now)
    same = (mine.circuit, mine.in_flight, mine.wins) == (others.circuit, others.in_flight, others.wins)
    near = all(getattr(mine, name) == pytest.approx(getattr(others, name), rel=0.01) for name in ("n", "p_healthy"))
    near = near and mine.p == pytest.approx(others.p, abs=0.005) and mine.latency_s == pytest.approx(others.latency_s, rel=0.1)
    return mine if same and near else None


def attempts(n: int, what: Heard | None = Heard.BAD, *, ago_s: float = 10.0, channel: str = "a", prefix: str = "A", sku: str = SKU) -> list[Event]:
    """`n` attempts of the last seconds, a tenth of a second apart, each answered half a second later."""
    begun = datetime.now(UTC).timestamp() - ago_s
    found: list[Event] = []
    for i in range(n):
        sent_at, attempt = begun + i / 10, f"{prefix}{i:04d}"
        found.append(Sent(attempt, channel, sku, sent_at))
        if what is not None:
            found.append(Answered(attempt, channel, sku, sent_at + 0.5, sent_at, what))
    return found


async def is_open(*pulses: Pulse) -> bool:
    return all(read(pulse).circuit is Circuit.OPEN for pulse in pulses)


async def refuse(counter: Counter, n: int, *, prefix: str = "PO") -> None:
    """`n` orders that channel `a` refuses and `b` delivers, of which only the database knows."""
    for i in range(n):
        order = await counter.order(f"{prefix}-{i}")
        [at_a] = await counter.dispatch()
        assert at_a.channel_id == "a"
        await counter.told(at_a, NO)
        [at_b] = await counter.dispatch()
        await counter.told(at_b, Delivered(units=1))
        assert (await counter.now(order)).status == "succeeded"


async def transitions(db: Database) -> list[tuple[str, str | None, str]]:
    async with db.transaction() as tx:
        rows = await fetch(tx, "SELECT channel_id, sku, state FROM channel_transitions ORDER BY at")
    return [(r["channel_id"], r["sku"], r["state"]) for r in rows]


# ---- the stream ----------------------------------------------------------------------------------------------------


async def test_two_processes_that_each_saw_half_agree(fleet: Fleet) -> None:
    one, other = await fleet.join("one"), await fleet.join("other")
    events = attempts(OUTAGE)
    events += attempts(30, Heard.GOOD, ago_s=15, channel="b", prefix="B") + attempts(5, None, channel="b", prefix="P")
    for n in range(0, len(events), 2):
        (one if n % 4 else other).tell(events[n : n + 2])

    async def look() -> Any:
        ill, well = alike(one, other), alike(one, other, "b")
        return ill and well and ill.circuit is Circuit.OPEN and well.in_flight == 5

    await eventually(look)
    assert read(one).n > 10 and read(one, "b").n > 25


async def test_a_machine_whose_clock_is_ten_minutes_ahead_sees_what_happens_now(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Ahead":
            return super().now(tz) + timedelta(minutes=10)

    monkeypatch.setattr(pulses, "datetime", Ahead)
    monkeypatch.setattr(pulses.time, "time", lambda: Ahead.now().timestamp())
    one = await fleet.join("ahead", redis=False)
    assert one.sample()
    one.tell(attempts(OUTAGE))
    await eventually(lambda: is_open(one))


async def test_a_namesake_is_heard_too(fleet: Fleet) -> None:
    """A process in a container has the same name in every life, and two desks in one process share theirs."""
    one, namesake = await fleet.join("host:1"), await fleet.join("host:1")
    one.tell(attempts(OUTAGE))
    await eventually(lambda: is_open(one, namesake))


async def test_what_is_said_twice_and_in_any_order_counts_once(fleet: Fleet, redis: "Redis[bytes]") -> None:
    told, heard = await fleet.join("told"), await fleet.join("heard")
    events = attempts(OUTAGE) + attempts(30, Heard.GOOD, ago_s=20, prefix="B")
    once = await fleet.join("once", redis=False)
    once.tell(sorted(events, key=lambda e: (e.at, e.attempt)))
    shuffled = events * 3
    random.Random(7).shuffle(shuffled)
    for start in range(0, len(shuffled), 17):
        told.tell(shuffled[start : start + 17])
        await asyncio.sleep(0.02)  # several entries of the stream

    async def heard_all() -> bool:  # without looking at the channel: what is weighed as of now takes in nothing older any more
        entries = await redis.xrange(pulses.STREAM)
        said = sum(len(orjson.loads(body[b"e"])) for _, body in entries)
        return said == len(shuffled) and heard._heard_upto == entries[-1][0].decode()

    await eventually(heard_all)
    for pulse in (told, heard):
        reading, expected = read(pulse), read(once)
        assert (reading.failures, reading.in_flight, reading.circuit) == (expected.failures, 0, Circuit.OPEN)
        assert reading.p_healthy == pytest.approx(expected.p_healthy) and reading.p == pytest.approx(expected.p)


async def test_redis_emptied_in_an_outage_is_no_recovery(fleet: Fleet, counter: Counter, redis: "Redis[bytes]") -> None:
    one, other = await fleet.join("one"), await fleet.join("other")
    one.tell(attempts(OUTAGE))
    await eventually(lambda: is_open(one, other))
    await redis.flushall()
    for _ in range(10):
        assert await is_open(one, other)
        await asyncio.sleep(0.05)
    other.tell(attempts(1, None, ago_s=0.0, prefix="C"))  # they go on talking to each other

    async def look() -> Any:
        return read(one).in_flight == 1

    await eventually(look)


async def test_where_nothing_happens_the_attempts_are_left_alone(fleet: Fleet) -> None:
    idle = await fleet.join()
    looked_at = idle._looked_at
    await asyncio.sleep(1.0)
    assert idle._looked_at == looked_at  # a stream that nobody has written to is not a stream that was lost


# ---- the attempts --------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
async def test_without_redis_the_attempts_tell(fleet: Fleet, counter: Counter) -> None:
    one, other = await fleet.join("one", redis=False), await fleet.join("other", redis=False)
    await refuse(counter, OUTAGE)
    await eventually(lambda: is_open(one, other), within_s=15)
    assert alike(one, other) is not None
    assert read(one, "b").failures == 0


async def test_who_starts_with_nothing_knows_what_the_attempts_say(fleet: Fleet, counter: Counter, redis: "Redis[bytes]") -> None:
    await refuse(counter, OUTAGE)
    await redis.flushall()
    newcomer = await fleet.join("new")
    assert read(newcomer).circuit is Circuit.OPEN
    assert read(newcomer, "b").circuit is Circuit.CLOSED and read(newcomer, "b").n > 0


async def test_a_damaged_snapshot_is_no_reason_not_to_start(fleet: Fleet, counter: Counter) -> None:
    await refuse(counter, OUTAGE)
    async with counter.db.transaction() as tx:
        await vitals.save_snapshot(tx, "", b'{"form": 0}', 0.0)
    assert read(await fleet.join("new")).circuit is Circuit.OPEN


async def test_ten_channels_are_rebuilt_from_their_last_attempts(fleet: Fleet, counter: Counter) -> None:
    channels = [f"c{i}" for i in range(10)]
    await refuse(counter, 1)
    await _copy_attempts(counter.db, channels, 256, ill="c3")
    whole = await fleet.join("new", shop(costs=dict.fromkeys(channels, 900_000)), redis=False)
    for channel in channels:
        reading = read(whole, channel)
        assert (reading.circuit is Circuit.OPEN) == (channel == "c3"), channel
        assert reading.in_flight == 0 and reading.n > 5, channel


async def _copy_attempts(db: Database, channels: Sequence[str], each: int, *, ill: str = "", age_s: int = 0) -> None:
    """Settled attempts like those that there are, for one order: refused where `ill`, else delivered."""
    async with db.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO attempts SELECT (jsonb_populate_record(a, jsonb_build_object(
              'attempt_id', gen_random_uuid(), 'reference', c.id || '-' || i, 'n', 1000 * c.place + i, 'channel_id', c.id,
              'sent_at', now() - make_interval(secs => $4 + i * 0.1), 'settled_at', now() - make_interval(secs => $4 + i * 0.1 - 0.05)))).*
            FROM unnest($1::text[]) WITH ORDINALITY AS c (id, place)
            CROSS JOIN generate_series(1, $2) AS i
            JOIN attempts a ON a.state = CASE WHEN c.id = $3 THEN 'refused' ELSE 'delivered' END
              AND a.order_id = (SELECT order_id FROM attempts WHERE state = 'refused' ORDER BY attempt_id LIMIT 1)""",
            list(channels), each, ill, float(age_s),
        )  # fmt: skip


# ---- under way -----------------------------------------------------------------------------------------------------


async def test_what_a_killed_process_had_under_way_ends_when_the_order_says_so(fleet: Fleet, counter: Counter) -> None:
    left = await fleet.join("left")
    _, submission = await counter.buy()  # its process dies: nobody is told that it was sent
    await left._look()
    assert read(left).in_flight == 1
    await counter.told(submission, NO)  # found out by somebody who dies as well
    await left._look()
    assert read(left).in_flight == 0 and read(left).n > 0


async def test_an_answer_that_nobody_told_is_found_behind_hundreds_of_later_ones(fleet: Fleet, counter: Counter) -> None:
    left = await fleet.join("left")
    await refuse(counter, 1)
    _, submission = await counter.buy("PO-lost")
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE attempts SET sent_at = sent_at - interval '5 minutes' WHERE attempt_id = $1", submission.attempt_key[1])
    await left._look()
    assert read(left).in_flight == 1
    await counter.told(submission, Delivered(units=1))
    await _copy_attempts(counter.db, ["a"], vitals.EACH + 50)
    await left._look()
    assert read(left).in_flight == 0


# ---- snapshots, transitions, leases --------------------------------------------------------------------------------


async def test_a_process_that_starts_again_goes_on_where_it_was(fleet: Fleet, redis: "Redis[bytes]") -> None:
    before = await fleet.join("w")
    before.tell(attempts(200, Heard.GOOD, ago_s=200, prefix="G") + attempts(OUTAGE) + attempts(3, None, prefix="P"))
    assert await is_open(before)
    await before._keep()
    await redis.flushall()
    after = await fleet.join("w")
    reading = alike(before, after)
    assert reading is not None and reading.circuit is Circuit.OPEN and reading.in_flight == 3 and reading.p_healthy > 0.9
    later = attempts(3, Heard.BAD, prefix="P")
    before.tell(later)
    await eventually(lambda: _true(alike(before, after)))


async def _true(found: object) -> bool:
    return bool(found)


async def test_a_change_is_written_once_however_many_saw_it(fleet: Fleet) -> None:
    one, other = await fleet.join("one"), await fleet.join("other")
    one.tell(attempts(OUTAGE))
    await eventually(lambda: is_open(one, other))
    await asyncio.gather(one._keep(), other._keep())
    assert await transitions(fleet.db) == [("a", None, "open")]
    one.tell(attempts(2, Heard.GOOD, ago_s=-0.1, prefix="W"))

    async def closed() -> bool:
        return read(one).circuit is Circuit.CLOSED and read(other).circuit is Circuit.CLOSED

    await eventually(closed)
    await asyncio.gather(one._keep(), other._keep())
    assert await transitions(fleet.db) == [("a", None, "open"), ("a", None, "closed")]


async def test_who_is_late_with_what_is_over_tells_nothing(database: Database) -> None:
    def change(circuit: Circuit, at: float) -> vitals.Transition:
        found = Change("a", None, circuit, at, 9.0, 3, 0)
        return vitals.Transition(found, datetime.fromtimestamp(at, UTC))

    now = datetime.now(UTC).timestamp()
    first = [change(Circuit.OPEN, now), change(Circuit.CLOSED, now + 5)]  # within one interval of writing
    async with database.transaction() as tx:
        assert await vitals.record_transitions(tx, first) == first
    async with database.transaction() as tx:
        assert await vitals.record_transitions(tx, [change(Circuit.OPEN, now + 0.5), change(Circuit.CLOSED, now + 5.5)]) == []
    again = [change(Circuit.OPEN, now + 60)]
    async with database.transaction() as tx:
        assert await vitals.record_transitions(tx, again) == again
    assert [state for _, _, state in await transitions(database)] == ["open", "closed", "open"]


async def test_a_change_that_could_not_be_written_is_written_later(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await fleet.join("one")
    one.tell(attempts(OUTAGE))
    assert await is_open(one)
    with monkeypatch.context() as broken:
        broken.setattr(vitals, "_RECORD", "SELECT 1 / 0, $1, $2, $3, $4, $5, $6, $7")
        with pytest.raises(Exception):  # noqa: B017  whatever the database says
            await one._keep()
    assert await transitions(fleet.db) == []
    await one._keep()
    assert await transitions(fleet.db) == [("a", None, "open")]


async def test_the_right_to_probe_is_given_to_one(database: Database) -> None:
    async def ask(sku: str | None = None) -> bool:
        async with database.transaction() as tx:
            return await vitals.lease_probe(tx, "a", sku, 0.5)

    assert sorted(await asyncio.gather(*(ask() for _ in range(8)))) == [False] * 7 + [True]
    assert await ask(SKU)  # another circuit
    await asyncio.sleep(0.6)
    assert sorted(await asyncio.gather(*(ask() for _ in range(8)))) == [False] * 7 + [True]


async def test_channels_that_fall_ill_together_point_at_our_own_way_out(fleet: Fleet, counter: Counter, database: Database) -> None:
    pulse = await fleet.join(redis=False)

    async def said() -> list[str]:
        async with database.transaction() as tx:
            return [r["subject"] for r in await fetch(tx, "SELECT subject FROM alarms WHERE kind = 'egress_suspect' AND closed_at IS NULL")]

    async def turn(state: Circuit, at: float, *channels: str) -> None:
        async with database.transaction() as tx:
            changes = [Change(c, None, state, at, 9.0, 4, 0) for c in channels]
            await vitals.record_transitions(tx, [vitals.Transition(c, datetime.fromtimestamp(at, UTC)) for c in changes])
            await pulse._watch_our_way_out(tx)

    now = datetime.now(UTC).timestamp() - 200
    await turn(Circuit.OPEN, now, "a", "b")
    await turn(Circuit.OPEN, now + 31, "c")
    assert await said() == []  # two, and a third half a minute later
    await turn(Circuit.OPEN, now + 40, "d", "e")
    assert await said() == ["our way out"]
    await turn(Circuit.CLOSED, now + 50, "a", "b")
    assert await said() == ["our way out"]  # three are open still
    await turn(Circuit.CLOSED, now + 60, "c")
    assert await said() == []
