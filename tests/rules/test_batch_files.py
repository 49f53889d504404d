"""A merchant's file is read as the merchant meant it, or the row (or the file) is refused with the reason: nothing is guessed."""

import io
import re
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house.repository import PACKAGE as PACKAGE_FOLDER
from tests.house.repository import ROOT

from kameng_api.batches import files, workbooks
from kameng_api.batches.errors import FileRefused
from kameng_api.batches.headings import RESULT_COLUMNS, TEMPLATE_COLUMNS, Kind, column_of, heading_of, kind_of
from kameng_api.batches.requests import COLUMNS as READ_COLUMNS

PHONE = "13800138000"
SIMPLE = f"sku,target\nA,{PHONE}\n"


def _cells(text: str | bytes, filename: str = "orders.csv") -> list[dict[str, str]]:
    content = text.encode() if isinstance(text, str) else text
    return [row.cells for row in files.read(content, filename).rows]


def _problem(content: bytes | str, filename: str = "orders.csv") -> tuple[str, str] | None:
    rows = files.read(content.encode() if isinstance(content, str) else content, filename).rows
    assert len(rows) == 1
    return rows[0].problem and (rows[0].problem[0], rows[0].problem[1])


def _refusal(content: bytes | str, filename: str = "orders.csv") -> str:
    with pytest.raises(FileRefused) as refused:
        files.read(content.encode() if isinstance(content, str) else content, filename)
    assert refused.value.detail
    return refused.value.reason


def _book(fill: Callable[[Any, Any], None] | None = None, *, rows: list[list[Any]] | None = None) -> bytes:
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}) as book:
        sheet = book.add_worksheet("orders")
        for n, row in enumerate(rows or []):
            sheet.write_row(n, 0, row)
        if fill is not None:
            fill(book, sheet)
    return out.getvalue()


def _package(**changed: bytes | None) -> bytes:
    """A good workbook with parts replaced (`sheet`, `book`, `links`, `strings`), as a stranger might pack it."""
    names = {"sheet": "xl/worksheets/sheet1.xml", "book": "xl/workbook.xml", "links": "xl/_rels/workbook.xml.rels", "strings": "xl/sharedStrings.xml"}
    by_name = {names[key]: text for key, text in changed.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_book(rows=[["sku", "target"], ["A", PHONE]]))) as good, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name in good.namelist():
            text = by_name.get(name, good.read(name))
            if text is not None:
                made.writestr(name, text)
    return out.getvalue()


PACKAGE = _package()
"""Always the same bytes: a package holds the time it was made at."""


# ---- CSV


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_delimiters_and_line_ends_are_found(encoding: str, delimiter: str, end: str) -> None:
    table = [["商户订单号", "商品编号", "充值账号", "数量", "门店"], ["PO-1", "mobile-cn-100", PHONE, "2", "上海"]]
    content = (end.join(delimiter.join(row) for row in table) + end).encode(encoding)
    expected = {"merchant_order_no": "PO-1", "sku": "mobile-cn-100", "target": PHONE, "quantity": "2", "门店": "上海"}
    assert _cells(content) == [expected]


def test_quotes_hold_delimiters_and_line_feeds_and_excels_own_hint_is_no_row() -> None:
    sheet = files.read(b'sep=;\r\nsku;metadata.note\r\nA;"a;b ""c""\r\nd"\r\nB;x\r\n', "a.csv")
    assert [(row.line_no, row.cells) for row in sheet.rows] == [
        (2, {"sku": "A", "metadata.note": 'a;b "c"\nd'}),
        (3, {"sku": "B", "metadata.note": "x"}),  # in an editor this is line 5; on the screen of a spreadsheet it is row 3
    ]


def test_lines_are_numbered_as_on_the_screen_and_empty_ones_are_skipped() -> None:
    sheet = files.read(b"sku,target\nA,1\n\n,,\n \nB,2\n,\n\n\n", "a.csv")
    assert [(row.line_no, row.cells["sku"]) for row in sheet.rows] == [(2, "A"), (6, "B")]


def test_a_quote_that_never_ends_refuses_the_file() -> None:
    assert _refusal('sku,target\nA,"1\nB,2\n') == "csv_quotes"
    assert _refusal('sku,target\nA,"1"2\n') == "csv_quotes"


