"""The decision itself: which channel is asked next, for money, from facts alone.

`hard filters → circuits → limits → expected value → dispatch | probe | hold`, each step leaving a code per channel.
"""

from collections.abc import Sequence

from kameng_api.suppliers.routing.facts import (
    PASSING,
    Action,
    Ask,
    Circuit,
    Code,
    Decision,
    Option,
    Reading,
    Reason,
    Seen,
)
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

_MILLION = 1_000_000
_OPEN = Circuit.OPEN
_KNUTH = 2654435761


def choose(
    ask: Ask,
    options: Sequence[Option],
    now: float,
    seed: int,
    tuning: Tuning = DEFAULT,
    readings: Sequence[Reading] | None = None,
) -> Decision:
    """What to do with `ask` at `now`: a function of its arguments and of nothing else.

    `readings` stand in for the options' own, one each, where a caller keeps them apart. `seed` only spreads the ends of holds.
    """
    if readings is None:
        readings = [option.reading for option in options]
    view = _View(ask, options, readings, now, tuning)
    if ask.left_s <= 0:
        return view.decide(Action.GIVE_UP, Reason.DEADLINE)
    best = view.best()
    probe = view.probe(best)
    if probe is not None:
        chosen, gap_s = probe
        return view.decide(Action.PROBE, Reason.PROBE, chosen, gap_s)
    if best is not None:
        return view.decide(Action.DISPATCH, view.reason(best), best)
    if not view.waits:
        return view.decide(Action.GIVE_UP, Reason.NO_CHANNEL)
    if not tuning.hold:
        burnt = view.burn()
        return view.decide(Action.GIVE_UP, Reason.NO_CHANNEL) if burnt is None else view.decide(Action.DISPATCH, Reason.BEST_VALUE, burnt)
    spread = 0.8 + 0.4 * ((seed * _KNUTH & 0xFFFFFFFF) / 0x100000000)
    return view.decide(Action.HOLD, Reason.HELD, None, min(tuning.hold_s * spread, ask.left_s))


def find_code(ask: Ask, option: Option, reading: Reading) -> Code | None:  # noqa: PLR0912 one row per filter, in their order
    """The first hard filter that shuts the channel for this order; None: it may be asked as far as these go."""
    channel = option.channel
    if not option.enabled:
        return Code.DISABLED
    if channel in ask.banned or (ask.allowed is not None and channel not in ask.allowed):
        return Code.MERCHANT_BLACKLIST
    if ask.pin_hard and channel not in ask.pins:
        return Code.PIN
    if option.regions is not None and ask.region is not None and ask.region not in option.regions:
        return Code.REGION
    if option.carriers is not None and ask.carrier is not None and ask.carrier not in option.carriers:
        return Code.CARRIER
    if option.face_values is not None and ask.face_value is not None:
        lowest, highest = option.face_values
        if not lowest <= ask.face_value <= highest:
            return Code.FACE_VALUE
    if ask.qualifications and not ask.qualifications <= option.qualifications:
        return Code.QUALIFICATION
    if option.maintenance_in_s is not None and reading.late_s > option.maintenance_in_s:
        return Code.MAINTENANCE
    if option.quote_age_s is not None and option.quote_ttl_s is not None and option.quote_age_s > option.quote_ttl_s:
        return Code.QUOTE_STALE
    if option.cost > ask.price and not ask.allow_loss:
        return Code.LOSS
    if option.stock is not None and option.stock < ask.units:
        return Code.STOCK
    if option.wallet is not None and option.wallet - option.cost < option.wallet_floor:
        return Code.BALANCE
    if not option.queryable and option.value_limit is not None and option.cost > option.value_limit:
        return Code.NO_QUERY
    if option.shut is not None:
        return option.shut
    if channel in ask.tried:
        return Code.TRIED
    if option.forced is _OPEN:
        return Code.FORCED_OPEN
    return None


def is_full(ask: Ask, option: Option, reading: Reading, tuning: Tuning) -> bool:
    """Whether the channel has as many under way as it can take: contract first, then what was inferred."""
    if option.cap is not None and reading.in_flight >= option.cap:
        return True
    if option.qps is not None and option.sent_last_second >= option.qps:
        return True
    if reading.limit is None or reading.in_flight + 1 <= reading.limit or not tuning.limits:
        return False
    return not (reading.inferred and ask.age_s >= tuning.yield_age_s)


