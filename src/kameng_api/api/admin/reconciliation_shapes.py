"""What operators read of reconciliation: ids with their prefix, amounts as decimal strings, times with their zone."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.reconciliation import rules
from kameng_api.reconciliation.queries import DayReport, Run
from kameng_api.reconciliation.rollforward import Day
from kameng_api.reconciliation.rules import Break
from kameng_api.reconciliation.sources import Source, StatementFile

_MONEY: Final = frozenset({
    "amount", "cost", "actual_cost", "reversed_amount", "reversed", "charged", "refunded", "prepaid", "wip", "cogs", "suspense", "opening",
    "top_ups", "charges", "refunds", "other", "closing", "theirs", "gap",
})  # fmt: skip
_COUNTED: Final = frozenset({"charges", "refunds"})  # in the evidence of an attempt these are how many
_PREFIXES: Final = {"attempt_id": "att", "order_id": "ord", "file_id": "rcf"}

BREAK_COLUMNS: Final = (
    "id", "class", "name", "state", "channel_id", "environment", "amount", "currency", "subject", "order_id", "attempt_id", "owner",
    "first_seen_at", "due_at", "age_s", "why", "resolution", "note", "proposed_by", "approved_by", "closed_at", "closed_because",
)  # fmt: skip


def source(s: Source) -> dict[str, Any]:
    return {
        "name": s.name,
        "channel_id": s.channel_id,
        "kind": s.kind,
        "currency": s.currency,
        "timezone": s.timezone,
        "lag_s": s.lag_s,
        "complete": s.complete,
        "window_days": s.window_days,
        "charges_at": s.charges_at,
        "tolerance": format_amount(s.tolerance),
        "drift_limit": _amount(s.drift_limit),
        "mapping": None if s.mapping is None else s.mapping.model_dump(mode="json", exclude_defaults=True),
        "enabled": s.enabled,
        "created_at": wire_time(s.created_at),
    }


def file(f: StatementFile, source_name: str) -> dict[str, Any]:
    return {
        "id": public_id("rcf", f.file_id),
        "source": source_name,
        "channel_id": f.channel_id,
        "environment": f.environment,
        "day": f.day.isoformat(),
        "name": f.name,
        "sha256": f.sha256.hex(),
        "size_bytes": f.size_bytes,
        "state": f.state,
        "landed": f.landed,
        "rows_read": f.rows_read,
        "rows_new": f.rows_new,
        "rows_repeated": f.rows_repeated,
        "rows_bad": f.rows_bad,
        "bad": [{"line": n, "reason": reason} for n, reason in f.bad],
        "opening": _amount(f.opening),
        "closing": _amount(f.closing),
        "by": f.by,
        "accepted_by": None if f.state == "reading" else f.accepted_by,
        "created_at": wire_time(f.created_at),
        "accepted_at": _time(f.accepted_at),
    }


def run(r: Run) -> dict[str, Any]:
    return {
        "id": public_id("rcr", r.run_id),
        "channel_id": r.channel_id,
        "day": r.day.isoformat(),
        "by": r.by,
        "state": r.state,
        "step": r.step,
        "counts": dict(r.counts),
        "terms": [{**t, "tolerance": format_amount(t["tolerance"])} for t in r.terms],
        "started_at": wire_time(r.started_at),
        "finished_at": _time(r.finished_at),
    }


def whole_break(b: Break) -> dict[str, Any]:
    sort = rules.CLASSES[b.class_]
    return {
        "id": public_id("brk", b.break_id),
        "class": b.class_,
        "name": sort.name,
        "title": sort.title,
        "title_zh": sort.title_zh,
        "severity": sort.severity,
        "state": b.state,
        "channel_id": b.channel_id,
        "environment": b.environment,
        "subject": b.subject,
        "order_id": None if b.order_id is None else public_id("ord", b.order_id),
        "attempt_id": None if b.attempt_id is None else public_id("att", b.attempt_id),
        "amount": format_amount(b.amount),
        "currency": b.currency,
        "owner": b.owner,
        "why": b.evidence.get("why"),
        "facts": _facts(b.evidence, counted=b.attempt_id is not None),
        "first_seen_at": wire_time(b.first_seen_at),
        "due_at": wire_time(b.due_at),
        "age_s": int(((b.closed_at or utc_now()) - b.first_seen_at).total_seconds()),
        "resolutions": sorted(sort.resolutions),
        "default_resolution": sort.default,
        "resolution": b.resolution,
        "note": b.note,
        "automatic": b.automatic,
        "proposal": b.proposal,
        "proposed_by": b.proposed_by,
        "proposed_at": _time(b.proposed_at),
        "approved_by": b.approved_by,
        "approved_at": _time(b.approved_at),
        "event_key": b.event_key or b.parked_key,
        "closed_at": _time(b.closed_at),
        "closed_because": b.closed_because,
    }


def evidence(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    return {name: [_row(row) for row in rows] for name, rows in found.items()}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in row.items() if name not in ("book_id",)}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return wire_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return public_id(_PREFIXES[name], value) if name in _PREFIXES else str(value)
    if name in _MONEY and isinstance(value, int):
        return format_amount(value)
    return value


def _facts(facts: Mapping[str, Any], *, counted: bool) -> dict[str, Any]:
    return {name: value if counted and name in _COUNTED else _value(name, value) for name, value in facts.items() if name != "why"}


def day(d: Day) -> dict[str, Any]:
    return {
        "channel_id": d.channel_id,
        "day": d.day.isoformat(),
        "currency": d.currency,
        "opening": _amount(d.opening),
        "top_ups": format_amount(d.top_ups),
        "charges": format_amount(d.charges),
        "refunds": format_amount(d.refunds),
        "other": format_amount(d.other),
        "closing": _amount(d.closing),
        "theirs": _amount(d.theirs),
        "gap": _amount(d.gap),
        "state": d.state,
    }


def report(r: DayReport, days: Sequence[Day], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "channel_id": r.channel_id,
        "day": r.day.isoformat(),
        "lines": r.lines,
        "matched": r.matched,
        "attempts": r.attempts,
        "breaks": [
            {"class": class_, "title": rules.CLASSES[class_].title, "title_zh": rules.CLASSES[class_].title_zh, "states": dict(states)}
            for class_, states in sorted(r.breaks.items(), key=lambda item: int(item[0][1:]))
        ],
        "roll_forward": [day(d) for d in days],
        "files": list(files),
        "last_run": None if r.last_run is None else run(r.last_run),
    }


def _amount(amount: int | None) -> str | None:
    return None if amount is None else format_amount(amount)


def _time(at: datetime | None) -> str | None:
    return None if at is None else wire_time(at)
