"""What the vendor tells of a day: the true movements of a wallet, or what its knobs make of them. Pure.

Real statements leave lines out, tell them twice, end too early, put a line on the day after, and are made anew with other numbers. Which line
is hit is drawn from the seed and the line's own number, so that asking again tells the same.
"""

import hashlib
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.simulator.config import StatementFaults

CHINA: Final = timezone(timedelta(hours=8))


@dataclass(frozen=True, slots=True)
class Movement:
    """One row of the vendor's own books; `amount` and `balance_after` in 1/10000 units, `at` seconds since 1970."""

    id: int
    at: float
    reference: str
    order_no: str
    reversal_no: str
    kind: str
    amount: int
    balance_after: int


def hits(faults: StatementFaults, fault: str, movement_id: int) -> bool:
    """Whether `fault` (the knob's name without `_rate`) befalls this movement."""
    rate: float = getattr(faults, f"{fault}_rate")
    if rate <= 0:
        return False
    digest = hashlib.blake2b(f"{faults.seed}:{fault}:{movement_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * 2**64


def is_told(faults: StatementFaults, movement: Movement, start: float) -> bool:
    """Whether the statement of the day that begins at `start` tells this movement of that day or the day before."""
    if hits(faults, "missing", movement.id):
        return False
    return (movement.at >= start) != hits(faults, "other_day", movement.id)


def page(faults: StatementFaults, movements: Sequence[Movement], start: float, currency: str) -> list[dict[str, str]]:
    """The lines of one page, as the vendor says them."""
    lines: list[dict[str, str]] = []
    for movement in movements:
        if is_told(faults, movement, start):
            lines += _lines(faults, movement, currency)
    if faults.shuffle:
        random.Random(f"{faults.seed}:{len(lines)}").shuffle(lines)  # noqa: S311  an order, not a secret
    return lines


def _lines(faults: StatementFaults, movement: Movement, currency: str) -> list[dict[str, str]]:
    told = movement
    if movement.kind == "CHARGE" and hits(faults, "amount", movement.id):
        told = replace(told, amount=told.amount - parse_amount(faults.amount_delta))
    if hits(faults, "no_reference", movement.id):
        told = replace(told, reference="")
    number = f"W{movement.id}" if not faults.reissue else f"W{movement.id}R{faults.reissue}"
    lines = [_line(told, number, currency, balances=faults.balances)]
    if hits(faults, "repeat", movement.id):
        lines.append(dict(lines[0]))
    if hits(faults, "duplicate", movement.id):
        lines.append(_line(told, number + "D", currency, balances=False))
    if hits(faults, "stranger", movement.id):
        stranger = Movement(
            movement.id, movement.at, f"STRANGER{movement.id}", f"SIMX{movement.id}", "", "CHARGE", -abs(movement.amount), 0
        )
        lines.append(_line(stranger, number + "X", currency, balances=False))
    return lines


def _line(movement: Movement, number: str, currency: str, *, balances: bool) -> dict[str, str]:
    at = datetime.fromtimestamp(movement.at, UTC).astimezone(CHINA)
    return {
        "line_id": number,
        "out_order_no": movement.reference,
        "order_no": movement.order_no,
        "kind": movement.kind,
        "reversal_no": movement.reversal_no,
        "amount": format_amount(movement.amount),
        "balance_after": format_amount(movement.balance_after) if balances else "",
        "currency": currency,
        "at": at.isoformat(timespec="milliseconds"),
    }


def movement_of(row: sqlite3.Row, order_no: str) -> Movement:
    """A row of the file."""
    reversal_no = f"RV{row['order_id']:012d}" if row["kind"] == "REVERSAL" else ""
    return Movement(row["id"], row["at"], row["reference"], order_no, reversal_no, row["kind"], row["amount"], row["balance_after"])
