"""How the file of one supplier is read: which column holds what, and how its words, dates and amounts are spelt.

A mapping is stored with its source and checked when it is set, not when a file arrives. What a row does not say clearly is a bad row with a
reason; nothing is guessed. No I/O.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kameng_api.kit.money import LARGEST, SCALE
from kameng_api.kit.zones import is_zone
from kameng_api.suppliers.port import LineKind, StatementLine

Column = Annotated[str, Field(min_length=1, max_length=100)] | Annotated[int, Field(ge=1, le=200)]
"""A heading as it stands in the file, or the number of the column counted from 1."""
Cell = str | int | float | bool | date | datetime | Any
_LONGEST: Final = 128
_EXACT_BELOW: Final = 10**15
_WRAPPED: Final = re.compile(r'\A="(.*)"\Z', re.DOTALL)


class BadRow(ValueError):
    """Why a row cannot be read; safe to show, holds no cell's content."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Model):
    """Where each fact stands. What is left out is not in the file."""

    at: Column
    amount: Column | None = None
    amount_in: Column | None = None
    amount_out: Column | None = None
    kind: Column | None = None
    line_id: Column | None = None
    reference: Column | None = None
    supplier_order_no: Column | None = None
    external_id: Column | None = None
    balance_after: Column | None = None
    face_value: Column | None = None
    units: Column | None = None
    currency: Column | None = None

    def named(self) -> list[str]:
        """The headings that must be there."""
        return sorted({column for _, column in self if isinstance(column, str)})


class FileMapping(_Model):
    """One source's file format.

    `sign`: `signed` a charge is below zero · `inverted` a charge is above zero · `by_kind` amounts carry no sign, the kind says it.
    With `amount_in` and `amount_out` the two columns say it. `amount_unit` is what 1 in the file is worth in currency units. `at_format` is
    `iso` or a `strptime` pattern; spreadsheet dates are read as they are. Rows whose first filled cell begins with one of `ignore` are passed
    over. A kind that is not in `kinds` makes a bad row.
    """

    format: Literal["csv", "xlsx"] = "csv"
    encoding: Literal["auto", "utf-8", "gb18030"] = "auto"
    delimiter: Literal[",", ";", "\t", "|"] = ","
    sheet: str | None = Field(default=None, max_length=100)
    header_row: int = Field(default=1, ge=0, le=1000)
    ignore: tuple[str, ...] = ()
    columns: Columns
    at_format: str = Field(default="iso", min_length=2, max_length=60)
    timezone: str = "Asia/Shanghai"
    amount_unit: Literal["1", "0.1", "0.01", "0.001", "0.0001"] = "1"
    sign: Literal["signed", "inverted", "by_kind"] = "signed"
    kinds: dict[str, LineKind] = Field(default_factory=dict)
    kind_below_zero: LineKind | None = None
    kind_above_zero: LineKind | None = None

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if not is_zone(value):
            raise ValueError("a time zone such as Asia/Shanghai")
        return value

    @field_validator("at_format")
    @classmethod
    def _works(cls, value: str) -> str:
        if value == "iso":
            return value
        moment = datetime(2026, 11, 22, 13, 14, 15, tzinfo=UTC)
        try:
            read = datetime.strptime(moment.strftime(value), value)  # noqa: DTZ007  only its parts are looked at
        except (ValueError, re.error) as error:
            raise ValueError("a strptime pattern such as %Y-%m-%d %H:%M:%S") from error
        if (read.year, read.month, read.day) != (2026, 11, 22):
            raise ValueError("the pattern must say year, month and day")
        return value

    @model_validator(mode="after")
    def _says_everything(self) -> Self:
        columns = self.columns
        two = columns.amount_in is not None and columns.amount_out is not None
        if (columns.amount is not None) == two or (columns.amount_in is None) != (columns.amount_out is None):
            raise ValueError("either columns.amount, or both columns.amount_in and columns.amount_out")
        if columns.kind is None and (self.kind_below_zero is None or self.kind_above_zero is None):
            raise ValueError("without columns.kind, kind_below_zero and kind_above_zero say what a row is")
        if columns.kind is not None and not self.kinds:
            raise ValueError("columns.kind needs kinds: their word → charge | refund | reversal | top_up | withdrawal | other")
        if self.sign == "by_kind" and (columns.kind is None or LineKind.OTHER in self.kinds.values()):
            raise ValueError("sign by_kind needs columns.kind, and kinds whose direction is known (not other)")
        if columns.reference is None and columns.supplier_order_no is None:
            raise ValueError("columns.reference or columns.supplier_order_no must be there: a line without either matches nothing")
        if self.header_row == 0 and columns.named():
            raise ValueError("without a header_row columns are numbers")
        return self


