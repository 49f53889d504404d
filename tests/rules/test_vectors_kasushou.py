"""卡速售's signatures by the code that ships: the document's worked example, and the two ways in which it escapes."""

import hashlib

from kameng_api.suppliers.adapters.kasushou import wire

KEY = "H0YnuPpcVtx7rQdMTbjN6932s5oDOqFa"  # the document's example key (page 39), nobody's


def test_the_vector_of_the_document() -> None:
    body = wire.request_body({"ordersn": "D100759082558859640832", "day": 10, "external_orderno": ""})
    assert body == b'{"day":10,"external_orderno":"","ordersn":"D100759082558859640832"}'
    assert wire.sign(KEY, "1696645385740", body) == "15b8f541eb10e3fbb33efd92c8d52d50ddca0784"


def test_an_empty_request_signs_an_empty_object() -> None:
    assert wire.request_body({}) == b"{}"
    assert wire.sign(KEY, "1696644296195", b"{}") == hashlib.sha1(b"1696644296195{}" + KEY.encode()).hexdigest()


def test_requests_leave_slashes_and_unicode_as_they_are() -> None:
    body = wire.request_body({"url": "http://demo.kasushou.com/notify", "mark": "充值\u2028", "attach": {"b": "二", "a": "/"}})
    assert body.decode() == '{"attach":{"a":"/","b":"二"},"mark":"充值\\u2028","url":"http://demo.kasushou.com/notify"}'


def test_callbacks_escape_slashes_and_leave_cards_out() -> None:
    fields: dict[str, object] = {"time": "1695072521534", "recharge_hints": '见 http://a/b "好"', "n": None}
    fields |= {"sign": "x", "card_list": [{"card_no": "1"}], "express_list": []}
    assert wire.callback_text(fields) == '{"n":null,"recharge_hints":"见 http:\\/\\/a\\/b \\"好\\"","time":"1695072521534"}'.encode()


def test_a_number_is_signed_as_it_was_written() -> None:
    fields = wire.read_post(b'{"total_price":3.050,"status":3,"time":"1695072521534"}')
    assert wire.callback_text(fields) == b'{"status":3,"time":"1695072521534","total_price":3.050}'
    assert wire.amount(fields["total_price"]) == 3_0500


def test_a_push_about_a_product_signs_id_and_time_alone() -> None:
    fields = {"id": "1", "time": "1695073529531", "goods_price": "8.88", "stock_num": "10"}
    fields["sign"] = hashlib.sha1(b'1695073529531{"id":"1","time":"1695073529531"}' + KEY.encode()).hexdigest()
    assert wire.is_hint_signed(KEY, fields) and wire.is_hint_signed(KEY, {**fields, "goods_price": "0.01"})
    assert not wire.is_hint_signed(KEY, {**fields, "id": "2"}) and not wire.is_hint_signed("another-key-of-theirs", fields)