def test_more_cells_than_headings_are_told_and_empty_ones_are_not() -> None:
    assert _problem("sku,target\nA,1,2\n") == ("cell_without_heading", "")
    assert _problem("sku,,target\nA,x,1\n") == ("cell_without_heading", "")
    assert _problem("sku,target,\nA,1,,\n") is None


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("1.38E+10", "scientific_notation"),
        ("1.3800138E10", "scientific_notation"),
        ("6.22202E+18", "scientific_notation"),
        ("1e+05", "scientific_notation"),
        ("13800138000.0", "number_not_exact"),
        ("=A1", "formula_cell"),
        ("'=A1", "formula_cell"),
        ("#N/A", "error_cell"),
        ("########", "error_cell"),
        ("1\x0138", "control_character"),
        ("\ufffd", "control_character"),
        (PHONE, None),
        ("+8613800138000", None),
        ("'0138", None),
        ("user@example.com", None),
        ("12e34", None),
        ("2E3", None),
        ("#1", None),
        ("1.5", None),
    ],
)
def test_what_a_spreadsheet_has_ruined_is_refused_where_digits_count(cell: str, code: str | None) -> None:
    assert _problem(f"sku,target\nA,{cell}\n") == (None if code is None else (code, "/target"))


def test_a_reason_never_holds_the_cell() -> None:
    for row in files.read(b"sku,target\nA,1.38001E+10\nA,=13800138000\nA,13800138000.0\n", "a.csv").rows:
        assert row.problem is not None and "138" not in row.problem[2]
        assert "138" not in repr(row)


def test_numbers_and_notes_have_their_own_rules() -> None:
    assert _problem("sku,quantity\nA,1E+05\n") == ("scientific_notation", "/quantity")
    assert _problem("sku,max_unit_price\nA,9.85E+01\n") == ("scientific_notation", "/max_unit_price")
    assert _problem("sku,metadata.note\nA,1.38E+10\n") is None
    assert _problem("sku,metadata.note\nA,=1+1\n") == ("formula_cell", "/metadata/note")
    assert _problem("sku,fields.a/b\nA,1.38E+10\n") == ("scientific_notation", "/fields/a~1b")
    assert _problem("sku,门店\nA,=1+1\n") is None


def test_space_around_a_value_and_the_apostrophe_before_it_are_not_part_of_it() -> None:
    assert _cells("sku,target,metadata.a\n A\u3000,'0138\u00a0,''x\n") == [{"sku": "A", "target": "0138", "metadata.a": "'x"}]
    assert _cells('sku,target\nA,"=""0138"""\n') == [{"sku": "A", "target": "0138"}]


@pytest.mark.parametrize(("said", "read"), [("是", "true"), ("YES", "true"), ("1", "true"), ("否", "false"), ("maybe", "maybe")])
def test_yes_and_no_are_read_in_both_languages(said: str, read: str) -> None:
    assert _cells(f"sku,允许重复充值\nA,{said}\n") == [{"sku": "A", "confirm_duplicate": read}]


# ---- headings


@pytest.mark.parametrize(
    ("heading", "column"),
    [
        ("SKU", "sku"), (" 商品编号* ", "sku"), ("Merchant Order No", "merchant_order_no"), ("手机号", "target"), ("ＳＫＵ", "sku"),
        ("字段.zone", "fields.zone"), ("fields.Zone", "fields.Zone"), ("Fields.区服", "fields.区服"), ("备注.店员", "metadata.店员"),
        ("fields.", None), ("remark", None), ("", None), ("面值", "face_value"),
    ],
)  # fmt: skip
def test_a_heading_is_known_in_both_languages(heading: str, column: str | None) -> None:
    assert column_of(heading) == column


def test_every_column_that_rows_are_made_of_has_a_heading_in_both_languages() -> None:
    assert set(TEMPLATE_COLUMNS) <= set(READ_COLUMNS)
    for column in READ_COLUMNS:
        assert kind_of(column) is not Kind.UNKNOWN
        assert {column_of(heading_of(column, locale)) for locale in ("en", "zh-CN")} == {column}
        assert heading_of(column, "zh-CN") != column


def test_the_merchants_own_columns_are_kept_and_named() -> None:
    sheet = files.read("sku,门店,target\nA,上海,1\n".encode(), "a.csv")
    assert sheet.unknown_columns == ("门店",)
    assert sheet.rows[0].cells["门店"] == "上海"
    assert "门店" in sheet.warnings[0]
    assert sheet.columns == ("sku", "门店", "target")
    assert files.read("商品编号,手机号\nA,1\n".encode(), "a.csv").headings == ("商品编号", "手机号")


