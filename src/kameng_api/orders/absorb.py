"""What a supplier's answer does to an order: one decision per answer, from values, written elsewhere. No I/O.

Doubt never releases money and never lets another channel be tried; contradicting facts go to a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from kameng_api.kit.ids import ulid_text
from kameng_api.kit.money import share_of
from kameng_api.ledger import rules as books
from kameng_api.orders.changes import Changes, RefundRow
from kameng_api.orders.codes import CodeToStore
from kameng_api.orders.rules import REFUNDED_EVENT, REFUSAL_TO_FAILURE, FailureCode, Order, Status, Substatus
from kameng_api.suppliers.answers import NEVER_ASKED, NEVER_GOT_IT
from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    Capabilities,
    Cause,
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
from kameng_api.suppliers.rules import (
    AskAPerson,
    AskAt,
    Attempt,
    AttemptState,
    CallbackBy,
    may_try_another,
    next_question,
    not_found_proves_nothing_bought,
)
from kameng_api.tasks.rules import Lane

# Kept in `Attempt.trouble`: what must be remembered of an attempt besides its state.
LATE_SUCCESS = "late_success"
CONTRADICTION = "contradiction"
REVERSED_EARLY = "reversed_before_delivered"
CODES_UNUSABLE = "codes_unusable"


@dataclass(frozen=True, slots=True)
class News:
    """An answer about one attempt. `beat` is where it came from: place, look_up, callback or operator."""

    book_id: int
    attempt_id: UUID
    beat: str
    answer: Answer
    capabilities: Capabilities = field(default_factory=Capabilities)
    can_look_up: bool = True
    refund_on_reversal: bool = True
    reversal_known: bool = False
    codes_sold_before: bool = False


def absorb(order: Order, attempt: Attempt, siblings: Sequence[Attempt], news: News, now: datetime, to: Changes) -> None:
    """Apply one answer to an order and its attempt, both locked. `siblings` are all attempts of the order."""
    if attempt.live:
        _absorb_live(order, attempt, news, now, to)
    else:
        _absorb_settled(order, attempt, siblings, news, now, to)


def _absorb_live(order: Order, attempt: Attempt, news: News, now: datetime, to: Changes) -> None:
    if news.beat != "operator" and _waits_for_a_person(attempt, news.answer.outcome):
        return  # kept as evidence; a no is not believed of what was told as delivered
    match news.answer.outcome:
        case Delivered(units=units) as delivered if units > 0:
            _deliver(order, attempt, delivered, news, now, to)
        case Delivered():
            _refuse(order, attempt, Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED), now, to)
        case Refused() as refused:
            _refuse(order, attempt, refused, now, to)
        case NotSent(reason=reason, cause=Cause.UNSAYABLE) if attempt.state == AttemptState.SUBMITTING and news.beat == "place":
            attempt.refusal = NEVER_ASKED  # by this channel: to ask it again would say it no better
            _give_back(order, attempt, AttemptState.REFUSED, reason, now, to)
            _go_on(order, to)
        case NotSent(reason=reason) if attempt.state == AttemptState.SUBMITTING and news.beat == "place":
            _give_back(order, attempt, AttemptState.NOT_SENT, reason, now, to)
            _go_on(order, to)
        case Accepted(supplier_order_no=number):
            _wait(order, attempt, number, news, now, to)
        case NotFound() if news.beat == "look_up":
            _not_found(order, attempt, news, now, to)
        case Reversed():
            to.report(order, attempt, REVERSED_EARLY, "a reversal came for an attempt still open", 1)
            _enter_doubt(order, attempt, now, to, REVERSED_EARLY)
            to.review(order, "the supplier reversed what it had not reported as delivered")
        case Unknown(needs_person=True):
            _doubt(order, attempt, news, now, to)
            to.review(order, "the supplier says that only its staff can tell")
        case _:
            _doubt(order, attempt, news, now, to)


def _waits_for_a_person(attempt: Attempt, outcome: Outcome) -> bool:
    """True where this news may not change an attempt of which the supplier had told something that cannot be."""
    if attempt.trouble == CODES_UNUSABLE:  # the right codes would still be good news
        return not (isinstance(outcome, Delivered) and outcome.units > 0)
    return attempt.trouble == REVERSED_EARLY


def _deliver(order: Order, attempt: Attempt, delivered: Delivered, news: News, now: datetime, to: Changes) -> None:
    units = min(delivered.units, attempt.units)
    if delivered.units > attempt.units:
        to.report(order, attempt, "delivered_too_much", f"{delivered.units} units instead of {attempt.units}", 1)
    if (order.product_type == "card" or delivered.codes) and len(delivered.codes) != units:
        # Units without their codes are no delivery, and not nothing either: a person must ask the supplier.
        _doubt_the_codes(order, attempt, "codes_missing", f"{len(delivered.codes)} codes for {units} units", now, to)
        return
    if news.codes_sold_before:
        _doubt_the_codes(order, attempt, "code_sold_before", "a delivered code had been sold before", now, to)
        return
    actual = delivered.cost if delivered.cost is not None else share_of(attempt.cost, units, attempt.units)
    attempt.step(AttemptState.DELIVERED)
    attempt.delivered_units = units
    attempt.actual_cost = actual
    attempt.supplier_order_no = delivered.supplier_order_no or attempt.supplier_order_no
    attempt.settled_at = now
    to.postings.append(
        books.settle_delivered(
            order.book_id, attempt.attempt_id, order.order_id, attempt.channel_id, attempt.currency,
            reserved=attempt.cost, actual=actual,
        )
    )  # fmt: skip
    first = order.delivered_units + 1
    to.codes += [
        CodeToStore(order.book_id, order.order_id, order.environment, first + n, code)
        for n, code in enumerate(delivered.codes)
    ]
    order.codes_count += len(delivered.codes)
    order.delivered_units += units
    order.committed_units -= attempt.units - units
    order.delivered_at = now
    if delivered.receipt:
        order.receipt = f"{order.receipt}, {delivered.receipt}" if order.receipt else delivered.receipt
    to.touch(order, attempt)
    to.forget(attempt.key, Lane.LOOK_UP)
    if order.delivered_units == order.quantity:
        to.finish(order, now, None)
    else:
        _go_on(order, to)


def _doubt_the_codes(order: Order, attempt: Attempt, kind: str, detail: str, now: datetime, to: Changes) -> None:
    if attempt.trouble != CODES_UNUSABLE:
        to.report(order, attempt, kind, detail, 1)
    _enter_doubt(order, attempt, now, to, CODES_UNUSABLE)
    to.review(order, "the supplier says delivered, but its codes cannot be used")


def _refuse(order: Order, attempt: Attempt, refused: Refused, now: datetime, to: Changes) -> None:
    attempt.refusal = refused.reason.value
    _give_back(order, attempt, AttemptState.REFUSED, refused.detail or None, now, to)
    if may_try_another(refused):
        _go_on(order, to)
    else:
        to.finish(order, now, REFUSAL_TO_FAILURE.get(refused.reason.value, FailureCode.SUPPLIER_REJECTED))


def _give_back(
    order: Order, attempt: Attempt, state: AttemptState, trouble: str | None, now: datetime, to: Changes
) -> None:
    """A definite failure: the units are free again and the cost is back in our wallet."""
    attempt.step(state)
    attempt.trouble = trouble
    attempt.settled_at = now
    order.committed_units -= attempt.units
    to.postings.append(
        books.settle_refused(
            order.book_id, attempt.attempt_id, order.order_id, attempt.channel_id, attempt.currency,
            reserved=attempt.cost,
        )
    )  # fmt: skip
    to.touch(order, attempt)
    to.forget(attempt.key, Lane.LOOK_UP)


def _go_on(order: Order, to: Changes) -> None:
    """The rest of the order is free for another channel; dispatch decides, or finishes."""
    if order.substatus != Substatus.DISPATCHING:
        order.wait_in(Substatus.DISPATCHING)
    to.touch(order)
    to.make_due(order.key, Lane.SUBMIT)


def _wait(order: Order, attempt: Attempt, number: str | None, news: News, now: datetime, to: Changes) -> None:
    attempt.supplier_order_no = number or attempt.supplier_order_no
    attempt.not_found_first_at = None  # it knows the order after all
    if attempt.state == AttemptState.SUBMITTING:
        attempt.step(AttemptState.ACCEPTED)
        order.wait_in(Substatus.AWAITING_SUPPLIER)
    # An attempt in doubt stays in doubt while the supplier says "processing": only a verdict ends it.
    to.touch(order, attempt)
    _ask_again(order, attempt, news, now, to)


def _doubt(order: Order, attempt: Attempt, news: News, now: datetime, to: Changes) -> None:
    if attempt.state == AttemptState.SUBMITTING:
        reason = news.answer.outcome.reason if isinstance(news.answer.outcome, Unknown | NotSent) else "no verdict"
        _enter_doubt(order, attempt, now, to, reason)
    # A look-up that failed tells nothing: an accepted attempt stays accepted.
    to.touch(order, attempt)
    _ask_again(order, attempt, news, now, to)


def _enter_doubt(order: Order, attempt: Attempt, now: datetime, to: Changes, reason: str) -> None:
    if attempt.state != AttemptState.UNKNOWN:
        attempt.step(AttemptState.UNKNOWN)
        attempt.unknown_since = now
    attempt.trouble = reason
    if order.substatus != Substatus.MANUAL_REVIEW:
        order.wait_in(Substatus.OUTCOME_UNKNOWN)
    to.touch(order, attempt)


def crashed_while_submitting(order: Order, attempt: Attempt, now: datetime, to: Changes) -> None:
    """The worker died between writing our reference and hearing the answer: it may have bought. Ask, never resend."""
    _enter_doubt(order, attempt, now, to, "a worker stopped while the call was under way")
    to.make_due(attempt.key, Lane.LOOK_UP)


def _not_found(order: Order, attempt: Attempt, news: News, now: datetime, to: Changes) -> None:
    if not_found_proves_nothing_bought(news.capabilities, attempt.sent_at, attempt.not_found_first_at, now):
        if attempt.state == AttemptState.ACCEPTED or attempt.supplier_order_no is not None:
            if attempt.trouble != CONTRADICTION:
                to.report(order, attempt, CONTRADICTION, "not found after the supplier had taken it", 1)
            attempt.trouble = CONTRADICTION
            to.review(order, "the supplier no longer knows what it had taken")
            to.touch(order, attempt)
            return
        attempt.refusal = NEVER_GOT_IT
        _give_back(order, attempt, AttemptState.REFUSED, "the supplier never got it", now, to)
        _go_on(order, to)
        return
    attempt.not_found_first_at = attempt.not_found_first_at or now
    to.touch(order, attempt)
    _ask_again(order, attempt, news, now, to)


def _ask_again(order: Order, attempt: Attempt, news: News, now: datetime, to: Changes) -> None:
    if news.beat == "look_up":
        attempt.look_ups += 1
    match next_question(news.capabilities, attempt.state, attempt.sent_at, now, can_look_up=news.can_look_up):
        case AskAt(at=at):
            to.make_due(attempt.key, Lane.LOOK_UP, at)
        case CallbackBy(at=at):  # only its callback can tell; this task is the end of the waiting
            to.make_due(attempt.key, Lane.LOOK_UP, at)
        case AskAPerson(why=why):
            to.review(order, why)


def _absorb_settled(
    order: Order, attempt: Attempt, siblings: Sequence[Attempt], news: News, now: datetime, to: Changes
) -> None:
    delivered = attempt.state == AttemptState.DELIVERED
    match news.answer.outcome:
        case Reversed() as reversed_ if delivered:
            _take_back(order, attempt, reversed_, news, now, to)
        case Refused() if delivered:
            _contradict(order, attempt, siblings, "refused after it was reported as delivered", to)
        case Delivered(units=units) if delivered and units > attempt.delivered_units:
            detail = f"{units} units after {attempt.delivered_units} were reported as the last word"
            _contradict(order, attempt, siblings, detail, to)
        case Delivered(units=units) as late if units > 0 and not delivered and attempt.trouble != LATE_SUCCESS:
            _deliver_too_late(order, attempt, siblings, late, to)
        case _:
            pass  # said again, or doubt about what is already certain


def _contradict(order: Order, attempt: Attempt, siblings: Sequence[Attempt], detail: str, to: Changes) -> None:
    """Told once per attempt, however often the supplier repeats itself."""
    if attempt.trouble == CONTRADICTION:
        return
    attempt.trouble = CONTRADICTION
    to.report(order, attempt, CONTRADICTION, detail, 1)
    to.touch(order, attempt)
    _stop_an_open_order(order, siblings, "the supplier contradicts itself", to)


def _stop_an_open_order(order: Order, siblings: Sequence[Attempt], why: str, to: Changes) -> None:
    if not order.final and not any(a.live for a in siblings):
        to.review(order, why)


def _deliver_too_late(
    order: Order, attempt: Attempt, siblings: Sequence[Attempt], late: Delivered, to: Changes
) -> None:
    """A success after the failure was settled: an open break, never a silent second delivery."""
    cost = late.cost if late.cost is not None else attempt.cost
    attempt.trouble = LATE_SUCCESS
    number = late.supplier_order_no or ulid_text(attempt.attempt_id)
    to.postings.append(
        books.late_success(
            order.book_id, attempt.attempt_id, order.order_id, attempt.channel_id, attempt.currency,
            external_id=number, cost=cost,
        )
    )  # fmt: skip
    to.report(order, attempt, LATE_SUCCESS, f"{late.units} units delivered after the attempt had failed", 1)
    to.touch(order, attempt)
    _stop_an_open_order(order, siblings, "delivered after the attempt had been given up", to)


def _take_back(order: Order, attempt: Attempt, news_of: Reversed, news: News, now: datetime, to: Changes) -> None:
    if news.reversal_known:
        return
    paid = attempt.actual_cost or 0
    left = paid - attempt.reversed_amount
    amount = min(news_of.amount, left) if news_of.amount is not None else left
    before = attempt.reversed_amount
    attempt.reversed_amount += amount
    to.postings.append(
        books.reversal(
            order.book_id, attempt.attempt_id, order.order_id, attempt.channel_id, attempt.currency,
            external_id=news_of.external_id, amount=amount,
        )
    )  # fmt: skip
    to.touch(order, attempt)
    value = order.unit_price * attempt.delivered_units
    back = share_of(value, attempt.reversed_amount, paid) - share_of(value, before, paid) if paid else value
    back = min(back, order.captured - order.refunded)
    if order.status not in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
        to.report(order, attempt, "reversed_while_open", "a part was reversed before the order was final", 1)
        return
    if not news.refund_on_reversal or back <= 0:
        to.report(order, attempt, "reversed", "reversed by the supplier; a person decides about the refund")
        return
    give_refund(order, reversal_refund_no(attempt, news_of), "reversed_by_supplier", back, to)


def reversal_refund_no(attempt: Attempt, reversed_: Reversed) -> str:
    """The refund's own number, so that one reversal refunds once."""
    return f"reversal-{ulid_text(attempt.attempt_id)}-{reversed_.external_id}"


def give_refund(order: Order, refund_no: str, reason: str, amount: int, to: Changes) -> None:
    """Return money after capture: a new event; the order's status does not change."""
    assert 0 < amount <= order.captured - order.refunded
    order.refunded += amount
    order.version += 1
    to.postings.append(books.refund(order.book_id, order.order_id, refund_no, order.currency, amount))
    to.refunds.append(RefundRow(order, refund_no, reason, amount))
    to.touch(order)
    to.tell(order, REFUNDED_EVENT)


def tried_channels(attempts: Sequence[Attempt]) -> Mapping[str, str]:
    """channel → what became of it, for the choice of the next one. A channel that was never reached may be asked again."""
    return {
        a.channel_id: f"delivered {a.delivered_units} of {a.units}" if a.delivered_units else a.refusal or a.state
        for a in attempts
        if a.state != AttemptState.NOT_SENT
    }
