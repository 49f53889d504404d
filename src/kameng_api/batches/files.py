"""Reads a merchant's file of orders, CSV or XLSX: every row as plain text under known column names, or with the reason why it cannot be trusted.

Spreadsheets ruin numbers silently (`1.38E+10`, lost digits, dates where a code was typed). Such a row is told, never guessed: a guessed digit
charges a stranger's phone. What a row means is decided elsewhere.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from kameng_api.batches import workbooks
from kameng_api.batches.errors import FileRefused
from kameng_api.batches.headings import RESULT_COLUMNS, TEMPLATE_VERSION, Kind, column_of, kind_of, pointer_to, version_in
from kameng_api.batches.workbooks import MOST_COLUMNS, MOST_HEIGHT, Line, Odd

LARGEST_BYTES: Final = 10_000_000
MOST_ROWS: Final = 20_000
LONGEST_HEADING: Final = 120
_LONGEST_CELL: Final = 32_767
"""As many characters as Excel allows."""
_LONGEST_LINE: Final = 1_000_000
_MOST_WARNINGS: Final = 20
_EXACT: Final = 2**53
_DIGITS_KEPT: Final = 10**15
"""Excel keeps fifteen digits of a number and writes zeros for the rest."""

_SCIENTIFIC: Final = re.compile(r"[+-]?[0-9](?:\.[0-9]+)?[eE][+-][0-9]{1,3}|[+-]?[0-9]\.[0-9]+[eE][0-9]{1,3}")
_DECIMALS: Final = re.compile(r"[0-9]{5,}\.0+")
_LITERAL: Final = re.compile(r'="([^"]*)"')
_EXCEL_ERROR: Final = re.compile(r"#(?:N/A|VALUE!|REF!|DIV/0!|NAME\?|NULL!|NUM!|SPILL!|CALC!|ERROR!|GETTING_DATA|#+)", re.IGNORECASE)
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffd-\uffff\ud800-\udfff]")
_SPACE: Final = " \t\r\n\u00a0\u3000\u200b\ufeff"
_YES: Final = frozenset(("true", "yes", "y", "1", "是"))
_NO: Final = frozenset(("false", "no", "n", "0", "否"))

PROBLEMS: Final = {
    "scientific_notation": "a spreadsheet shortened this number: format the column as text and enter all its digits",
    "number_not_exact": "a spreadsheet cannot hold this number exactly: format the column as text and enter it again",
    "date_cell": "a spreadsheet made a date of this: format the column as text and enter it again",
    "boolean_cell": "a spreadsheet made TRUE or FALSE of this: format the column as text and enter it again",
    "formula_cell": "formulas are not evaluated: copy the column and paste it as values",
    "error_cell": "a formula of this cell ended in an error: enter its value",
    "merged_cell": "merged cells belong to no row: unmerge them and fill in every row",
    "control_character": "it contains characters that cannot be seen: enter it again",
    "cell_too_long": f"more than {_LONGEST_CELL} characters",
    "cell_without_heading": "something stands in a column without a heading: name or empty the column (in CSV: quote cells that hold the delimiter)",
    "hidden_row": "this row is hidden, so nobody has looked at it: show it (remove the filter), or delete it",
}
"""Every code a row can be refused with here, and what to do."""
_RUINED: Final = {"number_not_exact": "#NUM!", "date_cell": "#DATE!", "boolean_cell": "#BOOL!"}
"""How a value that is lost begins where it is shown, so that it is refused again until somebody corrects it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row that is not empty. `line_no` is its number on the spreadsheet's screen; `cells` hold what is not empty, by column.

    `problem` is (code, JSON pointer, sentence) of the first cell that cannot be trusted; the sentence never holds the cell.
    """

    line_no: int
    cells: dict[str, str] = field(repr=False)
    problem: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file that could be read. `columns` are our names (the merchant's own ones as they stand), `headings` what stood above them."""

    template_version: int | None
    columns: tuple[str, ...]
    rows: Sequence[Row] = field(repr=False)
    headings: tuple[str, ...] = ()
    unknown_columns: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """What is not wrong, but the merchant should know: at most _MOST_WARNINGS sentences."""
        shown = [f"the column {name!r} means nothing here; it is only kept for the result files" for name in self.unknown_columns]
        more = len(shown) - _MOST_WARNINGS + 1
        return shown if more <= 1 else [*shown[:-more], f"{more} more columns mean nothing here"]


