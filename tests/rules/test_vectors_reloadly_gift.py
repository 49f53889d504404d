"""Reloadly's gift card requests and webhook signatures byte for byte. Sources: the vendor's OpenAPI (2022-07), sandbox observations of 2026-10-08."""

from decimal import Decimal

import pytest

from kameng_api.suppliers.adapters.reloadly_gift import catalogue, mapping, wire
from kameng_api.suppliers.port import Purchase


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
