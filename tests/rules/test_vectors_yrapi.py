"""The signature of 大猿人 yrapi, by the code that ships, against the computed vector of the protocol note and its edges."""

import hashlib
from urllib.parse import parse_qsl

from kameng_api.suppliers.adapters.yrapi import wire
from kameng_api.suppliers.port import Purchase

PARAMS = {
    "userid": "10001",
    "out_trade_num": "T202601010001",
    "product_id": "8",
    "mobile": "13800138000",
    "notify_url": "https://m.example.com/cb",
    "amount": "",
    "price": "",
}


def test_the_vector_of_the_note() -> None:
    assert wire.sign("testkey0123456789", PARAMS) == "5B633AD50036B223FF92E695249DC1E5"


def test_an_empty_value_is_part_of_the_text() -> None:
    without = {name: value for name, value in PARAMS.items() if value}
    assert wire.sign("testkey0123456789", without) != wire.sign("testkey0123456789", PARAMS)


def test_a_key_that_looks_encoded_is_signed_decoded() -> None:
    text = "a=1+1&apikey=k A+B"
    assert wire.sign("k%20A%2BB", {"a": "1+1"}) == hashlib.md5(text.encode()).hexdigest().upper()
    assert wire.sign("k+A%2BB", {"a": "1+1"}) == wire.sign("k%20A%2BB", {"a": "1+1"})


def test_a_request_carries_exactly_what_was_signed() -> None:
    purchase = Purchase(
        "T1", "8", "topup", 1, "CNY", 98_5000, target="13800138000", callback_url="https://m.example.com/cb?a=1&b=中 文", face_value=100_0000
    )
    sent = dict(parse_qsl(wire.signed_body("testkey0123456789", "10001", wire.order_params(purchase)).decode(), keep_blank_values=True))
    assert sent["price"] == "98.5000" and sent["amount"] == "100"
    assert sent.pop("sign") == wire.sign("testkey0123456789", sent)
