"""What a difference is called, from values: the table of classes, case by case."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from tests.factories.orders import ATTEMPT_ID, BOOK, NOW, ORDER_ID

from kameng_api.kit.ids import new_ulid
from kameng_api.reconciliation import rules
from kameng_api.reconciliation.rules import CLASSES, Break, Facts, Terms, classify

DAY = date(2026, 11, 22)
OVER = Terms(complete=True, over_days=frozenset({DAY}))
SOON = Terms(complete=True)
SETTLED = NOW


def facts(state: str = "delivered", *, told: tuple[int, int] = (75, 0), **more: Any) -> Facts:
    """One unit for 75; `told`: charged once and refunded; posted as it happened."""
    charged, refunded = told
    live, good = state in ("accepted", "unknown", "submitting"), state == "delivered"
    values: dict[str, Any] = {
        "book_id": BOOK, "attempt_id": ATTEMPT_ID, "order_id": ORDER_ID, "channel_id": "a", "environment": "test", "reference": "G1",
        "state": state, "units": 1, "delivered_units": int(good), "currency": "CNY", "cost": 75, "actual_cost": 75 if good else None,
        "reversed_amount": 0, "sent_on": DAY, "settled_at": None if live else SETTLED, "trouble": None, "quantity": 1, "order_delivered_units": 0,
        "charges": int(charged > 0), "charged": charged, "largest_charge": charged, "refunds": int(refunded > 0), "refunded": refunded,
        "reversals": 0, "last_refund_at": SETTLED + timedelta(hours=1) if refunded else None, "external_id": "x" if refunded else None,
        "supplier_order_no": "SO1", "other_currency": False, "other_attributes": False,
        "prepaid": -75 if live or good else 0, "wip": 75 if live else 0, "cogs": 75 if good else 0, "suspense": 0,
    }  # fmt: skip
    return Facts(**values | more)


EARLY = SETTLED - timedelta(hours=1)


@pytest.mark.parametrize(
    ("what", "terms", "expected"),
    [
        (facts(), OVER, []),
        (facts("refused", told=(0, 0)), OVER, []),
        (facts("refused", told=(75, 75)), OVER, []),
        (facts("not_sent", told=(0, 0)), OVER, []),
        (facts(charges=2, charged=75, largest_charge=50), OVER, []),  # in two parts
        (facts(told=(0, 0)), SOON, [("R2", -75)]),
        (facts("unknown", told=(0, 0)), SOON, [("R2", -75)]),
        (facts("refused"), SOON, [("R2", 75)]),  # the refund may still come
        (facts("unknown"), SOON, [("R2", 0)]),
        (facts(told=(0, 0)), OVER, [("R3", -75)]),
        (facts(told=(75, 75), last_refund_at=EARLY), OVER, [("R3", -75)]),  # failed by them before we heard of a delivery
        (facts("refused"), OVER, [("R4", 75)]),
        (facts("refused"), replace(SOON, charges_at_success=True), [("R4", 75)]),
        (facts("unknown"), OVER, [("R6", 0)]),
        (facts("accepted"), replace(SOON, charges_at_success=True), [("R6", 0)]),
        (facts("unknown", told=(75, 75)), SOON, [("R6", -75)]),
        (facts("unknown", told=(0, 0)), OVER, [("R6", -75)]),
        (facts("unknown", told=(0, 0)), replace(SOON, charges_at_success=True), [("R2", -75)]),
        (facts(told=(80, 0)), OVER, [("R7", 5)]),
        (facts(told=(500, 0)), OVER, [("R7", 425)]),
        (facts(charges=2, charged=1500, largest_charge=750, cost=750, actual_cost=750, prepaid=-750, cogs=750), OVER, [("R8", 750)]),
        (facts("refused", order_delivered_units=1), OVER, [("R9", 75)]),
        (facts(other_currency=True), OVER, [("R10", 0)]),
        (facts("unknown", other_attributes=True), SOON, [("R10", 0)]),
        (facts(told=(75, 75), reversals=1, last_refund_at=EARLY), SOON, [("R12", -75)]),
        (facts(told=(75, 75)), SOON, [("R12", -75)]),
        (facts(told=(75, 30)), SOON, [("R12", -30)]),
        (facts(told=(75, 75), reversed_amount=75, prepaid=0, cogs=0), OVER, []),  # heard before, and booked
        (facts(reversed_amount=75, prepaid=0, cogs=0), SOON, [("R2", 75)]),
        (facts(told=(0, 0), reversed_amount=75, prepaid=0, cogs=0), OVER, []),  # never charged, and taken back by two people
        (facts(prepaid=0, cogs=0), OVER, [("R13", -75)]),
        (facts(cogs=80, prepaid=-80), OVER, [("R13", 5)]),
        (facts("refused", told=(0, 0), prepaid=-75, wip=75), OVER, [("R13", 75)]),
        (facts("refused", trouble="late_success", suspense=75, prepaid=-75), OVER, [("R4", 75)]),
        (facts(told=(0, 0), prepaid=0, cogs=0), OVER, [("R3", -75), ("R13", -75)]),
    ],
)
def test_a_difference_has_one_name(what: Facts, terms: Terms, expected: list[tuple[str, int]]) -> None:
    assert [(f.class_, f.amount) for f in classify(what, terms)] == expected


def _only(found: "list[rules.Finding]") -> rules.Finding:
    [one] = found
    return one


def test_silence_is_never_acted_on_by_a_machine() -> None:
    assert not _only(classify(facts("unknown", told=(0, 0)), OVER)).automatic
    assert _only(classify(facts("unknown"), OVER)).automatic
    assert not _only(classify(facts("unknown"), replace(OVER, complete=False))).automatic  # no refund on it proves nothing
    assert _only(classify(facts("unknown", told=(75, 75)), replace(OVER, complete=False))).automatic  # both lines were said


def test_only_small_variances_are_posted_without_people() -> None:
    assert _only(classify(facts(told=(175, 0)), OVER)).automatic
    assert not _only(classify(facts(told=(176, 0)), OVER)).automatic


def test_an_open_attempt_is_paid_for_whole_units_or_a_person_looks() -> None:
    three = facts("unknown", units=3, cost=3000, told=(2000, 0), prepaid=-3000, wip=3000)
    assert rules.units_paid(three, 1) == 2
    odd = replace(three, charged=1500)
    assert rules.units_paid(odd, 1) is None
    assert [(f.class_, f.automatic) for f in classify(odd, OVER)] == [("R6", False)]


def test_a_day_is_over_when_it_and_its_window_were_told_without_a_gap() -> None:
    days = frozenset(date(2026, 11, n) for n in (1, 2, 3, 4, 6, 7, 8, 9))
    assert rules.days_over(days, frozenset(), 2) == {date(2026, 11, n) for n in (1, 2, 6, 7)}
    assert rules.days_over(days, frozenset({date(2026, 11, 8)}), 2) == {date(2026, 11, n) for n in (1, 2)}


def test_the_same_facts_are_the_same_break_whatever_a_resolution_posts() -> None:
    before, after = facts("refused"), facts("refused", trouble="late_success", suspense=75, prepaid=-75)
    assert _only(classify(before, OVER)).fingerprint == _only(classify(after, OVER)).fingerprint
    assert _only(classify(replace(before, charged=76), OVER)).fingerprint != _only(classify(before, OVER)).fingerprint


def a_break(class_: str, amount: int, **more: Any) -> Break:
    values: dict[str, Any] = dict.fromkeys(Break.__slots__) | {
        "break_id": new_ulid(), "class_": class_, "channel_id": "a", "environment": "test", "subject": "s", "book_id": BOOK, "amount": amount,
        "currency": "CNY", "state": "open",
    }  # fmt: skip
    return Break(**values | more)


@pytest.mark.parametrize(
    ("class_", "amount", "resolution", "fits"),
    [
        ("R8", 75, "claim", True), ("R8", 75, "loss", True), ("R8", -75, "claim", False), ("R8", 75, "variance", False),
        ("R3", -75, "gain", True), ("R3", -75, "park", True), ("R3", -75, "claim", False), ("R7", 5, "variance", True), ("R7", 0, "variance", False),
        ("R7", 5, "gain", False), ("R13", 5, "loss", False), ("R13", 5, "explain", True), ("R5", 75, "link:att_1", True), ("R1", 0, "claim", False),
    ],
)  # fmt: skip
def test_a_resolution_fits_its_class_and_its_sign(class_: str, amount: int, resolution: str, fits: bool) -> None:
    assert (rules.refusal_of(a_break(class_, amount), resolution) is None) is fits


def test_what_is_in_suspense_leaves_it_from_there_and_only_once() -> None:
    b = a_break("R8", 75)
    [line] = rules.posting_of(b, "claim", in_suspense=False).lines
    assert (line.debit, line.credit, line.amount) == ("supplier_claim:a", "supplier_prepaid:a", 75)
    [line] = rules.posting_of(b, "loss", in_suspense=True).lines
    assert (line.debit, line.credit, line.amount) == ("cogs:a", "suspense", 75)
    [line] = rules.posting_of(a_break("R3", -75), "gain", in_suspense=False).lines
    assert (line.debit, line.credit, line.amount) == ("supplier_prepaid:a", "cogs:a", 75)
    assert rules.refusal_of(a_break("R8", 75, parked_key="k"), "park") is not None


def test_every_class_has_an_owner_a_clock_and_a_default_that_is_allowed() -> None:
    assert list(CLASSES) == [f"R{n}" for n in range(1, 14)]
    for c in CLASSES.values():
        assert c.default in c.resolutions and c.owner and c.title and c.title_zh
        assert c.due_hours > 0 or c.code == "R1"


