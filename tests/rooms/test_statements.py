"""Statements from the cut to the byte: nothing is lost or told twice between two days, and one changed byte is found."""

import base64
import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from python_calamine import CalamineWorkbook
from sqlalchemy.engine import make_url
from tests.factories.counter import Counter
from tests.factories.merchants import keyring_of, make_merchant
from typer.testing import CliRunner

from kameng_api.cli import statements as cli
from kameng_api.embedded.servers import Servers
from kameng_api.jobs import statements as jobs
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.kit.money import format_amount
from kameng_api.ledger import queries as ledger_queries
from kameng_api.merchants import actions as merchants
from kameng_api.settings import Settings
from kameng_api.statements import actions, files, queries, rules
from kameng_api.statements.queries import NotReady, Statement
from kameng_api.suppliers.port import Delivered

SHANGHAI = ZoneInfo("Asia/Shanghai")
Owner = asyncpg.Connection


@pytest.fixture
async def owner(migrated: Servers) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    yield connection
    await connection.close()


@pytest.fixture
async def counter(database: Database, settings: Settings, owner: Owner) -> Counter:
    """A merchant since two days ago (Shanghai), with money since then."""
    counter = await Counter.open(database, settings)
    await owner.execute("UPDATE merchants SET created_at = now() - interval '2 days'")
    await owner.execute("UPDATE transfers SET created_at = now() - interval '2 days'")
    return counter


def today() -> date:
    return datetime.now(SHANGHAI).date()


def desk_of(counter: Counter, settings: Settings) -> Any:
    return SimpleNamespace(db=counter.db, settings=settings, keyring=keyring_of(settings), worker="w")


async def run(counter: Counter, settings: Settings) -> int:
    """As the two chores do, until there is nothing more to do."""
    desk = desk_of(counter, settings)
    for _ in range(5):
        async with counter.db.transaction() as tx:
            await actions.mark_ends(tx, 100)
        async with counter.db.transaction() as tx:
            if not await actions.cut_days(tx, 100):
                break
    return await jobs.make(desk)


async def statement(counter: Counter, day: date) -> Statement:
    async with counter.db.transaction() as tx:
        return await queries.get_statement(tx, counter.book_id, "CNY", day)


async def file_of(counter: Counter, of: Statement, format_: str) -> bytes:
    whole, first = b"", 0
    async with counter.db.transaction() as tx:
        while pieces := await queries.list_pieces(tx, of, format_, first, 3):
            whole, first = whole + b"".join(pieces), first + len(pieces)
    known = of.content["files"][format_]
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (known["bytes"], known["sha256"])
    return whole


async def age(owner: Owner, days: int, where: str = "true") -> None:
    await owner.execute(f"UPDATE transfers SET created_at = now() - interval '{days} days' WHERE {where}")


async def test_days_chain_and_add_up_with_the_fund_flow(counter: Counter, settings: Settings, owner: Owner) -> None:
    first, submission = await counter.buy("=PO-1".replace("=", "-"))
    await counter.told(submission, Delivered(1))
    await age(owner, 1, "kind = 'hold'")
    await counter.order("PO-2")  # today's: on no statement yet
    assert await run(counter, settings) == 4  # two days in both books of the merchant
    one, two = [await statement(counter, today() - timedelta(days=n)) for n in (2, 1)]
    assert (one.content["opening"], one.content["closing"]) == ("0.0000", "10000.0000")
    assert (two.content["opening"], two.content["closing"]) == ("10000.0000", "9900.0000")
    assert two.content["subtotals"] == [{"amount": "-100.0000", "count": 1, "type": "hold"}]

    told = json.loads(await file_of(counter, two, "json"))
    async with counter.db.transaction() as tx:
        flow = await ledger_queries.list_movements(tx, counter.book_id, "CNY", before_version=3, limit=1)
    [line] = told["movements"]
    assert (line["amount"], line["balance_after"]) == (format_amount(flow[0].amount), format_amount(flow[0].balance_after))
    assert (line["merchant_order_no"], line["target"]) == ("-PO-1", "138****8000")
    assert line["order_id"].startswith("ord_") and line["reference"].startswith("order:") and line["id"].startswith("txn_")
    assert (told["opening"], told["closing"], told["movements_count"]) == ("10000.0000", "9900.0000", 1)
    assert first.order_id


