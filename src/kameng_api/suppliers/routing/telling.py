"""A stored decision in one sentence, for whoever asks why an order went where it went. Pure."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from kameng_api.suppliers.routing.facts import PASSING, Action, Ask, Circuit, Code, Option, Reason, Seen
from kameng_api.suppliers.routing.record import Recalled

_CLAUSES: Final = 4
"""So many channels are told of; the rest are counted."""


def tell(found: Recalled) -> str:
    """Money in currency units, times UTC.

    "B chosen: A would earn 0.60 more but its circuit is open since 14:02:11 (11.8 nats: 4 failures, 19 late answers; next probe 14:02:36)"
    """
    decision = found.decision
    match decision.action:
        case Action.DISPATCH:
            return _tell_dispatch(found)
        case Action.PROBE:
            return _tell_probe(found)
        case Action.HOLD:
            shut = _each(found, lambda seen: seen.code in PASSING) or _each(found, lambda seen: bool(seen.code))
            return _sentence(f"held for at most {seconds(decision.until_s or 0.0)}", shut)
        case Action.GIVE_UP if decision.reason == Reason.DEADLINE:
            return f"given up: no time is left after {seconds(found.ask.age_s)}"
        case Action.GIVE_UP if not found.options:
            return f"given up: no channel sells {found.ask.sku}"
        case Action.GIVE_UP:
            return _sentence("given up, for waiting would change nothing", _each(found, lambda seen: bool(seen.code)))


def tell_code(code: str, option: Option, seen: Seen, found: Recalled) -> str:
    """Why the channel was not asked, beginning with "it" or "its"."""
    if option.shut == code and code != Code.PAPERS:
        return f"it refused another order a moment ago ({code})"
    teller = _TELLERS.get(code)
    return f"it is closed out ({code})" if teller is None else teller(option, seen, found)


def _tell_dispatch(found: Recalled) -> str:
    chosen, decision = _chosen(found), found.decision
    match decision.reason:
        case Reason.ONLY_ELIGIBLE:
            head = f"{chosen.channel} chosen, the only one that may be asked"
        case Reason.FAILOVER:
            head = f"{chosen.channel} chosen after {' and '.join(f'{channel} ({why})' for channel, why in found.ask.tried.items())}"
        case Reason.PIN:
            head = f"{chosen.channel} chosen, as pinned"
        case _:
            head = f"{chosen.channel} chosen"
    if chosen.reading.circuit is Circuit.OPEN and chosen.forced is None:
        head += f", although {_circuit(chosen, _seen_of(found, chosen.channel), found)}"
    return _sentence(head, _others(found, chosen))


def _others(found: Recalled, chosen: Option) -> list[str]:
    """Those that would earn more and were not asked; where there are none, the next best."""
    value = _seen_of(found, chosen.channel).value
    dearer, worth_less = [], []
    for option, seen in _pairs(found):
        if option.channel == chosen.channel or option.channel in found.ask.tried:
            continue
        gain = _gain(option, chosen)
        if seen.code and gain > 0:
            dearer.append((-gain, f"{option.channel} would earn {money(gain)} more but {tell_code(seen.code, option, seen, found)}"))
        elif not seen.code and seen.value is not None and value is not None:
            less = value - seen.value
            worth_less.append((less, f"{option.channel} is worth {money(abs(less))} {'less' if less >= 0 else 'more'}"))
    told = [clause for _, clause in sorted(dearer)]
    if worth_less:
        told.append(min(worth_less)[1])
    return told or (_each(found, lambda seen: bool(seen.code) and seen.channel not in found.ask.tried))


def _tell_probe(found: Recalled) -> str:
    chosen = _chosen(found)
    head = f"{chosen.channel} probed: {_circuit(chosen, Seen(chosen.channel), found)}"
    rivals = [(seen.value, option) for option, seen in _pairs(found) if not seen.code and seen.value is not None and option is not chosen]
    if not rivals:
        gain = "nobody else can be asked"
    else:
        _, best = max(rivals, key=lambda rival: rival[0])
        more = _gain(chosen, best)
        gain = f"if it is well it earns {money(abs(more))} {'more' if more >= 0 else 'less'} than {best.channel}"
    return f"{head}, and {gain}; nobody else probes it for {seconds(found.decision.until_s or 0.0)}"


def _gain(one: Option, other: Option) -> int:
    """What a delivery by `one` earns more."""
    return other.cost - one.cost + one.bonus - other.bonus


def _sentence(head: str, clauses: list[str]) -> str:
    if not clauses:
        return head
    told, more = clauses[:_CLAUSES], len(clauses) - _CLAUSES
    return f"{head}: {'; '.join(told)}{f'; and {more} more' if more > 0 else ''}"


def _each(found: Recalled, which: Callable[[Seen], bool]) -> list[str]:
    return [f"{option.channel}: {tell_code(seen.code, option, seen, found)}" for option, seen in _pairs(found) if which(seen)]


def _pairs(found: Recalled) -> Iterable[tuple[Option, Seen]]:
    return zip(found.options, found.decision.seen, strict=False)


def _chosen(found: Recalled) -> Option:
    return next(option for option in found.options if option.channel == found.decision.channel)


def _seen_of(found: Recalled, channel: str) -> Seen:
    return next((seen for seen in found.decision.seen if seen.channel == channel), Seen(channel))


# ---- one clause for each code ----------------------------------------------------------------------------------------


def _circuit(option: Option, seen: Seen, found: Recalled) -> str:
    reading = option.reading
    whose = f"its circuit for {found.ask.sku}" if reading.of_sku else "its circuit"
    since = "" if reading.opened_at is None else f" since {clock(reading.opened_at, found.now)}"
    next_at = seen.until if seen.until is not None else reading.probe_at
    probe = "" if seen.code == "" or next_at is None else f"; next probe {clock(next_at, found.now)}"
    failures, late = _count(reading.failures, "failure"), _count(reading.silent, "late answer")
    return f"{whose} is open{since} ({reading.nats:.1f} nats: {failures}, {late}{probe})"


def _full(option: Option, _seen: Seen, _found: Recalled) -> str:
    reading = option.reading
    if option.cap is not None and reading.in_flight >= option.cap:
        return f"it is full ({reading.in_flight} under way, {option.cap} agreed)" if option.cap else "it takes nothing just now"
    if option.qps is not None and option.sent_last_second >= option.qps:
        return f"it was sent {option.sent_last_second} in the last second and takes {option.qps:g}"
    return f"it is full ({reading.in_flight} under way, it seems to take {reading.limit or 0:.0f})"


def _maintenance(option: Option, _seen: Seen, _found: Recalled) -> str:
    left_s = option.maintenance_in_s or 0.0
    if left_s <= 0:
        return "it is in maintenance"
    return f"its maintenance begins in {seconds(left_s)}, and its answer may take {seconds(option.reading.late_s)}"


def _face_value(option: Option, _seen: Seen, found: Recalled) -> str:
    lowest, highest = option.face_values or (0, 0)
    return f"it sells {money(lowest)} to {money(highest)}, not {money(found.ask.face_value or 0)}"


def _qualification(option: Option, _seen: Seen, found: Recalled) -> str:
    return f"it cannot do {', '.join(sorted(found.ask.qualifications - option.qualifications))}"


def _balance(option: Option, _seen: Seen, _found: Recalled) -> str:
    left = money((option.wallet or 0) - option.cost)
    return f"its wallet holds {money(option.wallet or 0)} and would fall to {left}, below its floor of {money(option.wallet_floor)}"


def _stale(option: Option, _seen: Seen, _found: Recalled) -> str:
    return f"its price was said {seconds(option.quote_age_s or 0.0)} ago and is believed for {seconds(option.quote_ttl_s or 0.0)}"


def _no_query(option: Option, _seen: Seen, _found: Recalled) -> str:
    return f"it cannot be asked what became of an order, and {money(option.cost)} is more than the {money(option.value_limit or 0)} it may be sent"


def _blacklisted(option: Option, _seen: Seen, found: Recalled) -> str:
    return "it is not for this order" if option.channel in found.ask.banned else "it is not on the list for this order"


def _place(word: str, of: Callable[[Ask], str | None]) -> Callable[[Option, Seen, Recalled], str]:
    return lambda _option, _seen, found: f"it does not serve the {word} {of(found.ask)}"


_TELLERS: Final[dict[str, Callable[[Option, Seen, Recalled], str]]] = {
    Code.NOT_MAPPED: lambda _option, _seen, found: f"it does not sell {found.ask.sku}",
    Code.DISABLED: lambda _option, _seen, _found: "it is switched off",
    Code.MERCHANT_BLACKLIST: _blacklisted,
    Code.PIN: lambda _option, _seen, found: f"it is not among the pinned ({', '.join(found.ask.pins)})",
    Code.REGION: _place("region", lambda ask: ask.region),
    Code.CARRIER: _place("carrier", lambda ask: ask.carrier),
    Code.FACE_VALUE: _face_value,
    Code.QUALIFICATION: _qualification,
    Code.MAINTENANCE: _maintenance,
    Code.QUOTE_STALE: _stale,
    Code.LOSS: lambda option, _seen, found: f"it costs {money(option.cost)} and the merchant pays {money(found.ask.price)}",
    Code.STOCK: lambda option, _seen, found: f"it has {max(option.stock or 0, 0)} left of {found.ask.units} asked for",
    Code.BALANCE: _balance,
    Code.NO_QUERY: _no_query,
    Code.PAPERS: lambda _option, _seen, _found: "a document without which it may not be used has ended",
    Code.TRIED: lambda option, _seen, found: f"it was tried already ({found.ask.tried.get(option.channel, '')})",
    Code.FORCED_OPEN: lambda _option, _seen, _found: "it is closed out by hand",
    Code.CIRCUIT_OPEN: _circuit,
    Code.FULL: _full,
}


# ---- words -----------------------------------------------------------------------------------------------------------


def money(amount: float) -> str:
    """1/10000 units as units: `0.60`; less than a hundredth with four places, so that it does not read as nothing."""
    units = amount / 10_000
    return f"{units:.4f}" if 0 < abs(units) < 0.005 else f"{units:.2f}"


def clock(at: float, now: float) -> str:
    """A time of day in UTC, with its date where it is another day's."""
    try:
        then = datetime.fromtimestamp(at, UTC)
        same_day = then.date() == datetime.fromtimestamp(now, UTC).date()
    except (OverflowError, ValueError, OSError):
        return "never"
    return f"{then:%H:%M:%S}" if same_day else f"{then:%Y-%m-%d %H:%M:%S}"


def seconds(span: float) -> str:
    return f"{span:.0f} s" if span >= 10 else f"{span:.1f} s"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"
