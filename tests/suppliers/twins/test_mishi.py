"""秘史's own traps, over HTTP: a price that is signed as a float, codes nobody documented, a number used twice, no time in callbacks."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode

import pytest
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Accepted, CallbackNews, CallbackRefused, Delivered, NotFound, NotSent, Unknown

NAME = "mishi"


async def called(twin: TwinWorld) -> tuple[dict[str, str], bytes]:
    await twin.turn(async_rate=1, async_after_s=1)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    async with asyncio.timeout(8):
        while not twin.mailbox.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return twin.mailbox.calls[0]


async def test_the_price_is_signed_with_one_place_and_sent_with_two(twin: TwinWorld) -> None:
    """97.45 is signed as 97.5 or 97.4, whatever a double makes of it; other hundredths pass, and change nothing that is read."""
    headers, body = await called(twin)
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    assert fields["fSalePrice"] == "97.45" and twin.supplier.read_callback is not None
    true_news = twin.supplier.read_callback(headers, body, datetime.now(UTC))
    assert isinstance(true_news, CallbackNews) and true_news.outcome == Delivered(1)
    near = urlencode({**fields, "fSalePrice": f"{float(f'{97.45:.1f}'):.2f}"}).encode()
    assert twin.supplier.read_callback(headers, near, datetime.now(UTC)) == true_news
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback(headers, urlencode({**fields, "fSalePrice": "99.00"}).encode(), datetime.now(UTC))


async def test_an_old_callback_passes_and_is_therefore_only_a_hint(twin: TwinWorld) -> None:
    headers, body = await called(twin)
    assert twin.supplier.read_callback is not None
    assert isinstance(twin.supplier.read_callback(headers, body, datetime.now(UTC) + timedelta(days=30)), CallbackNews)
    assert not twin.supplier.capabilities.trusted_callback


async def test_a_refusal_with_a_code_nobody_confirmed_stays_doubt(twin: TwinWorld) -> None:
    await twin.turn(refuse_rate=1, refuse_code="TARGET_BLACKLISTED")
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert twin.supplier.look_up is not None
    assert isinstance((await twin.supplier.look_up(purchase.reference)).outcome, NotFound)
    assert not twin.supplier.capabilities.not_found_is_final


async def test_the_same_number_twice_is_doubt_and_buys_once(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    first = (await twin.supplier.place(purchase)).outcome
    assert isinstance(first, Accepted)
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert await twin.delivered(purchase.reference) == 1


async def test_a_product_code_without_its_two_parts_is_not_sent(twin: TwinWorld) -> None:
    outcome = (await twin.supplier.place(twin.purchase(product_code="100"))).outcome
    assert isinstance(outcome, NotSent)
