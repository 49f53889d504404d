"""The operator's hand on routing (路由): what people may say about channels, and what of it counts at a moment. No I/O, no clock.

A rule has a kind, a scope (channel, SKU, merchant, level: what is left out means all), facts of its kind, and perhaps a period. Where several
rules of a kind could answer one question, the narrowest does: a merchant's own before its level's before everybody's, then the SKU's before
all SKUs'. Bans, allow lists and commitments add up instead. Rates are parts per million, amounts 1/10000 units.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter

BUSINESS_ZONE: Final = ZoneInfo("Asia/Shanghai")
"""Days, weeks and months of volume commitments begin here at midnight; weeks on Monday."""
NEAR_S: Final = 86_400.0
"""A maintenance window further away than this is not near."""


class Kind(StrEnum):
    """What a rule says."""

    PIN = "pin"  # these channels first, in this order; hard: these alone
    BAN = "ban"  # not this channel
    ALLOW = "allow"  # these channels alone
    WEIGHT = "weight"  # a factor on what the channel is worth
    COMMITMENT = "commitment"  # so much a day, week or month was promised to the supplier
    MAINTENANCE = "maintenance"  # the supplier is away, once or every week
    FORCE = "force"  # the circuit is open, or closed, because a person says so
    STAKES = "stakes"  # what an order of this kind costs when it fails or waits
    TERMS = "terms"  # what a channel can and may do
    NEEDS = "needs"  # what an order asks of a channel


class Period(StrEnum):
    """How long a commitment counts before it begins anew."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Counted(StrEnum):
    """What a commitment is a number of."""

    UNITS = "units"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class Pin:
    """Channels in the order in which they are to be asked. Soft: the others come after them. Hard: nobody else is asked, ill or not."""

    channels: tuple[str, ...]
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Ban:
    """The channel of the scope is not asked."""


@dataclass(frozen=True, slots=True)
class Allow:
    """Only these channels are asked."""

    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """Multiplies the channel's value; 1,000,000 changes nothing."""

    factor_ppm: int


@dataclass(frozen=True, slots=True)
class Commitment:
    """`target` units, or cost in 1/10000 units, a period. While it lags, a purchase is worth up to `bonus_ppm` of its cost more."""

    target: int
    counts: Counted
    period: Period
    bonus_ppm: int


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Without weekdays the rule's own period is the window; with them (0 Monday … 6 Sunday) it comes back every week at `at`."""

    weekdays: tuple[int, ...] = ()
    at: time | None = None
    minutes: int | None = None
    timezone: str = "Asia/Shanghai"


@dataclass(frozen=True, slots=True)
class Force:
    """`open`: asked nothing, not even as a probe. `closed`: asked like any other, whatever its health."""

    state: str


@dataclass(frozen=True, slots=True)
class Stakes:
    """Millionths of the order's price: left undelivered, per failed attempt, per second of waiting. None: as the next wider rule says."""

    undelivered_ppm: int | None = None
    failed_attempt_ppm: int | None = None
    second_ppm: int | None = None
    premium: bool | None = None
    """Never used as a probe."""


@dataclass(frozen=True, slots=True)
class Terms:
    """None: not restricted, or as the next wider rule says. The last four are the channel's own and hold for all its SKUs."""

    regions: tuple[str, ...] | None = None
    carriers: tuple[str, ...] | None = None
    face_min: int | None = None
    face_max: int | None = None
    qualifications: tuple[str, ...] | None = None
    """What it can do besides delivering, such as `invoice`."""
    quote_ttl_s: int | None = None
    """A cost said longer ago is no longer believed."""
    cap: int | None = None
    """Contract: how many may be under way."""
    qps: int | None = None
    """Contract: how many may be sent in a second."""
    wallet_floor: int | None = None
    """What must stay in our wallet there."""
    unqueryable_limit: int | None = None
    """The largest cost sent to it while it cannot be asked what became of an order."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a channel must fit. Qualifications of all rules add up."""

    region: str | None = None
    carrier: str | None = None
    qualifications: tuple[str, ...] = ()


