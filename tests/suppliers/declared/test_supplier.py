"""A supplier that only its file describes: what it sends, what it makes of answers, and that doubt stays doubt."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from kameng_api.suppliers.adapters.declared.client import DeclaredSupplier
from kameng_api.suppliers.adapters.declared.compiled import compile_file, compile_text
from kameng_api.suppliers.port import (
    Accepted,
    AnswerUnusable,
    CallbackNews,
    CallbackRefused,
    CatalogHint,
    Cause,
    Code,
    Delivered,
    HttpAnswer,
    NotFound,
    NotSent,
    Outcome,
    Purchase,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

SHOP = Path(__file__).parent / "shop.yaml"
KEY = "5fb9600dd400b5e0853caed93ebbfb4e"
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
JSON = {"content-type": "application/json"}
PURCHASE = Purchase("T1", "p-1", "topup", 2, "CNY", 199_999, target="13800138000")


class Wire:
    """Answers in turn, and remembers what was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str, Mapping[str, str], bytes]] = []

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        self.sent.append((method, url, headers or {}, content))
        answer = self.answers[min(len(self.sent), len(self.answers)) - 1]
        return answer if isinstance(answer, HttpAnswer | NotSent | Unknown) else HttpAnswer(200, JSON, json.dumps(answer).encode())


def connected(*answers: Any) -> tuple[DeclaredSupplier, Wire]:
    compiled, wire = compile_file(SHOP), Wire(*answers)
    settings = compiled.settings.model_validate({"base_url": "https://shop.example.com/api/", "app": "app1", "key": KEY})
    return DeclaredSupplier(compiled, settings, wire), wire


def order(state: str, **more: Any) -> dict[str, Any]:
    return {"code": 0, "data": {"no": "T1", "id": "V9", "state": state, "n": 2, "done": 2, "money": "19.5", **more}}


async def placed(answer: Any, purchase: Purchase = PURCHASE) -> Outcome:
    supplier, _ = connected(answer)
    return (await supplier.place(purchase)).outcome


async def looked_up(answer: Any) -> Outcome:
    supplier, _ = connected(answer)
    assert supplier.look_up is not None
    return (await supplier.look_up("T1", "V9")).outcome


# ---- what is sent


async def test_a_purchase_is_sent_as_the_file_says() -> None:
    supplier, wire = connected(order("working"))
    assert (await supplier.place(PURCHASE)).outcome == Accepted("V9")
    [(method, url, headers, content)] = wire.sent
    assert (method, url) == ("POST", "https://shop.example.com/api/orders/p-1")
    assert content == b'{"app":"app1","no":"T1","n":2,"max":1999,"account":"13800138000"}'
    text = f"POST /api/orders/p-1 {headers['x-time']} ".encode() + content
    assert headers["x-sign"] == hmac.digest(KEY.encode(), text, "sha256").hex()
    assert headers["content-type"] == "application/json; charset=utf-8"


async def test_a_look_up_by_query_leaves_out_what_is_empty() -> None:
    supplier, wire = connected(order("working"))
    assert supplier.look_up is not None
    await supplier.look_up("T1")
    await supplier.look_up("T1", "V 9&x")
    queries = [parse_qsl(urlsplit(url).query) for _, url, _, _ in wire.sent]
    assert queries == [[("app", "app1"), ("no", "T1")], [("app", "app1"), ("no", "T1"), ("id", "V 9&x")]]
    assert all(method == "GET" and content == b"" for method, _, _, content in wire.sent)


async def test_what_is_put_into_a_path_cannot_leave_it() -> None:
    supplier, wire = connected(order("working"))
    await supplier.place(Purchase("T1", "a/b?c#d", "topup", 1, "CNY", 10_000, target="1"))
    assert wire.sent[0][1] == "https://shop.example.com/api/orders/a/b%3Fc%23d"
    outcome = (await supplier.place(Purchase("T1", "../../admin", "topup", 1, "CNY", 10_000, target="1"))).outcome
    assert isinstance(outcome, NotSent) and len(wire.sent) == 1


