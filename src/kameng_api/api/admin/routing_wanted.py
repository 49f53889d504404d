"""What an operator sends to say something about routing, one model for each kind of rule."""

from datetime import time
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from kameng_api.api.admin.desk import Amount, Instant, Rate, read_id
from kameng_api.api.routes import WireModel
from kameng_api.catalog import hand
from kameng_api.catalog.hand import Facts, Rule, Scope
from kameng_api.kit.errors import FieldError, Invalid

Text = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Words = Annotated[list[Text], Field(max_length=100)]
ChannelIds = Annotated[list[Text], Field(min_length=1, max_length=50)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_NOBODY = UUID(int=0)


class Said(WireModel):
    """What every rule has. Saying it again for the same scope replaces what was said. `reason` is for whoever asks why."""

    starts_at: Instant | None = None
    expires_at: Instant | None = None
    reason: str = Field(min_length=1, max_length=500)

    def scope(self) -> Scope:
        """Whom it is about. Raises NotFound for what is no merchant's id."""
        given = {name: getattr(self, name, None) for name in ("channel_id", "sku", "level")}
        merchant = getattr(self, "merchant_id", None)
        return Scope(**given, merchant_id=None if merchant is None else read_id("mer", merchant), name=getattr(self, "name", ""))

    def facts(self) -> Facts:
        """What it says."""
        raise NotImplementedError

    def rule(self, made_by: str) -> Rule:
        """Not stored yet: the id is not its own."""
        return Rule(_NOBODY, self.scope(), self.facts(), self.reason, made_by, self.starts_at, self.expires_at)


class ForOrders(Said):
    """About orders: of one SKU, and of one merchant or one level. What is left out means all."""

    sku: Text | None = None
    merchant_id: Text | None = None
    level: Text | None = None


class ForChannel(Said):
    """About one channel, or what it sells of one SKU."""

    channel_id: Text
    sku: Text | None = None


class PinWanted(ForOrders):
    """These channels first, in this order. `hard`: these alone, whatever their health."""

    channels: ChannelIds
    hard: bool = False

    def facts(self) -> Facts:
        return hand.Pin(tuple(self.channels), self.hard)


class BanWanted(ForOrders):
    """The channel gets none of these orders."""

    channel_id: Text

    def facts(self) -> Facts:
        return hand.Ban()


class AllowWanted(ForOrders):
    """Only these channels get these orders. Several lists that fit one order all hold."""

    channels: ChannelIds

    def facts(self) -> Facts:
        return hand.Allow(tuple(self.channels))


class WeightWanted(ForChannel):
    """Multiplies what the channel is worth: `"1"` changes nothing, `"0.5"` halves it."""

    factor: Rate

    def facts(self) -> Facts:
        return hand.Weight(self.factor)


class CommitmentWanted(ForChannel):
    """`target_units` or `target_amount` (our cost) a period. While it lags, a purchase counts up to `bonus_rate` of its cost more."""

    name: str = Field(default="", max_length=64)
    target_units: int | None = Field(default=None, ge=1)
    target_amount: Amount | None = None
    period: Literal["day", "week", "month"]
    bonus_rate: Rate

    def facts(self) -> Facts:
        if (self.target_units is None) == (self.target_amount is None):
            raise Invalid("a commitment has one target", errors=[FieldError("/target_units", "required", "target_units or target_amount")])
        counts = hand.Counted.COST if self.target_units is None else hand.Counted.UNITS
        target = self.target_amount if self.target_units is None else self.target_units
        assert target is not None
        return hand.Commitment(target, counts, hand.Period(self.period), self.bonus_rate)


class MaintenanceWanted(ForChannel):
    """Once, from `starts_at` to `expires_at`; or on `weekdays` (0 Monday to 6 Sunday), from `at` for so many `minutes`."""

    name: str = Field(default="", max_length=64)
    weekdays: list[int] = Field(default_factory=list, max_length=7)
    at: Clock | None = None
    minutes: int | None = None
    timezone: str = Field(default="Asia/Shanghai", max_length=64)

    def facts(self) -> Facts:
        at = None if self.at is None else time.fromisoformat(self.at)
        return hand.Maintenance(tuple(self.weekdays), at, self.minutes, self.timezone)


class ForceWanted(ForChannel):
    """`open`: asked nothing, not even as a probe. `closed`: asked whatever its health. Ends by itself, at most 31 days ahead."""

    state: Literal["open", "closed"]

    def facts(self) -> Facts:
        return hand.Force(self.state)


class StakesWanted(ForOrders):
    """As shares of the order's price: what it costs to leave it undelivered, to fail once, to wait a second. `premium`: never a probe."""

    undelivered_rate: Rate | None = None
    failed_attempt_rate: Rate | None = None
    second_rate: Rate | None = None
    premium: bool | None = None

    def facts(self) -> Facts:
        return hand.Stakes(self.undelivered_rate, self.failed_attempt_rate, self.second_rate, self.premium)


class TermsWanted(ForChannel):
    """What it may be sent. With a SKU: where that differs from the channel; `cap`, `qps` and the two limits of money are the channel's alone."""

    regions: Words | None = None
    carriers: Words | None = None
    face_min: Amount | None = None
    face_max: Amount | None = None
    qualifications: Words | None = None
    quote_ttl_s: int | None = None
    cap: int | None = None
    qps: int | None = None
    wallet_floor: Amount | None = None
    unqueryable_limit: Amount | None = None

    def facts(self) -> Facts:
        return hand.Terms(
            regions=_words(self.regions),
            carriers=_words(self.carriers),
            face_min=self.face_min,
            face_max=self.face_max,
            qualifications=_words(self.qualifications),
            quote_ttl_s=self.quote_ttl_s,
            cap=self.cap,
            qps=self.qps,
            wallet_floor=self.wallet_floor,
            unqueryable_limit=self.unqueryable_limit,
        )


def _words(given: list[str] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(given)


class NeedsWanted(ForOrders):
    """What a channel must fit to get these orders: the target's region and carrier, qualifications such as `invoice`."""

    region: Text | None = None
    carrier: Text | None = None
    qualifications: Words = Field(default_factory=list)

    def facts(self) -> Facts:
        return hand.Needs(self.region, self.carrier, tuple(self.qualifications))
