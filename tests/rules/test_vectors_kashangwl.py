"""卡商网's signature, byte for byte, by the code that ships (source: dtapps/kashangwl sign.go, whose comment shows the text; computed digest)."""

from hashlib import md5

from kameng_api.suppliers.adapters.kashangwl import wire
from kameng_api.suppliers.port import Purchase

PARAMS = {"customer_id": 192442, "order_id": 827669582783, "timestamp": 1626845767}


def test_the_documents_text_and_digest() -> None:
    assert wire.sign("KEY", PARAMS) == "66ac782b0d22fd7b5d00b4471665867a"
    assert wire.sign("KEY", PARAMS) == md5(b"KEYcustomer_id192442order_id827669582783timestamp1626845767").hexdigest()


def test_the_signature_itself_is_not_signed_and_empty_values_are() -> None:
    assert wire.sign("KEY", {**PARAMS, "sign": "x"}) == wire.sign("KEY", PARAMS)
    assert wire.sign("KEY", {**PARAMS, "notify_url": ""}) != wire.sign("KEY", PARAMS)


def test_both_ways_of_writing_carry_the_same_values() -> None:
    assert wire.read_flat(wire.written("json", PARAMS)) == PARAMS
    assert wire.read_flat(wire.written("form", PARAMS)) == {name: str(value) for name, value in PARAMS.items()}


def test_the_limit_is_for_one_unit_rounded_down_unless_the_platform_said_total() -> None:
    purchase = Purchase(reference="T1", product_code="41553", product_type="card", units=3, currency="CNY", max_cost=10_0000)
    assert wire.order_params(purchase, "unit")["safe_cost"] == "3.3333"
    assert wire.order_params(purchase, "total")["safe_cost"] == "10"


def test_amounts_never_pass_through_a_float() -> None:
    found = wire.read_object(b'{"a":0.1,"b":"97.50","c":12,"d":28.80001,"e":-1.5}')
    assert [wire.amount(found[name]) for name in "abcde"] == [1000, 97_5000, 12_0000, 28_8001, -1_5000]