Facts = Pin | Ban | Allow | Weight | Commitment | Maintenance | Force | Stakes | Terms | Needs

FACTS: Final[Mapping[Kind, type[Facts]]] = {
    Kind.PIN: Pin,
    Kind.BAN: Ban,
    Kind.ALLOW: Allow,
    Kind.WEIGHT: Weight,
    Kind.COMMITMENT: Commitment,
    Kind.MAINTENANCE: Maintenance,
    Kind.FORCE: Force,
    Kind.STAKES: Stakes,
    Kind.TERMS: Terms,
    Kind.NEEDS: Needs,
}
KINDS: Final = {facts: kind for kind, facts in FACTS.items()}


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a rule is about; None means all. `name` tells several of one kind and scope apart."""

    channel_id: str | None = None
    sku: str | None = None
    merchant_id: UUID | None = None
    level: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing an operator has said. It counts from `starts_at` until `expires_at`."""

    rule_id: UUID
    scope: Scope
    facts: Facts
    reason: str
    made_by: str
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[type(self.facts)]

    def counts(self, now: datetime) -> bool:
        """Whether it counts at `now`."""
        return (self.starts_at is None or self.starts_at <= now) and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who orders: the merchant and its level (会员等级)."""

    merchant_id: UUID | None = None
    level: str | None = None


ANYBODY: Final = Buyer()


@dataclass(frozen=True, slots=True)
class Hand:
    """All rules as a snapshot of the catalogue holds them. `personal`: some of them ask who orders."""

    about_channels: Mapping[str, Mapping[Kind, tuple[Rule, ...]]] = field(default_factory=dict)
    about_orders: Mapping[Kind, Mapping[UUID | None, tuple[Rule, ...]]] = field(default_factory=dict)
    """By the merchant they are about, so that ten thousand merchants with rules of their own cost an order nothing; None: not about one."""
    personal: bool = False


_ABOUT_CHANNELS: Final = frozenset({Kind.WEIGHT, Kind.COMMITMENT, Kind.MAINTENANCE, Kind.FORCE, Kind.TERMS})


def gather(rules: Iterable[Rule]) -> Hand:
    """Rules in any order, ready to be asked: the narrowest first."""
    channels: dict[str, dict[Kind, list[Rule]]] = {}
    orders: dict[Kind, dict[UUID | None, list[Rule]]] = {}
    personal = False
    for rule in sorted(rules, key=lambda r: (-_narrowness(r.scope), r.rule_id)):
        kind = rule.kind
        if kind in _ABOUT_CHANNELS:
            assert rule.scope.channel_id is not None, "the definition was checked"
            channels.setdefault(rule.scope.channel_id, {}).setdefault(kind, []).append(rule)
        else:
            orders.setdefault(kind, {}).setdefault(rule.scope.merchant_id, []).append(rule)
            personal = personal or rule.scope.merchant_id is not None or rule.scope.level is not None
    return Hand(
        {channel: {kind: tuple(some) for kind, some in kinds.items()} for channel, kinds in channels.items()},
        {kind: {merchant: tuple(some) for merchant, some in owners.items()} for kind, owners in orders.items()},
        personal,
    )


def _narrowness(scope: Scope) -> int:
    return 4 * (scope.merchant_id is not None) + 2 * (scope.level is not None) + (scope.sku is not None)


# ---- what counts for an order --------------------------------------------------------------------------------------


def _for_order(hand: Hand, kind: Kind, buyer: Buyer, sku: str, now: datetime) -> list[Rule]:
    owners = hand.about_orders.get(kind)
    if owners is None:
        return []
    own = owners.get(buyer.merchant_id, ()) if buyer.merchant_id is not None else ()
    return [
        rule
        for rule in own + owners.get(None, ())  # a merchant's own are narrower than all others
        if (rule.scope.sku is None or rule.scope.sku == sku)
        and (rule.scope.level is None or rule.scope.level == buyer.level)
        and rule.counts(now)
    ]


def pin_of(hand: Hand, buyer: Buyer, sku: str, now: datetime) -> Pin | None:
    """The narrowest pin."""
    for rule in _for_order(hand, Kind.PIN, buyer, sku, now):
        assert isinstance(rule.facts, Pin)
        return rule.facts
    return None


def banned_channels(hand: Hand, buyer: Buyer, sku: str, now: datetime) -> frozenset[str]:
    """Every channel that some ban closes to this order."""
    found = _for_order(hand, Kind.BAN, buyer, sku, now)
    return frozenset() if not found else frozenset(rule.scope.channel_id for rule in found if rule.scope.channel_id is not None)


def allowed_channels(hand: Hand, buyer: Buyer, sku: str, now: datetime) -> frozenset[str] | None:
    """The channels that every allow list names; None without a list."""
    allowed: frozenset[str] | None = None
    for rule in _for_order(hand, Kind.ALLOW, buyer, sku, now):
        assert isinstance(rule.facts, Allow)
        listed = frozenset(rule.facts.channels)
        allowed = listed if allowed is None else allowed & listed
    return allowed


def stakes_of(hand: Hand, buyer: Buyer, sku: str, now: datetime) -> Stakes:
    """Each value from the narrowest rule that gives it."""
    found = _for_order(hand, Kind.STAKES, buyer, sku, now)
    return _merged(Stakes, found) if found else _NO_STAKES


def needs_of(hand: Hand, buyer: Buyer, sku: str, now: datetime) -> Needs:
    """Region and carrier from the narrowest rule that gives one; the qualifications of all."""
    found = _for_order(hand, Kind.NEEDS, buyer, sku, now)
    if not found:
        return _NO_NEEDS
    one = _merged(Needs, found)
    asked = {word for rule in found if isinstance(rule.facts, Needs) for word in rule.facts.qualifications}
    return Needs(one.region, one.carrier, tuple(sorted(asked)))


Merged = TypeVar("Merged", Stakes, Needs, Terms)


def _merged(kind: type[Merged], rules: Sequence[Rule]) -> Merged:
    values: dict[str, Any] = {}
    for rule in rules:
        for name in _NAMES[kind]:
            value = getattr(rule.facts, name)
            if value is not None and name not in values:
                values[name] = value
    return kind(**values)


_NAMES: Final[Mapping[type[Any], tuple[str, ...]]] = {kind: tuple(one.name for one in fields(kind)) for kind in (Stakes, Needs, Terms)}


# ---- what counts for a channel -------------------------------------------------------------------------------------


def _for_channel(hand: Hand, kind: Kind, channel_id: str, sku: str) -> list[Rule]:
    found = hand.about_channels.get(channel_id)
    if found is None:
        return []
    return [rule for rule in found.get(kind, ()) if rule.scope.sku is None or rule.scope.sku == sku]


def weight_of(hand: Hand, channel_id: str, sku: str, now: datetime) -> float:
    """The operator's factor on the channel's value; 1.0 without one."""
    for rule in _for_channel(hand, Kind.WEIGHT, channel_id, sku):
        if rule.counts(now) and isinstance(rule.facts, Weight):
            return rule.facts.factor_ppm / 1_000_000
    return 1.0


def forced_state(hand: Hand, channel_id: str, sku: str, now: datetime) -> str | None:
    """`open`, `closed`, or None: nobody forces it."""
    for rule in _for_channel(hand, Kind.FORCE, channel_id, sku):
        if rule.counts(now) and isinstance(rule.facts, Force):
            return rule.facts.state
    return None


def terms_of(hand: Hand, channel_id: str, sku: str, now: datetime) -> Terms:
    """Each value from the SKU's rule, else from the channel's."""
    found = _for_channel(hand, Kind.TERMS, channel_id, sku)
    return _merged(Terms, [rule for rule in found if rule.counts(now)]) if found else _NO_TERMS


_NO_TERMS: Final = Terms()
_NO_STAKES: Final = Stakes()
_NO_NEEDS: Final = Needs()


def commitments_of(hand: Hand, channel_id: str, sku: str, now: datetime) -> list[tuple[UUID, Commitment]]:
    """Every promise that a purchase of this SKU there helps to keep, with its rule's id."""
    return [
        (rule.rule_id, rule.facts)
        for rule in _for_channel(hand, Kind.COMMITMENT, channel_id, sku)
        if rule.counts(now) and isinstance(rule.facts, Commitment)
    ]


