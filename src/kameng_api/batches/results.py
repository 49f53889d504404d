"""Writes what goes back to a merchant: result files, the retry file with the rows to be mended, and the empty template.

The retry file and the template have the form that `files.read` reads. Whatever could begin a formula is written behind an apostrophe, which
`files.read` takes away again; so is, in a retry file, what a spreadsheet would take for a number and ruin.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from kameng_api.batches.headings import MARK, RESULT_COLUMNS, TEMPLATE_COLUMNS, Locale, heading_of
from kameng_api.kit.workbooks import new_workbook

Format = Literal["csv", "xlsx"]

_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_SPACE: Final = (" ", "\u00a0", "\u3000", "\u200b", "\ufeff", "'")
_LONGEST_CELL: Final = 32_767
_RUINABLE: Final = re.compile(r"0[0-9]+|[0-9]{12,}|[0-9]+[eE][0-9]+|[0-9]{1,4}[-/.][0-9]{1,2}(?:[-/.][0-9]{1,4})?|true|false", re.IGNORECASE)
"""What a spreadsheet makes something else of when it opens a CSV file: leading zeros, long numbers, `12E3`, dates, TRUE."""
_LONGEST_NUMBER: Final = 64
_WIDTH: Final = 22
_ROWS_READY: Final = 20_000

_NOTES: Final[Mapping[Locale, Mapping[str, str]]] = {
    "en": {
        "merchant_order_no": "Your own number of the order, 1–64 of A-Z a-z 0-9 _ -, never used before. Empty: made from batch number and row.",
        "sku": "The product, as in the product list. Empty only where a face value is to be split.",
        "target": "Phone number or account to charge; empty for card codes.",
        "quantity": "How many; empty means 1.",
        "face_value": "Only for products with a free face value, or to be split into several products.",
        "max_unit_price": "Refuse the order when one unit costs more.",
        "deliver_within_s": "Seconds within which it must be delivered; empty: as the product says.",
        "confirm_duplicate": "true when the same target is charged again on purpose.",
    },
    "zh-CN": {
        "merchant_order_no": "您自己的订单号，1–64 位字母、数字、_ 或 -，永不重复。留空则由批次号加行号生成。",
        "sku": "商品列表中的商品编号。只有按面值拆单时才可留空。",
        "target": "要充值的手机号或账号；卡密商品留空。",
        "quantity": "数量，留空为 1。",
        "face_value": "仅用于可选面值的商品，或需要拆单的面值。",
        "max_unit_price": "单价高于此值时拒绝下单。",
        "deliver_within_s": "必须在多少秒内交付；留空按商品规定。",
        "confirm_duplicate": "确实要给同一账号再次充值时填 是。",
    },
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row and what became of it. `line_no` as it was sent; `merchant_order_no` is the one its order has, or would have had."""

    line_no: int
    cells: Mapping[str, str] = field(repr=False)
    order_id: str = ""
    status: str = ""
    error_code: str = ""
    error_detail: str = ""
    merchant_order_no: str = ""


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula. An apostrophe, or space, at the beginning gets one too: reading takes exactly one away."""
    return "'" + text if text.startswith(_DANGEROUS) or text.startswith(_SPACE) else text


def write(format: Format, columns: Sequence[str], outcomes: Iterable[Outcome], headings: Sequence[str] = ()) -> bytes:
    """The rows as they were sent, and what became of each, as a file. Blocking: about a second per hundred thousand cells of XLSX.

    `headings` stand above `columns` where they were called otherwise. A column of the merchant's that is called like one of ours stays; ours
    then begins with `result_`.
    """
    shown = list(headings or columns)
    ours = [_free(name, shown) for name in RESULT_COLUMNS]
    rows = (
        [*(harmless(x.cells.get(name, "")) for name in columns), str(x.line_no), x.order_id, x.status, x.error_code, harmless(x.error_detail)]
        for x in outcomes
    )
    head = [harmless(name) for name in (*shown, *ours)]
    return _csv(head, rows) if format == "csv" else _xlsx(head, rows)


def write_retry(
    format: Format, columns: Sequence[str], outcomes: Iterable[Outcome], headings: Sequence[str] = (), *, locale: Locale = "en"
) -> bytes:
    """These rows in the template's form, to be mended and sent again. Blocking.

    A row keeps its number, also one that was made for it, so that sending the file twice is harmless. Only a row whose order was made and failed
    gets a new one (`PO-7` → `PO-7-r1`): under the old one it would be answered with the failed order for ever.
    """
    names, shown = list(columns), list(headings or columns)
    if "merchant_order_no" not in names:
        names, shown = ["merchant_order_no", *names], [heading_of("merchant_order_no", locale), *shown]
    guard = _unruined if format == "csv" else harmless
    rows = ([guard(text) for text in _again(x, names)] for x in outcomes)
    head = [*(harmless(name) for name in shown), MARK]
    return _csv(head, rows) if format == "csv" else _xlsx(head, rows)


def template(format: Format, locale: Locale = "en") -> bytes:
    """An empty file to fill in. XLSX: every cell is text, what a column wants stands in a note, the version in a hidden column."""
    head = [*(heading_of(name, locale) for name in TEMPLATE_COLUMNS), MARK]
    return _csv(head, ()) if format == "csv" else _xlsx(head, (), notes=[_NOTES[locale][name] for name in TEMPLATE_COLUMNS])


def retry_number(number: str) -> str:
    """The number under which a failed order is tried again, the same for the same number: `PO-7` → `PO-7-r1` → `PO-7-r2`."""
    match = re.fullmatch(r"(.+)-r([1-9][0-9]{0,3})", number)
    stem, ending = (match[1], f"-r{int(match[2]) + 1}") if match else (number, "-r1")
    if len(stem) + len(ending) > _LONGEST_NUMBER:  # cut, two long numbers that differ at their ends would become one
        ending = f"-{hashlib.sha256(stem.encode()).hexdigest()[:8]}{ending}"
    return f"{stem[: _LONGEST_NUMBER - len(ending)]}{ending}"


def _again(outcome: Outcome, names: Sequence[str]) -> list[str]:
    number = outcome.cells.get("merchant_order_no") or outcome.merchant_order_no
    if number and outcome.order_id:
        number = retry_number(number)
    return [number if name == "merchant_order_no" else outcome.cells.get(name, "") for name in names]


def _unruined(text: str) -> str:
    return "'" + text if _RUINABLE.fullmatch(text) else harmless(text)


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"result_{name}"
    return name


def _csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """UTF-8 with a byte-order mark and CRLF: what Excel and WPS open without asking."""
    text = io.StringIO(newline="")
    text.write("\ufeff")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()


def _xlsx(head: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = ()) -> bytes:
    """One sheet of text cells, held in memory: it holds targets, which never lie on a disk in clear."""
    out = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with new_workbook(out, options) as book:
        text, bold = book.add_format({"num_format": "@"}), book.add_format({"num_format": "@", "bold": True})
        sheet = book.add_worksheet("orders")
        sheet.set_column(0, max(len(head) - 1, 0), _WIDTH, text)
        sheet.freeze_panes(1, 0)
        for place, name in enumerate(head):
            sheet.write_string(0, place, name, bold)
        for n, row in enumerate(rows, 1):
            for place, value in enumerate(row):
                if value:
                    sheet.write_string(n, place, value[:_LONGEST_CELL], text)
        sheet.ignore_errors({"number_stored_as_text": f"A1:XFD{_ROWS_READY + 2}"})
        if head[-1] == MARK:
            sheet.set_column(len(head) - 1, len(head) - 1, None, text, {"hidden": True})
        for place, note in enumerate(notes):
            sheet.write_comment(0, place, note, {"x_scale": 2.2, "author": ""})
    return out.getvalue()

