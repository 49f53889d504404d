"""States of an order, what a merchant reads, and what may be ordered: pure decisions."""

from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories.orders import NOW, an_attempt, an_order

from kameng_api.catalog.rules import Channel, FormField, Offer, Price, PriceList, Product, Snapshot
from kameng_api.kit.errors import Problem
from kameng_api.merchants.rules import Caller
from kameng_api.orders import timeline
from kameng_api.orders.queries import Refund
from kameng_api.orders.requests import Draft, OrderRequest, appraise
from kameng_api.orders.rules import (
    FINAL,
    REFUSAL_TO_FAILURE,
    STEPS,
    FailureCode,
    Status,
    Substatus,
    event_of,
    failure_when_no_channel_is_left,
    final_status,
    magic_number,
    mask,
)
from kameng_api.orders.views import FAILURE_DETAILS, view
from kameng_api.suppliers.port import RefusalReason

ALLOWED = {
    ("accepted", "processing"),
    ("accepted", "cancelled"),
    ("processing", "succeeded"),
    ("processing", "partially_succeeded"),
    ("processing", "failed"),
}


@pytest.mark.parametrize(("have", "to"), list(product(Status, Status)))
def test_an_order_takes_only_the_steps_of_the_contract(have: Status, to: Status) -> None:
    order = an_order(status=have.value, substatus=None, version=7)
    if (have, to) in ALLOWED:
        order.step(to)
        assert (order.status, order.version) == (to, 8)
    else:
        with pytest.raises(AssertionError):
            order.step(to)
        assert (order.status, order.version) == (have, 7)


def test_final_states_have_no_way_out_and_are_the_only_ones() -> None:
    assert {s for s in Status if not STEPS[s]} == FINAL == {s for s in Status if an_order(status=s.value).final}


@pytest.mark.parametrize(("have", "to"), list(product(Substatus, Substatus)))
def test_the_version_grows_with_every_visible_change_and_with_no_other(have: Substatus, to: Substatus) -> None:
    order = an_order(substatus=have.value, version=3, review="why")
    assert order.wait_in(to) is (have is not to)
    assert order.version == 3 + (have is not to)
    if have is not to:
        assert order.review == ("why" if to is Substatus.MANUAL_REVIEW else None)


@given(quantity=st.integers(1, 100), delivered=st.integers(0, 100))
def test_an_order_ends_as_its_units_say(quantity: int, delivered: int) -> None:
    delivered = min(delivered, quantity)
    order = an_order(quantity=quantity, delivered_units=delivered)
    expected = "succeeded" if delivered == quantity else "partially_succeeded" if delivered else "failed"
    assert final_status(order) == expected
    assert event_of(expected) == f"order.{expected}"


def test_every_refusal_has_a_word_for_the_merchant_and_every_word_a_sentence() -> None:
    assert set(REFUSAL_TO_FAILURE) == {r.value for r in RefusalReason}
    assert set(FAILURE_DETAILS) == set(FailureCode)


@pytest.mark.parametrize(
    ("refusals", "failure"),
    [
        (["out_of_stock"], "out_of_stock"),
        (["out_of_stock", "out_of_stock"], "out_of_stock"),
        (["price_exceeded"], "price_exceeded"),
        (["out_of_stock", "price_exceeded"], "all_channels_refused"),
        (["supplier_rejected"], "all_channels_refused"),
        (["wallet_empty"], "all_channels_refused"),
        (["product_off", "out_of_stock"], "all_channels_refused"),
        (["a word nobody knows"], "all_channels_refused"),
        ([], "all_channels_refused"),
    ],
)
def test_what_the_merchant_reads_when_no_channel_is_left(refusals: list[str], failure: str) -> None:
    assert failure_when_no_channel_is_left(refusals) == failure


@pytest.mark.parametrize(
    ("target", "masked"),
    [("13800138000", "138****8000"), ("12345678", "123****5678"), ("1234567", "1****"), ("abcd", "a****"), ("abc", "****"), ("a", "****")],
)
def test_a_masked_target_shows_little(target: str, masked: str) -> None:
    assert mask(target) == masked


def test_magic_numbers_are_ten() -> None:
    assert [magic_number(f"100000000{n:02d}") for n in range(12)] == [None, *range(1, 11), None]
    assert magic_number(None) is None and magic_number("13800138000") is None


