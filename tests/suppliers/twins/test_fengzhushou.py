"""The traps of 蜂助手: "no such order" right after submitting, states and errors in one field, no units and no cards in any answer."""

import asyncio

import orjson
import pytest
from tests.suppliers.benches import TwinBench
from tests.suppliers.certificates import settled, until
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Accepted, Delivered, NotFound, NotSent, Outcome, Refused, Unknown

NAME = "fengzhushou"


async def look_up(twin: TwinWorld, reference: str) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(reference)).outcome


async def test_not_found_right_after_submitting_is_never_final(twin: TwinWorld) -> None:
    await twin.turn(not_found_for_s=20)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert await look_up(twin, purchase.reference) == NotFound() and not twin.supplier.capabilities.not_found_is_final

    async def is_found() -> bool:
        return isinstance(await look_up(twin, purchase.reference), Delivered)

    assert await until(is_found, 4)


async def test_9999_is_doubt_and_the_order_is_found(twin: TwinWorld) -> None:
    await twin.turn(error_500_rate=1)
    purchase = twin.purchase()
    assert (await twin.supplier.place(purchase)).outcome == Unknown("code 9999")
    assert isinstance(await look_up(twin, purchase.reference), Delivered)
    assert await twin.delivered(purchase.reference) == 1


async def test_a_repeated_number_is_doubt(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await settled(TwinBench(twin), purchase)
    assert (await twin.supplier.place(purchase)).outcome == Unknown("code 1000")
    assert await twin.delivered(purchase.reference) == 1


async def test_an_account_that_may_not_buy_is_this_channels_no(twin: TwinWorld) -> None:
    await twin.turn(refuse_rate=1, refuse_code="TARGET_BLACKLISTED")
    outcome = (await twin.supplier.place(twin.purchase())).outcome
    assert isinstance(outcome, Refused) and outcome.reason == "target_not_eligible" and outcome.scope == "channel"


async def test_a_limit_is_sent_only_where_it_is_set(twin: TwinWorld) -> None:
    assert isinstance(await settled(TwinBench(twin), twin.purchase(max_cost=1)), Delivered), "nobody guards the price"
    assert not twin.supplier.capabilities.price_version
    guarded = twin.connect(sku_price="limit")
    outcome = (await guarded.place(twin.purchase(max_cost=97_4999))).outcome
    assert isinstance(outcome, Refused) and outcome.reason == "price_exceeded"


async def test_a_failure_after_success_is_a_refusal_that_the_house_holds_against_it(twin: TwinWorld) -> None:
    await twin.turn(reversal_rate=1, reversal_after_s=4)
    purchase = twin.purchase()
    assert isinstance(await settled(TwinBench(twin), purchase), Delivered)

    async def is_failed() -> bool:
        return isinstance(await look_up(twin, purchase.reference), Refused)

    assert await until(is_failed, 4)


async def test_what_its_answers_could_not_tell_is_not_sent(twin: TwinWorld) -> None:
    card = twin.purchase(kind="topup", product_code="SKU200", product_type="card")
    for purchase in (card, twin.purchase(units=2), twin.purchase(face_value=50_0000), twin.purchase(currency="USD"), twin.purchase("138\n0")):
        assert isinstance((await twin.supplier.place(purchase)).outcome, NotSent)
        assert await twin.simulator.rows("orders", purchase.reference) == []


async def test_callbacks_end_only_with_its_json(twin: TwinWorld) -> None:
    twin.mailbox.reply = (200, b"success", "text/plain")
    purchase = twin.purchase()
    await twin.supplier.place(purchase)

    async def again() -> bool:
        return len(twin.mailbox.news(twin.supplier, purchase.reference)) >= 2

    assert await until(again, 4)
    reply = twin.supplier.callback_reply
    twin.mailbox.reply = reply.status, reply.body, reply.content_type
    assert orjson.loads(reply.body) == {"code": "0"}
    await asyncio.sleep(0.9)
    seen = len(twin.mailbox.calls)
    await asyncio.sleep(1)
    assert len(twin.mailbox.calls) <= seen + 1, "acknowledged, and it calls on"


@pytest.mark.parametrize("code", ["BALANCE_NOT_ENOUGH", "PRODUCT_OFF_SHELF", "PRICE_CHANGED", "STOCK_EMPTY"])
async def test_listed_refusals_leave_no_order_behind(twin: TwinWorld, code: str) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Refused)
    assert await look_up(twin, purchase.reference) == NotFound()
    assert await twin.delivered(purchase.reference) == 0 == await twin.charged(purchase.reference)
