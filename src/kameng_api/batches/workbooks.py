"""Reads the one visible sheet of a stranger's XLSX: measured and walked before a spreadsheet library sees it, formulas found and never evaluated.

The library is not handed the stranger's package but one of ours, packed from the parts that were measured: what it reads is what was checked.
"""

import io
import posixpath
import re
import zipfile
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from xml.parsers import expat

import python_calamine

from kameng_api.batches.errors import FileRefused
from kameng_api.kit import packages

LIMITS: Final = packages.Limits(parts=500, unpacked=100_000_000, ratio=100)
MOST_COLUMNS: Final = 100
MOST_HEIGHT: Final = 100_000
"""Rows down to the last cell that holds something; empty rows between others count here."""
MOST_CELLS: Final = 2_500_000
MOST_TEXT: Final = 24_000_000
"""Bytes of text in all cells: one long text may be shown in a million of them without making the file larger."""
_MOST_ODD: Final = 50_000
_SHOWN: Final = 200
T = TypeVar("T")
_PLACE: Final = re.compile(r"\$?([A-Za-z]{1,3})\$?([0-9]{1,7})")
_MAIN: Final = "xl/workbook.xml"
_RELS: Final = "xl/_rels/workbook.xml.rels"
_STRINGS: Final = "xl/sharedStrings.xml"
_STYLES: Final = "xl/styles.xml"


@dataclass(frozen=True, slots=True)
class Odd:
    """A cell that is no plain value: why (an error code), and how it looks, in a form that is refused again until somebody corrects it."""

    code: str
    shown: str


@dataclass(frozen=True, slots=True)
class Line:
    """A row with its number on screen."""

    line_no: int
    cells: Sequence[Any]
    hidden: bool = False


@dataclass(slots=True)
class _Facts:
    """What the walk through a sheet found. Rows and columns from 1."""

    odd: dict[tuple[int, int], Odd] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)
    height: int = 0
    width: int = 0


def read(content: bytes) -> Iterator[Line]:
    """The rows of the one visible sheet. Raises FileRefused, also while iterating."""
    parts = _parts(content)
    visible, is_1904 = _sheet(parts)
    facts = _Walk(_string_lengths(parts.get(_STRINGS))).over(parts[visible])
    yield from _lines(_open(_repacked(parts, visible, is_1904)), facts)


def _parts(content: bytes) -> dict[str, bytes]:
    """The parts that are looked at, by the names they are found under. The rest is measured and dropped."""
    found: dict[str, bytearray] = {}

    def reader_of(name: str) -> Callable[[bytes], object] | None:
        if name.lower().endswith("vbaproject.bin"):
            raise FileRefused("macros", "the file contains macros: save it as .xlsx without them")
        plain = name.replace("\\", "/")
        if plain not in (_MAIN, _RELS, _STRINGS, _STYLES) and not (plain.startswith("xl/worksheets/") and plain.endswith(".xml")):
            return None
        if plain in found:
            raise FileRefused("not_a_spreadsheet", "the file holds one of its parts twice")
        return found.setdefault(plain, bytearray()).extend

    try:
        packages.walk(io.BytesIO(content), LIMITS, reader_of)
    except packages.BadPackage as trouble:
        code = "zip_bomb" if "unpacks to" in str(trouble) or "parts" in str(trouble) else "not_a_spreadsheet"
        raise FileRefused(code, f"this file cannot be opened: {trouble}") from None
    if _MAIN not in found or _RELS not in found:
        raise FileRefused("not_a_spreadsheet", "this is no XLSX workbook: save it in Excel or WPS as .xlsx")
    return {name: bytes(text) for name, text in found.items()}


def _sheet(parts: Mapping[str, bytes]) -> tuple[str, bool]:
    """The part of the one visible sheet, and whether dates count from 1904."""
    targets: dict[str, str] = {}
    visible: list[str] = []
    dates: list[str] = []

    def relation(name: str, given: Mapping[str, str]) -> None:
        if name == "Relationship" and given.get("Type", "").endswith("/worksheet"):
            targets[given.get("Id", "")] = posixpath.normpath(posixpath.join("/xl", given.get("Target", ""))).lstrip("/")

    def sheet(name: str, given: Mapping[str, str]) -> None:
        if name == "sheet":
            link = next((value for key, value in given.items() if key.rpartition(" ")[2] == "id" and " " in key), "")
            if given.get("state", "visible") == "visible":
                visible.append(link)
        elif name == "workbookPr":
            dates.append(given.get("date1904", "0"))

    _walk(parts[_RELS], relation)
    _walk(parts[_MAIN], sheet)
    if len(visible) != 1:
        raise FileRefused("several_sheets", f"{len(visible)} sheets can be seen; keep one (others may be hidden)")
    part = targets.get(visible[0], "")
    if part not in parts:
        raise FileRefused("not_a_spreadsheet", "its visible sheet holds no cells")
    return part, dates[:1] in (["1"], ["true"])