def test_the_view_is_the_contract_s_order() -> None:
    shown = view(an_order(target_masked="138****8000"))
    assert set(shown) == {
        "id", "object", "environment", "version", "status", "substatus", "merchant_order_no", "sku", "product_type", "quantity",
        "delivered_quantity", "target", "unit_price", "amount", "currency", "refunded_amount", "codes_available", "failure", "delivery",
        "created_at", "dispatched_at", "completed_at", "metadata",
    }  # fmt: skip
    assert (shown["unit_price"], shown["amount"], shown["created_at"][-1]) == ("0.0100", "0.0200", "Z")


# ---- the same content ----------------------------------------------------------------------------------------------


BASE: dict[str, Any] = {"merchant_order_no": "PO-1", "sku": "s", "target": "13800138000", "fields": {"a": "1", "b": "2"}}
OTHER: dict[str, Any] = {
    "merchant_order_no": "PO-2",
    "sku": "t",
    "quantity": 2,
    "target": "13800138001",
    "fields": {"a": "1"},
    "max_unit_price": 1,
    "deliver_within_s": 600,
    "notify_url": "https://merchant.example/x",
    "metadata": {"a": None},
    "confirm_duplicate": True,
}


def test_the_fingerprint_covers_every_field() -> None:
    assert set(OTHER) == set(OrderRequest.__dataclass_fields__)
    marks = {OrderRequest(**BASE).fingerprint()} | {OrderRequest(**BASE | {k: v}).fingerprint() for k, v in OTHER.items()}
    assert len(marks) == 1 + len(OTHER)


def test_the_order_of_keys_is_not_content() -> None:
    turned = {k: dict(reversed(v.items())) if isinstance(v, dict) else v for k, v in reversed(BASE.items())}
    assert OrderRequest(**turned).fingerprint() == OrderRequest(**BASE).fingerprint()


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(st.dictionaries(texts, texts, max_size=4), st.dictionaries(texts, texts, max_size=4))
def test_fields_and_metadata_are_never_taken_for_each_other(one: dict[str, str], two: dict[str, str]) -> None:
    first = OrderRequest("PO", "s", fields=one, metadata=two)
    second = OrderRequest("PO", "s", fields=two, metadata=one)
    assert (first.fingerprint() == second.fingerprint()) == (one == two)


# ---- what may be ordered -------------------------------------------------------------------------------------------


ME, OTHERS = UUID(int=1), UUID(int=2)
PHONE = "13800138000"


def _shop(product: Product | None = None, price: Price | None = None, offers: tuple[Offer, ...] | None = None, **more: Any) -> Snapshot:
    product = product or Product("s", "S", "topup", face_value=1_000_000, target_kind="mobile")
    channels = {c: Channel(c, c, "simulator", "test") for c in ("a", "b")} | {"l": Channel("l", "l", "simulator", "live")}
    if offers is None:
        offers = (Offer("a", "s", "p", unit_cost=900), Offer("b", "s", "p", unit_cost=950), Offer("l", "s", "p", unit_cost=900))
    return Snapshot(1, {"s": product}, {"s": PriceList(price or Price(unit_price=1000))}, {"s": offers}, channels, **more)


def _caller(environment: str = "test", **more: Any) -> Caller:
    values: dict[str, Any] = {
        "key_id": "ak", "merchant_id": ME, "merchant_name": "m", "book_id": 16, "environment": environment, "level": "standard",
        "currency": "CNY", "scopes": frozenset(), "address": "127.0.0.1", "request_id": "r",
    }  # fmt: skip
    return Caller(**values | more)


def _ask(**more: Any) -> OrderRequest:
    return OrderRequest(**{"merchant_order_no": "PO", "sku": "s", "target": PHONE} | more)


def _word(verdict: Draft | Problem) -> str:
    return "accepted" if isinstance(verdict, Draft) else verdict.code


RANGED = Product("s", "S", "topup", face_min=10_000, face_max=100_000, face_step=10_000, target_kind="account")
FORM = Product("s", "S", "topup", face_value=1, target_kind="account", fields=(FormField("zone", "zone", pattern="[0-9]+"),))
PAUSED = Product("s", "S", "topup", face_value=1, target_kind="mobile", status="paused")
LIVE_ONLY = Product("s", "S", "topup", face_value=1, target_kind="mobile", environments=frozenset({"live"}))
CARD = Product("s", "S", "card", face_value=1)


