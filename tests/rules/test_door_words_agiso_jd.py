"""The tables of three doors: every word of ours has one of theirs, and none that could refund a buyer stands where nothing is certain."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

import pytest

from kameng_api.api.doors import agiso, jd_card, jd_general
from kameng_api.api.doors.agiso import mapping as agiso_words
from kameng_api.api.doors.agiso.callback import AgisoLetters
from kameng_api.api.doors.door import Account, Ask, Card, Kind, Offered, Path, Reply, Shown, State, VendorDoor, WantedField, Why
from kameng_api.api.doors.jd_card import callback as card_letters
from kameng_api.api.doors.jd_card import mapping as card_words
from kameng_api.api.doors.jd_card import routes as card_routes
from kameng_api.api.doors.jd_card.callback import JdCardLetters
from kameng_api.api.doors.jd_general import callback as general_letters
from kameng_api.api.doors.jd_general import mapping as general_words
from kameng_api.api.doors.jd_general.callback import JdGeneralLetters
from kameng_api.orders.rules import FailureCode

NOW: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REFUSALS: Final = frozenset((
    "validation_failed", "product_unavailable", "product_not_authorised", "price_changed", "out_of_stock", "target_not_supported",
    "duplicate_target", "test_value_in_live", "insufficient_balance", "merchant_suspended", "url_refused", "number_closed",
))  # fmt: skip
ACCOUNT: Final = Account(
    "1201", "live", "CNY",
    {"private_key": "k" * 32, "aes_key": "a" * 32, "app_secret": "s" * 32, "merchant_key": "m" * 16},
)  # fmt: skip
CARDS: Final = (Card("AB-1", "pw1", "2027-01-31"), Card("AB-2"))
SHOWN: Final = Shown(
    number="10001", order_id="ord_1", state=State.SUCCEEDED, product="1", sku="x", product_type="card", quantity=2, delivered=2,
    face_value=10_000, unit_price=10_000, amount=20_000, charged=20_000, refunded=0, currency="CNY", cards=2, failure=None, receipt=None,
    created_at=NOW, completed_at=NOW, version=3, callback="https://example.com/cb", facts={"kind": "card", "vendor": "22501"},
)  # fmt: skip
TOPUP: Final = replace(SHOWN, product_type="topup", cards=0, facts={"kind": "direct", "vendor": "22501"})
DOORS: Final = (agiso.DOOR, jd_card.DOOR, jd_general.DOOR)


def test_every_refusal_and_failure_has_a_word_in_each_protocol() -> None:
    for refused in (agiso_words.REFUSED, card_words.REFUSED, general_words.REFUSED):
        assert set(refused) == REFUSALS
    for failed in (agiso_words.FAILED, card_words.FAILED, general_words.FAILED):
        assert set(failed) == {code.value for code in FailureCode}


def test_what_jd_asks_for_again_does_not_close_the_number_and_nothing_else_stays_open() -> None:
    assert jd_card.DOOR.asked_again == {"out_of_stock", "url_refused"}
    assert jd_general.DOOR.asked_again == {"price_changed", "insufficient_balance", "merchant_suspended", "duplicate_target", "url_refused"}
    assert agiso.DOOR.asked_again == frozenset()
    assert all(door.a_no_closes for door in DOORS)
    for code, words in card_words.REFUSED.items():
        assert (words.code in card_words.RETRIED) == (code in jd_card.DOOR.asked_again)
    for code, paused in general_words.REFUSED.items():
        assert (paused.status == general_words.PAUSED) == (code in jd_general.DOOR.asked_again)


@pytest.mark.parametrize("state", list(State))
def test_only_a_final_state_is_told_as_final(state: State) -> None:
    order = replace(TOPUP, state=state)
    final = {State.SUCCEEDED: (20, 0, 1), State.FAILED: (30, 2, 2), State.CANCELLED: (30, 2, 2)}
    told = agiso_words.status_of(order, ()), card_words.status_of(order, []), general_words.words_of(order, ()).status
    if state in final:
        assert told == final[state]
    else:
        assert told == (10, 1, 3 if state is State.PROCESSING else 4)


@pytest.mark.parametrize("cards", [(), CARDS[:1], (*CARDS, *CARDS)])
def test_success_is_never_said_with_other_than_all_the_cards(cards: tuple[Card, ...]) -> None:
    assert agiso_words.status_of(SHOWN, tuple(agiso_words.card_of(c) for c in cards)) == 10
    assert card_words.status_of(SHOWN, card_words.card_infos(cards)) == 1
    assert general_words.words_of(SHOWN, general_words.cards_of(cards)) == general_words.STUCK


def test_a_card_that_a_protocol_cannot_hold_is_not_told_in_part() -> None:
    assert card_words.card_infos([Card("https://example.com/x?y")]) is None
    assert card_words.card_infos([Card("A1", "密码")]) is None
    assert card_words.card_infos([Card("A" * 201)]) is None
    assert general_words.cards_of([Card("A" * 128)]) is None
    assert JdCardLetters().write(ACCOUNT, SHOWN, (CARDS[0], Card("卡")), NOW) is None
    letter = JdGeneralLetters().write(ACCOUNT, SHOWN, (CARDS[0], Card("A" * 128)), NOW)
    assert letter is not None and parse_qs(letter.body.decode())["produceStatus"] == ["4"]
    assert b"product=" not in letter.body


def test_cards_in_each_protocols_shape() -> None:
    assert card_words.card_infos(CARDS) == [
        {"cardno": "AB-1", "cardpass": "pw1", "expiretime": "2027-01-31"}, {"cardno": "AB-2", "cardpass": "AB-2"},
    ]  # fmt: skip
    told = general_words.cards_of(CARDS)
    assert told is not None and [(c.number, c.password, c.expires_on) for c in told] == [("AB-1", "pw1", "2027-01-31"), ("AB-2", "-", None)]


# ---- callbacks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", [AgisoLetters(), JdCardLetters(), JdGeneralLetters()])
def test_nothing_is_told_while_it_is_open_or_nobody_asked_to_be_told(letters: Any) -> None:
    assert letters.write(ACCOUNT, replace(TOPUP, state=State.PROCESSING), (), NOW) is None
    assert letters.write(ACCOUNT, replace(TOPUP, callback=None), (), NOW) is None
    assert letters.write(ACCOUNT, TOPUP, (), NOW) is not None
    assert letters.with_cards and list(letters.retries_s) == sorted(letters.retries_s)


def test_a_partly_delivered_order_is_told_only_where_there_is_a_word_for_it() -> None:
    partly = replace(TOPUP, state=State.PARTIAL, delivered=1)
    assert AgisoLetters().write(ACCOUNT, partly, (), NOW) is None
    assert JdCardLetters().write(ACCOUNT, partly, (), NOW) is None
    paused = JdGeneralLetters().write(ACCOUNT, partly, (), NOW)
    assert paused is not None and parse_qs(paused.body.decode())["produceStatus"] == ["4"]


HEARD: Final = [
    (AgisoLetters(), b'{"code":200}', True),
    (AgisoLetters(), b'{"code":"200"}', True),
    (AgisoLetters(), '"{\\"code\\":200,\\"message\\":\\"请求成功\\"}"'.encode(), True),
    (AgisoLetters(), '"{\\"code\\":408,\\"message\\":\\"时间戳过期\\"}"'.encode(), False),
    (AgisoLetters(), b'{"code":200.0}', False),
    (AgisoLetters(), b'{"code":true}', False),
    (AgisoLetters(), b"200", False),
    (AgisoLetters(), b'"200"', False),
    (AgisoLetters(), b"success", False),
    (JdCardLetters(), '{"retCode":"100","retMessage":"接收成功"}'.encode(), True),
    (JdCardLetters(), b'{"retCode":100}', True),
    (JdCardLetters(), b'{"retCode":"104"}', False),
    (JdCardLetters(), b'{"retCode":"1000"}', False),
    (JdCardLetters(), b'{"code":"100"}', False),
    (JdCardLetters(), b"[100]", False),
    (JdGeneralLetters(), '{"code":"0","message":"成功"}'.encode(), True),
    (JdGeneralLetters(), b'{"code":0}', True),
    (JdGeneralLetters(), b'{"code":"10"}', False),
    (JdGeneralLetters(), b'{"code":false}', False),
    (JdGeneralLetters(), b'{"code":""}', False),
    (JdGeneralLetters(), b"0", False),
    (JdGeneralLetters(), b"", False),
]


@pytest.mark.parametrize(("letters", "body", "heard"), HEARD)
def test_an_acknowledgement_is_exactly_what_the_vendor_says(letters: Any, body: bytes, heard: bool) -> None:
    assert letters.heard(200, body) is heard
    assert letters.heard(500, body) is False
    assert letters.heard(302, body) is False


def test_where_each_is_called_back() -> None:
    assert card_letters.address(ACCOUNT, "direct") == "https://card.jd.com/api/gameApi.action"
    assert card_letters.address(replace(ACCOUNT, environment="test"), "card") == "https://card-pre.jd.com/api/cardApi.action"
    assert card_letters.address(replace(ACCOUNT, settings={"callback_base": "off"}), "card") is None
    address = general_letters.address
    assert address(ACCOUNT, "https://vtpnotify.jd.com/vtp") == "https://vtpnotify.jd.com/vtp/produce/result"
    assert address(ACCOUNT, "http://vtp.jd.com/notify/") == "https://vtp.jd.com/notify/produce/result"
    assert address(ACCOUNT, "http://vtp.jd.com.example.org/n") == "http://vtp.jd.com.example.org/n/produce/result"
    assert address(replace(ACCOUNT, settings={"callback_url": "https://a.example/x"}), "http://b") == "https://a.example/x"


# ---- what is said to whom nothing is known of ---------------------------------------------------------------------------


def _ask(path: str, body: bytes = b"") -> Ask:
    return Ask("POST", path, path, "", {}, body, "192.0.2.1", "req_1", NOW)


def _is_final(door: VendorDoor, reply: Reply) -> bool:
    """Whether the other side may refund its buyer on reading this in answer to a query."""
    told = json.loads(reply.body)
    match door.name:
        case "jd_card":
            return told["retCode"] not in card_words.RETRIED
        case "jd_general":
            return bool(told["produceStatus"] == general_words.FAILURE)
        case _:
            return bool((told["data"] or {}).get("orderStatus") == agiso_words.FAILURE)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_neither_doubt_nor_a_refused_request_reads_as_a_verdict(door: VendorDoor) -> None:
    for path in door.paths:
        if path.kind not in (Kind.PLACE, Kind.QUERY):
            continue
        ask = _ask(path.template, b"")
        replies = [door.in_doubt(ask, path), *[door.refuse(ask, path, why, "detail") for why in Why]]
        # 阿奇索 has no word for "not now" that is neither an acceptance nor a failure: an empty answer under 429 is both of none
        wordless = [reply for reply in replies if reply.status != 200]
        assert all((reply.status, reply.body) == (429, b"") and door.name == "agiso" and path.kind is Kind.PLACE for reply in wordless)
        assert not any(_is_final(door, reply) for reply in replies if reply not in wordless)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_no_reply_to_a_stranger_is_signed(door: VendorDoor) -> None:
    for why in Why:
        for path in (*door.paths, None):
            assert "sign" not in json.loads(door.refuse(_ask("/x"), path, why, "").body or b"{}")


def test_doubt_about_a_purchase_at_agiso_repeats_its_number_and_says_processing() -> None:
    path = next(p for p in agiso.DOOR.paths if p.kind is Kind.PLACE)
    assert isinstance(path, Path)
    told = json.loads(agiso.DOOR.in_doubt(_ask(path.template, b'{"orderNo":"77"}'), path).body)
    assert (told["code"], told["data"]["orderNo"], told["data"]["orderStatus"]) == (200, "77", 10)


def test_the_buyers_choices_fill_the_fields_that_the_product_asks_for() -> None:
    offered = Offered(
        "1", "x", "Game", "topup", 10_000, 10_000, "CNY", "account", "in_stock", True, 10,
        (WantedField("game_area", "区", True, 64), WantedField("game_server", "服", True, 64), WantedField("permit", "通行证", False, 64)),
    )  # fmt: skip
    data = {
        "skuId": "1", "buyNum": "1", "totalPrice": "9", "gameAccount": "hero", "permit": "", "chargeType": {"id": "yuanbao", "name": "元宝"},
        "gameArea": {"id": " 298 ", "name": "61区"}, "gameServer": '{"id":10,"name":"巴蜀万里"}',
    }  # fmt: skip
    wanted = card_routes._wanted(ACCOUNT, data, "direct", "10001", "1", offered)
    assert wanted.fields == {"game_area": "298", "game_server": "10"}
    assert (wanted.target, wanted.most, wanted.quantity) == ("hero", 90_000, 1)
    other = card_routes._wanted(ACCOUNT, data | {"gameServer": '{"id":11}'}, "direct", "10001", "1", offered)
    assert other.same != wanted.same
    assert card_routes._wanted(ACCOUNT, data | {"totalPrice": "10", "pin": "x"}, "direct", "10001", "1", None).same == wanted.same
