"""Stories about suppliers' books beside ours, a book that is stopped, and a database that was put back to an older point."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from tests.chaos.crash.scenarios import LATER, PATIENCE_S, PLAIN, Story, Told, batch, insist, number_of, order, until_due, until_true
from tests.chaos.crash.stage import Lane
from tests.factories.merchants import keyring_of

from kameng_api.catalog import queries as catalog
from kameng_api.evidence import restores
from kameng_api.kit.db import Database
from kameng_api.kit.http import build_client
from kameng_api.kit.ids import book_reference, new_ulid, parse_public_id
from kameng_api.ledger import stops
from kameng_api.reconciliation import sources
from kameng_api.reconciliation.sources import SourceWanted
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import Delivered, Purchase, Supplier
from kameng_api.suppliers.rules import attempt_id_of

UNANSWERED: Final = "10000000004"
"""Answered 500 at once, delivered in a moment."""
_CHINA: Final = ZoneInfo("Asia/Shanghai")
_BOOKS: Final = ("fetch_statements", "compare_days")


def _today() -> date:
    return datetime.now(_CHINA).date()


async def _no_statements(lane: Lane) -> None:
    """As before the first statement came: the same days can be told again."""
    names = await lane.owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND starts_with(tablename, 'recon_')")
    await lane.owner.execute(f"TRUNCATE {', '.join(r['tablename'] for r in names)} CASCADE")
    await lane.owner.execute("DELETE FROM chores WHERE name = ANY ($1)", [*_BOOKS, "watch_books", "prune_wallets"])


# ---- a statement that is fetched -----------------------------------------------------------------------------------------

_WRITTEN: Final = """
SELECT count(*) FROM attempts a JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = $1 AND a.state <> 'submitting'
"""
_REFUSED: Final = """
SELECT NOT EXISTS (SELECT FROM unnest($2::date[]) AS k (day) WHERE NOT EXISTS (SELECT FROM recon_files f
  WHERE f.channel_id = $1 AND f.day = k.day AND (f.bad->0->>1 IS NOT NULL OR f.state <> 'reading')))
"""
_COMPARED: Final = """
SELECT NOT EXISTS (SELECT FROM recon_breaks WHERE state = 'open' AND (evidence->>'automatic')::boolean)
  AND NOT EXISTS (SELECT FROM unnest($2::date[]) AS k (day) WHERE NOT EXISTS (
    SELECT FROM recon_files f JOIN recon_runs r ON r.channel_id = f.channel_id AND r.day = f.day AND r.state = 'done' AND r.started_at > f.accepted_at
    WHERE f.channel_id = $1 AND f.day = k.day AND f.state = 'accepted'))
"""
_MISCOUNTED: Final = "SELECT count(*) FROM recon_files WHERE state = 'accepted' AND rows_new + rows_repeated <> rows_read"
_CHARGES: Final = """
SELECT count(*) FROM orders o JOIN attempts a USING (book_id, order_id) JOIN recon_matches m USING (book_id, attempt_id)
JOIN recon_lines l USING (line_id) WHERE o.merchant_order_no = ANY ($1) AND l.kind = 'charge' AND l.withdrawn_at IS NULL
"""


async def _nothing_told(lane: Lane, told: Told) -> None:
    """One source is set, those of the other channels are to come by themselves; the supplier neither knows the order nor shows its books."""
    await _no_statements(lane)
    channel = lane.channel("d")
    async with lane.db.transaction() as tx:
        await sources.put_source(tx, SourceWanted(channel, channel, "fetch", lag_s=600, window_days=0, complete=True))
    await lane.world.turn(channel, callback_copies=0, outage="http_503", outage_paths=["query", "statement"])
    await order(lane, told, sku="booked", target=UNANSWERED, ends="succeeded|failed")


async def _reconciled(lane: Lane, told: Told) -> None:
    """Bought, and its answer lost; nobody can be asked, and the statement cannot be read at first. Then it tells, and settles the order."""
    await _compared(lane, told)
    await lane.world.turn(lane.channel("d"), callback_copies=0)


async def _compared(lane: Lane, told: Told) -> None:
    """Until the statements were compared, and what they decide was settled by them. The supplier itself still cannot be asked.

    Of two days: each death lets an hour pass for the purchases, so that in the small hours some of them become yesterday's.
    """
    numbers, channel, days = sorted(told.ends), lane.channel("d"), [_today() - timedelta(days=1), _today()]
    for number in numbers:
        await until_true(lane, _WRITTEN, number)
    joined = "SELECT a.reference FROM attempts a JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = ANY ($1)"
    rows = await lane.owner.fetch(joined, numbers)
    references = [r["reference"] for r in rows]
    placed = lane.world.asked_to_place(references)
    async with asyncio.timeout(PATIENCE_S):
        while placed:
            if len(lane.world.delivered(references)) == len(placed):
                break
            await asyncio.sleep(0.05)
    for day in days:
        await insist(partial(lane.at_desk, "POST", f"sources/{channel}/fetch", json={"day": day.isoformat()}), 202)
    await until_due(lane, _BOOKS, _REFUSED, channel, days)
    await lane.world.turn(channel, callback_copies=0, outage="http_503", outage_paths=["query"])
    await until_due(lane, _BOOKS, _COMPARED, channel, days)
    assert await lane.owner.fetchval(_MISCOUNTED) == 0, "a page landed twice, or not at all"
    assert await lane.owner.fetchval(_CHARGES, numbers) == len(placed), "each purchase agrees with one charge"


_TROUBLE: Final = """
CREATE OR REPLACE FUNCTION trouble_of_books() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.state = 'closed' AND EXISTS (SELECT FROM orders WHERE order_id = NEW.order_id AND merchant_order_no LIKE '%-disputed') THEN
    RAISE EXCEPTION 'trouble'; END IF;
  RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER trouble_of_books BEFORE UPDATE ON recon_breaks FOR EACH ROW EXECUTE FUNCTION trouble_of_books()
