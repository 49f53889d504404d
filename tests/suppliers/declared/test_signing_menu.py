"""Every way of signing that the research of the trade found, said by the menu of suppliers' files and compared byte for byte with its vector."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.suppliers.adapters.declared.cards import compile_cards
from kameng_api.suppliers.adapters.declared.form import Cards, Signature
from kameng_api.suppliers.adapters.declared.signing import Signed, compile_signature, with_fields
from kameng_api.suppliers.adapters.declared.templates import CannotSay, Scene
from kameng_api.suppliers.adapters.fulu import wire as fulu
from kameng_api.suppliers.adapters.kakayun import wire as kakayun
from kameng_api.suppliers.adapters.kayixin import wire as kayixin
from kameng_api.suppliers.adapters.yrapi import wire as yrapi
from kameng_api.suppliers.port import Code

ALLOWED = frozenset({"settings", "now", "sent", "header", "method", "path"})
SORTED_KEEP = {"order": "sorted", "empty": "keep"}
SORTED_SKIP = {"order": "sorted", "empty": "skip"}
YRAPI = {"text": [{"fields": SORTED_KEEP}, {"text": "&apikey={settings.key}", "unquoted": True}], "digest": "md5", "spelled": "upper"}
FULU = {"text": [{"characters": {}}, {"text": "{settings.key}"}], "digest": "md5"}
KAYIXIN = {"text": [{"text": "{settings.app_id}{settings.key}{header.x-version}{header.x-timestamp}"}, {"body": "raw"}], "digest": "md5"}
KAKAYUN = {"text": [{"fields": {**SORTED_SKIP, "nested": "sorted_json"}}, {"text": "{settings.key}"}], "digest": "md5"}


def sign(
    form: Mapping[str, Any],
    fields: Mapping[str, Any],
    *,
    settings: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    now: int = 1767240000,
    **values: str,
) -> str:
    signer = compile_signature(Signature.model_validate({"at": {"header": "x-sign"}, **form}), ALLOWED, frozenset(settings))
    scene = with_fields(Scene(datetime.fromtimestamp(now, UTC), "0" * 32, settings, values=values), fields, headers or {})
    return signer.sign(Signed(scene, fields, body))


def test_a_dayuanren_keeps_empty_values_and_decodes_the_key() -> None:
    fields = {
        "userid": "10001", "out_trade_num": "T202601010001", "product_id": "8", "mobile": "13800138000",
        "notify_url": "https://m.example.com/cb", "amount": "", "price": "",
    }  # fmt: skip
    assert sign(YRAPI, fields, settings={"key": "testkey0123456789"}) == "5B633AD50036B223FF92E695249DC1E5"


def test_b_fulu_sorts_the_characters_of_the_json() -> None:
    fields = {
        "app_key": "AK", "method": "fulu.order.info.get", "timestamp": "2026-01-01 12:00:00", "version": "2.0", "format": "json",
        "charset": "utf-8", "sign_type": "md5", "app_auth_token": "", "biz_content": '{"customer_order_no":"T202601010001"}',
    }  # fmt: skip
    assert sign(FULU, fields, settings={"key": "SECRET"}) == "9a05969e855714775607ecbbd2caec4b"


def test_b_an_anagram_signs_alike_so_it_is_never_trusted() -> None:
    form = {"text": [{"characters": {}}, {"text": "{settings.secret}"}], "digest": "md5"}
    one, other = ({"charge_account": account} for account in ("13800138000", "13800130800"))
    assert sign(form, one, settings={"secret": "S"}) == sign(form, other, settings={"secret": "S"})
    signer = compile_signature(Signature.model_validate({**form, "at": {"field": "sign"}}), ALLOWED, frozenset({"secret"}))
    assert not signer.unambiguous


def test_c_kasushou_time_sorted_json_key() -> None:
    fields = {"ordersn": "D100759082558859640832", "day": 10, "external_orderno": ""}
    form = {"text": [{"text": "{header.timestamp}"}, {"json": {"sorted": True}}, {"text": "{settings.key}"}], "digest": "sha1"}
    made = sign(form, fields, settings={"key": "H0YnuPpcVtx7rQdMTbjN6932s5oDOqFa"}, headers={"Timestamp": "1696645385740"})
    assert made == "15b8f541eb10e3fbb33efd92c8d52d50ddca0784"


def test_c_kasushou_calls_back_with_escaped_slashes_and_leaves_the_cards_out() -> None:
    fields = {"external_orderno": "T1", "recharge_hints": "到账/成功", "time": 1700000000, "card_list": [{"card_no": "1"}], "express_list": []}
    form = {
        "text": [
            {"text": "{sent.time}"},
            {"json": {"sorted": True, "escape_slashes": True, "without": ["card_list", "express_list"]}},
            {"text": "{settings.k}"},
        ],
        "digest": "sha1",
        "at": {"field": "sign"},
    }
    text = '1700000000{"external_orderno":"T1","recharge_hints":"到账\\/成功","time":1700000000}K'
    assert sign(form, fields, settings={"k": "K"}) == hashlib.sha1(text.encode()).hexdigest()


def test_d_kayixin_signs_the_exact_body() -> None:
    body = b'{"orderNumber":"20251016165825069","outerNumber":""}'
    settings = {"app_id": "10000", "key": "652fbdd2f637606a2afbb2fe0ca72419"}
    headers = {"X-Version": "3.0", "X-Timestamp": "1760767397"}
    assert sign(KAYIXIN, {}, settings=settings, headers=headers, body=body) == "6a414e658265ff3ca665cee3b161c4e9"


def test_e_kakayun_skips_empty_values_and_has_no_separator_before_the_key() -> None:
    fields = {
        "userid": "1001", "timestamp": "1767240000", "goodsid": "55", "buynum": 1, "attach": {"account": "13800138000"}, "usorderno": "T1",
        "maxmoney": "9.90", "callbackurl": "",
    }  # fmt: skip
    assert sign(KAKAYUN, fields, settings={"key": "SECRET"}) == "57db4a77c6d9dd53d1722888723a6a50"


def test_f_agiso_keeps_empty_values_between_two_secrets() -> None:
    fields = {
        "userId": "1001", "orderNo": "2023061917481700001", "productNo": "test01", "buyNum": "1", "attach": '{"account":"13888888888"}',
        "maxAmount": "", "timestamp": "1687168097", "callbackUrl": "", "version": "1.0",
    }  # fmt: skip
    form = {"text": [{"text": "{settings.secret}"}, {"fields": SORTED_KEEP}, {"text": "{settings.secret}"}], "digest": "md5", "spelled": "upper"}
    secret = "rste57w8rsubsnxsb384ur3u9kn5fzhr0a091b3aa4324435aab703142518a8f7"
    assert sign(form, fields, settings={"secret": secret}) == "EF387ED4D401A275498A9FCC6C22116B"


JD_DATA = (
    "ewogICAgIm9yZGVySWQiOiAiMjAzNjMyMDkyIiwKICAgICJwaW4iOiAiemhhbmdzYW4iLAogICAgImJ1eU51bSI6ICIxMCIsCiAgICAidG90YWxQcmljZSI6"
    "ICIxNTAiLAogICAgImdhbWVBY2NvdW50IjogIua4uOaIj+i0puWPtyIsCiAgICAicGVybWl0IjogIiIsCiAgICAic2t1SWQiOiAiMTAxNjg5MjAyOSIsCiAg"
    "ICAiYnJhbmRJZCI6ICIxMDEwMDAwMDU1Igp"
)


def test_g_jd_game_cards_put_an_ampersand_before_the_key() -> None:
    fields = {"customerId": "1010000055", "timestamp": "20220618121212", "data": JD_DATA, "version": ""}
    form = {"text": [{"fields": SORTED_SKIP}, {"text": "&{settings.key}"}], "digest": "md5"}
    assert sign(form, fields, settings={"key": "1888bc29f89f9e19e7ff8c788ba5fc0c"}) == "8f658e0d73e541211b83aa1d1db9af9f"


VTP_KEY = "12345678901234567890123456789012"
VTP_CARDS = (
    "QZltw6QjIQ55tmU0xg2+20FGGnnmGoTWN/KZUdsllLoyaFGsi/dx7lc/JSPb/rTDUmcbeGakkBwl\n"
    "MdwkG51DABZQnmd6VC0x/tQi2RQ/BaE20LGmfpL0GkeXxUcTFRaf99lSLAqi1rkS6N4WxwL0jyCO\n"
    "i114VSzT06SZpOe2HqpLVPa6HuW0IOa9xFKdz9AZ"
)


def test_h_jd_trade_concatenates_names_and_values_and_the_line_breaks_of_base64() -> None:
    fields = {
        "isSuccess": "T", "errorCode": "", "agentOrderNo": "123456789", "jdOrderNo": "123456789", "status": "1", "time": "20140819122322",
        "sign": "127c1ff9c806dd663b5692afc95675f9", "signType": "MD5", "timestamp": "2012320110243200", "cardInfo": VTP_CARDS, "version": "1.0",
    }  # fmt: skip
    form = {
        "text": [{"fields": {**SORTED_SKIP, "pair": "kv", "join": "", "without": ["signType"]}}, {"text": "{settings.key}"}],
        "digest": "md5",
        "at": {"field": "sign"},
    }
    assert sign(form, fields, settings={"key": VTP_KEY}) == "d847ad8beb23f036ccc0874153efb298"
    without_breaks = {**fields, "cardInfo": VTP_CARDS.replace("\n", "")}
    assert sign(form, without_breaks, settings={"key": VTP_KEY}) != "d847ad8beb23f036ccc0874153efb298"


def test_h_the_cards_of_the_same_sample_open() -> None:
    form = Cards.model_validate(
        {"at": "cardInfo", "cipher": "aes-256-ecb", "key": "{settings.key}", "code": "cardNumber", "pin": "password", "expires_on": "expiryDate"}
    )
    scene = Scene(datetime.now(UTC), "", {"key": VTP_KEY})
    day = date(2016, 10, 10)
    read = compile_cards(form, frozenset({"key"}))
    assert read({"cardInfo": VTP_CARDS}, scene) == (Code("123456", "654321", day), Code("654321", "123456", day))


def test_i_dujiao_signs_method_path_time_and_the_digest_of_the_body() -> None:
    body = b'{"sku_id":1,"quantity":1,"downstream_order_no":"T1"}'
    assert hashlib.md5(body).hexdigest() == "6ccff7738b829955ad5a942c33b4a540"
    form = {
        "text": [{"text": "{method}\n{path}\n{now:unix_s}\n"}, {"body": "md5"}],
        "digest": "hmac-sha256",
        "key": "{settings.secret}",
    }
    made = sign(form, json.loads(body), settings={"secret": "SECRET"}, body=body, method="POST", path="/api/v1/upstream/orders")
    assert made == "64e7a88e0a232d2a2f698415ada173a9d0868f55b3f934d771700d59cccfbdd9"


def test_j_acg_faka_signs_what_was_encoded_and_decoded_again() -> None:
    """urldecode(http_build_query(…)) gives back what went in: a plus stays a plus."""
    fields = {"app_id": "1", "contact": "a+b %41", "num": "1", "device": ""}
    form = {"text": [{"fields": SORTED_SKIP}, {"text": "&key={settings.key}"}], "digest": "md5"}
    assert sign(form, fields, settings={"key": "k%41"}) == hashlib.md5(b"app_id=1&contact=a+b %41&num=1&key=k%41").hexdigest()


def test_k_kashangwang_puts_the_key_before_names_and_values() -> None:
    fields = {"customer_id": "192442", "order_id": "827669582783", "timestamp": "1626845767"}
    form = {"text": [{"text": "{settings.key}"}, {"fields": {"order": "sorted", "pair": "kv", "join": "", "empty": "keep"}}], "digest": "md5"}
    assert sign(form, fields, settings={"key": "KEY"}) == "66ac782b0d22fd7b5d00b4471665867a"


# ---- against the adapters that were written by hand: any fields at all, byte for byte ---------------------------------------

TEXTS = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12))
KEYS = st.text(st.sampled_from("abcXYZ019%+&=/"), min_size=1, max_size=16)


@given(TEXTS, KEYS)
def test_the_menu_signs_as_the_adapter_of_dayuanren_does(fields: dict[str, str], key: str) -> None:
    form = {**YRAPI, "at": {"field": "sign"}}
    assert sign(form, fields, settings={"key": key}) == yrapi.sign(key, fields)


@given(TEXTS, KEYS)
def test_the_menu_signs_as_the_adapter_of_fulu_does(fields: dict[str, str], key: str) -> None:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    assert sign(FULU, fields, settings={"key": key}) == fulu.sign(key, text)


@given(st.text(st.characters(codec="utf-8")), KEYS, st.integers(0, 10**10))
def test_the_menu_signs_as_the_adapter_of_kayixin_does(body: str, key: str, at: int) -> None:
    headers = {"X-Version": "3.0", "X-Timestamp": str(at)}
    made = sign(KAYIXIN, {}, settings={"app_id": "10000", "key": key}, headers=headers, body=body.encode())
    assert made == kayixin.sign("10000", key, str(at), body.encode())


@given(TEXTS, KEYS)
def test_the_menu_signs_as_the_adapter_of_kakayun_does(fields: dict[str, str], key: str) -> None:
    form = {**KAKAYUN, "at": {"field": "sign"}}
    nested = {**fields, "attach": {"b": 1, "a": "话/费"}}
    expected = hashlib.md5((kakayun.text_to_sign(nested, inner_sorted=True) + key).encode()).hexdigest()
    assert sign(form, nested, settings={"key": key}) == expected


# ---- beside the table ----------------------------------------------------------------------------------------------------


def test_youka_reproduces_the_vector_of_its_client() -> None:
    form = {"text": [{"fields": SORTED_SKIP}, {"text": "{settings.key}"}], "digest": "md5", "at": {"field": "sign"}}
    assert sign(form, {"userid": "12098"}, settings={"key": "8cd4167638970adfaac8ab782e41cff4"}) == "8ef7c5f7527ea438aa26be5515740352"


def test_gbk_characters_are_signed_in_gbk() -> None:
    form = {"text": [{"fields": {"order": ["name", "n"], "empty": "keep"}}, {"text": "&key={settings.key}"}], "digest": "md5", "charset": "gbk"}
    made = sign({**form, "spelled": "upper"}, {"n": "1", "name": "话费"}, settings={"key": "k"})
    assert made == hashlib.md5("name=话费&n=1&key=k".encode("gbk")).hexdigest().upper()


@pytest.mark.parametrize(("sent", "printed"), [("97.54", "97.5"), ("97.55", "97.5"), ("9.95", "9.9"), ("100", "100.0")])
def test_a_number_is_printed_as_the_nearest_double(sent: str, printed: str) -> None:
    """Their printf works on doubles: 97.55 is a little less than that."""
    form = {"text": [{"fields": {"order": ["fSalePrice"], "formats": {"fSalePrice": "%.1f"}}}], "digest": "md5"}
    assert sign(form, {"fSalePrice": sent}, settings={"k": "k"}) == hashlib.md5(f"fSalePrice={printed}".encode()).hexdigest()


def test_base64_and_other_digests() -> None:
    form = {"text": [{"text": "a"}], "spelled": "base64", "digest": "sha256"}
    assert sign(form, {}, settings={"k": "k"}) == "ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs="
    assert len(sign({"text": [{"text": "a"}], "digest": "hmac-sha512", "key": "{settings.k}"}, {}, settings={"k": "k"})) == 128


def test_a_missing_field_of_a_fixed_order_is_no_signature() -> None:
    form = {"text": [{"fields": {"order": ["a", "b"], "empty": "keep"}}], "digest": "md5"}
    with pytest.raises(CannotSay):
        sign(form, {"a": "1"}, settings={"k": "k"})


@pytest.mark.parametrize(
    "form",
    [
        {"text": [], "digest": "md5"},
        {"text": [{}], "digest": "md5"},
        {"text": [{"text": "a", "body": "raw"}], "digest": "md5"},
        {"text": [{"text": "a"}], "digest": "md4"},
        {"text": [{"text": "a"}], "digest": "md5", "at": {"field": "a", "header": "b"}},
        {"text": [{"body": "raw"}], "digest": "md5", "at": {"field": "sign"}},
        {"text": [{"text": "a"}], "digest": "hmac-sha256"},
        {"text": [{"text": "a"}], "digest": "md5", "key": "{settings.k}"},
        {"text": [{"text": "{settings.other}"}], "digest": "md5"},
        {"text": [{"text": "{target}"}], "digest": "md5"},
    ],
)
def test_what_is_not_on_the_menu_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        compile_signature(Signature.model_validate({"at": {"field": "sign"}, **form}), ALLOWED, frozenset({"k"}))
