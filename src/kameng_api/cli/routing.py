"""`kameng route …`: what people say about channels, and what of it stands."""

import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from kameng_api.api.admin import routing_shapes as shapes
from kameng_api.catalog import actions, queries
from kameng_api.catalog import hand as words
from kameng_api.catalog.hand import Facts, Kind, Rule, Scope
from kameng_api.catalog.rules import parse_rate
from kameng_api.cli.bench import Bench, read_amount, read_id, run
from kameng_api.cli.terminal import show, show_list
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.operators.rules import permission_for_rule

route_app = typer.Typer(no_args_is_help=True)

Sku = Annotated[str | None, typer.Option(help="one SKU; all if left out")]
Merchant = Annotated[str | None, typer.Option(help="one merchant, by id or name")]
Level = Annotated[str | None, typer.Option(help="one merchant level")]
Name = Annotated[str, typer.Option(help="tells several for one channel apart")]
Reason = Annotated[str, typer.Option(help="why, for whoever asks")]
Begin = Annotated[str | None, typer.Option("--from", help="RFC 3339 time; at once if left out")]
End = Annotated[str | None, typer.Option("--until", help="RFC 3339 time")]
Lasting = Annotated[str | None, typer.Option("--for", help="instead of --until: 90m, 2h, 3d")]
_LASTING: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_COLUMNS: Final = ("id", "kind", "channel_id", "sku", "merchant_id", "level", "facts", "expires_at", "counts", "reason")


def _say(
    facts: Callable[[], Facts],
    reason: str,
    *,
    kind: Kind,
    channel: str | None = None,
    sku: str | None = None,
    merchant: str | None = None,
    level: str | None = None,
    name: str = "",
    begin: str | None = None,
    end: str | None = None,
    lasting: str | None = None,
) -> None:
    """Say one thing, in one transaction, and show it. `facts` is called where what it raises is told well."""

    async def work(bench: Bench) -> dict[str, Any]:
        now = utc_now()
        whose: UUID | None = None if merchant is None else (await bench.merchant(merchant)).merchant_id
        starts_at = _instant("/starts_at", begin)
        rule = Rule(
            UUID(int=0), Scope(channel, sku, whose, level, name), facts(), reason, bench.actor, starts_at, _end(end, lasting, starts_at or now)
        )
        stored, _ = await actions.put_rule(bench.tx, rule, now)
        shown = shapes.rule(stored, now)
        await bench.audit(f"routing.{kind}_set", shapes.subject(shown), **shown)
        return shown

    show(run(work, permission=permission_for_rule(kind)))


def _instant(pointer: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.min  # noqa: DTZ901  refused below, as every time without a zone
    if at.tzinfo is None or not 2000 <= at.year < 2100:
        raise _wrong(pointer, "a time with its zone, such as 2026-11-22T12:00:00Z")
    return at


def _end(until: str | None, lasting: str | None, begin: datetime) -> datetime | None:
    if lasting is None:
        return _instant("/expires_at", until)
    match = _LASTING.fullmatch(lasting)
    if until is not None or match is None:
        raise _wrong("/expires_at", "--until with a time, or --for with minutes, hours or days such as 90m")
    return begin + timedelta(**{_UNITS[match[2]]: int(match[1])})


def _wrong(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, "format", detail)])