"""


async def _one_refused(lane: Lane, told: Told) -> None:
    """Of two orders that the statement is to settle, the books refuse one."""
    await lane.owner.execute(_TROUBLE)
    await _nothing_told(lane, told)
    await order(lane, told, sku="booked", target=UNANSWERED, ends="succeeded|failed", mark="-disputed")


async def _disputed(lane: Lane, told: Told) -> None:
    """The other one is settled all the same; this one is left to a person, and two of them settle it when the books take it."""
    try:
        await _compared(lane, told)
        rows = await lane.owner.fetch(_SETTLED)
        left = {r["merchant_order_no"] for r in rows if r["state"] == "open" and not r["automatic"] and r["why"].startswith("the books refused it")}
        done = {r["merchant_order_no"] for r in rows if r["state"] == "closed"}
        assert left == {n for n in told.ends if n.endswith("-disputed")} & (left | done), [dict(r) for r in rows]
    finally:
        await lane.owner.execute("DROP TRIGGER trouble_of_books ON recon_breaks")
    for found in (await insist(lambda: lane.at_desk("GET", "breaks", params={"class": "R6", "state": "open"}))).json()["items"]:
        await _two_people(lane, found["id"], "settle", "the books take it by now")
    await lane.world.turn(lane.channel("d"), callback_copies=0)


_SETTLED: Final = """
SELECT o.merchant_order_no, o.status, b.break_id, b.state, (b.evidence->>'automatic')::boolean AS automatic, coalesce(b.evidence->>'left', '') AS why,
  (SELECT array_agg(s.step ORDER BY s.step_id) FROM recon_break_steps s WHERE s.break_id = b.break_id) AS steps,
  (SELECT count(*) FROM supplier_answers s
    WHERE s.book_id = b.book_id AND s.attempt_id = b.attempt_id AND s.beat IN ('statement', 'operator')) AS words
