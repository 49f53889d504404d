"""A decision as one row and back: everything `choose` read, so that it can be made again bit for bit and be told in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import Any, Final

import orjson

from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Action, Ask, Circuit, Code, Decision, Option, Reading, Reason, Seen, Weights
from kameng_api.suppliers.routing.tuning import Tuning

FORM: Final = 1

# Values are stored by position. A row keeps its meaning because these lists only ever grow at their ends: what an old row lacks takes its
# default, and a field that is gone stays in its place as a name. What a tuning has besides follows as pairs of name and value.
# Of a reading: ten floats, four floats or None, the rest.
READING: Final = (
    "p", "n", "latency_s", "late_s", "doubt", "freeze_s", "nats", "p_healthy", "latency_healthy_s", "demand",
    "opened_at", "probe_at", "limit", "probed_at",
    "circuit", "of_sku", "failures", "silent", "in_flight", "inferred", "probes", "probing", "wins",
)  # fmt: skip
OPTION: Final = (
    "channel", "cost", "product_code", "enabled", "stock", "wallet", "wallet_floor", "quote_age_s", "quote_ttl_s", "maintenance_in_s",
    "queryable", "value_limit", "regions", "carriers", "face_values", "qualifications", "forced", "weight", "bonus", "cap",
    "sent_last_second", "qps", "shut",
)  # fmt: skip
ASK: Final = (
    "order", "sku", "price", "units", "age_s", "left_s", "attempts", "tried", "premium", "allow_loss", "allowed", "banned", "pins",
    "pin_hard", "region", "carrier", "face_value", "qualifications",
)  # fmt: skip
WEIGHTS: Final = ("undelivered", "failed_attempt", "second")
TUNING: Final = (
    "version", "circuits", "silence", "sku_level", "look_ahead", "hold", "limits", "slowness", "window", "sku_window", "p_dead", "h_min",
    "h_max", "p_prior", "ref_prior", "ref_memory", "half_life_s", "sku_half_life_s", "prior", "sku_prior", "latencies",
    "slow_half_life_s", "slow_prior", "probe_share", "probe_min_s", "probe_max_s", "probe_again_s", "probes_out", "cheap_s", "ramp",
    "ramp_growth", "ramp_end", "hold_s", "yield_age_s", "busy_s",
)  # fmt: skip

_reading_of: Final = attrgetter(*READING)
_option_of: Final = attrgetter(*OPTION)
_ask_of: Final = attrgetter(*ASK)
_weights_of: Final = attrgetter(*WEIGHTS)
_seen_of: Final = attrgetter("channel", "code", "value", "until")
_FLOATS: Final = 10
"""The first fields of a reading are floats and never None; the next four may be."""
_ENDLESS: Final = -FORM
"""The form of a row that holds an infinity, which JSON has no word for."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate tuning that was asked the same question, and what it would have done; None: the same."""

    tuning: Tuning
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a row holds: the arguments of `choose`, and what it answered."""

    ask: Ask
    options: tuple[Option, ...]
    now: float
    seed: int
    tuning: Tuning
    decision: Decision
    shadow: Shadow | None = None


def remember(
    ask: Ask,
    options: Sequence[Option],
    now: float,
    seed: int,
    tuning: Tuning,
    decision: Decision,
    readings: Sequence[Reading] | None = None,
    shadow: Shadow | None = None,
) -> bytes:
    """The row. `readings` stand in for the options' own, as for `choose`. Raises TypeError for an integer of more than 64 bits."""
    if readings is None:
        readings = [option.reading for option in options]
    heard = [_reading_of(reading) for reading in readings]
    body: tuple[Any, ...] = (
        FORM,
        now,
        seed,
        _tuning_bytes(tuning),
        (*_ask_of(ask), _weights_of(ask.weights)),
        [_option_of(option) for option in options],
        heard,
        _decision_values(decision),
    )
    if shadow is not None:
        other = None if shadow.decision is None else _spell(_decision_values(shadow.decision))
        body = (*body, (_tuning_bytes(shadow.tuning), other))
    if _is_finite(now, ask, options, heard, decision):
        return orjson.dumps(body, default=_plain)
    return orjson.dumps([_ENDLESS, *_spell(body[1:])], default=_plain)


def recall(row: bytes) -> Recalled:
    """What was remembered; raises ValueError when the row is damaged or of a form that this build does not know."""
    try:
        found: list[Any] = orjson.loads(row)
        if found[0] not in (FORM, _ENDLESS):
            raise ValueError(f"a decision of form {found[0]!r}, not {FORM}")
        _, now, seed, tuning, ask, options, heard, decision, *others = found if found[0] == FORM else [found[0], *_unspell(found[1:])]
        readings = [_reading(each) for each in heard]
        return Recalled(
            _ask(ask),
            tuple([_option(each, reading) for each, reading in zip(options, readings, strict=True)]),
            now,
            seed,
            _tuning(tuning),
            _decision(decision),
            _shadow(*others[0]) if others else None,
        )
    except (KeyError, TypeError, IndexError) as trouble:
        raise ValueError(f"damaged decision: {trouble!r}") from trouble


