"""Tables for people who work in spreadsheets. What a supplier wrote is shown as text there and never runs as a formula."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from kameng_api.kit.workbooks import new_workbook

_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_NUMBER: Final = re.compile(r"\A-?[0-9]{1,14}(\.[0-9]{1,4})?\Z")


def harmless(value: Any) -> str:
    """A cell as text that no spreadsheet takes for a formula; numbers stay numbers."""
    text = "" if value is None else str(value)
    if _NUMBER.match(text) or not text.lstrip().startswith(_DANGEROUS):
        return text
    return "'" + text


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """UTF-8 with a byte-order mark, so that spreadsheets read Chinese."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([harmless(value) for value in row])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def as_xlsx(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """One sheet; every cell is text, so no digit of a number is lost."""
    out = io.BytesIO()
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with new_workbook(out, options) as book:
        sheet = book.add_worksheet("breaks")
        for n, row in enumerate([columns, *rows]):
            for place, value in enumerate(row):
                sheet.write_string(n, place, "" if value is None else str(value))
    return out.getvalue()
