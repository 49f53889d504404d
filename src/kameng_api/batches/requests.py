"""From a row, of JSON or of a file, to the orders it stands for, or to what is wrong with it. Decided from values; no I/O."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from kameng_api.batches import splitting
from kameng_api.batches.rules import ItemStatus, Options
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Product, Snapshot
from kameng_api.kit.errors import Problem
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.kit.public_address import UrlRefused, check_url
from kameng_api.merchants.rules import Caller
from kameng_api.orders.requests import Draft, OrderRequest, appraise
from kameng_api.orders.rules import magic_number

COLUMNS: Final = (
    "merchant_order_no", "sku", "target", "quantity", "face_value", "max_unit_price", "deliver_within_s", "confirm_duplicate", "notify_url"
)  # fmt: skip
"""What a row may say, in the order of our own files; form fields stand in columns `fields.NAME`, the merchant's notes in `metadata.NAME`."""
FIELD_PREFIX: Final = "fields."
NOTE_PREFIX: Final = "metadata."
MAX_PARTS: Final = 100
"""Orders that one row may be split into."""

_NUMBER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SKU: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_WHOLE: Final = re.compile(r"[0-9]{1,6}")
_YES: Final = frozenset(("true", "yes", "1", "是"))
_NO: Final = frozenset(("", "false", "no", "0", "否"))
_MAX_FIELDS: Final = 20
_MAX_FIELD: Final = 256
_MAX_TARGET: Final = 64
_MAX_NOTES: Final = 50
_MAX_NOTES_BYTES: Final = 8_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a row is no order: a stable code, where in the row, and a sentence."""

    code: str
    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row as it was sent: `item` the JSON members it set, or `cells` the columns of a file. `problem`: what its reader could not read."""

    line_no: int
    item: Mapping[str, Any] | None = field(default=None, repr=False)
    cells: Mapping[str, str] | None = field(default=None, repr=False)
    problem: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A row that can be read. `number` is the merchant's own, None when it is to be made; without `sku` it is to be split by `face_value`."""

    line_no: int
    number: str | None
    sku: str | None
    face_value: str | None
    request: OrderRequest = field(repr=False)


@dataclass(frozen=True, slots=True)
class Decided:
    """One item: an order to be placed, or the reason why not. `amount` in 1/10000 units."""

    line_no: int
    part: int
    status: ItemStatus
    number: str | None = None
    sku: str | None = None
    quantity: int | None = None
    amount: int = 0
    merged_into: int | None = None
    trouble: Trouble | None = None
    request: OrderRequest | None = field(default=None, repr=False)


def pack(rows: Sequence[StoredRow], columns: Sequence[str], headings: Sequence[str] = ()) -> bytes:
    """A page of rows, to be sealed. `headings` stood above `columns` in the merchant's file."""
    listed = [
        [r.line_no, r.item, r.cells, None if r.problem is None else [r.problem.code, r.problem.pointer, r.problem.detail]] for r in rows
    ]
    return orjson.dumps({"columns": columns, "rows": listed} | ({"headings": headings} if headings else {}))


def unpack(page: bytes) -> tuple[list[StoredRow], list[str]]:
    """The inverse of `pack`: rows and columns."""
    content = orjson.loads(page)
    rows = [StoredRow(line, item, cells, None if wrong is None else Trouble(*wrong)) for line, item, cells, wrong in content["rows"]]
    return rows, content["columns"]


def headings_in(page: bytes) -> dict[str, str]:
    """Column → the heading that `pack` was given for it."""
    content = orjson.loads(page)
    return dict(zip(content["columns"], content.get("headings", ()), strict=False))


