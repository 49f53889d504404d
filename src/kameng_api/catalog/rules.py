"""What may be sold to whom, at what price and cost, decided from one copy of the catalogue. No I/O.

Amounts are integers in 1/10000 of the currency unit; rates are parts per million of the face value.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from kameng_api.catalog import numbers
from kameng_api.catalog.checksums import KINDS
from kameng_api.catalog.hand import Hand
from kameng_api.catalog.numbers import NumberWord
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.errors import FieldError
from kameng_api.kit.money import at_rate, format_amount, parse_amount

PRODUCT_TYPES: Final = ("topup", "card", "voucher")
PRODUCT_STATUSES: Final = ("on_sale", "paused", "retired")
ENVIRONMENTS: Final = ("live", "test")
TARGET_KINDS: Final = ("mobile", "account")
SWITCH: Final = ("enabled", "disabled")
HOLDS: Final = ("price", "margin", "changed", "currency", "gone")
"""Why an offer is held back: its cost moved too far, is above what we sell for, or what it is, its currency or its being there changed."""
LOW_STOCK: Final = 10
"""Known stock up to this many units is shown as `low`."""
RATE_ONE: Final = 1_000_000

RESERVED_FIELDS: Final = frozenset({"face_value"})


@dataclass(frozen=True, slots=True)
class FormField:
    """One thing the buyer must tell beside the target. `pattern` must match the whole value."""

    name: str
    label: str
    required: bool = True
    pattern: str | None = None
    max_length: int = 64
    min_length: int = 0
    checksum: str | None = None
    """One of `checksums.KINDS`."""


@dataclass(frozen=True, slots=True)
class Product:
    """One SKU. Either `face_value` is set, or `face_min`, `face_max` and `face_step` are (ranged)."""

    sku: str
    name: str
    product_type: str
    currency: str = "CNY"
    face_value: int | None = None
    face_min: int | None = None
    face_max: int | None = None
    face_step: int | None = None
    target_kind: str | None = None
    fields: tuple[FormField, ...] = ()
    environments: frozenset[str] = frozenset(ENVIRONMENTS)
    status: str = "on_sale"
    max_quantity: int = 100
    deliver_within_s: int = 600
    duplicate_window_s: int = 0
    allow_below_cost: bool = False
    refund_on_reversal: bool = True
    carriers: tuple[str, ...] = ()
    """Of `numbers.ALLOWED`; a mobile product is sold to numbers of these only. Empty: to any."""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def ranged(self) -> bool:
        return self.face_value is None


@dataclass(frozen=True, slots=True)
class Price:
    """An amount per unit, or a rate of the face value; exactly one is set."""

    unit_price: int | None = None
    rate_ppm: int | None = None


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices of one SKU: for everybody, per merchant level (会员等级), per merchant (密价)."""

    everybody: Price | None = None
    levels: Mapping[str, Price] = field(default_factory=dict)
    merchants: Mapping[UUID, Price] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """A channel sells a SKU: under which code, at what cost, and how many it has (None: it does not say)."""

    channel_id: str
    sku: str
    product_code: str
    unit_cost: int | None = None
    rate_ppm: int | None = None
    stock: int | None = None
    status: str = "enabled"
    held: str | None = None
    """Why nobody buys of it until a person has looked (`HOLDS`); None: nothing is held against it."""
    quoted_at: datetime | None = None
    """When the supplier, or an operator, last said what it costs; None before it is stored."""
    stocked_at: datetime | None = None
    """When the supplier was last asked and had some, after a refusal for want of stock."""
    listed_at: datetime | None = None
    """When the supplier was last asked and had it on sale, after a refusal because it was off sale."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A configured connection to a supplier (渠道). Settings and callback token are sealed; see `open_settings`."""

    channel_id: str
    name: str
    adapter: str
    environment: str
    status: str = "enabled"
    settings_sealed: bytes = field(default=b"", repr=False)
    callback_token_hash: bytes = field(default=b"", repr=False)
    callback_token_sealed: bytes = field(default=b"", repr=False)
    concurrency: int = 100
    wallet_low_at: int | None = None
    wallet_balance: int | None = None
    wallet_checked_at: datetime | None = None
    wallet_floor: int | None = None
    """Below it the channel takes no new orders, and then none until the wallet holds `wallet_resume_at` (None: the floor) again."""
    wallet_resume_at: int | None = None
    wallet_hours_left: int | None = None
    """Somebody is told when the wallet lasts for less."""
    wallet_paused_at: datetime | None = None
    no_orders_after: datetime | None = None
    """When a document ends without which it may not be used (资质)."""
    statement_note: str | None = None
    updated_at: datetime | None = None

    @property
    def floor_now(self) -> int:
        """What must stay in the wallet: a paused channel waits for the whole refill, not for the first coin."""
        floor = self.wallet_floor or 0
        return floor if self.wallet_paused_at is None else max(floor, self.wallet_resume_at or 0)

    def is_paused_at(self, balance: int) -> bool:
        """Whether the channel takes no new orders when its supplier says that the wallet holds `balance`."""
        if self.wallet_floor is None:
            return False
        return balance < (self.wallet_floor if self.wallet_paused_at is None else self.floor_now)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent copy of the catalogue, as processes keep it. `grants` knows only SKUs that are not open to all."""

    version: int = 0
    products: Mapping[str, Product] = field(default_factory=dict)
    prices: Mapping[str, PriceList] = field(default_factory=dict)
    offers: Mapping[str, tuple[Offer, ...]] = field(default_factory=dict)
    channels: Mapping[str, Channel] = field(default_factory=dict)
    grants: Mapping[str, frozenset[UUID]] = field(default_factory=dict)
    hand: Hand = field(default_factory=Hand)
    barcodes: Mapping[str, str] = field(default_factory=dict)
    """Key of a barcode (`barcodes.key_of`) → SKU."""
    barcodes_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """SKU → its barcodes as they are printed."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A merchant's book as the catalogue sees it: who is told when something visible changes."""

    book_id: int
    environment: str
    merchant_id: UUID
    level: str
    currency: str