async def test_a_day_without_movement_has_a_statement(counter: Counter, settings: Settings) -> None:
    await run(counter, settings)
    quiet = await statement(counter, today() - timedelta(days=1))
    assert (quiet.content["opening"], quiet.content["closing"], quiet.content["movements_count"]) == ("10000.0000", "10000.0000", 0)
    for format_ in rules.FORMATS:
        assert await file_of(counter, quiet, format_)
    assert json.loads(await file_of(counter, quiet, "json"))["movements"] == []


async def test_the_files_say_the_same_and_nothing_in_them_is_a_formula(counter: Counter, settings: Settings, owner: Owner) -> None:
    await counter.order("-PO-1")
    await age(owner, 1, "kind = 'hold'")
    await run(counter, settings)
    made = await statement(counter, today() - timedelta(days=1))
    text = (await file_of(counter, made, "csv")).decode("utf-8")
    assert text.startswith("\ufeffrow,time,") and "\r\n" in text
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [r["row"] for r in rows] == ["opening", "movement", "subtotal", "closing"]
    assert rows[1]["merchant_order_no"] == "'-PO-1" and rows[1]["amount"] == "-100.0000"
    book = CalamineWorkbook.from_filelike(io.BytesIO(await file_of(counter, made, "xlsx")))
    sheet = book.get_sheet_by_name("Movements").to_python()
    assert len(sheet) == 2 and sheet[1][3:5] == [-100.0, 9900.0] and sheet[1][6] == "-PO-1"
    assert ["closing", 9900.0, 1.0] in [row[:3] for row in book.get_sheet_by_name("Statement").to_python()]


