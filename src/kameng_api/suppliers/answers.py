"""What each answer of a supplier permits: one table, read by the order, the router and the rebuild of health alike.

Five questions per answer: what becomes of the order, may another channel be tried, may this one be tried again, what was heard of the
channel's health, and does a gate close instead. Whatever stands in no adapter's mapping is `Unknown`, and freezes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from kameng_api.suppliers.port import (
    Accepted,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)
from kameng_api.suppliers.routing.facts import Heard


class Effect(StrEnum):
    """What an answer does to the order."""

    DELIVERED = "delivered"  # its units are delivered; units that were asked for and not delivered are free for another channel
    LIVE = "live"  # the supplier works on it: nobody else may be asked
    FREED = "freed"  # the attempt is closed and its units are free
    FAILED = "failed"  # it fails everywhere: the order ends and the money goes back
    FROZEN = "frozen"  # it may or may not deliver: asked about until there is a verdict, then a person; never failed by itself
    CLAIM = "claim"  # a delivery was taken back: a claim against the supplier, never delivered again by itself


class Again(StrEnum):
    """Whether the channel that gave the answer may be asked to buy the same units again."""

    NEVER = "never"
    AFTER_A_PAUSE = "after_a_pause"  # under a new reference, when some time has passed
    SAME_REFERENCE = "same_reference"  # only where `idempotent_resubmit` is certified, and only under the same reference


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """One row. `word`: how the answer is stored and counted. `heard`: what it says about health; None: nothing new, tell the router nothing."""

    word: str
    order: Effect
    another: bool
    again: Again
    heard: Heard | None


PROVEN_NOT_FOUND: Final = "not_found.proven"
"""A "not found" that `rules.not_found_proves_nothing_bought` accepts."""
NEVER_GOT_IT: Final = "not_found"
"""The refusal that an attempt carries when it was closed by such a proof."""
NEVER_ASKED: Final = "unsayable"
"""The refusal that an attempt carries when the supplier's protocol has no words for it (`Cause.UNSAYABLE`)."""

_BAD: Final = AnswerClass("refused_channel", Effect.FREED, True, Again.NEVER, Heard.BAD)
_GATE: Final = AnswerClass("refused_channel", Effect.FREED, True, Again.NEVER, Heard.NEUTRAL)
_OF_THE_TARGET: Final = _GATE  # this supplier cannot serve this number: nothing about its health, no gate for other numbers
_FAILED: Final = AnswerClass("refused_order", Effect.FAILED, False, Again.NEVER, Heard.NEUTRAL)

TABLE: Final[Mapping[str, AnswerClass]] = {
    "delivered": AnswerClass("delivered", Effect.DELIVERED, False, Again.NEVER, Heard.GOOD),
    "accepted": AnswerClass("accepted", Effect.LIVE, False, Again.NEVER, Heard.TAKEN),
    "refused_channel.supplier_rejected": _BAD,
    "refused_channel.target_invalid": _OF_THE_TARGET,
    "refused_channel.target_not_eligible": _OF_THE_TARGET,
    "refused_channel.out_of_stock": _GATE,
    "refused_channel.product_off": _GATE,
    "refused_channel.price_exceeded": _GATE,
    "refused_channel.wallet_empty": _GATE,
    # An order-wide no is about the number. Counted as health, one merchant's list of dead numbers would open every circuit.
    **{f"refused_order.{reason}": _FAILED for reason in RefusalReason},
    "not_sent.unreached": AnswerClass("not_sent", Effect.FREED, True, Again.AFTER_A_PAUSE, Heard.BAD),
    "not_sent.busy": AnswerClass("busy", Effect.FREED, True, Again.AFTER_A_PAUSE, Heard.BUSY),
    "not_sent.ours": AnswerClass("held_back", Effect.FREED, True, Again.AFTER_A_PAUSE, Heard.NEUTRAL),
    "not_sent.unsayable": AnswerClass("unsayable", Effect.FREED, True, Again.NEVER, Heard.NEUTRAL),
    "unknown": AnswerClass("unknown", Effect.FROZEN, False, Again.SAME_REFERENCE, Heard.DOUBT),
    "unknown.needs_person": AnswerClass("unknown", Effect.FROZEN, False, Again.NEVER, Heard.DOUBT),
    "not_found": AnswerClass("not_found", Effect.FROZEN, False, Again.NEVER, None),
    PROVEN_NOT_FOUND: AnswerClass("not_found", Effect.FREED, True, Again.NEVER, Heard.BAD),
    "reversed": AnswerClass("reversed", Effect.CLAIM, False, Again.NEVER, Heard.REVERSED),
}


def key_of(outcome: Outcome) -> str:
    """The row of TABLE that `outcome` stands in."""
    match outcome:
        case Delivered(units=units) if units > 0:
            return "delivered"
        case Delivered():  # final, and nothing: a refusal in other words
            return "refused_channel.supplier_rejected"
        case Accepted():
            return "accepted"
        case Refused(scope=Scope.ORDER, reason=reason):
            return f"refused_order.{reason}"
        case Refused(reason=reason):
            return f"refused_channel.{reason}"
        case NotSent(cause=cause):
            return f"not_sent.{cause}"
        case Unknown(needs_person=True):
            return "unknown.needs_person"
        case Unknown():
            return "unknown"
        case NotFound():
            return "not_found"
        case Reversed():
            return "reversed"


def class_of(outcome: Outcome) -> AnswerClass:
    """What `outcome` permits, as the answer to a purchase."""
    return TABLE[key_of(outcome)]