@dataclass(frozen=True, slots=True)
class Change:
    """What one book can see differently: `type` is the event's name, `view` the product as it is shown now."""

    reader: Reader
    type: str
    sku: str
    view: Mapping[str, Any]


# ---- reading the snapshot ------------------------------------------------------------------------------------------


def find_product(snapshot: Snapshot, sku: str, environment: str) -> Product | None:
    """The product if it is sold in this environment, whatever its status."""
    product = snapshot.products.get(sku)
    return product if product is not None and environment in product.environments else None


def may_buy(snapshot: Snapshot, sku: str, merchant_id: UUID) -> bool:
    """Open to all, or this merchant is listed."""
    granted = snapshot.grants.get(sku)
    return granted is None or merchant_id in granted


def find_price(snapshot: Snapshot, sku: str, merchant_id: UUID, level: str) -> Price | None:
    """The narrowest price that applies: the merchant's own, its level's, everybody's."""
    known = snapshot.prices.get(sku)
    if known is None:
        return None
    return known.merchants.get(merchant_id) or known.levels.get(level) or known.everybody


def unit_price(
    snapshot: Snapshot, product: Product, merchant_id: UUID, level: str, face_value: int | None
) -> int | None:
    """What one unit costs this merchant; None without a price. `face_value` is needed for ranged products only."""
    price = find_price(snapshot, product.sku, merchant_id, level)
    if price is None:
        return None
    face = product.face_value if product.face_value is not None else face_value
    return _amount_of(price.unit_price, price.rate_ppm, face)


def unit_cost(offer: Offer, face_value: int | None) -> int:
    """What one unit costs us. `face_value` is needed for offers at a rate: in a snapshot, those of ranged products."""
    return _amount_of(offer.unit_cost, offer.rate_ppm, face_value)