@pytest.mark.parametrize(
    "change", [{"product_type": "voucher"}, {"units": 11}, {"units": 0}, {"target": "1\n2"}], ids=["type", "many", "none", "control"]
)
async def test_what_cannot_be_said_is_held_back(change: dict[str, Any]) -> None:
    supplier, wire = connected(order("working"))
    values = {"reference": "T1", "product_code": "p", "product_type": "topup", "units": 1, "currency": "CNY", "max_cost": 1, "target": "1", **change}
    outcome = (await supplier.place(Purchase(**values))).outcome
    assert isinstance(outcome, NotSent) and outcome.cause is Cause.UNSAYABLE and not wire.sent


# ---- what an answer means


@pytest.mark.parametrize(
    ("answer", "status", "outcome"),
    [
        (order("done"), 200, Delivered(2, 195_000, "V9")),
        ({"code": "21"}, 200, Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK, "21")),
        ({"code": 22}, 422, Refused(Scope.ORDER, RefusalReason.TARGET_INVALID, "22")),
        ({"code": 29}, 429, NotSent("rate limited by the supplier", Cause.BUSY)),
        ({"code": 99}, 500, Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "99")),
        ({"code": 30}, 200, Unknown("the supplier asks to contact its staff", needs_person=True)),
    ],
)
async def test_a_listed_code_means_what_its_row_says(answer: Any, status: int, outcome: Outcome) -> None:
    assert await placed(HttpAnswer(status, JSON, json.dumps(answer).encode())) == outcome


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"code": 23}, 200),
        ({"code": 21}, 422),
        ({"code": 22}, 500),
        ({"code": 29}, 200),
        ({"code": 99}, 200),
        ({"code": 99}, 503),
        ({"code": 0}, 500),
        ({"code": 0}, 200),
        ({"code": 0.0}, 200),
        ({"code": [0]}, 200),
        (order("DONE"), 200),
        (order("done", no="T2"), 200),
        (order("done", no=None), 200),
        (order("done", done=1), 200),
        (order("done", done=3), 200),
        (order("done", n=3), 200),
        (order("done", done="2.0"), 200),
        (order("done", money="-1"), 200),
        (order("done", money="1e1"), 200),
        ({**order("done"), "code": 21}, 200),
        ({"code": 0, "data": [order("done")["data"], order("done")["data"]]}, 200),
        ({"code": 0, "data": []}, 200),
    ],
)
async def test_everything_else_is_doubt(answer: Any, status: int) -> None:
    outcome = await placed(HttpAnswer(status, JSON, json.dumps(answer).encode()))
    assert isinstance(outcome, Unknown) and not outcome.needs_person, outcome


async def test_a_no_at_a_look_up_names_our_order_or_is_doubt() -> None:
    """The same code may be about the question: nothing says that the order itself failed."""
    text = SHOP.read_text(encoding="utf-8")
    row = '"41": {verdict: refused, scope: channel, reason: out_of_stock}'
    told = text.replace('codes: {"0": state, "40": not_found}', f'codes: {{"0": state, "40": not_found, {row}}}')
    assert told != text
    compiled = compile_text(told.encode(), SHOP)
    settings = compiled.settings.model_validate({"base_url": "https://shop.example.com", "app": "app1", "key": KEY})
    for data, kind in ((None, Unknown), ({"state": "failed"}, Unknown), ({"no": "T1"}, Refused)):
        answer = {"code": 41, "data": data}
        supplier = DeclaredSupplier(compiled, settings, Wire(answer))
        assert supplier.look_up is not None
        assert isinstance((await supplier.look_up("T1")).outcome, kind), answer


async def test_a_file_has_one_currency_and_sells_in_no_other() -> None:
    supplier, wire = connected(order("done"))
    outcome = (await supplier.place(replace(PURCHASE, currency="USD"))).outcome
    assert isinstance(outcome, NotSent) and outcome.cause is Cause.UNSAYABLE and not wire.sent
    text = SHOP.read_text(encoding="utf-8").replace("max_units: 10}", "max_units: 10, currency: USD}")
    with pytest.raises(Exception, match="balance, products, product says another"):
        compile_text(text.encode(), SHOP)


