"""Published vectors of 阿奇索 标准货源, 京东 游戏点卡 and 京东 通用交易, reproduced byte for byte by the code that ships; and their traps."""

import base64
import json
from datetime import UTC, datetime

import pytest

from kameng_api.api.doors.agiso import wire as agiso
from kameng_api.api.doors.jd_card import wire as jd_card
from kameng_api.api.doors.jd_general import wire as jd_general

# ---- 阿奇索 标准货源 -------------------------------------------------------------------------------------------------

AGISO_SECRET = "rste57w8rsubsnxsb384ur3u9kn5fzhr0a091b3aa4324435aab703142518a8f7"
AGISO_SIGN = "EF387ED4D401A275498A9FCC6C22116B"
AGISO_ORDER = {
    "userId": "1001",
    "orderNo": "2023061917481700001",
    "productNo": "test01",
    "buyNum": "1",
    "attach": '{"account":"13888888888"}',
    "maxAmount": "",
    "timestamp": "1687168097",
    "callbackUrl": "",
    "version": "1.0",
}


def test_agiso_the_published_standard_supplier_example_is_signed_with_its_empty_values() -> None:
    assert agiso.sign(AGISO_SECRET[:32], AGISO_SECRET[32:], AGISO_ORDER) == AGISO_SIGN
    without_empty = {name: value for name, value in AGISO_ORDER.items() if value}
    assert agiso.sign(AGISO_SECRET[:32], AGISO_SECRET[32:], without_empty) != AGISO_SIGN


def test_agiso_the_request_as_json_is_read_back_into_the_text_that_was_signed() -> None:
    body = json.dumps({**AGISO_ORDER, "buyNum": 1, "timestamp": 1687168097, "maxAmount": None, "sign": AGISO_SIGN}).encode()
    assert agiso.is_signed(AGISO_SECRET[:32], AGISO_SECRET[32:], agiso.read(body))
    changed = json.dumps({**AGISO_ORDER, "buyNum": 2, "sign": AGISO_SIGN}).encode()
    assert not agiso.is_signed(AGISO_SECRET[:32], AGISO_SECRET[32:], agiso.read(changed))


def test_agiso_a_number_is_signed_as_it_was_written() -> None:
    assert agiso.read(b'{"maxAmount": 9.90, "timestamp": 1e3, "on": true}') == {"maxAmount": "9.90", "timestamp": "1e3", "on": "true"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"1", b'{"a": [1]}', b'{"a": {"b": 1}}', b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff\xfe{}",
        b"{" + b",".join(b'"%d": 1' % n for n in range(65)) + b"}", b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_agiso_what_could_be_read_in_two_ways_is_not_read(body: bytes) -> None:
    with pytest.raises(agiso.Unreadable):
        agiso.read(body)


def test_agiso_cards_are_encrypted_as_the_published_example() -> None:
    sealed = agiso.sealed_cards("0123456789abcdef0123456789abcdef", [agiso.Card("CARD-NO", "CARD-PWD")])
    assert sealed == "GkDokyzdJd6M8QxK54ReLsyaUGA6NkGfxwSis8jH26A1k5nOhWMq8zcTijHoRePUfmL7bDU69sP6YENxSbOXRQ=="


@pytest.mark.parametrize("secret", ["", "short", "0123456789abcdef0123456789abcdef0", "密" * 32])
def test_agiso_an_app_secret_of_another_length_is_no_card_key(secret: str) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        agiso.card_key(secret)


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (100_000, "10"), (99_000, "9.9"), (199_900, "19.99"), (1, "0.0001"), (12_345_678_9012, "12345678.9012")]
)
def test_agiso_amounts_are_numbers_without_needless_zeros_and_signed_so(amount: int, text: str) -> None:
    assert agiso.write({"orderCost": agiso.Number(amount)}) == b'{"orderCost":' + text.encode() + b"}"
    told = json.loads(agiso.signed_callback("s", "k", {"orderCost": agiso.Number(amount), "failReason": None}), parse_float=str, parse_int=str)
    assert told["sign"] == agiso.sign("s", "k", {"orderCost": text, "failReason": ""})


# ---- 京东 游戏点卡 ---------------------------------------------------------------------------------------------------

