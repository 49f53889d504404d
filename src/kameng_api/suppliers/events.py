"""What happens to channels, as facts in the house's own books: for operators, never for merchants."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from kameng_api.kit.clock import wire_time
from kameng_api.kit.money import format_amount
from kameng_api.ledger.rules import house_book
from kameng_api.outbox.rules import Fact, fact_of
from kameng_api.suppliers.routing.facts import Change, Circuit

# Wire formats: literal strings.
CHANNEL_OPENED: Final = "channel.opened"
CHANNEL_CLOSED: Final = "channel.closed"
CHANNEL_WALLET_LOW: Final = "channel.wallet_low"
CHANNEL_EVENTS: Final = (CHANNEL_OPENED, CHANNEL_CLOSED, CHANNEL_WALLET_LOW)

CHANNEL_OPEN_ALARM: Final = "channel_open"
EGRESS_ALARM: Final = "egress_suspect"
EGRESS_CHANNELS: Final = 3
EGRESS_WITHIN_S: Final = 30.0
"""So many channels do not fall ill within so few seconds each by itself: more likely our own way out is broken."""

_FIRST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Versions are 32 bits wide."""


def fact_of_change(change: Change, environment: str) -> Fact:
    """A circuit opened (`channel.opened`: the channel is asked by probes only) or closed (`channel.closed`: it is asked like any other)."""
    return _fact(
        CHANNEL_OPENED if change.circuit is Circuit.OPEN else CHANNEL_CLOSED,
        change.channel,
        environment,
        datetime.fromtimestamp(change.at, UTC),
        sku=change.sku,
        circuit=change.circuit.value,
        evidence_nats=round(change.nats, 2),
        failures=change.failures,
        late_answers=change.silent,
    )


def fact_of_low_wallet(channel_id: str, environment: str, currency: str, balance: int, low_at: int, at: datetime) -> Fact:
    """Our wallet at the supplier fell to or below its mark. `balance` and `low_at` in 1/10000 units."""
    return _fact(CHANNEL_WALLET_LOW, channel_id, environment, at, currency=currency, balance=format_amount(balance), low_at=format_amount(low_at))


def alarm_of_change(change: Change) -> tuple[str, str]:
    """(subject, detail) of the alarm `channel_open`: raised while the circuit is open, closed with it."""
    subject = change.channel if change.sku is None else f"{change.channel} {change.sku}"
    detail = f"{change.nats:.1f} nats of evidence: {change.failures} failures, {change.silent} late answers; asked by probes only"
    return subject, detail


def opened_together(open_since: Sequence[tuple[str, datetime]]) -> tuple[str, ...]:
    """The channels whose circuits opened within `EGRESS_WITHIN_S` of the newest opening, if they are `EGRESS_CHANNELS` or more; else none."""
    if not open_since:
        return ()
    newest = max(at for _, at in open_since)
    together = tuple(channel for channel, at in open_since if (newest - at).total_seconds() <= EGRESS_WITHIN_S)
    return together if len(together) >= EGRESS_CHANNELS else ()


def _fact(type_: str, channel_id: str, environment: str, at: datetime, **more: Any) -> Fact:
    """A channel has no counter of changes: the instant, which grows too, is its version."""
    thing = {"id": channel_id, "object": "channel", "environment": environment, "at": wire_time(at), **more}
    return fact_of(house_book(environment), type_, channel_id, int((at - _FIRST).total_seconds()), thing)