def read(content: bytes, filename: str) -> Sheet:
    """The file's orders: at most MOST_ROWS rows of a file of at most LARGEST_BYTES. Blocking, some seconds at most. Raises FileRefused."""
    if len(content) > LARGEST_BYTES:
        raise FileRefused("file_too_large", f"larger than {LARGEST_BYTES // 1_000_000} MB: send several files")
    if not content.strip():
        raise FileRefused("file_empty", "the file is empty")
    if _is_workbook(content, filename):
        return _sheet(workbooks.read(content))
    return _sheet(_csv_lines(content))


def _is_workbook(content: bytes, filename: str) -> bool:
    """By what it holds; the name only tells what the merchant believes it to be."""
    if content.startswith(b"PK\x03\x04"):
        return True
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise FileRefused("file_type", "an old .xls workbook, or one with a password: save it as .xlsx without a password")
    if filename.lower().endswith((".xlsx", ".xlsm")):
        raise FileRefused("not_a_spreadsheet", "its name says .xlsx, but it is no workbook: save it again in Excel or WPS")
    if content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<" or content.startswith((b"%PDF", b"Rar!", b"\x1f\x8b", b"7z\xbc\xaf")):
        raise FileRefused("file_type", "neither CSV nor XLSX (some systems call a web page .xls): open it in Excel or WPS and save it as .xlsx")
    return False


# ---- CSV


def _csv_lines(content: bytes) -> Iterator[Line]:
    text = _decoded(content)
    if "\x00" in text:
        raise FileRefused("not_text", "it holds NUL characters: this is not a text file")
    delimiter, text = _delimiter(text)
    csv.field_size_limit(_LONGEST_LINE)
    reader = csv.reader(_short_lines(text), delimiter=delimiter, strict=True)
    line_no = 0
    while True:
        line_no += 1  # a quoted cell may hold line feeds: what counts is the row a spreadsheet shows, not the line of an editor
        try:
            cells = next(reader, None)
        except csv.Error as trouble:
            raise FileRefused("csv_quotes", f"near row {line_no}: {trouble}; a quotation mark inside a quoted cell is doubled") from None
        if cells is None:
            return
        if line_no > MOST_HEIGHT:
            raise FileRefused("too_many_rows", f"more than {MOST_HEIGHT} lines")
        if len(cells) > MOST_COLUMNS and any(cells[MOST_COLUMNS:]):
            raise FileRefused("too_many_columns", f"more than {MOST_COLUMNS} columns in row {line_no}")
        yield Line(line_no, [_literal(cell) for cell in cells[:MOST_COLUMNS]])


def _short_lines(text: str) -> Iterator[str]:
    """Line by line, before a reader makes millions of cells of one."""
    for line in io.StringIO(text, newline=""):
        if len(line) > _LONGEST_LINE:
            raise FileRefused("too_much_text", f"a line has more than {_LONGEST_LINE} characters")
        yield line


def _literal(cell: str) -> str | Odd:
    """`="0012"` is how some systems keep Excel from eating zeros; any other formula is one."""
    if not cell.lstrip(_SPACE).startswith("="):
        return cell
    match = _LITERAL.fullmatch(cell.strip(_SPACE))
    return match[1] if match else Odd("formula_cell", cell.strip(_SPACE))


def _decoded(content: bytes) -> str:
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return _strictly(content, (encoding,))
    zeros = content[:400].count(0)
    if zeros:  # ASCII in UTF-16 has a zero in every other byte
        return _strictly(content, ("utf-16-le" if content[1:400:2].count(0) * 2 >= zeros else "utf-16-be",))
    return _strictly(content, ("utf-8", "gb18030"))


def _strictly(content: bytes, encodings: Sequence[str]) -> str:
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise FileRefused("encoding", "neither UTF-8 nor GB18030 nor UTF-16: save it as 'CSV UTF-8' in Excel or WPS")


def _delimiter(text: str) -> tuple[str, str]:
    """Comma, semicolon or tab: the one that makes the most known headings of the first rows. Excel's own `sep=;` line is no row."""
    said = re.match(r"sep=([,;\t])\r?\n", text, re.IGNORECASE)
    if said:
        return said[1], text[said.end() :]
    start = text[:20_000]
    best = max((",", ";", "\t"), key=lambda delimiter: _known(start, delimiter))
    return best, text