def _rate(pointer: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        raise _wrong(pointer, str(error)) from None


def _needed_rate(pointer: str, text: str) -> int:
    rate = _rate(pointer, text)
    assert rate is not None
    return rate


def _amount(text: str | None) -> int | None:
    return None if text is None else read_amount(text)


def _tuple(given: list[str] | None) -> tuple[str, ...] | None:
    return tuple(given) if given else None


@route_app.command("pin")
def pin(
    channels: list[str], reason: Reason, sku: Sku = None, merchant: Merchant = None, level: Level = None,
    hard: Annotated[bool, typer.Option("--hard", help="these alone, whatever their health")] = False,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """Ask these channels first, in this order."""
    _say(
        lambda: words.Pin(tuple(channels), hard), reason,
        kind=Kind.PIN, sku=sku, merchant=merchant, level=level, begin=begin, end=end, lasting=lasting,
    )  # fmt: skip


@route_app.command("ban")
def ban(
    channel: str, reason: Reason, sku: Sku = None, merchant: Merchant = None, level: Level = None,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """Do not ask this channel."""
    _say(words.Ban, reason, kind=Kind.BAN, channel=channel, sku=sku, merchant=merchant, level=level, begin=begin, end=end, lasting=lasting)


@route_app.command("allow")
def allow(
    channels: list[str], reason: Reason, sku: Sku = None, merchant: Merchant = None, level: Level = None,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """Ask these channels alone."""
    _say(
        lambda: words.Allow(tuple(channels)), reason,
        kind=Kind.ALLOW, sku=sku, merchant=merchant, level=level, begin=begin, end=end, lasting=lasting,
    )  # fmt: skip


@route_app.command("weight")
def weight(
    channel: str, factor: Annotated[str, typer.Argument(help="1 changes nothing, 0.5 halves it")], reason: Reason, sku: Sku = None,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """Multiply what a channel is worth."""
    _say(
        lambda: words.Weight(_needed_rate("/factor", factor)), reason,
        kind=Kind.WEIGHT, channel=channel, sku=sku, begin=begin, end=end, lasting=lasting,
    )  # fmt: skip


@route_app.command("commit")
def commit(
    channel: str, period: Annotated[words.Period, typer.Argument(help="the period of the target")], reason: Reason,
    bonus_rate: Annotated[str, typer.Option(help="of our cost: what a purchase is worth more while it lags")],
    units: Annotated[int | None, typer.Option(help="the target in units")] = None,
    amount: Annotated[str | None, typer.Option(help="the target in money: our cost")] = None,
    sku: Sku = None, name: Name = "", begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """So much was promised to the supplier each day, week or month."""

    def facts() -> Facts:
        if (units is None) == (amount is None):
            raise _wrong("/target_units", "--units or --amount")
        target = _amount(amount) if units is None else units
        assert target is not None
        counts = words.Counted.COST if units is None else words.Counted.UNITS
        return words.Commitment(target, counts, period, _needed_rate("/bonus_rate", bonus_rate))

    _say(facts, reason, kind=Kind.COMMITMENT, channel=channel, sku=sku, name=name, begin=begin, end=end, lasting=lasting)


@route_app.command("maintenance")
def maintenance(
    channel: str, reason: Reason,
    weekday: Annotated[list[int] | None, typer.Option(help="every week: 0 Monday to 6 Sunday; may be repeated")] = None,
    at: Annotated[str | None, typer.Option(help="every week: when it begins, such as 02:00")] = None,
    minutes: Annotated[int | None, typer.Option(help="every week: how long it is")] = None,
    timezone: str = "Asia/Shanghai", sku: Sku = None, name: Name = "", begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """The supplier is away: from --from to --until, or every week."""

    def facts() -> Facts:
        try:
            clock = None if at is None else time.fromisoformat(at)
        except ValueError:
            raise _wrong("/at", "a time of day such as 02:00") from None
        if clock is not None and (clock.tzinfo is not None or clock.second or clock.microsecond):
            raise _wrong("/at", "hours and minutes; the zone is --timezone")
        return words.Maintenance(tuple(weekday or ()), clock, minutes, timezone)

    _say(facts, reason, kind=Kind.MAINTENANCE, channel=channel, sku=sku, name=name, begin=begin, end=end, lasting=lasting)


@route_app.command("force")
def force(
    channel: str, state: Annotated[str, typer.Argument(help="open (asked nothing) or closed (asked whatever its health)")], reason: Reason,
    sku: Sku = None, begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """Open or close a circuit by hand, for a while."""
    _say(lambda: words.Force(state), reason, kind=Kind.FORCE, channel=channel, sku=sku, begin=begin, end=end, lasting=lasting)


@route_app.command("stakes")
def stakes(
    reason: Reason, sku: Sku = None, merchant: Merchant = None, level: Level = None,
    undelivered: Annotated[str | None, typer.Option(help="share of the price lost when it is not delivered")] = None,
    failed_attempt: Annotated[str | None, typer.Option(help="share of the price lost per failed attempt")] = None,
    second: Annotated[str | None, typer.Option(help="share of the price lost per second of waiting")] = None,
    premium: Annotated[bool | None, typer.Option("--premium/--common", help="never a probe")] = None,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """What it costs when such an order fails or waits."""
    _say(
        lambda: words.Stakes(
            _rate("/undelivered_rate", undelivered), _rate("/failed_attempt_rate", failed_attempt), _rate("/second_rate", second), premium
        ),
        reason, kind=Kind.STAKES, sku=sku, merchant=merchant, level=level, begin=begin, end=end, lasting=lasting,
    )  # fmt: skip


@route_app.command("terms")
def terms(
    channel: str, reason: Reason, sku: Sku = None,
    region: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    carrier: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    qualification: Annotated[list[str] | None, typer.Option(help="what it can do besides, such as invoice; may be repeated")] = None,
    face_min: str | None = None, face_max: str | None = None,
    quote_ttl_s: Annotated[int | None, typer.Option(help="a cost said longer ago is not believed")] = None,
    cap: Annotated[int | None, typer.Option(help="contract: so many under way")] = None,
    qps: Annotated[int | None, typer.Option(help="contract: so many sent in a second")] = None,
    wallet_floor: Annotated[str | None, typer.Option(help="what must stay in our wallet there")] = None,
    unqueryable_limit: Annotated[str | None, typer.Option(help="largest cost, where it cannot be asked what became of an order")] = None,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """What a channel may be sent."""
    _say(
        lambda: words.Terms(
            regions=_tuple(region), carriers=_tuple(carrier), face_min=_amount(face_min), face_max=_amount(face_max),
            qualifications=_tuple(qualification), quote_ttl_s=quote_ttl_s, cap=cap, qps=qps,
            wallet_floor=_amount(wallet_floor), unqueryable_limit=_amount(unqueryable_limit),
        ),
        reason, kind=Kind.TERMS, channel=channel, sku=sku, begin=begin, end=end, lasting=lasting,
    )  # fmt: skip


@route_app.command("needs")
def needs(
    reason: Reason, sku: Sku = None, merchant: Merchant = None, level: Level = None, region: str | None = None, carrier: str | None = None,
    qualification: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    begin: Begin = None, end: End = None, lasting: Lasting = None,
) -> None:  # fmt: skip
    """What a channel must fit to get such orders."""
    _say(
        lambda: words.Needs(region, carrier, tuple(qualification or ())), reason,
        kind=Kind.NEEDS, sku=sku, merchant=merchant, level=level, begin=begin, end=end, lasting=lasting,
    )  # fmt: skip


@route_app.command("rules")
def list_rules(
    kind: Annotated[Kind | None, typer.Option()] = None, channel: str | None = None, sku: str | None = None,
    merchant: Merchant = None, level: str | None = None,
    over: Annotated[bool, typer.Option("--over", help="those past their end too")] = False,
) -> None:  # fmt: skip
    """What has been said and has not ended."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        whose = None if merchant is None else (await bench.merchant(merchant)).merchant_id
        found = await queries.list_rules(bench.tx, kind=kind, channel_id=channel, sku=sku, merchant_id=whose, level=level, over=over)
        now = utc_now()
        return [shapes.rule(one, now) for one in found]

    show_list(run(work), _COLUMNS)


@route_app.command("remove")
def remove_rule(rule: str) -> None:
    """Take back what was said."""

    async def work(bench: Bench) -> dict[str, Any]:
        gone = await actions.remove_rule(bench.tx, read_id("rul", rule))
        bench.require(permission_for_rule(gone.kind))
        shown = shapes.rule(gone, utc_now()) | {"counts": False}
        await bench.audit(f"routing.{gone.kind}_removed", shapes.subject(shown), **shown)
        return shown

    show(run(work, permission="routing:switch"))