@pytest.mark.parametrize("columns", [0, 1, 20, 21, 90])
def test_warnings_are_few_and_leave_nothing_unsaid(columns: int) -> None:
    heads = ",".join(f"own {n}" for n in range(columns))
    warnings = files.read(f"sku,{heads}\nA\n".encode() if columns else b"sku\nA\n", "a.csv").warnings
    assert len(warnings) == min(columns, 20)
    more = 0 if columns <= 20 else int(warnings[-1].split()[0]) - 1
    assert len(warnings) + more == columns


@pytest.mark.parametrize("headings", ["sku,target,target", "sku,target,手机号", "sku,x,x", "sku,fields.a,字段.a"])
def test_two_columns_of_one_meaning_refuse_the_file(headings: str) -> None:
    assert _refusal(f"{headings}\nA,1,2\n") == "heading_doubled"


def test_a_file_without_headings_is_refused_and_its_numbers_are_not_repeated() -> None:
    with pytest.raises(FileRefused) as refused:
        files.read(f"A,{PHONE}\nB,{PHONE}\n".encode(), "a.csv")
    assert refused.value.reason == "heading_missing"
    assert PHONE not in refused.value.detail


def test_only_a_whole_set_of_our_result_columns_is_ours() -> None:
    ours = ",".join(RESULT_COLUMNS)
    assert files.read(f"sku,{ours}\nA,2,,invalid,x,y\n".encode(), "a.csv").columns == ("sku",)
    assert files.read(b"sku,status\nA,new\n", "a.csv").unknown_columns == ("status",)


@pytest.mark.parametrize(("mark", "version"), [("", None), (",#kameng-orders-1", 1), (", #Kameng-Orders-1 ", 1)])
def test_the_templates_version_is_read_from_a_heading_of_its_own(mark: str, version: int | None) -> None:
    sheet = files.read(f"sku{mark},target\nA{',' if mark else ''},{PHONE}\n".encode(), "a.csv")
    assert (sheet.template_version, sheet.columns, sheet.unknown_columns) == (version, ("sku", "target"), ())
    assert sheet.rows[0].cells == {"sku": "A", "target": PHONE}


@pytest.mark.parametrize("version", ["2", "0", "999999"])
def test_a_template_of_another_version_is_refused(version: str) -> None:
    assert _refusal(f"sku,#kameng-orders-{version}\nA,\n") == "template_version"


# ---- the file as a whole


