"""`kameng route why | replay | backtest`: what the router did, whether it would do it again, and what another tuning would have been worth."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import typer

from kameng_api.api.admin import route_shapes as shapes
from kameng_api.cli.bench import Bench, read_id, run
from kameng_api.cli.routing import route_app
from kameng_api.cli.terminal import REFUSED, Printing, fail, show, show_list
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import NotFound
from kameng_api.kit.ids import parse_public_id, public_id
from kameng_api.operators import queries as operators
from kameng_api.orders.rules import NO_EVIDENCE
from kameng_api.suppliers import route_queries as routes
from kameng_api.suppliers.route_queries import Decided, Period
from kameng_api.suppliers.routing.backtest import Estimate, Result, compare, judge
from kameng_api.suppliers.routing.facts import Decision, Event
from kameng_api.suppliers.routing.record import is_same, recall, replay
from kameng_api.suppliers.routing.shadow import differences, needs_own_health, read_tuning
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

__all__ = ["route_app"]

_WARM_UP: Final = timedelta(hours=1)
"""Health that is folded anew begins so long before the period."""


async def _choices_of(bench: Bench, order_id: UUID) -> list[Decided]:
    place = await operators.get_place(bench.tx, order_id)
    [order] = await operators.list_orders(bench.tx, merchant_id=place.merchant_id, order_id=order_id, limit=1)
    return await routes.list_of_order(bench.tx, place.book_id, order_id, order["created_at"], order["completed_at"])


@route_app.command("why")
def why(order: str) -> None:
    """Why an order went where it went: one sentence per step."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.step(n, one) for n, one in enumerate(await _choices_of(bench, read_id("ord", order)), 1)]

    steps = run(work)
    if Printing.as_json:
        show_list(steps, ())
        return
    for step in steps:
        sys.stdout.write(f"{step['n']}. {step['decided_at']} {step['sentence']}\n")
    if not steps:
        sys.stdout.write("no choice has been written down\n")


# ---- made again ------------------------------------------------------------------------------------------------------


@route_app.command("replay")
def replay_choices(which: Annotated[str, typer.Argument(metavar="ID", help="an order (ord_…) or the inputs of one choice (rti_…)")]) -> None:
    """Make every stored choice again, bit for bit; status 1 when one differs or cannot be made."""

    async def work(bench: Bench) -> list[tuple[UUID, Decided | None, bytes | None]]:
        inputs_id = parse_public_id(shapes.INPUTS_PREFIX, which)
        if inputs_id is None:
            return [(one.inputs_id, one, one.row) for one in await _choices_of(bench, read_id("ord", which))]
        row = await routes.find_inputs(bench.tx, inputs_id)
        if row is None:
            raise NotFound("no such inputs, or they are no longer kept")
        return [(inputs_id, None, row)]

    found = [_made_again(n, inputs_id, one, row) for n, (inputs_id, one, row) in enumerate(run(work), 1)]
    show_list(found, ("n", "inputs_id", "same", "decided", "differences"))
    if not found or not all(one["same"] for one in found):
        raise typer.Exit(1)


def _made_again(n: int, inputs_id: UUID, one: Decided | None, row: bytes | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"n": n, "inputs_id": public_id(shapes.INPUTS_PREFIX, inputs_id), "same": False, "decided": None}
    if row is None:
        return {**shown, "differences": [shapes.GONE]}
    try:
        stored, again = recall(row).decision, replay(row)
    except ValueError as trouble:
        return {**shown, "differences": [f"{shapes.UNREADABLE}: {trouble}"]}
    found = [] if is_same(stored, again) else _differences(stored, again)
    if one is not None and (one.action, one.channel_id, one.reason) != (stored.action.value, stored.channel, stored.reason):
        found.append(f"the order's row says {one.action} {one.channel_id or '-'} {one.reason}")
    return {**shown, "same": not found, "decided": f"{stored.action.value} {stored.channel or '-'}", "differences": found}


def _differences(stored: Decision, again: Decision) -> list[str]:
    found = [
        f"{name}: stored {getattr(stored, name)!s}, now {getattr(again, name)!s}"
        for name in ("action", "reason", "channel", "until_s")
        if repr(getattr(stored, name)) != repr(getattr(again, name))
    ]
    if len(stored.seen) != len(again.seen):
        return [*found, f"channels: stored {len(stored.seen)}, now {len(again.seen)}"]
    for before, after in zip(stored.seen, again.seen, strict=True):
        for name in ("channel", "code", "value", "until"):
            old, new = getattr(before, name), getattr(after, name)
            if str(old) != str(new):
                found.append(f"{before.channel} {name}: stored {old!s}, now {new!s}")
    return found


# ---- what another would have been worth ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    begin: datetime
    end: datetime
    environment: str
    candidate: Tuning | None
    share: float
    most: int

    @property
    def folds(self) -> bool:
        return self.candidate is not None and needs_own_health(self.candidate)


