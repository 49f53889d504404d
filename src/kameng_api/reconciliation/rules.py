"""What a difference between their books and ours is called, how bad it is, and what may be done about it. No I/O, no clock.

Three legs are compared for every attempt: what we say of it (A), what the supplier's lines say (B), what the ledger has posted for it (C).
Amounts are integers in 1/10000 of the currency unit.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from kameng_api.kit.ids import ulid_text
from kameng_api.ledger import rules as books
from kameng_api.ledger.rules import Posting

# How a break may be resolved. Every one that moves money is a new event; nothing is edited.
CLAIM: Final = "claim"  # the supplier owes it: supplier_claim, until it is paid
LOSS: Final = "loss"  # it is our cost: cogs
GAIN: Final = "gain"  # they took less than we booked, and that is right: cogs shrinks
VARIANCE: Final = "variance"  # a difference of price: price_variance
PARK: Final = "park"  # suspense, while somebody asks; the break goes on waiting
SETTLE: Final = "settle"  # the statement is evidence: told to the attempt like any other answer
LINK: Final = "link"  # "link:att_…": these lines belong to that attempt
EXPLAIN: Final = "explain"  # no money moves; the note says why


@dataclass(frozen=True, slots=True)
class BreakClass:
    """One sort of difference. `due_hours`: how long it may stay open before its age is an alarm."""

    code: str
    name: str
    title: str
    title_zh: str
    severity: str
    owner: str
    default: str
    resolutions: frozenset[str]
    due_hours: int
    automatic: bool = False


def _class(
    code: str, name: str, titles: tuple[str, str], severity: str, owner: str, ways: str, due_hours: int, *, automatic: bool = False
) -> BreakClass:
    default, *others = ways.split()
    return BreakClass(code, name, *titles, severity, owner, default, frozenset({default, *others}), due_hours, automatic)


_ASK: Final = f"{CLAIM} {LOSS} {PARK}"

CLASSES: Final[Mapping[str, BreakClass]] = {
    c.code: c
    for c in (
        _class("R1", "matched", ("both agree", "对平"), "info", "nobody", EXPLAIN, 0, automatic=True),
        _class("R2", "timing", ("their line may still come", "在途"), "info", "finance", EXPLAIN, 72, automatic=True),
        _class("R3", "short", ("delivered by our books, not charged by theirs", "短款"), "warning", "finance",
               f"{PARK} {GAIN} {SETTLE} {EXPLAIN}", 48),
        _class("R4", "long_released", ("charged by theirs after we had released it", "长款（已释放）"), "warning", "finance", _ASK, 48),
        _class("R5", "unknown_order", ("charged for what we never asked", "未知订单"), "critical", "security",
               f"{PARK} {CLAIM} {LOSS} {LINK} {EXPLAIN}", 4),
        _class("R6", "unresolved", ("outcome unknown here, known there", "结果不明"), "warning", "support",
               f"{SETTLE} {EXPLAIN}", 24, automatic=True),
        _class("R7", "amount", ("charged another amount", "金额不符"), "warning", "finance",
               f"{CLAIM} {VARIANCE} {LOSS} {GAIN} {PARK} {EXPLAIN}", 48, automatic=True),
        _class("R8", "duplicate_charge", ("charged twice for one purchase", "重复扣款"), "warning", "finance", _ASK, 48),
        _class("R9", "double_delivery", ("two suppliers delivered one order", "重复发货"), "critical", "support", f"{_ASK} {EXPLAIN}", 4),
        _class("R10", "attribute", ("another account, face value or currency", "要素不符"), "critical", "support",
               f"{EXPLAIN} {CLAIM} {LOSS} {GAIN} {PARK}", 4),
        _class("R11", "roll_forward_gap", ("their lines do not add up to their balance", "余额滚动不平"), "critical", "finance", EXPLAIN, 4),
        _class("R12", "late_reversal", ("taken back after delivery", "事后冲正"), "warning", "finance", f"{SETTLE} {EXPLAIN}", 24, automatic=True),
        _class("R13", "ledger_drift", ("our ledger does not say what the attempt says", "账实不符"), "critical", "engineering", EXPLAIN, 1),
    )
}  # fmt: skip

MATCHED, TIMING, SHORT, LONG, STRANGER, UNRESOLVED, AMOUNT, TWICE, DOUBLE, ATTRIBUTE, GAP, REVERSAL, DRIFT = CLASSES

_LIVE: Final = frozenset({"created", "submitting", "accepted", "unknown"})


@dataclass(frozen=True, slots=True)
class Terms:
    """How far a channel's statements are believed. `over_days`: days whose window is told without a gap, so nothing more is expected of them.

    `complete`: what is not on the statement did not happen, by the supplier's own promise; else absence is never acted on without a person.
    """

    tolerance: int = 100
    window_days: int = 2
    charges_at_success: bool = False
    complete: bool = False
    over_days: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """An attempt on all three legs. `sent_on` is its business day."""

    book_id: int
    attempt_id: UUID
    order_id: UUID
    channel_id: str
    environment: str
    reference: str
    # A: what we say
    state: str
    units: int
    delivered_units: int
    currency: str
    cost: int
    actual_cost: int | None
    reversed_amount: int
    sent_on: date
    settled_at: datetime | None
    trouble: str | None
    quantity: int
    order_delivered_units: int
    # B: what they say
    charges: int
    charged: int
    largest_charge: int
    refunds: int
    refunded: int
    reversals: int
    last_refund_at: datetime | None
    external_id: str | None
    supplier_order_no: str | None
    other_currency: bool
    other_attributes: bool
    # C: what is posted under the attempt's keys: debits minus credits
    prepaid: int
    wip: int
    cogs: int
    suspense: int

    @property
    def theirs(self) -> int:
        """What they took for it in the end."""
        return self.charged - self.refunded

    @property
    def ours(self) -> int:
        """What our books say they took for it, or will."""
        if self.state == "delivered":
            return (self.actual_cost or 0) - self.reversed_amount
        return self.cost if self.state in _LIVE else 0

    @property
    def told(self) -> bool:
        return self.charges + self.refunds > 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference as found. `fingerprint` are the facts it rests on: the same facts found again are the same break."""

    class_: str
    channel_id: str
    environment: str
    subject: str
    book_id: int
    amount: int
    currency: str
    fingerprint: str
    order_id: UUID | None = None
    attempt_id: UUID | None = None
    line_id: int | None = None
    waits: bool = False
    automatic: bool = False
    due_on: date | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def subject_of_attempt(attempt_id: UUID) -> str:
    return f"attempt:{ulid_text(attempt_id)}"


