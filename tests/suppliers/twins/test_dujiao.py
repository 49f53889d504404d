"""The traps of dujiao-next: no question by our number, no price guard, cards only at the look-up, a signed path that is not ours."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from tests.suppliers import traps
from tests.suppliers.benches import TwinBench
from tests.suppliers.twins.dujiao import signature
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import (
    Accepted,
    CallbackNews,
    Code,
    Delivered,
    NotSent,
    Outcome,
    Purchase,
    Refused,
    Reversed,
    SupplierProduct,
    Unknown,
)

NAME = "dujiao"


def by_hand(twin: TwinWorld, target: str | None = "13800138000", **more: Any) -> Purchase:
    return replace(twin.purchase(product_code="22-1022", product_type="topup", **more), target=target)


async def news_of(twin: TwinWorld, reference: str, count: int = 1) -> list[Outcome]:
    async with asyncio.timeout(8):
        while len(found := twin.mailbox.news(twin.supplier, reference)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def placed(twin: TwinWorld, purchase: Purchase) -> str:
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Accepted) and outcome.supplier_order_no, outcome
    return outcome.supplier_order_no


async def look_up(twin: TwinWorld, purchase: Purchase, number: str | None) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(purchase.reference, number)).outcome


async def test_cards_come_with_the_look_up(twin: TwinWorld) -> None:
    purchase = twin.purchase(units=3)
    number = await placed(twin, purchase)
    found = await look_up(twin, purchase, number)
    assert isinstance(found, Delivered) and found.units == 3 and len(found.codes) == 3
    assert found.cost == 3 * 28_8000 == await twin.charged(purchase.reference)
    sold = {row["code"] for row in await twin.simulator.rows("deliveries", purchase.reference)}
    assert {code.code for code in found.codes} == sold


async def test_a_lost_answer_is_for_a_person_until_the_callback_names_both_numbers(twin: TwinWorld) -> None:
    await twin.turn(hang_rate=1, hang_point="after")
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    await twin.turn()
    assert await look_up(twin, purchase, None) == Unknown("it can be asked by its own order number only, and we have none", needs_person=True)
    assert await twin.delivered(purchase.reference) == 1
    [told] = await news_of(twin, purchase.reference)
    assert isinstance(told, Accepted) and told.supplier_order_no and twin.supplier.capabilities.trusted_callback
    assert isinstance(await look_up(twin, purchase, told.supplier_order_no), Delivered)


async def test_a_callback_with_one_card_of_two_is_no_verdict(twin: TwinWorld) -> None:
    """It says no quantity: one line may be all of the order or a part of it."""
    assert twin.supplier.read_callback is not None
    now = int(time.time())
    fulfillment = {"type": "auto", "status": "delivered", "payload": "ABCD-1"}
    body = orjson.dumps({"order_id": 7, "downstream_order_no": "T1", "status": "completed", "fulfillment": fulfillment})
    sign = signature(twin.twin.secret.encode(), "POST", "/api/v1/upstream/callback", str(now), body)
    keys = {"dujiao-next-api-key": twin.twin.app_key, "dujiao-next-timestamp": str(now), "dujiao-next-signature": sign}
    assert twin.supplier.read_callback(keys, body, datetime.now(UTC)) == CallbackNews("T1", Accepted("7"))


async def test_a_number_of_another_shape_is_never_put_into_an_address(twin: TwinWorld) -> None:
    for number in ("1/cancel", "../ping", "", "0", "1?x=1", "9" * 19):
        assert isinstance(await look_up(twin, twin.purchase(), number), Unknown)


async def test_the_same_number_again_is_the_first_order(twin: TwinWorld) -> None:
    purchase = twin.purchase(units=2)
    first = await placed(twin, purchase)
    assert await placed(twin, purchase) == first
    assert await twin.delivered(purchase.reference) == 2


async def test_what_a_person_delivers_is_looked_up_not_counted(twin: TwinWorld) -> None:
    purchase = by_hand(twin)
    number = await placed(twin, purchase)
    [told] = await news_of(twin, purchase.reference)
    assert told == Accepted(number)
    found = await look_up(twin, purchase, number)
    assert isinstance(found, Delivered) and found.units == 1 and found.receipt is None
    (row,) = await twin.simulator.rows("deliveries", purchase.reference)
    assert found.codes == (Code(f"充值成功 {row['receipt']}"),), "whole, and sealed like a card: it may be the goods"
    noted = twin.connect(manual_payload="note")
    assert noted.look_up is not None
    assert (await noted.look_up(purchase.reference, number)).outcome == replace(found, codes=())
    assert isinstance((await twin.supplier.place(by_hand(twin, units=2))).outcome, NotSent)
    assert (await twin.simulator.rows("deliveries", purchase.reference))[0]["target"] == "13800138000"


async def test_an_order_without_its_form_is_refused(twin: TwinWorld) -> None:
    outcome = (await twin.supplier.place(by_hand(twin, target=None))).outcome
    assert isinstance(outcome, Refused) and outcome.detail == "bad_request"


async def test_refusals_before_there_is_an_order(twin: TwinWorld) -> None:
    words = {"STOCK_EMPTY": "insufficient_stock", "BALANCE_NOT_ENOUGH": "insufficient_balance", "PRODUCT_OFF_SHELF": "sku_unavailable"}
    for code, detail in words.items():
        await twin.turn(refuse_rate=1, refuse_code=code)
        outcome = (await twin.supplier.place(twin.purchase())).outcome
        assert isinstance(outcome, Refused) and outcome.detail == detail


async def test_a_later_no_comes_by_callback_and_by_look_up(twin: TwinWorld) -> None:
    await twin.turn(late_failure_rate=1, late_failure_after_s=2)
    purchase = twin.purchase()
    number = await placed(twin, purchase)
    assert await look_up(twin, purchase, number) == Accepted(number)
    [told] = await news_of(twin, purchase.reference)
    assert isinstance(told, Refused) and await look_up(twin, purchase, number) == told


async def test_a_refund_after_delivery_is_a_reversal(twin: TwinWorld) -> None:
    await twin.turn(reversal_rate=1, reversal_after_s=2)
    purchase = twin.purchase()
    number = await placed(twin, purchase)
    told = await news_of(twin, purchase.reference, 2)
    assert told[0] == Accepted(number) and isinstance(told[1], Reversed)
    found = await look_up(twin, purchase, number)
    assert isinstance(found, Reversed) and found.external_id == told[1].external_id and found.amount == 28_8000


async def test_what_was_paid_cannot_be_cancelled(twin: TwinWorld) -> None:
    assert twin.supplier.cancel is None and not twin.supplier.capabilities.cancel


async def test_nobody_guards_the_price(twin: TwinWorld) -> None:
    """What the README warns of: the shop has no limit, so `price_version` is not declared."""
    await twin.turn(price_factor=2)
    purchase = twin.purchase(max_cost=28_8000)
    await placed(twin, purchase)
    assert await twin.charged(purchase.reference) == 57_6000
    assert not twin.supplier.capabilities.price_version


async def test_a_wrong_secret_buys_nothing_and_proves_nothing(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    stranger = twin.connect(api_secret="another secret")
    outcome = (await stranger.place(purchase)).outcome
    assert outcome == Unknown("HTTP 401, invalid_signature") and await twin.delivered(purchase.reference) == 0


async def test_private_callback_addresses_are_refused_in_words(twin: TwinWorld) -> None:
    outcome = (await twin.supplier.place(twin.purchase(callback_url="http://192.168.1.2/callbacks/x"))).outcome
    assert isinstance(outcome, Refused) and outcome.detail == "invalid_callback_url"


async def test_another_currency_is_never_sent(twin: TwinWorld) -> None:
    assert isinstance((await twin.supplier.place(twin.purchase(currency="USD"))).outcome, NotSent)


async def test_forged_callbacks_are_refused_and_unacknowledged_ones_come_again(twin: TwinWorld) -> None:
    await twin.turn(callback_wrong_signature_rate=1)
    forged = twin.purchase()
    await placed(twin, forged)
    async with asyncio.timeout(8):
        while not twin.mailbox.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert twin.mailbox.news(twin.supplier, forged.reference) == []
    await twin.turn()
    twin.mailbox.reply = (200, b"success", "text/plain")
    purchase = twin.purchase()
    await placed(twin, purchase)
    assert len(await news_of(twin, purchase.reference, 2)) >= 2, "only its JSON ends the calling"


async def test_the_list_is_read_by_skus(twin: TwinWorld) -> None:
    assert twin.supplier.products is not None and twin.supplier.product is not None
    lines: list[SupplierProduct] = [line async for page in twin.supplier.products() for line in page]
    assert {line.product_code: (line.product_type, line.cost) for line in lines} == {"21-1021": ("card", 28_8000), "22-1022": ("topup", 16_8000)}
    assert [field.name for line in lines for field in line.fields] == ["account"]
    assert await twin.supplier.product("21-1021") == lines[0]
    assert await twin.supplier.product("99-1") is None and await twin.supplier.product("21-1") is None
    assert twin.supplier.balance is not None
    assert (await twin.supplier.balance()).currency == "CNY"


async def test_the_storm_without_parts(twin: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traps, "STORM", {**traps.STORM, "partial_rate": 0})
    await traps.storm(TwinBench(twin))


async def test_a_part_is_for_a_person(twin: TwinWorld) -> None:
    await twin.turn(partial_rate=1)
    purchase = twin.purchase(units=2)
    found = await look_up(twin, purchase, await placed(twin, purchase))
    assert isinstance(found, Unknown) and found.needs_person
