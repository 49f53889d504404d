"""What must be true at the end, decided from what the house, the receiver and the suppliers say. No I/O."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kameng_api.kit.money import format_amount, parse_amount

MOST_SHOWN = 3


def signed(text: str) -> int:
    """Decimal text, which may carry a minus, in 1/10000 units."""
    return -parse_amount(text[1:]) if text.startswith("-") else parse_amount(text)


def few(troubles: Sequence[str]) -> str | None:
    """None when there are none; else the first ones in one line."""
    if not troubles:
        return None
    more = f" … and {len(troubles) - MOST_SHOWN} more" if len(troubles) > MOST_SHOWN else ""
    return "; ".join(troubles[:MOST_SHOWN]) + more


def judge_flow(flow: Sequence[Mapping[str, Any]], available: str) -> str | None:
    """The fund flow, newest first, must add up from nothing to the balance, line by line."""
    troubles, balance = [], 0
    for line in reversed(flow):
        balance += signed(line["amount"])
        if signed(line["balance_after"]) != balance:
            troubles.append(f"{line['id']} says {line['balance_after']}, the lines add up to {format_amount(balance)}")
    if balance != signed(available):
        troubles.append(f"available is {available}, the flow adds up to {format_amount(balance)}")
    return few(troubles)


def judge_balance(funded: str, orders: Iterable[Mapping[str, Any]], balance: Mapping[str, str]) -> str | None:
    """What came in, less what was delivered, plus what was given back, is what is there; nothing is held any more."""
    expected = parse_amount(funded)
    for order in orders:
        expected -= parse_amount(order["unit_price"]) * order["delivered_quantity"] - parse_amount(order["refunded_amount"])
    troubles = []
    if signed(balance["available"]) != expected:
        troubles.append(f"available is {balance['available']}, the orders leave {format_amount(expected)}")
    if signed(balance["held"]) != 0:
        troubles.append(f"{balance['held']} is still held")
    return few(troubles)


@dataclass(frozen=True, slots=True)
class Delivered:
    """One of our orders: its delivered units, the references of its attempts, and the codes its merchant was shown."""

    order_id: str
    units: int
    references: frozenset[str]
    codes: frozenset[tuple[str, str | None]] = frozenset()


def judge_deliveries(orders: Sequence[Delivered], log: Iterable[Mapping[str, Any]]) -> str | None:
    """The suppliers' own log has each delivered unit of each order exactly once, with the codes that came out at our end."""
    owner = {reference: order for order in orders for reference in order.references}
    troubles = []
    units: Counter[str] = Counter()
    seen: set[tuple[str, str, int]] = set()
    codes: dict[str, set[tuple[str, str | None]]] = {}
    for row in log:
        order = owner.get(row["reference"])
        if order is None:
            continue  # somebody else's
        unit = (row["supplier"], row["reference"], row["unit"])
        if unit in seen:
            troubles.append(f"{order.order_id}: unit {row['unit']} was delivered twice")
        seen.add(unit)
        units[order.order_id] += 1
        if row["code"]:
            codes.setdefault(order.order_id, set()).add((row["code"], row["pin"] or None))
    for order in orders:
        if units[order.order_id] != order.units:
            troubles.append(f"{order.order_id}: {order.units} units here, {units[order.order_id]} at the suppliers")
        if order.codes and order.codes != frozenset(codes.get(order.order_id, ())):
            troubles.append(f"{order.order_id}: other codes than the suppliers delivered")
    return few(troubles)


def judge_callbacks(orders: Sequence[Delivered], log: Iterable[Mapping[str, Any]]) -> str | None:
    """Whatever the suppliers called back about our orders was acknowledged, at the latest when it was sent again."""
    owner = {reference: order for order in orders for reference in order.references}
    answers: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in log:
        if row["reference"] in owner:
            answers.setdefault((row["reference"], row["status"]), []).append(row)
    return few(
        [
            f"{owner[reference].order_id}: {status} was answered {rows[-1]['answer'] or 'not at all'}"
            for (reference, status), rows in answers.items()
            if not any(row["acknowledged"] for row in rows)
        ]
    )


def judge_webhooks(
    events: Sequence[Mapping[str, Any]], orders: Sequence[Mapping[str, Any]], received: Sequence[Mapping[str, Any]], secrets: Iterable[str]
) -> str | None:
    """Every event about an order arrived, verified, as `GET /v1/events` shows it; every order's end is among them; no code is in any."""
    hidden = list(secrets)
    troubles = [f"{one['id']} did not verify" for one in received if not one["verified"]]
    troubles += [f"{one['id']} carries a card code" for one in received if any(code in one["body"] for code in hidden)]
    bodies = {one["id"]: orjson.loads(one["body"]) for one in received if one["verified"]}
    of_orders = [event for event in events if event["type"].startswith("order.")]
    for event in of_orders:
        if event["id"] not in bodies:
            troubles.append(f"{event['type']} {event['id']} did not arrive")
        elif bodies[event["id"]] != event:
            troubles.append(f"{event['id']} arrived with another content")
    ends = {(event["type"], event["data"]["id"]) for event in of_orders}
    troubles += [f"no order.{o['status']} for {o['id']}" for o in orders if (f"order.{o['status']}", o["id"]) not in ends]
    return few(troubles)


def judge_notified(orders: Sequence[Mapping[str, Any]], received: Sequence[Mapping[str, Any]]) -> str | None:
    """Every order that asked for it had its end told to its own `notify_url`."""
    troubles = [f"{one['id']} did not verify" for one in received if not one["verified"]]
    told = set()
    for one in received:
        if one["verified"]:
            event = orjson.loads(one["body"])
            told.add((event["type"], event["data"]["id"]))
    troubles += [f"no order.{o['status']} for {o['id']}" for o in orders if (f"order.{o['status']}", o["id"]) not in told]
    return few(troubles)
