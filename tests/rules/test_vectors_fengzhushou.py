"""蜂助手's signature by the code that ships. No vector is published: the text is spelled out here, as the clients build it."""

from hashlib import sha1

import pytest

from kameng_api.suppliers.adapters.fengzhushou import wire
from kameng_api.suppliers.port import Purchase

PARAMS: dict[str, wire.Value | None] = {
    "projectCode": "P10001", "timestamp": "1767240000000", "channelOrderNo": "T1", "account": "13800138000", "num": 1, "ext": "", "sign": "x",
}  # fmt: skip
TEXT = b"account=13800138000&channelOrderNo=T1&num=1&projectCode=P10001&timestamp=1767240000000&signKey=SECRET"


def test_upper_case_sha1_of_the_sorted_text_with_the_key_at_the_end() -> None:
    assert wire.sign("SECRET", PARAMS) == sha1(TEXT).hexdigest().upper() == "4D51552CF5D2214ED082DF0E5BDD956FE2BF6A17"


def test_blank_values_are_left_out_and_others_signed_as_they_are() -> None:
    assert wire.sign("SECRET", {**PARAMS, "ext": "   ", "skuPrice": None}) == wire.sign("SECRET", PARAMS)
    assert wire.sign("SECRET", {**PARAMS, "account": " 13800138000"}) != wire.sign("SECRET", PARAMS)


def test_nothing_but_the_key_is_signed_by_the_key_alone() -> None:
    assert wire.sign("SECRET", {}) == sha1(b"signKey=SECRET").hexdigest().upper()


@pytest.mark.parametrize("change", [{"units": 2}, {"product_type": "card"}, {"face_value": 1}])
def test_what_its_answers_could_not_tell_is_not_asked(change: dict[str, object]) -> None:
    purchase = {"reference": "T1", "product_code": "S", "product_type": "topup", "units": 1, "currency": "CNY", "max_cost": 1, "target": "1"}
    with pytest.raises(wire.Unreadable):
        wire.order_params(Purchase(**{**purchase, **change}), "omit")  # type: ignore[arg-type]