@pytest.mark.parametrize(
    ("word", "shop", "ask", "caller"),
    [
        ("accepted", {}, {}, {}),
        ("product_unavailable", {}, {"sku": "nope"}, {}),
        ("product_unavailable", {"product": PAUSED}, {}, {}),
        ("product_unavailable", {"product": LIVE_ONLY}, {}, {}),
        ("product_unavailable", {}, {}, {"currency": "USD"}),
        ("product_not_authorised", {"grants": {"s": frozenset({OTHERS})}}, {}, {}),
        ("accepted", {"grants": {"s": frozenset({ME})}}, {}, {}),
        ("test_value_in_live", {}, {"target": "10000000001"}, {"environment": "live"}),
        ("accepted", {}, {"target": "10000000001"}, {}),
        ("validation_failed", {}, {"target": None}, {}),
        ("validation_failed", {}, {"quantity": 101}, {}),
        ("target_not_supported", {}, {"target": "1380013800"}, {}),
        ("target_not_supported", {}, {"target": "1380013800０"}, {}),
        ("target_not_supported", {}, {"target": "13800138000\n"}, {}),
        ("validation_failed", {"product": CARD}, {}, {}),
        ("accepted", {"product": CARD}, {"target": None}, {}),
        ("validation_failed", {"product": FORM}, {"fields": {}}, {}),
        ("validation_failed", {"product": FORM}, {"fields": {"zone": "x"}}, {}),
        ("validation_failed", {"product": FORM}, {"fields": {"zone": "1", "more": "1"}}, {}),
        ("accepted", {"product": FORM}, {"fields": {"zone": "1"}}, {}),
        ("validation_failed", {}, {"fields": {"face_value": "100"}}, {}),
        ("validation_failed", {"product": RANGED, "price": Price(rate_ppm=980_000)}, {"fields": {}}, {}),
        ("validation_failed", {"product": RANGED, "price": Price(rate_ppm=980_000)}, {"fields": {"face_value": "11"}}, {}),
        ("validation_failed", {"product": RANGED, "price": Price(rate_ppm=980_000)}, {"fields": {"face_value": "1.5"}}, {}),
        ("price_changed", {}, {"max_unit_price": 999}, {}),
        ("accepted", {}, {"max_unit_price": 1000}, {}),
        ("out_of_stock", {"offers": ()}, {}, {}),
        ("out_of_stock", {"offers": (Offer("a", "s", "p", unit_cost=1, stock=0),)}, {}, {}),
        ("out_of_stock", {"offers": (Offer("a", "s", "p", unit_cost=1, status="disabled"),)}, {}, {}),
        ("out_of_stock", {"offers": (Offer("l", "s", "p", unit_cost=1),)}, {}, {}),
        ("product_unavailable", {"offers": (Offer("a", "s", "p", unit_cost=1001),)}, {}, {}),
        ("accepted", {"offers": (Offer("a", "s", "p", unit_cost=1000),)}, {}, {}),
        ("product_unavailable", {"offers": (Offer("a", "s", "p", unit_cost=1001), Offer("b", "s", "p", unit_cost=1, stock=0))}, {}, {}),
    ],
)  # fmt: skip
def test_what_may_be_ordered(word: str, shop: dict[str, Any], ask: dict[str, Any], caller: dict[str, Any]) -> None:
    assert _word(appraise(_ask(**ask), _caller(**caller), _shop(**shop))) == word


def test_a_sku_without_a_price_for_this_merchant_is_not_on_sale() -> None:
    shop = _shop()
    shop = Snapshot(1, shop.products, {"s": PriceList(None, {}, {OTHERS: Price(unit_price=1)})}, shop.offers, shop.channels)
    assert _word(appraise(_ask(), _caller(), shop)) == "product_unavailable"


def test_below_cost_is_accepted_where_the_operator_says_so() -> None:
    cheap = Product("s", "S", "topup", face_value=1, target_kind="mobile", allow_below_cost=True)
    verdict = appraise(_ask(), _caller(), _shop(product=cheap, offers=(Offer("a", "s", "p", unit_cost=5000),)))
    assert isinstance(verdict, Draft) and verdict.amount == 1000


def test_the_price_is_the_narrowest_and_times_the_quantity() -> None:
    shop = _shop()
    prices = {"s": PriceList(Price(unit_price=3000), {"standard": Price(unit_price=2000)}, {ME: Price(unit_price=1000)})}
    verdict = appraise(_ask(quantity=7), _caller(), Snapshot(1, shop.products, prices, shop.offers, shop.channels))
    assert isinstance(verdict, Draft)
    assert (verdict.unit_price, verdict.amount, verdict.within) == (1000, 7000, timedelta(seconds=600))


