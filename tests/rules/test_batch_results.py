"""What goes back to a merchant can be sent again as it is, and never runs as a formula."""

import csv
import io
from typing import Any

import pytest
import python_calamine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kameng_api.batches import files, results
from kameng_api.batches.errors import FileRefused
from kameng_api.batches.headings import RESULT_COLUMNS, TEMPLATE_COLUMNS, TEMPLATE_VERSION, Locale, heading_of
from kameng_api.batches.results import Format, Outcome

FORMATS: tuple[Format, ...] = ("csv", "xlsx")
HOSTILE = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "=HYPERLINK(\"http://x.invalid\")", "|calc", "%0A=1")
COLUMNS = ("merchant_order_no", "sku", "target", "quantity", "fields.zone", "metadata.note", "门店")

_SPACE = files._SPACE
_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(32))) + "\x7f\ufffd\ufffe\uffff") | st.sampled_from("\t\n="),
    max_size=12,
).map(lambda text: text.rstrip(_SPACE))
_LIKELY = st.sampled_from(["0013", "13800138000", "6222020000000000000", "12E3", "1-2", "TRUE", "'x", "''", "1,5;x", 'a"b', "_x0041_", *HOSTILE[:4]])
_CELLS = st.dictionaries(st.sampled_from(COLUMNS), (_TEXT | _LIKELY).filter(bool), min_size=1)


def _table(made: bytes, format: Format) -> list[list[Any]]:
    if format == "csv":
        return list(csv.reader(io.StringIO(made.decode("utf-8-sig"), newline="")))
    return python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(made)).get_sheet_by_index(0).to_python(skip_empty_area=False)


@pytest.mark.parametrize("format", FORMATS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(rows=st.lists(_CELLS, min_size=1, max_size=5))
def test_a_retry_file_reads_as_the_rows_it_was_made_of(format: Format, rows: list[dict[str, str]]) -> None:
    sheet = files.read(results.write_retry(format, COLUMNS, [Outcome(n, cells) for n, cells in enumerate(rows, 2)]), f"retry.{format}")
    assert [row.cells for row in sheet.rows] == rows
    assert sheet.columns == COLUMNS
    assert sheet.template_version == TEMPLATE_VERSION


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_refused_is_refused_again_until_it_is_mended(format: Format) -> None:
    text = "sku,target\nA,1.38E+10\nA,=B1\nA,#N/A\nA,13800138000.0\nA,fine\nA,#DATE!2026-03-01\nA,#NUM!1e16\n"
    first = files.read(text.encode(), "a.csv")
    again = files.read(results.write_retry(format, first.columns, [Outcome(r.line_no, r.cells) for r in first.rows]), "again")
    codes = [row.problem and row.problem[0] for row in first.rows]
    assert codes == ["scientific_notation", "formula_cell", "error_cell", "number_not_exact", None, "date_cell", "number_not_exact"]
    assert [row.problem and row.problem[0] for row in again.rows] == codes


@pytest.mark.parametrize("format", FORMATS)
def test_a_result_file_holds_what_was_sent_and_what_became_of_it(format: Format) -> None:
    outcomes = [
        Outcome(2, {"sku": "A", "target": "13800138000"}, "ord_1", "succeeded"),
        Outcome(4, {"sku": "B"}, "", "invalid", "validation_failed", "this product needs a target"),
    ]
    table = _table(results.write(format, ("sku", "target"), outcomes, ("商品编号", "手机号")), format)
    assert table == [
        ["商品编号", "手机号", *RESULT_COLUMNS],
        ["A", "13800138000", "2", "ord_1", "succeeded", "", ""],
        ["B", "", "4", "", "invalid", "validation_failed", "this product needs a target"],
    ]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_file_of_ours_begins_a_formula(format: Format, text: str) -> None:
    outcome = Outcome(2, {"sku": text, text: text}, "ord_1", "failed", "supplier_rejected", text)
    for made in (results.write(format, ("sku", text), [outcome]), results.write_retry(format, ("sku", text), [outcome])):
        cells = [cell for row in _table(made, format) for cell in row]
        assert not [cell for cell in cells if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"))]
        assert any(cell.lstrip("'").replace("\n", "\r") == text.replace("\n", "\r") for cell in cells if isinstance(cell, str))


def test_a_result_file_that_is_sent_again_is_read_without_our_columns() -> None:
    made = results.write("csv", ("sku", "target"), [Outcome(2, {"sku": "A", "target": "13800138000"}, "ord_1", "failed", "x", "y")])
    sheet = files.read(made, "results.csv")
    assert sheet.columns == ("sku", "target")
    assert [(row.cells, row.problem) for row in sheet.rows] == [({"sku": "A", "target": "13800138000"}, None)]


def test_a_merchants_column_called_like_ours_stays() -> None:
    table = _table(results.write("csv", ("sku", "status"), [Outcome(2, {"sku": "A", "status": "new"}, "", "invalid")]), "csv")
    assert table[0] == ["sku", "status", "line_no", "order_id", "result_status", "error_code", "error_detail"]
    assert table[1][1] == "new" and table[1][4] == "invalid"


def test_a_row_whose_order_failed_gets_a_new_number_and_one_that_was_refused_keeps_its_own() -> None:
    outcomes = [
        Outcome(2, {"merchant_order_no": "PO-1", "sku": "A"}, "ord_1", "failed"),
        Outcome(3, {"merchant_order_no": "PO-2", "sku": "A"}, "", "refused"),
        Outcome(4, {"sku": "A"}, "", "invalid", merchant_order_no="B7-4"),
        Outcome(5, {"sku": "A"}, "ord_2", "failed", merchant_order_no="B7-5"),
    ]
    rows = files.read(results.write_retry("csv", ("sku", "merchant_order_no"), outcomes), "r.csv").rows
    assert [row.cells["merchant_order_no"] for row in rows] == ["PO-1-r1", "PO-2", "B7-4", "B7-5-r1"]
    without = files.read(results.write_retry("xlsx", ("sku",), outcomes[2:]), "r.xlsx")
    assert without.columns == ("merchant_order_no", "sku")
    assert [row.cells["merchant_order_no"] for row in without.rows] == ["B7-4", "B7-5-r1"]


@given(st.text("ABC-r1", min_size=1, max_size=64))
def test_a_new_number_is_a_number_and_another_one(number: str) -> None:
    again = results.retry_number(number)
    assert again != number and len(again) <= 64 and results.retry_number(number) == again


def test_long_numbers_that_differ_at_their_ends_stay_apart() -> None:
    assert results.retry_number("x" * 63 + "1") != results.retry_number("x" * 63 + "2")


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_template_that_is_filled_in_can_be_read(format: Format, locale: Locale) -> None:
    made = results.template(format, locale)
    with pytest.raises(FileRefused) as refused:
        files.read(made, f"t.{format}")
    assert refused.value.reason == "no_rows"
    assert _table(made, format)[0][:-1] == [heading_of(column, locale) for column in TEMPLATE_COLUMNS]
    if format == "csv":
        sheet = files.read(made + "PO-1,A,13800138000,2,,98.5,600,是\r\n".encode(), "t.csv")
        assert sheet.template_version == TEMPLATE_VERSION
        assert sheet.columns == TEMPLATE_COLUMNS
        assert sheet.rows[0].line_no == 2
        assert sheet.rows[0].cells["confirm_duplicate"] == "true"


def test_a_template_says_what_every_column_wants_in_the_readers_language() -> None:
    for locale in ("en", "zh-CN"):
        assert results._NOTES[locale].keys() == set(TEMPLATE_COLUMNS)
