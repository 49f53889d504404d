"""The vendor's protocol and its knobs, each seen through the real adapter and judged by the delivery log."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kameng_api.simulator import protocol
from kameng_api.suppliers.port import (
    Accepted,
    AnswerUnusable,
    Delivered,
    NotFound,
    NotSent,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

from .conftest import SCALE, SECRETS, World


async def place(world: World, **more: Any) -> Any:
    return (await world.a.place(world.purchase(**more))).outcome


# ---- the catalogue


async def test_cards_are_unique_and_come_with_pins(world: World) -> None:
    purchase = world.purchase(None, product_code="test-card", product_type="card", units=3)
    outcome = (await world.a.place(purchase)).outcome
    assert isinstance(outcome, Delivered)
    assert len({code.code for code in outcome.codes}) == 3
    assert all(code.code.startswith("TEST-") and len(code.code) == 19 and code.pin for code in outcome.codes)
    assert await world.look_up(purchase) == outcome


async def test_a_ranged_product_costs_by_its_face_value(world: World) -> None:
    outcome = await place(world, product_code="qb", face_value=50_0000)
    assert isinstance(outcome, Delivered) and outcome.cost == 48_2500
    assert isinstance(await place(world, product_code="qb", face_value=5000_0000), Refused)
    assert isinstance(await place(world, product_code="qb"), Refused)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"product_code": "test-out-of-stock", "product_type": "card"}, RefusalReason.OUT_OF_STOCK),
        ({"product_code": "test-price-moved"}, RefusalReason.PRICE_EXCEEDED),
        ({"max_cost": 97_4999}, RefusalReason.PRICE_EXCEEDED),
        ({"product_code": "no-such-thing"}, RefusalReason.PRODUCT_OFF),
    ],
)
async def test_what_a_supplier_cannot_is_refused_for_this_channel_only(world: World, more: dict[str, Any], reason: RefusalReason) -> None:
    outcome = await place(world, **more)
    assert isinstance(outcome, Refused) and (outcome.scope, outcome.reason) == (Scope.CHANNEL, reason)


async def test_stock_runs_out_and_is_filled_again(world: World) -> None:
    product = {"name": "Rare card", "type": "card", "cost": "1", "stock": 3}
    await world.simulator.call("PUT", "suppliers/sim-a/products/rare", product)
    buy = {"product_code": "rare", "product_type": "card", "units": 2}
    assert isinstance(await place(world, **buy), Delivered)
    refused = await place(world, **buy)
    assert isinstance(refused, Refused) and refused.reason is RefusalReason.OUT_OF_STOCK
    assert world.a.products is not None
    [rare] = [line async for page in world.a.products() for line in page if line.product_code == "rare"]
    assert (rare.stock, rare.cost, rare.available) == (1, 1_0000, True)
    await world.simulator.call("PUT", "suppliers/sim-a/products/rare", {**product, "on_sale": False})
    refused = await place(world, **buy)
    assert isinstance(refused, Refused) and refused.reason is RefusalReason.PRODUCT_OFF


# ---- the wallet


async def test_the_statement_explains_the_wallet(world: World) -> None:
    assert world.a.balance is not None and world.a.statement is not None
    before = (await world.a.balance()).balance
    bought, failed = world.purchase(), world.purchase("10000000002")
    await world.a.place(bought)
    await world.a.place(failed)
    await world.look_until(failed, Refused)
    await world.simulator.call("POST", "suppliers/sim-a/wallet", {"amount": "12.34"})
    after = (await world.a.balance()).balance
    assert after == before - 97_5000 + 12_3400
    today = datetime.now(timezone(timedelta(hours=8))).date()
    lines = await world.statement(world.a, today)
    assert lines[-1].balance_after == after
    assert sum(line.amount for line in lines) == after  # the first movement of the day filled the wallet
    ours = [(line.kind, line.amount) for line in lines if line.reference in (bought.reference, failed.reference)]
    assert ours == [("charge", -97_5000), ("charge", -97_5000), ("refund", 97_5000)]
    assert all(line.at.tzinfo is UTC and abs((datetime.now(UTC) - line.at).total_seconds()) < 600 for line in lines)
    assert await world.statement(world.a, today - timedelta(days=40)) == []


async def test_an_empty_wallet_refuses_or_says_500(world: World) -> None:
    account = {"app_key": "app-poor", "secret": SECRETS["sim-a"], "balance": "100"}
    await world.simulator.call("PUT", "suppliers/poor", account)
    signed = protocol.signed(
        SECRETS["sim-a"].encode(),
        "app-poor",
        time.time(),
        {"out_order_no": "POOR1", "product_code": "hf-200", "units": "1", "target": "10000000000"},
    )
    async with world.simulator.http.post(f"{world.simulator.url}/open/v2/order/place", json=signed) as response:
        assert (await response.json())["code"] == "BALANCE_NOT_ENOUGH"
    await world.simulator.turn("sim-a", wallet_empty_answer="http_500")
    balance = (await world.simulator.call("GET", "suppliers/sim-a"))["balance"]
    await world.simulator.call("POST", "suppliers/sim-a/wallet", {"amount": balance, "take": True})
    try:
        purchase = world.purchase()
        assert isinstance((await world.a.place(purchase)).outcome, Unknown)
        looked = await world.look_up(purchase)
        assert isinstance(looked, Refused) and looked.reason is RefusalReason.WALLET_EMPTY
    finally:
        await world.simulator.call("POST", "suppliers/sim-a/wallet", {"amount": balance})


# ---- the reference


async def test_a_repeated_reference_buys_once(world: World) -> None:
    purchase = world.purchase(units=2)
    answers = await asyncio.gather(*(world.a.place(purchase) for _ in range(20)))
    assert len({answer.outcome for answer in answers}) == 1
    assert await world.simulator.delivered(purchase.reference) == 2
    assert len(await world.simulator.rows("log", purchase.reference)) == 20


async def test_a_supplier_that_is_not_idempotent_buys_again(world: World) -> None:
    await world.simulator.turn(idempotent=False)
    purchase = world.purchase()
    for _ in range(3):
        assert isinstance((await world.a.place(purchase)).outcome, Delivered)
    assert await world.simulator.delivered(purchase.reference) == 3


async def test_two_accounts_do_not_share_references(world: World) -> None:
    purchase = world.purchase()
    await world.a.place(purchase)
    assert isinstance(await world.look_up(purchase, world.b), NotFound)


# ---- the knobs


async def test_refusals_by_share_and_code(world: World) -> None:
    await world.simulator.turn(refuse_rate=1, refuse_code="TARGET_NOT_EXIST")
    outcome = await place(world)
    assert isinstance(outcome, Refused) and (outcome.scope, outcome.reason) == (
        Scope.ORDER,
        RefusalReason.TARGET_INVALID,
    )
    await world.simulator.turn(refuse_rate=0.5, seed=7)
    outcomes = [await place(world) for _ in range(40)]
    assert 8 < sum(isinstance(outcome, Refused) for outcome in outcomes) < 32


@pytest.mark.parametrize(("point", "units"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("knob", ["hang", "reset"])
async def test_hanging_and_resetting_before_and_after_delivery(world: World, knob: str, point: str, units: int) -> None:
    await world.simulator.turn(**{f"{knob}_rate": 1, f"{knob}_point": point})
    purchase = world.purchase()
    started = asyncio.get_running_loop().time()
    assert isinstance((await world.a.place(purchase)).outcome, Unknown)
    took_s = asyncio.get_running_loop().time() - started
    assert took_s > 0.7 if knob == "hang" else took_s < 0.7
    assert await world.simulator.delivered(purchase.reference) == units
    assert len(await world.simulator.rows("log", purchase.reference)) == 1
    assert isinstance(await world.look_up(purchase), Delivered if units else NotFound)


async def test_500_after_delivery(world: World) -> None:
    await world.simulator.turn(error_500_rate=1)
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Unknown)
    assert isinstance(await world.look_up(purchase), Delivered)


async def test_success_after_timeout(world: World) -> None:
    await world.simulator.turn(late_success_rate=1, late_success_after_s=40)
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Unknown)
    assert isinstance(await world.look_up(purchase), Accepted)
    assert isinstance(await world.look_until(purchase, Delivered), Delivered)
    assert await world.simulator.delivered(purchase.reference) == 1


async def test_asynchronous_delivery(world: World) -> None:
    await world.simulator.turn(async_rate=1, async_after_s=4)
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Delivered)


async def test_partial_delivery_and_staff(world: World) -> None:
    await world.simulator.turn(partial_rate=1)
    outcome = await place(world, units=3)
    assert isinstance(outcome, Delivered) and outcome.units == 2
    await world.simulator.turn(contact_staff_rate=1)
    outcome = await place(world)
    assert isinstance(outcome, Unknown) and outcome.needs_person


async def test_an_outage_answers_503_or_nothing(world: World) -> None:
    await world.simulator.turn(outage="http_503")
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Unknown)
    assert isinstance(await world.look_up(purchase), Unknown)
    assert world.a.balance is not None
    with pytest.raises(AnswerUnusable):
        await world.a.balance()
    await world.simulator.turn(outage="silent")
    answer = await world.a.place(purchase)
    assert isinstance(answer.outcome, Unknown) and answer.http_status is None
    await world.simulator.turn()
    assert isinstance(await world.look_up(purchase), NotFound)
    assert len(await world.simulator.rows("log", purchase.reference)) == 4


async def test_flapping_is_up_and_down_in_turn(world: World) -> None:
    await world.simulator.turn(flapping_period_s=0.4 / SCALE)
    kinds = set()
    for _ in range(30):
        kinds.add(type(await place(world)))
        await asyncio.sleep(0.04)
    assert kinds == {Delivered, Unknown}


async def test_the_documented_rate_limit_is_not_sent(world: World) -> None:
    await world.simulator.turn(rate_limit_per_s=2)
    purchases = [world.purchase() for _ in range(8)]
    outcomes = [(await world.a.place(purchase)).outcome for purchase in purchases]
    await world.simulator.turn()
    limited = [purchase for purchase, outcome in zip(purchases, outcomes, strict=True) if isinstance(outcome, NotSent)]
    assert 2 <= len(limited) <= 6
    for purchase in limited:
        assert await world.simulator.delivered(purchase.reference) == 0


async def test_reversal(world: World) -> None:
    await world.simulator.turn(reversal_rate=1, reversal_after_s=6)
    purchase = world.purchase(units=2)
    assert isinstance((await world.a.place(purchase)).outcome, Delivered)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Reversed) and news.amount == 195_0000


async def test_a_contradiction_after_success(world: World) -> None:
    await world.simulator.turn(contradiction_rate=1, contradiction_after_s=2)
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Delivered)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Refused) and isinstance(await world.look_up(purchase), Refused)
    assert await world.simulator.delivered(purchase.reference) == 1


async def test_a_contradiction_after_a_refusal(world: World) -> None:
    await world.simulator.turn(contradiction_rate=1, contradiction_after_s=2, contradiction_kind="failed_then_success")
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Refused)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Delivered)
    assert await world.simulator.delivered(purchase.reference) == 1


async def test_not_found_at_first(world: World) -> None:
    await world.simulator.turn(not_found_for_s=10)
    purchase = world.purchase()
    assert isinstance((await world.a.place(purchase)).outcome, Delivered)
    assert isinstance(await world.look_up(purchase), NotFound)
    assert isinstance(await world.look_until(purchase, Delivered), Delivered)


async def test_latency(world: World) -> None:
    await world.simulator.turn(latency={"kind": "fixed", "ms": 250})
    started = asyncio.get_running_loop().time()
    assert isinstance(await place(world), Delivered)
    assert asyncio.get_running_loop().time() - started >= 0.25
    await world.simulator.turn(latency={"kind": "lognormal", "ms": 20, "sigma": 1, "max_ms": 100})
    assert isinstance(await place(world), Delivered)


# ---- callbacks


async def test_callbacks_copied_delayed_and_reordered(world: World) -> None:
    await world.simulator.turn(async_rate=1, async_after_s=1, callback_copies=2, callback_delay_s=10, callback_reorder=True)
    purchase = world.purchase()
    started = asyncio.get_running_loop().time()
    await world.a.place(purchase)
    news = await world.receiver.wait_for(world.a, purchase.reference, 3)
    assert asyncio.get_running_loop().time() - started >= 11 * SCALE
    assert [type(one) for one in news] == [Delivered, Delivered, Accepted]


async def test_a_callback_with_a_wrong_signature_does_not_verify(world: World) -> None:
    await world.simulator.turn(async_rate=1, async_after_s=1, callback_wrong_signature_rate=1)
    purchase = world.purchase()
    await world.a.place(purchase)
    async with asyncio.timeout(5):
        while not world.receiver.bodies:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert purchase.reference.encode() in world.receiver.bodies[0]
    assert world.receiver.news(world.a, purchase.reference) == []


async def test_a_callback_is_repeated_until_it_is_acknowledged(world: World) -> None:
    world.receiver.reply = (500, "sorry")
    await world.simulator.turn(async_rate=1, async_after_s=1)
    purchase = world.purchase()
    await world.a.place(purchase)
    await world.receiver.wait_for(world.a, purchase.reference, 2)
    world.receiver.reply = (200, "success")
    await world.receiver.wait_for(world.a, purchase.reference, 3)
    await asyncio.sleep(0.1)
    sent = await world.simulator.rows("callbacks", purchase.reference)
    assert [(row["answer"], row["acknowledged"]) for row in sent] == [(500, 0), (500, 0), (200, 1)]


async def test_callbacks_can_be_lost_and_sent_for_answered_orders_too(world: World) -> None:
    await world.simulator.turn(async_rate=1, async_after_s=1, callback_copies=0)
    lost = world.purchase()
    await world.a.place(lost)
    await world.look_until(lost, Delivered)
    await world.simulator.turn(callback_on_sync_success=True)
    told = world.purchase()
    await world.a.place(told)
    await world.receiver.wait_for(world.a, told.reference, 1)
    assert world.receiver.news(world.a, lost.reference) == []


# ---- the signature


async def _post(world: World, params: dict[str, str] | bytes, path: str = "order/place") -> Any:
    body = params if isinstance(params, bytes) else json.dumps(params).encode()
    async with world.simulator.http.post(f"{world.simulator.url}/open/v2/{path}", data=body) as response:
        return await response.json()


async def test_a_request_that_does_not_verify_is_refused(world: World) -> None:
    secret = SECRETS["sim-a"].encode()
    ask = {"out_order_no": "SIGNED1", "product_code": "hf-10", "units": "1", "target": "10000000000"}
    good = protocol.signed(secret, "app-sim-a", time.time(), ask)
    cases = {
        "SIGN_INVALID": [{**good, "units": "2"}, {**good, "sign": ""}, {**good, "sign": "é"}, {**good, "more": "x"}],
        "APP_KEY_INVALID": [{**good, "app_key": "nobody"}],
        "TIMESTAMP_EXPIRED": [protocol.signed(secret, "app-sim-a", time.time() - 400, ask)],
        "BAD_REQUEST": [b"", b"[]", b'{"units":1}', {**good, "units": "1\n2"}, b"x" * 70_000],
    }
    for code, requests in cases.items():
        for request in requests:
            assert (await _post(world, request))["code"] == code, request  # type: ignore[arg-type]
    for bad in ({"units": "0"}, {"units": "many"}, {"out_order_no": "a b"}, {"max_cost": "-1"}):
        assert (await _post(world, protocol.signed(secret, "app-sim-a", time.time(), {**ask, **bad})))["code"] == "BAD_REQUEST"
    assert await world.simulator.delivered("SIGNED1") == 0
    assert (await _post(world, good))["code"] == "OK"
    assert (await _post(world, good))["code"] == "NONCE_REUSED"
    assert await world.simulator.delivered("SIGNED1") == 1


# ---- the control


async def test_the_control_needs_its_token(world: World) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": "Basic eA=="},
    ):
        for path in ("suppliers", "suppliers/sim-a/knobs", "totals", "deliveries"):
            async with world.simulator.http.get(f"{world.simulator.url}/sim/{path}", headers={"authorization": "", **headers}) as response:
                assert response.status == 401


async def test_knobs_are_checked_replaced_and_patched(world: World) -> None:
    knobs = "suppliers/sim-a/knobs"
    for wrong in ({"refuse_rate": 2}, {"no_such_knob": 1}, {"refuse_code": "NICE_TRY"}, {"latency": {"kind": "slow"}}):
        await world.simulator.call("PUT", knobs, wrong, status=422)
    await world.simulator.call("PUT", knobs, {"refuse_rate": 0.5})
    patched = await world.simulator.call("PATCH", knobs, {"outage": "http_503"})
    assert (patched["refuse_rate"], patched["outage"]) == (0.5, "http_503")
    assert (await world.simulator.call("PUT", knobs, {}))["refuse_rate"] == 0
    await world.simulator.call("GET", "suppliers/nobody/knobs", status=404)


async def test_totals_and_pages_of_the_log(world: World) -> None:
    purchase = world.purchase(units=5)
    await world.a.place(purchase)
    first = await world.simulator.call("GET", f"deliveries?reference={purchase.reference}&limit=3")
    assert [row["unit"] for row in first["items"]] == [1, 2, 3]
    rest = await world.simulator.call("GET", f"deliveries?reference={purchase.reference}&limit=3&after={first['next_after']}")
    assert [row["unit"] for row in rest["items"]] == [4, 5] and rest["next_after"] is None
    totals = await world.simulator.call("GET", "totals")
    assert totals["deliveries"] == sum(one["deliveries"] for one in totals["suppliers"]) >= 5
    assert all(one["balance"] == one["moved"] for one in totals["suppliers"])
    await world.simulator.call("GET", "deliveries?limit=x", status=422)