async def test_files_of_many_pieces_are_stored_whole_and_keep_their_lease(
    counter: Counter, settings: Settings, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", 64)  # so that the XLSX has some hundred
    await counter.order("PO-1")
    await age(owner, 1, "kind = 'hold'")
    assert await run(counter, settings) == 4
    made = await statement(counter, today() - timedelta(days=1))
    for format_ in rules.FORMATS:
        assert await file_of(counter, made, format_)
    assert made.content["files"]["xlsx"]["bytes"] > 50 * 64, "more pieces than are stored at once"


async def test_a_lost_piece_is_never_signed(counter: Counter, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", 64)
    monkeypatch.setattr(jobs, "_some", lambda items, n: [*islice(items, n)][:-1])
    assert await run(counter, settings) == 0
    async with counter.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM statements WHERE ready_at IS NOT NULL") == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "|calc", "%x"])
def test_what_could_begin_a_formula_is_made_harmless(text: str) -> None:
    assert files.harmless(text) == "'" + text
    assert files.harmless("PO-1") == "PO-1"


async def test_a_late_commit_keeps_the_day_open_and_a_movement_never_moves(counter: Counter, settings: Settings, owner: Owner) -> None:
    """A transaction that began before the end of the day and commits later is waited for."""
    late = await asyncpg.connect(make_url(str(settings.database_owner_url.get_secret_value())).set(drivername="postgresql").render_as_string(hide_password=False))  # type: ignore[union-attr]  # noqa: E501
    await late.execute("BEGIN; SELECT pg_current_xact_id()")
    assert await run(counter, settings) == 0
    with pytest.raises(NotReady):
        await statement(counter, today() - timedelta(days=1))
    await late.execute("COMMIT")
    await late.close()
    assert await run(counter, settings) == 4
    closing = (await statement(counter, today() - timedelta(days=1))).manifest
    # A clock that was wrong, or a transaction that slept: booked after the cut, it stands on the day on which it was booked.
    await counter.order("PO-late")
    await age(owner, 1, "kind = 'hold'")
    assert await run(counter, settings) == 0
    assert (await statement(counter, today() - timedelta(days=1))).manifest == closing


async def test_the_merchant_s_zone_says_when_the_day_ends_and_may_change(counter: Counter, settings: Settings) -> None:
    await run(counter, settings)
    async with counter.db.transaction() as tx:
        await merchants.set_timezone(tx, counter.merchant_id, "Pacific/Kiritimati")
    await run(counter, settings)
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT starts_at, ends_at, from_version, to_version FROM statements WHERE book_id = $1 ORDER BY day", counter.book_id)
    assert all(a["ends_at"] == b["starts_at"] and a["to_version"] == b["from_version"] for a, b in pairwise(rows))
    assert all(r["starts_at"] <= r["ends_at"] for r in rows)


async def test_before_the_first_day_there_is_none_and_after_the_last_not_yet(counter: Counter, settings: Settings) -> None:
    await run(counter, settings)
    with pytest.raises(NotFound):
        await statement(counter, today() - timedelta(days=5))
    for day in (today(), today() + timedelta(days=1)):
        with pytest.raises(NotReady):
            await statement(counter, day)
    async with counter.db.transaction() as tx:
        with pytest.raises(NotFound):
            await queries.get_statement(tx, counter.book_id, "USD", today() - timedelta(days=1))


async def test_a_maker_that_died_is_followed_by_another_and_cannot_come_back(counter: Counter, settings: Settings, owner: Owner) -> None:
    async with counter.db.transaction() as tx:
        await actions.mark_ends(tx, 100)
    async with counter.db.transaction() as tx:
        await actions.cut_days(tx, 100)
        dead = await actions.claim(tx)
        assert dead is not None
        assert await actions.store(tx, dead, [("csv", 0, b"half a file")])
    await jobs.make(desk_of(counter, settings))  # the others; this one is still leased
    await owner.execute("UPDATE statements SET making_until = now() - interval '1 second' WHERE ready_at IS NULL")
    assert await jobs.make(desk_of(counter, settings)) == 1
    async with counter.db.transaction() as tx:
        assert not await actions.store(tx, dead, [("csv", 1, b"the other half")])
        made = [rules.File("csv", 11, "0" * 64)]  # it kept what it made, and its pieces are gone: no disagreement, only too late
        assert await actions.finish(tx, dead, rules.Tally(dead.cut), made, jobs.signing_keys(settings, counter.keyring)[0]) is None
        assert await fetch(tx, "SELECT 1 FROM statement_chunks WHERE make_id = $1", dead.make_id) == []
        assert await fetch(tx, "SELECT 1 FROM statements WHERE ready_at IS NULL") == []


async def test_movements_that_do_not_add_up_are_never_signed(counter: Counter, settings: Settings, owner: Owner) -> None:
    await owner.execute("UPDATE transfers SET amount = amount + 1 WHERE book_id = $1", counter.book_id)
    assert await run(counter, settings) == 2  # the live book's; of the tampered one neither that day's nor any later one
    with pytest.raises(NotReady):
        await statement(counter, today() - timedelta(days=2))
    async with counter.db.transaction() as tx:
        assert [r["kind"] for r in await fetch(tx, "SELECT kind FROM alarms")] == ["invariant_broken"]


async def test_it_is_told_once(counter: Counter, settings: Settings) -> None:
    await run(counter, settings)
    await run(counter, settings)
    async with counter.db.transaction() as tx:
        bodies = await fetch(tx, "SELECT body FROM events WHERE type = 'statement.ready' AND book_id = $1 ORDER BY event_id", counter.book_id)
    told = [json.loads(r["body"])["data"]["object"] for r in bodies]
    assert [t["date"] for t in told] == [(today() - timedelta(days=n)).isoformat() for n in (2, 1)]
    assert told[0]["closing"] == told[1]["opening"] == "10000.0000"


# ---- the same for a large day, in little memory ------------------------------------------------------------------------


def _cut(n: int) -> rules.Cut:
    start = datetime(2026, 11, 21, tzinfo=SHANGHAI)
    merchant = UUID(int=7)
    return rules.Cut(16, merchant, "live", "CNY", start.date(), "Asia/Shanghai", start, start + timedelta(days=1), 0, n, 0, n * 10_000)


def _lines(cut: rules.Cut, after: int, n: int) -> list[rules.Line]:
    return [
        rules.Line(v, cut.starts_at, "fund", 10_000, v * 10_000, f"txn_{v}", f"fund:bank:{v}", "", "", "", "")
        for v in range(after + 1, after + n + 1)
    ]


def _made(tmp_path: Any, n: int) -> tuple[list[rules.File], int]:
    shelf, most = files.Shelf(_cut(n), tmp_path), 0
    for after in range(0, n, 1000):
        shelf.add(_lines(shelf.tally.cut, after, min(1000, n - after)))
        most = max(most, *(len(held) for held in shelf._held.values()))
    for _ in shelf.finish():
        most = max(most, *(len(held) for held in shelf._held.values()))
    return shelf.files(), most


def test_files_are_the_same_when_made_again_and_what_is_held_is_bounded(tmp_path: Any) -> None:
    small, _ = _made(tmp_path, 3000)
    assert small == _made(tmp_path, 3000)[0]
    files_, most = _made(tmp_path, 20_000)
    assert most <= 2 * files.PIECE + 300_000
    assert all(f.size > 300_000 for f in files_)


# ---- offline -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def saved(counter: Counter, settings: Settings, tmp_path: Any) -> Any:
    """A statement as a merchant keeps it: the file, the manifest, the keys."""
    await run(counter, settings)
    made = await statement(counter, today() - timedelta(days=2))
    (tmp_path / "s.csv").write_bytes(await file_of(counter, made, "csv"))
    sealed = {"manifest": base64.b64encode(made.manifest).decode(), "signature": base64.b64encode(made.signature).decode(), "key_id": made.key_id}
    (tmp_path / "s.csv.manifest.json").write_text(json.dumps(sealed))
    async with counter.db.transaction() as tx:
        keys = [{"key_id": k, "algorithm": "ed25519", "public_key": base64.b64encode(p).decode()} for k, p in await queries.list_keys(tx)]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    return tmp_path


def _verify(saved: Any) -> Any:
    return CliRunner().invoke(cli.statement_app, ["verify", str(saved / "s.csv"), "--keys", str(saved / "keys.json")])


async def test_a_genuine_file_is_recognised_offline_and_any_changed_byte_is_found(saved: Any) -> None:
    assert _verify(saved).exit_code == 0, _verify(saved).output
    whole = (saved / "s.csv").read_bytes()
    for n in range(0, len(whole), max(1, len(whole) // 40)):
        (saved / "s.csv").write_bytes(whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :])
        assert _verify(saved).exit_code == 1
    for other in (whole[:-1], whole + b"\n"):
        (saved / "s.csv").write_bytes(other)
        assert _verify(saved).exit_code == 1


@pytest.mark.parametrize("what", ["manifest", "signature"])
async def test_a_changed_manifest_or_signature_is_found(saved: Any, what: str) -> None:
    path = saved / "s.csv.manifest.json"
    sealed = json.loads(path.read_text())
    raw = bytearray(base64.b64decode(sealed[what]))
    for n in range(0, len(raw), 37):
        raw[n] ^= 1
        path.write_text(json.dumps({**sealed, what: base64.b64encode(raw).decode()}))
        assert _verify(saved).exit_code == 1
        raw[n] ^= 1


def test_keys_are_rotated_by_putting_a_new_one_in_front() -> None:
    seed = base64.b64encode(b"1" * 32).decode()
    newer = base64.b64encode(b"2" * 32).decode()
    [derived] = rules.keys_of([], b"0" * 32)
    assert [k.key_id for k in rules.keys_of([f"b:{newer}", f"a:{seed}"], b"0" * 32)] == ["b", "a", derived.key_id]
    for wrong in ("a", "a:!!", f"a-b:{seed}", "a:" + base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError):
            rules.keys_of([wrong], b"0" * 32)


async def test_a_merchant_of_today_has_no_statement_yet(database: Database, settings: Settings) -> None:
    merchant = await make_merchant(database, settings)
    async with database.transaction() as tx:
        await actions.mark_ends(tx, 100)
    async with database.transaction() as tx:
        assert await actions.cut_days(tx, 100) == 0
        with pytest.raises(NotReady):
            await queries.get_statement(tx, merchant.book_id, "CNY", today())


async def test_what_a_killed_worker_has_left_of_a_statement_is_removed_a_day_later(
    counter: Counter, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, young, other = (tmp_path / name for name in ("kameng-statement-old", "kameng-statement-young", "of-somebody-else"))
    for folder in (old, young, other):
        folder.mkdir()
        (folder / "rows.xml").write_text("a merchant's movements")
    for folder in (old, other):
        os.utime(folder, (0, 0))
    assert await run(counter, settings) > 0
    assert [folder.exists() for folder in (old, young, other)] == [False, True, True]
