"""How a routing rule is shown. No framework in here: the command line shows it too."""

from datetime import datetime
from typing import Any

from asyncpg import Record

from kameng_api.api.admin.shapes import Shape, merchant_name
from kameng_api.catalog import hand
from kameng_api.catalog.hand import Facts, Rule
from kameng_api.catalog.rules import format_rate
from kameng_api.kit.clock import wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount


def rule(one: Rule, now: datetime) -> Shape:
    """A rule as stored; `counts` says whether it does at this moment."""
    scope = one.scope
    return {
        "id": public_id("rul", one.rule_id),
        "kind": one.kind.value,
        "channel_id": scope.channel_id,
        "sku": scope.sku,
        "merchant_id": None if scope.merchant_id is None else merchant_name(scope.merchant_id),
        "level": scope.level,
        "name": scope.name,
        "facts": facts(one.facts),
        "starts_at": wire_time_or_none(one.starts_at),
        "expires_at": wire_time_or_none(one.expires_at),
        "counts": hand.counts_now(one, now),
        "reason": one.reason,
        "made_by": one.made_by,
        "created_at": wire_time_or_none(one.created_at),
        "updated_at": wire_time_or_none(one.updated_at),
    }


def transition(row: Record) -> Shape:
    """A circuit that opened or closed."""
    return {
        "id": public_id("trn", row["transition_id"]),
        "channel_id": row["channel_id"],
        "sku": row["sku"],
        "state": row["state"],
        "at": wire_time_or_none(row["at"]),
        "reason": row["reason"],
    }


def subject(shown: Shape) -> str:
    """Under what the audit trail keeps it: the channel, where there is one, so that whoever asks what was done to it finds this."""
    return f"channel:{shown['channel_id']}" if shown["channel_id"] is not None else f"routing:{shown['id']}"


_AMOUNTS = ("face_min", "face_max", "wallet_floor", "unqueryable_limit")


def facts(said: Facts) -> Shape:
    """In the words in which it was said; what was left out stays out."""
    shown: dict[str, Any] = {}
    for name, value in hand.write_facts(said).items():
        if name.endswith("_ppm"):
            shown["factor" if name == "factor_ppm" else name.removesuffix("_ppm") + "_rate"] = format_rate(value)
        elif name in _AMOUNTS:
            shown[name] = format_amount(value)
        else:
            shown[name] = value
    if isinstance(said, hand.Commitment):
        in_units = shown.pop("counts") == hand.Counted.UNITS.value
        target = shown.pop("target")
        shown |= {"target_units": target} if in_units else {"target_amount": format_amount(target)}
    if isinstance(said, hand.Maintenance):
        shown = {**shown, "at": said.at.isoformat("minutes")} if said.at is not None else {}
    return shown