def _amount_of(fixed: int | None, rate_ppm: int | None, face_value: int | None) -> int:
    if fixed is not None:
        return fixed
    assert rate_ppm is not None and face_value is not None, "a rate needs a face value"
    return at_rate(face_value, rate_ppm)


def usable_offers(snapshot: Snapshot, sku: str, environment: str) -> list[tuple[Channel, Offer]]:
    """Offers that may be bought from now: channel and offer enabled, not held, not known to be out of stock. In no order."""
    return [
        (channel, offer)
        for offer in snapshot.offers.get(sku, ())
        if offer.status == "enabled" and offer.held is None and offer.stock != 0
        if (channel := snapshot.channels[offer.channel_id]).status == "enabled" and channel.environment == environment
    ]


def cheapest_cost(snapshot: Snapshot, sku: str, environment: str, face_value: int | None) -> int | None:
    """The lowest cost of one unit over the usable offers; None when nothing is usable."""
    return min((unit_cost(offer, face_value) for _, offer in usable_offers(snapshot, sku, environment)), default=None)


def sells_below_cost(
    snapshot: Snapshot, product: Product, environment: str, face_value: int | None, price: int
) -> bool:
    """True when an order at this price must be refused: below the cheapest usable cost, and not allowed."""
    if product.allow_below_cost:
        return False
    cost = cheapest_cost(snapshot, product.sku, environment, face_value)
    return cost is not None and price < cost


def stock_word(snapshot: Snapshot, sku: str, environment: str) -> str:
    """`in_stock`, `low` or `out_of_stock`, over the usable offers; a supplier that does not tell counts as in stock."""
    offers = [offer for _, offer in usable_offers(snapshot, sku, environment)]
    if not offers:
        return "out_of_stock"
    if any(offer.stock is None for offer in offers):
        return "in_stock"
    return "low" if sum(offer.stock or 0 for offer in offers) <= LOW_STOCK else "in_stock"


def face_value_allowed(product: Product, face_value: int) -> bool:
    """Whether a ranged product is sold at this face value."""
    if product.face_min is None or product.face_max is None or product.face_step is None:
        return face_value == product.face_value
    inside = product.face_min <= face_value <= product.face_max
    return inside and (face_value - product.face_min) % product.face_step == 0


def read_face_value(product: Product, fields: Mapping[str, str]) -> tuple[int | None, list[FieldError]]:
    """The face value asked for in `fields.face_value` (decimal text); None for fixed products or with an error."""
    text = fields.get("face_value")
    if not product.ranged:
        extra = [FieldError("/fields/face_value", "unknown_field", "this product has one face value")]
        return None, [] if text is None else extra
    if text is None:
        return None, [FieldError("/fields/face_value", "required", "say which face value")]
    try:
        face_value = parse_amount(text)
    except ValueError as error:
        return None, [FieldError("/fields/face_value", "format", str(error))]
    if not face_value_allowed(product, face_value):
        detail = (
            f"from {format_amount(product.face_min or 0)} to {format_amount(product.face_max or 0)} "
            f"in steps of {format_amount(product.face_step or 0)}"
        )
        return None, [FieldError("/fields/face_value", "out_of_range", detail)]
    return face_value, []


def check_form(product: Product, fields: Mapping[str, str]) -> list[FieldError]:
    """What is wrong with the form fields of an order, `face_value` excepted."""
    asked = {wanted.name: wanted for wanted in product.fields}
    errors = [
        FieldError(f"/fields/{_token(name)}", "unknown_field", "this product does not ask for it")
        for name in fields
        if name not in asked and name not in RESERVED_FIELDS
    ]
    for wanted in product.fields:
        pointer, value = f"/fields/{wanted.name}", fields.get(wanted.name)
        if value is None:
            if wanted.required:
                errors.append(FieldError(pointer, "required", f"{wanted.label} is needed"))
        elif len(value) < wanted.min_length:
            errors.append(FieldError(pointer, "too_short", f"at least {wanted.min_length} characters"))
        elif len(value) > wanted.max_length:
            errors.append(FieldError(pointer, "too_long", f"at most {wanted.max_length} characters"))
        elif wanted.pattern is not None and not compiled(wanted.pattern).fullmatch(value):
            errors.append(FieldError(pointer, "pattern", f"does not look like {wanted.label}"))
        elif wanted.checksum is not None and not KINDS[wanted.checksum](value):
            errors.append(FieldError(pointer, "checksum", f"the check digit of {wanted.label} does not fit: it is mistyped"))
    return errors


