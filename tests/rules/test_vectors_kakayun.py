"""卡卡云's signature, byte for byte, by the code that ships (source: the vendor's document, 签名计算规则, copy of 2026-04-14)."""

from kameng_api.suppliers.adapters.kakayun import wire
from kameng_api.suppliers.port import Purchase

SAMPLE = {"userid": "10052", "timestamp": 1735002156, "goodsid": "720938", "buynum": 1, "attach": "130" + "8" * 8, "sign": "x"}
SAMPLE_KEY = "9aa3034b6beba7cf5bfcf6089218a67"  # as the document prints it, without its last digit: it shows two


def test_both_digests_that_the_document_prints_for_its_sample() -> None:
    assert wire.text_to_sign(SAMPLE) == f"attach={SAMPLE['attach']}&buynum=1&goodsid=720938&timestamp=1735002156&userid=10052"
    assert wire.sign(SAMPLE_KEY + "3", SAMPLE) == "921bfe2dcd4ecca574d8b8c76412ede5"
    assert wire.sign(SAMPLE_KEY + "4", SAMPLE) == "82a4da7502872e7a128b510d10cad6ab"


def test_an_object_is_signed_as_json_without_blanks() -> None:
    params = {
        "attach": {"account": "13800138000"}, "buynum": 1, "goodsid": 55, "maxmoney": "9.90", "timestamp": 1767240000,
        "userid": 1001, "usorderno": "T1",
    }  # fmt: skip
    assert wire.sign("SECRET", params) == "57db4a77c6d9dd53d1722888723a6a50"


def test_empty_values_are_left_out_and_others_spoken_as_php_speaks_them() -> None:
    assert wire.text_to_sign({"b": "", "a": None, "c": 0, "d": True, "e": 13.36, "f": 2.0, "g": "张/三"}) == "c=0&d=true&e=13.36&f=2&g=张/三"


def test_names_inside_lists_are_signed_as_they_come_or_sorted() -> None:
    params = {"cards": [{"b": "1", "a": "2"}], "timestamp": 1}
    assert wire.text_to_sign(params) == 'cards=[{"b":"1","a":"2"}]&timestamp=1'
    assert wire.text_to_sign(params, inner_sorted=True) == 'cards=[{"a":"2","b":"1"}]&timestamp=1'
    for inner in (False, True):
        assert wire.is_signed("K", {**params, "sign": wire.sign("K", params, inner_sorted=inner)})
    assert not wire.is_signed("K", {**params, "sign": ""})


def test_the_limit_is_for_all_units_and_the_account_is_field_one() -> None:
    purchase = Purchase(
        reference="T1", product_code="55", product_type="topup", units=2, currency="CNY", max_cost=9_9000, target="13800138000", fields={"9": "张三"}
    )
    params = wire.order_params(purchase)
    assert params["maxmoney"] == "9.90"
    assert params["attach"] == [{"attachtype": "1", "value": "13800138000"}, {"attachtype": "9", "value": "张三"}]