async def test_of_a_list_the_one_row_with_our_number_counts() -> None:
    rows = [order("failed", no="T2")["data"], order("done")["data"]]
    assert isinstance(await looked_up({"code": 0, "data": rows}), Delivered)
    assert isinstance(await looked_up({"code": 0, "data": rows[:1]}), Unknown)


@pytest.mark.parametrize(
    ("back", "outcome"),
    [
        ({"back": 0}, Delivered(2, 195_000, "V9")),
        ({"back": "9.75", "done": 1}, Delivered(1, 195_000, "V9")),
        ({"back": "19.50"}, Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "settled")),
        ({"back": "20"}, Unknown("a refund does not fit the charge")),
        ({"back": "-1"}, Unknown("a refund does not fit the charge")),
        ({"back": "9.75"}, Unknown("units do not fit the state")),
        ({}, Unknown("unreadable answer: an amount is not decimal")),
    ],
)
async def test_a_refund_that_is_a_number_decides(back: dict[str, Any], outcome: Outcome) -> None:
    assert await looked_up(order("settled", **back)) == outcome


async def test_the_other_states_of_a_look_up() -> None:
    assert await looked_up({"code": 40}) == NotFound()
    assert await looked_up(order("back", reversal="R7")) == Reversed("R7")
    assert await looked_up(order("back")) == Unknown("a reversal without a number")
    assert await looked_up(order("part", done=1)) == Delivered(1, 195_000, "V9")
    assert isinstance(await looked_up(order("part")), Unknown)
    assert await looked_up(order("staff")) == Unknown("the supplier asks to contact its staff", needs_person=True)
    assert isinstance(await looked_up(NotSent("refused")), Unknown)
    assert isinstance(await looked_up(HttpAnswer(200, {"content-type": "text/plain"}, b'{"code":40}')), Unknown)


async def test_cancelling_is_asked_and_its_final_no_is_a_refusal() -> None:
    for code, kind in ((0, Accepted), (1, Refused), (2, Unknown)):
        supplier, _ = connected({"code": code})
        assert supplier.cancel is not None and supplier.capabilities.cancel
        assert isinstance((await supplier.cancel("T1")).outcome, kind)


# ---- cards


def sealed(cards: Any, key: str = KEY) -> str:
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key.encode()), modes.ECB()).encryptor()
    padded = padder.update(json.dumps(cards).encode()) + padder.finalize()
    return base64.encodebytes(encryptor.update(padded) + encryptor.finalize()).decode()  # with MIME's line breaks


CARDS = [{"cardNo": f"A-{n}", "cardPwd": f"p{n}", "expireTime": "2027-01-31" if n else "-"} for n in range(2)]


async def test_encrypted_cards_are_read() -> None:
    outcome = await looked_up(order("done", cards=sealed(CARDS)))
    assert isinstance(outcome, Delivered)
    assert outcome.codes == (Code("A-0", "p0"), Code("A-1", "p1", date(2027, 1, 31)))
    assert "A-0" not in repr(outcome)


@pytest.mark.parametrize(
    "cards",
    [
        sealed(CARDS[:1]),
        sealed(CARDS, "0" * 32),
        sealed([{"cardPwd": "1"}] * 2),
        sealed("x"),
        "AAAA",
        sealed([{"cardNo": "1", "expireTime": "31.1."}] * 2),
        {"a": 1},
    ],
)
async def test_cards_that_do_not_fit_or_open_are_doubt(cards: Any) -> None:
    assert isinstance(await looked_up(order("done", cards=cards)), Unknown)


async def test_a_card_order_without_its_cards_is_doubt() -> None:
    card = Purchase("T1", "p", "card", 2, "CNY", 199_999)
    assert isinstance(await placed(order("done"), card), Unknown)
    assert isinstance(await placed(order("done", cards=sealed(CARDS)), card), Delivered)


# ---- what buys nothing


