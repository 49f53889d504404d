"""Small stories, each of which passes some of the durable steps; together they pass all of them.

A story is told by a merchant (or an operator) who behaves as the contract says: whatever breaks off is sent again, the same body under the
same number, until there is an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import httpx
from tests.chaos.crash.stage import Lane

from kameng_api.ledger.rules import AVAILABLE
from kameng_api.statements.actions import MAKING_S

PLAIN: Final = "13800138000"
LATER: Final = "10000000001"
"""Taken now, delivered in a moment, told by callback."""
SECOND_ONLY: Final = "10000000010"
NOBODY: Final = "10000000002"
"""Taken, and refused in a moment, by both suppliers."""
STAFF: Final = "10000000009"
PATIENCE_S: Final = 240.0
_TROUBLE: Final = """
CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM orders WHERE book_id = NEW.book_id AND order_id = NEW.order_id AND merchant_order_no LIKE '%-poisoned') THEN
    RAISE EXCEPTION 'trouble'; END IF;
  RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER trouble BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION trouble()
"""


@dataclass
class Told:
    """What came of a story: the merchant's orders, each with how it must end (`a|b`: one of these), and what must have been refunded.

    `deaths`: the points at which a process died, in their order. `batches`: what became known of each, for the story's own check.
    `before`: what the merchant had to spend when the story began, in 1/10000 units."""

    ends: dict[str, str] = field(default_factory=dict)
    refunded: set[str] = field(default_factory=set)
    deaths: list[str] = field(default_factory=list)
    batches: dict[str, str] = field(default_factory=dict)
    before: int = 0


Act = Callable[[Lane, Told], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Story:
    """`setting` is arranged while no worker lives, and then the worker starts: for stories that must find things as they are.

    `alone`: no worker lives until the story has been told, for what must happen before anybody dispatches. `check`: what must be so besides
    what every story is judged by, looked at when all is quiet and nobody may die any more.
    """

    name: str
    act: Act
    setting: Act | None = None
    alone: bool = False
    check: Act | None = None


async def insist(call: Callable[[], Awaitable[httpx.Response]], *well: int) -> httpx.Response:
    """The answer, sent again as long as none comes or the house says that it does not know."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await call()
            except httpx.TransportError:
                await asyncio.sleep(0.03)
                continue
            if answer.status_code in (well or (200, 201)):
                return answer
            assert answer.status_code in (500, 503), (answer.status_code, answer.text)
            await asyncio.sleep(0.03)


async def order(lane: Lane, told: Told, *, ends: str = "succeeded", mark: str = "", sku: str = "phone", target: str | None = PLAIN) -> str:
    """Its id. Placed until it is acknowledged; from then on it must exist and end as `ends`."""
    lane.orders += 1
    number = f"PO-{lane.orders}{mark}"
    body: dict[str, Any] = {"merchant_order_no": number, "sku": sku}
    if target is not None:
        body["target"] = target
    answer = await insist(lambda: lane.client.post("/v1/orders", body))
    told.ends[number] = ends
    found: str = answer.json()["id"]
    return found


async def batch(lane: Lane, told: Told) -> str:
    """The number of a new batch of one order."""
    lane.orders += 1
    number = f"B-{lane.orders}"
    body = {"merchant_batch_no": number, "items": [{"sku": "phone", "target": PLAIN}]}
    told.batches[number] = (await insist(lambda: lane.client.post("/v1/order-batches", body), 200, 202)).json()["id"]
    return number


async def final(lane: Lane, order_id: str) -> None:
    """Until the order has ended."""
    async with asyncio.timeout(PATIENCE_S):
        for look in count(1):
            shown = (await insist(lambda: lane.client.get(f"/v1/orders/{order_id}"))).json()
            if shown["status"] not in ("accepted", "processing"):
                return
            if look % 20 == 0:  # it has to be looked up, and more than once
                await lane.hurry()
            await asyncio.sleep(0.03)


async def _top_up(lane: Lane, told: Told) -> None:
    await order(lane, told)
    await order(lane, told, sku="card", target=None)


async def _asked(lane: Lane, told: Told) -> None:
    # sold by one supplier only: an order that a death kept from reaching it has nobody else to go to
    await order(lane, told, sku="asked", ends="succeeded|failed")


async def _told(lane: Lane, told: Told) -> None:
    await order(lane, told, target=LATER)


async def _second(lane: Lane, told: Told) -> None:
    await order(lane, told, target=SECOND_ONLY)


async def _failed(lane: Lane, told: Told) -> None:
    await order(lane, told, target=NOBODY, ends="failed")


