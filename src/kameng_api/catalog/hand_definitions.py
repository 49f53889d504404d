"""What an operator may say about routing: every mistake of a rule, found at once, with its place. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Final

from kameng_api.catalog.hand import (
    Allow,
    Ban,
    Commitment,
    Counted,
    Force,
    Kind,
    Maintenance,
    Needs,
    Pin,
    Rule,
    Scope,
    Stakes,
    Terms,
    Weight,
)
from kameng_api.kit.errors import FieldError
from kameng_api.kit.money import LARGEST
from kameng_api.kit.zones import is_zone

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_LEVEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_MOST_CHANNELS: Final = 50
_MOST_WORDS: Final = 100
_LARGEST_FACTOR: Final = 10_000_000
_LARGEST_SHARE: Final = 1_000_000
_LONGEST_FORCE: Final = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which parts of a scope a kind takes; `one_of`: at least one of these."""

    takes: frozenset[str]
    wants: frozenset[str] = frozenset()
    one_of: frozenset[str] = frozenset()


_BUYER: Final = frozenset({"sku", "merchant_id", "level"})
_OF_CHANNEL: Final = _Shape(frozenset({"channel_id", "sku"}), frozenset({"channel_id"}))
_OF_CHANNEL_NAMED: Final = _Shape(frozenset({"channel_id", "sku", "name"}), frozenset({"channel_id"}))

SHAPES: Final[Mapping[Kind, _Shape]] = {
    Kind.PIN: _Shape(_BUYER),
    Kind.BAN: _Shape(_BUYER | {"channel_id"}, frozenset({"channel_id"})),
    Kind.ALLOW: _Shape(_BUYER, one_of=_BUYER),
    Kind.WEIGHT: _OF_CHANNEL,
    Kind.COMMITMENT: _OF_CHANNEL_NAMED,
    Kind.MAINTENANCE: _OF_CHANNEL_NAMED,
    Kind.FORCE: _OF_CHANNEL,
    Kind.STAKES: _Shape(_BUYER),
    Kind.TERMS: _OF_CHANNEL,
    Kind.NEEDS: _Shape(_BUYER, one_of=_BUYER),
}


def check_rule(rule: Rule, now: datetime) -> list[FieldError]:
    """What is wrong with a rule, before anything is looked up."""
    errors = _check_scope(rule.kind, rule.scope) + _check_period(rule, now)
    if not (1 <= len(rule.reason.strip()) <= 500 and "\x00" not in rule.reason):
        errors.append(FieldError("/reason", "required", "a sentence of at most 500 characters"))
    match rule.facts:
        case Pin() | Allow():
            errors += _check_channels(rule.facts.channels)
        case Ban():
            pass
        case Weight():
            errors += _within(rule.facts.factor_ppm, "/factor", 0, _LARGEST_FACTOR, "0 to 10")
        case Commitment():
            pointer = "/target_units" if rule.facts.counts is Counted.UNITS else "/target_amount"
            errors += _within(rule.facts.target, pointer, 1, LARGEST, "more than 0")
            errors += _within(rule.facts.bonus_ppm, "/bonus_rate", 1, _LARGEST_SHARE, "more than 0, at most 1 of the cost")
        case Maintenance():
            errors += _check_window(rule)
        case Force():
            if rule.facts.state not in ("open", "closed"):
                errors.append(FieldError("/state", "unknown_value", "open | closed"))
        case Stakes():
            errors += _check_stakes(rule.facts)
        case Terms():
            errors += _check_terms(rule.facts, rule.scope)
        case Needs():
            errors += _check_needs(rule.facts)
    return errors


def _check_scope(kind: Kind, scope: Scope) -> list[FieldError]:
    shape = SHAPES[kind]
    given = {one.name for one in fields(scope) if getattr(scope, one.name) not in (None, "")}
    errors = [FieldError(f"/{name}", "not_allowed", f"a {kind} is not about this") for name in sorted(given - shape.takes)]
    errors += [FieldError(f"/{name}", "required", f"a {kind} is about one") for name in sorted(shape.wants - given)]
    if shape.one_of and not shape.one_of & given:
        errors.append(FieldError("/sku", "required", "say for which SKU, merchant or level"))
    if scope.merchant_id is not None and scope.level is not None:
        errors.append(FieldError("/level", "ambiguous", "a merchant or a level, not both"))
    if scope.level is not None and not _LEVEL.fullmatch(scope.level):
        errors.append(FieldError("/level", "format", "lower-case letters, digits, _ and -, at most 32"))
    if scope.name and not _NAME.fullmatch(scope.name):
        errors.append(FieldError("/name", "format", "1–64 of A–Z a–z 0–9 . _ -"))
    return errors


