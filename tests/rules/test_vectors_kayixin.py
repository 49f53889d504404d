"""卡易信's signature and its cards, by the code that ships, against the document's own samples."""

import orjson
import pytest

from kameng_api.suppliers.adapters.kayixin import wire
from kameng_api.suppliers.port import Purchase

SECRET = "652fbdd2f637606a2afbb2fe0ca72419"  # the document's example keys, nobody's
CARD_KEY = "5fb9600dd400b5e0853caed93ebbfb4e"
CARDS = "C8bR0FfVx+zMUZf/AJS9eyw3rKn+adBuHYqqnSFk09railKZVUvJV0fWO8w6q7OVOEw5RO04TfllBP1+8sjiMyj57JHp/ABJEtnygPhyYjr/6upkYGi0lAVTSfrxuJaf"


def test_the_vector_of_the_document() -> None:
    body = b'{"orderNumber":"20251016165825069","outerNumber":""}'
    assert wire.sign("10000", SECRET, "1760767397", body) == "6a414e658265ff3ca665cee3b161c4e9"
    headers = {"x-app-id": "10000", "x-version": "3.0", "x-timestamp": "1760767397", "x-signature": "6a414e658265ff3ca665cee3b161c4e9"}
    assert wire.is_signed("10000", SECRET, headers, body)
    assert not wire.is_signed("10000", SECRET, headers, body + b" "), "the exact bytes are signed"
    assert not wire.is_signed("10001", SECRET, {**headers, "x-app-id": "10001"}, body)
    assert not wire.is_signed("10000", SECRET, {**headers, "x-version": "3.01", "x-timestamp": "760767397"}, body), "the same text, cut elsewhere"
    assert not wire.is_signed("10000", SECRET, {**headers, "x-timestamp": "1760767397{"}, body[1:])


def test_the_cards_of_the_document() -> None:
    assert wire.decrypt_cards(CARD_KEY, CARDS) == [{"cancelRequest": 1, "cardId": "764", "cardNo": "123456789", "cardPwd": "", "status": 0}]


@pytest.mark.parametrize("sealed", [CARDS[:-4], CARDS[:-4] + "AAAA", "not base64", "", CARDS.replace("C8bR", "D8bR")])
def test_cards_that_do_not_open_are_no_cards(sealed: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.decrypt_cards(CARD_KEY, sealed)


def test_a_limit_is_written_as_the_exact_decimal_number() -> None:
    purchase = Purchase("T1", "34:A1", "topup", 3, "CNY", 10_0001, target="13800138000", fields={"区服": "1"})
    body = wire.order_body(purchase, "充值账号")
    assert b'"safePrice":10.0001,' in body
    assert orjson.loads(body) == {
        "goodsId": 34,
        "count": 3,
        "notifyUrl": "",
        "outerNumber": "T1",
        "safePrice": 10.0001,
        "sku": "A1",
        "attach": [{"name": "充值账号", "value": "13800138000"}, {"name": "区服", "value": "1"}],
    }
