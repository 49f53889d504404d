"""Files from strangers: read as their source says, refused loudly, bounded in every direction, and never half counted."""

import io
import tempfile
import zipfile
from datetime import UTC, date, datetime
from io import BufferedRandom
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from tests.factories.merchants import keyring_of
from tests.factories.shop import stock_the_shop

from kameng_api.kit.db import Database, fetch
from kameng_api.kit.errors import Invalid, StateConflict
from kameng_api.kit.ids import book_reference, new_ulid
from kameng_api.reconciliation import exports, files, landing, sources, uploads
from kameng_api.reconciliation.files import Batch, read_file
from kameng_api.reconciliation.mappings import FileMapping
from kameng_api.reconciliation.sources import Source, SourceWanted
from kameng_api.settings import Settings

DAY = date(2026, 11, 21)
MAPPING: dict[str, Any] = {
    "columns": {"at": "交易时间", "amount": "金额", "kind": "类型", "line_id": "流水号", "reference": "商户订单号", "balance_after": "余额"},
    "at_format": "%Y/%m/%d %H:%M:%S",
    "sign": "by_kind",
    "kinds": {"扣款": "charge", "退款": "refund", "充值": "top_up"},
    "ignore": ["#", "合计"],
    "header_row": 2,
}
HEAD = "# 对账单 2026-11-21,,,,,\n流水号,交易时间,类型,商户订单号,金额,余额\n"
GOOD = "W1,2026/11/21 10:00:00,扣款,G01,97.50,902.5\nW2,2026/11/21 10:00:01,退款,G01,97.5,1000\nW3,2026/11/21 11:00:00,充值,,1000,2000\n合计,,,,,\n"


