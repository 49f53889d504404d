"""The catalogue's decisions as tables."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.catalog import definitions, rules
from kameng_api.catalog.rules import Channel, FormField, Offer, Price, PriceList, Product, Reader, Snapshot

ANNA, BO, CAI = UUID(int=1), UUID(int=2), UUID(int=3)
FIXED = Product("mobile-cn-100", "100 yuan", "topup", face_value=1_000_000, target_kind="mobile")
RANGED = Product(
    "qcoin", "Q coins", "topup", face_min=10_000, face_max=5_000_000, face_step=10_000, target_kind="account"
)
CARD = Product("test-card", "Card", "card", face_value=500_000)
ONE = Channel("one", "One", "simulator", "live")
TWO = Channel("two", "Two", "simulator", "live")
TEST = Channel("test", "Test", "simulator", "test")


def snapshot(*offers: Offer, channels: tuple[Channel, ...] = (ONE, TWO, TEST), **parts: Any) -> Snapshot:
    products = {p.sku: p for p in (FIXED, RANGED, CARD)}
    by_sku: dict[str, list[Offer]] = {}
    for offer in offers:
        by_sku.setdefault(offer.sku, []).append(offer)
    return Snapshot(
        version=1,
        products=parts.pop("products", products),
        offers={sku: rules.resolve(products[sku], some) for sku, some in by_sku.items()},
        channels={c.channel_id: c for c in channels},
        **parts,
    )


def priced(price: PriceList, product: Product = FIXED) -> Snapshot:
    return snapshot(prices={product.sku: price})


@pytest.mark.parametrize(
    ("merchant", "level", "expected"),
    [(ANNA, "gold", 90), (BO, "gold", 95), (BO, "standard", 100), (CAI, "silver", 100)],
)
def test_the_narrowest_price_wins(merchant: UUID, level: str, expected: int) -> None:
    prices = PriceList(Price(100), {"gold": Price(95)}, {ANNA: Price(90)})
    assert rules.unit_price(priced(prices), FIXED, merchant, level, None) == expected


def test_a_merchants_own_price_wins_even_when_it_is_higher() -> None:
    prices = PriceList(Price(100), {"gold": Price(95)}, {ANNA: Price(120)})
    assert rules.unit_price(priced(prices), FIXED, ANNA, "gold", None) == 120


def test_without_a_price_there_is_none() -> None:
    assert rules.unit_price(priced(PriceList(levels={"gold": Price(1)})), FIXED, ANNA, "standard", None) is None
    assert rules.unit_price(snapshot(), FIXED, ANNA, "standard", None) is None


def test_a_ranged_price_is_rounded_up_once() -> None:
    prices = PriceList(Price(rate_ppm=985_001))
    assert rules.unit_price(priced(prices, RANGED), RANGED, ANNA, "standard", 10_000) == 9_851


def test_a_rate_of_a_fixed_product_is_an_amount_in_the_snapshot() -> None:
    assert rules.resolve_price(FIXED, Price(rate_ppm=985_000)) == Price(985_000)
    [offer] = rules.resolve(FIXED, [Offer("one", FIXED.sku, "X", rate_ppm=993_500)])
    assert (offer.unit_cost, offer.rate_ppm) == (993_500, None)
    assert rules.unit_cost(offer, None) == 993_500


def offer(channel: str = "one", cost: int = 90, **more: Any) -> Offer:
    return Offer(channel, FIXED.sku, "X", unit_cost=cost, **more)


@pytest.mark.parametrize(
    ("offers", "channels", "usable", "word", "cheapest"),
    [
        ((), (ONE, TWO), [], "out_of_stock", None),
        ((offer(),), (ONE, TWO), ["one"], "in_stock", 90),
        ((offer(), offer("two", 80)), (ONE, TWO), ["one", "two"], "in_stock", 80),
        ((offer(), offer("two", 80, stock=0)), (ONE, TWO), ["one"], "in_stock", 90),
        ((offer(), offer("two", 80, status="disabled")), (ONE, TWO), ["one"], "in_stock", 90),
        ((offer(), offer("two", 80)), (ONE, replace(TWO, status="disabled")), ["one"], "in_stock", 90),
        ((offer(), offer("test", 10)), (ONE, TEST), ["one"], "in_stock", 90),
        ((offer(stock=10),), (ONE,), ["one"], "low", 90),
        ((offer(stock=11),), (ONE,), ["one"], "in_stock", 90),
        ((offer(stock=6), offer("two", 80, stock=5)), (ONE, TWO), ["one", "two"], "in_stock", 80),
        ((offer(stock=3), offer("two", 80)), (ONE, TWO), ["one", "two"], "in_stock", 80),
        ((offer(stock=0),), (ONE,), [], "out_of_stock", None),
    ],
)
def test_usable_offers(
    offers: tuple[Offer, ...], channels: tuple[Channel, ...], usable: list[str], word: str, cheapest: int | None
) -> None:
    seen = snapshot(*offers, channels=channels)
    assert [c.channel_id for c, _ in rules.usable_offers(seen, FIXED.sku, "live")] == usable
    assert rules.stock_word(seen, FIXED.sku, "live") == word
    assert rules.cheapest_cost(seen, FIXED.sku, "live", None) == cheapest


@pytest.mark.parametrize(
    ("price", "allowed", "refused"), [(90, False, False), (89, False, True), (89, True, False), (1, False, True)]
)
def test_an_order_is_never_accepted_below_the_cheapest_usable_cost(price: int, allowed: bool, refused: bool) -> None:
    product = replace(FIXED, allow_below_cost=allowed)
    seen = snapshot(offer(cost=90), offer("two", 95))
    assert rules.sells_below_cost(seen, product, "live", None, price) is refused


@given(st.integers(1, 500), st.integers(1, 2_000_000), st.integers(1, 2_000_000))
def test_a_ranged_product_at_or_above_the_cost_rate_is_never_below_cost(steps: int, cost: int, margin: int) -> None:
    face = steps * 10_000
    seen = snapshot(
        Offer("one", RANGED.sku, "Q", rate_ppm=cost),
        prices={RANGED.sku: PriceList(Price(rate_ppm=cost + margin))},
    )
    price = rules.unit_price(seen, RANGED, ANNA, "standard", face)
    assert price is not None
    assert not rules.sells_below_cost(seen, RANGED, "live", face, price)


def test_grants_close_a_product_to_all_others() -> None:
    seen = snapshot(grants={FIXED.sku: frozenset({ANNA})})
    assert rules.may_buy(seen, FIXED.sku, ANNA)
    assert not rules.may_buy(seen, FIXED.sku, BO)
    assert rules.may_buy(seen, CARD.sku, BO)


def test_a_product_is_found_only_where_it_is_sold() -> None:
    seen = snapshot(products={FIXED.sku: replace(FIXED, environments=frozenset({"test"}))})
    assert rules.find_product(seen, FIXED.sku, "live") is None
    assert rules.find_product(seen, FIXED.sku, "test") is not None
    assert rules.find_product(seen, "nothing", "test") is None


@pytest.mark.parametrize(
    ("product", "fields", "face", "code"),
    [
        (FIXED, {}, None, None),
        (FIXED, {"face_value": "100"}, None, "unknown_field"),
        (RANGED, {}, None, "required"),
        (RANGED, {"face_value": "1"}, 10_000, None),
        (RANGED, {"face_value": "500.0000"}, 5_000_000, None),
        (RANGED, {"face_value": "501"}, None, "out_of_range"),
        (RANGED, {"face_value": "1.5"}, None, "out_of_range"),
        (RANGED, {"face_value": "0"}, None, "out_of_range"),
        (RANGED, {"face_value": "-5"}, None, "format"),
        (RANGED, {"face_value": "1e2"}, None, "format"),
    ],
)
def test_face_values(product: Product, fields: dict[str, str], face: int | None, code: str | None) -> None:
    value, errors = rules.read_face_value(product, fields)
    assert value == face
    assert [e.code for e in errors] == ([code] if code else [])


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"server": "CN-1"}, []),
        ({"server": "CN-1", "note": "x"}, []),
        ({}, [("/fields/server", "required")]),
        ({"server": "CN-1\n"}, [("/fields/server", "pattern")]),
        ({"server": "zzz"}, [("/fields/server", "pattern")]),
        ({"server": "CN-1234567"}, [("/fields/server", "too_long")]),
        ({"server": "CN-1", "a/b": "x"}, [("/fields/a~1b", "unknown_field")]),
    ],
)
def test_form_fields(fields: dict[str, str], wrong: list[tuple[str, str]]) -> None:
    form = (FormField("server", "Server", pattern="CN-[0-9]+", max_length=8), FormField("note", "Note", required=False))
    assert [(e.pointer, e.code) for e in rules.check_form(replace(FIXED, fields=form), fields)] == wrong


@pytest.mark.parametrize(
    ("product", "pointers"),
    [
        (FIXED, []),
        (RANGED, []),
        (CARD, []),
        (replace(FIXED, sku="a/b"), ["/sku"]),
        (replace(FIXED, sku=""), ["/sku"]),
        (replace(FIXED, sku="x\n"), ["/sku"]),
        (replace(FIXED, name=" "), ["/name"]),
        (replace(FIXED, product_type="gift"), ["/product_type"]),
        (replace(FIXED, status="gone"), ["/status"]),
        (replace(FIXED, currency="cny"), ["/currency"]),
        (replace(FIXED, environments=frozenset()), ["/environments"]),
        (replace(FIXED, environments=frozenset({"live", "beta"})), ["/environments"]),
        (replace(FIXED, max_quantity=0), ["/max_quantity"]),
        (replace(FIXED, deliver_within_s=1), ["/deliver_within_s"]),
        (replace(FIXED, duplicate_window_s=-1), ["/duplicate_window_s"]),
        (replace(FIXED, target_kind=None), ["/target_kind"]),
        (replace(CARD, target_kind="mobile"), ["/target_kind"]),
        (replace(FIXED, face_value=0), ["/face_value"]),
        (replace(FIXED, face_value=None), ["/face_value"]),
        (replace(FIXED, face_min=1), ["/face_value"]),
        (replace(RANGED, face_max=1), ["/face_max"]),
        (replace(RANGED, face_step=0), ["/face_step"]),
        (replace(RANGED, face_step=30_000), ["/face_step"]),
        (replace(FIXED, fields=(FormField("Bad", "x"),)), ["/fields/0/name"]),
        (replace(FIXED, fields=(FormField("a", "x"), FormField("a", "y"))), ["/fields/1/name"]),
        (replace(FIXED, fields=(FormField("face_value", "x"),)), ["/fields/0/name"]),
        (replace(FIXED, fields=(FormField("a", ""),)), ["/fields/0/label"]),
        (replace(FIXED, fields=(FormField("a", "x", pattern="("),)), ["/fields/0/pattern"]),
        (replace(FIXED, fields=(FormField("a", "x", pattern="a" * 201),)), ["/fields/0/pattern"]),
        (replace(FIXED, fields=(FormField("a", "x", max_length=0),)), ["/fields/0/max_length"]),
        (replace(FIXED, sku="?", currency="?", max_quantity=0), ["/sku", "/currency", "/max_quantity"]),
    ],
)
def test_every_mistake_of_a_definition_is_named(product: Product, pointers: list[str]) -> None:
    assert [e.pointer for e in definitions.check_product(product)] == pointers


@pytest.mark.parametrize(
    ("product", "price", "wrong"),
    [
        (FIXED, Price(1), []),
        (FIXED, Price(rate_ppm=1), []),
        (RANGED, Price(rate_ppm=985_000), []),
        (RANGED, Price(100), ["/unit_price"]),
        (FIXED, Price(), ["/unit_price"]),
        (FIXED, Price(1, 1), ["/unit_price"]),
        (FIXED, Price(0), ["/unit_price"]),
        (FIXED, Price(rate_ppm=0), ["/rate"]),
        (FIXED, Price(rate_ppm=10_000_001), ["/rate"]),
    ],
)
def test_prices_fit_their_product(product: Product, price: Price, wrong: list[str]) -> None:
    assert [e.pointer for e in definitions.check_price(product, price)] == wrong


def reader(merchant: UUID, level: str = "standard", environment: str = "live", currency: str = "CNY") -> Reader:
    return Reader(16, environment, merchant, level, currency)


WITH = PriceList(Price(100), {"gold": Price(95)}, {CAI: Price(90)})


@pytest.mark.parametrize(
    ("before", "after", "who", "expected"),
    [
        ({}, {"prices": WITH}, reader(ANNA), "product.status_changed"),
        ({"prices": WITH}, {"prices": WITH}, reader(ANNA), None),
        ({"prices": WITH}, {"prices": replace(WITH, everybody=Price(101))}, reader(ANNA), "product.price_changed"),
        ({"prices": WITH}, {"prices": replace(WITH, everybody=Price(101))}, reader(ANNA, "gold"), None),
        ({"prices": WITH}, {"prices": replace(WITH, everybody=Price(101))}, reader(CAI), None),
        ({"prices": WITH}, {"prices": replace(WITH, merchants={})}, reader(CAI), "product.price_changed"),
        ({"prices": WITH}, {"prices": WITH, "status": "paused"}, reader(ANNA), "product.status_changed"),
        ({"prices": WITH}, {"prices": WITH, "grants": frozenset({CAI})}, reader(ANNA), "product.status_changed"),
        ({"prices": WITH}, {"prices": WITH, "grants": frozenset({CAI})}, reader(CAI), None),
        ({"prices": WITH}, {"prices": WITH, "status": "paused"}, reader(ANNA, currency="USD"), None),
        ({"prices": WITH, "environments": {"test"}}, {"prices": WITH, "environments": {"test"}, "status": "paused"},
         reader(ANNA), None),
        ({"prices": WITH, "status": "retired"}, {"prices": replace(WITH, everybody=Price(1)), "status": "retired"},
         reader(ANNA), None),
    ],
)  # fmt: skip
def test_only_who_sees_a_difference_is_told(
    before: dict[str, Any], after: dict[str, Any], who: Reader, expected: str | None
) -> None:
    changes = rules.find_changes(_state(**before), _state(**after), [FIXED.sku], [who])
    assert [c.type for c in changes] == ([expected] if expected else [])


def _state(
    prices: PriceList | None = None,
    status: str = "on_sale",
    grants: frozenset[UUID] | None = None,
    environments: set[str] | None = None,
) -> Snapshot:
    product = replace(FIXED, status=status, environments=frozenset(environments or {"live", "test"}))
    return snapshot(
        products={FIXED.sku: product},
        prices={FIXED.sku: prices} if prices else {},
        grants={} if grants is None else {FIXED.sku: grants},
    )


def test_what_a_merchant_sees() -> None:
    seen = snapshot(offer(stock=3), prices={FIXED.sku: WITH, RANGED.sku: PriceList(Price(rate_ppm=985_000))})
    assert rules.public_view(seen, FIXED, reader(CAI)) == {
        "sku": "mobile-cn-100",
        "name": "100 yuan",
        "product_type": "topup",
        "face_value": "100.0000",
        "unit_price": "0.0090",
        "currency": "CNY",
        "fields": [],
        "carriers": [],
        "barcodes": [],
        "stock": "low",
        "status": "on_sale",
    }
    ranged = rules.public_view(seen, RANGED, reader(CAI))
    assert ranged["range"] == {"min": "1.0000", "max": "500.0000", "step": "1.0000"}
    assert ranged["price_rate"] == "0.985000"
    assert "unit_price" not in ranged


@given(st.integers(0, 99_999_999))
def test_rates_read_as_they_are_written(rate: int) -> None:
    assert rules.parse_rate(rules.format_rate(rate)) == rate


@pytest.mark.parametrize("text", ["", "-1", "1e3", "0.1234567", "100", " 1", "1.", ".5", "١"])
def test_odd_rates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        rules.parse_rate(text)
