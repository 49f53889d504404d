"""A statement as CSV, XLSX and JSON, written movement by movement, so that a day of a million needs no more memory than one of ten.

The same movements give the same bytes with the same libraries; what counts for ever is nevertheless what was stored and signed.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

import orjson

from kameng_api.kit.clock import wire_time
from kameng_api.kit.money import SCALE, format_amount
from kameng_api.kit.workbooks import new_workbook
from kameng_api.statements.rules import Cut, File, Line, Tally, foot_of, head_of

PIECE: Final = 256 * 1024
"""Files are stored in pieces of this many bytes."""
_ROWS_PER_SHEET: Final = 1_000_000  # Excel's limit is 1,048,576
_COLUMNS: Final = (
    "row", "time", "local_time", "type", "amount", "balance_after", "transaction_id", "merchant_order_no", "order_id", "reference", "sku",
    "target", "count",
)  # fmt: skip
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe goes before whatever could begin one."""
    return "'" + text if text.startswith(_DANGEROUS) else text


class Writer(Protocol):
    """One format. What `add` and `finish` return is to be stored, in order."""

    def add(self, lines: Sequence[Line]) -> bytes: ...

    def finish(self, tally: Tally) -> Iterator[bytes]: ...


class CsvWriter:
    """One table (UTF-8 with BOM, CRLF): the column `row` says opening, movement, subtotal or closing."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._zone = ZoneInfo(cut.timezone)
        self._text = io.StringIO(newline="")
        self._rows = csv.writer(self._text, lineterminator="\r\n")
        self._text.write("\ufeff")
        self._rows.writerow(_COLUMNS)
        self._rows.writerow(("opening", wire_time(cut.starts_at), _local(cut.starts_at, self._zone), "", "", format_amount(cut.opening), *[""] * 7))

    def add(self, lines: Sequence[Line]) -> bytes:
        zone = self._zone
        self._rows.writerows(
            (
                "movement", wire_time(x.at), _local(x.at, zone), x.kind, format_amount(x.amount), format_amount(x.balance_after),
                x.transaction_id, harmless(x.merchant_order_no), x.order_id, harmless(x.reference), harmless(x.sku), harmless(x.target), "",
            )
            for x in lines
        )  # fmt: skip
        return self._taken()

    def finish(self, tally: Tally) -> Iterator[bytes]:
        for kind, n, amount in tally.subtotals():
            self._rows.writerow(("subtotal", "", "", kind, format_amount(amount), *[""] * 7, n))
        cut = self._cut
        ends = (wire_time(cut.ends_at), _local(cut.ends_at, self._zone))
        self._rows.writerow(("closing", *ends, "", "", format_amount(cut.closing), *[""] * 6, cut.to_version - cut.from_version))
        yield self._taken()

    def _taken(self) -> bytes:
        taken = self._text.getvalue().encode()
        self._text.seek(0)
        self._text.truncate()
        return taken


class JsonWriter:
    """One object; `movements` is the only long list in it."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._first = True
        self._head = orjson.dumps({"object": "statement", **head_of(cut)})[:-1] + b',"movements":['

    def add(self, lines: Sequence[Line]) -> bytes:
        parts = [
            orjson.dumps(
                {
                    "id": x.transaction_id, "type": x.kind, "amount": format_amount(x.amount), "balance_after": format_amount(x.balance_after),
                    "time": wire_time(x.at), "reference": x.reference, "order_id": x.order_id or None,
                    "merchant_order_no": x.merchant_order_no or None, "sku": x.sku or None, "target": x.target or None,
                }
            )
            for x in lines
        ]  # fmt: skip
        if not parts:
            return b""
        before = self._taken_head() if self._first else b","
        self._first = False
        return before + b",".join(parts)

    def finish(self, tally: Tally) -> Iterator[bytes]:
        foot = orjson.dumps(foot_of(self._cut, tally))
        yield (self._taken_head() if self._first else b"") + b"]," + foot[1:]

    def _taken_head(self) -> bytes:
        return self._head


