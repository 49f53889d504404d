"""福禄's own traps, over HTTP: signatures blind to order, JSON inside JSON, codes nobody explains, China's clock, cards under the secret."""

import asyncio
import time

import pytest
from tests.suppliers.twins.fulu import sign
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.adapters.fulu import wire
from kameng_api.suppliers.port import Accepted, Delivered, NotSent, Outcome, RefusalReason, Refused, Supplier, Unknown

NAME = "fulu"


async def look_up(supplier: Supplier, reference: str) -> Outcome:
    assert supplier.look_up is not None
    return (await supplier.look_up(reference)).outcome


async def until(twin: TwinWorld, reference: str, kind: type) -> Outcome:
    async with asyncio.timeout(8):
        while not isinstance(outcome := await look_up(twin.supplier, reference), kind):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return outcome


async def test_taken_is_untreated_and_the_look_up_delivers_all_units(twin: TwinWorld) -> None:
    purchase = twin.purchase(units=3, fields={"charge_game_region": "一区"})
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    found = await look_up(twin.supplier, purchase.reference)
    assert isinstance(found, Delivered) and (found.units, found.cost) == (3, 3 * 97_5000)
    assert found.cost == await twin.charged(purchase.reference) and found.receipt


async def test_cards_are_decrypted_and_never_in_the_clear(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card", units=2)
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert twin.supplier.look_up is not None
    answer = await twin.supplier.look_up(purchase.reference)
    rows = await twin.simulator.rows("deliveries", purchase.reference)
    assert isinstance(answer.outcome, Delivered)
    assert [(code.code, code.pin) for code in answer.outcome.codes] == [(row["code"], row["pin"]) for row in rows]
    assert rows[0]["code"].encode() not in answer.raw


async def test_a_mobile_top_up_is_one_unit_of_any_value(twin: TwinWorld) -> None:
    for purchase in (twin.purchase(product_code="mobile-100"), twin.purchase(product_code="mobile", face_value=50_0000)):
        assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
        found = await look_up(twin.supplier, purchase.reference)
        assert isinstance(found, Delivered) and found.units == 1 and found.cost == await twin.charged(purchase.reference)


@pytest.mark.parametrize("code", ["STOCK_EMPTY", "BALANCE_NOT_ENOUGH", "PRODUCT_OFF_SHELF", "PRICE_CHANGED"])
async def test_a_code_that_no_document_explains_is_doubt(twin: TwinWorld, code: str) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Unknown), "not even not found"


async def test_a_code_that_the_vendor_confirmed_is_a_refusal_and_a_repetition_never(twin: TwinWorld) -> None:
    knowing = twin.connect(refusal_codes={3002: "out_of_stock", 3008: "supplier_rejected"})
    await twin.turn(refuse_rate=1, refuse_code="STOCK_EMPTY")
    outcome = (await knowing.place(twin.purchase())).outcome
    assert isinstance(outcome, Refused) and outcome.reason is RefusalReason.OUT_OF_STOCK
    await twin.turn()
    purchase = twin.purchase()
    assert isinstance((await knowing.place(purchase)).outcome, Accepted)
    assert isinstance((await knowing.place(purchase)).outcome, Unknown), "外部订单号已存在: an order exists"
    assert await twin.delivered(purchase.reference) == 1


async def test_the_signature_cannot_tell_swapped_digits_and_the_answer_does(twin: TwinWorld) -> None:
    """Somebody on the way swaps two digits of the account: the vendor takes it, and we do not take its answer for our order."""
    swapped = twin.purchase(target="13800130800")
    asked = twin.purchase(target="13800138000", reference=swapped.reference)
    inner = twin.supplier

    async def on_the_way(method: str, url: str, *, headers: object = None, content: bytes = b"", timeout_s: float = 30.0) -> object:
        return await send(method, url, headers=headers, content=content.replace(b"13800138000", b"13800130800"), timeout_s=timeout_s)

    send, inner._send = inner._send, on_the_way  # type: ignore[attr-defined]
    try:
        outcome = (await inner.place(asked)).outcome
    finally:
        inner._send = send  # type: ignore[attr-defined]
    (row,) = await twin.simulator.rows("deliveries", asked.reference)
    assert row["target"] == "13800130800", "its signature was valid"
    assert isinstance(outcome, Unknown)


async def test_the_clock_is_chinas(twin: TwinWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert isinstance((await twin.supplier.place(twin.purchase())).outcome, Accepted)
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_quotes_slashes_and_chinese_survive_json_in_json(twin: TwinWorld) -> None:
    purchase = twin.purchase(target='账号/"\\é', fields={"charge_game_srv": "服/区"})
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    (row,) = await twin.simulator.rows("deliveries", purchase.reference)
    assert row["target"] == purchase.target
    assert isinstance((await twin.supplier.place(twin.purchase(target="a😀"))).outcome, NotSent)


async def test_a_callback_is_read_and_only_a_hint(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="10000000001")
    await twin.supplier.place(purchase)
    found = await until(twin, purchase.reference, Delivered)
    async with asyncio.timeout(8):
        while not twin.mailbox.news(twin.supplier, purchase.reference):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert twin.mailbox.news(twin.supplier, purchase.reference) == [found]
    assert not twin.supplier.capabilities.trusted_callback, "whoever reorders its characters signs as they do"


async def test_the_twin_and_the_adapter_sign_alike_without_sharing_a_line() -> None:
    for text in ("", "a", "321cba", '{"a":"中/文","b":"\\""}'):
        assert wire.sign("s" * 32, text) == sign(text, "s" * 32)


async def test_lists_and_balance_are_read(twin: TwinWorld) -> None:
    assert twin.supplier.products is not None and twin.supplier.product is not None and twin.supplier.balance is not None
    lines = [line async for page in twin.supplier.products() for line in page]
    assert [(line.product_code, line.product_type, line.cost) for line in lines] == [("10000587", "card", 95_5000), ("10000497", "topup", 97_5000)]
    assert await twin.supplier.product("10000497") == lines[1] and await twin.supplier.product("99999999") is None
    before = (await twin.supplier.balance()).balance
    await twin.supplier.place(twin.purchase())
    assert (await twin.supplier.balance()).balance == before - 97_5000