def _known(start: str, delimiter: str) -> int:
    count = 0
    try:
        for n, cells in enumerate(csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)):
            count = max(count, sum(column_of(cell) is not None for cell in cells))
            if n >= 10:
                break
    except csv.Error:
        return count
    return count


# ---- from lines to rows


@dataclass(frozen=True, slots=True)
class _Column:
    """A column that is read: where it stands (from 0), what it is called here and in the file."""

    place: int
    name: str
    kind: Kind
    heading: str


@dataclass(frozen=True, slots=True)
class _Head:
    """The heading row: the columns that are read, every place that has a heading, and the version of the template."""

    columns: Sequence[_Column]
    places: frozenset[int]
    version: int | None


def _sheet(lines: Iterable[Line]) -> Sheet:
    """The first row that is not empty names the columns; what follows are orders."""
    head: _Head | None = None
    rows: list[Row] = []
    for line in lines:
        if all(_is_empty(cell) for cell in line.cells):
            continue
        if head is None:
            head = _headings(line)
            continue
        row = _row(line, head)
        if row is None:
            continue
        if len(rows) >= MOST_ROWS:
            raise FileRefused("too_many_rows", f"more than {MOST_ROWS} orders: send several files")
        rows.append(row)
    if head is None:
        raise FileRefused("file_empty", "the file has no headings")
    if not rows:
        raise FileRefused("no_rows", "there is no order below the headings")
    columns = head.columns
    unknown = tuple(column.name for column in columns if column.kind is Kind.UNKNOWN)
    return Sheet(head.version, tuple(c.name for c in columns), rows, tuple(c.heading for c in columns), unknown)


def _is_empty(cell: Any) -> bool:
    return isinstance(cell, str) and not cell.strip(_SPACE)


def _headings(line: Line) -> _Head:
    """What the heading row names. Raises FileRefused for one that is doubled, or when it is no heading row."""
    found: dict[str, _Column] = {}
    places: set[int] = set()
    version: int | None = None
    for place, cell in enumerate(line.cells):
        if _is_empty(cell):
            continue
        if isinstance(cell, Odd):
            raise FileRefused("heading_odd", f"row {line.line_no} holds the headings; column {place + 1}: {PROBLEMS[cell.code]}")
        heading = _CONTROL.sub("", _shown(cell)).strip(_SPACE).removeprefix("'")
        if len(heading) > LONGEST_HEADING:
            raise FileRefused("heading_odd", f"the heading of column {place + 1} has more than {LONGEST_HEADING} characters")
        places.add(place)
        if (marked := version_in(heading)) is not None:
            version = marked
            continue
        name = column_of(heading)
        column = _Column(place, name or heading, Kind.UNKNOWN if name is None else kind_of(name), heading)
        if column.name in found:
            raise FileRefused("heading_doubled", f"columns {found[column.name].place + 1} and {place + 1} both mean {column.name[:64]}")
        found[column.name] = column
    if "sku" not in found and "face_value" not in found:
        raise FileRefused(
            "heading_missing", f"row {line.line_no} should hold the headings, but has no column sku (商品编号): see the template for their names"
        )
    if version is not None and not 1 <= version <= TEMPLATE_VERSION:
        raise FileRefused("template_version", f"this template has a version we do not know; the newest is {TEMPLATE_VERSION}: download it again")
    if found.keys() >= set(RESULT_COLUMNS):  # our own result file, sent again: what it said then is not the merchant's
        for name in RESULT_COLUMNS:
            del found[name]
    return _Head(list(found.values()), frozenset(places), version)


def _row(line: Line, head: _Head) -> Row | None:
    """The row as text; None when nothing in it is ours to read."""
    cells: dict[str, str] = {}
    wrong: tuple[str, str] | None = None
    for column in head.columns:
        cell = line.cells[column.place] if column.place < len(line.cells) else ""
        if cell == "":
            continue
        text, code = _READERS[column.kind](cell)
        if len(text) > _LONGEST_CELL:
            text, code = text[:_LONGEST_CELL], code or "cell_too_long"
        if text:
            cells[column.name] = text
        if code is not None and wrong is None:
            wrong = code, pointer_to(column.name)
    stray = len(line.cells) > len(head.places) and any(n not in head.places and not _is_empty(cell) for n, cell in enumerate(line.cells))
    if not cells and wrong is None and not stray:
        return None
    if wrong is None and stray:
        wrong = "cell_without_heading", ""
    if line.hidden:
        wrong = "hidden_row", ""
    return Row(line.line_no, cells, None if wrong is None else (*wrong, PROBLEMS[wrong[0]]))


