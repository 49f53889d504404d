"""A candidate tuning beside the live one: said by its differences, asked the same question, kept where it would have done something else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Final

import orjson

from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Ask, Decision, Option, Reading
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

DECIDING: Final = frozenset(
    {
        "version", "circuits", "hold", "hold_s", "limits", "look_ahead", "probe_again_s", "probe_max_s", "probe_min_s", "probe_share",
        "probes_out", "yield_age_s",
    }
)  # fmt: skip
"""What `choose` itself looks at. Everything else shapes the readings: a change there needs a `Health` of its own."""

_KINDS: Final = {each.name: type(each.default) for each in fields(Tuning)}


def tuning_with(changes: Mapping[str, object], base: Tuning = DEFAULT) -> Tuning:
    """`base` with these fields changed. Its version is the base's and a `+`, unless one is given.

    Raises ValueError with a sentence for a field that does not exist or a value that cannot be meant.
    """
    checked = {name: _check(name, value) for name, value in changes.items()}
    changed = {name: value for name, value in checked.items() if name != "version" and value != getattr(base, name)}
    named = {"version": f"{base.version}+"} if changed else {}
    return replace(base, **{**named, **checked})


def read_tuning(texts: Sequence[str], base: Tuning = DEFAULT) -> Tuning:
    """From `field=value` texts, or one JSON object of fields. Raises ValueError with a sentence."""
    changes: dict[str, object] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            changes |= _object(text)
            continue
        name, mark, value = text.partition("=")
        if not mark:
            raise ValueError(f"{text!r} is neither field=value nor a JSON object")
        changes[name.strip()] = value.strip() if _KINDS.get(name.strip()) is str else _value(name.strip(), value)
    return tuning_with(changes, base)


def differences(tuning: Tuning, base: Tuning = DEFAULT) -> dict[str, object]:
    """The fields that are not the base's, its version left out."""
    usual = asdict(base)
    return {name: value for name, value in asdict(tuning).items() if value != usual[name] and name != "version"}


def needs_own_health(tuning: Tuning, base: Tuning = DEFAULT) -> bool:
    """Whether the candidate would see other readings than those that `base` sees."""
    return not differences(tuning, base).keys() <= DECIDING


def shadow(
    ask: Ask,
    options: Sequence[Option],
    now: float,
    seed: int,
    candidate: Tuning,
    decision: Decision,
    readings: Sequence[Reading] | None = None,
) -> Decision | None:
    """What the candidate would do; None where that is what was decided. Another reason or another end of a hold is no difference."""
    other = choose(ask, options, now, seed, candidate, readings)
    return None if (other.action, other.channel) == (decision.action, decision.channel) else other


def _check(name: str, value: object) -> Any:
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"a tuning has no {name!r}; it has {', '.join(sorted(_KINDS))}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} wants {kind.__name__}, not {value!r}")
    return value


def _value(name: str, text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(f"{name}: {text!r} is neither a number nor true or false") from None


def _object(text: str) -> dict[str, object]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as trouble:
        raise ValueError(f"a tuning is a JSON object of fields: {trouble}") from None
    assert isinstance(found, dict)
    return found
