"""What a line of a supplier's list means for what we sell of it: what takes effect by itself, what is held back, what a person is asked. No I/O.

Amounts in 1/10000 units, rates and shares in parts per million. Two things are safe without a person: buying no more of an offer, and
reckoning with the dearer of two costs. Whatever is neither, and beyond the terms, waits.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from kameng_api.catalog.rules import Product
from kameng_api.kit.errors import FieldError
from kameng_api.kit.money import LARGEST, at_rate, format_amount
from kameng_api.suppliers.port import SupplierProduct

MILLION: Final = 1_000_000
RATE_PER_COST: Final = 100
"""A ranged line's cost is per 1.0000 of face value, in 1/10000: so many parts per million is one of it."""
_MOST_TEXT: Final = 200
_MOST_CODE: Final = 128
_MOST_FIELDS: Final = 40
_LARGEST_RATE: Final = 10 * MILLION


class Kind(StrEnum):
    """What a person is asked about."""

    NEW = "new"  # a line that is sold under no SKU yet
    PRICE_UP = "price_up"  # its cost rose by more than may take effect by itself
    PRICE_DOWN = "price_down"  # it fell by more
    BELOW_COST = "below_cost"  # its cost is above what some of our prices leave
    GONE = "gone"  # it is no longer in the list
    CHANGED = "changed"  # type, face value or what must be told with an order is another one now
    CURRENCY = "currency"  # it is sold in another currency now


HOLD_OF: Final[Mapping[Kind, str]] = {
    Kind.PRICE_UP: "price",
    Kind.BELOW_COST: "margin",
    Kind.CHANGED: "changed",
    Kind.CURRENCY: "currency",
    Kind.GONE: "gone",
}
"""What an offer is held for. A fallen cost holds nothing: until somebody looks, we reckon with the dearer one."""
_STRONGEST_FIRST: Final = (Kind.CURRENCY, Kind.CHANGED, Kind.BELOW_COST, Kind.PRICE_UP, Kind.GONE)
OF_COST: Final = frozenset({Kind.PRICE_UP, Kind.PRICE_DOWN, Kind.BELOW_COST})
DECISIONS: Final = ("approve", "reject", "ignore")


@dataclass(frozen=True, slots=True)
class ListTerms:
    """What of a channel's list takes effect by itself. Shares in parts per million."""

    price_up: int = 30_000
    price_down: int = 100_000
    margin: int = 0
    """Of the lowest price that must be left above a cost."""
    vanish: int = 200_000
    """A whole reading that would close a larger share of the lines closes none, and a person is asked."""
    stock: bool = True
    review_new: bool = True


def read_terms(stored: Mapping[str, Any]) -> ListTerms:
    """As stored; what an older version stored beside is left out."""
    known = {f.name for f in fields(ListTerms)}
    return ListTerms(**{name: value for name, value in stored.items() if name in known})


