"""How a choice of a channel is shown. No framework in here: the command line shows it too."""

from datetime import UTC, datetime
from math import isfinite

from kameng_api.api.admin.shapes import Shape, amount_or_none
from kameng_api.kit.clock import wire_time
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.suppliers.route_queries import Decided
from kameng_api.suppliers.routing.facts import Circuit, Decision, Option, Reading, Seen
from kameng_api.suppliers.routing.record import Recalled, Shadow, recall
from kameng_api.suppliers.routing.shadow import differences
from kameng_api.suppliers.routing.telling import tell, tell_code

INPUTS_PREFIX = "rti"
GONE = "what it was made from is no longer kept"
UNREADABLE = "what it was made from cannot be read"


def step(n: int, one: Decided) -> Shape:
    """A choice in one line."""
    return _step(n, one, recalled(one))


def decision(n: int, one: Decided) -> Shape:
    """A choice with all that it saw. Values are expected worth, in currency units; None where a channel was closed out before it was valued."""
    found = recalled(one)
    shown = _step(n, one, found)
    if found is None:
        return {**shown, "until_s": None, "tuning": None, "shadow": None, "channels": []}
    return {
        **shown,
        "until_s": _number(found.decision.until_s),
        "tuning": found.tuning.version,
        "shadow": None if found.shadow is None else _shadow(found.shadow, found.decision),
        "channels": [_channel(option, seen, found) for option, seen in zip(found.options, found.decision.seen, strict=False)],
    }


def recalled(one: Decided) -> Recalled | None:
    """The inputs of a choice; None where they are gone or damaged."""
    try:
        return None if one.row is None else recall(one.row)
    except ValueError:
        return None


def _step(n: int, one: Decided, found: Recalled | None) -> Shape:
    return {
        "n": n,
        "decided_at": wire_time(one.decided_at),
        "action": one.action,
        "channel_id": one.channel_id,
        "reason": one.reason,
        "sentence": tell(found) if found is not None else GONE if one.row is None else UNREADABLE,
        "attempt_id": None if one.attempt_id is None else public_id("att", one.attempt_id),
        "attempt_n": one.attempt_n,
        "inputs_id": public_id(INPUTS_PREFIX, one.inputs_id),
    }


def _channel(option: Option, seen: Seen, found: Recalled) -> Shape:
    reading = option.reading
    return {
        "channel_id": option.channel,
        "code": seen.code or None,
        "detail": tell_code(seen.code, option, seen, found) if seen.code else None,
        "value": None if seen.value is None else units(seen.value),
        "cost": format_amount(option.cost),
        "success": _number(reading.p),
        "latency_s": _number(reading.latency_s),
        "circuit": _circuit(reading, seen, found.now),
        "in_flight": reading.in_flight,
        "limit": option.cap if option.cap is not None else _number(reading.limit),
        "wallet": amount_or_none(option.wallet),
        "stock": option.stock,
        "weight": _number(option.weight),
        "bonus": format_amount(option.bonus),
    }


def _circuit(reading: Reading, seen: Seen, now: float) -> Shape:
    return {
        "state": reading.circuit.value,
        "of_sku": reading.of_sku,
        "nats": _number(reading.nats),
        "failures": reading.failures,
        "late_answers": reading.silent,
        "opened_at": _instant(reading.opened_at),
        "next_probe_at": _instant(seen.until if seen.until is not None else reading.probe_at) if reading.circuit is Circuit.OPEN else None,
    }


def _shadow(shadow: Shadow, decided: Decision) -> Shape:
    other = shadow.decision or decided
    return {
        "tuning": {"version": shadow.tuning.version, **differences(shadow.tuning)},
        "agrees": shadow.decision is None,
        "action": other.action.value,
        "channel_id": other.channel,
        "reason": str(other.reason),
    }


def units(amount: float) -> str:
    """1/10000 units, as expected values are, as a decimal string with four places."""
    return f"{amount / 10_000:.4f}"


def _number(value: float | None) -> float | None:
    """To four places; None for what JSON has no word for."""
    return None if value is None or not isfinite(value) else round(value, 4)


def _instant(at: float | None) -> str | None:
    if at is None:
        return None
    try:
        return wire_time(datetime.fromtimestamp(at, UTC))
    except (OverflowError, ValueError, OSError):
        return None