_MOBILE: Final = re.compile(r"1[0-9]{10}")


def check_mobile(target: str) -> bool:
    """Eleven digits of a mobile number of mainland China."""
    return _MOBILE.fullmatch(target) is not None


def check_carrier(product: Product, target: str | None, looked_up: NumberWord | None) -> FieldError | None:
    """What is wrong with the carrier of a well-formed mobile target. `looked_up` is better known than the prefix, when somebody was asked."""
    if not product.carriers or product.target_kind != "mobile" or target is None:
        return None
    word = looked_up if looked_up is not None else numbers.of_mobile(target)
    if numbers.may_charge(product.carriers, word):
        return None
    kind = f"{word.carrier} (virtual operator)" if word.virtual else f"{word.carrier}"
    return FieldError("/target", "carrier", f"a number of {kind}; this product is for {', '.join(product.carriers)}")


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


# ---- what merchants see --------------------------------------------------------------------------------------------


def visible_status(snapshot: Snapshot, sku: str, reader: Reader) -> str:
    """The status this reader sees; what it may not buy, or has no price for, is `retired` to it."""
    product = find_product(snapshot, sku, reader.environment)
    if product is None or product.currency != reader.currency or not may_buy(snapshot, sku, reader.merchant_id):
        return "retired"
    return product.status if find_price(snapshot, sku, reader.merchant_id, reader.level) else "retired"


def public_view(snapshot: Snapshot, product: Product, reader: Reader) -> dict[str, Any]:
    """The product as this reader's `GET /v1/products/{sku}` shows it.

    A ranged one has `range` and `price_rate` (price per face value) where others have `face_value` and `unit_price`.
    """
    view: dict[str, Any] = {"sku": product.sku, "name": product.name, "product_type": product.product_type}
    price = find_price(snapshot, product.sku, reader.merchant_id, reader.level)
    if product.ranged:
        view["range"] = {
            "min": format_amount(product.face_min or 0),
            "max": format_amount(product.face_max or 0),
            "step": format_amount(product.face_step or 0),
        }
        view["price_rate"] = None if price is None else format_rate(price.rate_ppm or 0)
    else:
        amount = unit_price(snapshot, product, reader.merchant_id, reader.level, None)
        view["face_value"] = format_amount(product.face_value or 0)
        view["unit_price"] = None if amount is None else format_amount(amount)
    return view | {
        "currency": product.currency,
        "fields": [form_field(wanted) for wanted in product.fields],
        "carriers": list(product.carriers),
        "barcodes": list(snapshot.barcodes_of.get(product.sku, ())),
        "stock": stock_word(snapshot, product.sku, reader.environment),
        "status": visible_status(snapshot, product.sku, reader),
    }


def form_field(wanted: FormField) -> dict[str, Any]:
    """A form field as it is stored and shown."""
    return {
        "name": wanted.name,
        "label": wanted.label,
        "required": wanted.required,
        "pattern": wanted.pattern,
        "max_length": wanted.max_length,
        "min_length": wanted.min_length,
        "checksum": wanted.checksum,
    }


def details(snapshot: Snapshot, sku: str) -> tuple[Any, ...]:
    """Whatever of a product every reader is shown alike, stock, price and status excepted."""
    product = snapshot.products[sku]
    return product.name, product.fields, product.carriers, snapshot.barcodes_of.get(sku, ())


def format_rate(rate_ppm: int) -> str:
    """`985000` → `"0.985000"`: price per unit of face value."""
    whole, part = divmod(rate_ppm, RATE_ONE)
    return f"{whole}.{part:06d}"


