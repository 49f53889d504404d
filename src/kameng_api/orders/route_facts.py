"""What the router is told: one copy of the catalogue, an order, and what is under way, as its own words. No I/O, no clock of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from kameng_api.catalog import hand
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.hand import ANYBODY, Buyer, Hand, Terms
from kameng_api.catalog.rules import Channel, Offer, Snapshot
from kameng_api.kit.money import LARGEST
from kameng_api.orders.rules import Order
from kameng_api.suppliers.port import RefusalReason
from kameng_api.suppliers.routing import commitments
from kameng_api.suppliers.routing.facts import Ask, Circuit, Code, Option, Reading, Weights

_UNREAD = Reading()


def _unread(_channel_id: str, _sku: str) -> Reading:
    return _UNREAD


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What the catalogue cannot know. Whatever is not named is 0; amounts in 1/10000 units."""

    unqueryable: frozenset[str] = frozenset()
    """Channels whose supplier cannot be asked by our reference what became of an order."""
    spent: Mapping[str, int] = field(default_factory=dict)
    """channel → cost of the attempts sent since its wallet was last asked."""
    promised: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(channel, SKU) → units of live attempts that its known stock does not show yet."""
    sent_last_second: Mapping[str, int] = field(default_factory=dict)
    done: Mapping[UUID, int] = field(default_factory=dict)
    """Commitment's rule → what has been delivered in its period (`suppliers.volumes.load_done`). One that is not named earns no bonus."""
    read: Callable[[str, str], Reading] = _unread
    """(channel, SKU) → what is known of its health now."""
    gates: Mapping[tuple[str, str | None], RefusalReason] = field(default_factory=dict)
    """(channel, SKU; None: all of the channel) → what it refused for a moment ago, and will refuse again (`answers.closed_gates`)."""
    short_of: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(channel, SKU) → the fewest units that were refused for want of stock while its gate is closed."""


NOTHING_UNDER_WAY = UnderWay()


def options_of(
    snapshot: Snapshot,
    sku: str,
    environment: str,
    units: int,
    face_value: int | None,
    now: datetime,
    under_way: UnderWay = NOTHING_UNDER_WAY,
) -> list[Option]:
    """Every channel of this environment that is mapped to the SKU, in the order of their ids, the closed ones too: the router says why not.

    Nothing in here depends on who orders, so one list serves all orders of a round with the same SKU, units and face value.
    """
    product = snapshot.products.get(sku)
    on_sale = product is not None
    found = []
    for offer in snapshot.offers.get(sku, ()):
        channel = snapshot.channels[offer.channel_id]
        if channel.environment == environment:
            found.append(_option(snapshot.hand, channel, offer, on_sale, units, face_value, now, under_way))
    found.sort(key=lambda option: option.channel)
    return found


def _option(
    rules: Hand, channel: Channel, offer: Offer, on_sale: bool, units: int, face_value: int | None, now: datetime, under_way: UnderWay
) -> Option:
    channel_id, sku = channel.channel_id, offer.sku
    cost = catalog.unit_cost(offer, face_value) * units
    said = _said_of(rules, channel_id, offer, cost, now, under_way.done) if channel_id in rules.about_channels else _NOTHING_SAID
    if channel.floor_now > said.get("wallet_floor", 0):
        said = {**said, "wallet_floor": channel.floor_now}
    return Option(
        channel=channel_id,
        cost=cost,
        product_code=offer.product_code,
        enabled=on_sale and channel.status == "enabled" and offer.status == "enabled" and offer.held is None,
        stock=None if offer.stock is None else offer.stock - under_way.promised.get((channel_id, sku), 0),
        wallet=None if channel.wallet_balance is None else channel.wallet_balance - under_way.spent.get(channel_id, 0),
        queryable=channel_id not in under_way.unqueryable,
        sent_last_second=under_way.sent_last_second.get(channel_id, 0),
        reading=under_way.read(channel_id, sku),
        shut=Code.PAPERS if channel.no_orders_after is not None and now >= channel.no_orders_after else _shut(under_way.gates, channel_id, sku),
        **said,
    )


_NOTHING_SAID: Mapping[str, Any] = {}
_SHUT: Mapping[RefusalReason, Code] = {
    RefusalReason.OUT_OF_STOCK: Code.STOCK,
    RefusalReason.PRODUCT_OFF: Code.DISABLED,
    RefusalReason.PRICE_EXCEEDED: Code.LOSS,
    RefusalReason.WALLET_EMPTY: Code.BALANCE,
}


def _shut(gates: Mapping[tuple[str, str | None], RefusalReason], channel_id: str, sku: str) -> Code | None:
    if not gates:
        return None
    reason = gates.get((channel_id, None)) or gates.get((channel_id, sku))
    return None if reason is None else _SHUT.get(reason)


def _said_of(rules: Hand, channel_id: str, offer: Offer, cost: int, now: datetime, done: Mapping[UUID, int]) -> Mapping[str, Any]:
    """The part of an option that people decide. Most channels have none: then it is not worth asking for."""
    sku = offer.sku
    terms = hand.terms_of(rules, channel_id, sku, now)
    forced = hand.forced_state(rules, channel_id, sku, now)
    return {
        "wallet_floor": terms.wallet_floor or 0,
        "quote_age_s": None if offer.quoted_at is None else max((now - offer.quoted_at).total_seconds(), 0.0),
        "quote_ttl_s": None if terms.quote_ttl_s is None else float(terms.quote_ttl_s),
        "maintenance_in_s": hand.maintenance_in_s(rules, channel_id, sku, now),
        "value_limit": terms.unqueryable_limit,
        "regions": _words(terms.regions),
        "carriers": _words(terms.carriers),
        "face_values": _face_values(terms),
        "qualifications": _words(terms.qualifications) or frozenset(),
        "forced": None if forced is None else Circuit(forced),
        "weight": hand.weight_of(rules, channel_id, sku, now),
        "bonus": _bonus(rules, channel_id, sku, cost, now, done),
        "cap": terms.cap,
        "qps": None if terms.qps is None else float(terms.qps),
    }


def _words(given: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if given is None else frozenset(given)


def _face_values(terms: Terms) -> tuple[int, int] | None:
    if terms.face_min is None and terms.face_max is None:
        return None
    return terms.face_min or 0, terms.face_max if terms.face_max is not None else LARGEST


def _bonus(rules: Hand, channel_id: str, sku: str, cost: int, now: datetime, done: Mapping[UUID, int]) -> int:
    """Two promises that one purchase helps to keep are both worth something."""
    total = 0
    for rule_id, promise in hand.commitments_of(rules, channel_id, sku, now):
        if rule_id in done:
            behind = commitments.lag(promise.target, done[rule_id], hand.elapsed_share(promise.period, now))
            total += commitments.bonus(cost, promise.bonus_ppm, behind)
    return total


def ask_of(
    snapshot: Snapshot,
    order: Order,
    now: datetime,
    *,
    buyer: Buyer = ANYBODY,
    attempts: int = 0,
    tried: Mapping[str, str] | None = None,
    region: str | None = None,
    carrier: str | None = None,
) -> Ask:
    """The units of an order that are still to be bought. `tried`: channel → what became of it there.

    `region` and `carrier` of the target, where they are known, go before what the product's rules say. `buyer` matters only while
    `snapshot.hand.personal`.
    """
    rules, sku = snapshot.hand, order.sku
    product = snapshot.products.get(sku)
    pin = hand.pin_of(rules, buyer, sku, now)
    needs = hand.needs_of(rules, buyer, sku, now)
    stakes = hand.stakes_of(rules, buyer, sku, now)
    return Ask(
        order=str(order.order_id),
        sku=sku,
        price=order.unit_price * order.remaining_units,
        units=order.remaining_units,
        age_s=(now - order.created_at).total_seconds(),
        left_s=(order.deadline_at - now).total_seconds(),
        attempts=attempts,
        tried=dict(tried or {}),
        weights=_weights(stakes),
        premium=bool(stakes.premium),
        allow_loss=product is not None and product.allow_below_cost,
        allowed=hand.allowed_channels(rules, buyer, sku, now),
        banned=hand.banned_channels(rules, buyer, sku, now),
        pins=pin.channels if pin is not None else (),
        pin_hard=pin is not None and pin.hard,
        region=region or needs.region,
        carrier=carrier or needs.carrier,
        face_value=order.face_value if order.face_value is not None else product.face_value if product is not None else None,
        qualifications=frozenset(needs.qualifications),
    )


_USUAL = Weights()


def _weights(stakes: hand.Stakes) -> Weights:
    if stakes.undelivered_ppm is None and stakes.failed_attempt_ppm is None and stakes.second_ppm is None:
        return _USUAL
    return Weights(
        undelivered=_USUAL.undelivered if stakes.undelivered_ppm is None else stakes.undelivered_ppm,
        failed_attempt=_USUAL.failed_attempt if stakes.failed_attempt_ppm is None else stakes.failed_attempt_ppm,
        second=_USUAL.second if stakes.second_ppm is None else stakes.second_ppm,
    )