# ---- from cells to text


def _text_cell(cell: Any) -> tuple[str, str | None]:
    """Every digit counts."""
    if isinstance(cell, str):
        text, code = _clean(cell)
        if code is None and _DECIMALS.fullmatch(text):
            code = "number_not_exact"
        return text, code or _spoilt(text)
    if isinstance(cell, float) and not isinstance(cell, bool):
        lost = not cell.is_integer() or abs(cell) >= _EXACT or (abs(cell) >= _DIGITS_KEPT and int(cell) % 10 == 0)
        return _lost("number_not_exact", _shown(cell)) if lost else (str(int(cell)), None)
    return _no_value(cell)


def _number_cell(cell: Any) -> tuple[str, str | None]:
    """A number as a person writes it; whether it is a sensible one is decided elsewhere."""
    if isinstance(cell, str):
        text, code = _clean(cell)
        return text, code or _spoilt(text)
    if isinstance(cell, float):
        text = _shown(cell)
        return text, _spoilt(text)
    return _no_value(cell)


def _flag_cell(cell: Any) -> tuple[str, str | None]:
    if isinstance(cell, (bool, float)):
        return ({1: "true", 0: "false"}.get(int(cell), str(int(cell))) if int(cell) == cell else _shown(cell)), None
    text, code = _number_cell(cell)
    lower = text.lower()
    return ("true" if lower in _YES else "false" if lower in _NO else text), code


def _note_cell(cell: Any) -> tuple[str, str | None]:
    """Metadata: shown as it is, but still no formula."""
    if isinstance(cell, Odd):
        return cell.shown, cell.code
    text, code = _clean(_shown(cell))
    return text, code or ("formula_cell" if text.startswith("=") else None)


def _unknown_cell(cell: Any) -> tuple[str, str | None]:
    """The merchant's own column: never a reason to refuse."""
    return _clean(cell.shown if isinstance(cell, Odd) else _shown(cell))[0], None


_READERS: Final[dict[Kind, Callable[[Any], tuple[str, str | None]]]] = {
    Kind.TEXT: _text_cell,
    Kind.WHOLE: _number_cell,
    Kind.AMOUNT: _number_cell,
    Kind.FLAG: _flag_cell,
    Kind.NOTE: _note_cell,
    Kind.UNKNOWN: _unknown_cell,
}


def _clean(text: str) -> tuple[str, str | None]:
    """Without the space around it and the one apostrophe that marks text; what cannot be seen is shown as U+FFFD and told."""
    text = text.strip(_SPACE).removeprefix("'")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (_CONTROL.sub("\ufffd", text), "control_character") if _CONTROL.search(text) else (text, None)


def _spoilt(text: str) -> str | None:
    """What a spreadsheet, or the program that wrote the file, has done to a value that is text by now."""
    if text.startswith("="):
        return "formula_cell"
    if text.startswith("#"):
        lost = next((code for code, mark in _RUINED.items() if text.startswith(mark) and len(text) > len(mark)), None)
        return lost or ("error_cell" if _EXCEL_ERROR.fullmatch(text) else None)
    return "scientific_notation" if _SCIENTIFIC.fullmatch(text) else None


def _no_value(cell: Any) -> tuple[str, str | None]:
    if isinstance(cell, Odd):
        return cell.shown, cell.code
    return _lost("boolean_cell" if isinstance(cell, bool) else "date_cell", _shown(cell))


def _lost(code: str, shown: str) -> tuple[str, str]:
    return _RUINED[code] + shown, code


def _shown(cell: Any) -> str:
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case float() | int():
            return str(int(cell)) if cell == int(cell) else format(cell, ".15g")
        case datetime():
            return cell.isoformat(sep=" ")
        case date() | time():
            return cell.isoformat()
        case timedelta():
            return str(cell)
    return str(cell)