async def _cancelled(lane: Lane, told: Told) -> None:
    order_id = await order(lane, told, ends="cancelled")
    await insist(lambda: lane.client.post(f"/v1/orders/{order_id}/cancel"))


async def _refunded(lane: Lane, told: Told) -> None:
    order_id = await order(lane, told)
    await final(lane, order_id)
    headers = {"Authorization": f"Bearer {lane.operator}"}
    body = {"refund_no": f"R-{lane.orders}", "amount": "1", "reason": "goodwill"}
    url = f"/admin/v1/orders/{order_id}/refunds"
    await insist(lambda: lane.client.http.post(url, json=body, headers=headers))
    told.refunded.add(order_id)


async def _reversed(lane: Lane, told: Told) -> None:
    order_id = await order(lane, told)
    await final(lane, order_id)
    await _advance(lane, order_id, "REVERSED")
    await _until(lane, "SELECT count(*) FROM refunds x JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = $1", order_id)
    told.refunded.add(order_id)


async def _late(lane: Lane, told: Told) -> None:
    """Taken, refused, and then delivered all the same: never a second sale, never silence."""
    order_id = await order(lane, told, target=NOBODY, ends="failed")
    await final(lane, order_id)
    await _advance(lane, order_id, "SUCCESS")
    await _until(lane, "SELECT count(*) FROM incidents x JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = $1", order_id)


async def _reviewed(lane: Lane, told: Told) -> None:
    """Waits for the vendor's staff, and then for ours: a person decides through the operator's API."""
    order_id = await order(lane, told, target=STAFF, ends="failed")
    await _until(lane, "SELECT count(*) FROM orders WHERE merchant_order_no = $1 AND substatus = 'manual_review'", order_id)
    body = {"outcome": "refused", "note": "the vendor's staff say so"}
    headers = {"Authorization": f"Bearer {lane.operator}"}
    # 409: our first try stands, and its answer was lost
    await insist(lambda: lane.client.http.post(f"/admin/v1/reviews/{order_id}", json=body, headers=headers), 200, 409)


async def _advance(lane: Lane, order_id: str, status: str) -> None:
    row = await lane.owner.fetchrow(
        "SELECT a.reference, a.channel_id FROM attempts a JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = $1 ORDER BY a.n DESC",
        await number_of(lane, order_id),
    )
    assert row is not None
    await lane.world.advance(row["channel_id"], row["reference"], status)


async def number_of(lane: Lane, order_id: str) -> str:
    shown = await insist(lambda: lane.client.get(f"/v1/orders/{order_id}"))
    return str(shown.json()["merchant_order_no"])


async def _until(lane: Lane, sql: str, order_id: str) -> None:
    """Until the query, given the merchant's number of the order, answers more than nothing."""
    await until_true(lane, sql, await number_of(lane, order_id))