def list_commitments(hand: Hand, now: datetime) -> list[tuple[Rule, Commitment]]:
    """All of them, for whoever counts."""
    return [
        (rule, rule.facts)
        for kinds in hand.about_channels.values()
        for rule in kinds.get(Kind.COMMITMENT, ())
        if rule.counts(now) and isinstance(rule.facts, Commitment)
    ]


def maintenance_in_s(hand: Hand, channel_id: str, sku: str, now: datetime) -> float | None:
    """Seconds until the nearest window begins; 0 or less inside one; None when none is near."""
    starts = [window[0] for rule in _for_channel(hand, Kind.MAINTENANCE, channel_id, sku) if (window := next_window(rule, now)) is not None]
    if not starts:
        return None
    wait_s = (min(starts) - now).total_seconds()
    return wait_s if wait_s <= NEAR_S else None


def next_window(rule: Rule, now: datetime) -> tuple[datetime, datetime] | None:
    """The window `now` is in, else the next one: (begin, end). None when none will come, or not within a week."""
    assert isinstance(rule.facts, Maintenance)
    if rule.facts.weekdays:
        return next((window for window in _weekly(rule.facts, now) if rule.counts(max(window[0], now))), None)
    begin, end = rule.starts_at or rule.created_at, rule.expires_at
    return None if begin is None or end is None or end <= now else (begin, end)