@route_app.command("backtest")
def backtest(
    begin: Annotated[str, typer.Option("--from", help="orders accepted from this RFC 3339 time on")],
    end: Annotated[str | None, typer.Option("--to", help="and before this one; now if left out")] = None,
    tuning: Annotated[list[str] | None, typer.Option(help="FILE of JSON, a JSON object, or field=value; may be repeated")] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="judge the candidate that ran beside the live router instead")] = False,
    environment: Annotated[Literal["live", "test"], typer.Option("--environment", "-e")] = "live",
    share: Annotated[float, typer.Option(min=0.0001, max=1.0, help="of the orders, picked by their ids")] = 1.0,
    most: Annotated[int, typer.Option(min=1, max=1_000_000, help="orders at most")] = 100_000,
) -> None:
    """What the current and a candidate tuning would have been worth on the recorded orders of a period.

    Where a tuning would have chosen as recorded, what really came of the order counts; from the first step at which it differs, the router's
    own one-step model does. The output says how much is which, and how far the model was off where it can be checked.
    """
    if shadow and tuning:
        fail("--shadow judges the candidate that ran; it takes no --tuning", REFUSED)
    until = utc_now() if end is None else _instant("--to", end)
    asked = _Asked(_instant("--from", begin), until, environment, None if shadow else _read_tuning(tuning or ()), share, most)

    async def work(bench: Bench) -> tuple[Period, list[Event]]:
        period = await routes.load_period(bench.tx, asked.begin, asked.end, environment, NO_EVIDENCE, share=share, most=most)
        events: list[Event] = []
        if asked.folds:
            events = await routes.load_events(bench.tx, asked.begin - _WARM_UP, asked.end, environment, NO_EVIDENCE)
        return period, events

    period, events = run(work)
    try:
        judged = judge(period.inputs, asked.candidate, events=events)
    except ValueError as trouble:
        fail(f"a stored choice cannot be read: {trouble}", REFUSED)
    _show_results(asked, period, compare(period.ended, judged))


def _instant(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.min  # noqa: DTZ901  refused below, as every time without a zone
    if at.tzinfo is None or not 2000 <= at.year < 2100:
        fail(f"{option} wants a time with its zone, such as 2026-11-22T12:00:00Z", REFUSED)
    return at


def _read_tuning(texts: Sequence[str]) -> Tuning:
    try:
        return read_tuning([text if "=" in text or text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8") for text in texts])
    except (ValueError, OSError) as trouble:
        fail(f"--tuning: {trouble}", REFUSED)


def _show_results(asked: _Asked, period: Period, results: Sequence[Result]) -> None:
    answer: dict[str, Any] = {
        "from": asked.begin.isoformat(),
        "to": asked.end.isoformat(),
        "environment": asked.environment,
        "current": DEFAULT.version,
        "candidate": "the recorded shadow" if asked.candidate is None else {"version": asked.candidate.version, **differences(asked.candidate)},
        "readings": "folded anew from the recorded attempts, for both" if asked.folds else "as recorded",
        "share": asked.share,
        "left_out": period.unfinished,
        "cut": period.cut,
        "results": [_result(one) for one in results],
    }
    if Printing.as_json:
        show(answer)
        return
    show({name: value for name, value in answer.items() if name != "results"})
    for one in results:
        sys.stdout.write("\n" + "\n".join(_sentences(one)) + "\n")
    if period.cut:
        sys.stdout.write(f"\nThere are more orders than {asked.most}: these are the first by book; take a --share of all instead.\n")
    if not results:
        sys.stdout.write("\nNothing to compare: no finished order of this period has all its choices on record.\n")


def _result(one: Result) -> dict[str, Any]:
    return {
        "currency": one.currency,
        "orders": one.orders,
        "choices": one.steps,
        "without_shadow": one.unshadowed,
        "value_per_1000_orders": {
            "recorded": _estimate(one.recorded),
            "current": _estimate(one.current),
            "candidate": _estimate(one.candidate),
            "candidate_less_current": _estimate(one.difference),
        },
        "matched": {"current": round(one.current_matched, 4), "candidate": round(one.candidate_matched, 4)},
        "model_error_per_1000_orders": _estimate(one.model_error),
        "holds_learnt_from": one.holds,
        "first_differences": [{"change": change, "orders": n} for change, n in one.changes],
    }


def _estimate(one: Estimate) -> dict[str, float | None]:
    known = one.low > float("-inf")
    return {"mean": round(one.mean, 4), "low": round(one.low, 4) if known else None, "high": round(one.high, 4) if known else None}


def _sentences(one: Result) -> list[str]:
    lines = [
        f"{one.currency}, per 1,000 orders, from {one.orders} orders with {one.steps} choices"
        " (95 % intervals; orders of the same five minutes count as one observation):",
        f"  what really came of them    {_interval(one.recorded)}",
        f"  the current tuning          {_interval(one.current)}   {one.current_matched:.1%} of the orders as recorded, the rest estimated",
        f"  the candidate               {_interval(one.candidate)}   {one.candidate_matched:.1%} of the orders as recorded, the rest estimated",
        f"  candidate less current      {_interval(one.difference)}",
        f"  error of the estimates      {_interval(one.model_error)}   what came of the recorded choices, less what the model had said of them",
    ]
    lines += [f"  {n} orders: {change}" for change, n in one.changes]
    if one.candidate_matched < 1.0 or one.current_matched < 1.0:
        lines.append("  Estimated orders are worth what the model says of the first choice that differs: trust them no further than its error.")
    if one.unshadowed:
        lines.append(f"  {one.unshadowed} orders are left out: no shadow ran at one of their choices.")
    return lines


def _interval(one: Estimate) -> str:
    return f"{one.mean:12.2f} (too few to say how sure)" if one.low == float("-inf") else f"{one.mean:12.2f}  [{one.low:.2f} … {one.high:.2f}]"
