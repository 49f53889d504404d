"""鼎信橙券's own traps, over HTTP: states in capitals only, empty values outside the signature, an amount that means two things."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Accepted, CallbackNews, CallbackRefused, Delivered, Refused, Unknown

NAME = "chengquan"


async def test_the_amount_of_an_answer_is_money_and_is_not_taken_for_pieces(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Delivered) and outcome.units == 1 and outcome.cost is None
    assert await twin.delivered(purchase.reference) == 1


async def test_empty_values_are_outside_the_signature_and_decide_nothing(twin: TwinWorld) -> None:
    await twin.turn(async_rate=1, async_after_s=1)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    async with asyncio.timeout(8):
        while not twin.mailbox.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    headers, body = twin.mailbox.calls[0]
    fields = json.loads(body)
    assert fields["message"] == "" and twin.supplier.read_callback is not None
    now = datetime.now(UTC)
    news = twin.supplier.read_callback(headers, body, now)
    assert isinstance(news, CallbackNews) and isinstance(news.outcome, Delivered)
    without = {name: value for name, value in fields.items() if name != "message"}
    assert twin.supplier.read_callback(headers, json.dumps({**without, "extra": ""}).encode(), now) == news
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback(headers, json.dumps({**fields, "message": "x"}).encode(), now)
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback(headers, json.dumps({**fields, "status": ""}).encode(), now)


async def test_a_state_that_nobody_listed_is_doubt(twin: TwinWorld) -> None:
    await twin.turn(contact_staff_rate=1)
    assert isinstance((await twin.supplier.place(twin.purchase())).outcome, Unknown)


async def test_a_failure_is_a_refusal_of_this_channel(twin: TwinWorld) -> None:
    await twin.turn(refuse_rate=1, refuse_code="ORDER_REJECTED")
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Refused)
    assert await twin.charged(purchase.reference) == 0
