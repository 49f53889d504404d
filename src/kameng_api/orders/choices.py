"""The choices of one dispatch round: alike orders are decided once, and every choice leaves a row from which it can be made again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from kameng_api.catalog.hand import ANYBODY, Buyer
from kameng_api.catalog.rules import Snapshot
from kameng_api.kit.ids import new_ulid
from kameng_api.orders.absorb import tried_channels
from kameng_api.orders.route_facts import NOTHING_UNDER_WAY, UnderWay, ask_of, options_of
from kameng_api.orders.rules import Order, magic_masked
from kameng_api.suppliers.actions import RouteDecision, RouteInputs
from kameng_api.suppliers.routing import record
from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Action, Ask, Code, Decision, Option, Reading
from kameng_api.suppliers.routing.record import Shadow
from kameng_api.suppliers.routing.shadow import shadow
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning
from kameng_api.suppliers.rules import Attempt, AttemptState

_SOON_S: Final = 0.2
"""When to look again at a channel that only this process has filled."""
_LONGEST_PAUSE_S: Final = 30.0
_YOUNG_S: Final = 25.0
_UNHURRIED_S: Final = 120.0
"""Orders that are younger than the one and have more time left than the other are alike as far as their age goes."""
_FAILOVER_MAGIC: Final = 10
_ENDLESS: Final = 2**62


def _nothing_known(_now: datetime) -> UnderWay:
    return NOTHING_UNDER_WAY


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the choice is made from, besides the order: one copy of the catalogue and what is known of the channels.

    `room`: how many more calls this process may send to a channel now; one that is not named has no limit.
    """

    snapshot: Snapshot
    under_way: Callable[[datetime], UnderWay] = _nothing_known
    """What is known of the channels at a moment of the database's clock."""
    room: Mapping[str, int] = field(default_factory=dict)
    not_sent_pause_s: float = 1.0
    tuning: Tuning = DEFAULT
    shadow: Tuning | None = None
    """A candidate that is asked the same and decides nothing."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A decision with the option it fell on, if any, and the inputs that it can be made from again."""

    decision: Decision
    ask: Ask
    option: Option | None
    inputs_id: UUID
    seed: int
    why: str
    hold_s: float = 0.0

    @property
    def code_refusals(self) -> list[str]:
        """What the filters that speak for a supplier would have said, as refusal reasons."""
        return [_AS_REFUSAL[seen.code] for seen in self.decision.seen if seen.code in _AS_REFUSAL]


_AS_REFUSAL: Final[Mapping[str, str]] = {Code.LOSS: "price_exceeded", Code.STOCK: "out_of_stock"}


@dataclass(slots=True)
class _Alike:
    """A decision, and how much its channel may have been sent in this round, by alike orders and by others, for it still to hold."""

    chosen: Chosen
    calls: int
    units: int
    cost: int