def check_terms(terms: ListTerms) -> list[FieldError]:
    """What is wrong with them."""
    bounds = {"price_up": 10 * MILLION, "price_down": MILLION, "margin": MILLION - 1, "vanish": MILLION}
    return [
        FieldError(f"/terms/{name}", "out_of_range", f"0 to {most / MILLION:g}")
        for name, most in bounds.items()
        if not 0 <= getattr(terms, name) <= most
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """A line as it was read last. `listed`: the supplier's list held it once; else only the line asked for alone ever told of it.

    `asked_alone`: it was asked for alone once.
    """

    number: int
    line: SupplierProduct
    gone: bool
    listed: bool = True
    asked_alone: bool = False


@dataclass(frozen=True, slots=True)
class Sold:
    """An offer that is made of a line. `floor`: the lowest price anybody pays, per unit, or in ppm of the face value where it is ranged."""

    sku: str
    product_type: str
    currency: str
    face_value: int | None
    face_min: int | None
    face_max: int | None
    allow_below_cost: bool
    unit_cost: int | None
    rate_ppm: int | None
    stock: int | None
    status: str
    held: str | None
    floor: int | None
    read_at: datetime
    """When the offer was written last."""

    @property
    def ranged(self) -> bool:
        return self.face_value is None

    @property
    def cost(self) -> int:
        """As it counts now: per unit, or in ppm where it is ranged."""
        if self.rate_ppm is None:
            return self.unit_cost or 0
        return self.rate_ppm if self.face_value is None else at_rate(self.face_value, self.rate_ppm)


@dataclass(frozen=True, slots=True)
class OfferNow:
    """What an offer shall be. `cost` None: it stays."""

    sku: str
    cost: int | None
    stock: int | None
    held: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person is asked. `told` is what it is about: the same is not asked twice. `change_ppm` of a cost, below zero: it fell."""

    product_code: str
    sku: str
    kind: Kind
    told: str
    facts: Mapping[str, Any]
    change_ppm: int | None = None
    urgent: bool = False
    """An offer was held for it just now: asked whatever was answered before."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one offer. `now` None: it stays as it is. `confirmed`: the supplier asks what we reckon with."""

    now: OfferNow | None
    findings: tuple[Finding, ...]
    confirmed: bool


class LineUnusable(ValueError):
    """A line that cannot be meant; the message names the part, never its value."""


def clean_line(line: SupplierProduct) -> SupplierProduct:
    """The line as it is kept: texts printable and bounded. Raises LineUnusable for a code, an amount or a number that cannot be meant."""
    if not 1 <= len(line.product_code) <= _MOST_CODE or not line.product_code.isprintable():
        raise LineUnusable("product_code")
    amounts = {"cost": line.cost, "face_value": line.face_value, "face_min": line.face_min, "face_max": line.face_max}
    for name, amount in amounts.items():
        if amount is not None and not 0 <= amount <= LARGEST:
            raise LineUnusable(name)
    if (line.face_min is None) != (line.face_max is None) or (line.face_min or 0) > (line.face_max or 0):
        raise LineUnusable("face_min")
    if line.stock is not None and not 0 <= line.stock < 2**31:
        raise LineUnusable("stock")
    if not 1 <= line.min_units < 2**31 or not line.min_units <= (line.max_units or line.min_units) < 2**31:
        raise LineUnusable("min_units")
    if len(line.fields) > _MOST_FIELDS or len(line.currency) > 8:
        raise LineUnusable("fields")
    name = _text(line.name)
    return line if name == line.name else replace(line, name=name)


FIELDS: Final = "fields"
STOCK: Final = "stock"
UNITS: Final = "units"


def told_by(lines: Iterable[SupplierProduct]) -> set[str]:
    """What of fields, stock and units a list tells: whatever it says of one of its lines."""
    found = set()
    for line in lines:
        found |= {name for name, tells in ((FIELDS, line.fields), (STOCK, line.stock is not None), (UNITS, _says_units(line))) if tells}
    return found


def _says_units(line: SupplierProduct) -> bool:
    """One is what several adapters write by themselves."""
    return line.min_units != 1 or line.max_units not in (None, 1)


def fill_in(tells: Collection[str], known: SupplierProduct, line: SupplierProduct) -> SupplierProduct:
    """The line of a list, and where such a list tells nothing (`tells`: see `told_by`), what the line asked for alone has told of it."""
    if known.product_type != line.product_type:
        return line
    kept: dict[str, Any] = {}
    if FIELDS not in tells and not line.fields and known.fields:
        kept["fields"] = known.fields
    if STOCK not in tells and line.stock is None and known.stock is not None:
        kept["stock"] = known.stock
    if UNITS not in tells and (line.min_units, line.max_units) == (1, None):
        kept |= {"min_units": known.min_units, "max_units": known.max_units}
    return replace(line, **kept) if kept else line


def as_told_first(tells: Collection[str], known: Known, line: SupplierProduct) -> Known:
    """What a line asked for alone is compared with: what it must be told is learnt, not changed, where only a list without it was read."""
    if known.asked_alone or FIELDS in tells or known.line.fields:
        return known
    return replace(known, line=replace(known.line, fields=line.fields))


def _text(text: str) -> str:
    printable = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return printable.strip()[:_MOST_TEXT]


def stock_of(line: SupplierProduct) -> int | None:
    """What may be bought of it: what is off sale has none."""
    return line.stock if line.available else 0


def cost_for(line: SupplierProduct, sold: Sold | Product) -> int | None:
    """The line's cost as an offer of this SKU counts it: per unit, or in ppm where it is ranged. None: it cannot be said so."""
    ranged = sold.ranged
    if line.currency != sold.currency or ranged != (line.face_min is not None):
        return None
    if not ranged:
        return line.cost
    rate = line.cost * RATE_PER_COST
    return rate if rate <= _LARGEST_RATE else None


def decide(terms: ListTerms, before: Known | None, line: SupplierProduct, sold: Sold) -> Verdict:
    """What a line that was read means for one offer made of it. A disabled offer is the operator's: nothing is done about it.

    An offer is held when the line *became* another one, or is there again as another one than we reckon with, and whenever it costs more
    than somebody pays. What it never agreed with beside is an operator's own word: a person is asked, once, and meanwhile it goes on being sold.
    """
    if sold.status != "enabled":
        return Verdict(None, (), confirmed=False)
    findings = _identity(before, line, sold)
    asked = cost_for(line, sold)
    moved = before is not None and (before.gone or before.line.cost != line.cost)
    about_cost = None if asked is None else _of_cost(terms, line, sold, asked, moved=moved)
    if about_cost is not None:
        findings.append(about_cost)
    confirmed = asked is not None and about_cost is None
    cost = asked if confirmed and asked != sold.cost else None
    held = _held(sold.held, findings, confirmed=confirmed)
    stock = stock_of(line) if terms.stock else sold.stock
    changed = cost is not None or stock != sold.stock or held != sold.held
    now = OfferNow(sold.sku, cost, stock, held) if changed else None
    newly = held if held != sold.held else None
    return Verdict(now, tuple(replace(f, urgent=newly is not None and HOLD_OF.get(f.kind) == newly) for f in findings), confirmed)


def _held(was: str | None, findings: list[Finding], *, confirmed: bool) -> str | None:
    """What the offer is held for. What it is, and its currency, only a person lets go; a cost lets go by itself when it is right again."""
    if was in ("changed", "currency"):
        return was
    new = next((HOLD_OF[f.kind] for f in findings if f.urgent and f.kind in HOLD_OF), None)
    if new is not None:
        return new
    if was in ("price", "margin"):
        still = next((HOLD_OF[f.kind] for f in findings if f.kind in OF_COST and f.kind in HOLD_OF), None)
        return None if confirmed or any(f.kind is Kind.PRICE_DOWN for f in findings) else still or was
    return None  # nothing, or gone: it is there again


def _identity(before: Known | None, line: SupplierProduct, sold: Sold) -> list[Finding]:
    """Whether it is still what the SKU says. What never fitted, an operator has joined by hand: it is told, and goes on being sold."""
    found = []
    old = None if before is None else before.line
    if line.currency != sold.currency:
        facts = {"from": sold.currency if old is None else old.currency, "to": line.currency}
        found.append(_finding(line, sold, Kind.CURRENCY, line.currency, facts, urgent=old is not None and old.currency != line.currency))
    differs = _differences(old, line) if old is not None else _misfits(line, sold)
    if differs:
        told = ", ".join(f"{name} {value['to']}" for name, value in sorted(differs.items()))
        found.append(_finding(line, sold, Kind.CHANGED, told[:_MOST_TEXT], differs, urgent=old is not None))
    return found


def _finding(line: SupplierProduct, sold: Sold, kind: Kind, told: str, facts: Mapping[str, Any], *, urgent: bool) -> Finding:
    return Finding(line.product_code, sold.sku, kind, told, {"name": line.name, **facts}, urgent=urgent)


def _differences(old: SupplierProduct, new: SupplierProduct) -> dict[str, dict[str, Any]]:
    pairs: dict[str, tuple[Any, Any]] = {
        "type": (old.product_type, new.product_type),
        "face_value": (_shown(old.face_value), _shown(new.face_value)),
        "face_min": (_shown(old.face_min), _shown(new.face_min)),
        "face_max": (_shown(old.face_max), _shown(new.face_max)),
    }
    if old.fields != new.fields:
        pairs["fields"] = [f.name for f in old.fields], [f.name for f in new.fields]
        if pairs["fields"][0] == pairs["fields"][1]:  # a label, an option, a duty
            pairs["fields"] = [asdict(f) for f in old.fields], [asdict(f) for f in new.fields]
    return {name: {"from": was, "to": now} for name, (was, now) in pairs.items() if was != now}


def _misfits(line: SupplierProduct, sold: Sold) -> dict[str, dict[str, Any]]:
    pairs: dict[str, tuple[Any, Any]] = {"type": (sold.product_type, line.product_type)}
    if line.face_value is not None and sold.face_value is not None:
        pairs["face_value"] = (_shown(sold.face_value), _shown(line.face_value))
    if sold.ranged != (line.face_min is not None):
        pairs["ranged"] = (sold.ranged, line.face_min is not None)
    return {name: {"from": was, "to": now} for name, (was, now) in pairs.items() if was != now}


def _shown(amount: int | None) -> str | None:
    return None if amount is None else format_amount(amount)


def _of_cost(terms: ListTerms, line: SupplierProduct, sold: Sold, asked: int, *, moved: bool) -> Finding | None:
    """None: what is asked may take effect by itself. `moved`: the line says another cost than it did, or was gone.

    What leaves nothing holds whenever it was read: an offer that is enabled again must not be sold at a cost of the past.
    """
    was = sold.cost
    guarded = (asked > was or sold.held in ("margin", "gone")) and _leaves_nothing(terms, sold, asked)
    if asked == was and not guarded:
        return None
    change = (asked - was) * MILLION // was if was else MILLION
    facts: dict[str, Any] = {"name": line.name, "from": _cost(sold, was), "to": _cost(sold, asked)}
    if guarded:
        kind = Kind.BELOW_COST
        facts["lowest_price"] = _cost(sold, sold.floor or 0)
    elif change > terms.price_up:
        kind = Kind.PRICE_UP
    elif -change > terms.price_down or not asked:
        kind = Kind.PRICE_DOWN
    else:
        return None
    return Finding(line.product_code, sold.sku, kind, str(asked), facts, change, urgent=moved or guarded)


def _leaves_nothing(terms: ListTerms, sold: Sold, cost: int) -> bool:
    """Somebody pays less than this cost and the margin that must be left. A SKU without a price is sold to nobody."""
    return sold.floor is not None and not sold.allow_below_cost and cost * MILLION > sold.floor * (MILLION - terms.margin)


def below_cost(terms: ListTerms, line: SupplierProduct, sold: Sold) -> Finding | None:
    """What is asked of an offer that was made just now at a cost which leaves nothing; None: it leaves something."""
    if not _leaves_nothing(terms, sold, sold.cost):
        return None
    facts = {"name": line.name, "from": None, "to": _cost(sold, sold.cost), "lowest_price": _cost(sold, sold.floor or 0)}
    return Finding(line.product_code, sold.sku, Kind.BELOW_COST, str(sold.cost), facts, urgent=True)


def _cost(sold: Sold, cost: int) -> str:
    return f"{cost // MILLION}.{cost % MILLION:06d}" if sold.ranged else format_amount(cost)


def decide_gone(line: SupplierProduct, sold: Sold) -> Verdict:
    """It is no longer in the list: nobody buys of it, and a person hears of it. What it is held for already it stays held for when it is back."""
    if sold.status != "enabled" or sold.held == "gone":
        return Verdict(None, (), confirmed=False)
    finding = Finding(line.product_code, sold.sku, Kind.GONE, "gone", {"name": line.name}, urgent=True)
    now = OfferNow(sold.sku, None, sold.stock, "gone") if sold.held is None else None
    return Verdict(now, (finding,), confirmed=False)


def new_line(line: SupplierProduct) -> Finding:
    """A line nobody sells."""
    facts = {
        "name": line.name, "type": line.product_type, "cost": format_amount(line.cost), "currency": line.currency,
        "face_value": _shown(line.face_value), "face_min": _shown(line.face_min), "face_max": _shown(line.face_max),
    }  # fmt: skip
    return Finding(line.product_code, "", Kind.NEW, "new", {name: value for name, value in facts.items() if value is not None})


def must_ask(standing: int, missing: int, share: int, allowed: int) -> bool:
    """Whether a whole reading that lacks `missing` of `standing` lines closes none before a person has agreed.

    One or two lines of a small list may go by themselves, the last one never. `allowed`: so many a person has let go.
    """
    if not missing or missing <= allowed:
        return False
    return missing == standing or (missing >= _FEW and missing * MILLION > standing * share)


_FEW: Final = 3


@dataclass(frozen=True, slots=True)
class Step:
    """What a decision does to an offer. `cost` None: it stays."""

    cost: int | None = None
    held: str | None = None
    disable: bool = False


def settle(kind: Kind, decision: str, told: str, line: SupplierProduct, sold: Sold, others: Iterable[Kind]) -> Step | str | None:
    """What follows for the offer from a person's word; None: nothing. A text says why it cannot be done.

    `others`: what else is open about the same offer, and may hold it still. Approved: what the supplier says takes effect. Rejected: it does
    not, and an offer that was held for it is disabled. Ignored: all stays, and the same is not asked again.
    """
    if decision == "ignore" or sold.status != "enabled":
        return None
    # who agrees to what a line costs now has answered every question about its cost
    open_still = {k for k in others if k is not kind and not (decision == "approve" and kind in OF_COST and k in OF_COST)}
    rest = next((HOLD_OF[k] for k in _STRONGEST_FIRST if k in open_still), None)
    mine = HOLD_OF.get(kind) is not None and sold.held == HOLD_OF[kind]
    if decision == "reject":
        if kind is Kind.GONE:
            return Step(held=rest) if mine else None
        return Step(disable=True) if mine else None
    if kind in OF_COST:
        cost = cost_for(line, sold)
        if cost is None or str(cost) != told:
            return "the line has moved on since this was asked"
        return Step(cost, rest)
    if kind is Kind.GONE:
        return Step(disable=True) if sold.held is not None else None
    if kind is Kind.CURRENCY and line.currency != sold.currency:
        return "a cost in another currency cannot take effect: sell it as another SKU, or reject"
    return Step(held=rest) if mine else None


def misfit(line: SupplierProduct, product: Product) -> str | None:
    """Why this line cannot be sold as this SKU, in a sentence; None: it can."""
    if line.currency != product.currency:
        return f"the line is sold in {line.currency}, the SKU in {product.currency}"
    if line.product_type != product.product_type:
        return f"the line is a {line.product_type}, the SKU a {product.product_type}"
    if product.ranged != (line.face_min is not None):
        return "one of the two has a range of face values, the other a single one"
    if not product.ranged and line.face_value is not None and line.face_value != product.face_value:
        return f"the line is worth {format_amount(line.face_value)}, the SKU {format_amount(product.face_value or 0)}"
    if product.ranged and not ((line.face_min or 0) <= (product.face_min or 0) and (product.face_max or 0) <= (line.face_max or 0)):
        return "the SKU's range reaches beyond the line's"
    if cost_for(line, product) is None:
        return "the line's cost cannot be said as a rate"
    return None


def backoff_s(failures: int, every_s: int) -> int:
    """How long after the `failures`-th failure in a row (from 1) a list is tried again."""
    return int(min(60 * 2 ** min(failures - 1, 10), every_s))


def first_after_s(every_s: int, channel_id: str) -> float:
    """After how many seconds a channel's list is read for the first time: channels are spread over their period, the same each time."""
    spread = int.from_bytes(hashlib.sha256(channel_id.encode()).digest()[:4], "big") / 2**32
    return every_s * (0.05 + 0.95 * spread)