def test_the_target_guard_stands_down_for_magic_targets_only() -> None:
    guarded = Product("s", "S", "topup", face_value=1, target_kind="mobile", duplicate_window_s=60)
    verdicts = [appraise(_ask(target=t), _caller(), _shop(product=guarded)) for t in (PHONE, "10000000001")]
    assert [v.guard_target for v in verdicts if isinstance(v, Draft)] == [True, False]


def test_what_is_magic_in_test_mode_is_an_account_like_any_other_in_live() -> None:
    guarded = Product("s", "S", "topup", face_value=1, target_kind="account", duplicate_window_s=60)
    verdicts = [appraise(_ask(target="10000000001"), _caller(environment=e), _shop(product=guarded)) for e in ("test", "live")]
    assert [v.guard_target for v in verdicts if isinstance(v, Draft)] == [False, True]


@given(steps=st.integers(0, 9), rate=st.integers(1, 1_200_000))
def test_a_ranged_price_is_rounded_up_once(steps: int, rate: int) -> None:
    face = 10_000 + 10_000 * steps
    shop = _shop(product=RANGED, price=Price(rate_ppm=rate), offers=(Offer("a", "s", "p", rate_ppm=1),))
    verdict = appraise(_ask(fields={"face_value": str(face // 10_000)}), _caller(), shop)
    assert isinstance(verdict, Draft)
    assert verdict.unit_price * 1_000_000 >= face * rate > (verdict.unit_price - 1) * 1_000_000


# ---- the timeline --------------------------------------------------------------------------------------------------


def test_the_timeline_tells_a_failover_without_naming_suppliers() -> None:
    first = an_attempt("refused", channel_id="secret-a", refusal="out_of_stock", settled_at=NOW, sent_at=NOW - timedelta(seconds=2))
    second = an_attempt(
        "delivered", n=2, channel_id="secret-b", sent_at=NOW + timedelta(seconds=1), unknown_since=NOW + timedelta(seconds=2),
        settled_at=NOW + timedelta(seconds=3), delivered_units=2,
    )  # fmt: skip
    order = an_order(status="succeeded", substatus=None, captured=200, delivered_units=2, completed_at=NOW + timedelta(seconds=3))
    refund = Refund(UUID(int=9), "R-1", "goodwill", 50, "CNY", NOW + timedelta(hours=1))
    told = timeline.steps(order, [first, second], [refund])
    wanted = ["accepted", "sent_to_supplier", "refused", "sent_to_supplier", "outcome_unknown", "delivered", "succeeded", "refunded"]
    assert [t["step"] for t in told] == wanted
    assert "secret" not in str(told)
    assert ["supplier 1" in t["detail"] for t in told][1:3] == [True, True]
    assert [t["at"] for t in told] == sorted(t["at"] for t in told)


@pytest.mark.parametrize("reason", [r.value for r in RefusalReason] + ["not_found", None, "new"])
def test_every_refusal_has_words_in_the_timeline(reason: str | None) -> None:
    attempt = an_attempt("refused", refusal=reason, settled_at=NOW)
    assert timeline.steps(an_order(), [attempt], [])[-1]["step"] == "refused"


ENDINGS = {"accepted": None, "processing": None, "succeeded": "charged"} | dict.fromkeys(("partially_succeeded", "failed", "cancelled"), "returned")


@pytest.mark.parametrize(("status", "word"), list(ENDINGS.items()))
def test_every_ending_says_where_the_money_is(status: str, word: str | None) -> None:
    order = an_order(status=status, substatus=None, completed_at=NOW if word else None, failure_code="out_of_stock" if status == "failed" else None)
    last = timeline.steps(order, [], [])[-1]
    assert (last["step"], (word or "held") in last["detail"]) == (status if word else "accepted", True)


def test_a_live_attempt_is_told_as_it_stands() -> None:
    order = an_order(created_at=NOW - timedelta(minutes=5), substatus="awaiting_supplier")
    told = timeline.steps(order, [an_attempt("accepted")], [])
    assert [t["step"] for t in told] == ["accepted", "sent_to_supplier", "awaiting_supplier"]
    review = timeline.steps(an_order(substatus="manual_review"), [an_attempt("unknown", unknown_since=NOW)], [])
    assert review[-1]["step"] == "manual_review"