def _weekly(facts: Maintenance, now: datetime) -> Iterable[tuple[datetime, datetime]]:
    """This week's and the next week's windows that are not over, in order."""
    assert facts.at is not None and facts.minutes is not None, "the definition was checked"
    zone = zone_of(facts.timezone)
    today = now.astimezone(zone).date()
    for ahead in range(-1, 9):
        day = today + timedelta(days=ahead)
        if day.weekday() not in facts.weekdays:
            continue
        begin = datetime.combine(day, facts.at, zone).astimezone(now.tzinfo)
        end = begin + timedelta(minutes=facts.minutes)
        if end > now:
            yield begin, end


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Raises what ZoneInfo raises; the names of stored rules were checked."""
    return ZoneInfo(name)


def counts_now(rule: Rule, now: datetime) -> bool:
    """Whether it changes anything at this moment: a maintenance rule does inside its windows."""
    if rule.kind is not Kind.MAINTENANCE:
        return rule.counts(now)
    window = next_window(rule, now)
    return window is not None and window[0] <= now


# ---- periods -------------------------------------------------------------------------------------------------------


def period_days(period: Period, now: datetime) -> tuple[date, date]:
    """(first day, first day of the next period) in the business's time zone."""
    today = now.astimezone(BUSINESS_ZONE).date()
    if period is Period.DAY:
        return today, today + timedelta(days=1)
    if period is Period.WEEK:
        first = today - timedelta(days=today.weekday())
        return first, first + timedelta(days=7)
    first = today.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def elapsed_share(period: Period, now: datetime) -> float:
    """How much of the period is over: 0 at its beginning, towards 1 at its end."""
    begin, end = (datetime.combine(day, time(), BUSINESS_ZONE) for day in period_days(period, now))
    return (now - begin).total_seconds() / (end - begin).total_seconds()


# ---- stored form ---------------------------------------------------------------------------------------------------


@lru_cache
def _adapter(kind: Kind) -> TypeAdapter[Any]:
    return TypeAdapter(FACTS[kind])


def write_facts(facts: Facts) -> dict[str, Any]:
    """As JSON values; what is None is left out."""
    written: dict[str, Any] = _adapter(KINDS[type(facts)]).dump_python(facts, mode="json", exclude_none=True)
    return written


def read_facts(kind: Kind, stored: Mapping[str, Any]) -> Facts:
    """The inverse of `write_facts`."""
    read: Facts = _adapter(kind).validate_python(stored)
    return read