def _check_period(rule: Rule, now: datetime) -> list[FieldError]:
    errors = []
    for pointer, at in (("/starts_at", rule.starts_at), ("/expires_at", rule.expires_at)):
        if at is not None and not 2000 <= at.year < 2100:
            errors.append(FieldError(pointer, "out_of_range", "from 2000 to 2099"))
    if errors:
        return errors
    if rule.expires_at is not None and rule.expires_at <= max(now, rule.starts_at or now):
        return [FieldError("/expires_at", "out_of_range", "it must end after it begins, and not in the past")]
    if rule.kind is Kind.FORCE and (rule.expires_at is None or rule.expires_at - now > _LONGEST_FORCE):
        return [FieldError("/expires_at", "required", "who forces a circuit says until when, at most 31 days ahead")]
    return []


def _check_channels(channels: Sequence[str]) -> list[FieldError]:
    if not 1 <= len(channels) <= _MOST_CHANNELS:
        return [FieldError("/channels", "out_of_range", f"1 to {_MOST_CHANNELS}")]
    return [
        FieldError(f"/channels/{n}", "duplicate", "named twice") for n, channel in enumerate(channels) if channel in channels[:n]
    ]


def _check_window(rule: Rule) -> list[FieldError]:
    facts = rule.facts
    assert isinstance(facts, Maintenance)
    if not facts.weekdays:
        if facts.at is not None or facts.minutes is not None:
            return [FieldError("/weekdays", "required", "a weekly window has weekdays, at and minutes; else starts_at and expires_at")]
        missing = rule.expires_at is None
        return [FieldError("/expires_at", "required", "a window has an end, or comes back on weekdays")] if missing else []
    errors = []
    if any(not 0 <= day <= 6 for day in facts.weekdays) or len(set(facts.weekdays)) != len(facts.weekdays):
        errors.append(FieldError("/weekdays", "out_of_range", "each once, 0 Monday to 6 Sunday"))
    if facts.at is None:
        errors.append(FieldError("/at", "required", "when it begins, such as 02:00"))
    if facts.minutes is None or not 1 <= facts.minutes <= 1440:
        errors.append(FieldError("/minutes", "out_of_range", "1 to 1440"))
    if not is_zone(facts.timezone):
        errors.append(FieldError("/timezone", "unknown_value", "a zone name such as Asia/Shanghai"))
    return errors


def _check_stakes(facts: Stakes) -> list[FieldError]:
    if facts == Stakes():
        return [FieldError("/undelivered_rate", "required", "say at least one of the four")]
    named = (("/undelivered_rate", facts.undelivered_ppm), ("/failed_attempt_rate", facts.failed_attempt_ppm), ("/second_rate", facts.second_ppm))
    return [
        error for pointer, rate in named if rate is not None for error in _within(rate, pointer, 0, _LARGEST_FACTOR, "0 to 10 of the price")
    ]


_CHANNELS_OWN: Final = ("cap", "qps", "wallet_floor", "unqueryable_limit")


def _check_terms(facts: Terms, scope: Scope) -> list[FieldError]:
    if facts == Terms():
        return [FieldError("/", "required", "say at least one term")]
    errors = []
    if scope.sku is not None:
        errors += [
            FieldError(f"/{name}", "not_allowed", "this is the channel's, not one SKU's")
            for name in _CHANNELS_OWN
            if getattr(facts, name) is not None
        ]
    for name in ("regions", "carriers", "qualifications"):
        errors += _check_words(f"/{name}", getattr(facts, name) or ())
    errors += [FieldError(f"/{name}", "required", "at least one, or leave it out") for name in ("regions", "carriers") if getattr(facts, name) == ()]
    limits = (
        ("face_min", 1, LARGEST),
        ("face_max", 1, LARGEST),
        ("quote_ttl_s", 1, 31 * 86_400),
        ("cap", 1, 100_000),
        ("qps", 1, 100_000),
        ("wallet_floor", 0, LARGEST),
        ("unqueryable_limit", 0, LARGEST),
    )
    for name, least, most in limits:
        value = getattr(facts, name)
        if value is not None:
            errors += _within(value, f"/{name}", least, most, f"out of range for {name}")
    if facts.face_min is not None and facts.face_max is not None and facts.face_min > facts.face_max:
        errors.append(FieldError("/face_max", "out_of_range", "not below face_min"))
    return errors


def _check_needs(facts: Needs) -> list[FieldError]:
    if facts == Needs():
        return [FieldError("/", "required", "say at least one need")]
    words = [("/region", (facts.region,)), ("/carrier", (facts.carrier,))]
    errors = [error for pointer, (word,) in words if word is not None for error in _check_words(pointer, (word,))]
    return errors + _check_words("/qualifications", facts.qualifications)


def _check_words(pointer: str, words: Sequence[str]) -> list[FieldError]:
    if len(words) > _MOST_WORDS:
        return [FieldError(pointer, "too_long", f"at most {_MOST_WORDS}")]
    if all(_WORD.fullmatch(word) for word in words) and len(set(words)) == len(words):
        return []
    return [FieldError(pointer, "format", "1–32 of A–Z a–z 0–9 . _ -, each once")]


def _within(value: int, pointer: str, least: int, most: int, detail: str) -> list[FieldError]:
    return [] if least <= value <= most else [FieldError(pointer, "out_of_range", detail)]