_ENCODINGS: Final = ("utf-8", "utf-16", "utf-16be", "utf-16le", "us-ascii", "iso-8859-1")
"""Those that the parser reads itself; for any other it would look among ours."""


def _walk(
    xml: bytes,
    start: Callable[[str, Mapping[str, str]], None],
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> None:
    """Elements by their local names, in order. Raises FileRefused for what is not well-formed, or declares a document type (entities)."""
    parser = expat.ParserCreate(namespace_separator=" ")

    def refuse(*_: object) -> None:
        raise FileRefused("not_a_spreadsheet", "its parts declare a document type, which spreadsheets do not")

    def declared(_: str, encoding: str | None, __: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise FileRefused("not_a_spreadsheet", "its parts are in an encoding that spreadsheets are not in")

    parser.XmlDeclHandler = declared
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, given: start(name.rpartition(" ")[2], given)
    if end is not None:
        parser.EndElementHandler = lambda name: end(name.rpartition(" ")[2])
    if text is not None:
        parser.CharacterDataHandler = text
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as trouble:
        raise FileRefused("not_a_spreadsheet", f"a part of it is damaged ({expat.errors.messages.get(trouble.code, 'not XML')})") from None


def _string_lengths(xml: bytes | None) -> "array[int]":
    """How long each shared text is, by its number."""
    lengths = array("I")
    if xml is not None:

        def start(name: str, _: Mapping[str, str]) -> None:
            if name == "si":
                lengths.append(0)

        def text(piece: str) -> None:
            if lengths:
                lengths[-1] += len(piece)

        _walk(xml, start, None, text)
    return lengths


class _Walk:
    """One pass over a sheet's cells: how many, how far, how much text, and which of them are no plain values."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths
        self._facts = _Facts()
        self._row = self._column = self._cells = self._text = 0
        self._type = ""
        self._value: list[str] = []
        self._formula: list[str] | None = None
        self._taking: list[str] | None = None

    def over(self, xml: bytes) -> _Facts:
        _walk(xml, self._start, self._end, self._piece)
        return self._facts

    def _start(self, name: str, given: Mapping[str, str]) -> None:
        if name == "c":
            self._open_cell(given)
        elif name in ("v", "t"):
            self._taking = self._value
        elif name == "f":
            self._formula = self._taking = []
        elif name == "row":
            self._open_row(given)
        elif name == "mergeCell":
            self._merge(given.get("ref", ""))

    def _piece(self, text: str) -> None:
        if self._taking is not None:
            self._text += len(text)
            self._taking.append(text)

    def _end(self, name: str) -> None:
        if name == "c":
            self._close_cell()
        elif name in ("v", "t", "f"):
            self._taking = None

    def _open_row(self, given: Mapping[str, str]) -> None:
        place = given.get("r", "")
        self._row = int(place) if place.isdecimal() and len(place) < 8 else self._row + 1
        self._column = 0
        if given.get("hidden") in ("1", "true"):
            self._facts.hidden.add(self._row)

    def _open_cell(self, given: Mapping[str, str]) -> None:
        self._cells += 1
        if self._cells > MOST_CELLS:
            raise FileRefused("too_many_cells", f"more than {MOST_CELLS} cells")
        place = given.get("r")
        if place is None:
            self._column += 1
        else:
            self._row, self._column = _place(place)
        self._type, self._value, self._formula = given.get("t", "n"), [], None

    def _close_cell(self) -> None:
        value = "".join(self._value)
        if self._type == "s" and value.isdecimal() and len(value) < 8 and int(value) < len(self._lengths):
            self._text += self._lengths[int(value)]
        if self._text > MOST_TEXT:
            raise FileRefused("too_much_text", f"its cells hold more than {MOST_TEXT // 1_000_000} MB of text")
        if not value and self._formula is None:
            return
        facts = self._facts
        facts.height, facts.width = max(facts.height, self._row), max(facts.width, self._column)
        if facts.height > MOST_HEIGHT:
            raise FileRefused("too_many_rows", f"something stands below row {MOST_HEIGHT}: delete what is below the last order")
        if facts.width > MOST_COLUMNS:
            raise FileRefused("too_many_columns", f"more than {MOST_COLUMNS} columns")
        if self._formula is not None:
            facts.odd[self._row, self._column] = Odd("formula_cell", "=" + "".join(self._formula)[:_SHOWN])
        elif self._type == "e":
            facts.odd[self._row, self._column] = Odd("error_cell", value[:_SHOWN] if value.startswith("#") else "#ERROR!")
        if len(facts.odd) > _MOST_ODD:
            raise FileRefused("formula_cell", f"more than {_MOST_ODD} formulas: copy the sheet and paste it as values")

    def _merge(self, ref: str) -> None:
        first, _, last = ref.partition(":")
        top, left = _place(first)
        bottom, right = _place(last or first)
        self._facts.merged.append((min(top, bottom), min(left, right), max(top, bottom), max(left, right)))
        if len(self._facts.merged) > _MOST_ODD:
            raise FileRefused("merged_cell", f"more than {_MOST_ODD} merged ranges")


def _place(text: str) -> tuple[int, int]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise FileRefused("not_a_spreadsheet", "a cell of it stands nowhere")
    column = 0
    for letter in match[1].upper():
        column = column * 26 + ord(letter) - 64
    return int(match[2]), column


def _repacked(parts: Mapping[str, bytes], visible: str, is_1904: bool) -> io.BytesIO:
    """A package of ours around the parts that were walked over."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    relations = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    relation = f'<Relationship Id="rId{{}}" Type="{office}/{{}}" Target="{{}}"/>'
    links = (("worksheet", "worksheets/sheet1.xml"), ("styles", "styles.xml"), ("sharedStrings", "sharedStrings.xml"))
    book = (
        f'<workbook xmlns="{main}" xmlns:r="{office}"><workbookPr date1904="{int(is_1904)}"/>'
        '<sheets><sheet name="orders" sheetId="1" r:id="rId1"/></sheets></workbook>'
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("_rels/.rels", relations.format(relation.format(1, "officeDocument", _MAIN)))
        file.writestr(_MAIN, book)
        file.writestr(_RELS, relations.format("".join(relation.format(n, kind, target) for n, (kind, target) in enumerate(links, 1))))
        file.writestr("xl/worksheets/sheet1.xml", parts[visible])
        for name in (_STRINGS, _STYLES):
            if name in parts:
                file.writestr(name, parts[name])
    packed.seek(0)
    return packed


def _open(package: io.BytesIO) -> python_calamine.CalamineWorkbook:
    return _guarded(lambda: python_calamine.CalamineWorkbook.from_filelike(package))


def _guarded(act: Callable[[], T]) -> T:
    """A spreadsheet the library stumbles over is one that cannot be read; its panics are no exceptions to Python."""
    try:
        return act()
    except BaseException as trouble:
        if isinstance(trouble, (python_calamine.CalamineError, ValueError, OSError)) or type(trouble).__name__ == "PanicException":
            raise FileRefused("not_a_spreadsheet", f"this file cannot be read ({type(trouble).__name__})") from None
        raise


def _lines(book: python_calamine.CalamineWorkbook, facts: _Facts) -> Iterator[Line]:
    sheet = _guarded(lambda: book.get_sheet_by_index(0))
    before = [""] * (sheet.start[1] if sheet.start is not None else 0)  # empty columns to the left are not among the cells
    rows = iter(sheet.iter_rows())
    merged = _Merged(facts.merged)
    odd: dict[int, list[tuple[int, Odd]]] = {}
    for (row, column), what in facts.odd.items():
        odd.setdefault(row, []).append((column, what))
    for n in range(1, facts.height + 1):
        found = _guarded(lambda: next(rows, None))
        cells: list[Any] = [*before, *(found or ())]
        _put(cells, odd.get(n, ()))
        _put(cells, merged.cells_of(n, cells))
        yield Line(n, cells, n in facts.hidden)


def _put(cells: list[Any], odd: Collection[tuple[int, Odd]]) -> None:
    for column, what in odd:
        if len(cells) < column:
            cells.extend([""] * (column - len(cells)))
        cells[column - 1] = what


class _Merged:
    """Which cells of a row belong to a merged range that holds something. Asked row by row, downwards."""

    def __init__(self, ranges: Sequence[tuple[int, int, int, int]]) -> None:
        self._coming = sorted(ranges, reverse=True)
        self._active: list[tuple[int, int, int]] = []

    def cells_of(self, row: int, cells: Sequence[Any]) -> list[tuple[int, Odd]]:
        self._active = [there for there in self._active if there[0] >= row]
        found: list[tuple[int, Odd]] = []
        while self._coming and self._coming[-1][0] <= row:
            top, left, bottom, right = self._coming.pop()
            value = cells[left - 1] if top == row and left <= len(cells) else ""
            if value == "" or (top, left) == (bottom, right):
                continue
            right = min(right, MOST_COLUMNS)
            found.append((left, value if isinstance(value, Odd) else Odd("merged_cell", _shown(value))))
            found += [(column, Odd("merged_cell", "")) for column in range(left + 1, right + 1)]
            if bottom > row:
                self._active.append((bottom, left, right))
                if len(self._active) > MOST_COLUMNS:
                    raise FileRefused("merged_cell", "merged ranges lie over each other")
                continue
        started = {column for column, _ in found}
        found += [(c, Odd("merged_cell", "")) for bottom, left, right in self._active for c in range(left, right + 1) if c not in started]
        return found


def _shown(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