def without_a_name(path: Path) -> BufferedRandom:
    """The same bytes as the operator's API has them."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    file.write(path.read_bytes())
    file.flush()
    return file


async def read(path: Path, mapping: dict[str, Any] | None = None) -> Batch:
    lines: list[Any] = []
    bad: list[Any] = []
    with without_a_name(path) as file:
        async for batch in read_file(file, FileMapping.model_validate(mapping or MAPPING), "CNY"):
            lines += batch.lines
            bad += batch.bad
    return Batch(lines, bad)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
async def test_a_file_is_read_in_the_encodings_of_the_trade(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(HEAD + GOOD, encoding=encoding)
    found = await read(path)
    assert not found.bad
    assert [(n, line.line_id, line.kind, line.amount, line.balance_after) for n, line in found.lines] == [
        (3, "W1", "charge", -97_5000, 902_5000), (4, "W2", "refund", 97_5000, 1000_0000), (5, "W3", "top_up", 1000_0000, 2000_0000),
    ]  # fmt: skip
    assert found.lines[0][1].at == datetime(2026, 11, 21, 2, 0, tzinfo=UTC), "10 o'clock in Shanghai"


def sheet(path: Path, rows: list[list[Any]], *, formulas: bool = False) -> None:
    with xlsxwriter.Workbook(path) as book:
        made = book.add_worksheet("明细")
        stamp = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        for r, row in enumerate(rows):
            for c, value in enumerate(row, 1):  # column A stays empty
                if isinstance(value, datetime):
                    made.write_datetime(r, c, value, stamp)
                elif isinstance(value, str) and value.startswith("=") and formulas:
                    made.write_formula(r, c, value)
                elif isinstance(value, str):
                    made.write_string(r, c, value)
                else:
                    made.write(r, c, value)


HEADINGS = ["流水号", "交易时间", "类型", "商户订单号", "金额", "余额"]


async def test_a_spreadsheet_is_read_by_its_stored_values_and_never_calculated(tmp_path: Path) -> None:
    path = tmp_path / "s.xlsx"
    noon = datetime(2026, 11, 21, 12, 0, 0)  # noqa: DTZ001  spreadsheets know no zones
    rows: list[list[Any]] = [["# 说明"], HEADINGS, ["W1", noon, "扣款", "G01", 97.35, 902.65], ["W2", noon, "扣款", "G02", "=1+1", ""], []]
    rows += [["W3", noon, "扣款", 1234567890123456789.0, 1, ""], ["W4", noon, "扣款", "G04", 1.00001, ""]]
    sheet(path, rows, formulas=True)
    found = await read(path, MAPPING | {"format": "xlsx"})
    assert [(n, line.line_id, line.amount) for n, line in found.lines] == [(3, "W1", -97_3500)]
    assert [n for n, _ in found.bad] == [4, 6, 7]
    assert "does not fit" in found.bad[0][1], "a formula without a stored value is nothing, not two"
    assert "15 digits" in found.bad[1][1] and "decimals" in found.bad[2][1]


async def test_bad_rows_are_told_by_line_and_reason_without_their_content(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    secret = "13800138000-secret"
    bad = [
        ("W1,yesterday,扣款,G1,1,1", "not a time"), (f"W2,2026/11/21 10:00:00,{secret},G1,1,1", "not one of the words"),
        ("W3,2026/11/21 10:00:00,扣款,G1,one,1", "not a decimal"), ("W4,2026/11/21 10:00:00,扣款,G1,-1,1", "has a sign"),
        ("W5,2026/11/21 10:00:00,扣款,,1,1", "names no order"), (",2026/11/21 10:00:00,扣款,G1,1,1", "no number of its own"),
        ("W7,2026/11/21 10:00:00,扣款,=cmd|' /C calc'!A0,1,1", "formula"), ("W8,2026/11/21 10:00:00,扣款,1.23457E+18,1,1", "scientific"),
        ("W9,2026/11/21 10:00:00,扣款,G1,1.00001,1", "four decimals"), ("W10,2026/11/21 10:00:00,扣款,G1,0,1", "does not fit"),
    ]  # fmt: skip
    path.write_text(HEAD + "".join(row + "\n" for row, _ in bad), encoding="utf-8")
    found = await read(path)
    assert not found.lines
    assert [n for n, _ in found.bad] == list(range(3, 13))
    for (_, reason), (_, told) in zip(found.bad, bad, strict=True):
        assert told in reason and secret not in reason, reason


async def test_rows_without_numbers_of_their_own_get_lasting_ones(tmp_path: Path) -> None:
    mapping = MAPPING | {"columns": {k: v for k, v in MAPPING["columns"].items() if k != "line_id"}}
    path = tmp_path / "s.csv"
    row = "x,2026/11/21 10:00:00,扣款,G1,1,1\n"
    path.write_text(HEAD + row + row, encoding="utf-8")
    first = [line.line_id for _, line in (await read(path, mapping)).lines]
    assert len(set(first)) == 2
    assert [line.line_id for _, line in (await read(path, mapping)).lines] == first


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("[Content_Types].xml", "<x/>")
        z.writestr("xl/worksheets/sheet1.xml", b"0" * 60_000_000)


def _far_cell(path: Path) -> None:
    sheet(path, [HEADINGS])
    source = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            text = old.read(part)
            if part.filename.startswith("xl/worksheets/"):
                text = text.replace(b"</sheetData>", b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>')
            new.writestr(part.filename, text)


def _lying_size(path: Path) -> None:
    _bomb(path)
    raw = bytearray(path.read_bytes())
    size = (60_000_000).to_bytes(4, "little")
    while (at := raw.find(size)) >= 0:
        raw[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "make", [_bomb, _far_cell, _lying_size, lambda path: path.write_bytes(b"PK\x03\x04 not a zip"), lambda path: path.write_bytes(b"")]
)
async def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "s.xlsx"
    make(path)
    with pytest.raises(Invalid, match="cannot be read"):
        await read(path, MAPPING | {"format": "xlsx"})


@pytest.mark.parametrize(
    "content",
    [
        b"", HEAD.encode().replace("金额".encode(), "数目".encode()), HEAD.encode() + b"\x00\x00", HEAD.encode() + b"a" * 200_000,
        HEAD.encode() + b'"open\n',
    ],
    ids=["empty", "a column is missing", "binary", "one endless line", "an open quote"],
)
async def test_a_text_that_is_no_statement_is_refused_as_a_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(Invalid):
        await read(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"at_format": "%d"}, "year"),
        ({"columns": {"at": "a", "amount": "b"}}, "kind"),
        ({"timezone": "Asia/Nowhere"}, "zone"),
        ({"kinds": {}}, "kinds"),
        ({"kinds": {"扣款": "payment"}}, "charge"),
        ({"columns": MAPPING["columns"] | {"amount_in": "x"}}, "amount"),
        ({"header_row": 0}, "numbers"),
        ({"formula": "=A1"}, "Extra"),
    ],
)
def test_a_mapping_that_does_not_say_how_is_refused_when_it_is_set(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid) as refused:
        sources.read_mapping(MAPPING | change)
    assert told.lower() in str([(e.pointer, e.detail) for e in refused.value.errors]).lower()


def test_what_a_supplier_wrote_never_runs_in_a_spreadsheet() -> None:
    rows = [["=HYPERLINK(1)", "+1+1", "@SUM(A1)", "-97.5000", "\t=1", "plain"]]
    text = exports.as_csv(["a", "b", "c", "d", "e", "f"], rows).decode("utf-8-sig").splitlines()[1]
    assert text == "'=HYPERLINK(1),'+1+1,'@SUM(A1),-97.5000,'\t=1,plain"
    with zipfile.ZipFile(io.BytesIO(exports.as_xlsx(["a"], rows))) as book:
        assert not any(b"<f>" in book.read(name) for name in book.namelist() if name.startswith("xl/worksheets/"))


# ---- what counts, and when ---------------------------------------------------------------------------------------------


@pytest.fixture
async def source(database: Database, settings: Settings) -> Source:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})
    keyring_of(settings)
    async with database.transaction() as tx:
        return await sources.put_source(tx, SourceWanted("sim-a", "mail of sim-a", "upload", mapping=MAPPING))


async def counting(db: Database) -> list[tuple[str, int]]:
    async with db.transaction() as tx:
        rows = await fetch(
            tx,
            """SELECT l.ext_line_id, l.amount FROM recon_lines l JOIN recon_files f USING (file_id)
            WHERE l.withdrawn_at IS NULL AND f.state = 'accepted' ORDER BY l.line_id""",
        )
    return [tuple(r) for r in rows]


async def bring(db: Database, source: Source, path: Path, rows: str, day: date = DAY) -> sources.StatementFile:
    path.write_text(HEAD + rows, encoding="utf-8")  # noqa: ASYNC240  a moment
    with path.open("rb") as opened:
        file, _ = await uploads.upload(db, source, day, opened, "../../etc/对账.csv", "fang")
    return file


async def accept(db: Database, file: sources.StatementFile, **more: Any) -> None:
    async with db.transaction() as tx:
        await landing.accept(tx, file.file_id, "fang", **more)
    more_pages = True
    while more_pages:
        async with db.transaction() as tx:
            more_pages = await landing.land_page(tx, file.file_id)


async def test_nothing_counts_before_it_is_accepted_and_the_same_file_counts_once(database: Database, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    file = await bring(database, source, path, GOOD)
    assert (file.state, file.rows_read, file.rows_bad, file.name) == ("read", 3, 0, "对账.csv")
    assert await counting(database) == []
    with path.open("rb") as opened:
        again, new = await uploads.upload(database, source, DAY, opened, "other name.csv", "gao")
    assert (again.file_id, new) == (file.file_id, False)
    await accept(database, file)
    await accept(database, file)
    assert await counting(database) == [("W1", -97_5000), ("W2", 97_5000), ("W3", 1000_0000)]
    with path.open("rb") as opened:
        again, new = await uploads.upload(database, source, DAY, opened, "s.csv", "gao")
    assert (again.state, again.landed, new) == ("accepted", True, False)


async def test_bad_rows_are_left_out_only_knowingly(database: Database, source: Source, tmp_path: Path) -> None:
    file = await bring(database, source, tmp_path / "s.csv", GOOD + "W9,never,扣款,G1,1,1\n")
    assert (file.rows_bad, [n for n, _ in file.bad]) == (1, [7])
    with pytest.raises(Invalid):
        await accept(database, file)
    assert await counting(database) == []
    await accept(database, file, with_bad=True)
    assert len(await counting(database)) == 3


async def test_a_rejected_file_counts_nothing_and_may_come_again(database: Database, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    file = await bring(database, source, path, GOOD)
    async with database.transaction() as tx:
        await sources.reject_file(tx, file.file_id, "fang")
    with pytest.raises(StateConflict):
        await accept(database, file)
    again = await bring(database, source, path, GOOD)
    assert (again.file_id, again.state) == (file.file_id, "read")


async def test_a_newer_telling_replaces_the_older_one_of_its_day_alone(database: Database, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    await accept(database, await bring(database, source, path, GOOD))
    await accept(database, await bring(database, source, path, "N1,2026/11/22 10:00:00,扣款,G7,5,1\n", date(2026, 11, 22)))
    corrected = GOOD.replace("97.50,902.5", "98.50,901.5").replace("W2,", "W2b,")
    file = await bring(database, source, path, corrected)
    await accept(database, file)
    told = dict(await counting(database))
    assert sorted(told.values()) == [-98_5000, -5_0000, 97_5000, 1000_0000]
    assert {name.partition("~")[0] for name in told} == {"W1", "W2b", "W3", "N1"}
    await accept(database, await bring(database, source, path, corrected + "\n"))  # the same once more, in other bytes
    assert dict(await counting(database)) == told
    await accept(database, await bring(database, source, path, GOOD + "\n"))
    assert sorted(dict(await counting(database)).items()) == [("N1", -5_0000), ("W1", -97_5000), ("W2", 97_5000), ("W3", 1000_0000)]


async def test_one_number_for_two_movements_loses_neither_and_a_repetition_counts_once(database: Database, source: Source, tmp_path: Path) -> None:
    rows = "W1,2026/11/21 10:00:00,扣款,G1,1,1\n" * 2 + "W1,2026/11/21 10:00:05,扣款,G2,2,1\n"
    await accept(database, await bring(database, source, tmp_path / "s.csv", rows))
    assert sorted(amount for _, amount in await counting(database)) == [-2_0000, -1_0000]
    async with database.transaction() as tx:
        [file] = await sources.list_files(tx)
    assert (file.rows_read, file.rows_new, file.rows_repeated) == (3, 2, 1)


async def test_our_references_are_read_and_odd_ones_kept(database: Database, source: Source, tmp_path: Path) -> None:
    attempt = new_ulid()
    rows = f"W1,2026/11/21 10:00:00,扣款,{book_reference(16, attempt)},1,1\nW2,2026/11/21 10:00:00,扣款,'`00123,1,1\n"
    await accept(database, await bring(database, source, tmp_path / "s.csv", rows))
    async with database.transaction() as tx:
        found = await fetch(tx, "SELECT reference, book_id, attempt_id FROM recon_lines ORDER BY line_no")
    assert [tuple(r) for r in found] == [(book_reference(16, attempt), 16, attempt), ("00123", None, None)]


async def test_a_page_lands_once_however_often_the_worker_dies(
    database: Database, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "PAGE", 2)
    monkeypatch.setattr(files, "_BATCH", 2)
    rows = "".join(f"W{n},2026/11/21 10:00:00,扣款,G{n},1,1\n" for n in range(6001))
    file = await bring(database, source, tmp_path / "s.csv", rows)
    async with database.transaction() as tx:
        await landing.accept(tx, file.file_id, "fang")
    landed = 0
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with database.transaction() as tx:
                await landing.land_page(tx, file.file_id)
                raise RuntimeError("killed before the commit")
        async with database.transaction() as tx:
            landed += await landing.land_page(tx, file.file_id)
    assert landed == 3
    await accept(database, file)
    assert len(await counting(database)) == 6001