JD_KEY = "1888bc29f89f9e19e7ff8c788ba5fc0c"
JD_SAMPLE = {
    "customerId": "1010000055",
    "timestamp": "20220618121212",
    "data": (
        "ewogICAgIm9yZGVySWQiOiAiMjAzNjMyMDkyIiwKICAgICJwaW4iOiAiemhhbmdzYW4iLAogICAgImJ1eU51bSI6ICIxMCIsCiAgICAidG90YWxQcmljZSI6"
        "ICIxNTAiLAogICAgImdhbWVBY2NvdW50IjogIua4uOaIj+i0puWPtyIsCiAgICAicGVybWl0IjogIiIsCiAgICAic2t1SWQiOiAiMTAxNjg5MjAyOSIsCiAg"
        "ICAiYnJhbmRJZCI6ICIxMDEwMDAwMDU1Igp"
    ),
}


def test_jd_card_the_documents_sample_is_signed_with_the_key_behind_an_ampersand() -> None:
    """The document prints no value; this one was computed from its own three programs (§4.5)."""
    assert jd_card.sign(JD_KEY, JD_SAMPLE) == "8f658e0d73e541211b83aa1d1db9af9f"
    assert jd_card.sign(JD_KEY, {**JD_SAMPLE, "version": "", "sign": "x"}) == "8f658e0d73e541211b83aa1d1db9af9f"


def test_jd_card_the_documents_callback_data_is_written_byte_for_byte() -> None:
    told = {"orderId": "301189718928", "orderStatus": "0"}
    assert jd_card.data_of_callback(told) == "eyJvcmRlcklkIjoiMzAxMTg5NzE4OTI4Iiwib3JkZXJTdGF0dXMiOiIwIn0="


def test_jd_card_a_callback_is_gbk_and_an_answer_is_utf_8() -> None:
    assert base64.b64decode(jd_card.data_of_callback({"failedReason": "库存不足"})) == '{"failedReason":"库存不足"}'.encode("gbk")
    assert base64.b64decode(jd_card.data_of_answer({"failedReason": "库存不足"})) == '{"failedReason":"库存不足"}'.encode()
    odd = base64.b64decode(jd_card.data_of_callback({"failedReason": "好😀"})).decode("gbk")
    assert json.loads(odd) == {"failedReason": "好😀"}


def test_jd_card_data_survives_line_breaks_lost_plus_signs_missing_padding_and_the_space_in_the_documents_name() -> None:
    plain = '{"orderId ": "1000005565", "totalPrice": 19.990, "gameAccount": "游戏账号>>>"}'
    text = base64.encodebytes(plain.encode()).decode()  # breaks its lines, as a MIME encoder does
    assert "+" in text
    expected = {"orderId": "1000005565", "totalPrice": "19.990", "gameAccount": "游戏账号>>>"}
    assert jd_card.read_data(text) == expected
    assert jd_card.read_data(text.rstrip().rstrip("=")) == expected
    assert jd_card.mended({"data": text.replace("+", " "), "note": "a b"}) == {"data": text, "note": "a b"}


@pytest.mark.parametrize("plain", ["", "[]", "1", '{"a":1,"a":2}', '{"a":1,"a ":2}', '{"a":NaN}', "{", '{"a":"\\ud800"}'])
def test_jd_card_data_with_two_meanings_or_none_is_not_read(plain: str) -> None:
    with pytest.raises(jd_card.Unreadable):
        jd_card.read_data(base64.b64encode(plain.encode()).decode())


@pytest.mark.parametrize("text", ["!", "e30é", "e", "a b"])
def test_jd_card_what_is_not_base64_is_not_read(text: str) -> None:
    with pytest.raises(jd_card.Unreadable):
        jd_card.read_data(text)


@pytest.mark.parametrize(
    ("text", "amount"), [("19.99", 199_900), ("150", 1_500_000), ("140.25", 1_402_500), ("0.07", 700), ("1.00009", 10_000), ("4.35", 43_500)]
)
def test_jd_card_money_never_goes_through_a_float(text: str, amount: int) -> None:
    assert jd_card.price(text) == amount