class _View:
    """One ask before its options. Money is in 1/10000 units, as floats."""

    __slots__ = (
        "_alternatives",
        "ask",
        "codes",
        "fail",
        "full",
        "now",
        "opened",
        "options",
        "readings",
        "ready",
        "second",
        "tuning",
        "undelivered",
        "until",
        "values",
        "waits",
    )

    def __init__(self, ask: Ask, options: Sequence[Option], readings: Sequence[Reading], now: float, tuning: Tuning) -> None:
        self.ask, self.options, self.readings, self.now, self.tuning = ask, options, readings, now, tuning
        weights = ask.weights
        self.undelivered = weights.undelivered * ask.price / _MILLION
        self.fail = weights.failed_attempt * ask.price / _MILLION
        self.second = weights.second * ask.price / _MILLION
        self.codes: list[str] = [""] * len(options)
        self.values: list[float | None] = [None] * len(options)
        self.until: list[float | None] = [None] * len(options)
        self.ready: list[int] = []
        self.full: list[int] = []
        self.opened: list[int] = []
        self.waits = False
        self._sort()
        self._alternatives = self._rank_alternatives()

    def _sort(self) -> None:
        ask, tuning = self.ask, self.tuning
        for index, option in enumerate(self.options):
            reading = self.readings[index]
            code = find_code(ask, option, reading)
            if code is not None:
                self.codes[index] = code
                if code in PASSING and option.channel not in ask.tried:
                    self.waits = True
            elif reading.circuit is _OPEN and tuning.circuits and option.forced is None and not ask.pin_hard:
                self.opened.append(index)
                self.waits = True
            elif is_full(ask, option, reading, tuning):
                self.codes[index] = Code.FULL
                self.full.append(index)
                self.waits = True
            else:
                self.ready.append(index)

    def _rank_alternatives(self) -> tuple[int, float, float]:
        """(best, its value, the next best's value) of going straight to a healthy channel; giving up is worth -undelivered."""
        first, first_value, second_value = -1, -self.undelivered, -self.undelivered
        for index in self.ready + self.full:
            value = self._straight(index)
            if value > first_value:
                first, first_value, second_value = index, value, first_value
            elif value > second_value:
                second_value = value
        return first, first_value, second_value

    def _straight(self, index: int) -> float:
        """What asking this channel and no other is worth."""
        reading = self.readings[index]
        p = reading.p
        return p * self._margin(index) - (1.0 - p) * (self.undelivered + self.fail) - self.second * reading.latency_s

    def _margin(self, index: int) -> float:
        option = self.options[index]
        return float(self.ask.price - option.cost + option.bonus)

    def _worth(self, index: int, p: float, latency_s: float, lost_s: float) -> float:
        """What asking this channel first is worth, with the best other one behind it. `lost_s`: seconds lost to doubt, on average."""
        first, first_value, second_value = self._alternatives
        behind = second_value if index == first else first_value
        if not self.tuning.look_ahead:
            behind = -self.undelivered
        value = p * self._margin(index) + (1.0 - p) * (behind - self.fail) - self.second * (latency_s + lost_s)
        weight = self.options[index].weight
        if weight == 1.0:
            return value
        return value * weight if value > 0 else value / max(weight, 0.01)

    def _worth_now(self, index: int) -> float:
        reading = self.readings[index]
        value = self._worth(index, reading.p, reading.latency_s, reading.doubt * reading.freeze_s)
        self.values[index] = value
        return value

    def best(self) -> int | None:
        """The channel to ask: pinned ones first, else the most valuable; an open circuit only where trying is still worth more than not."""
        ask = self.ask
        found, floor = self._best_of(self.ready)
        if found is None:
            _, waiting = self._best_of(self.full)
            floor = max(0.0, waiting - self.second * self.tuning.hold_s)
        for index in self.opened:
            value = self._worth_now(index)
            if value > floor and not is_full(ask, self.options[index], self.readings[index], self.tuning):
                found, floor = index, value
        for index in self.opened:
            if index != found:
                self.codes[index] = Code.CIRCUIT_OPEN
        if ask.pins:
            for channel in ask.pins:
                for index in self.ready:
                    if self.options[index].channel == channel:
                        return index
        return found

    def _best_of(self, indexes: Sequence[int]) -> tuple[int | None, float]:
        found, best = None, float("-inf")
        for index in indexes:
            value = self._worth_now(index)
            if value > best:
                found, best = index, value
        return found, best

    def probe(self, best: int | None) -> tuple[int, float] | None:
        """The open circuit to ask and how long its lease is; of several that are due, the one that would gain most.

        A probe is due when waiting longer would cost more than asking: seconds apart = cost of a probe / (share x demand x loss).
        """
        tuning, ask = self.tuning, self.ask
        found, found_gain, found_gap = None, float("-inf"), 0.0
        base = -self.undelivered if best is None else self.values[best] or 0.0
        for index in self.opened:
            if index == best:
                continue
            reading = self.readings[index]
            gain = self._worth(index, reading.p_healthy, reading.latency_healthy_s, 0.0) - base
            cost = self.fail + self.second * (reading.latency_s + reading.doubt * reading.freeze_s)
            wanted = cost / max(tuning.probe_share * reading.demand * gain, 1e-9) if gain > 0 else tuning.probe_max_s
            gap = min(max(wanted, tuning.probe_min_s), tuning.probe_max_s) * min(1.0 + 0.05 * reading.probes, 3.0)
            if reading.wins:
                gap = tuning.probe_again_s
            due = max((reading.probed_at or 0.0) + gap, reading.probe_at or 0.0)
            self.until[index] = due
            if due > self.now or ask.premium or gain <= found_gain or reading.probing >= tuning.probes_out:
                continue
            if best is not None and ask.left_s < reading.latency_s + reading.doubt * reading.freeze_s:
                continue
            if not is_full(ask, self.options[index], reading, tuning):
                found, found_gain, found_gap = index, gain, gap
        return None if found is None else (found, found_gap)

    def burn(self) -> int | None:
        """Where holding is not allowed: the least bad of the open and full."""
        found, _ = self._best_of(self.full + self.opened)
        return found

    def reason(self, index: int) -> Reason:
        if self.options[index].channel in self.ask.pins:
            return Reason.PIN
        if self.ask.tried:
            return Reason.FAILOVER
        return Reason.ONLY_ELIGIBLE if len(self.ready) + len(self.full) + len(self.opened) == 1 else Reason.BEST_VALUE

    def decide(self, action: Action, reason: Reason, index: int | None = None, until_s: float | None = None) -> Decision:
        codes, values, until = self.codes, self.values, self.until
        seen = tuple([Seen(option.channel, codes[i], values[i], until[i]) for i, option in enumerate(self.options)])
        return Decision(action, reason, None if index is None else self.options[index].channel, until_s, seen)