_SIGN_OF: Final[Mapping[LineKind, int]] = {
    LineKind.CHARGE: -1,
    LineKind.WITHDRAWAL: -1,
    LineKind.FEE: -1,
    LineKind.REFUND: 1,
    LineKind.REVERSAL: 1,
    LineKind.TOP_UP: 1,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a mapping stand in one file: fact → index from 0."""

    places: Mapping[str, int]


def find_columns(mapping: FileMapping, header: Sequence[Cell]) -> Layout:
    """Raises BadRow naming what is missing, or stands twice."""
    headings = [text_of(cell) for cell in header]
    count = Counter(headings)
    missing = [name for name in mapping.columns.named() if count[name] == 0]
    twice = [name for name in mapping.columns.named() if count[name] > 1]
    if missing or twice:
        told = [f"no column {name!r}" for name in missing] + [f"two columns {name!r}" for name in twice]
        raise BadRow("; ".join(told))
    places = {
        fact: headings.index(column) if isinstance(column, str) else column - 1 for fact, column in mapping.columns if column is not None
    }
    return Layout(places)


class RowReader:
    """Reads the rows of one file, one after the other. Rows that say the same get different ids, always in the same way."""

    def __init__(self, mapping: FileMapping, layout: Layout, currency: str) -> None:
        self._mapping = mapping
        self._places = layout.places
        self._currency = currency
        self._zone = ZoneInfo(mapping.timezone)
        self._unit = Decimal(mapping.amount_unit) * SCALE
        self._seen: Counter[str] = Counter()

    def is_ignored(self, row: Sequence[Cell]) -> bool:
        """An empty row, or one that the mapping passes over."""
        first = next((text for cell in row if (text := text_of(cell))), "")
        return not first or first.startswith(self._mapping.ignore or ("\x00",))

    def read(self, row: Sequence[Cell]) -> StatementLine:
        """Raises BadRow."""
        at = self._at(self._cell(row, "at"))
        reference, number = self._name(row, "reference"), self._name(row, "supplier_order_no")
        kind, amount = self._movement(row)
        if kind in (LineKind.CHARGE, LineKind.REFUND, LineKind.REVERSAL) and reference is None and number is None:
            raise BadRow("names no order")
        currency = self._name(row, "currency") or self._currency
        if currency != self._currency:
            raise BadRow(f"currency is not {self._currency}")
        line = StatementLine(
            line_id=self._name(row, "line_id") or "",
            reference=reference,
            supplier_order_no=number,
            kind=kind,
            amount=amount,
            currency=currency,
            at=at,
            external_id=self._name(row, "external_id"),
            balance_after=self._optional_amount(row, "balance_after"),
            face_value=self._optional_amount(row, "face_value"),
            units=self._units(row),
        )
        return line if line.line_id else self._with_own_id(line)

    def _with_own_id(self, line: StatementLine) -> StatementLine:
        if "line_id" in self._places:
            raise BadRow("has no number of its own")
        said = f"{line.reference}|{line.supplier_order_no}|{line.external_id}|{line.kind}|{line.amount}|{line.at.isoformat()}"
        self._seen[said] += 1
        digest = hashlib.sha256(said.encode()).hexdigest()[:24]
        return replace(line, line_id=f"H{digest}-{self._seen[said]}")

    def _cell(self, row: Sequence[Cell], fact: str) -> Cell:
        place = self._places.get(fact)
        return None if place is None or place >= len(row) else row[place]

    def _name(self, row: Sequence[Cell], fact: str) -> str | None:
        cell = self._cell(row, fact)
        if isinstance(cell, float | int) and not isinstance(cell, bool) and abs(cell) >= _EXACT_BELOW and isinstance(cell, float):
            raise BadRow(f"{fact}: a number of more than 15 digits; the spreadsheet has lost its end, keep it as text")
        text = text_of(cell)
        if len(text) > _LONGEST or any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise BadRow(f"{fact}: too long, or holds control characters")
        if text.startswith(("=", "@")):
            raise BadRow(f"{fact}: a formula")
        if re.fullmatch(r"[0-9]\.[0-9]+[eE]\+[0-9]+", text):
            raise BadRow(f"{fact}: a number in scientific notation; its end is lost, keep it as text")
        return text or None

    def _movement(self, row: Sequence[Cell]) -> tuple[LineKind, int]:
        kind = self._kind_said(row)
        if "amount" in self._places:
            amount = self._amount(self._cell(row, "amount"), "amount")
            if self._mapping.sign == "inverted":
                amount = -amount
            elif self._mapping.sign == "by_kind":
                assert kind is not None
                if amount < 0:
                    raise BadRow("amount: has a sign, though the kind says it")
                amount *= _SIGN_OF[kind]
        else:
            came = self._amount(self._cell(row, "amount_in"), "amount_in", empty=0)
            went = self._amount(self._cell(row, "amount_out"), "amount_out", empty=0)
            if (came != 0) == (went != 0):
                raise BadRow("amount: exactly one of in and out must be filled")
            amount = abs(came) - abs(went)
        if kind is None:
            kind = self._mapping.kind_below_zero if amount < 0 else self._mapping.kind_above_zero
        assert kind is not None
        if amount == 0 or amount * _SIGN_OF.get(kind, amount) < 0:
            raise BadRow(f"amount: does not fit a {kind}")
        return kind, amount

    def _kind_said(self, row: Sequence[Cell]) -> LineKind | None:
        if "kind" not in self._places:
            return None
        kind = self._mapping.kinds.get(text_of(self._cell(row, "kind")))
        if kind is None:
            raise BadRow("kind: not one of the words of this source")
        return kind

    def _optional_amount(self, row: Sequence[Cell], fact: str) -> int | None:
        cell = self._cell(row, fact)
        return None if text_of(cell) == "" else self._amount(cell, fact)

    def _amount(self, cell: Cell, fact: str, *, empty: int | None = None) -> int:
        text = text_of(cell).replace(",", "").replace("¥", "").replace("￥", "")
        if not text:
            if empty is None:
                raise BadRow(f"{fact}: empty")
            return empty
        if not re.fullmatch(r"[+-]?[0-9]{1,16}(\.[0-9]{1,20})?", text):
            raise BadRow(f"{fact}: not a decimal number")
        try:
            value = Decimal(text) * self._unit
        except InvalidOperation:
            raise BadRow(f"{fact}: not a decimal number") from None
        whole = value.to_integral_value()
        # A spreadsheet keeps 97.35 as the nearest binary fraction; what is further away than that is a digit too many.
        if abs(value - whole) > (Decimal("0.00001") if isinstance(cell, float) else 0):
            raise BadRow(f"{fact}: more than four decimals")
        if abs(whole) > LARGEST:
            raise BadRow(f"{fact}: too large")
        return int(whole)

    def _units(self, row: Sequence[Cell]) -> int | None:
        text = text_of(self._cell(row, "units"))
        if not text:
            return None
        if not re.fullmatch(r"[0-9]{1,6}(\.0+)?", text):
            raise BadRow("units: not a whole number")
        return int(text.partition(".")[0])

    def _at(self, cell: Cell) -> datetime:
        if isinstance(cell, datetime):
            at = cell
        else:
            text = text_of(cell)
            try:
                pattern = self._mapping.at_format
                at = datetime.fromisoformat(text) if pattern == "iso" else datetime.strptime(text, pattern)  # noqa: DTZ007  made aware below
            except ValueError:
                raise BadRow("at: not a time in the format of this source") from None
        if at.tzinfo is None:
            at = at.replace(tzinfo=self._zone)
        if not 2000 <= at.year < 2100:
            raise BadRow("at: not a year of ours")
        return at.astimezone(UTC)


def text_of(cell: Cell) -> str:
    """A cell as a person reads it: whole numbers without a point, and without what exports wrap around digits."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < _EXACT_BELOW else repr(cell)
    text = str(cell).strip().lstrip("`'").strip()  # a leading quote or grave keeps spreadsheets from eating digits
    wrapped = _WRAPPED.match(text)
    return wrapped.group(1).strip() if wrapped else text