def replay(row: bytes) -> Decision:
    """The decision made again from the row, by this build's `choose`; raises ValueError as `recall`."""
    found = recall(row)
    return choose(found.ask, found.options, found.now, found.seed, found.tuning)


def is_same(one: Decision, other: Decision) -> bool:
    """Whether they are equal to the last bit: -0.0 is not 0.0, and 1 is not 1.0."""
    return _bits(one) == _bits(other)


def _bits(decision: Decision) -> bytes:
    return orjson.dumps(_spell(_decision_values(decision)))


def _decision_values(decision: Decision) -> tuple[Any, ...]:
    return (decision.action, decision.reason, decision.channel, decision.until_s, [_seen_of(seen) for seen in decision.seen])


@lru_cache(maxsize=64)
def _tuning_bytes(tuning: Tuning) -> orjson.Fragment:
    besides = [(each.name, getattr(tuning, each.name)) for each in fields(Tuning) if each.name not in TUNING]
    return orjson.Fragment(orjson.dumps(_spell([*(getattr(tuning, name, None) for name in TUNING), *besides])))


def _is_finite(now: float, ask: Ask, options: Sequence[Option], heard: Sequence[tuple[Any, ...]], decision: Decision) -> bool:
    """False also where only the sum is not: the row is then longer than it need be, and as right."""
    total = now + ask.age_s + ask.left_s + (decision.until_s or 0.0)
    for seen in decision.seen:
        total += (seen.value or 0.0) + (seen.until or 0.0)
    for option in options:
        total += option.weight + (option.quote_age_s or 0.0) + (option.quote_ttl_s or 0.0) + (option.maintenance_in_s or 0.0) + (option.qps or 0.0)
    for reading in heard:
        total += sum(reading[:_FLOATS]) + (reading[10] or 0.0) + (reading[11] or 0.0) + (reading[12] or 0.0) + (reading[13] or 0.0)
    return isfinite(total)


def _plain(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a decision")


def _spell(value: Any) -> Any:
    """The same with infinities as words; maps are wrapped, so that no map is taken for one."""
    if isinstance(value, float):
        return value if isfinite(value) else {"float": repr(value)}
    if isinstance(value, Mapping):
        return {"map": {key: _spell(each) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_spell(each) for each in value]
    return value


def _unspell(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"]) if "float" in value else {key: _unspell(each) for key, each in value["map"].items()}
    return [_unspell(each) for each in value] if isinstance(value, list) else value


def _named(names: Sequence[str], values: Sequence[Any], kept: frozenset[str]) -> dict[str, Any]:
    """Fewer values than names in a row that is older than the last names; more in one that is younger than this build, which is an error."""
    if len(values) > len(names):
        raise ValueError("a decision of a later build")
    return {name: value for name, value in zip(names, values, strict=False) if name in kept}


_REASONS: Final[dict[str, str]] = {reason.value: reason for reason in Reason}
_KEPT: Final = {kind: frozenset(each.name for each in fields(kind)) for kind in (Reading, Option, Ask, Weights, Tuning)}


def _reading(values: Sequence[Any]) -> Reading:
    found = _named(READING, values, _KEPT[Reading])
    found["circuit"] = Circuit(found["circuit"])
    return Reading(**found)


def _option(values: Sequence[Any], reading: Reading) -> Option:
    found = _named(OPTION, values, _KEPT[Option])
    for name in ("regions", "carriers", "qualifications"):
        found[name] = _set(found[name])
    if found["face_values"] is not None:
        lowest, highest = found["face_values"]
        found["face_values"] = (lowest, highest)
    found["forced"] = None if found["forced"] is None else Circuit(found["forced"])
    found["shut"] = None if found.get("shut") is None else Code(found["shut"])
    return Option(**found, reading=reading)


def _ask(values: Sequence[Any]) -> Ask:
    found = _named(ASK, values[:-1], _KEPT[Ask])
    for name in ("allowed", "banned", "qualifications"):
        found[name] = _set(found[name])
    found["pins"] = tuple(found["pins"])
    return Ask(**found, weights=Weights(**_named(WEIGHTS, values[-1], _KEPT[Weights])))


def _tuning(values: Sequence[Any]) -> Tuning:
    found = _unspell(values)
    besides = {name: value for name, value in (pair for pair in found if isinstance(pair, list)) if name in _KEPT[Tuning]}
    return Tuning(**_named(TUNING, [value for value in found if not isinstance(value, list)], _KEPT[Tuning]), **besides)


def _decision(values: Sequence[Any]) -> Decision:
    action, reason, channel, until_s, seen = values
    return Decision(Action(action), _REASONS.get(reason, reason), channel, until_s, tuple([Seen(*each) for each in seen]))


def _shadow(tuning: Sequence[Any], decision: Sequence[Any] | None) -> Shadow:
    return Shadow(_tuning(tuning), None if decision is None else _decision(_unspell(decision)))


def _set(values: Sequence[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
