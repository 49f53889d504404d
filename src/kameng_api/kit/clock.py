"""Time enters the house here, so that every rule can be handed its `now`."""

from datetime import UTC, datetime
from functools import lru_cache


def utc_now() -> datetime:
    """Now, aware, UTC."""
    return datetime.now(UTC)


@lru_cache(maxsize=4096)  # a flush says the same few times about each of its orders
def wire_time(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-11-22T11:44:59.000Z`."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text[:-6] + "Z"


def wire_time_or_none(at: datetime | None) -> str | None:
    return None if at is None else wire_time(at)
