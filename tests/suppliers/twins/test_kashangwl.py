"""The traps of 卡商网: no list of codes, a state called unknown, refunds as a number, an unclear limit, a signature that can be lengthened."""

import hashlib
from dataclasses import replace

import orjson
import pytest
from tests.suppliers import traps
from tests.suppliers.benches import TwinBench
from tests.suppliers.certificates import settled, until
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import AnswerUnusable, Delivered, NotSent, Outcome, Purchase, Refused, Reversed, Unknown

NAME = "kashangwl"


async def look_up(twin: TwinWorld, purchase: Purchase) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(purchase.reference)).outcome


@pytest.mark.parametrize("code", ["STOCK_EMPTY", "BALANCE_NOT_ENOUGH", "PRODUCT_OFF_SHELF", "PRICE_CHANGED", "PARAM_INVALID"])
async def test_a_code_that_is_in_no_list_is_doubt(twin: TwinWorld, code: str) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert isinstance(await look_up(twin, purchase), Unknown), "and so is the answer to a question about it"
    assert await twin.charged(purchase.reference) == 0


async def test_a_code_that_the_platform_has_confirmed_is_a_refusal(twin: TwinWorld) -> None:
    """The twin says `error` to everything; a real platform's list tells more."""
    await twin.turn(refuse_rate=1, refuse_code="STOCK_EMPTY")
    told = twin.connect(refusal_codes={"error": "out_of_stock"})
    outcome = (await told.place(twin.purchase())).outcome
    assert isinstance(outcome, Refused) and outcome.reason == "out_of_stock"
    for code in ("ok", "server_error", ""):
        with pytest.raises(ValueError, match="refusal_codes"):
            twin.connect(refusal_codes={code: "out_of_stock"})


async def test_server_error_is_doubt_and_the_order_is_found(twin: TwinWorld) -> None:
    await twin.turn(error_500_rate=1)
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, Unknown) and b"server_error" in answer.raw and answer.http_status == 200
    assert isinstance(await look_up(twin, purchase), Delivered)


async def test_their_own_unknown_is_ours(twin: TwinWorld) -> None:
    await twin.turn(contact_staff_rate=1)
    purchase = twin.purchase()
    assert (await twin.supplier.place(purchase)).outcome == Unknown("state 501, unknown in their own words")
    assert isinstance(await look_up(twin, purchase), Unknown)


async def test_a_repeated_number_is_never_a_refusal(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Delivered)
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert await twin.delivered(purchase.reference) == 1


async def test_a_refund_is_a_number_not_a_state(twin: TwinWorld) -> None:
    await twin.turn(reversal_rate=1, reversal_after_s=1)
    purchase = twin.purchase()
    await twin.supplier.place(purchase)

    async def is_taken_back() -> bool:
        return isinstance(await look_up(twin, purchase), Reversed)

    assert await until(is_taken_back, 4)
    found = await look_up(twin, purchase)
    assert isinstance(found, Reversed) and found.amount == 97_5000


async def test_a_refund_of_a_part_is_for_a_person(twin: TwinWorld) -> None:
    await twin.turn(partial_rate=1)
    purchase = twin.purchase(units=3)
    found = await settled(TwinBench(twin), purchase)
    assert isinstance(found, Unknown) and found.needs_person


async def test_the_limit_is_never_read_as_more_than_we_pay(twin: TwinWorld) -> None:
    """The twin takes it for the price of one; said as the total, three units could cost three times too much."""
    exact = replace(twin.purchase(units=3), max_cost=3 * 97_5000)
    assert isinstance((await twin.supplier.place(exact)).outcome, Delivered)
    below = replace(twin.purchase(units=3), max_cost=3 * 97_5000 - 1)
    assert isinstance((await twin.supplier.place(below)).outcome, Unknown)
    assert await twin.delivered(below.reference) == 0
    wrongly_set = twin.connect(safe_cost="total")
    dear = replace(twin.purchase(units=3), max_cost=98_0000)
    assert isinstance((await wrongly_set.place(dear)).outcome, Delivered) and await twin.charged(dear.reference) > dear.max_cost


@pytest.mark.parametrize("changes", [{"body": "form"}, {"timestamp": "ms"}, {"body": "form", "timestamp": "ms"}])
async def test_the_other_dialects_of_the_family(twin: TwinWorld, changes: dict[str, str]) -> None:
    supplier = twin.connect(**changes)
    purchase = twin.purchase(fields={"大区": "一区 & 二区 + %"})
    assert isinstance((await supplier.place(purchase)).outcome, Delivered)


async def test_vouchers_are_tickets(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card", product_code="41555", product_type="voucher", units=2)
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Delivered) and len(outcome.codes) == 2
    assert isinstance(await look_up(twin, purchase), Delivered)


async def test_a_lengthened_callback_is_why_callbacks_are_only_hints(twin: TwinWorld) -> None:
    """Whoever knows the key's length can add to a value behind the signature; an unsigned one is refused at once."""
    assert not twin.supplier.capabilities.trusted_callback and twin.supplier.read_callback is not None
    await twin.turn(async_rate=1, async_after_s=1)
    purchase = twin.purchase()
    await twin.supplier.place(purchase)

    async def called() -> bool:
        return bool(twin.mailbox.calls)

    assert await until(called, 4)
    headers, body = twin.mailbox.calls[0]
    fields = orjson.loads(body)
    assert twin.mailbox.news(twin.supplier, purchase.reference) == [Delivered(1, supplier_order_no=fields["order_id"])]
    del fields["sign"]
    unsigned = {**fields, "sign": hashlib.md5(b"").hexdigest()}
    twin.mailbox.calls = [(headers, orjson.dumps(fields)), (headers, orjson.dumps(unsigned))]
    assert twin.mailbox.news(twin.supplier, purchase.reference) == []


async def test_one_product_at_a_time(twin: TwinWorld) -> None:
    assert twin.supplier.products is None and twin.supplier.product is not None
    line = await twin.supplier.product("41553")
    assert line is not None and (line.product_type, line.cost, line.max_units) == ("topup", 97_5000, 100)
    assert await twin.supplier.product("x") is None
    with pytest.raises(AnswerUnusable):  # no code for "no such product" is known
        await twin.supplier.product("99999999")


async def test_what_cannot_be_said_is_not_sent(twin: TwinWorld) -> None:
    odd = ({"face_value": 50_0000}, {"currency": "USD"}, {"product_code": "x1"}, {"target": "138\n00138000"})
    for purchase in [twin.purchase(**change) for change in odd]:
        assert isinstance((await twin.supplier.place(purchase)).outcome, NotSent)


async def test_the_storm_without_parts(twin: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traps, "STORM", {**traps.STORM, "partial_rate": 0})
    await traps.storm(TwinBench(twin))