def parse_rate(text: str) -> int:
    """`"0.985"` → `985000`. Raises ValueError for anything but a plain decimal with at most six places."""
    match = re.fullmatch(r"([0-9]{1,2})(?:\.([0-9]{1,6}))?", text, re.ASCII)
    if match is None:
        raise ValueError('a rate is a decimal string with at most six places, such as "0.985"')
    whole, part = match.groups()
    return int(whole) * RATE_ONE + int((part or "").ljust(6, "0"))


def find_changes(before: Snapshot, after: Snapshot, skus: Iterable[str], readers: Sequence[Reader]) -> list[Change]:
    """Which books see another status or price than before; a price counts only while the product stays visible."""
    changes: list[Change] = []
    for sku in skus:
        product = after.products.get(sku) or before.products[sku]
        for reader in readers:
            old, new = visible_status(before, sku, reader), visible_status(after, sku, reader)
            if old != new:
                kind = "product.status_changed"
            elif new != "retired" and _differs(before, after, product, reader):
                kind = "product.price_changed"
            else:
                continue
            changes.append(Change(reader, kind, sku, public_view(after, product, reader)))
    return changes


def find_level_changes(snapshot: Snapshot, reader: Reader, old_level: str) -> list[Change]:
    """What a reader sees differently since it left another price level."""
    old = replace(reader, level=old_level)
    changes: list[Change] = []
    for sku in snapshot.products:
        was, now = visible_status(snapshot, sku, old), visible_status(snapshot, sku, reader)
        if was != now:
            changes.append(Change(reader, "product.status_changed", sku, {}))
        elif now != "retired" and _price_of(snapshot, sku, old) != _price_of(snapshot, sku, reader):
            changes.append(Change(reader, "product.price_changed", sku, {}))
    return changes


def _price_of(snapshot: Snapshot, sku: str, reader: Reader) -> Price | None:
    return find_price(snapshot, sku, reader.merchant_id, reader.level)


def _differs(before: Snapshot, after: Snapshot, product: Product, reader: Reader) -> bool:
    old = find_price(before, product.sku, reader.merchant_id, reader.level)
    return old != find_price(after, product.sku, reader.merchant_id, reader.level)


def resolve(product: Product, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Offers of one product as a snapshot holds them: with a fixed face value, a rate becomes the amount it means."""
    face = product.face_value
    return tuple(
        offer
        if face is None or offer.rate_ppm is None
        else replace(offer, unit_cost=at_rate(face, offer.rate_ppm), rate_ppm=None)
        for offer in offers
    )


def resolve_price(product: Product, price: Price) -> Price:
    """A price as a snapshot holds it: with a fixed face value, a rate becomes the amount it means."""
    if product.face_value is None or price.rate_ppm is None:
        return price
    return Price(unit_price=at_rate(product.face_value, price.rate_ppm))


# ---- sealed parts of a channel -------------------------------------------------------------------------------------


def settings_aad(channel_id: str) -> bytes:
    return f"channels.settings:{channel_id}".encode()


def callback_token_aad(channel_id: str) -> bytes:
    return f"channels.callback_token:{channel_id}".encode()


def open_settings(keyring: Keyring, channel: Channel) -> bytes:
    """The connection's settings as JSON text, for the adapter's settings model. Raises CryptoError."""
    return keyring.open(channel.settings_sealed, settings_aad(channel.channel_id))


def open_callback_token(keyring: Keyring, channel: Channel) -> str:
    """The secret part of this channel's callback address (`/callbacks/{token}`). Raises CryptoError."""
    return keyring.open(channel.callback_token_sealed, callback_token_aad(channel.channel_id)).decode()


def find_channel_by_token_hash(snapshot: Snapshot, token_hash: bytes) -> Channel | None:
    """Whose callback address this is; `token_hash` is the SHA-256 of the token in the path."""
    return next((c for c in snapshot.channels.values() if c.callback_token_hash == token_hash), None)
