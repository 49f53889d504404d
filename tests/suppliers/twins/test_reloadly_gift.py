"""The traps of Reloadly's gift cards, over HTTP against the twin: cards at another address in another version, as many as were ordered."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.suppliers.twins import reloadly_gift
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Accepted, Cause, Delivered, LineKind, NotFound, NotSent, Outcome, RefusalReason, Refused, Scope, Unknown
from kameng_api.suppliers.registry import get_adapter
from kameng_api.suppliers.transport import Transport

NAME = "reloadly_gift"


async def look_up(twin: TwinWorld, reference: str, number: str | None = None) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(reference, number)).outcome


async def test_cards_come_with_the_look_up_and_are_those_of_the_log(twin: TwinWorld) -> None:
    purchase = twin.purchase(units=3)
    placed = (await twin.supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted)
    found = await look_up(twin, purchase.reference)
    assert isinstance(found, Delivered) and found == await look_up(twin, purchase.reference, placed.supplier_order_no)
    rows = await twin.simulator.rows("deliveries", purchase.reference)
    assert {(code.code, code.pin) for code in found.codes} == {(row["code"], row["pin"]) for row in rows} and len(found.codes) == 3
    assert found.cost == 3 * 24_2500 == await twin.charged(purchase.reference)


async def test_fewer_cards_than_ordered_are_a_doubt(twin: TwinWorld) -> None:
    await twin.turn(partial_rate=1)
    purchase = twin.purchase(units=3)
    await twin.supplier.place(purchase)
    assert await twin.delivered(purchase.reference) == 2
    assert await look_up(twin, purchase.reference) == Unknown("cards do not fit the units")


async def test_cards_are_shown_in_the_second_version_alone(twin: TwinWorld) -> None:
    """What the twin insists on, seen from outside: the adapter that asks for version 1 everywhere gets no cards, and says so."""
    asked: list[str] = []

    class Old(Transport):
        async def send(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
            given = dict(headers or {})
            asked.append(given.get("accept", ""))
            if "v2" in given.get("accept", ""):
                given["accept"] = "application/json"
            return await super().send(method, url, headers=given, **more)

    adapter = get_adapter(NAME)
    settings = adapter.settings(**{**twin.twin.settings(twin.simulator.url, twin.twin.app_key, twin.twin.secret), "timeout_s": 0.8})
    old = adapter.connect(settings, Old(twin.client, longest_s=2.0).send)
    purchase = twin.purchase()
    assert isinstance((await old.place(purchase)).outcome, Accepted)
    assert old.look_up is not None
    answer = await old.look_up(purchase.reference)
    assert isinstance(answer.outcome, Unknown) and answer.http_status == 406
    assert asked[-1] == "application/com.reloadly.giftcards-v2+json"
    assert isinstance(await look_up(twin, purchase.reference), Delivered)


async def test_airtime_and_gift_cards_have_tokens_of_their_own(twin: TwinWorld) -> None:
    stranger = twin.connect(audience="https://topups.reloadly.com")
    purchase = twin.purchase()
    assert (await stranger.place(purchase)).outcome == NotSent("no token: INVALID_AUDIENCE", Cause.UNREACHED)
    assert await twin.simulator.rows("orders", purchase.reference) == []


async def test_two_calls_at_once_with_one_number_are_two_orders_for_a_person(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await asyncio.gather(*(twin.supplier.place(purchase) for _ in range(2)))
    assert await twin.delivered(purchase.reference) == 2
    found = await look_up(twin, purchase.reference)
    assert isinstance(found, Unknown) and found.needs_person
    again = await twin.supplier.place(purchase)
    assert isinstance(again.outcome, Unknown) and b"CUSTOM_IDENTIFIER_ALREADY_USED" in again.raw


async def test_the_search_does_not_see_case_and_we_do(twin: TwinWorld) -> None:
    ours = twin.purchase()
    await twin.supplier.place(replace(ours, reference=ours.reference.lower()))
    assert isinstance(await look_up(twin, ours.reference), Unknown)
    await twin.supplier.place(ours)
    assert isinstance(await look_up(twin, ours.reference), Delivered)
    assert await look_up(twin, twin.purchase().reference) == NotFound()


async def test_their_errors_are_a_no_for_this_channel(twin: TwinWorld) -> None:
    unknown = (await twin.supplier.place(twin.purchase(product_code="77-5"))).outcome
    assert isinstance(unknown, Refused) and unknown.reason is RefusalReason.PRODUCT_OFF
    price = (await twin.supplier.place(twin.purchase(product_code="10-26"))).outcome
    assert isinstance(price, Refused) and (price.scope, price.detail) == (Scope.CHANNEL, "WRONG_PRODUCT_PRICE")
    await twin.turn(refuse_rate=1, refuse_code="BALANCE_NOT_ENOUGH")
    purchase = twin.purchase()
    empty = (await twin.supplier.place(purchase)).outcome
    assert isinstance(empty, Refused) and empty.reason is RefusalReason.WALLET_EMPTY
    assert await look_up(twin, purchase.reference) == NotFound(), "what was refused leaves no record"


async def test_a_card_of_any_value_is_charged_by_its_face(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="ranged", face_value=12_5000, units=2)
    await twin.supplier.place(purchase)
    found = await look_up(twin, purchase.reference)
    assert isinstance(found, Delivered) and found.cost == 2 * 12_1250 == await twin.charged(purchase.reference)


async def test_the_list_and_the_statement_are_the_vendors(twin: TwinWorld) -> None:
    supplier, purchase = twin.supplier, twin.purchase(units=2)
    assert supplier.products is not None and supplier.product is not None and supplier.statement is not None
    lines = {line.product_code: line for page in [page async for page in supplier.products()] for line in page}
    assert set(lines) == {product.code for product in reloadly_gift.TWIN.products}
    assert (lines["10-25"].cost, lines["10-25"].face_value, lines["11"].cost) == (24_2500, 25_0000, 9700)
    assert await supplier.product("10-26") is None and await supplier.product("999") is None and await supplier.product("x") is None
    await supplier.place(purchase)
    rows = [line async for page in supplier.statement(datetime.now(UTC).date()) for line in page if line.reference == purchase.reference]
    assert [(line.kind, line.amount, line.units) for line in rows] == [(LineKind.CHARGE, -48_5000, 2)]


async def test_the_pages_of_a_long_day_are_all_read(twin: TwinWorld) -> None:
    assert twin.supplier.statement is not None
    purchases = [twin.purchase() for _ in range(55)]  # the vendor shows 50 at once
    for start in range(0, 55, 11):
        await asyncio.gather(*(twin.supplier.place(purchase) for purchase in purchases[start : start + 11]))
    rows = [line async for page in twin.supplier.statement(datetime.now(UTC).date()) for line in page]
    assert {purchase.reference for purchase in purchases} <= {line.reference for line in rows}
    assert len({line.line_id for line in rows}) == len(rows)


async def test_a_webhook_brings_no_cards(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    async with asyncio.timeout(8):
        while not (news := twin.mailbox.news(twin.supplier, purchase.reference)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert isinstance(news[0], Delivered) and news[0].codes == () and not twin.supplier.capabilities.trusted_callback