def classify(facts: Facts, terms: Terms) -> list[Finding]:
    """Every difference of one attempt; empty when all legs agree (R1). At most one between A and B, and one between A and C."""
    found = []
    if facts.told or facts.state == "delivered" or facts.state in _LIVE:
        verdict = _against_theirs(facts, terms)
        if verdict is not None:
            class_, why, automatic = verdict
            found.append(_finding(facts, class_, facts.theirs - facts.ours, why, _fingerprint(facts), terms, automatic=automatic))
    gap = _ledger_gap(facts)
    if gap is not None:
        print_of = f"{facts.state} {facts.prepaid} {facts.wip} {facts.cogs} {facts.suspense}"
        found.append(_finding(facts, DRIFT, gap[0], gap[1], print_of, terms))
    return found


Verdict = tuple[str, str, bool]  # class, why in one sentence, whether statement evidence settles it without a person


def _against_theirs(f: Facts, terms: Terms) -> Verdict | None:
    over = f.sent_on in terms.over_days
    if f.told and (f.other_currency or f.other_attributes):
        what = "currency" if f.other_currency else "account, face value or units"
        return ATTRIBUTE, f"their lines name another {what}", False
    if f.state == "delivered":
        return _delivered(f, terms, over=over)
    if f.state in _LIVE:
        return _live(f, terms, over=over)
    if f.theirs == 0:
        return None
    if not over and not terms.charges_at_success:
        return TIMING, "charged, and the refund may still come", False
    if f.order_delivered_units + f.units > f.quantity:
        return DOUBLE, "charged, and the order was delivered by another attempt", False
    return LONG, "charged after we had given it up and released the money", False


