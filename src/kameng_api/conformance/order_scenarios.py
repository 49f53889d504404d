"""What the merchant's software does with its orders when the platform is slow, silent, in trouble or in doubt."""

import asyncio
from typing import Final

from kameng_api.conformance.orders import Order
from kameng_api.conformance.requests import CLOCK_WINDOW_S
from kameng_api.conformance.stage import NoOrder, Placing, Stage
from kameng_api.conformance.troubles import AnswerLost, NewMembers, NumberUsed, RefusedForGood, ServerError, TooMany
from kameng_api.conformance.verdicts import NotChecked

_SKEW_S: Final = 1200
_RETRY_AFTER_S: Final = 2
_SLACK_S: Final = 0.1
_HAMMERING: Final = 3
_CLOCK: Final = "timestamp_out_of_window"
_MALFORMED: Final = frozenset((
    "auth_missing", "auth_malformed", "unknown_key", "bad_signature", "nonce_reused", "path_not_canonical",
    "malformed_json", "validation_failed", "unsupported_media_type", "body_too_large",
))  # fmt: skip
_BOUGHT: Final = frozenset(("succeeded", "partially_succeeded", "processing", "accepted"))


async def placed(stage: Stage) -> None:
    """One ordinary order."""
    try:
        placing = await stage.place()
    except NoOrder as missing:
        stage.blame("order_refused" if missing.refused else "no_order", str(missing))
        return
    order = await _settle(stage, placing, "an ordinary answer")
    if stage.hooks.can_probe:
        told = await stage.look_for(order, lambda told: True)
        if told is None:
            stage.blame("order_forgotten", f"the probe does not know the order {order.number}, which was accepted")


async def timeout(stage: Stage) -> None:
    """The order is booked, the answer is lost."""
    placing = await stage.place(AnswerLost(stage.options.hold_s))
    await _expect_again(stage, placing, "an answer that never came", stage.options.hold_s + stage.options.wait_s)
    order = await _settle(stage, placing, "an answer that never came")
    if not stage.hooks.can_probe:
        stage.uncheck("whether your software takes a timeout for a failure needs --probe")
        return
    stage.expect_hope(await stage.look(order), "timeout_taken_for_failure", "the order stands, only the answer was lost")


async def server_error(stage: Stage) -> None:
    """500, nothing booked; the second attempt would succeed."""
    placing = await stage.place(ServerError(500, booked=False))
    await _expect_again(stage, placing, "a 500", stage.options.wait_s)
    await _settle(stage, placing, "a 500")


async def replayed(stage: Stage) -> None:
    """503, but booked: the repetition is answered 200 with `Idempotent-Replayed: true`, and that is a success."""
    placing = await stage.place(ServerError(503, booked=True))
    await _expect_again(stage, placing, "a 503", stage.options.wait_s)
    order = await _settle(stage, placing, "a 503")
    repeats = [seen for seen in placing.posts() if seen.number == order.number]
    if len(repeats) > _HAMMERING:
        stage.blame("replay_not_understood", f"200 with Idempotent-Replayed means done, yet the number was sent {len(repeats)} times")
    if not stage.hooks.can_probe:
        stage.uncheck("whether your software takes 200 for a success needs --probe")
        return
    stage.expect_hope(await stage.look(order), "replay_not_understood", "the repetition was answered 200: the order stands")


async def conflict(stage: Stage) -> None:
    """409: the number stands for an order with other content."""
    placing = await stage.place(NumberUsed())
    await stage.quiet()
    stage.judge_numbers(placing, "a 409")
    if len(placing.posts()) > _HAMMERING:
        stage.blame("refusal_repeated", f"the number was sent {len(placing.posts())} times although 409 will not change")


async def refused(stage: Stage) -> None:
    """422 with `retry: never`: nothing was stored, and asking again will not help."""
    placing = await stage.place(RefusedForGood(), RefusedForGood(), RefusedForGood(), RefusedForGood(), RefusedForGood())
    await stage.quiet()
    stage.judge_numbers(placing, "a 422")
    posts = placing.posts()
    if len(posts) > 1 + 1:
        stage.blame("refusal_repeated", f"the order was sent {len(posts)} times within {stage.options.quiet_s:g} s; the answer said retry: never")
    if not stage.hooks.can_probe:
        stage.uncheck("whether your software takes the refusal for a success needs --probe")
        return
    await _expect_unbought(stage, placing.numbers()[0], "the order was refused with 422")


async def rate_limited(stage: Stage) -> None:
    """429 with `Retry-After: 2`."""
    placing = await stage.place(TooMany(_RETRY_AFTER_S))
    first = placing.posts()[0]
    again = await stage.until(lambda: len(placing.posts()) > 1, stage.options.wait_s)
    await stage.quiet()
    stage.judge_numbers(placing, "a 429")
    if not again:
        stage.note("it did not ask again after 429; allowed, because nothing was stored, but a sale is lost")
        await _expect_unbought(stage, placing.numbers()[0], "nothing was stored after the 429")
        return
    waited_s = placing.posts()[1].at - first.at
    if waited_s < _RETRY_AFTER_S - _SLACK_S:
        stage.blame("retry_after_ignored", f"Retry-After said {_RETRY_AFTER_S} s, the next attempt came after {waited_s:.2f} s")