@pytest.mark.parametrize(
    ("content", "filename", "reason"),
    [
        (b"", "a.csv", "file_empty"),
        (b" \r\n\n", "a.csv", "file_empty"),
        (b",,\n,\n", "a.csv", "file_empty"),
        (b"sku,target\n", "a.csv", "no_rows"),
        (b"sku,target\n,,\n", "a.csv", "no_rows"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "a.xls", "file_type"),
        (b"<html><table><tr><td>sku</td></tr></table></html>", "a.xls", "file_type"),
        (b"%PDF-1.7", "a.pdf", "file_type"),
        (SIMPLE.encode(), "a.xlsx", "not_a_spreadsheet"),
        (b"PK\x03\x04 rubbish", "a.xlsx", "not_a_spreadsheet"),
        (b"sku,target\nA,1\x002\n" + b"x" * 500, "a.csv", "encoding"),
        (b"sku,target\n" + b"A,1\n" * 200 + b"A,1\x002\n", "a.csv", "not_text"),
        (b"sku,target\nA,\xff\xfe\xfd\n", "a.csv", "encoding"),
        (b"x" * (files.LARGEST_BYTES + 1), "a.csv", "file_too_large"),
        (b"sku\n" + b"A\n" * (files.MOST_ROWS + 1), "a.csv", "too_many_rows"),
        (b"sku\nA\n" + b"\n" * workbooks.MOST_HEIGHT, "a.csv", "too_many_rows"),
        (b"sku\nA" + b"," * 2_000_000, "a.csv", "too_much_text"),
        (b"sku" + b",x" * 200, "a.csv", "too_many_columns"),
        (b"sku," + b"x" * 200 + b"\nA,1\n", "a.csv", "heading_odd"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_reason(content: bytes, filename: str, reason: str) -> None:
    assert _refusal(content, filename) == reason


def test_twenty_thousand_rows_are_read_in_bounded_time_and_memory() -> None:
    lines = "".join(f"PO-{n},mobile-cn-100,{PHONE},1,note {n}\n" for n in range(files.MOST_ROWS))
    content = ("merchant_order_no,sku,target,quantity,metadata.note\n" + lines).encode()
    began = time.process_time()
    assert len(files.read(content, "a.csv").rows) == files.MOST_ROWS
    assert time.process_time() - began < 5
    tracemalloc.start()
    files.read(b'sku,target,"' + b"x" * 100 + b'"\n' + b"A,1,2\n" * files.MOST_ROWS, "a.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400) | st.text(st.sampled_from('sku,target;\t"\n\r\'=#A10 \x00\ufeff'), max_size=80).map(str.encode))
def test_any_bytes_are_rows_or_a_refusal(content: bytes) -> None:
    for prefix in (b"", b"sku,target\n", b"\xef\xbb\xbfsku\t"):
        try:
            sheet = files.read(prefix + content, "a.csv")
        except FileRefused:
            continue
        for row in sheet.rows:
            assert row.cells.keys() <= set(sheet.columns)
            assert row.cells or row.problem


# ---- XLSX


def test_a_workbook_is_read_with_the_numbers_on_its_screen() -> None:
    def fill(book: Any, sheet: Any) -> None:
        sheet.write_row(2, 1, ["商户订单号", "商品编号", "手机号", "数量", "最高单价", "fields.zone"])
        sheet.write_row(3, 1, ["PO-1", "A", 13800138000, 2, 98.5, 7])
        sheet.write_row(6, 1, ["PO-2", "B", PHONE])
        sheet.write_blank(900, 1, None, book.add_format({"bold": True}))

    sheet = files.read(_book(fill), "orders.xlsx")
    assert [(row.line_no, row.cells, row.problem) for row in sheet.rows] == [
        (4, {"merchant_order_no": "PO-1", "sku": "A", "target": PHONE, "quantity": "2", "max_unit_price": "98.5", "fields.zone": "7"}, None),
        (7, {"merchant_order_no": "PO-2", "sku": "B", "target": PHONE}, None),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(13800138000, PHONE), (2**53 - 1, str(2**53 - 1)), (10**15 - 10, str(10**15 - 10)), (0, "0")],
)
def test_a_number_is_taken_as_text_when_no_digit_can_be_lost(value: int, text: str) -> None:
    row = files.read(_book(rows=[["sku", "target"], ["A", value]]), "a.xlsx").rows[0]
    assert (row.cells["target"], row.problem) == (text, None)


@pytest.mark.parametrize("value", [2**53, 1e16, 1.38e20, 138.5, 6222020000001230.0])
def test_a_number_that_may_have_lost_digits_is_refused(value: float) -> None:
    assert _problem(_book(rows=[["sku", "target"], ["A", value]]), "a.xlsx") == ("number_not_exact", "/target")


@pytest.mark.parametrize(
    ("column", "code"),
    [("target", "date_cell"), ("sku", "date_cell"), ("quantity", "date_cell"), ("最高单价", "date_cell"), ("metadata.day", None), ("门店", None)],
)
def test_a_date_is_no_number_and_no_code(column: str, code: str | None) -> None:
    def fill(book: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["face_value", column])
        sheet.write_number(1, 0, 1)
        sheet.write_datetime(1, 1, datetime(2026, 3, 1), book.add_format({"num_format": "yyyy-mm-dd"}))  # noqa: DTZ001  spreadsheets have no zone

    problem = _problem(_book(fill), "a.xlsx")
    assert (problem and problem[0]) == code


def test_true_is_no_account() -> None:
    assert _problem(_book(rows=[["sku", "target"], ["A", True]]), "a.xlsx") == ("boolean_cell", "/target")
    assert _cells(_book(rows=[["sku", "confirm_duplicate"], ["A", True]]), "a.xlsx") == [{"sku": "A", "confirm_duplicate": "true"}]


def test_formulas_are_refused_whatever_value_they_have_stored() -> None:
    def fill(_: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["sku", "target", "quantity", "门店"])
        sheet.write_row(1, 0, ["A", PHONE, 1, "x"])
        sheet.write_formula(2, 1, "=B2+1", None, 13800138001)
        sheet.write_formula(3, 2, "=1+1", None, 2)
        sheet.write_formula(4, 1, "=NA()", None, "#N/A")
        sheet.write_formula(5, 3, '="a"', None, "a")
        for n in range(2, 6):
            sheet.write_string(n, 0, "A")

    rows = files.read(_book(fill), "a.xlsx").rows
    assert [row.problem and row.problem[:2] for row in rows] == [
        None, ("formula_cell", "/target"), ("formula_cell", "/quantity"), ("formula_cell", "/target"), None
    ]  # fmt: skip
    assert rows[4].cells["门店"] == '="a"'


