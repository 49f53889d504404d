"""卡速售's own traps, over HTTP: lists, refunds as a number, unsigned cards, pushes that sign two fields, two ways to escape."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.suppliers.twins.kasushou import hint_sign
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import (
    Accepted,
    AnswerUnusable,
    CallbackRefused,
    CatalogHint,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Supplier,
    Unknown,
)

NAME = "kasushou"


async def look_up(supplier: Supplier, reference: str) -> Outcome:
    assert supplier.look_up is not None
    return (await supplier.look_up(reference)).outcome


async def until(twin: TwinWorld, reference: str, kind: type) -> Outcome:
    async with asyncio.timeout(8):
        while not isinstance(outcome := await look_up(twin.supplier, reference), kind):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return outcome


async def called(twin: TwinWorld, count: int = 1) -> None:
    async with asyncio.timeout(8):
        while len(twin.mailbox.calls) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_placing_never_hands_out_cards_and_the_look_up_does(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card")
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    outcome = await look_up(twin.supplier, purchase.reference)
    assert isinstance(outcome, Delivered) and outcome.units == 1 and outcome.cost == 95_5000
    log = await twin.simulator.rows("deliveries", purchase.reference)
    assert [(card.code, card.pin) for card in outcome.codes] == [(row["code"], row["pin"]) for row in log]


async def test_cards_in_a_callback_are_not_taken_whatever_they_say(twin: TwinWorld) -> None:
    """`card_list` is outside the signature: rewritten on the way it changes nothing."""
    for _ in range(2):  # once as a form, once as JSON
        purchase = twin.purchase(kind="card")
        await twin.supplier.place(purchase)
    await called(twin, 2)
    assert {headers["content-type"].partition(";")[0] for headers, _ in twin.mailbox.calls} == {
        "application/json",
        "application/x-www-form-urlencoded",
    }
    assert twin.supplier.read_callback is not None
    for headers, body in twin.mailbox.calls:
        true = twin.supplier.read_callback(headers, body, datetime.now(UTC))
        assert not isinstance(true, CatalogHint) and isinstance(true.outcome, Accepted)
        assert twin.supplier.read_callback(headers, body.replace(b"TEST-", b"EVIL-"), datetime.now(UTC)) == true


async def test_slashes_in_a_callback_are_verified_escaped(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    await called(twin)
    (news,) = twin.mailbox.news(twin.supplier, purchase.reference)
    assert isinstance(news, Delivered) and news == await look_up(twin.supplier, purchase.reference)
    assert not twin.supplier.capabilities.trusted_callback


async def test_unicode_slashes_and_line_separators_in_a_request_are_signed_as_php_writes_them(twin: TwinWorld) -> None:
    purchase = twin.purchase(target='账号/"\\ \u2028é', fields={"lblName1": "一区"}, callback_url=f"{twin.mailbox.url}/?a=1&b=中")
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert await twin.delivered(purchase.reference) == 1


async def test_the_same_number_twice_is_doubt_and_buys_once(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Delivered)
    assert await twin.delivered(purchase.reference) == 1


async def test_an_order_it_does_not_know_is_missing_from_the_list(twin: TwinWorld) -> None:
    await twin.turn(not_found_for_s=20)  # a second here
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    assert isinstance(await look_up(twin.supplier, purchase.reference), NotFound)
    assert not twin.supplier.capabilities.not_found_is_final
    await until(twin, purchase.reference, Delivered)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("STOCK_EMPTY", RefusalReason.OUT_OF_STOCK),
        ("BALANCE_NOT_ENOUGH", RefusalReason.WALLET_EMPTY),
        ("PRODUCT_OFF_SHELF", RefusalReason.PRODUCT_OFF),
        ("PRICE_CHANGED", RefusalReason.PRICE_EXCEEDED),
    ],
)
async def test_a_refusal_at_the_door_is_final_and_leaves_no_order(twin: TwinWorld, code: str, reason: RefusalReason) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Refused) and outcome.reason is reason
    assert isinstance(await look_up(twin.supplier, purchase.reference), NotFound)
    assert await twin.charged(purchase.reference) == 0


async def test_a_failure_after_placing_is_final_once_the_money_is_back(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="10000000002")
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert isinstance(await until(twin, purchase.reference, Refused), Refused)
    assert await twin.charged(purchase.reference) == 0


async def test_several_cards_are_never_one_order_because_no_answer_tells_a_part_from_the_whole(twin: TwinWorld) -> None:
    await twin.turn(partial_rate=1)
    purchase = twin.purchase(kind="card", units=3)
    assert isinstance((await twin.supplier.place(purchase)).outcome, NotSent)
    assert await twin.simulator.rows("orders", purchase.reference) == []
    assert twin.supplier.product is not None
    line = await twin.supplier.product("2910")
    assert line is not None and (line.product_type, line.min_units, line.max_units) == ("card", 1, 1)


async def test_a_failure_in_other_words_is_doubt(twin: TwinWorld) -> None:
    """Only the texts of the table say that nothing was entered; 下单参数错误 is none of them, although this site means it."""
    await twin.turn(refuse_rate=1, refuse_code="PARAM_INVALID")
    assert isinstance((await twin.supplier.place(twin.purchase())).outcome, Unknown)


async def test_cards_that_were_taken_back_are_a_reversal(twin: TwinWorld) -> None:
    await twin.turn(reversal_rate=1, reversal_after_s=4)
    purchase = twin.purchase(kind="card")
    await twin.supplier.place(purchase)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Delivered)
    outcome = await until(twin, purchase.reference, Reversed)
    assert isinstance(outcome, Reversed) and outcome.amount == 95_5000
    assert await look_up(twin.supplier, purchase.reference) == outcome, "told twice, one reversal"


async def test_cancelling_is_a_request_and_the_money_tells(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="10000000003")
    placed = (await twin.supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted) and twin.supplier.cancel is not None
    assert isinstance((await twin.supplier.cancel(purchase.reference)).outcome, Accepted)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Refused)
    assert isinstance((await twin.supplier.cancel(purchase.reference, placed.supplier_order_no)).outcome, Unknown), "nothing left to stop"
    assert isinstance((await twin.supplier.cancel("KMTNEVERPLACED")).outcome, Unknown)


async def test_a_wrong_key_buys_nothing(twin: TwinWorld) -> None:
    """签名错误 carries code 400, and is not in the table."""
    purchase = twin.purchase()
    outcome = (await twin.connect(apikey="another-key-of-theirs").place(purchase)).outcome
    assert isinstance(outcome, Unknown)
    assert await twin.delivered(purchase.reference) == 0
    assert isinstance(await look_up(twin.connect(apikey="another-key-of-theirs"), purchase.reference), Unknown)


async def test_several_units_of_a_top_up_cannot_be_told_and_are_not_bought(twin: TwinWorld) -> None:
    for purchase in (twin.purchase(units=2), twin.purchase(product_code="hf-100"), twin.purchase(kind="card", fields={"lblName1": "x"})):
        assert isinstance((await twin.supplier.place(purchase)).outcome, NotSent)


async def test_a_pushed_price_is_a_reason_to_read_it_and_no_price(twin: TwinWorld) -> None:
    assert twin.supplier.read_callback is not None and twin.supplier.product is not None
    push = {"id": "2910", "status": "1", "goods_price": "0.01", "stock_num": "10", "time": "1695073529531"}
    push["sign"] = hint_sign(push, twin.twin.secret)
    told = twin.supplier.read_callback({}, json.dumps(push).encode(), datetime.now(UTC))
    assert told == CatalogHint(("2910",))
    line = await twin.supplier.product("2910")
    assert line is not None and line.cost == 95_5000
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback({}, json.dumps({**push, "id": "2909"}).encode(), datetime.now(UTC))


async def test_the_list_is_read_in_pages_and_the_log_tells_what_changed(twin: TwinWorld) -> None:
    assert twin.supplier.products is not None and twin.supplier.changed_since is not None and twin.supplier.product is not None
    pages = [page async for page in twin.supplier.products()]
    assert [len(page) for page in pages] == [100, 52] and len({line.product_code for page in pages for line in page}) == 152
    start = datetime.now(UTC) - timedelta(seconds=2)
    assert [page async for page in twin.supplier.changed_since(start)] == []
    await twin.turn(price_factor=2)
    changed = {code async for page in twin.supplier.changed_since(start) for code in page}
    assert "2909" in changed
    line = await twin.supplier.product("2909")
    assert line is not None and line.cost == 195_0000 and [one.options for one in line.fields] == [("一区", "二区")]
    assert [page async for page in twin.supplier.changed_since(datetime.now(UTC) + timedelta(hours=1))] == []
    with pytest.raises(AnswerUnusable):
        _ = [page async for page in twin.supplier.changed_since(start - timedelta(days=4))]
    assert await twin.supplier.product("hf-100") is None


async def test_the_balance_is_read(twin: TwinWorld) -> None:
    assert twin.supplier.balance is not None
    before = (await twin.supplier.balance()).balance
    await twin.supplier.place(twin.purchase())
    assert (await twin.supplier.balance()).balance == before - 97_5000