async def new_members(stage: Stage) -> None:
    """A 201 with members and headers of a later year."""
    placing = await stage.place(NewMembers())
    order = await _settle(stage, placing, "an answer with unknown members")
    first, *later = placing.posts()
    if any(seen.at > first.at + first.exchange.took_s for seen in later):  # one that was on its way beside the first is no reaction to its answer
        stage.blame("new_members_break_it", "it sent the order again, as if the answer with unknown members were none")
    if not stage.hooks.can_probe:
        raise NotChecked("whether your software took the answer needs --probe")
    told = await stage.look_for(order, lambda told: told.status in _BOUGHT)
    if told is None or (told.status is not None and told.status not in _BOUGHT):
        stage.blame("new_members_break_it", f"the order was accepted, the probe says {told.status if told else 'unknown order'!r}")


async def outcome_unknown(stage: Stage) -> None:
    """The supplier timed out; much later the order succeeds after all."""
    placing = await stage.place()
    order = stage.house.book.by_number[placing.numbers()[0]]
    doubt = stage.house.book.advance(order, "processing", "outcome_unknown")
    stage.expect_taken(await stage.callback.send(doubt), "order.processing, outcome_unknown")
    await stage.quiet()
    if len(placing.numbers()) > 1:
        stage.blame("resold_in_doubt", f"while {order.number} was outcome_unknown it bought again as {placing.numbers()[1]}")
    if stage.hooks.can_probe:
        stage.expect_hope(await stage.look(order), "doubt_taken_for_failure", "outcome_unknown is not a failure")
    stage.expect_taken(await stage.callback.send(stage.house.book.advance(order, "succeeded")), "the late order.succeeded")
    if not stage.hooks.can_probe:
        raise NotChecked("whether your software refunds in doubt, and takes the late success, needs --probe")
    told = await stage.expect_status(order, "succeeded", "late_success_not_taken", "the order succeeded after all")
    stage.expect_hope(told, "late_success_not_taken", "the order succeeded after all")
    if told is not None and (told.refunds is None or told.deliveries is None):
        raise NotChecked("the probe does not tell `refunds` and `deliveries`")
    if told is not None and told.deliveries is not None and told.deliveries > 1:
        stage.blame("delivered_twice", f"the customer was delivered {told.deliveries} times")


async def clock_skew(stage: Stage) -> None:
    """The merchant's clock is 20 minutes behind: 401 with our time in `server_time`."""
    stage.house.clock_offset_s = _SKEW_S
    try:
        placing = stage.ask()
        await stage.until(lambda: bool(placing.posts()), stage.options.wait_s)
        await stage.quiet()
    finally:
        stage.house.clock_offset_s = 0
    creations = [s for s in stage.house.seen[placing.mark :] if s.path == "/v1/orders" and s.method == "POST" and s.number not in placing.known]
    if not creations:
        raise NotChecked(f"no order came within {stage.options.wait_s:g} s")
    if not placing.posts():
        codes = ", ".join(dict.fromkeys(str(seen.problem) for seen in creations))
        stage.blame("clock_not_corrected", f"{len(creations)} attempts ({codes}), none signed by the time in server_time ({_SKEW_S} s ahead)")
        return
    numbers = list(dict.fromkeys(seen.attempted for seen in creations if seen.attempted is not None))
    if len(numbers) > 1:
        stage.blame("number_invented", f"after a 401 it invented a new number ({numbers[1]} after {numbers[0]}); nothing was wrong with the old one")
    if all(seen.problem != _CLOCK for seen in creations):
        stage.note("no attempt was refused: your software had taken our clock before")


async def requests_signed(stage: Stage) -> None:
    """Over everything that came in."""
    seen = [one for one in stage.house.seen if one.path != "/v1/test/signature"]
    proven = [one for one in seen if one.timestamp is not None]
    for one in seen:
        if one.problem in _MALFORMED:
            stage.blame(one.problem, f"{one.method} {one.path}: {one.detail}")
            stage.finding.exchanges += [one.exchange] if len(stage.finding.exchanges) < 5 else []
    if not seen:
        raise NotChecked("your software sent nothing to the kit's address")
    own = sum(one.problem == _CLOCK for one in seen)
    stage.note(f"{len(proven)} of {len(seen)} requests were proven; {own} were {CLOCK_WINDOW_S} s or more off the kit's clock")


async def _expect_unbought(stage: Stage, number: str, said: str) -> None:
    """An order that never stood must not be taken for one that does. Raises NotChecked without a probe."""
    told, _ = await stage.hooks.look(number)
    if told is not None and told.status is None:
        raise NotChecked("the probe does not tell `status`")
    if told is not None and told.status in _BOUGHT:
        stage.blame("refusal_taken_for_success", f"{said}, the probe says {told.status!r}")


async def _expect_again(stage: Stage, placing: Placing, after: str, within_s: float) -> None:
    """The same number again, or a look-up of it; a new number ends the waiting too."""
    await stage.until(lambda: placing.asked_again() or len(placing.numbers()) > 1, within_s)
    if not placing.asked_again() and len(placing.numbers()) == 1:
        stage.blame("left_in_doubt", f"after {after} it neither sent the number again nor looked it up within {within_s:g} s")


async def _settle(stage: Stage, placing: Placing, after: str) -> Order:
    """Watch a little longer, judge the numbers, and find the order. Raises NotChecked when it never stood."""
    await asyncio.sleep(min(stage.options.quiet_s, 1.0) if after == "an ordinary answer" else stage.options.quiet_s)
    stage.judge_numbers(placing, after)
    order = stage.house.book.by_number.get(placing.numbers()[0])
    if order is None:
        raise NotChecked("the order never came to stand, so what follows cannot be seen")
    return order