def test_text_that_only_looks_like_a_formula_is_no_account_either() -> None:
    assert _problem(_book(rows=[["sku", "target"], ["A", "=1+1"]]), "a.xlsx") == ("formula_cell", "/target")


def test_merged_cells_refuse_the_rows_they_touch() -> None:
    def fill(_: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["sku", "target", "门店"])
        for n in range(1, 6):
            sheet.write_row(n, 0, ["A", PHONE])
        sheet.merge_range(2, 1, 3, 1, PHONE)
        sheet.merge_range(4, 2, 5, 2, "上海")

    rows = files.read(_book(fill), "a.xlsx").rows
    assert [row.problem and row.problem[:2] for row in rows] == [
        None, ("merged_cell", "/target"), ("merged_cell", "/target"), None, None
    ]  # fmt: skip


def test_hidden_rows_are_not_ordered_unseen() -> None:
    def fill(_: Any, sheet: Any) -> None:
        sheet.set_row(2, None, None, {"hidden": True})

    rows = files.read(_book(fill, rows=[["sku"], ["A"], ["B"], ["C"]]), "a.xlsx").rows
    assert [row.problem and row.problem[0] for row in rows] == [None, "hidden_row", None]


def test_one_sheet_can_be_seen() -> None:
    def second(book: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["sku"])
        book.add_worksheet("more").write_string(0, 0, "sku")

    def hidden(book: Any, sheet: Any) -> None:
        sheet.write_column(0, 0, ["sku", "A"])
        book.add_worksheet("lists").hide()

    assert _refusal(_book(second), "a.xlsx") == "several_sheets"
    assert _cells(_book(hidden), "a.xlsx") == [{"sku": "A"}]


def test_headings_made_by_a_formula_or_merged_are_refused() -> None:
    def formula(_: Any, sheet: Any) -> None:
        sheet.write_string(0, 0, "sku")
        sheet.write_formula(0, 1, '="target"', None, "target")

    def title(_: Any, sheet: Any) -> None:
        sheet.merge_range(0, 0, 0, 1, "orders of March")
        sheet.write_row(1, 0, ["sku", "target"])

    assert _refusal(_book(formula), "a.xlsx") == "heading_odd"
    assert _refusal(_book(title), "a.xlsx") == "heading_odd"


def test_a_full_workbook_is_read_in_bounded_time() -> None:
    content = _book(rows=[["merchant_order_no", "sku", "target", "quantity"], *([f"PO-{n}", "A", PHONE, 1] for n in range(files.MOST_ROWS))])
    began = time.process_time()
    assert len(files.read(content, "a.xlsx").rows) == files.MOST_ROWS
    assert time.process_time() - began < 8


# ---- hostile packages


def _sheet_xml(rows: str, after: str = "") -> bytes:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData>{after}</worksheet>'.encode()


def _text_cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_a_package_packed_by_hand_is_read() -> None:
    xml = _sheet_xml(f'<row r="1">{_text_cell("A1", "sku")}</row><row r="2">{_text_cell("A2", "B")}</row>')
    assert _cells(_package(sheet=xml), "a.xlsx") == [{"sku": "B"}]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sheet": b" " * 120_000_000}, "zip_bomb"),
        ({"strings": b"<sst>" + b" " * 20_000_000 + b"</sst>"}, "zip_bomb"),
        ({"sheet": _sheet_xml('<row r="1"><c r="XFD1"><v>1</v></c></row>')}, "too_many_columns"),
        ({"sheet": _sheet_xml('<row r="1048576"><c r="A1048576"><v>1</v></c></row>')}, "too_many_rows"),
        ({"sheet": _sheet_xml('<row r="1"><c r="99"><v>1</v></c></row>')}, "not_a_spreadsheet"),
        ({"sheet": b"<worksheet><sheetData>"}, "not_a_spreadsheet"),
        ({"sheet": b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + _sheet_xml("<row><c><v>&a;</v></c></row>")}, "not_a_spreadsheet"),
        ({"sheet": b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + _sheet_xml("")}, "not_a_spreadsheet"),
        ({"book": None}, "not_a_spreadsheet"),
        ({"links": None}, "not_a_spreadsheet"),
        ({"sheet": None}, "not_a_spreadsheet"),
        ({"sheet": _sheet_xml("", "<mergeCells>" + '<mergeCell ref="A1:B2"/>' * 60_000 + "</mergeCells>")}, "zip_bomb"),
        ({"sheet": _sheet_xml("")}, "file_empty"),
    ],
)
def test_a_hostile_package_is_refused_before_it_is_opened(changed: dict[str, bytes | None], reason: str) -> None:
    began = time.process_time()
    assert _refusal(_package(**changed), "a.xlsx") == reason
    assert time.process_time() - began < 5