FROM recon_breaks b JOIN orders o USING (book_id, order_id) WHERE b.class = 'R6'
"""


async def _settled_once(lane: Lane, told: Told) -> None:
    """Each break is resolved in one step and by one word about its purchase, and afterwards nothing is left that does not agree."""
    for r in await lane.owner.fetch(_SETTLED):
        steps = [step for step in r["steps"] if step != "proposed"]  # said again, it is proposed again
        wanted = ["left", "approved"] if r["merchant_order_no"].endswith("-disputed") else ["resolved"]
        if r["status"] == "failed":  # killed before it was asked: what a statement does not name decides nothing, and two people did
            wanted = ["approved"]
        assert (r["state"], steps, r["words"]) == ("closed", wanted, 1), dict(r)
    assert await lane.owner.fetchval("SELECT count(*) FROM recon_breaks WHERE state <> 'closed' AND class IN ('R6', 'R7', 'R12')") == 0


# ---- a file that is uploaded ---------------------------------------------------------------------------------------------

_MAPPING: Final = {"columns": {"at": "at", "amount": "amount", "kind": "kind", "line_id": "id", "reference": "ref"}, "kinds": {"C": "charge"}}
_POSTED: Final = """
SELECT count(*) FROM transfers t JOIN recon_breaks b ON b.event_key = t.event_key WHERE b.break_id = $1 AND b.state = 'closed'
"""


async def _two_people(lane: Lane, break_id: str, resolution: str, note: str) -> None:
    below, wanted = f"breaks/{break_id}", {"resolution": resolution, "note": note}
    seen = {"proposal": (await insist(lambda: lane.at_desk("POST", f"{below}/propose", json=wanted))).json()["proposal"]}
    # 409: our first try stands, and its answer was lost
    await insist(lambda: lane.at_desk("POST", f"{below}/approve", by=lane.second, json=seen), 200, 409)


async def _no_files(lane: Lane, told: Told) -> None:
    await _no_statements(lane)
    async with lane.db.transaction() as tx:
        await sources.put_source(tx, SourceWanted(lane.channel("d"), "mail", "upload", window_days=0, mapping=_MAPPING))


async def _uploaded(lane: Lane, told: Told) -> None:
    """A file comes in, one of its lines is a stranger, and two people write it off."""
    day = (_today() - timedelta(days=1)).isoformat()
    lane.orders += 1
    line = f"W{lane.orders}"
    lines = f"id,at,kind,ref,amount\n{line},{day} 10:00:00,C,STRANGER{lane.orders},-97.5\n".encode()

    def upload(content: bytes) -> Any:
        return lambda: lane.at_desk("POST", "files", params={"source": "mail", "day": day, "name": "s.csv"}, content=content)

    await insist(upload(b"\x00\x01"), 422)
    file = (await insist(upload(lines))).json()
    assert (file["rows_read"], file["rows_bad"]) == (1, 0), file
    await insist(lambda: lane.at_desk("POST", f"files/{file['id']}/accept", json={}))
    channel = lane.channel("d")
    await until_due(lane, _BOOKS, "SELECT count(*) FROM recon_breaks WHERE channel_id = $1 AND class = 'R5'", channel)
    assert await lane.owner.fetchval("SELECT count(*) FROM recon_lines WHERE ext_line_id = $1", line) == 1
    assert await lane.owner.fetchval(_MISCOUNTED) == 0
    [found] = (await insist(lambda: lane.at_desk("GET", "breaks", params={"class": "R5", "channel_id": channel}))).json()["items"]
    await _two_people(lane, found["id"], "loss", "the key had leaked")
    assert await lane.owner.fetchval(_POSTED, parse_public_id("brk", found["id"])) == 1, "written off once"


# ---- a stopped book ------------------------------------------------------------------------------------------------------

_KEPT: Final = """
SELECT count(*) FROM supplier_answers s JOIN attempts a USING (book_id, attempt_id) JOIN orders o USING (book_id, order_id)
WHERE o.merchant_order_no = $1 AND s.outcome = 'delivered'
"""


_ASKED_FOR: Final = "SELECT a.reference FROM attempts a JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = $1"
_UNKNOWN_THERE: Final = _KEPT.replace("'delivered'", "'not_found'")


async def _stopped(lane: Lane, told: Told) -> None:
    """Its answer comes when nothing may be posted: kept, and applied after the lift."""
    channel, book = lane.channel("d"), lane.merchant.book_id
    await lane.world.turn(channel, callback_copies=0, outage="http_503", outage_paths=["query"])
    number = await number_of(lane, await order(lane, told, sku="booked", target=LATER, ends="succeeded|failed"))
    await until_true(lane, _WRITTEN, number)
    async with lane.db.transaction() as tx:
        assert await stops.stop(tx, book, "chain", "made up", [f"made up {number}"], "test")
    try:
        await lane.world.turn(channel, callback_copies=0)
        if lane.world.asked_to_place([r["reference"] for r in await lane.owner.fetch(_ASKED_FOR, number)]):
            await until_true(lane, _KEPT, number)
        else:  # it died before it had asked: nobody knows of the purchase, and none is made anew in a stopped book
            assert told.deaths, "nobody died, and nobody was asked"
            await until_true(lane, _UNKNOWN_THERE, number)
        assert await lane.owner.fetchval("SELECT status FROM orders WHERE merchant_order_no = $1", number) == "processing", "posted all the same"
    finally:
        async with lane.db.transaction() as tx:
            await stops.lift(tx, book, "looked at it", "ann")


# ---- a database put back to an older point -------------------------------------------------------------------------------

_CHORES_OF_RESTORE: Final = ("restored_orders", "restore_losses")
_LOOKED_INTO: Final = """
SELECT NOT EXISTS (SELECT FROM restored_orders h JOIN restores r USING (restore_id) WHERE r.ended_at IS NULL AND h.state = 'waiting')
  AND EXISTS (SELECT FROM restore_losses WHERE reference = $1)
