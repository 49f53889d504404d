"""Reloadly's gift card requests and webhook signatures byte for byte. Sources: the vendor's OpenAPI (2022-07), sandbox observations of 2026-10-08."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from kameng_api.kit.ids import book_reference
from kameng_api.suppliers.adapters.reloadly_gift import catalogue, mapping, wire
from kameng_api.suppliers.adapters.reloadly_gift.client import ReloadlyGiftSupplier
from kameng_api.suppliers.adapters.reloadly_gift.settings import ReloadlyGiftSettings
from kameng_api.suppliers.port import Cause, Delivered, HttpAnswer, NotFound, NotSent, Purchase, Unknown


def purchase(**more: object) -> Purchase:
    values = {"reference": "101JD0000000000000000000001", "product_code": "10-25", "product_type": "card", "units": 2, "currency": "USD"}
    return Purchase(**{**values, "max_cost": 60_0000, **more})  # type: ignore[arg-type]


def test_an_order_is_said_as_the_document_says_it() -> None:
    assert wire.order_body(purchase(), "Hub") == (
        b'{"productId":10,"quantity":2,"unitPrice":25,"customIdentifier":"101JD0000000000000000000001","senderName":"Hub","preOrder":false}'
    )
    assert wire.order_body(purchase(product_code="11", face_value=12_3400, fields={"userId": "u-1", "email": "a@example.com"}), "Hub").endswith(
        b'"productAdditionalRequirements":{"userId":"u-1"},"recipientEmail":"a@example.com"}'
    )


def test_no_phone_of_a_recipient_is_ever_named() -> None:
    assert b"hone" not in wire.order_body(purchase(fields={"recipientPhoneDetails": "x", "phone": "+8613800138000"}), "Hub")


@pytest.mark.parametrize(
    ("face", "rate", "discount", "percent", "flat", "charged"),
    [  # what the sandbox charged for one card
        ("5", "1", "0", "0", "1", 6_0000),
        ("5", "1", "5", "0", "1", 5_7500),
        ("5", "1", "1", "1", "1", 6_0000),
        ("10", "1", "1.5", "1", "1", 10_9500),
        ("5", "1.176776", "0", "0", "1", 6_8839),
        ("5", "0.272294", "1.2", "0", "1", 2_3452),
    ],
)
def test_the_lists_cost_is_what_the_sandbox_charged(face: str, rate: str, discount: str, percent: str, flat: str, charged: int) -> None:
    product = {
        "productId": 10,
        "productName": "Card",
        "denominationType": "FIXED",
        "senderCurrencyCode": "USD",
        "recipientCurrencyToSenderCurrencyExchangeRate": Decimal(rate),
        "discountPercentage": Decimal(discount),
        "senderFeePercentage": Decimal(percent),
        "senderFee": Decimal(flat),
        "fixedRecipientDenominations": [Decimal(face)],
    }
    [line] = catalogue.lines(product)
    assert line.cost == charged


def test_a_webhook_is_signed_over_the_body_a_colon_and_its_time() -> None:
    body = b'{"type":"airtime_transaction.status","data":{"transactionId":1}}'
    wanted = "e6167a25e3f26c84497c00a6571ff77dd41d4102d42a4371c5074c71a2ec3c62"  # by openssl dgst -sha256 -hmac
    assert wire.signature("webhook-secret", body, "1795335360") == wanted


def test_what_may_have_bought_is_in_no_table() -> None:
    doubtful = {"CUSTOM_IDENTIFIER_ALREADY_USED", "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT", "PROVIDER_INTERNAL_ERROR"}
    assert not doubtful & (set(mapping.REFUSALS) | mapping.TOKEN_REFUSED)


def test_a_value_is_named_where_the_card_has_a_range_and_nowhere_else() -> None:
    for wrong in (purchase(face_value=50_0000), purchase(product_code="11"), purchase(units=0)):
        with pytest.raises(wire.Unreadable):
            wire.order_body(wrong, "Hub")


def test_the_lists_own_price_goes_before_the_rounded_rate() -> None:
    """1.2 IDR cards: the published rate has six places, what is charged has more."""
    product = {
        "productId": 12,
        "productName": "Card",
        "denominationType": "FIXED",
        "recipientCurrencyCode": "IDR",
        "senderCurrencyCode": "USD",
        "recipientCurrencyToSenderCurrencyExchangeRate": Decimal("0.000061"),
        "fixedRecipientDenominations": [100_000, 500_000],
        "fixedRecipientToSenderDenominationsMap": {"100000.00": Decimal("6.18")},
        "discountPercentage": Decimal("1.5"),
        "senderFee": Decimal("0.5"),
    }
    first, second = catalogue.lines(product)
    assert (first.cost, second.cost) == (6_5873, 30_5425), "the exact price where it stands, else the rate; discount and fee upon either"


# ---- the account: its window and its currency


@dataclass
class Vendor:
    """Gives a token, cards where they are asked for, else the same answer, and remembers what it was asked."""

    body: bytes
    asked: list[str] = field(default_factory=list)

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        if url.endswith("/oauth/token"):
            return HttpAnswer(200, {"content-type": "application/json"}, b'{"access_token":"one","expires_in":3600,"token_type":"Bearer"}')
        self.asked.append(url)
        cards = b'[{"cardNumber":"TEST-1","pinCode":null,"redemptionUrl":null}]'
        kind = {"content-type": "application/com.reloadly.giftcards-v2+json"}
        return HttpAnswer(200, kind, cards if url.endswith("/cards") else self.body)


def account(vendor: Vendor, **more: Any) -> ReloadlyGiftSupplier:
    keys = {"client_id": "client-example", "client_secret": "example-secret-0123456789", "webhook_secret": "webhook-secret-0123456789"}
    return ReloadlyGiftSupplier(ReloadlyGiftSettings(**{**keys, "sender_name": "Hub", **more}), vendor)


@pytest.mark.parametrize("age", [timedelta(), timedelta(days=3), timedelta(days=7)])
async def test_an_old_orders_late_attempt_lies_in_the_window(age: timedelta) -> None:
    """A reference carries the time of its order: the attempt may have been made any time from then to now."""
    now = datetime.now(UTC)
    reference = book_reference(7, UUID(int=int((now - age).timestamp() * 1000) << 80 | 5))
    vendor = Vendor(b'{"content":[],"totalElements":0}')
    assert (await account(vendor).look_up(reference)).outcome == NotFound()
    query = parse_qs(urlsplit(vendor.asked[0]).query)
    start, end = (datetime.strptime(query[name][0], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for name in ("startDate", "endDate"))
    assert abs(start - (now - age - wire.WIDER)) < timedelta(seconds=5)
    assert abs(end - (now + wire.WIDER)) < timedelta(seconds=60)


async def test_what_is_not_in_our_accounts_currency_is_not_sent() -> None:
    vendor = Vendor(b"{}")
    other = await account(vendor).place(purchase(currency="CNY"))
    assert isinstance(other.outcome, NotSent) and other.outcome.cause is Cause.UNSAYABLE and vendor.asked == []
    assert isinstance((await account(vendor, currency="CNY").place(purchase(currency="CNY"))).outcome, Unknown) and len(vendor.asked) == 1


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ({"balanceInfo": {"cost": 24.25, "currencyCode": "USD"}, "currencyCode": "EUR"}, 24_2500),
        ({"balanceInfo": {"cost": 24.25, "currencyCode": "EUR"}, "currencyCode": "USD", "amount": 20}, None),
        ({"balaneInfo": {"cost": 24.25, "currencyCode": "EUR"}}, None),
        ({"amount": 24.25, "currencyCode": "USD"}, 24_2500),
        ({"amount": 24.25, "currencyCode": "EUR"}, None),
    ],
)
async def test_a_cost_in_another_currency_is_no_cost(said: dict[str, Any], cost: int | None) -> None:
    reference = purchase().reference
    row = {"transactionId": 1, "status": "SUCCESSFUL", "customIdentifier": reference, "product": {"quantity": 1}, **said}
    for body, number in ((row, "1"), ({"content": [row], "totalElements": 1}, None)):
        found = (await account(Vendor(json.dumps(body).encode())).look_up(reference, number)).outcome
        assert isinstance(found, Delivered) and found.cost == cost