def _delivered(f: Facts, terms: Terms, *, over: bool) -> Verdict | None:
    if not f.told and f.ours == 0:
        return None
    if not f.told:
        return (SHORT, "delivered, and not on their statements", False) if over else (TIMING, "delivered, and not on a statement yet", False)
    off = f.theirs - f.ours
    if off == 0:
        return None
    if f.refunded > f.reversed_amount and f.refunded <= f.charged and abs(f.charged - (f.actual_cost or 0)) <= terms.tolerance:
        if f.reversals or (f.last_refund_at is not None and f.settled_at is not None and f.last_refund_at >= f.settled_at):
            return REVERSAL, "given back after it was delivered", True
        return SHORT, "given back as failed before it was reported as delivered", False
    if f.reversed_amount > f.refunded and not over:
        return TIMING, "reversed by their word, and the refund may still come", False
    if abs(off) <= terms.tolerance:
        return AMOUNT, "the price differs within the tolerance", True
    if f.charges > 1 and off > 0 and abs(f.largest_charge - (f.actual_cost or 0)) <= terms.tolerance:
        return TWICE, f"charged {f.charges} times", False
    return AMOUNT, "the price differs", False


def _live(f: Facts, terms: Terms, *, over: bool) -> Verdict | None:
    if not f.told:  # a charge that comes with success says nothing before the window is over
        return (UNRESOLVED, "open here, and not on their statements", False) if over else (TIMING, "not on a statement yet", False)
    if f.theirs == 0 and f.reversals:  # as when it calls back: a delivery that nobody told of was taken back
        return UNRESOLVED, "charged and reversed, though no delivery was reported", False
    if f.theirs == 0:
        return UNRESOLVED, "charged and given back: it failed", True
    if not over and not terms.charges_at_success:
        return TIMING, "charged, and the refund may still come", False
    units = units_paid(f, terms.tolerance)
    if units is None:
        return UNRESOLVED, "charged, but not for a whole number of units", False
    # Where units are charged one by one, the others may be charged tomorrow: fewer than all are no last word before the window is over.
    proven = (terms.complete or terms.charges_at_success) and (over or units == f.units)
    return UNRESOLVED, "charged and not given back: it was delivered", proven


