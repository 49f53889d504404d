"""Reads an uploaded statement, CSV or XLSX, in a process of its own whose memory and time are bounded: files come from strangers.

`read_file` is what the rest of the house calls; `python -m kameng_api.reconciliation.files` is the process it starts. Formulas are never
evaluated: a spreadsheet's stored values are read, and text that begins like a formula is a bad row.
"""

import asyncio
import codecs
import contextlib
import csv
import io
import re
import resource
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import python_calamine

from kameng_api.kit import packages
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.reconciliation.mappings import BadRow, Cell, FileMapping, Layout, RowReader, find_columns
from kameng_api.suppliers.port import LineKind, StatementLine

LARGEST_BYTES: Final = 32_000_000
LARGEST_UNPACKED: Final = 400_000_000
LARGEST_RATIO: Final = 120
"""Real spreadsheets unpack to some ten times their size; a bomb to a thousand times."""
MOST_PARTS: Final = 500
_LIMITS: Final = packages.Limits(parts=MOST_PARTS, unpacked=LARGEST_UNPACKED, ratio=LARGEST_RATIO)
MOST_ROWS: Final = 1_000_000
MOST_COLUMNS: Final = 200
MOST_CELLS: Final = 12_000_000
LONGEST_ROW: Final = 100_000
MOST_BAD: Final = 1_000
"""So many bad rows are listed; all are counted."""
_MEMORY: Final = 2_000_000_000
_CPU_S: Final = 120
_WHOLE_S: Final = 300.0
_BATCH: Final = 2_000
_PLACE: Final = re.compile(rb"<(?:\w+:)?(?:c|row)\b[^>]*?\br=[\"']([A-Za-z]{0,3})([0-9]{1,7})[\"']")
_CELL: Final = re.compile(rb"<(?:\w+:)?c[ >/]")
_ROW: Final = re.compile(rb"<(?:\w+:)?row[ >/]")


class Unusable(ValueError):
    """The file as a whole cannot be read; the message says why, in words safe to show."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as they were read: `(line number, line)`, and `(line number, reason)` of the bad ones. Line numbers begin with 1, as in an editor."""

    lines: Sequence[tuple[int, StatementLine]]
    bad: Sequence[tuple[int, str]]


async def read_file(file: BinaryIO, mapping: FileMapping, currency: str) -> AsyncIterator[Batch]:
    """The file's rows, some thousand at a time. `file` is open and has a descriptor, which the process that reads it inherits; a name it
    needs not. Raises Invalid when the file as a whole cannot be read; nothing of it counts then."""
    file.seek(0)
    descriptor = file.fileno()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kameng_api.reconciliation.files",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=16_000_000,
        pass_fds=(descriptor,),
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(orjson.dumps({"path": f"/dev/fd/{descriptor}", "mapping": mapping.model_dump(mode="json"), "currency": currency}))
        child.stdin.close()
        ended = False
        async with asyncio.timeout(_WHOLE_S):
            async for text in child.stdout:
                found = orjson.loads(text)
                if "refused" in found:
                    raise refusal(found["refused"])
                ended = "end" in found
                if not ended:
                    yield Batch([(n, _line(values)) for n, *values in found["lines"]], [(n, reason) for n, reason in found["bad"]])
        if not ended:
            raise refusal("reading it takes more memory or time than a statement may")
    except TimeoutError:
        raise refusal("reading it takes more time than a statement may") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def refusal(detail: str) -> Invalid:
    """As the operator's API says it."""
    return Invalid(f"this file cannot be read: {detail}", errors=[FieldError("", "format", detail)])


def _line(values: list[Any]) -> StatementLine:
    line_id, reference, number, kind, amount, currency, at, external_id, balance, face_value, units = values
    return StatementLine(
        line_id, reference, number, LineKind(kind), amount, currency, datetime.fromisoformat(at), external_id, balance, face_value, units
    )


# ---- in the child process