@dataclass(slots=True)
class Choices:
    """One round's. Orders must be given one after the other: each that is sent counts for the next."""

    around: Surroundings
    now: datetime
    buyers: Mapping[int, Buyer] = field(default_factory=dict)
    """Book → who orders; needed where the operator's rules ask for it."""
    inputs: list[RouteInputs] = field(default_factory=list)
    decisions: list[RouteDecision] = field(default_factory=list)
    _known: UnderWay = field(init=False)
    _probed: set[tuple[str, str]] = field(default_factory=set)
    """(channel, SKU) that somebody else is probing."""
    _sent: dict[str, int] = field(default_factory=dict)
    _spent: dict[str, int] = field(default_factory=dict)
    _promised: dict[tuple[str, str], int] = field(default_factory=dict)
    _alike: dict[tuple[object, ...], _Alike] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = self.around.under_way(self.now)

    def decide(self, order: Order, attempts: Sequence[Attempt]) -> Chosen:
        """What to do with an order; `take` what is really done, before the next is decided."""
        buyer = self.buyers.get(order.book_id, ANYBODY)
        key = None if attempts else self._key(order, buyer)
        if key is None:
            return self._decide(order, attempts, buyer)
        alike = self._alike.get(key)
        if alike is None or not self._holds(alike):
            alike = self._alike[key] = self._alike_after(self._decide(order, attempts, buyer))
        return alike.chosen

    def decide_without_probe(self, order: Order, attempts: Sequence[Attempt], denied: Chosen) -> Chosen:
        """`decide` again when somebody else is probing what `denied` wanted to probe."""
        assert denied.option is not None
        self._probed.add((denied.option.channel, order.sku))
        self._alike.clear()
        return self.decide(order, attempts)

    def take(self, order: Order, chosen: Chosen) -> None:
        """A dispatch or probe counts as sent from here on; the choice will be written down."""
        if chosen.option is not None:
            self._count(order.sku, chosen.option, chosen.ask.units)
        decision = chosen.decision
        if decision.action is Action.HOLD and chosen.hold_s <= _SOON_S:
            return  # this process has no hand free: a matter of milliseconds, and not of routing
        n = int((self.now - order.created_at).total_seconds() * 1000)
        self.decisions.append(
            RouteDecision(
                order.book_id, order.order_id, max(n, 0), self.now, decision.action.value, decision.channel, decision.reason,
                chosen.inputs_id, chosen.seed,
            )
        )  # fmt: skip

    def _key(self, order: Order, buyer: Buyer) -> tuple[object, ...] | None:
        """What makes orders alike; None for one that stands alone."""
        age_s = (self.now - order.created_at).total_seconds()
        left_s = (order.deadline_at - self.now).total_seconds()
        if age_s > _YOUNG_S or left_s < _UNHURRIED_S or magic_masked(order.environment, order.target_masked) == _FAILOVER_MAGIC:
            return None
        return order.sku, order.environment, order.remaining_units, order.unit_price, order.face_value, buyer

    def _decide(self, order: Order, attempts: Sequence[Attempt], buyer: Buyer) -> Chosen:
        snapshot = self.around.snapshot
        options = options_of(
            snapshot, order.sku, order.environment, order.remaining_units, order.face_value, self.now, self._under_way()
        )
        ask = ask_of(snapshot, order, self.now, buyer=buyer, attempts=len(attempts), tried=tried_channels(attempts))
        if magic_masked(order.environment, order.target_masked) == _FAILOVER_MAGIC:  # its first channel must not depend on health
            options = [replace(o, reading=Reading(in_flight=o.reading.in_flight)) for o in options]
            ask = replace(ask, pins=tuple(o.channel for o in sorted(options, key=lambda o: (o.cost, o.channel))))
        denied = any((o.channel, order.sku) in self._probed for o in options)
        if denied:
            ask = replace(ask, premium=True)
        pauses = self._pauses(attempts)
        busy = {channel for channel, left in self.around.room.items() if left - self._sent.get(channel, 0) <= 0}
        if pauses or busy:
            options = [replace(o, cap=0) if o.channel in pauses or o.channel in busy else o for o in options]
        now = self.now.timestamp()
        seed = order.order_id.int & 0x7FFFFFFFFFFFFFFF
        decision = choose(ask, options, now, seed, self.around.tuning)
        if ask.premium and not denied and decision.action is Action.HOLD:
            # Where all orders are premium nobody else would ever find out that the channel is well again.
            usual = replace(ask, premium=False)
            found = choose(usual, options, now, seed, self.around.tuning)
            if found.action is Action.PROBE:
                ask, decision = usual, found
        inputs_id = new_ulid()
        candidate = self.around.shadow
        beside = None if candidate is None else Shadow(candidate, shadow(ask, options, now, seed, candidate, decision))
        body = record.remember(ask, options, now, seed, self.around.tuning, decision, None, beside)
        self.inputs.append(RouteInputs(inputs_id, self.now, body))
        option = next((o for o in options if o.channel == decision.channel), None) if decision.channel is not None else None
        return Chosen(decision, ask, option, inputs_id, seed, _why(decision), self._hold_s(decision, pauses, busy))

    def _under_way(self) -> UnderWay:
        base = self._known
        if not self._sent:
            return base
        return replace(
            base,
            spent=_sum(base.spent, self._spent),
            promised=_sum(base.promised, self._promised),
            sent_last_second=_sum(base.sent_last_second, self._sent),
            read=self._read,
        )

    def _read(self, channel: str, sku: str) -> Reading:
        reading = self._known.read(channel, sku)
        sent = self._sent.get(channel, 0)
        return replace(reading, in_flight=reading.in_flight + sent) if sent else reading

    def _pauses(self, attempts: Sequence[Attempt]) -> dict[str, float]:
        """channel → seconds until a channel that could not be reached may be asked again: 1 s, doubling, at most 30 s."""
        until: dict[str, float] = {}
        count: dict[str, int] = {}
        for a in attempts:
            if a.state == AttemptState.NOT_SENT:
                count[a.channel_id] = count.get(a.channel_id, 0) + 1
                wait = min(self.around.not_sent_pause_s * 2 ** (count[a.channel_id] - 1), _LONGEST_PAUSE_S)
                until[a.channel_id] = wait - (self.now - (a.settled_at or a.sent_at)).total_seconds()
        return {channel: left for channel, left in until.items() if left > 0}

    def _hold_s(self, decision: Decision, pauses: Mapping[str, float], busy: set[str]) -> float:
        if decision.action is not Action.HOLD:
            return 0.0
        waits = [decision.until_s or 0.0]
        shut = {seen.channel for seen in decision.seen if seen.code == Code.FULL}
        waits += [left for channel, left in pauses.items() if channel in shut]
        waits += [_SOON_S for channel in busy if channel in shut]
        return max(min(waits), 0.01)

    def _holds(self, alike: _Alike) -> bool:
        chosen, option = alike.chosen, alike.chosen.option
        if option is None:
            return True  # channels only fill up within a round
        channel = option.channel
        return (
            self._sent.get(channel, 0) < alike.calls
            and self._promised.get((channel, chosen.ask.sku), 0) + chosen.ask.units <= alike.units
            and self._spent.get(channel, 0) + option.cost <= alike.cost
        )

    def _alike_after(self, chosen: Chosen) -> _Alike:
        """The decision with the room that its channel has left; what is sent there from now on counts, whoever it is for."""
        option = chosen.option
        if option is None or chosen.decision.action is Action.PROBE:
            return _Alike(chosen, 0, 0, 0)  # a probe holds for the order it was chosen for, and for no other
        reading, channel = option.reading, option.channel
        sent = self._sent.get(channel, 0)
        room = [_ENDLESS]
        if option.cap is not None:
            room.append(option.cap - reading.in_flight)
        if reading.limit is not None:
            room.append(int(reading.limit) - reading.in_flight)
        if option.qps is not None:
            room.append(int(option.qps) - option.sent_last_second)
        if channel in self.around.room:
            room.append(self.around.room[channel] - sent)
        units = _ENDLESS if option.stock is None else self._promised.get((channel, chosen.ask.sku), 0) + option.stock
        cost = _ENDLESS if option.wallet is None else self._spent.get(channel, 0) + option.wallet - option.wallet_floor
        return _Alike(chosen, sent + min(room), units, cost)

    def _count(self, sku: str, option: Option, units: int) -> None:
        channel = option.channel
        self._sent[channel] = self._sent.get(channel, 0) + 1
        self._spent[channel] = self._spent.get(channel, 0) + option.cost
        self._promised[channel, sku] = self._promised.get((channel, sku), 0) + units


def _why(decision: Decision) -> str:
    """The reason, and the code of each channel that was passed over; the whole sentence is told from the inputs."""
    passed = [f"{seen.channel}: {seen.code or 'worth less'}" for seen in decision.seen if seen.channel != decision.channel]
    return f"{decision.reason} ({'; '.join(passed)})" if passed else str(decision.reason)


Key = TypeVar("Key")


def _sum(one: Mapping[Key, int], other: Mapping[Key, int]) -> dict[Key, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}