"""


@asynccontextmanager
async def _supplier(lane: Lane, channel_id: str) -> AsyncIterator[Supplier]:
    """As a worker would have connected it, before its database was put back."""
    async with lane.db.transaction() as tx:
        channel = await catalog.get_channel(tx, channel_id)
    client = build_client(max_connections=2, connect_timeout_s=5, guard=False)
    connections = Connections(keyring_of(lane.settings), client, base_url=lane.settings.base_url, timeout_s=10)
    try:
        yield connections.of(channel)
    finally:
        await connections.close()


async def _put_back(lane: Lane, told: Told) -> None:
    """Hours ago a backup was taken. Since then one of its open orders was bought, one was not, and an order came and was bought that it lacks.
    A batch had not been begun in it."""
    channel, book = lane.channel("d"), lane.merchant.book_id
    await lane.world.turn(channel, callback_copies=0)
    bought = await order(lane, told, sku="booked")
    await order(lane, told)
    await batch(lane, told)
    known = parse_public_id("ord", bought)
    assert known is not None
    lost = [known, new_ulid()]
    async with _supplier(lane, channel) as supplier:
        for order_id in lost:
            reference = book_reference(book, attempt_id_of(order_id, 1))
            answer = await supplier.place(Purchase(reference, "hf-100", "topup", 1, "CNY", 1_000_000, target=PLAIN))
            assert isinstance(answer.outcome, Delivered), answer
    lane.lost.append(book_reference(book, attempt_id_of(lost[1], 1)))
    await lane.owner.execute("UPDATE orders SET created_at = created_at - interval '3 hours' WHERE status = 'accepted'")
    await lane.owner.execute("UPDATE batches SET created_at = created_at - interval '3 hours' WHERE final_counts IS NULL")
    owner = Database(lane.owner_url, pool_size=1)
    try:
        async with owner.transaction() as tx:
            assert (await restores.begin(tx, "test")).open_orders == len(told.ends)
    finally:
        await owner.close()
    await lane.owner.execute("UPDATE restores SET begun_at = begun_at - interval '2 hours' WHERE ended_at IS NULL")
    await lane.owner.execute("DELETE FROM chores WHERE name = ANY ($1)", list(_CHORES_OF_RESTORE))


async def _restored(lane: Lane, told: Told) -> None:
    """Suppliers are asked what became of them; what was bought is not bought again, what was not is bought when the restore ends."""
    await until_due(lane, _CHORES_OF_RESTORE, _LOOKED_INTO, lane.lost[-1])
    async with lane.db.transaction() as tx:
        ended = await restores.end(tx, keyring_of(lane.settings), "test")
    # what was lost in earlier trials of this lane stands on the supplier's statement of the day as well
    assert (ended["losses"], ended["sent_to_review"]) == (len(lane.lost), 0), ended


async def _nothing_twice(lane: Lane, told: Told) -> None:
    """Nobody knows how far the batch had gone: it is over, nothing of it was bought, and the merchant is told so."""
    [(number, batch_id)] = told.batches.items()
    shown = (await insist(lambda: lane.client.get(f"/v1/order-batches/{batch_id}"))).json()
    assert (shown["status"], shown["progress"]["accepted"], shown["progress"]["unprocessed"]) == ("cancelled", 0, 1), shown
    assert await lane.owner.fetchval("SELECT count(*) FROM orders WHERE merchant_order_no LIKE $1", f"{number}-%") == 0
    heard = {t["id"] for t in lane.world.receiver.told.get(lane.name, ()) if t["data"]["object"].get("id") == batch_id}
    assert len(heard) == 1, heard


STORIES: Final = (
    Story("reconciled", _reconciled, _nothing_told),
    Story("disputed", _disputed, _one_refused, check=_settled_once),
    Story("uploaded", _uploaded, _no_files),
    Story("stopped", _stopped),
    Story("restored", _restored, _put_back, check=_nothing_twice),
)