class XlsxWriter:
    """A sheet with the summary and sheets of at most a million movements each. Rows wait in a file, never in memory."""

    def __init__(self, cut: Cut, folder: Path) -> None:
        self._cut = cut
        self._zone = ZoneInfo(cut.timezone)
        self._path = folder / "statement.xlsx"
        self._book = new_workbook(
            str(self._path),
            {"constant_memory": True, "tmpdir": str(folder), "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False},
        )
        self._book.set_properties({"title": f"Statement {cut.day} {cut.currency}", "created": cut.ends_at.astimezone(UTC).replace(tzinfo=None)})
        self._money = self._book.add_format({"num_format": "#,##0.0000"})
        self._bold = self._book.add_format({"bold": True})
        self._summary = self._book.add_worksheet("Statement")
        self._sheets = 0
        self._sheet: Any = None
        self._row = 0
        self._open_sheet()

    def _open_sheet(self) -> None:
        self._sheets += 1
        self._sheet = self._book.add_worksheet("Movements" if self._sheets == 1 else f"Movements {self._sheets}")
        for n, name in enumerate(_COLUMNS[1:-1]):
            self._sheet.write_string(0, n, name, self._bold)
        self._row = 1

    def add(self, lines: Sequence[Line]) -> bytes:
        zone, money = self._zone, self._money
        for x in lines:
            if self._row > _ROWS_PER_SHEET:
                self._open_sheet()
            row, text, number = self._row, self._sheet.write_string, self._sheet.write_number
            text(row, 0, wire_time(x.at))
            text(row, 1, _local(x.at, zone))
            text(row, 2, x.kind)
            number(row, 3, x.amount / SCALE, money)
            number(row, 4, x.balance_after / SCALE, money)
            text(row, 5, x.transaction_id)
            for column, value in enumerate((x.merchant_order_no, x.order_id, x.reference, x.sku, x.target), 6):
                if value:
                    text(row, column, value)
            self._row += 1
        return b""

    def finish(self, tally: Tally) -> Iterator[bytes]:
        self._summarise(tally)
        self._book.close()
        with self._path.open("rb") as made:
            while piece := made.read(PIECE):
                yield piece
        self._path.unlink()

    def _summarise(self, tally: Tally) -> None:
        head = {name: value for name, value in head_of(self._cut).items() if name != "opening"}
        row = 0
        for name, value in head.items():
            self._summary.write_string(row, 0, name, self._bold)
            self._summary.write_string(row, 1, str(value))
            row += 1
        self._figure(row, "opening", self._cut.opening, None)
        for kind, n, amount in tally.subtotals():
            row += 1
            self._figure(row, kind, amount, n)
        self._figure(row + 1, "closing", self._cut.closing, self._cut.to_version - self._cut.from_version)

    def _figure(self, row: int, name: str, amount: int, count: int | None) -> None:
        self._summary.write_string(row, 0, name, self._bold)
        self._summary.write_number(row, 1, amount / SCALE, self._money)
        if count is not None:
            self._summary.write_number(row, 2, count)


class Shelf:
    """The three files of one statement while they grow. `take` hands out what is ready to be stored: (format, number, bytes)."""

    def __init__(self, cut: Cut, folder: Path) -> None:
        self.tally = Tally(cut)
        self._writers: dict[str, Writer] = {"csv": CsvWriter(cut), "json": JsonWriter(cut), "xlsx": XlsxWriter(cut, folder)}
        self._hash = {name: hashlib.sha256() for name in self._writers}
        self._size = dict.fromkeys(self._writers, 0)
        self._next = dict.fromkeys(self._writers, 0)
        self._held = {name: bytearray() for name in self._writers}

    def add(self, lines: Sequence[Line]) -> list[tuple[str, int, bytes]]:
        """Write these movements down. Raises Disagrees. Blocking: some milliseconds per thousand."""
        self.tally.add(lines)
        ready: list[tuple[str, int, bytes]] = []
        for name, writer in self._writers.items():
            ready += self._keep(name, writer.add(lines))
        return ready

    def finish(self) -> Iterator[tuple[str, int, bytes]]:
        """The rest, piece by piece. Raises Disagrees. Blocking: each step is short, but the first one of the XLSX, which packs it."""
        self.tally.close()
        for name, writer in self._writers.items():
            for made in writer.finish(self.tally):
                yield from self._keep(name, made)
            if self._held[name]:
                yield self._piece(name, len(self._held[name]))

    def files(self) -> list[File]:
        """What was made, after `finish` has ended."""
        return [File(name, self._size[name], self._hash[name].hexdigest()) for name in self._writers]

    def _keep(self, name: str, made: bytes) -> list[tuple[str, int, bytes]]:
        held = self._held[name]
        held += made
        return [self._piece(name, PIECE) for _ in range(len(held) // PIECE)]

    def _piece(self, name: str, size: int) -> tuple[str, int, bytes]:
        piece = bytes(self._held[name][:size])
        del self._held[name][:size]
        self._hash[name].update(piece)
        self._size[name] += size
        n = self._next[name]
        self._next[name] += 1
        return name, n, piece


def _local(at: Any, zone: ZoneInfo) -> str:
    return str(at.astimezone(zone).isoformat(sep=" ", timespec="seconds")[:19])
