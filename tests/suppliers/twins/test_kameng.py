"""A chain of platforms: this house as a supplier of itself. API, worker, servers and simulators are real; so are both hops.

Judged from below: by the orders that the lower merchant really placed, and by what they cost.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.factories.house import House, open_house
from tests.suppliers.twins.world import Mailbox, mailbox

from kameng_api.demo.catalogue import GOODS
from kameng_api.demo.clients import Keys, Merchant
from kameng_api.kit.http import build_client
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.suppliers.adapters.kameng.client import KamengSupplier
from kameng_api.suppliers.adapters.kameng.settings import KamengSettings
from kameng_api.suppliers.port import (
    Accepted,
    AnswerUnusable,
    CallbackRefused,
    Delivered,
    HttpAnswer,
    NotFound,
    NotSent,
    Outcome,
    Purchase,
    Refused,
    Send,
    Unknown,
)
from kameng_api.suppliers.transport import Transport

CHAIN, CHAIN_CARD = "chain-100", "chain-card"
WITHIN_S = 25.0


@dataclass
class Lossy:
    """A line that loses answers while `losing`, after the other side has had the request."""

    inner: Send
    losing: bool = False
    asked: int = 0

    async def __call__(self, *args: Any, **more: Any) -> HttpAnswer | NotSent | Unknown:
        self.asked += 1
        answer = await self.inner(*args, **more)
        return Unknown("lost") if self.losing else answer


@dataclass
class Chain:
    """`upper` buys through the adapter; what its orders cause at the house stands under the merchant `lower`."""

    house: House
    upper: Keys
    lower: Keys
    send: Send
    box: Mailbox
    line: Lossy = field(init=False)
    supplier: KamengSupplier = field(init=False)

    def __post_init__(self) -> None:
        self.line = Lossy(self.send)
        self.supplier = self.connect(self.upper)

    def connect(self, keys: Keys, **changes: Any) -> KamengSupplier:
        return KamengSupplier(KamengSettings(**{**settings_of(self.house, keys), **changes}), self.line)

    def purchase(self, target: str | None = "10000000001", **more: Any) -> Purchase:
        values = {
            "reference": f"KMT{ulid_text(new_ulid())}", "product_code": "mobile-cn-100", "product_type": "topup", "units": 1, "currency": "CNY",
            "max_cost": 100_0000 * int(more.get("units", 1)), "target": target,
        }  # fmt: skip
        return Purchase(**{**values, **more})

    async def settled(self, purchase: Purchase, wanted: type[Outcome] | tuple[type[Outcome], ...] = (Delivered, Refused)) -> Outcome:
        """The first look-up that says one of `wanted`."""
        async with asyncio.timeout(WITHIN_S):
            while not isinstance(found := (await self.supplier.look_up(purchase.reference)).outcome, wanted):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        return found

    async def bought_below(self) -> list[Mapping[str, Any]]:
        """The newest orders of the lower merchant."""
        async with Merchant(self.house.base_url, self.lower) as lower:
            found: list[Mapping[str, Any]] = (await lower.get("/v1/orders?limit=100"))["items"]
            return found

    async def hurry(self, keys: Keys, order_id: str) -> None:
        async with Merchant(self.house.base_url, keys) as merchant:
            await merchant.post(f"/v1/test/orders/{order_id}/fast-forward", {})


def settings_of(house: House, keys: Keys) -> dict[str, Any]:
    proof = {"secret": keys.secret} if keys.secret is not None else {"private_key": keys.private_key}
    return {"base_url": house.base_url, "key_id": keys.key_id, "delivery_key": keys.delivery_key, "webhook_secret": keys.webhook_secret, **proof}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """With a channel that is this adapter, and two products that only that channel has."""
    with open_house() as found:
        yield found


@pytest.fixture(scope="module")
def keys(house: House) -> tuple[Keys, Keys]:
    """(upper, lower)."""
    upper, lower = house.merchant(), house.merchant(ed25519=True)
    channel = {"id": "up", "name": "Another house", "adapter": "kameng", "environment": "test"}
    house.operate("POST", "/channels", {**channel, "settings": settings_of(house, lower), "concurrency": 50, "wallet_low_at": "1"})
    house.operate("POST", "/channels/up/topups", {"topup_no": "up-1", "amount": "100000"})
    for sku, below, price, cost in ((CHAIN, "mobile-cn-100", "99.5000", "98.5000"), (CHAIN_CARD, "test-card", "10.5000", "10.0000")):
        [goods] = [goods for goods in GOODS if goods.sku == below]
        house.operate("PUT", f"/products/{sku}", goods.product())
        house.operate("PUT", f"/products/{sku}/price", {"unit_price": price})
        house.operate("PUT", f"/channels/up/offers/{sku}", {"product_code": below, "unit_cost": cost})
    return upper, lower


@pytest.fixture
async def chain(house: House, keys: tuple[Keys, Keys]) -> AsyncIterator[Chain]:
    client = build_client(max_connections=50, connect_timeout_s=2, guard=False)
    try:
        async with mailbox() as box:
            box.reply = (200, b"ok", "text/plain")
            yield Chain(house, *keys, Transport(client, longest_s=10.0).send, box)
    finally:
        await client.aclose()


# ---- one hop: this house as a supplier


@pytest.mark.parametrize("which", [0, 1], ids=["hmac", "ed25519"])
async def test_a_top_up_by_either_signature(chain: Chain, keys: tuple[Keys, Keys], which: int) -> None:
    chain.supplier = chain.connect(keys[which])
    purchase = chain.purchase()
    placed = (await chain.supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted) and placed.supplier_order_no, placed
    found = await chain.settled(purchase)
    assert isinstance(found, Delivered) and (found.units, found.cost) == (1, 98_5000) and found.receipt


async def test_twenty_at_once_buy_once(chain: Chain) -> None:
    before = (await chain.supplier.balance()).balance
    purchase = chain.purchase(units=2)
    outcomes = [answer.outcome for answer in await asyncio.gather(*(chain.supplier.place(purchase) for _ in range(20)))]
    assert all(isinstance(outcome, Accepted | Delivered) for outcome in outcomes), outcomes
    assert isinstance(await chain.settled(purchase), Delivered)
    assert before - (await chain.supplier.balance()).balance == 2 * 98_5000


async def test_a_lost_answer_is_found_again_and_never_bought_twice(chain: Chain) -> None:
    before = (await chain.supplier.balance()).balance
    chain.line.losing = True
    purchase = chain.purchase()
    assert isinstance((await chain.supplier.place(purchase)).outcome, Unknown)
    assert isinstance((await chain.supplier.look_up(purchase.reference)).outcome, Unknown)
    chain.line.losing = False
    assert isinstance(await chain.settled(purchase), Delivered)
    assert isinstance((await chain.supplier.place(purchase)).outcome, Delivered)
    assert before - (await chain.supplier.balance()).balance == 98_5000


async def test_the_same_number_for_something_else_is_doubt(chain: Chain) -> None:
    purchase = chain.purchase()
    await chain.supplier.place(purchase)
    other = replace(purchase, target="13800138000")
    assert (await chain.supplier.place(other)).outcome == Unknown("HTTP 409, merchant_order_no_conflict")


async def test_their_doubt_is_ours_until_they_know(chain: Chain) -> None:
    for target, verdict in (("10000000004", Delivered), ("10000000005", Refused)):
        purchase = chain.purchase(target)
        placed = (await chain.supplier.place(purchase)).outcome
        assert isinstance(placed, Accepted) and placed.supplier_order_no
        doubt = await chain.settled(purchase, Unknown)
        assert isinstance(doubt, Unknown) and not doubt.needs_person
        await chain.hurry(chain.upper, placed.supplier_order_no)
        assert isinstance(await chain.settled(purchase), verdict)


async def test_their_manual_review_is_for_a_person(chain: Chain) -> None:
    purchase = chain.purchase("10000000009")
    await chain.supplier.place(purchase)
    doubt = await chain.settled(purchase, Unknown)
    assert isinstance(doubt, Unknown) and doubt.needs_person


async def test_refusals_and_what_was_never_sent(chain: Chain) -> None:
    rejected = chain.purchase("10000000002")
    await chain.supplier.place(rejected)
    assert isinstance(await chain.settled(rejected), Refused)
    dear = (await chain.supplier.place(chain.purchase(max_cost=98_4999))).outcome
    assert isinstance(dear, Refused) and dear.reason == "price_exceeded"
    off = (await chain.supplier.place(chain.purchase(None, product_code="test-out-of-stock", product_type="card"))).outcome
    assert isinstance(off, Refused) and off.reason == "out_of_stock"
    poor = chain.connect(await asyncio.to_thread(chain.house.merchant, "1"))
    empty = (await poor.place(chain.purchase())).outcome
    assert isinstance(empty, Refused) and empty.reason == "wallet_empty"
    assert (await chain.supplier.look_up(chain.purchase().reference)).outcome == NotFound()


async def test_a_wrong_secret_proves_nothing(chain: Chain) -> None:
    stranger = chain.connect(chain.upper, secret="sk_test_another")
    purchase = chain.purchase()
    assert (await stranger.place(purchase)).outcome == Unknown("HTTP 401, bad_signature")
    assert isinstance((await stranger.look_up(purchase.reference)).outcome, Unknown)
    with pytest.raises(AnswerUnusable):
        await stranger.balance()


async def test_codes_are_revealed_with_the_look_up(chain: Chain) -> None:
    purchase = chain.purchase(None, product_code="test-card", product_type="card", units=2)
    await chain.supplier.place(purchase)
    found = await chain.settled(purchase)
    assert isinstance(found, Delivered) and len(found.codes) == 2 and all(code.code.startswith("TEST-") and code.pin for code in found.codes)
    blind = chain.connect(chain.upper, delivery_key="x" * 32)
    assert (await blind.look_up(purchase.reference)).outcome == Unknown("codes: codes cannot be opened")


async def test_a_face_value_is_a_field(chain: Chain) -> None:
    purchase = chain.purchase("12345678", product_code="qq-coin", face_value=50_0000)
    await chain.supplier.place(purchase)
    found = await chain.settled(purchase)
    assert isinstance(found, Delivered) and found.cost == 49_2500


async def test_the_callback_says_what_a_look_up_says(chain: Chain) -> None:
    purchase = chain.purchase(callback_url=chain.box.url)
    await chain.supplier.place(purchase)
    found = await chain.settled(purchase)
    async with asyncio.timeout(WITHIN_S):
        while found not in chain.box.news(chain.supplier, purchase.reference):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    headers, body = chain.box.calls[-1]
    now = datetime.now(UTC)
    for wrong_now in (now + timedelta(hours=1), now - timedelta(hours=1)):
        with pytest.raises(CallbackRefused):
            chain.supplier.read_callback(headers, body, wrong_now)
    with pytest.raises(CallbackRefused):
        chain.supplier.read_callback(headers, body + b" ", now)


async def test_the_list_its_changes_and_the_day(chain: Chain) -> None:
    lines = {line.product_code: line async for page in chain.supplier.products() for line in page}
    assert lines["mobile-cn-100"].cost == 98_5000 and lines["mobile-cn-100"].available
    assert (lines["qq-coin"].cost, lines["qq-coin"].face_min, lines["qq-coin"].face_max) == (9850, 1_0000, 1000_0000)
    assert lines["test-out-of-stock"].stock == 0
    assert await chain.supplier.product("mobile-cn-100") == lines["mobile-cn-100"] and await chain.supplier.product("nothing") is None
    all_ever = [code async for page in chain.supplier.changed_since(datetime.now(UTC)) for code in page]
    moment = datetime.now(UTC)
    assert set(all_ever) <= lines.keys() and not [code async for page in chain.supplier.changed_since(moment) for code in page]
    await asyncio.to_thread(chain.house.operate, "PUT", "/products/video-month/price", {"unit_price": "18.1000"})
    async with asyncio.timeout(WITHIN_S):
        while "video-month" not in [code async for page in chain.supplier.changed_since(moment) for code in page]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    with pytest.raises(AnswerUnusable):  # the day is not over
        _ = [line async for page in chain.supplier.statement(datetime.now(UTC).date()) for line in page]


# ---- two hops: the house buys at the house


async def orders_for(chain: Chain, before: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known = {order["id"] for order in before}
    return [order for order in await chain.bought_below() if order["id"] not in known]


async def test_two_hops_deliver_once(chain: Chain) -> None:
    before = await chain.bought_below()
    purchase = chain.purchase(product_code=CHAIN)
    await asyncio.gather(*(chain.supplier.place(purchase) for _ in range(5)))
    found = await chain.settled(purchase)
    assert isinstance(found, Delivered) and found.cost == 99_5000 and found.receipt
    [below] = await orders_for(chain, before)
    assert below["status"] == "succeeded" and below["delivery"]["receipt"] == found.receipt, "the carrier's number comes up the whole chain"


async def test_a_code_that_this_house_has_sold_is_not_sold_again(chain: Chain) -> None:
    """A house that buys at itself would sell the same code twice: up here it is doubt for a person, whatever came from below."""
    before = await chain.bought_below()
    purchase = chain.purchase(None, product_code=CHAIN_CARD, product_type="card", max_cost=30_0000)
    await chain.supplier.place(purchase)
    stopped = await chain.settled(purchase, Unknown)
    assert isinstance(stopped, Unknown) and stopped.needs_person
    [below] = await orders_for(chain, before)
    assert below["status"] == "succeeded" and below["codes_available"]


@pytest.mark.parametrize(("target", "verdict"), [("10000000004", Delivered), ("10000000005", Refused)])
async def test_doubt_two_hops_below_is_no_verdict_up_here(chain: Chain, target: str, verdict: type[Outcome]) -> None:
    """The simulator says nothing; nobody above fails, refunds or buys again, and then all learn the truth, once."""
    before, balance = await chain.bought_below(), (await chain.supplier.balance()).balance
    purchase = chain.purchase(target, product_code=CHAIN)
    await chain.supplier.place(purchase)
    below: Mapping[str, Any] = {}
    async with asyncio.timeout(WITHIN_S):
        while below.get("substatus") != "outcome_unknown":
            await asyncio.sleep(0.2)
            below = next(iter(await orders_for(chain, before)), {})
    for _ in range(5):
        assert isinstance((await chain.supplier.look_up(purchase.reference)).outcome, Accepted | Unknown)
        assert isinstance((await chain.supplier.place(purchase)).outcome, Accepted | Unknown)
        await asyncio.sleep(0.3)
    assert (await chain.supplier.balance()).balance == balance - 99_5000, "the money stays held"
    await chain.hurry(chain.lower, below["id"])
    assert isinstance(await chain.settled(purchase), verdict)
    [one] = await orders_for(chain, before)
    assert one["delivered_quantity"] == (1 if verdict is Delivered else 0)
    assert (await chain.supplier.balance()).balance == balance - (99_5000 if verdict is Delivered else 0)


async def test_a_refusal_two_hops_below_pays_back_on_every_hop(chain: Chain) -> None:
    mine, theirs = chain.supplier, chain.connect(chain.lower)
    balances = (await mine.balance()).balance, (await theirs.balance()).balance
    purchase = chain.purchase("10000000002", product_code=CHAIN)
    await chain.supplier.place(purchase)
    assert isinstance(await chain.settled(purchase), Refused)
    assert ((await mine.balance()).balance, (await theirs.balance()).balance) == balances


async def test_answers_lost_on_the_first_hop_never_double(chain: Chain) -> None:
    before = await chain.bought_below()
    chain.line.losing = True
    purchases = [chain.purchase(product_code=CHAIN) for _ in range(10)]
    outcomes = await asyncio.gather(*(chain.supplier.place(purchase) for purchase in purchases for _ in range(2)))
    assert all(isinstance(answer.outcome, Unknown) for answer in outcomes)
    chain.line.losing = False
    found = await asyncio.gather(*(chain.settled(purchase) for purchase in purchases))
    assert all(isinstance(outcome, Delivered) and outcome.units == 1 for outcome in found)
    below = await orders_for(chain, before)
    assert len(below) == 10 and sum(order["delivered_quantity"] for order in below) == 10