def test_one_long_text_shown_in_many_cells_is_counted_each_time() -> None:
    strings = f"<sst><si><t>{'x' * 30_000}</t></si></sst>".encode()
    cells = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, 2_000))
    assert _refusal(_package(sheet=_sheet_xml(cells), strings=strings), "a.xlsx") == "too_much_text"


def test_a_sheet_that_lies_elsewhere_than_where_we_looked_is_not_read() -> None:
    links = b'<Relationships><Relationship Id="rId1" Type="x/worksheet" Target="../evil.xml"/></Relationships>'
    assert _refusal(_package(links=links), "a.xlsx") == "not_a_spreadsheet"


def test_a_workbook_with_macros_is_refused() -> None:
    content = io.BytesIO(_package())
    with zipfile.ZipFile(content, "a") as package:
        package.writestr("xl/vbaProject.bin", b"x")
    assert _refusal(content.getvalue(), "a.xlsx") == "macros"


def test_a_part_that_stands_twice_is_refused() -> None:
    content = io.BytesIO(_package())
    with zipfile.ZipFile(content, "a") as package, pytest.warns(UserWarning, match="Duplicate"):
        package.writestr("xl/worksheets/sheet1.xml", b"<x/>")
    assert _refusal(content.getvalue(), "a.xlsx") == "not_a_spreadsheet"


def test_a_part_that_begins_before_the_file_is_refused() -> None:
    content = bytearray(PACKAGE)
    directory = content.rindex(b"PK\x05\x06") + 16  # where it says that its list of parts stands
    for place in (1, 65_536, 2**31):
        content[directory : directory + 4] = (int.from_bytes(PACKAGE[directory : directory + 4], "little") + place).to_bytes(4, "little")
        assert _refusal(bytes(content), "a.xlsx") == "not_a_spreadsheet"


def test_a_part_whose_name_is_no_text_is_refused() -> None:
    content = bytearray(PACKAGE)
    entry = content.index(b"PK\x01\x02")
    content[entry + 9] |= 0x08  # "its name is UTF-8"
    content[entry + 46] = 0xFF
    assert _refusal(bytes(content), "a.xlsx") == "not_a_spreadsheet"


@pytest.mark.parametrize("encoding", ["UTF-9", "big5", "utf-7"])
def test_a_part_in_an_encoding_that_is_none_is_refused(encoding: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(PACKAGE)) as package, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in package.namelist():
            part = package.read(name)
            assert b'encoding="UTF-8"' in part
            changed.writestr(name, part.replace(b'encoding="UTF-8"', f'encoding="{encoding}"'.encode(), 1))
    assert _refusal(content.getvalue(), "a.xlsx") == "not_a_spreadsheet"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_workbook_is_rows_or_a_refusal(data: st.DataObject) -> None:
    content = bytearray(PACKAGE)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        files.read(bytes(content), "a.xlsx")
    except FileRefused:
        return


# ---- what people are told


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_every_reason_is_explained_and_nothing_else_is(language: str) -> None:
    sources = "".join((PACKAGE_FOLDER / "batches" / f"{name}.py").read_text() for name in ("files", "workbooks"))
    reasons = set(re.findall(r'FileRefused\(\s*"([a-z_]+)"', sources)) | {"zip_bomb"} | set(files.PROBLEMS)
    rows = (ROOT / "docs" / f"batch-files{language}.md").read_text(encoding="utf-8")
    explained = {code for row in rows.splitlines() for code in re.findall(r"`([a-z_]+)`", row.split("|")[1] if row.startswith("|") else "")}
    assert reasons - explained == set()
    assert explained - reasons - set(READ_COLUMNS) == set()
