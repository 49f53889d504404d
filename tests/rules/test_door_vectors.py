"""The published and computed vectors of the doors' protocols, reproduced byte for byte by the code that ships."""

import hashlib

from kameng_api.api.doors.dujiao import wire as dujiao
from kameng_api.api.doors.yrapi import wire as yrapi

YRAPI_FORM = {
    "userid": "10001",
    "product_id": "8",
    "price": "",
    "out_trade_num": "T202601010001",
    "notify_url": "https://m.example.com/cb",
    "mobile": "13800138000",
    "amount": "",
}


def test_yrapi_signs_empty_values_too() -> None:
    text = "amount=&mobile=13800138000&notify_url=https://m.example.com/cb&out_trade_num=T202601010001&price=&product_id=8&userid=10001"
    assert yrapi.string_to_sign(YRAPI_FORM, "testkey0123456789") == f"{text}&apikey=testkey0123456789"
    assert yrapi.sign(YRAPI_FORM, "testkey0123456789") == "5B633AD50036B223FF92E695249DC1E5"


def test_yrapi_takes_its_own_signature_and_no_other() -> None:
    key = "testkey0123456789"
    signed = {**YRAPI_FORM, "sign": yrapi.sign(YRAPI_FORM, key)}
    assert yrapi.is_signed(signed, key)
    assert not yrapi.is_signed({**signed, "mobile": "10000000001"}, key)
    assert not yrapi.is_signed({**signed, "param1": ""}, key)  # a field more is another request
    assert not yrapi.is_signed(YRAPI_FORM, key)


def test_dujiao_signs_method_path_time_and_body() -> None:
    body = b'{"sku_id":1,"quantity":1,"downstream_order_no":"T1"}'
    assert hashlib.md5(body, usedforsecurity=False).hexdigest() == "6ccff7738b829955ad5a942c33b4a540"
    signature = dujiao.sign("SECRET", "POST", "/api/v1/upstream/orders", "1767240000", body)
    assert signature == "64e7a88e0a232d2a2f698415ada173a9d0868f55b3f934d771700d59cccfbdd9"


def test_dujiao_takes_either_path_and_nothing_else() -> None:
    signature = dujiao.sign("SECRET", "GET", "/api/v1/upstream/products", "1767240000", b"")
    paths = ("/api/v1/upstream/products", "/doors/dujiao/api/v1/upstream/products")
    assert dujiao.is_signed("SECRET", "GET", paths, "1767240000", b"", signature)
    assert not dujiao.is_signed("SECRET", "POST", paths, "1767240000", b"", signature)
    assert not dujiao.is_signed("SECRET", "GET", paths, "1767240001", b"", signature)
    assert not dujiao.is_signed("SECRET", "GET", paths[1:], "1767240000", b"", signature)