async def test_balance_and_products_are_read_page_by_page() -> None:
    supplier, _ = connected({"code": 0, "money": 12345})
    assert supplier.balance is not None and (await supplier.balance()).balance == 1_234_500
    lines = [{"id": n, "name": f"n{n}", "kind": 1, "price": "9.9", "stock": n, "status": 1} for n in (1, 2, 3)]
    supplier, wire = connected({"code": 0, "list": lines[:2]}, {"code": 0, "list": lines[2:]})
    assert supplier.products is not None
    pages = [page async for page in supplier.products()]
    assert [[line.product_code for line in page] for page in pages] == [["1", "2"], ["3"]]
    assert [json.loads(content)["page"] for *_, content in wire.sent] == ["1", "2"]
    assert (pages[0][0].cost, pages[0][0].stock, pages[0][0].available, pages[0][0].product_type) == (99_000, 1, True, "topup")


@pytest.mark.parametrize(
    "answer", [{"code": 1}, {"code": 0}, {"code": 0, "list": {}}, {"code": 0, "list": [{}]}, Unknown("silence"), NotSent("refused")]
)
async def test_a_list_that_cannot_be_read_is_no_list(answer: Any) -> None:
    supplier, _ = connected(answer)
    assert supplier.products is not None and supplier.product is not None
    with pytest.raises(AnswerUnusable):
        [page async for page in supplier.products()]
    with pytest.raises(AnswerUnusable):
        await supplier.product("1")


async def test_an_endless_list_ends() -> None:
    supplier, _ = connected({"code": 0, "list": [{"id": n, "name": "n", "kind": 1, "price": "1", "stock": 1, "status": 1} for n in (1, 2)]})
    assert supplier.products is not None
    with pytest.raises(AnswerUnusable, match="no end"):
        async for _ in supplier.products():
            pass


async def test_one_product_is_read_alone() -> None:
    supplier, wire = connected({"code": 0, "line": {"id": 7, "name": "n", "price": 1}})
    assert supplier.product is not None
    found = await supplier.product("7")
    assert found is not None and found.cost == 10_000 and wire.sent[0][1].endswith("/products/7")
    with pytest.raises(AnswerUnusable, match="another product"):
        await supplier.product("8")
    supplier, _ = connected({"code": 40})
    assert supplier.product is not None and await supplier.product("8") is None


# ---- callbacks


def letter(fields: Mapping[str, Any], at: datetime = NOW, key: str = KEY) -> tuple[dict[str, str], bytes]:
    body = json.dumps(fields).encode()
    time = str(int(at.timestamp()))
    return {"x-time": time, "x-sign": hmac.digest(key.encode(), f"{time} ".encode() + body, "sha256").hex()}, body


def test_a_signed_callback_is_read_and_acknowledged() -> None:
    supplier, _ = connected()
    assert supplier.read_callback is not None and supplier.capabilities.trusted_callback
    assert supplier.read_callback(*letter({"no": "T1", "state": "done", "done": 2}), NOW) == CallbackNews("T1", Delivered(2))
    assert supplier.read_callback(*letter({"no": "T1", "state": "new"}), NOW) == CallbackNews("T1", Unknown("state new"))
    assert supplier.read_callback(*letter({"changed": [7, "8", None]}), NOW) == CatalogHint(("7", "8"))
    assert supplier.callback_reply.body == b'{"ok":true}' and supplier.callback_reply.content_type == "application/json"


def test_a_callback_that_is_not_theirs_or_not_of_now_is_refused() -> None:
    supplier, _ = connected()
    assert supplier.read_callback is not None
    fields = {"no": "T1", "state": "done", "done": 2}
    headers, body = letter(fields)
    wrong: list[tuple[dict[str, str], bytes]] = [letter(fields, NOW - timedelta(seconds=301)), letter(fields, key="0" * 32), ({}, body)]
    wrong += [(headers, body + b" "), ({**headers, "x-sign": ""}, body), letter({"state": "done"}), letter({"no": "", "state": "done"})]
    for given in wrong:
        with pytest.raises(CallbackRefused):
            supplier.read_callback(*given, NOW)


