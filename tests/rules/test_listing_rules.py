"""What a line of a supplier's list means for an offer: what takes effect, what is held, what is asked."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kameng_api.catalog.rules import Product
from kameng_api.suppliers.listings import rules
from kameng_api.suppliers.listings.rules import Kind, Known, LineUnusable, ListTerms, OfferNow, Sold, Step, Verdict
from kameng_api.suppliers.port import SupplierProduct, WantedField

TERMS = ListTerms(price_up=30_000, price_down=100_000)
AT = datetime(2026, 11, 23, tzinfo=UTC)
LINE = SupplierProduct("hf-100", "话费 100", "topup", 97_5000, "CNY", None, True)
SOLD = Sold("sku", "topup", "CNY", 100_0000, None, None, False, 97_5000, None, None, "enabled", None, 102_0000, AT)


def line(**more: Any) -> SupplierProduct:
    return replace(LINE, **more)


def sold(**more: Any) -> Sold:
    return replace(SOLD, **more)


def decide(now: SupplierProduct, before: SupplierProduct | None = LINE, offer: Sold = SOLD, terms: ListTerms = TERMS) -> Verdict:
    return rules.decide(terms, None if before is None else Known(0, before, False), now, offer)


def kinds(verdict: Verdict) -> list[Kind]:
    return [finding.kind for finding in verdict.findings]


def test_a_line_that_says_the_same_changes_nothing_and_confirms_the_cost() -> None:
    assert decide(LINE) == Verdict(None, (), confirmed=True)


def test_a_rate_that_does_not_divide_is_confirmed_by_the_cost_we_count_with() -> None:
    """An offer whose quote is never confirmed goes stale, and its orders are held until they fail."""
    odd = sold(face_value=30_0000, unit_cost=None, rate_ppm=993_333)
    same = line(cost=29_8000)  # 297,999.9
    assert decide(same, before=same, offer=odd) == Verdict(None, (), confirmed=True)
    assert decide(line(cost=29_7999), before=same, offer=odd).now == OfferNow("sku", 29_7999, None, None)


@pytest.mark.parametrize("cost", [97_5001, 100_4250, 97_4999, 87_7500])
def test_a_cost_within_the_limits_takes_effect(cost: int) -> None:
    verdict = decide(line(cost=cost))
    assert verdict.now == OfferNow("sku", cost, None, None) and verdict.confirmed and not verdict.findings


def test_a_cost_that_rises_beyond_the_limit_holds_the_offer_at_its_old_cost() -> None:
    verdict = decide(line(cost=100_4251))
    assert verdict.now == OfferNow("sku", None, None, "price") and not verdict.confirmed
    [finding] = verdict.findings
    assert (finding.kind, finding.told, finding.change_ppm, finding.urgent) == (Kind.PRICE_UP, "1004251", 30_001, True)


def test_a_cost_that_falls_beyond_the_limit_is_asked_and_the_dearer_one_stays() -> None:
    verdict = decide(line(cost=50_0000))
    assert verdict.now is None and kinds(verdict) == [Kind.PRICE_DOWN] and not verdict.findings[0].urgent


def test_a_cost_of_nothing_is_never_believed() -> None:
    assert kinds(decide(line(cost=0), terms=replace(TERMS, price_down=1_000_000))) == [Kind.PRICE_DOWN]


def test_a_cost_above_what_somebody_pays_is_held_however_small_the_step() -> None:
    dear = sold(floor=98_0000)
    verdict = decide(line(cost=98_0001), offer=dear)
    assert verdict.now == OfferNow("sku", None, None, "margin") and kinds(verdict) == [Kind.BELOW_COST]
    assert verdict.findings[0].facts["lowest_price"] == "98.0000"
    assert decide(line(cost=98_0000), offer=dear).now == OfferNow("sku", 98_0000, None, None), "a price that leaves nothing loses nothing"
    wanted = decide(line(cost=98_0000), offer=dear, terms=replace(TERMS, margin=10_000))
    assert kinds(wanted) == [Kind.BELOW_COST], "a margin that must be left is part of the guard"


def test_whoever_may_sell_below_cost_is_not_guarded_and_a_sku_without_price_is_sold_to_nobody() -> None:
    for offer in (sold(floor=98_0000, allow_below_cost=True), sold(floor=None)):
        assert decide(line(cost=99_0000), offer=offer).now == OfferNow("sku", 99_0000, None, None)


def test_a_hold_for_a_cost_ends_by_itself_when_the_cost_is_right_again() -> None:
    risen = line(cost=120_0000)
    held = sold(held="price", floor=130_0000)
    assert decide(risen, before=risen, offer=held).now is None, "as long as it says so, it is held"
    assert decide(LINE, before=risen, offer=held).now == OfferNow("sku", None, None, None)
    assert decide(line(cost=98_0000), before=risen, offer=held).now == OfferNow("sku", 98_0000, None, None)


def test_a_hold_for_the_margin_is_not_lifted_by_the_cost_it_was_made_for() -> None:
    dear = sold(unit_cost=99_0000, floor=98_0000, held="margin")
    same = line(cost=99_0000)
    verdict = decide(same, before=same, offer=dear)
    assert verdict.now is None and kinds(verdict) == [Kind.BELOW_COST]
    assert decide(same, before=same, offer=replace(dear, floor=100_0000)).now == OfferNow("sku", None, None, None), "somebody pays more now"


def test_what_an_operator_set_against_the_list_is_asked_and_goes_on_being_sold_while_a_price_covers_it() -> None:
    for before in (None, line(cost=120_0000)):
        verdict = decide(line(cost=120_0000), before=before, offer=sold(floor=130_0000))
        assert verdict.now is None and kinds(verdict) == [Kind.PRICE_UP] and not verdict.findings[0].urgent


def test_a_cost_above_what_somebody_pays_is_held_whenever_it_rose() -> None:
    dear = line(cost=120_0000)
    for before in (None, dear, LINE):  # never read, taken note of while the offer was disabled, risen just now
        verdict = decide(dear, before=before)
        assert verdict.now == OfferNow("sku", None, None, "margin")
        assert [(f.kind, f.urgent) for f in verdict.findings] == [(Kind.BELOW_COST, True)]
    assert decide(dear, before=dear, offer=sold(held="price")).now == OfferNow("sku", None, None, "margin"), "the price has been lowered since"
    assert decide(dear, before=dear, offer=sold(allow_below_cost=True)).now is None
    assert decide(dear, before=dear, offer=sold(unit_cost=120_0000)) == Verdict(None, (), confirmed=True), "a person agreed to it"


def test_what_is_off_sale_has_none_and_comes_back() -> None:
    assert decide(line(available=False, stock=9)).now == OfferNow("sku", None, 0, None)
    assert decide(line(stock=9), offer=sold(stock=0)).now == OfferNow("sku", None, 9, None)
    assert decide(line(stock=9), terms=replace(TERMS, stock=False)).now is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"product_type": "card"}, "type"),
        ({"face_value": 50_0000}, "face_value"),
        ({"fields": (WantedField("zone", "区服"),)}, "fields"),
        ({"face_min": 1_0000, "face_max": 9_0000}, "face_min"),
    ],
)
def test_a_line_that_became_another_thing_is_held_until_a_person_has_looked(change: dict[str, Any], named: str) -> None:
    verdict = decide(line(**change))
    assert verdict.now is not None and verdict.now.held == "changed" and named in verdict.findings[0].facts
    after = decide(line(**change), before=line(**change), offer=sold(held="changed"))
    assert after.now is None, "the next reading does not lift it"


def test_a_line_that_never_fitted_is_told_and_sold() -> None:
    verdict = decide(line(product_type="card"), before=None)
    assert verdict.now is None and kinds(verdict) == [Kind.CHANGED] and not verdict.findings[0].urgent


def test_another_currency_is_held_and_its_number_never_taken_for_ours() -> None:
    verdict = decide(line(currency="USD", cost=97_5001))
    assert verdict.now == OfferNow("sku", None, None, "currency") and kinds(verdict) == [Kind.CURRENCY]


def test_a_line_that_is_gone_closes_its_offer_and_one_that_is_back_opens_it() -> None:
    verdict = rules.decide_gone(LINE, SOLD)
    assert verdict.now == OfferNow("sku", None, None, "gone") and kinds(verdict) == [Kind.GONE]
    assert decide(LINE, offer=sold(held="gone")).now == OfferNow("sku", None, None, None)


@pytest.mark.parametrize("held", ["changed", "currency", "price", "margin"])
def test_a_line_that_is_gone_and_back_lifts_no_other_hold(held: str) -> None:
    verdict = rules.decide_gone(LINE, sold(held=held))
    assert kinds(verdict) == [Kind.GONE] and (verdict.now is None or verdict.now.held == held)


def test_what_comes_back_is_judged_anew_by_the_price_it_has_now() -> None:
    back = line(cost=120_0000)
    for floor, held in ((102_0000, "margin"), (130_0000, "price")):
        verdict = rules.decide(TERMS, Known(0, back, True), back, sold(held="gone", floor=floor))
        assert verdict.now == OfferNow("sku", None, None, held) and verdict.findings[0].urgent
    cheap = line(cost=50_0000)
    verdict = rules.decide(TERMS, Known(0, cheap, True), cheap, sold(held="gone"))
    assert verdict.now == OfferNow("sku", None, None, None)
    assert [(f.kind, f.urgent) for f in verdict.findings] == [(Kind.PRICE_DOWN, False)], "what holds nothing is not pressed upon a person again"


def test_a_disabled_offer_is_left_alone() -> None:
    off = sold(status="disabled")
    assert decide(line(cost=1), offer=off) == Verdict(None, (), confirmed=False)
    assert rules.decide_gone(LINE, off) == Verdict(None, (), confirmed=False)


def test_a_ranged_line_costs_by_the_face_value() -> None:
    ranged = line(cost=9650, face_min=1_0000, face_max=1000_0000)
    offer = sold(face_value=None, face_min=1_0000, face_max=1000_0000, unit_cost=None, rate_ppm=965_000, floor=980_000)
    assert decide(ranged, before=ranged, offer=offer) == Verdict(None, (), confirmed=True)
    assert decide(replace(ranged, cost=9700), before=ranged, offer=offer).now == OfferNow("sku", 970_000, None, None)
    assert kinds(decide(replace(ranged, cost=9801), before=ranged, offer=offer)) == [Kind.BELOW_COST]


@pytest.mark.parametrize(
    ("standing", "missing", "share", "allowed", "asks"),
    [
        (1000, 0, 200_000, 0, False),
        (1000, 200, 200_000, 0, False),
        (1000, 201, 200_000, 0, True),
        (1000, 201, 200_000, 201, False),
        (1000, 202, 200_000, 201, True),
        (5, 2, 200_000, 0, False),
        (5, 3, 200_000, 0, True),
        (1, 1, 1_000_000, 0, True),
        (2, 2, 1_000_000, 2, False),
    ],
)
def test_a_reading_that_lacks_too_much_closes_nothing(standing: int, missing: int, share: int, allowed: int, asks: bool) -> None:
    assert rules.must_ask(standing, missing, share, allowed) is asks


@pytest.mark.parametrize(
    "wrong",
    [
        {"product_code": ""}, {"product_code": "x" * 129}, {"product_code": "a\nb"}, {"cost": -1}, {"cost": 10**16}, {"stock": -1},
        {"stock": 2**31}, {"face_min": 5, "face_max": None}, {"face_min": 9, "face_max": 5}, {"min_units": 0}, {"min_units": 5, "max_units": 4},
        {"currency": "RENMINBIS"},
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_meant_is_not_believed(wrong: dict[str, Any]) -> None:
    with pytest.raises(LineUnusable):
        rules.clean_line(line(**wrong))


def test_names_are_made_printable_and_short() -> None:
    assert rules.clean_line(line(name=" a\x00b\n" + "x" * 300)).name == ("a b " + "x" * 300)[:200]
    assert rules.clean_line(LINE) is LINE


PRODUCT = Product("sku", "话费", "topup", face_value=100_0000)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"currency": "USD"}, "USD"), ({"product_type": "card"}, "card"), ({"face_value": 50_0000}, "50"), ({"face_min": 1, "face_max": 2}, "range")],
)
def test_only_what_fits_is_sold(change: dict[str, Any], word: str) -> None:
    why = rules.misfit(line(**change), PRODUCT)
    assert why is not None and word in why
    assert rules.misfit(line(face_value=100_0000), PRODUCT) is None and rules.misfit(LINE, PRODUCT) is None


def test_a_range_must_hold_the_skus_range() -> None:
    ranged = Product("qb", "Q币", "topup", face_min=1_0000, face_max=100_0000, face_step=1_0000)
    assert rules.misfit(line(face_min=1_0000, face_max=100_0000, cost=9650), ranged) is None
    assert rules.misfit(line(face_min=1_0000, face_max=99_0000, cost=9650), ranged) is not None


@pytest.mark.parametrize(
    ("kind", "decision", "offer", "step"),
    [
        (Kind.PRICE_UP, "approve", sold(held="price"), Step(97_5000)),
        (Kind.PRICE_UP, "reject", sold(held="price"), Step(disable=True)),
        (Kind.PRICE_UP, "ignore", sold(held="price"), None),
        (Kind.PRICE_DOWN, "approve", sold(unit_cost=120_0000), Step(97_5000)),
        (Kind.PRICE_DOWN, "reject", sold(unit_cost=120_0000), None),
        (Kind.GONE, "approve", sold(held="gone"), Step(disable=True)),
        (Kind.GONE, "reject", sold(held="gone"), Step()),
        (Kind.GONE, "approve", sold(held="changed"), Step(disable=True)),
        (Kind.GONE, "reject", sold(held="changed"), None),
        (Kind.GONE, "approve", sold(), None),
        (Kind.CHANGED, "approve", sold(held="changed"), Step()),
        (Kind.CHANGED, "reject", sold(held="changed"), Step(disable=True)),
        (Kind.CHANGED, "approve", sold(), None),
        (Kind.PRICE_UP, "approve", sold(status="disabled"), None),
    ],
)
def test_what_a_person_says_takes_effect(kind: Kind, decision: str, offer: Sold, step: Step | None) -> None:
    assert rules.settle(kind, decision, "975000", LINE, offer, {kind}) == step


def test_what_moved_on_meanwhile_is_not_approved() -> None:
    assert isinstance(rules.settle(Kind.PRICE_UP, "approve", "980000", LINE, sold(held="price"), ()), str)
    assert isinstance(rules.settle(Kind.CURRENCY, "approve", "USD", line(currency="USD"), sold(held="currency"), ()), str)


def test_an_offer_stays_held_for_what_is_still_open() -> None:
    assert rules.settle(Kind.CHANGED, "approve", "x", LINE, sold(held="changed"), {Kind.CHANGED, Kind.PRICE_UP}) == Step(held="price")
    assert rules.settle(Kind.PRICE_UP, "approve", "975000", LINE, sold(held="changed"), {Kind.CHANGED}) == Step(97_5000, "changed")


def test_of_several_open_questions_the_strongest_holds_on() -> None:
    margin = {Kind.GONE, Kind.PRICE_UP, Kind.BELOW_COST}
    assert rules.settle(Kind.CHANGED, "approve", "x", LINE, sold(held="changed"), {Kind.CHANGED, *margin}) == Step(held="margin")
    assert rules.settle(Kind.BELOW_COST, "approve", "975000", LINE, sold(held="margin"), margin) == Step(97_5000, "gone"), "the cost is settled"


def test_what_a_list_does_not_tell_stays_as_the_line_alone_told_it() -> None:
    zone = (WantedField("zone", "区服"),)
    known = line(fields=zone, stock=0, min_units=2, max_units=9)
    bare = line(cost=98_0000, name="话费")
    assert rules.fill_in(frozenset(), known, bare) == line(cost=98_0000, name="话费", fields=zone, stock=0, min_units=2, max_units=9)
    assert rules.fill_in(frozenset({"fields", "stock", "units"}), known, bare) == bare
    full = line(fields=(), stock=7, max_units=1)
    assert rules.fill_in(frozenset(), known, full) == line(fields=zone, stock=7, max_units=1), "what it tells counts"
    card = line(product_type="card", fields=())
    assert rules.fill_in(frozenset(), known, card).fields == (), "of another kind nothing is known"
    assert rules.told_by([bare]) == set() and rules.told_by([bare, full]) == {"stock"} and rules.told_by([known]) == {"fields", "stock", "units"}


def test_terms_are_bounded_and_read_back() -> None:
    assert rules.check_terms(TERMS) == []
    assert [e.pointer for e in rules.check_terms(ListTerms(price_up=-1, vanish=1_000_001))] == ["/terms/price_up", "/terms/vanish"]
    assert rules.read_terms({"price_up": 5, "of_an_older_version": 1}) == ListTerms(price_up=5)


def test_channels_are_spread_over_their_period_and_failures_wait_longer_and_longer() -> None:
    waits = [rules.first_after_s(21_600, f"channel-{n}") for n in range(50)]
    assert min(waits) >= 0.05 * 21_600 and max(waits) <= 21_600 and max(waits) - min(waits) > 10_000
    assert [rules.backoff_s(n, 21_600) for n in (1, 2, 3, 20)] == [60, 120, 240, 21_600]