@pytest.mark.parametrize("text", ["", "-1", "1e3", "１", "1,5", "NaN", " 1", None, 1.5, "9" * 30])
def test_jd_card_what_is_no_amount_is_not_read(text: object) -> None:
    with pytest.raises(jd_card.Unreadable):
        jd_card.price(text)


def test_jd_card_nothing_is_signed_by_an_empty_key() -> None:
    assert not jd_card.is_signed("", {**JD_SAMPLE, "sign": jd_card.sign("", JD_SAMPLE)})
    assert jd_card.is_signed(JD_KEY, {**JD_SAMPLE, "sign": "8F658E0D73E541211B83AA1D1DB9AF9F"})


# ---- 京东 通用交易 ---------------------------------------------------------------------------------------------------

VTP_KEY = "12345678901234567890123456789012"
VTP_CARDS = (
    "QZltw6QjIQ55tmU0xg2+20FGGnnmGoTWN/KZUdsllLoyaFGsi/dx7lc/JSPb/rTDUmcbeGakkBwl\n"
    "MdwkG51DABZQnmd6VC0x/tQi2RQ/BaE20LGmfpL0GkeXxUcTFRaf99lSLAqi1rkS6N4WxwL0jyCO\n"
    "i114VSzT06SZpOe2HqpLVPa6HuW0IOa9xFKdz9AZ"
)
VTP_SAMPLE = {
    "isSuccess": "T",
    "errorCode": "",
    "agentOrderNo": "123456789",
    "jdOrderNo": "123456789",
    "status": "1",
    "time": "20140819122322",
    "sign": "127c1ff9c806dd663b5692afc95675f9",
    "signType": "MD5",
    "timestamp": "2012320110243200",
    "cardInfo": VTP_CARDS,
    "version": "1.0",
}


def test_jd_general_the_documents_example_is_signed_with_the_line_breaks_of_its_base64() -> None:
    assert jd_general.sign(VTP_KEY, VTP_SAMPLE) == "d847ad8beb23f036ccc0874153efb298"
    assert jd_general.sign(VTP_KEY, {**VTP_SAMPLE, "cardInfo": VTP_CARDS.replace("\n", "")}) != "d847ad8beb23f036ccc0874153efb298"


def test_jd_general_the_documents_cards_are_encrypted_byte_for_byte() -> None:
    day = "2016-10-10"
    assert jd_general.sealed_cards(VTP_KEY, [jd_general.Card("123456", "654321", day), jd_general.Card("654321", "123456", day)]) == VTP_CARDS


def test_jd_general_what_a_card_lacks_reads_as_a_dash() -> None:
    assert jd_general.sealed_cards(VTP_KEY, [jd_general.Card("123456")]) == jd_general.sealed(
        VTP_KEY, b'[{"cardNumber":"123456","expiryDate":"-","password":"-"}]'
    )
    assert jd_general.Card("1" * 127, "2" * 127).can_be_told
    assert not jd_general.Card("1" * 128).can_be_told


def test_jd_general_an_answer_signs_the_text_that_it_sends() -> None:
    members = {"jdOrderNo": 10001, "produceStatus": 1, "code": "JDO_200", "product": VTP_CARDS, "agentOrderNo": ""}
    body = json.loads(jd_general.write(VTP_KEY, members))
    assert "agentOrderNo" not in body
    told = {name: str(value) for name, value in body.items()}
    assert body["sign"] == jd_general.sign(VTP_KEY, told)
    assert jd_general.is_signed(VTP_KEY, told)


def test_jd_general_expand_counts_in_either_spelling_and_is_signed_encrypted() -> None:
    params = {"jdOrderNo": "10001", "expand": "ab+c/d=="}
    params["sign"] = jd_general.sign(VTP_KEY, params)
    assert jd_general.is_signed(VTP_KEY, params)
    assert jd_general.is_signed(VTP_KEY, {**params, "expand": "ab%2Bc%2Fd%3D%3D"})
    assert not jd_general.is_signed(VTP_KEY, {**params, "expand": "other"})
    assert not jd_general.is_signed("", {**params, "sign": jd_general.sign("", params)})


def test_jd_clocks_stand_in_china() -> None:
    now = datetime(2026, 11, 23, 17, 4, 5, tzinfo=UTC)
    assert jd_card.timestamp(now) == jd_general.timestamp(now) == "20261124010405"