def test_what_the_signature_does_not_cover_is_not_read() -> None:
    text = SHOP.read_text(encoding="utf-8")
    start, end = text.index("callback:"), text.index("promises:")
    unsigned = """callback:
  encoding: form
  signature:
    text: [{fields: {order: [no, state], empty: keep}}, {text: "{settings.key}"}]
    digest: md5
    at: {field: sign}
  reference: no
  state: state
  states: {done: delivered}
  units: done || '1'
  reply: {text: ok}
"""
    compiled = compile_text((text[:start] + unsigned + text[end:]).encode(), SHOP)
    settings = compiled.settings.model_validate({"base_url": "https://a.example.com", "app": "app1", "key": KEY})
    supplier = DeclaredSupplier(compiled, settings, Wire())
    signature = hashlib.md5(f"no=T1&state=done{KEY}".encode()).hexdigest()
    assert supplier.read_callback is not None
    news = supplier.read_callback({}, f"no=T1&state=done&done=9&sign={signature}".encode(), NOW)
    assert news == CallbackNews("T1", Delivered(1)), "units are outside the signature: anybody could have written 9"


# ---- forms in GBK that are answered in XML -----------------------------------------------------------------------------------

XML_SHOP = """\
name: shop
title: 商店
source: the research note on the chongzhi family
dated: 2026-11
settings:
  userid: {label: userid}
  key: {label: Key, secret: true}
limits: {product_types: [topup]}
common:
  encoding: form
  charset: gbk
place:
  path: /fcgameonlinepay.do
  fields: {userid: "{settings.userid}", productid: "{product_code}", num: "{units}", areaid: "{fields.area?}", sporderid: "{reference}"}
  signature:
    text: [{fields: {order: [userid, productid, num, areaid, sporderid], empty: keep}}, {text: "&key={settings.key}"}]
    digest: md5
    spelled: upper
    charset: gbk
    at: {field: sign}
  answer:
    kind: xml
    charset: gbk
    order: order
    reference: sporderid
    order_no: orderid
    code: order.resultno
    codes:
      "0": accepted
      "2": accepted
      "1": delivered
      "9": {verdict: refused, scope: channel, reason: supplier_rejected}
    one_unit: true
    cost: {at: ordercash}
"""


def xml(resultno: str, **more: str) -> HttpAnswer:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"resultno": resultno, "sporderid": "T1", "orderid": "F1", **more}.items())
    body = f'<?xml version="1.0" encoding="GB2312"?><order>{inner}<msg>充值</msg></order>'.encode("gbk")
    return HttpAnswer(200, {"content-type": "text/xml;charset=GB2312"}, body)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (xml("0"), Accepted("F1")),
        (xml("1", ordercash="9.5"), Delivered(1, 95_000, "F1")),
        (xml("9"), Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "9")),
        (xml("5007"), Unknown("code 5007")),
        (xml("1"), Unknown("unreadable answer: an amount is not decimal")),
        (xml("0", sporderid="T2"), Unknown("an answer about another order")),
        (HttpAnswer(200, {"content-type": "text/xml"}, b"<!DOCTYPE a><order><resultno>1</resultno></order>"), None),
        (HttpAnswer(200, {"content-type": "text/xml"}, xml("1").body[:-3]), None),
        (HttpAnswer(500, {"content-type": "text/xml"}, xml("9").body), None),
    ],
)
async def test_a_form_in_gbk_and_an_answer_in_xml(answer: HttpAnswer, outcome: Outcome | None) -> None:
    compiled, wire = compile_text(XML_SHOP.encode(), SHOP), Wire(answer)
    settings = compiled.settings.model_validate({"base_url": "https://a.example.com", "userid": "u", "key": KEY})
    purchase = Purchase("T1", "7", "topup", 1, "CNY", 100_000, fields={"area": "上海"})
    found = (await DeclaredSupplier(compiled, settings, wire).place(purchase)).outcome
    assert found == outcome if outcome is not None else isinstance(found, Unknown)
    text = f"userid=u&productid=7&num=1&areaid=上海&sporderid=T1&key={KEY}".encode("gbk")
    assert wire.sent[0][3] == f"userid=u&productid=7&num=1&areaid=%C9%CF%BA%A3&sporderid=T1&sign={hashlib.md5(text).hexdigest().upper()}".encode()
