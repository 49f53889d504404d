"""The traps of 卡卡云: no state at placing, failure and refund as two words, a total as the limit, `\\r` in cards, two hosts, signed lists."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from tests.suppliers import traps
from tests.suppliers.benches import TwinBench
from tests.suppliers.certificates import settled, until
from tests.suppliers.twins.kakayun import getKkySign
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import (
    Accepted,
    CallbackNews,
    CallbackRefused,
    CatalogHint,
    Cause,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    Refused,
    Unknown,
)

NAME = "kakayun"


async def look_up(twin: TwinWorld, reference: str) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(reference)).outcome


async def test_placing_tells_a_number_and_nothing_else(twin: TwinWorld) -> None:
    purchase = twin.purchase(units=2)
    placed = (await twin.supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted) and placed.supplier_order_no
    found = await look_up(twin, purchase.reference)
    assert isinstance(found, Delivered) and (found.units, found.cost) == (2, 2 * 97_5000)


async def test_the_limit_is_on_the_total(twin: TwinWorld) -> None:
    exact = replace(twin.purchase(units=3), max_cost=3 * 97_5000)
    assert isinstance(await settled(TwinBench(twin), exact), Delivered)
    below = replace(twin.purchase(units=3), max_cost=3 * 97_5000 - 1)
    outcome = (await twin.supplier.place(below)).outcome
    assert isinstance(outcome, Refused) and outcome.reason == "price_exceeded" and await twin.delivered(below.reference) == 0


async def test_a_repeated_number_says_that_there_is_an_order(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await settled(TwinBench(twin), purchase)
    assert (await twin.supplier.place(purchase)).outcome == Unknown("code 1205")
    assert await twin.delivered(purchase.reference) == 1


async def test_no_code_for_want_of_stock(twin: TwinWorld) -> None:
    await twin.turn(refuse_rate=1, refuse_code="STOCK_EMPTY")
    purchase = twin.purchase()
    assert (await twin.supplier.place(purchase)).outcome == Unknown("code -1")
    assert await look_up(twin, purchase.reference) == NotFound() and not twin.supplier.capabilities.not_found_is_final


async def test_asked_too_often_is_not_sent(twin: TwinWorld) -> None:
    await twin.turn(rate_limit_per_s=1)
    outcomes = [(await twin.supplier.place(twin.purchase())).outcome for _ in range(4)]
    busy = [outcome for outcome in outcomes if isinstance(outcome, NotSent)]
    assert busy and all(outcome.cause is Cause.BUSY for outcome in busy)


async def test_parts_of_cards_are_counted_and_parts_of_top_ups_are_for_a_person(twin: TwinWorld) -> None:
    await twin.turn(partial_rate=1)
    cards = await settled(TwinBench(twin), twin.purchase(kind="card", units=3))
    assert isinstance(cards, Delivered) and (cards.units, len(cards.codes), cards.cost) == (2, 2, 2 * 28_8000)
    topped = await settled(TwinBench(twin), twin.purchase(units=3))
    assert isinstance(topped, Unknown) and topped.needs_person


async def test_cards_have_a_pin_and_an_expiry_and_no_carriage_return(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card", units=2)
    found = await settled(TwinBench(twin), purchase)
    assert isinstance(found, Delivered)
    assert {code.expires_on for code in found.codes} == {date(2026, 12, 31)}
    assert all(code.pin and not (code.code + code.pin).endswith("\r") for code in found.codes)


async def test_status_one_is_nobodys_verdict(twin: TwinWorld) -> None:
    await twin.turn(contact_staff_rate=1)
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    assert await look_up(twin, purchase.reference) == Unknown("status 1")


async def test_further_fields_are_a_signed_list(twin: TwinWorld) -> None:
    purchase = twin.purchase(fields={"9": "张三 & 李/四", "15": '"a=b"'})
    assert isinstance(await settled(TwinBench(twin), purchase), Delivered)
    [order] = await twin.simulator.rows("orders", purchase.reference)
    assert order["target"] == purchase.target


async def test_what_cannot_be_said_is_not_sent(twin: TwinWorld) -> None:
    for purchase in (
        twin.purchase(face_value=50_0000), twin.purchase(currency="USD"), twin.purchase(product_code="x1"), twin.purchase(fields={"name": "x"}),
        twin.purchase("138\u202800138000"),
    ):  # fmt: skip
        assert isinstance((await twin.supplier.place(purchase)).outcome, NotSent)


async def test_questions_go_to_the_fixed_host_and_orders_to_the_site(twin: TwinWorld) -> None:
    elsewhere = twin.connect(base_url="http://127.0.0.1:1")
    assert isinstance((await elsewhere.place(twin.purchase())).outcome, NotSent)
    assert elsewhere.balance is not None and (await elsewhere.balance()).currency == "CNY"


async def test_callbacks_are_read_and_only_hints(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card", units=2)
    await twin.supplier.place(purchase)

    async def told() -> bool:
        return bool(twin.mailbox.news(twin.supplier, purchase.reference))

    assert await until(told, 4)
    news = twin.mailbox.news(twin.supplier, purchase.reference)[0]
    assert news == await look_up(twin, purchase.reference) and not twin.supplier.capabilities.trusted_callback


async def test_a_field_cut_out_of_a_value_changes_no_verdict(twin: TwinWorld) -> None:
    """Two callbacks with one signature: the refund hidden inside the text before it. Without the word about the money there is no verdict."""
    assert twin.supplier.read_callback is not None
    now = datetime.now(UTC)
    true: dict[str, Any] = {
        "orderno": "SD1", "usorderno": "T1", "money": "1.0000", "status": 4, "receipt": "x", "refundmoney": "1.0000", "refundstatus": 1,
        "timestamp": int(now.timestamp()),
    }  # fmt: skip
    secret = twin.twin.secret.encode()
    true["sign"] = getKkySign(true, secret)
    read = twin.supplier.read_callback({}, orjson.dumps(true), now)
    assert isinstance(read, CallbackNews) and isinstance(read.outcome, Refused)
    cut = {**true, "receipt": "x&refundmoney=1.0000&refundstatus=1"}
    del cut["refundmoney"], cut["refundstatus"]
    assert getKkySign(cut, secret) == true["sign"]
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback({}, orjson.dumps(cut), now)


async def test_a_push_about_goods_names_a_line_to_read_again(twin: TwinWorld) -> None:
    assert twin.supplier.read_callback is not None and twin.supplier.product is not None
    now = datetime.now(UTC)
    push: dict[str, Any] = {"goodsid": 2478517, "goodsprice": 1.5, "goodsstatus": 1, "goodstype": 0, "timestamp": int(now.timestamp())}
    push["sign"] = getKkySign(push, twin.twin.secret.encode())
    hint = twin.supplier.read_callback({}, orjson.dumps(push), now)
    assert hint == CatalogHint(("2478517",))
    line = await twin.supplier.product("2478517")
    assert line is not None and line.cost == 28_8000, "what the push said of the price is not taken"


async def test_a_top_up_says_what_it_must_be_told(twin: TwinWorld) -> None:
    assert twin.supplier.product is not None
    line = await twin.supplier.product("2478510")
    assert line is not None and [(field.name, field.label) for field in line.fields] == [("3", "游戏大区")]
    assert await twin.supplier.product("99999999") is None


async def test_the_storm_without_parts(twin: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traps, "STORM", {**traps.STORM, "partial_rate": 0})
    await traps.storm(TwinBench(twin))