def heard(outcome: Outcome, before: str, after: str, refusal: str | None) -> Heard | None:
    """What the router is told when `outcome` has moved an attempt from the state `before` to `after`, where it carries `refusal`.

    None: nothing new. A look-up that fails says nothing about the purchase, "still processing" takes no doubt back, and what a supplier
    adds after its final word is for a person.
    """
    if before != after:
        return heard_of_row(after, refusal, class_of(outcome).word)
    match outcome:
        case Reversed() if after == "delivered":
            return Heard.REVERSED
        case Unknown(needs_person=True) if after == "accepted":
            return Heard.DOUBT
        case _:
            return None


def heard_of_row(state: str, refusal: str | None, said: str | None, *, taken_back: bool = False) -> Heard | None:
    """What a stored attempt says about health, for the rebuild from the database: what was heard when it was answered.

    `refusal` as the attempt carries it, `said` the word of its last stored answer (`AnswerClass.word`; None: there is none), `taken_back`
    whether anything of it was reversed. None: no answer, the time that has passed is the evidence.
    """
    match state:
        case "delivered":
            return Heard.REVERSED if taken_back else Heard.GOOD
        case "accepted":
            return Heard.TAKEN
        case "unknown":  # without an answer, our own process died
            return None if said is None else Heard.DOUBT
        case "not_sent":
            return next((row.heard for key, row in TABLE.items() if key.startswith("not_sent.") and row.word == said), Heard.BAD)
        case "refused" if refusal == NEVER_GOT_IT:
            return TABLE[PROVEN_NOT_FOUND].heard
        case "refused" if refusal == NEVER_ASKED:
            return TABLE["not_sent.unsayable"].heard
        case "refused":
            row = TABLE.get(f"{'refused_order' if said == 'refused_order' else 'refused_channel'}.{refusal}")
            return Heard.BAD if row is None else row.heard
        case _:
            return None


# ---- gates: a refusal that is a fact about stock, wallet, price or product, not about health ------------------------


class GateScope(StrEnum):
    """What is passed over while a gate is closed."""

    OFFER = "offer"  # this SKU at this channel
    CHANNEL = "channel"  # all of the channel


class OpenedBy(StrEnum):
    """What has to be learnt anew for a gate to open early."""

    STOCK = "stock"  # the supplier's stock of the product, where it tells one
    ON_SALE = "on_sale"  # the supplier's product list has it on sale
    COST = "cost"  # our cost of the offer
    WALLET = "wallet"  # our prepaid balance there


@dataclass(frozen=True, slots=True)
class GateRule:
    """How long a reason closes what, in seconds, and which fact opens it sooner."""

    scope: GateScope
    for_s: float
    opened_by: OpenedBy


GATES: Final[Mapping[RefusalReason, GateRule]] = {
    # The times are the price of a wrong guess: a quick no costs one attempt per period, a gate closed for nothing costs the margin of that time.
    RefusalReason.OUT_OF_STOCK: GateRule(GateScope.OFFER, 300.0, OpenedBy.STOCK),
    RefusalReason.PRODUCT_OFF: GateRule(GateScope.OFFER, 1800.0, OpenedBy.ON_SALE),
    RefusalReason.PRICE_EXCEEDED: GateRule(GateScope.OFFER, 600.0, OpenedBy.COST),
    RefusalReason.WALLET_EMPTY: GateRule(GateScope.CHANNEL, 300.0, OpenedBy.WALLET),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """Passed over until `until`, or until the fact it rests on is known anew after `at`."""

    scope: GateScope
    at: datetime
    until: datetime
    opened_by: OpenedBy

    def is_closed(self, now: datetime, fact_at: datetime | None = None) -> bool:
        """`fact_at`: when the newest `opened_by` fact that speaks for the supplier was learnt; None where it tells none."""
        return now < self.until and (fact_at is None or fact_at <= self.at)


def gate_after(reason: RefusalReason, at: datetime) -> Gate | None:
    """The gate that a refusal for `reason`, answered at `at`, closes; None: no gate, it is health or the target."""
    rule = GATES.get(reason)
    return None if rule is None else Gate(rule.scope, at, at + timedelta(seconds=rule.for_s), rule.opened_by)


@dataclass(frozen=True, slots=True)
class Closing:
    """A refusal of one channel for one SKU, answered at `at`. `units`: the fewest that were refused."""

    channel: str
    sku: str
    reason: RefusalReason
    at: datetime
    units: int = 1


def closed_gates(
    closings: Iterable[Closing], learnt: Mapping[tuple[str, str | None, OpenedBy], datetime], now: datetime
) -> dict[tuple[str, str | None], RefusalReason]:
    """(channel, SKU) → why it is passed over now; SKU None: the whole channel.

    `learnt`: when the newest fact of that kind was learnt for the same key, where the supplier tells one; a delivery tells all four.
    Where several gates of one key are closed, the one that stays closed longest is named.
    """
    latest: dict[tuple[str, str | None], tuple[datetime, RefusalReason]] = {}
    for closing in closings:
        gate = gate_after(closing.reason, closing.at)
        if gate is None:
            continue
        key = closing.channel, closing.sku if gate.scope is GateScope.OFFER else None
        if gate.is_closed(now, learnt.get((*key, gate.opened_by))):
            latest[key] = max(latest.get(key, (gate.until, closing.reason)), (gate.until, closing.reason))
    return {key: reason for key, (_, reason) in latest.items()}
