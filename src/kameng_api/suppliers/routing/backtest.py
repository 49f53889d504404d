"""What another tuning would have been worth, told from recorded choices. Pure.

Choices are deterministic, so a recorded outcome speaks for a policy only as far as that policy would have done the same. An order on which it
would have done the same at every step counts with what really came of it; from the first step at which it differs, an estimate takes over: what the
one-step model says of the choice, from the readings of that moment. Doubly robust estimation with a deterministic recorder is exactly this.
The estimate is as good as the model, so the model is held against what really came of the recorded choices, and the error is reported beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final
from uuid import UUID

from kameng_api.suppliers.routing.choose import choose, find_code
from kameng_api.suppliers.routing.facts import Action, Ask, ChannelFacts, Circuit, Decision, Event, Option, Reading
from kameng_api.suppliers.routing.health import Health
from kameng_api.suppliers.routing.record import Recalled, recall
from kameng_api.suppliers.routing.shadow import needs_own_health
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

_MILLION: Final = 1_000_000
_BLOCK_S: Final = 300.0
"""Orders of the same five minutes share their luck: they count as one observation of it."""
_ENOUGH_HOLDS: Final = 20
_Z: Final = 1.96

Choice = tuple[str, str | None]
"""Action and channel: what makes two decisions the same."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A settled attempt. `cost`: what the delivered units cost, 1/10000 units; `revenue`: what the merchant paid for them."""

    sent_at: float
    failed: bool
    revenue: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded choice: the inputs it was made from, and when."""

    inputs_id: UUID
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """An order of which nothing more is to come. `undelivered`: share of its units."""

    created_at: float
    ended_at: float
    currency: str
    undelivered: float
    tried: tuple[Tried, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """One recorded decision: what was chosen, what each of the two would have chosen, and what the model makes of each, 1/10000 units.

    An estimate is None where the model has none: a hold is worth what held orders really came to.
    """

    price: int
    undelivered: float
    failed_attempt: float
    second: float
    recorded: Choice
    current: Choice
    candidate: Choice | None
    worth: Mapping[Choice, float | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Currency units per 1,000 orders, with the 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """The comparison in one currency. Shares are of orders; `unshadowed` orders had a step at which no shadow ran and are left out."""

    currency: str
    orders: int
    steps: int
    unshadowed: int
    recorded: Estimate
    current: Estimate
    candidate: Estimate
    difference: Estimate
    """Candidate less current, order by order."""
    model_error: Estimate
    """What recorded orders came to, less what the model had said of their first choice."""
    current_matched: float
    candidate_matched: float
    holds: int
    """Recorded holds that the worth of holding is learnt from; below 20 it is that of an undelivered order."""
    changes: tuple[tuple[str, int], ...]
    """The commonest first differences between current and candidate, and on how many orders."""


# ---- the decisions, made again ---------------------------------------------------------------------------------------


def judge(
    rows: Iterable[tuple[UUID, bytes]],
    candidate: Tuning | None,
    *,
    current: Tuning = DEFAULT,
    events: Sequence[Event] = (),
    facts: Mapping[str, ChannelFacts] | None = None,
) -> dict[UUID, Judged]:
    """Every recorded decision, in the order of time, under both. `candidate` None: the shadow that ran beside the recorded one.

    Where the candidate would have had other readings, both get readings folded from `events` (in the order in which they were heard)
    instead of the recorded ones. Raises ValueError for a row that cannot be read.
    """
    sights: list[_Sight] | None = None
    if candidate is not None and needs_own_health(candidate, current):
        sights = [_Sight(Health(facts, tuning), events) for tuning in (current, candidate)]
    judged = {}
    for inputs_id, row in rows:
        found = recall(row)
        ours = _again(found, current, None if sights is None else sights[0])
        if candidate is not None:
            theirs = _choice(_again(found, candidate, None if sights is None else sights[1]))
        elif found.shadow is not None:
            theirs = _choice(found.shadow.decision or found.decision)
        else:
            theirs = None
        judged[inputs_id] = _judged(found, _choice(found.decision), _choice(ours), theirs)
    return judged


class _Sight:
    """A `Health` that hears what had been heard by then."""

    def __init__(self, health: Health, events: Sequence[Event]) -> None:
        self.health, self.events, self.heard = health, events, 0

    def readings(self, found: Recalled) -> list[Reading]:
        while self.heard < len(self.events) and self.events[self.heard].at <= found.now:
            self.health.observe(self.events[self.heard])
            self.heard += 1
        self.health.tend(found.now)
        return [self.health.reading(option.channel, found.ask.sku, found.now) for option in found.options]


def _again(found: Recalled, tuning: Tuning, sight: _Sight | None) -> Decision:
    return choose(found.ask, found.options, found.now, found.seed, tuning, None if sight is None else sight.readings(found))


def _choice(decision: Decision) -> Choice:
    """A probe is a dispatch: the supplier cannot tell them apart."""
    action = Action.DISPATCH if decision.action is Action.PROBE else decision.action
    return action.value, decision.channel


def _judged(found: Recalled, recorded: Choice, ours: Choice, theirs: Choice | None) -> Judged:
    ask = found.ask
    weights, price = ask.weights, ask.price
    worth = {choice: _worth(choice, found) for choice in {recorded, ours, theirs} if choice is not None}
    return Judged(
        price,
        weights.undelivered * price / _MILLION,
        weights.failed_attempt * price / _MILLION,
        weights.second * price / _MILLION,
        recorded,
        ours,
        theirs,
        worth,
    )


def _worth(choice: Choice, found: Recalled) -> float | None:
    """The one-step model on the recorded readings, in money alone: no weights and no bonuses of operators."""
    action, channel = choice
    ask = found.ask
    lost = ask.weights.undelivered * ask.price / _MILLION
    if action == Action.GIVE_UP:
        return -lost
    chosen = next((option for option in found.options if option.channel == channel), None)
    if chosen is None:
        return None
    fail, second = ask.weights.failed_attempt * ask.price / _MILLION, ask.weights.second * ask.price / _MILLION

    def straight(option: Option) -> float:
        reading = option.reading
        return reading.p * (ask.price - option.cost) - (1.0 - reading.p) * (lost + fail) - second * reading.latency_s

    behind = max([straight(option) for option in found.options if option is not chosen and _stands(ask, option)], default=-lost)
    reading = chosen.reading
    seconds = reading.latency_s + reading.doubt * reading.freeze_s
    return reading.p * (ask.price - chosen.cost) + (1.0 - reading.p) * (max(behind, -lost) - fail) - second * seconds


def _stands(ask: Ask, option: Option) -> bool:
    return option.reading.circuit is Circuit.CLOSED and find_code(ask, option, option.reading) is None


# ---- the orders, valued ----------------------------------------------------------------------------------------------


def compare(orders: Sequence[Ended], judged: Mapping[UUID, Judged]) -> list[Result]:
    """One result per currency, in the order of their names. Orders without a recorded step are left out."""
    results = []
    for currency in sorted({order.currency for order in orders}):
        own = [order for order in orders if order.currency == currency and order.steps and all(s.inputs_id in judged for s in order.steps)]
        seen = [order for order in own if all(judged[step.inputs_id].candidate is not None for step in order.steps)]
        if seen:
            results.append(_compare(currency, seen, judged, len(own) - len(seen)))
    return results


def _compare(currency: str, orders: Sequence[Ended], judged: Mapping[UUID, Judged], unshadowed: int) -> Result:
    blocks = [int(order.steps[0].at // _BLOCK_S) for order in orders]
    real = [_came_to(order, judged) for order in orders]
    held, holds = _worth_of_holding(orders, real, judged)
    current = [_value(order, value, judged, lambda j: j.current, held) for order, value in zip(orders, real, strict=True)]
    candidate = [_value(order, value, judged, lambda j: j.candidate, held) for order, value in zip(orders, real, strict=True)]
    errors = [value - _foreseen(order, judged, held) for order, value in zip(orders, real, strict=True)]
    return Result(
        currency,
        len(orders),
        sum(len(order.steps) for order in orders),
        unshadowed,
        _estimate(real, blocks),
        _estimate([value for value, _ in current], blocks),
        _estimate([value for value, _ in candidate], blocks),
        _estimate([theirs - ours for (theirs, _), (ours, _) in zip(candidate, current, strict=True)], blocks),
        _estimate(errors, blocks),
        sum(matched for _, matched in current) / len(orders),
        sum(matched for _, matched in candidate) / len(orders),
        holds,
        tuple(Counter(filter(None, (_first_change(order, judged) for order in orders))).most_common(10)),
    )


def _came_to(order: Ended, judged: Mapping[UUID, Judged]) -> float:
    """What really came of it."""
    return _earned(order, judged, order.ended_at, order.tried) - order.undelivered * judged[order.steps[0].inputs_id].undelivered


def _sunk(order: Ended, judged: Mapping[UUID, Judged], at: float) -> float:
    """What was earned and lost before the choice at `at`: whatever is chosen there changes nothing of it."""
    return _earned(order, judged, at, [each for each in order.tried if each.sent_at < at])


def _earned(order: Ended, judged: Mapping[UUID, Judged], at: float, tried: Sequence[Tried]) -> float:
    first = judged[order.steps[0].inputs_id]
    earned = -first.second * (at - order.created_at)
    for each in tried:
        earned += each.revenue - each.cost - (first.failed_attempt if each.failed else 0.0)
    return earned


def _value(
    order: Ended, real: float, judged: Mapping[UUID, Judged], of: Callable[[Judged], Choice | None], held: float
) -> tuple[float, bool]:
    """(value of the order under a policy, whether that is what really came of it)."""
    for step in order.steps:
        here = judged[step.inputs_id]
        choice = of(here)
        if choice is not None and choice != here.recorded:
            return _sunk(order, judged, step.at) + _estimated(here, choice, held), False
    return real, True


def _estimated(here: Judged, choice: Choice, held: float) -> float:
    worth = here.worth[choice]
    return held * here.price if worth is None else worth


def _foreseen(order: Ended, judged: Mapping[UUID, Judged], held: float) -> float:
    step = order.steps[0]
    here = judged[step.inputs_id]
    return _sunk(order, judged, step.at) + _estimated(here, here.recorded, held)


def _worth_of_holding(orders: Sequence[Ended], real: Sequence[float], judged: Mapping[UUID, Judged]) -> tuple[float, int]:
    """(share of the price that an order is worth when it is held, from how many): from those that were."""
    shares = []
    for order, value in zip(orders, real, strict=True):
        step = order.steps[0]
        here = judged[step.inputs_id]
        if here.recorded[0] == Action.HOLD and here.price:
            shares.append((value - _sunk(order, judged, step.at)) / here.price)
    if len(shares) >= _ENOUGH_HOLDS:
        return sum(shares) / len(shares), len(shares)
    first = judged[orders[0].steps[0].inputs_id]
    return -first.undelivered / max(first.price, 1), len(shares)


def _first_change(order: Ended, judged: Mapping[UUID, Judged]) -> str | None:
    for step in order.steps:
        here = judged[step.inputs_id]
        if here.candidate is not None and here.candidate != here.current:
            return f"{_words(here.current)} -> {_words(here.candidate)}"
    return None


def _words(choice: Choice) -> str:
    return choice[0] if choice[1] is None else f"{choice[0]} {choice[1]}"


def _estimate(values: Sequence[float], blocks: Sequence[int]) -> Estimate:
    """Mean of `values` (1/10000 units an order) and its interval, robust against orders of one block being alike."""
    n = len(values)
    mean = sum(values) / n
    sums: dict[int, float] = {}
    for value, block in zip(values, blocks, strict=True):
        sums[block] = sums.get(block, 0.0) + value - mean
    groups = len(sums)
    spread = sqrt(sum(each * each for each in sums.values()) * groups / max(groups - 1, 1)) / n
    per_thousand = 1000 / 10_000
    if groups < 2:
        return Estimate(mean * per_thousand, float("-inf"), float("inf"))
    return Estimate(mean * per_thousand, (mean - _Z * spread) * per_thousand, (mean + _Z * spread) * per_thousand)
