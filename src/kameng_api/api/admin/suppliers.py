"""The supplier desk: all suppliers at a glance, the form of a channel and its test, wallets, statements, and stopping an order."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Query
from prometheus_client import Counter
from pydantic import Field

from kameng_api.api.admin import cancelling, shapes
from kameng_api.api.admin import supplier_shapes as shown
from kameng_api.api.admin.desk import Amount, AtDesk, DeskRoute, Instant, needs, read_id
from kameng_api.api.admin.supplier_probes import merge_settings, probe_channel, probe_settings
from kameng_api.api.routes import WireModel
from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as channels
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import NotFound
from kameng_api.operators import queries, suppliers
from kameng_api.operators.actions import invalid
from kameng_api.suppliers import registry
from kameng_api.suppliers.desk import queries as desk_of
from kameng_api.tasks.rules import Lane

router = APIRouter(route_class=DeskRoute)

Environment = Literal["live", "test"]
CANCELS: Final = Counter("kameng_cancels_asked_total", "Orders that suppliers were asked to cancel, by what they said.", ["channel", "outcome"])


@router.get("/suppliers")
@needs("read")
async def list_suppliers(desk: AtDesk, environment: Annotated[Environment | None, Query()] = None) -> dict[str, Any]:
    """Every channel: does it take orders and if not why, health, wallet and for how long, doubts, last statement, papers that end."""
    now = utc_now()
    async with desk.door.db.transaction() as tx:
        found = await suppliers.list_overviews(tx, now, environment=environment)
    return {"items": [shown.overview(one, now) for one in found], "next_cursor": None}


@router.get("/suppliers/{channel_id}")
@needs("read")
async def get_supplier(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    """The same of one, with its papers and when its statements come."""
    now = utc_now()
    async with desk.door.db.transaction() as tx:
        [found] = await suppliers.list_overviews(tx, now, channel_id=channel_id)
        papers = await desk_of.list_documents(tx, channel_id)
        schedules = await suppliers.list_schedules(tx, channel_id)
    return {
        **shown.overview(found, now),
        "papers": [shown.document(one, now) for one in papers],
        "statements": [shown.schedule(row, now) for row in schedules],
    }


# ---- connecting ------------------------------------------------------------------------------------------------------


@router.get("/adapters/{adapter}")
@needs("read")
async def get_form(desk: AtDesk, adapter: str) -> dict[str, Any]:
    """What must be filled in to connect a channel, in order, in English and Chinese; then `POST /channels`."""
    try:
        return shown.form(registry.get_adapter(adapter))
    except registry.AdapterNotFound as error:
        raise NotFound(str(error)) from None


class TestWanted(WireModel):
    """Settings as they would be saved."""

    adapter: str
    environment: Environment
    settings: dict[str, Any]


@router.post("/suppliers/try")
@needs("channels:write")
async def try_settings(desk: AtDesk, wanted: TestWanted) -> dict[str, Any]:
    """Does it work, before anything is saved? Asks for the balance and one page of products; buys nothing, keeps nothing."""
    report = await probe_settings(wanted.adapter, wanted.environment, wanted.settings, desk.door.settings.supplier_timeout_s)
    async with desk.door.db.transaction() as tx:  # who reached out to whom is known afterwards; with which secrets is not
        found = [step.found.value for step in report.steps]
        await desk.audit(tx, "channel.settings_tried", f"adapter:{wanted.adapter}", environment=wanted.environment, works=report.works, found=found)
    return shown.report(report)


@router.post("/suppliers/{channel_id}/try")
@needs("channels:switch")
async def try_channel(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    """Does a saved channel work? The same questions."""
    async with desk.door.db.transaction() as tx:
        channel = await channels.get_channel(tx, channel_id)
    report = await probe_channel(channel, desk.door.keyring, desk.door.settings.supplier_timeout_s)
    async with desk.door.db.transaction() as tx:
        if report.wallet is not None:
            await catalog.record_wallet(tx, channel_id, report.wallet.balance)
        await desk.audit(tx, "channel.tried", f"channel:{channel_id}", works=report.works, found=[step.found.value for step in report.steps])
    return shown.report(report)


class SettingsChanged(WireModel):
    """Only what changes; what is left out stays as it is sealed. With an address at another host every secret is said too."""

    settings: dict[str, Any] = Field(min_length=1)


@router.post("/suppliers/{channel_id}/settings")
@needs("channels:write")
async def change_settings(desk: AtDesk, channel_id: str, wanted: SettingsChanged) -> dict[str, Any]:
    """Change some settings without typing the secrets again; another host wants them anew. Open orders are looked up with the new ones."""
    async with desk.door.db.transaction() as tx:
        old = await channels.get_channel(tx, channel_id)
        sealed = merge_settings(old, desk.door.keyring, wanted.settings)
        await catalog.change_channel(
            tx, desk.door.keyring, channel_id,
            name=old.name, settings=sealed, concurrency=old.concurrency, wallet_low_at=old.wallet_low_at,
        )  # fmt: skip
        changed = sorted(name for name in wanted.settings if name in orjson.loads(sealed))
        await desk.audit(tx, "channel.settings_changed", f"channel:{channel_id}", changed=changed)
        return shapes.channel(await channels.get_channel(tx, channel_id))


# ---- the wallet ------------------------------------------------------------------------------------------------------


@router.get("/suppliers/{channel_id}/wallet")
@needs("read")
async def get_wallet(
    desk: AtDesk,
    channel_id: str,
    since: Annotated[Instant | None, Query()] = None,
    until: Annotated[Instant | None, Query()] = None,
    step_s: Annotated[int, Query(ge=60, le=86_400)] = 3600,
) -> dict[str, Any]:
    """What is in it and how long it lasts, with its balances over time and what it was charged by the hour. At most 1000 points."""
    now = utc_now()
    end = until or now
    begin = since or end - timedelta(days=1)
    if not timedelta() < end - begin <= timedelta(seconds=suppliers.MOST_POINTS * step_s):
        raise invalid("/query/since", "out_of_range", f"before until, and at most {suppliers.MOST_POINTS} steps")
    async with desk.door.db.transaction() as tx:
        channel = await channels.get_channel(tx, channel_id)
        wallets = await suppliers.read_wallets(tx, [channel])
        points = await suppliers.list_balances(tx, channel_id, begin, end, timedelta(seconds=step_s))
        burns = await desk_of.list_burns(tx, channel_id, begin, end)
    return {
        "channel_id": channel_id,
        **shown.wallet(channel, wallets[channel_id], now),
        "balances": [shown.balance_point(row) for row in points],
        "charges": [shown.burn(row) for row in burns],
    }


class WalletTerms(WireModel):
    """When somebody is told, and when the channel pauses. What is null is off.

    `low_at`: alarm below it. `hours_left`: alarm when it lasts for less. `floor`: no new orders below it, until it holds `resume_at`
    (null: the floor) again.
    """

    low_at: Amount | None = None
    floor: Amount | None = None
    resume_at: Amount | None = None
    hours_left: int | None = None


@router.put("/suppliers/{channel_id}/wallet")
@needs("channels:write")
async def set_wallet_terms(desk: AtDesk, channel_id: str, wanted: WalletTerms) -> dict[str, Any]:
    """All of them at once; a pause is weighed anew by what the supplier said last."""
    async with desk.door.db.transaction() as tx:
        await catalog.set_wallet_terms(
            tx, channel_id, low_at=wanted.low_at, floor=wanted.floor, resume_at=wanted.resume_at, hours_left=wanted.hours_left
        )
        channel = await channels.get_channel(tx, channel_id)
        wallets = await suppliers.read_wallets(tx, [channel])
        told = shown.wallet(channel, wallets[channel_id], utc_now())
        terms = {name: told[name] for name in ("low_at", "floor", "resume_at", "hours_left")}
        await desk.audit(tx, "channel.wallet_terms_set", f"channel:{channel_id}", **terms)
    return {"channel_id": channel_id, **told}


# ---- stopping an order -----------------------------------------------------------------------------------------------


class CancelWanted(WireModel):
    reason: str = Field(min_length=1, max_length=500)


@router.post("/orders/{order_id}/attempts/{attempt_id}/ask-to-cancel")
@needs("reviews:write")
async def ask_supplier_to_cancel(desk: AtDesk, order_id: str, attempt_id: str, wanted: CancelWanted) -> dict[str, Any]:
    """Ask the supplier to stop an order it works on. Only its final no frees the units; "taken" and doubt are looked up, as ever."""
    order, attempt = read_id("ord", order_id), read_id("att", attempt_id)
    async with desk.door.db.transaction() as tx:
        asked = await cancelling.find_asked(tx, order, attempt)
    answer, supplier = await cancelling.ask(asked, desk.door.keyring, desk.door.settings.supplier_timeout_s)
    async with desk.door.db.transaction() as tx:
        word = await cancelling.record(tx, desk.door.keyring, asked, answer, supplier)
        channel_id = asked.channel.channel_id
        await desk.audit(tx, "attempt.cancel_asked", order_id, attempt=attempt_id, channel=channel_id, outcome=word, reason=wanted.reason)
        rows = await queries.list_attempts(tx, asked.attempt.book_id, order)
    CANCELS.labels(channel_id, word).inc()
    desk.door.doorbell.ring(Lane.SUBMIT)
    [row] = [row for row in rows if row["attempt_id"] == attempt]
    return {"order_id": order_id, "answer": word, "attempt": shapes.attempt(row)}