def units_paid(f: Facts, tolerance: int) -> int | None:
    """For how many of its units an open attempt was charged; None where the amount fits no number of them."""
    if f.theirs <= 0 or f.cost <= 0:
        return None
    units = round(f.theirs * f.units / f.cost)
    fits = 1 <= units <= f.units and abs(f.cost * units // f.units - f.theirs) <= tolerance
    return units if fits else None


def _ledger_gap(f: Facts) -> tuple[int, str] | None:
    """How much the prepaid account is off, and in which way the ledger is wrong; None when it says what the attempt says."""
    live = f.state in _LIVE
    cogs = f.ours if f.state == "delivered" else 0
    wip = f.cost if live else 0
    late = f.suspense if f.trouble == "late_success" else 0
    prepaid = -(cogs + wip + late)
    if (f.prepaid, f.wip, f.cogs, f.suspense) == (prepaid, wip, cogs, late):
        return None
    missing = f.prepaid == 0 and f.wip == 0 and f.cogs == 0
    return prepaid - f.prepaid, "nothing is posted for it" if missing else "what is posted is not what happened"


def _fingerprint(f: Facts) -> str:
    """Facts of A and B; what a resolution posts must not change it."""
    ours = f"{'open' if f.state in _LIVE else f.state} {f.actual_cost} {f.reversed_amount}"
    return f"{ours} | {f.charges}x{f.charged} {f.refunds}x{f.refunded} {int(f.other_currency)}{int(f.other_attributes)}"


def _finding(f: Facts, class_: str, amount: int, why: str, fingerprint: str, terms: Terms, *, automatic: bool = False) -> Finding:
    if class_ in (LONG, DOUBLE):
        amount = f.theirs
    evidence = {
        "why": why, "state": f.state, "reference": f.reference, "cost": f.cost, "actual_cost": f.actual_cost,
        "reversed": f.reversed_amount, "charges": f.charges, "charged": f.charged, "refunds": f.refunds, "refunded": f.refunded,
        "prepaid": f.prepaid, "wip": f.wip, "cogs": f.cogs, "suspense": f.suspense,
    }  # fmt: skip
    due_on = f.sent_on + timedelta(days=terms.window_days + 1) if class_ == TIMING else None
    return Finding(
        class_, f.channel_id, f.environment, subject_of_attempt(f.attempt_id), f.book_id, amount, f.currency, fingerprint,
        f.order_id, f.attempt_id, waits=class_ == TIMING, automatic=automatic, due_on=due_on, evidence=evidence,
    )  # fmt: skip


def days_over(accepted: frozenset[date], gaps: frozenset[date], window_days: int) -> frozenset[date]:
    """Days whose purchases must be on a statement by now: it and the days of the window are told, and none of them fails to add up."""
    told = accepted - gaps
    return frozenset(d for d in told if all(d + timedelta(days=n) in told for n in range(1, window_days + 1)))


# ---- resolutions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Break:
    """A break as stored. Amounts in 1/10000 units; `amount` is how much more they took than our books say."""

    break_id: UUID
    class_: str
    channel_id: str
    environment: str
    subject: str
    book_id: int
    order_id: UUID | None
    attempt_id: UUID | None
    line_id: int | None
    amount: int
    currency: str
    fingerprint: str
    state: str
    owner: str
    evidence: Mapping[str, Any]
    first_seen_at: datetime
    class_since: datetime
    due_at: datetime
    run_id: UUID | None
    resolution: str | None
    note: str | None
    automatic: bool
    proposed_by: str | None
    proposed_at: datetime | None
    approved_by: str | None
    approved_at: datetime | None
    parked_by: str | None
    parked_checked_by: str | None
    parked_key: str | None
    event_key: str | None
    closed_at: datetime | None
    closed_because: str | None

    @property
    def proposal(self) -> str | None:
        """A short name of exactly what waits to be approved; another resolution, amount or time has another one. None when nothing waits."""
        if self.state != "proposed" or self.proposed_at is None:
            return None
        proposed = self.break_id.hex, self.resolution, self.note, self.proposed_by, self.proposed_at.timestamp()
        return hashlib.sha256(repr((*proposed, self.amount, self.currency, self.fingerprint)).encode()).hexdigest()[:16]


def refusal_of(b: Break, resolution: str) -> str | None:
    """Why this resolution does not fit the break, in words; None when it does."""
    way = resolution.partition(":")[0]
    if way not in CLASSES[b.class_].resolutions:
        return f"a break of class {b.class_} is resolved by {', '.join(sorted(CLASSES[b.class_].resolutions))}"
    if way in (CLAIM, LOSS) and b.amount <= 0:
        return "they did not take too much"
    if way == GAIN and b.amount >= 0:
        return "they did not take too little"
    if way in (VARIANCE, PARK) and b.amount == 0:
        return "no amount differs"
    if way == PARK and b.parked_key is not None:
        return "it is in suspense already"
    if way == EXPLAIN and b.parked_key is not None and b.class_ in (LONG, DOUBLE):
        return "its cost is in suspense: it ends as a claim or a loss"
    return None


def posting_of(b: Break, resolution: str, *, in_suspense: bool) -> Posting:
    """The event of a resolution that moves money, in the break's book; `in_suspense` when the amount was put there before."""
    channel = b.channel_id
    source = books.SUSPENSE if in_suspense else books.supplier_prepaid(channel)
    name = ulid_text(b.break_id)
    target, key = {
        CLAIM: (books.supplier_claim(channel), f"claim:{name}"),
        LOSS: (books.cogs(channel), f"adj:{name}"),
        GAIN: (books.cogs(channel), f"adj:{name}"),
        VARIANCE: (books.price_variance(channel), f"var:{name}"),
        PARK: (books.SUSPENSE, f"adj:{name}:park"),
    }[resolution]
    return books.reconciled(b.book_id, key, resolution, b.currency, target, source, b.amount, b.order_id, b.break_id)


def unparking_of(b: Break) -> Posting:
    """What was put into suspense comes out of it again the way it went in: something else settles the break."""
    key = f"adj:{ulid_text(b.break_id)}:unpark"
    return books.reconciled(
        b.book_id, key, "unpark", b.currency, books.supplier_prepaid(b.channel_id), books.SUSPENSE, b.amount, b.order_id, b.break_id
    )


def beside_what_was_booked(found: list[Finding], facts: Facts | None, booked: int, claimed: int, terms: Terms) -> list[Finding]:
    """The differences of one attempt when resolved breaks have booked `booked` of what was taken: only the rest is still open.

    `claimed` is what the supplier owes by claims that are not paid: as much of it as is still taken is explained, and what came back pays them.
    `facts` where nothing was found: what was booked for facts that are no longer so is a difference of its own.
    """
    if facts is not None:
        rest = _not_claimed(facts.theirs - facts.ours - booked, claimed)
        if facts.state in _LIVE or rest == 0:
            return found
        why, small = "booked by an earlier resolution, and not so any more", abs(rest) <= terms.tolerance
        return [*found, _finding(facts, AMOUNT, rest, why, _fingerprint(facts) + _booked(booked, claimed), terms, automatic=small)]
    beside = [
        replace(f, amount=_not_claimed(f.amount - booked, claimed), fingerprint=f.fingerprint + _booked(booked, claimed))
        if f.class_ in _BESIDE else f
        for f in found
    ]  # fmt: skip
    return [f for f in beside if f.amount or f.class_ not in _BESIDE]


def beside_what_was_claimed(found: Finding, booked: int, claimed: int) -> Finding | None:
    """The rest of what nobody asked for, after what was booked of it for good (`booked`) and as open claims; None when nothing is left."""
    rest = _not_claimed(found.amount - booked, claimed)
    return replace(found, amount=rest, fingerprint=found.fingerprint + _booked(booked, claimed)) if rest else None


def payable(claims: Sequence[tuple[UUID, int]], taken: int) -> UUID | None:
    """Which of an attempt's open claims (id and amount, oldest first) was paid, when of all they claim `taken` is still taken. None: none yet."""
    back = sum(amount for _, amount in claims) - max(taken, 0)
    paid = [c for c in claims if c[1] <= back]
    exact = [c for c in paid if c[1] == back]
    return (exact or paid)[0][0] if paid else None


def _not_claimed(owed: int, claimed: int) -> int:
    return owed - min(max(owed, 0), claimed)


def _booked(booked: int, claimed: int) -> str:
    return (f" | booked {booked}" if booked else "") + (f" | claimed {claimed}" if claimed else "")


_BESIDE: Final = frozenset({SHORT, AMOUNT, TWICE, ATTRIBUTE})


def payment_of(b: Break) -> Posting:
    """A claim was paid: their money is back in our wallet."""
    channel = b.channel_id
    key = f"claim:{ulid_text(b.break_id)}:paid"
    return books.reconciled(
        b.book_id, key, "claim_paid", b.currency, books.supplier_prepaid(channel), books.supplier_claim(channel), b.amount, b.order_id, b.break_id
    )