async def until_true(lane: Lane, sql: str, *values: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await lane.owner.fetchval(sql, *values):
            await lane.hurry()
            await asyncio.sleep(0.03)


_DUE: Final = "UPDATE chores SET ran_at = ran_at - interval '1 hour' WHERE name = ANY ($1) AND ran_at > now() - interval '1 hour'"


async def until_due(lane: Lane, chores: Sequence[str], sql: str, *values: Any) -> None:
    """Until the query answers true; the chores named are due all the time."""
    async with asyncio.timeout(PATIENCE_S):
        while not await lane.owner.fetchval(sql, *values):
            await lane.owner.execute(_DUE, list(chores))
            await lane.owner.execute(_MINUTES_PASS)
            await lane.hurry()
            await asyncio.sleep(0.1)


# A statement that could not be read is read again after minutes; what somebody reads at this moment is left to him. A maker of a merchant's
# statement who has not moved his lease for seconds has died: minutes later it would have ended.
_MINUTES_PASS: Final = f"""
UPDATE recon_files SET created_at = 'epoch' WHERE state = 'reading' AND accepted_by IS NULL;
UPDATE statements SET making_until = now() WHERE making_until BETWEEN now() AND now() + interval '{MAKING_S} seconds' - interval '2 seconds';
UPDATE restored_orders SET first_asked_at = first_asked_at - interval '1 hour' WHERE state = 'waiting' AND first_asked_at > now() - interval '1 hour'
"""


async def _refused_hook(lane: Lane, told: Told) -> None:
    lane.world.receiver.refuse[lane.name] = 1
    await order(lane, told)


async def _hooked(lane: Lane, told: Told) -> None:
    """An endpoint is registered once however often it is asked for, and deleted for good."""
    path, url = "/v1/webhook-endpoints", f"{lane.world.receiver.url}/{lane.name}-second"
    await insist(lambda: lane.client.post(path, {"url": url}), 201, 409)  # 409: our first try stands, and its answer was lost
    [endpoint] = [e for e in (await insist(lambda: lane.client.get(path))).json()["items"] if e["url"] == url]
    await insist(lambda: lane.client.send("DELETE", f"{path}/{endpoint['id']}"), 204, 404)
    left = (await insist(lambda: lane.client.get(path))).json()["items"]
    assert url not in {e["url"] for e in left}, "deleted, and still there"


async def _nothing(lane: Lane, told: Told) -> None:
    pass


async def _first_clocks(lane: Lane, told: Told) -> None:
    """As on the first day: no chore has ever run."""
    await order(lane, told)
    await lane.owner.execute("DELETE FROM chores")


async def _clocks(lane: Lane, told: Told) -> None:
    """Every chore is due again and finds work: an alarm to send and an old one, an order and a batch whose tasks were lost, a wallet, prices."""
    await order(lane, told)
    told.ends[f"{await batch(lane, told)}-1"] = "succeeded"
    await lane.owner.execute(
        """DELETE FROM chores; DELETE FROM tasks WHERE lane IN ('submit', 'batch');
        UPDATE orders SET created_at = created_at - interval '1 minute' WHERE status = 'accepted';
        UPDATE batches SET created_at = created_at - interval '2 minutes' WHERE final_counts IS NULL;
        INSERT INTO chores (name, ran_at) VALUES ('check_all', now() - interval '2 days');
        INSERT INTO alarms (alarm_id, kind, severity, subject, detail)
        VALUES (gen_random_uuid(), 'order_stuck', 'warning', gen_random_uuid()::text, 'for a test');
        INSERT INTO alarms (alarm_id, kind, severity, subject, detail, closed_at, sent_at)
        VALUES (gen_random_uuid(), 'order_stuck', 'warning', gen_random_uuid()::text, 'old', now() - interval '2 years', now())"""
    )
    await lane.owner.execute(
        """UPDATE channels SET wallet_low_at = CASE WHEN wallet_low_at IS NULL THEN 10::bigint ^ 15 END,
        wallet_hours_left = CASE WHEN wallet_hours_left IS NULL THEN 720 END"""
    )


_DAYS: Final = 3


async def _days(lane: Lane, told: Told) -> None:
    """The merchant has been here for some days, and none of them has a statement."""
    await lane.owner.execute(
        f"""DELETE FROM statement_chunks; DELETE FROM statements; DELETE FROM statement_days; DELETE FROM chores WHERE name LIKE '%statements';
        UPDATE merchants SET created_at = now() - interval '{_DAYS} days'"""
    )


async def _stated(lane: Lane, told: Told) -> None:
    # in every currency of every book that the merchant has
    every = f"(SELECT count(*) * {_DAYS} FROM accounts WHERE account = '{AVAILABLE}')"
    await until_due(lane, ("cut_statements",), f"SELECT count(*) >= {every} FROM statements WHERE ready_at IS NOT NULL")
    stray = "SELECT count(*) FROM statement_chunks c WHERE NOT EXISTS (SELECT FROM statements s WHERE s.make_id = c.make_id)"
    assert await lane.owner.fetchval(stray) == 0, "pieces of a statement that nobody made"


async def _poison(lane: Lane, told: Told) -> None:
    await lane.owner.execute(_TROUBLE)
    await order(lane, told, mark="-poisoned")
    await order(lane, told)


async def _antidote(lane: Lane, told: Told) -> None:
    number = next(n for n in told.ends if n.endswith("-poisoned"))
    await until_true(
        lane,
        """SELECT t.trouble IS NOT NULL FROM tasks t JOIN orders o ON o.book_id = t.book_id AND o.order_id = t.ref
        WHERE o.merchant_order_no = $1 AND t.lane = 'submit'""",
        number,
    )
    await lane.owner.execute("DROP TRIGGER trouble ON attempts")


STORIES: Final = (
    Story("top_up", _top_up),
    Story("asked", _asked),
    Story("told", _told),
    Story("second", _second),
    Story("failed", _failed),
    Story("cancelled", _cancelled, alone=True),
    Story("refunded", _refunded),
    Story("reversed", _reversed),
    Story("late", _late),
    Story("reviewed", _reviewed),
    Story("refused_hook", _refused_hook),
    Story("hooked", _hooked),
    Story("first_clocks", _nothing, _first_clocks),
    Story("clocks", _nothing, _clocks),
    Story("stated", _stated, _days),
    Story("poisoned", _antidote, _poison),
)
