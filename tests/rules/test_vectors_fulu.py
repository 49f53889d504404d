"""福禄's signature by the code that ships: the note's computed vector, the document's own callback, and what it cannot see."""

from datetime import UTC, datetime

import orjson
import pytest

from kameng_api.suppliers.adapters.fulu import wire
from kameng_api.suppliers.port import Purchase

SANDBOX = "0a091b3aa4324435aab703142518a8f7"  # published with the sandbox, in the vendor's documents and every client; opens nothing
REQUEST = (
    '{"app_key":"AK","method":"fulu.order.info.get","timestamp":"2026-01-01 12:00:00","version":"2.0","format":"json","charset":"utf-8",'
    '"sign_type":"md5","app_auth_token":"","biz_content":"{\\"customer_order_no\\":\\"T202601010001\\"}"}'
)
CALLBACK = {
    "order_id": "19072426795315681646",
    "charge_finish_time": "2019-07-24 16:46:14",
    "customer_order_no": "535126603",
    "order_status": "success",
    "recharge_description": "充值成功",
    "product_id": "10000497",
    "price": "1.0000",
    "buy_num": "2",
    "operator_serial_number": "",
    "sign": "b716ea73535df393d8ce8efae7518b70",
}


def purchase(**more: object) -> Purchase:
    values = {"reference": "T1", "product_code": "10000497", "product_type": "topup", "units": 1, "currency": "CNY", "max_cost": 1, "target": "1"}
    return Purchase(**{**values, **more})  # type: ignore[arg-type]


def test_the_vector_of_the_note() -> None:
    assert wire.sign("SECRET", REQUEST) == "9a05969e855714775607ecbbd2caec4b"


def test_a_request_of_ours_is_that_text_in_its_order() -> None:
    business = orjson.dumps({"customer_order_no": "T202601010001"})
    body = orjson.loads(wire.signed_body("AK", "SECRET", "fulu.order.info.get", business, datetime(2026, 1, 1, 4, tzinfo=UTC)))
    assert body.pop("sign") == "9a05969e855714775607ecbbd2caec4b"
    assert orjson.dumps(body).decode() == REQUEST


def test_the_documents_callback_verifies_in_any_order() -> None:
    for fields in (CALLBACK, dict(reversed(CALLBACK.items()))):
        assert wire.is_signed(SANDBOX, wire.callback_text(fields), fields["sign"])
    assert not wire.is_signed(SANDBOX, wire.callback_text({**CALLBACK, "order_status": "failed"}), CALLBACK["sign"])


@pytest.mark.parametrize(("one", "other"), [({"units": 12}, {"units": 21}), ({"target": "13800138000"}, {"target": "13800130800"})])
def test_anagrams_sign_the_same_which_is_why_answers_are_compared(one: dict[str, object], other: dict[str, object]) -> None:
    texts = [wire.order(purchase(**change))[1].decode() for change in (one, other)]
    assert texts[0] != texts[1] and wire.sign("SECRET", texts[0]) == wire.sign("SECRET", texts[1])


@pytest.mark.parametrize("odd", ["a\nb", "a\u2028b", "a\x7fb", "a😀b"])
def test_what_implementations_sort_or_escape_differently_is_not_sent(odd: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.order(purchase(target=odd))
    assert wire.order(purchase(target='账号/"\\é'))[0] == wire.DIRECT


def test_mobile_top_ups_name_a_value_and_no_product() -> None:
    expected = {"charge_phone": "13800138000", "charge_value": 100, "customer_order_no": "T1"}
    for change in ({"product_code": "mobile-100"}, {"product_code": "mobile", "face_value": 100_0000}):
        one = purchase(target="13800138000", **change)
        method, business = wire.order(one)
        assert method == wire.MOBILE and orjson.loads(business) == expected
    assert b'"charge_value":99.5,' in wire.order(purchase(product_code="mobile", face_value=99_5000))[1]
    for wrong in ({"product_code": "mobile"}, {"product_code": "mobile-100", "face_value": 1}, {"product_code": "mobile-100", "units": 2}):
        with pytest.raises(wire.Unreadable):
            wire.order(purchase(**wrong))
