"""A merchant's program written from 大猿人 yrapi's documents alone (protocol note §2A) against the door: real app, worker, supplier and receiver."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from tests.factories.client import door_of
from tests.factories.doors import DoorHouse, Heard
from tests.factories.shop import PHONE, eventually

from kameng_api.api.doors.lobby import InHand
from kameng_api.api.limits import Failures
from kameng_api.catalog import actions as catalog
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.merchants import actions as merchants
from kameng_api.merchants import door_accounts
from kameng_api.reconciliation import invariants

KEY = "testkey0123456789"
DUPLICATE = "已经存在相同商户订单号的订单"
PRODUCTS = {"8": {"sku": "mobile-cn-100"}, "9": {"sku": "qb", "face_value": "50.0000"}, "11": {"sku": "test-card"}}


@dataclass
class Yrapi:
    """The client. `sign` is written from the document: sorted, empty values too, key at the end, MD5 in capitals."""

    http: httpx.AsyncClient
    userid: str = "10001"
    key: str = KEY
    base: str = "/doors/yrapi/yrapi.php/"
    sent: list[dict[str, str]] = field(default_factory=list)

    def sign(self, fields: Mapping[str, str]) -> str:
        text = "&".join(f"{k}={fields[k]}" for k in sorted(fields)) + f"&apikey={self.key}"
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()

    async def post(self, endpoint: str, fields: Mapping[str, str], *, signature: str | None = None) -> httpx.Response:
        form = {"userid": self.userid, **fields}
        form["sign"] = signature if signature is not None else self.sign(form)
        self.sent.append(form)
        return await self.http.post(f"{self.base}{endpoint}", data=form)

    async def call(self, endpoint: str, **fields: str) -> Any:
        answer = await self.post(endpoint, fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def recharge(self, number: str, mobile: str = PHONE, product: str = "8", notify: str = "", **more: str) -> Any:
        fields = {"out_trade_num": number, "product_id": product, "mobile": mobile, "notify_url": notify, **more}
        return await self.call("index/recharge", **fields)

    async def state(self, number: str) -> int | None:
        """As the platform's clients read it: the row's state, None where the row is missing."""
        answer = await self.call("index/check", out_trade_nums=number)
        assert answer["errno"] == 0
        return answer["data"][0]["state"] if answer["data"] else None

    def told(self, heard: Heard) -> dict[str, str]:
        """A callback, its signature checked."""
        fields = dict(parse_qsl(heard.body.decode(), keep_blank_values=True, strict_parsing=True))
        assert fields.pop("sign") == self.sign(fields)
        return fields


@pytest.fixture
async def client(house: DoorHouse) -> Yrapi:
    await house.account("yrapi", "10001", {"api_key": KEY}, products=PRODUCTS, own_skus=False)
    return Yrapi(house.http)


@pytest.fixture
async def quiet_client(quiet_house: DoorHouse) -> Yrapi:
    await quiet_house.account("yrapi", "10001", {"api_key": KEY}, products=PRODUCTS, own_skus=False)
    return Yrapi(quiet_house.http)


async def _books_agree(house: DoorHouse) -> None:
    async with house.db.transaction() as tx:
        assert await invariants.check_all(tx) == []


async def test_an_order_is_placed_queried_and_told(house: DoorHouse, client: Yrapi) -> None:
    answer = await client.recharge("T1", notify=f"{house.receiver.url}/cb", amount="100", price="98.50")
    assert answer["errno"] == 0 and answer["errmsg"] == "提交成功"
    data = answer["data"]
    assert (data["out_trade_num"], data["mobile"], data["product_id"], data["total_price"]) == ("T1", PHONE, 8, "98.50")
    await house.finished("T1")
    assert await client.state("T1") == 1
    [heard] = await house.receiver.wait_for(1)
    told = client.told(heard)
    assert heard.path == "/cb" and heard.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (told["userid"], told["out_trade_num"], told["order_number"]) == ("10001", "T1", data["order_number"])
    assert (told["state"], told["mobile"], told["charge_amount"]) == ("1", PHONE, "100.00")
    assert (await client.call("index/user"))["data"]["balance"] == "9901.50"
    await _books_agree(house)


async def test_a_refused_order_is_told_as_failed_and_the_money_is_back(house: DoorHouse, client: Yrapi) -> None:
    await client.recharge("T2", "10000000002", notify=f"{house.receiver.url}/cb")
    await house.finished("T2")
    assert await client.state("T2") == 2
    assert client.told((await house.receiver.wait_for(1))[0])["state"] == "2"
    assert (await client.call("index/user"))["data"]["balance"] == "10000.00"


async def test_doubt_is_shown_as_work(house: DoorHouse, client: Yrapi) -> None:
    await client.recharge("T4", "10000000004")

    async def unknown() -> bool:
        order = await house.order("T4")
        return order is not None and order.substatus == "outcome_unknown"

    await eventually(unknown)
    assert await client.state("T4") == 0


async def test_cards_come_with_the_query_and_the_callback(house: DoorHouse, client: Yrapi) -> None:
    await client.recharge("T11", "", "11", f"{house.receiver.url}/cb")
    await house.finished("T11")
    answer = await client.call("index/check", out_trade_nums="T11")
    kami = answer["data"][0]["charge_kami"]
    assert kami.startswith("TEST-")
    assert client.told((await house.receiver.wait_for(1))[0])["charge_kami"] == kami
    async with house.db.transaction() as tx:
        reveals = await fetch(tx, "SELECT key_id, count FROM code_reveals")
    assert {(r["key_id"], r["count"]) for r in reveals} == {("door:yrapi:10001", 1)} and len(reveals) == 2


async def test_the_callback_goes_on_until_the_word_comes_back_exactly(house: DoorHouse, client: Yrapi) -> None:
    answers = iter([b"success\n", b'"success"'])
    house.receiver.reply = lambda _: (200, next(answers, b"success"))
    await client.recharge("T1", notify=f"{house.receiver.url}/cb")
    await house.finished("T1")

    async def hurried() -> bool:
        async with house.db.transaction() as tx:
            await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'door' AND state = 'ready'")
        return len(house.receiver.heard) == 3

    await eventually(hurried, within_s=30)

    async def delivered() -> Any:
        async with house.db.transaction() as tx:
            return await fetch(tx, "SELECT attempts FROM webhook_deliveries WHERE state = 'delivered'")

    [row] = await eventually(delivered)
    assert row["attempts"] == 3
    async with house.db.transaction() as tx:
        troubles = [r["trouble"] for r in await fetch(tx, "SELECT trouble FROM webhook_attempts ORDER BY attempt_id")]
    assert troubles == ["not_acknowledged", "not_acknowledged", None]
    assert len({heard.body for heard in house.receiver.heard}) == 1


async def test_the_same_number_again_is_the_duplicate_text_and_one_order(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    first = await quiet_client.recharge("T1")
    assert first["errno"] == 0
    for again in (await quiet_client.recharge("T1"), await quiet_client.recharge("T1", product="9", mobile="player1")):
        assert (again["errno"], again["errmsg"]) == (1, DUPLICATE)
    assert await quiet_house.orders() == 1
    assert (await quiet_client.call("index/user"))["data"]["balance"] == "9901.50"


async def test_a_replayed_request_buys_nothing(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    await quiet_client.recharge("T1")
    replayed = await quiet_house.http.post("/doors/yrapi/yrapi.php/index/recharge", data=quiet_client.sent[0])
    assert replayed.json()["errmsg"] == DUPLICATE
    assert await quiet_house.orders() == 1


async def test_fifty_at_once_are_one_order(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    answers = await asyncio.gather(*(quiet_client.recharge("T1") for _ in range(50)))
    assert sorted(a["errno"] for a in answers) == [0] + [1] * 49
    assert {a["errmsg"] for a in answers} == {"提交成功", DUPLICATE}
    assert await quiet_house.orders() == 1


async def test_an_account_may_ask_for_the_first_order_instead(quiet_house: DoorHouse) -> None:
    await quiet_house.account("yrapi", "10002", {"api_key": KEY}, products=PRODUCTS, settings={"repeat": "return"})
    client = Yrapi(quiet_house.http, "10002")
    first, again, other = await client.recharge("T1"), await client.recharge("T1"), await client.recharge("T1", "10000000001")
    assert first == again and first["errno"] == 0
    assert (other["errno"], other["errmsg"]) == (1, DUPLICATE)


async def test_a_repeat_is_known_although_the_product_map_has_changed(quiet_house: DoorHouse) -> None:
    made = await quiet_house.account("yrapi", "10002", {"api_key": KEY}, products=PRODUCTS, settings={"repeat": "return"})
    client = Yrapi(quiet_house.http, "10002")
    first = await client.recharge("T1")
    terms = door_accounts.AccountTerms(settings={"repeat": "return"}, products={"8": {"sku": "mobile-cn-50"}})
    async with quiet_house.db.transaction() as tx:
        await door_accounts.change(tx, made.account.account_id, terms)
    door_of(quiet_house.app).lobby.accounts.forget()
    again = await client.recharge("T1")
    assert again["errno"] == 0 and again["data"]["order_number"] == first["data"]["order_number"]
    assert await quiet_house.orders() == 1


@pytest.mark.parametrize("signature", ["", "0" * 32, "not hex"])
async def test_a_wrong_signature_does_nothing(quiet_house: DoorHouse, quiet_client: Yrapi, signature: str) -> None:
    fields = {"out_trade_num": "T1", "product_id": "8", "mobile": PHONE, "notify_url": ""}
    answer = await quiet_client.post("index/recharge", fields, signature=signature)
    assert (answer.status_code, answer.json()["errno"], answer.json()["errmsg"]) == (401, 1, "签名错误")
    assert await quiet_house.orders() == 0


async def test_a_changed_field_does_nothing(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    await quiet_client.recharge("T0")
    forged = {**quiet_client.sent[0], "out_trade_num": "T1"}
    assert (await quiet_house.http.post("/doors/yrapi/yrapi.php/index/recharge", data=forged)).status_code == 401
    doubled = b"&".join(f"{k}={v}".encode() for k, v in quiet_client.sent[0].items()) + b"&mobile=10000000001"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await quiet_house.http.post("/doors/yrapi/yrapi.php/index/recharge", content=doubled, headers=headers)
    assert answer.json()["errmsg"] == "参数错误"
    assert await quiet_house.orders() == 1


async def test_a_stranger_and_an_account_that_is_off_hear_the_same(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    made = await quiet_house.account("yrapi", "10003", {"api_key": KEY}, products=PRODUCTS)
    off = Yrapi(quiet_house.http, "10003")
    assert (await off.recharge("T1"))["errno"] == 0
    async with quiet_house.db.transaction() as tx:
        await door_accounts.switch(tx, made.account.account_id, enabled=False)
    door_of(quiet_house.app).lobby.accounts.forget()
    stranger = Yrapi(quiet_house.http, "99999")
    fields = {"out_trade_nums": "T1"}
    assert (await off.post("index/check", fields)).content == (await stranger.post("index/check", fields)).content
    assert (await off.post("index/check", fields)).status_code == 401


async def test_no_other_merchants_order_can_be_seen_or_met(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    other = await quiet_house.another_merchant()
    await quiet_house.account("yrapi", "20001", {"api_key": "another-key-0123"}, merchant=other, products=PRODUCTS)
    theirs = Yrapi(quiet_house.http, "20001", "another-key-0123")
    assert (await quiet_client.recharge("T1"))["errno"] == 0
    assert await theirs.state("T1") is None
    assert (await theirs.recharge("T1"))["errno"] == 0  # the number is theirs too
    assert await quiet_house.order("T1", book_id=other.book_id) is not None
    removed = await theirs.call("index/remove", out_trade_nums="T1")
    assert removed["errno"] == 0
    assert await quiet_client.state("T1") == 0


async def test_a_query_while_the_order_is_being_decided_is_doubt(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    gate = quiet_house.slow_placing()
    placing = asyncio.create_task(quiet_client.recharge("T1"))
    await gate.until_waiting()
    answer = await quiet_client.post("index/check", {"out_trade_nums": "T1"})
    assert answer.status_code == 503 and "订单状态未知" in answer.text and "errno" not in answer.text
    gate.open()
    assert (await placing)["errno"] == 0
    assert await quiet_client.state("T1") == 0


async def test_a_query_waits_for_what_another_process_is_committing(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    async with quiet_house.spendable_locked():
        asking = asyncio.create_task(quiet_client.state("T1"))
        await asyncio.sleep(0.3)
        assert not asking.done()
    assert await asking is None
    assert (await quiet_client.recharge("T1"))["errno"] == 0  # here a missing row says nothing: the number is still open


async def test_in_a_restore_nothing_is_denied(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    """Orders that were acknowledged may be gone with what was lost: neither "not there" nor a refusal is certain."""
    async with quiet_house.db.transaction() as tx:
        await execute(tx, "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift) VALUES ($1, 'test', now(), 0)", new_ulid())
    for endpoint, fields in (
        ("index/check", {"out_trade_nums": "T1"}),
        ("index/recharge", {"out_trade_num": "T1", "product_id": "77", "mobile": PHONE, "notify_url": ""}),
    ):
        answer = await quiet_client.post(endpoint, fields)
        assert answer.status_code == 503 and "errno" not in answer.text
    assert (await quiet_client.recharge("T2"))["errno"] == 0  # accepted, and waits


async def test_a_database_that_is_away_is_doubt_and_never_a_refusal(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    door_of(quiet_house.app).orders.submit = _unreachable  # type: ignore[method-assign,assignment]
    fields = {"out_trade_num": "T1", "product_id": "8", "mobile": PHONE, "notify_url": ""}
    answer = await quiet_client.post("index/recharge", fields)
    assert answer.status_code == 503 and "errno" not in answer.text


async def _unreachable(_item: Any) -> Any:
    raise RuntimeError("a bug of ours, or of the world")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"product_id": "77"}, "产品已下架"),
        ({"amount": "50"}, "参数错误"),
        ({"price": "98.49"}, "产品价格高于最高成本"),
        ({"mobile": "12"}, "充值号码不支持该产品"),
        ({"notify_url": "https://10.0.0.1/cb"}, "回调地址不可用"),
        ({"notify_url": "ftp://m.example.com/cb"}, "回调地址不可用"),
        ({"out_trade_num": "a/b"}, "参数错误"),
    ],
)
async def test_a_refusal_says_why_and_buys_nothing(quiet_house: DoorHouse, quiet_client: Yrapi, fields: dict[str, str], says: str) -> None:
    asked = {"out_trade_num": "T1", "product_id": "8", "mobile": PHONE, "notify_url": "", **fields}
    answer = await quiet_client.call("index/recharge", **asked)
    assert answer["errno"] == 1 and answer["errmsg"].startswith(says), answer
    assert await quiet_house.orders() == 0
    again = (await quiet_client.recharge("T1"))["errmsg"]  # a copy that was still on its way would be bought after the client has acted on the no
    assert again == "提交成功" if "out_trade_num" in fields else again.startswith("该订单号已关闭")


async def test_too_little_money_is_said(quiet_house: DoorHouse) -> None:
    await quiet_house.account("yrapi", "10001", {"api_key": KEY}, products={"5": {"sku": "qb", "face_value": "1000.0000"}})
    client = Yrapi(quiet_house.http)
    for n in range(10):
        assert (await client.recharge(f"T{n}", "player1", "5"))["errno"] == 0
    assert (await client.recharge("T10", "player1", "5"))["errmsg"].startswith("余额不足")
    assert (await client.call("index/remove", out_trade_nums="T1"))["errno"] == 0
    assert (await client.recharge("T10", "player1", "5"))["errno"] == 0  # asked again as a matter of course: the number stayed open


async def test_a_request_that_hung_on_its_way_is_not_bought_after_a_refusal(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    """The first try hangs before another process; the second is refused for good here, and the client gives its buyer his money back."""
    gate = quiet_house.slow_placing(holds=1)
    first = asyncio.create_task(quiet_client.recharge("T1"))
    await gate.until_waiting()
    lobby = door_of(quiet_house.app).lobby
    other_process, lobby.in_hand = lobby.in_hand, InHand()
    assert (await quiet_client.recharge("T1", price="1"))["errno"] == 1
    lobby.in_hand = other_process
    gate.open()
    answer = await first
    assert answer["errno"] == 1 and answer["errmsg"].startswith("该订单号已关闭")
    assert await quiet_house.orders() == 0


async def test_what_another_way_bought_is_neither_shown_nor_cancelled(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    """Another account of the same merchant at the same door: not its order, not its cards, not its to withdraw; and no "there is none"."""
    await quiet_house.account("yrapi", "10002", {"api_key": KEY}, products=PRODUCTS, settings={"repeat": "return"})
    other = Yrapi(quiet_house.http, "10002")
    assert (await quiet_client.recharge("T1"))["errno"] == 0
    [row] = (await other.call("index/check", out_trade_nums="T1"))["data"]
    assert (row["state"], row["mobile"], row["charge_kami"]) == (0, "", "")
    assert (await other.call("index/remove", out_trade_nums="T1"))["data"][0]["status"] == 1
    assert await quiet_client.state("T1") == 0
    assert (await other.recharge("T1"))["errmsg"] == DUPLICATE
    assert await quiet_house.orders() == 1


async def test_cards_bought_another_way_stay_hidden(house: DoorHouse, client: Yrapi) -> None:
    await house.account("yrapi", "10002", {"api_key": KEY}, products=PRODUCTS, settings={"repeat": "return"})
    other = Yrapi(house.http, "10002")
    await client.recharge("T11", "", "11")
    await house.finished("T11")
    [row] = (await other.call("index/check", out_trade_nums="T11"))["data"]
    assert (row["state"], row["charge_kami"], row["voucher"]) == (0, "", "")
    assert (await other.recharge("T11", "", "11"))["errmsg"] == DUPLICATE
    async with house.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM code_reveals") == []


async def test_a_face_value_is_fixed_by_the_map_or_asked_for(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    assert (await quiet_client.recharge("T1", "player1", "9"))["data"]["total_price"] == "49.00"
    assert (await quiet_client.recharge("T2", "player1", "9", amount="20"))["errno"] == 1
    await quiet_house.account("yrapi", "10004", {"api_key": KEY}, products={"9": {"sku": "qb"}})
    asking = Yrapi(quiet_house.http, "10004")
    assert (await asking.recharge("T3", "player1", "9", amount="20"))["data"]["total_price"] == "19.60"


async def test_products_prices_and_kinds_are_shown(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    answer = await quiet_client.call("index/product")
    found = {p["id"]: p["price"] for category in answer["data"] for p in category["products"]}
    assert found == {8: "98.50", 9: "49.00", 11: "10.00"}
    assert (await quiet_client.call("index/price", id="8"))["data"]["price"] == "98.50"
    assert (await quiet_client.call("index/price", id="nothing"))["errno"] == 1
    assert {t["id"] for t in (await quiet_client.call("index/typecate"))["data"]} == {1, 2, 3}
    assert (await quiet_client.call("index/elecity"))["data"] == []


async def test_a_product_taken_off_sale_is_neither_shown_nor_sold(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    async with quiet_house.db.transaction() as tx:
        await catalog.set_product_status(tx, "mobile-cn-100", "paused")
    await door_of(quiet_house.app).catalog.refresh()
    answer = await quiet_client.call("index/product")
    assert 8 not in {p["id"] for category in answer["data"] for p in category["products"]}
    assert (await quiet_client.recharge("T1"))["errmsg"].startswith("产品已下架")


async def test_an_order_is_withdrawn_before_it_is_dispatched(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    await quiet_client.recharge("T1")
    answer = await quiet_client.call("index/remove", out_trade_nums="T1,T2")
    assert (answer["errno"], answer["data"]) == (0, [{"out_trade_num": "T1", "mobile": PHONE, "status": 0}])
    assert await quiet_client.state("T1") == -1
    assert (await quiet_client.recharge("T1"))["errmsg"] == DUPLICATE  # unlike the platform's: a number is used once, for ever
    assert (await quiet_client.call("index/cancel", out_trade_nums="T2"))["errno"] == 1


async def test_a_dispatched_order_goes_on(house: DoorHouse, client: Yrapi) -> None:
    await client.recharge("T1")
    await house.finished("T1")
    answer = await client.call("index/remove", out_trade_nums="T1")
    assert (answer["errno"], answer["data"][0]["status"]) == (1, 1)
    assert await client.state("T1") == 1


async def test_a_suspended_merchant_may_ask_but_not_buy(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    await quiet_client.recharge("T1")
    async with quiet_house.db.transaction() as tx:
        await merchants.suspend(tx, quiet_house.merchant.merchant_id)
    door_of(quiet_house.app).lobby.accounts.forget()
    assert await quiet_client.state("T1") == 0
    assert (await quiet_client.recharge("T1"))["errmsg"] == DUPLICATE  # what stands, stands
    assert (await quiet_client.recharge("T2"))["errmsg"].startswith("账号已被停用")


async def test_an_allowlist_holds(quiet_house: DoorHouse) -> None:
    await quiet_house.account("yrapi", "10005", {"api_key": KEY}, products=PRODUCTS, cidrs=("203.0.113.0/24",))
    answer = await Yrapi(quiet_house.http, "10005").post("index/user", {})
    assert (answer.status_code, answer.json()["errmsg"]) == (403, "IP未授权")


async def test_a_rate_is_kept_without_a_verdict(quiet_house: DoorHouse) -> None:
    await quiet_house.account("yrapi", "10006", {"api_key": KEY}, products=PRODUCTS, writes_per_s=2)
    client = Yrapi(quiet_house.http, "10006")
    fields = {"product_id": "8", "mobile": PHONE, "notify_url": ""}
    answers = [await client.post("index/recharge", {"out_trade_num": f"T{n}", **fields}) for n in range(4)]
    assert [a.status_code for a in answers][:2] == [200, 200] and answers[-1].status_code == 429
    assert "errno" not in answers[-1].text


async def test_one_merchants_wrong_key_does_not_shut_out_the_others_of_a_platform(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    await quiet_house.account("yrapi", "10007", {"api_key": KEY}, products=PRODUCTS)
    door_of(quiet_house.app).failures = Failures(5)
    wrong = Yrapi(quiet_house.http, "10007", "not-the-key-0123")
    answers = [(await wrong.post("index/user", {})).status_code for _ in range(8)]
    assert answers == [401] * 5 + [429] * 3
    assert (await quiet_client.post("index/user", {})).status_code == 200
    stranger = Yrapi(quiet_house.http, "99999")
    assert [(await stranger.post("index/user", {})).status_code for _ in range(8)] == [401] * 5 + [429] * 3
    assert (await quiet_client.post("index/user", {})).status_code == 200
    for n in range(8):  # somebody who tries names is another matter
        await Yrapi(quiet_house.http, f"9000{n}").post("index/user", {})
    assert (await quiet_client.post("index/user", {})).status_code == 429


async def test_counts_are_kept_by_door(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    await quiet_client.recharge("T1")
    await quiet_client.recharge("T1")
    counted = door_of(quiet_house.app).metrics.registry.get_sample_value
    assert counted("kameng_door_orders_total", {"door": "yrapi", "verdict": "placed"}) == 1
    assert counted("kameng_door_orders_total", {"door": "yrapi", "verdict": "repeated"}) == 1
    where = {"route": "/doors/yrapi/yrapi.php/index/recharge", "method": "POST", "status": "200"}
    assert counted("kameng_http_requests_total", where) == 2


async def test_nowhere_is_nowhere(quiet_house: DoorHouse, quiet_client: Yrapi) -> None:
    assert (await quiet_client.post("index/nothing", {})).status_code == 404
    assert (await quiet_house.http.get("/doors/yrapi/yrapi.php/index/user")).status_code == 404
    assert (await quiet_house.http.post("/doors/nobody/x")).json()["code"] == "not_found"
    assert (await quiet_house.http.post("/doors")).status_code == 404