def main() -> None:
    """Reads what it is asked on standard input, writes JSON lines to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    asked = orjson.loads(sys.stdin.buffer.read())
    out = sys.stdout.buffer
    try:
        for batch in batches_of(Path(asked["path"]), FileMapping.model_validate(asked["mapping"]), asked["currency"]):
            out.write(orjson.dumps(batch) + b"\n")
        out.write(b'{"end":true}\n')
    except Unusable as trouble:
        out.write(orjson.dumps({"refused": str(trouble)}) + b"\n")
    except MemoryError:
        out.write(orjson.dumps({"refused": "it takes more memory than a statement may"}) + b"\n")
    out.flush()


def batches_of(path: Path, mapping: FileMapping, currency: str) -> Iterator[dict[str, Any]]:
    """`{"lines": [[n, …]], "bad": [[n, reason]]}` until the end. Raises Unusable."""
    if path.stat().st_size > LARGEST_BYTES:
        raise Unusable(f"larger than {LARGEST_BYTES // 1_000_000} MB")
    rows = _csv_rows(path, mapping) if mapping.format == "csv" else _sheet_rows(path, mapping)
    reader = None
    lines: list[list[Any]] = []
    bad: list[tuple[int, str]] = []
    for n, row in rows:
        if n > MOST_ROWS:
            raise Unusable(f"more than {MOST_ROWS} rows")
        if reader is None:
            if n < mapping.header_row:
                continue
            reader = RowReader(mapping, _layout(mapping, row if mapping.header_row else ()), currency)
            if mapping.header_row:
                continue
        if reader.is_ignored(row):
            continue
        try:
            line = reader.read(row)
        except BadRow as trouble:
            bad.append((n, str(trouble)))
        else:
            lines.append([n, *_values(line)])
        if len(lines) + len(bad) >= _BATCH:
            yield {"lines": lines, "bad": bad}
            lines, bad = [], []
    if reader is None:
        raise Unusable("it has no rows")
    yield {"lines": lines, "bad": bad}


def _layout(mapping: FileMapping, header: Sequence[Cell]) -> Layout:
    try:
        return find_columns(mapping, header)
    except BadRow as trouble:
        raise Unusable(str(trouble)) from None


def _values(line: StatementLine) -> list[Any]:
    return [
        line.line_id, line.reference, line.supplier_order_no, line.kind.value, line.amount, line.currency, line.at.isoformat(),
        line.external_id, line.balance_after, line.face_value, line.units,
    ]  # fmt: skip


def _csv_rows(path: Path, mapping: FileMapping) -> Iterator[tuple[int, list[str]]]:
    encoding = _encoding(path, mapping)
    csv.field_size_limit(LONGEST_ROW)
    with path.open(encoding=encoding, newline="") as text:
        reader = csv.reader(_short_lines(text), delimiter=mapping.delimiter, strict=True)
        while True:
            first = reader.line_num + 1  # a quoted cell may hold line feeds: a row is named by the line it begins in
            try:
                row = next(reader, None)
            except (csv.Error, UnicodeDecodeError) as trouble:
                raise Unusable(f"near line {reader.line_num}: {'not ' + encoding if isinstance(trouble, UnicodeError) else trouble}") from None
            if row is None:
                return
            if len(row) > MOST_COLUMNS:
                raise Unusable(f"more than {MOST_COLUMNS} columns in line {first}")
            yield first, row


def _short_lines(text: io.TextIOBase) -> Iterator[str]:
    while line := text.readline(LONGEST_ROW):
        if len(line) >= LONGEST_ROW:
            raise Unusable("a line is longer than a statement's line may be")
        if "\x00" in line:
            raise Unusable("it holds NUL characters: this is not a text file")
        yield line


def _encoding(path: Path, mapping: FileMapping) -> str:
    with path.open("rb") as file:
        if file.read(3) == codecs.BOM_UTF8:
            return "utf-8-sig"
        if mapping.encoding != "auto":
            return mapping.encoding
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while part := file.read(1_000_000):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "gb18030"
        return "utf-8"


def _sheet_rows(path: Path, mapping: FileMapping) -> Iterator[tuple[int, list[Cell]]]:
    check_parts(path)
    try:
        book = python_calamine.CalamineWorkbook.from_path(str(path))
        names = [s.name for s in book.sheets_metadata if s.visible == python_calamine.SheetVisibleEnum.Visible]
        if mapping.sheet is not None and mapping.sheet not in book.sheet_names:
            raise Unusable(f"no sheet {mapping.sheet!r}")
        if mapping.sheet is None and not names:
            raise Unusable("no sheet that can be seen")
        sheet = book.get_sheet_by_name(mapping.sheet or names[0])
        before = [""] * (sheet.start[1] if sheet.start is not None else 0)  # empty columns to the left are not among the cells
        for n, row in enumerate(sheet.iter_rows(), 1):
            yield n, before + row
    except (python_calamine.CalamineError, zipfile.BadZipFile, OSError) as trouble:
        raise Unusable(f"not a spreadsheet ({type(trouble).__name__})") from None


def check_parts(path: Path) -> None:
    """Unpacks the file once, keeping nothing, and counts; a sheet's rows and columns are looked at on the way. Raises Unusable."""
    try:
        with path.open("rb") as raw:
            packages.walk(raw, _LIMITS, lambda name: _SheetSize().see if name.startswith("xl/worksheets/") else None)
    except packages.BadPackage as trouble:
        raise Unusable(str(trouble)) from None


class _SheetSize:
    """Counts rows and cells, and looks for the furthest cell: readers make room for everything before it."""

    def __init__(self) -> None:
        self._tail = b""
        self._rows = self._cells = 0
        self._width = self._height = 0

    def see(self, piece: bytes) -> None:
        text = self._tail + piece
        cut = text.rfind(b"<")
        text, self._tail = (text[:cut], text[cut:]) if cut >= 0 and len(text) - cut < 10_000 else (text, b"")
        self._rows += len(_ROW.findall(text))
        self._cells += len(_CELL.findall(text))
        for letters, digits in _PLACE.findall(text):
            column = 0
            for letter in letters.upper():
                column = column * 26 + letter - 64
            self._width, self._height = max(self._width, column), max(self._height, int(digits))
        height = max(self._rows, self._height)
        if height > MOST_ROWS or self._cells > MOST_CELLS or self._width * height > MOST_CELLS:
            raise Unusable(f"more than {MOST_ROWS} rows or {MOST_CELLS} cells")
        if self._width > MOST_COLUMNS:
            raise Unusable(f"more than {MOST_COLUMNS} columns")


if __name__ == "__main__":
    main()