def cells_of(row: StoredRow) -> dict[str, str]:
    """The row as columns of a file, whichever way it came."""
    if row.item is None:
        return dict(row.cells or {})
    cells = {name: _text(value) for name, value in row.item.items() if name in COLUMNS}
    cells |= {f"{FIELD_PREFIX}{name}": value for name, value in row.item.get("fields", {}).items()}
    return cells | {f"{NOTE_PREFIX}{name}": _text(value) for name, value in row.item.get("metadata", {}).items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read(row: StoredRow) -> Ask | Trouble:
    """What the row asks for, or the first thing that is wrong with it."""
    if row.problem is not None:
        return row.problem
    return _read_item(row.line_no, row.item) if row.item is not None else _read_cells(row.line_no, row.cells or {})


def _read_item(line_no: int, item: Mapping[str, Any]) -> Ask | Trouble:
    """Members have been checked when they came in; only what depends on several of them is checked here."""
    price = item.get("max_unit_price")
    fields = item.get("fields", {})
    sku, face_value = item.get("sku"), item.get("face_value")
    if sku is not None and face_value is not None:
        fields = {**fields, "face_value": face_value}
    request = OrderRequest(
        merchant_order_no="",
        sku=sku or "",
        quantity=item.get("quantity", 1),
        target=item.get("target"),
        fields=fields,
        max_unit_price=None if price is None else parse_amount(price),
        deliver_within_s=item.get("deliver_within_s"),
        notify_url=item.get("notify_url"),
        metadata=item.get("metadata", {}),
        confirm_duplicate=item.get("confirm_duplicate", False),
    )
    return Ask(line_no, item.get("merchant_order_no"), sku, face_value, request)


def _read_cells(line_no: int, cells: Mapping[str, str]) -> Ask | Trouble:
    said = {name: text for name, cell in cells.items() if (text := cell.strip())}
    wrong = _wrong_cell(said)
    if wrong is not None:
        return wrong
    fields = {name.removeprefix(FIELD_PREFIX): text for name, text in said.items() if name.startswith(FIELD_PREFIX)}
    sku, face_value = said.get("sku"), said.get("face_value")
    if sku is not None and face_value is not None:
        fields["face_value"] = face_value
    price, within = said.get("max_unit_price"), said.get("deliver_within_s")
    request = OrderRequest(
        merchant_order_no="",
        sku=sku or "",
        quantity=int(said.get("quantity", "1")),
        target=said.get("target"),
        fields=fields,
        max_unit_price=None if price is None else parse_amount(price),
        deliver_within_s=None if within is None else int(within),
        notify_url=said.get("notify_url"),
        metadata={name.removeprefix(NOTE_PREFIX): text for name, text in said.items() if name.startswith(NOTE_PREFIX)},
        confirm_duplicate=said.get("confirm_duplicate", "").lower() in _YES,
    )
    return Ask(line_no, said.get("merchant_order_no"), sku, face_value, request)


def _wrong_cell(said: Mapping[str, str]) -> Trouble | None:
    fields = [(n, v) for n, v in said.items() if n.startswith(FIELD_PREFIX)]
    checks = (
        ("merchant_order_no", "format", "1–64 letters, digits, - and _", _NUMBER.fullmatch),
        ("sku", "format", "1–64 of A-Za-z0-9._~-", _SKU.fullmatch),
        ("quantity", "out_of_range", "a whole number from 1 to 100000", lambda v: _WHOLE.fullmatch(v) and 1 <= int(v) <= 100_000),
        ("target", "too_long", f"at most {_MAX_TARGET} characters", lambda v: len(v) <= _MAX_TARGET),
        ("face_value", "format", "a decimal number with at most four places", _is_amount),
        ("max_unit_price", "format", "a decimal number with at most four places", _is_amount),
        ("deliver_within_s", "out_of_range", "seconds, from 1 to 86400", lambda v: _WHOLE.fullmatch(v) and 1 <= int(v) <= 86_400),
        ("confirm_duplicate", "format", "true or false", lambda v: v.lower() in _YES | _NO),
    )
    for name, code, detail, holds in checks:
        value = said.get(name)
        if value is not None and not holds(value):
            return Trouble("validation_failed", f"/{name}", f"{code}: {detail}")
    if len(fields) > _MAX_FIELDS:
        return Trouble("validation_failed", "/fields", f"too_long: at most {_MAX_FIELDS} fields")
    notes = [(n, v) for n, v in said.items() if n.startswith(NOTE_PREFIX)]
    if len(notes) > _MAX_NOTES or any(len(n) > 64 + len(NOTE_PREFIX) for n, _ in notes) or sum(len(v.encode()) for _, v in notes) > _MAX_NOTES_BYTES:
        return Trouble("validation_failed", "/metadata", f"too_long: at most {_MAX_NOTES} notes and {_MAX_NOTES_BYTES} bytes")
    long = next((n for n, v in fields if len(v) > _MAX_FIELD), None)
    if long is not None:
        return Trouble("validation_failed", f"/fields/{long.removeprefix(FIELD_PREFIX)}", f"too_long: at most {_MAX_FIELD} characters")
    return None


def _is_amount(text: str) -> bool:
    try:
        return parse_amount(text) > 0
    except ValueError:
        return False


def plan_merging(rows: Iterable[StoredRow], largest: Mapping[str, int], decided: Mapping[int, int] | None = None) -> dict[int, tuple[int, int]]:
    """Line → (the line that carries its order, the quantity of that order), for rows that are equal and have no number of their own.

    `largest`: how many units one order of a SKU may have; more equal rows than that make several orders. `decided`: line → quantity of orders
    that pages before this one have settled already: they stay as they are, whatever one order may have by now.
    """
    settled = decided or {}
    carriers: dict[bytes, tuple[int, int]] = {}
    carried: dict[int, int] = {}
    sums: dict[int, int] = {}
    for row in rows:
        ask = read(row)
        if isinstance(ask, Trouble) or ask.number is not None or ask.sku is None:
            continue
        request = ask.request
        key = replace(request, quantity=1).fingerprint()
        carrier, quantity = carriers.get(key, (row.line_no, 0))
        if quantity and quantity + request.quantity > settled.get(carrier, largest.get(ask.sku, 0)):
            carrier, quantity = row.line_no, 0
        carriers[key] = carrier, quantity + request.quantity
        carried[row.line_no] = carrier
        sums[carrier] = quantity + request.quantity
    return {line: (carrier, sums[carrier]) for line, carrier in carried.items()}


@dataclass(frozen=True, slots=True)
class Desk:
    """What rows are decided against: who sends them, the catalogue, and how the batch is to be done."""

    caller: Caller
    snapshot: Snapshot
    options: Options
    batch_no: str
    plan: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    development: bool = False

    def decide(self, row: StoredRow) -> list[Decided]:
        """The items of a row: one, or its parts."""
        ask = read(row)
        if isinstance(ask, Ask):
            ask = _wrong_url(ask, self.development) or ask
        if isinstance(ask, Trouble):
            return [Decided(row.line_no, 0, ItemStatus.INVALID, trouble=ask)]
        if ask.sku is None:
            return self._split(ask)
        carrier, quantity = self.plan.get(row.line_no, (row.line_no, ask.request.quantity))
        if carrier != row.line_no:
            return [Decided(row.line_no, 0, ItemStatus.PENDING, sku=ask.sku, quantity=ask.request.quantity, merged_into=carrier)]
        return [self._appraised(ask, 0, ask.sku, quantity)]

    def request_of(self, row: StoredRow, *, number: str, sku: str, quantity: int) -> OrderRequest:
        """The order of an item that was decided before, whatever the catalogue says by now."""
        ask = read(row)
        assert isinstance(ask, Ask), "it was readable when it was decided"
        return replace(ask.request, merchant_order_no=number, sku=sku, quantity=quantity)

    def _appraised(self, ask: Ask, part: int, sku: str, quantity: int) -> Decided:
        number = ask.number or f"{self.batch_no}-{ask.line_no}"
        number = f"{number}-{part}" if part else number
        if not _NUMBER.fullmatch(number):
            return Decided(
                ask.line_no, part, ItemStatus.INVALID, sku=sku, quantity=quantity,
                trouble=Trouble("validation_failed", "/merchant_order_no", f"too_long: {number[:80]} has more than 64 characters"),
            )  # fmt: skip
        request = replace(ask.request, merchant_order_no=number, sku=sku, quantity=quantity)
        verdict = appraise(request, self.caller, self.snapshot)
        if isinstance(verdict, Draft):
            return Decided(ask.line_no, part, ItemStatus.PENDING, number, sku, quantity, verdict.amount, request=request)
        return Decided(ask.line_no, part, ItemStatus.INVALID, number, sku, quantity, trouble=trouble_of(verdict), request=request)

    def _split(self, ask: Ask) -> list[Decided]:
        if ask.face_value is None:
            return self._unsplit(ask, "/sku", "required: a SKU, or a face value that is to be split")
        if not self.options.split_skus:
            return self._unsplit(ask, "/face_value", "a face value without a SKU needs split_skus: which products it may be split into")
        products = [p for p in map(self._product, self.options.split_skus) if p is not None and p.face_value]
        by_value: dict[int, Product] = {}
        for product in products:
            by_value.setdefault(product.face_value or 0, product)
        try:
            values = splitting.split(parse_amount(ask.face_value), list(by_value)) if by_value else None
        except splitting.TooFine:
            values = None
        if values is None:
            shown = ", ".join(format_amount(v) for v in sorted(by_value, reverse=True)) or "none"
            return self._unsplit(ask, "/face_value", f"cannot be made of the face values on sale: {shown}")
        orders = list(_grouped(values, by_value, ask.request.quantity))
        if len(orders) > MAX_PARTS:
            return self._unsplit(ask, "/face_value", f"would be {len(orders)} orders; at most {MAX_PARTS} from one row")
        parts = [self._appraised(ask, part, sku, quantity) for part, (sku, quantity) in enumerate(orders, 1)]
        wrong = self._charges_twice(ask, orders) or _wrong_part(parts)
        if wrong is None:
            return parts
        return [p if p.trouble is not None else replace(p, status=ItemStatus.INVALID, amount=0, trouble=wrong) for p in parts]

    def _charges_twice(self, ask: Ask, orders: Sequence[tuple[str, int]]) -> Trouble | None:
        """Several orders of one product for one target: its guard would let the first through and refuse the others."""
        target = ask.request.target
        if ask.request.confirm_duplicate or target is None or (magic_number(target) is not None and self.caller.environment == "test"):
            return None
        skus = [sku for sku, _ in orders]
        for sku in dict.fromkeys(skus):
            product = self._product(sku)
            if skus.count(sku) > 1 and product is not None and product.duplicate_window_s:
                detail = f"required: the target would be charged {skus.count(sku)} times with {sku}"
                return Trouble("validation_failed", "/confirm_duplicate", detail)
        return None

    def _product(self, sku: str) -> Product | None:
        product = catalog.find_product(self.snapshot, sku, self.caller.environment)
        return product if product is not None and product.status == "on_sale" else None

    def _unsplit(self, ask: Ask, pointer: str, detail: str) -> list[Decided]:
        return [Decided(ask.line_no, 0, ItemStatus.INVALID, ask.number, trouble=Trouble("validation_failed", pointer, detail))]


def _wrong_part(parts: Sequence[Decided]) -> Trouble | None:
    """A row is bought with all its parts or not at all: part of a face value is not what was asked for."""
    if all(p.trouble is None for p in parts):
        return None
    return Trouble("validation_failed", "/face_value", "another part of this row cannot be ordered")


def _wrong_url(ask: Ask, development: bool) -> Trouble | None:
    url = ask.request.notify_url
    if url is None:
        return None
    try:
        check_url(url, development=development)
    except UrlRefused as refused:
        return Trouble("validation_failed", "/notify_url", f"url_refused: {refused}")
    return None


def _grouped(values: Sequence[int], by_value: Mapping[int, Product], times: int) -> Iterable[tuple[str, int]]:
    """(SKU, quantity) of the orders that deliver these face values `times` over, none larger than its product allows."""
    for value, product in sorted(by_value.items(), key=lambda each: each[0], reverse=True):
        units = values.count(value) * times
        while units > 0:
            taken = min(units, product.max_quantity)
            yield product.sku, taken
            units -= taken


def trouble_of(problem: Problem) -> Trouble:
    """A refusal as it is kept beside a row: the first wrong field, where it names fields."""
    first = problem.errors[0] if problem.errors else None
    if first is not None:
        return Trouble(problem.code, first.pointer, f"{first.code}: {first.detail}")
    return Trouble(problem.code, "", problem.detail or problem.code)
