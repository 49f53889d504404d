"""The desk of reconciliation: files come in and count when somebody says so; a difference is resolved by two people."""

import io
from datetime import date
from typing import Any

import pytest
from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.shop import stock_the_shop

from kameng_api.jobs import reconciliation as jobs
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.reconciliation import landing
from kameng_api.settings import Settings

SOURCE: dict[str, Any] = {
    "channel_id": "sim-a", "kind": "upload", "window_days": 0, "complete": True, "tolerance": "0.0100",
    "mapping": {
        "columns": {"at": "at", "amount": "amount", "kind": "kind", "line_id": "id", "reference": "ref"}, "kinds": {"C": "charge"},
    },
}  # fmt: skip
FILE = b"id,at,kind,ref,amount\nW1,2026-11-20 10:00:00,C,STRANGER1,-97.5\n"
PATH = "/reconciliation/files?source=mail&day=2026-11-20&name=s.csv"


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})


@pytest.fixture
async def finance(hire: Hire) -> Operator:
    fang = await hire("finance", "fang")
    await ok(await fang.put("/reconciliation/sources/mail", json=SOURCE))
    return fang


async def land_and_compare(db: Database) -> None:
    async with db.transaction() as tx:
        waiting = await landing.list_unlanded(tx, 10)
    for file_id in waiting:
        await jobs.land(db, file_id)
    await jobs.compare_day(db, "sim-a", date(2026, 11, 20), "Asia/Shanghai", "CNY", "test")


async def test_a_file_comes_in_counts_when_accepted_and_its_break_takes_two(finance: Operator, hire: Hire, database: Database) -> None:
    file = await ok(await finance.post(PATH, content=FILE), 201)
    assert (file["state"], file["rows_read"], file["landed"]) == ("read", 1, False)
    again = await finance.post(PATH, content=FILE)
    assert (again.status_code, again.json()["id"], again.headers["Idempotent-Replayed"]) == (200, file["id"], "true")
    assert (await finance.post("/reconciliation/runs", json={"channel_id": "sim-a", "day": "2026-11-20"})).status_code == 409
    await ok(await finance.post(f"/reconciliation/files/{file['id']}/accept", json={}))
    await land_and_compare(database)
    [found] = (await ok(await finance.get("/reconciliation/breaks?class=R5")))["items"]
    assert (found["state"], found["amount"], found["severity"]) == ("open", "97.5000", "critical")

    support, gao = await hire("support", "su"), await hire("finance", "gao")
    below = f"/reconciliation/breaks/{found['id']}"
    await ok(await support.post(f"{below}/assign", json={"owner": "su"}))
    assert (await finance.post(f"{below}/propose", json={"resolution": "variance", "note": "no"})).status_code == 422
    proposed = await ok(await support.post(f"{below}/propose", json={"resolution": "loss", "note": "the key had leaked"}))
    assert (proposed["state"], proposed["proposed_by"]) == ("proposed", "su")
    seen = {"proposal": proposed["proposal"]}
    assert (await support.post(f"{below}/approve", json=seen)).status_code == 403
    replaced = await ok(await finance.post(f"{below}/propose", json={"resolution": "loss", "note": "the key had leaked"}))
    assert (await gao.post(f"{below}/approve", json={})).status_code == 422
    assert (await gao.post(f"{below}/approve", json=seen)).status_code == 409, "it was proposed anew since this was seen"
    seen = {"proposal": replaced["proposal"]}
    assert (await finance.post(f"{below}/approve", json=seen)).status_code == 409, "whoever proposed it"
    done = await ok(await gao.post(f"{below}/approve", json=seen))
    assert (done["state"], done["approved_by"]) == ("closed", "gao")
    whole = await ok(await finance.get(below))
    assert [step["step"] for step in whole["evidence"]["steps"]][-1] == "approved"
    async with database.transaction() as tx:
        posted = await fetch(tx, "SELECT debit_account, credit_account, amount FROM transfers WHERE event_key = $1", done["event_key"])
        audited = {r["action"] for r in await fetch(tx, "SELECT action FROM audit_entries")}
    assert [tuple(r) for r in posted] == [("cogs:sim-a", "supplier_prepaid:sim-a", 97_5000)]
    assert {"reconciliation.uploaded", "reconciliation.file_accepted", "reconciliation.break_proposed", "reconciliation.break_approved"} <= audited
    report = await ok(await finance.get("/reconciliation/reports/sim-a/2026-11-20"))
    assert (report["lines"], report["matched"]) == (1, 0)
    assert report["files"][0]["id"] == file["id"]


async def test_lists_and_exports_answer(finance: Operator, database: Database) -> None:
    file = await ok(await finance.post(PATH, content=FILE.replace(b"STRANGER1", b"+cmd")), 201)
    await ok(await finance.post(f"/reconciliation/files/{file['id']}/accept", json={}))
    await land_and_compare(database)
    async with database.transaction() as tx:
        await execute(tx, "UPDATE recon_breaks SET note = '=HYPERLINK(1)'")
    paths = ["sources", "files", "files?state=accepted&day=2026-11-20", "runs?channel_id=sim-a", "days", "breaks?older_than_s=0"]
    for path in (*paths, f"files/{file['id']}"):
        await ok(await finance.get(f"/reconciliation/{path}"))
    assert len((await ok(await finance.get("/reconciliation/classes")))["items"]) == 13
    csv = await finance.get("/reconciliation/exports/breaks")
    assert csv.status_code == 200 and "'=HYPERLINK(1)" in csv.text
    book = await finance.get("/reconciliation/exports/breaks?format=xlsx")
    assert io.BytesIO(book.content).read(2) == b"PK"
    assert (await finance.get("/reconciliation/breaks/brk_nonsense")).status_code == 404


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"mapping": None}, "/mapping"), ({"kind": "mail"}, "/kind"), ({"timezone": "Mars"}, "/timezone"), ({"window_days": 99}, "/window_days"),
        ({"mapping": {"columns": {"at": "a"}}}, "/mapping"), ({"tolerance": "-1"}, "/tolerance"),
    ],
)  # fmt: skip
async def test_a_source_that_cannot_work_is_refused(finance: Operator, change: dict[str, Any], pointer: str) -> None:
    answer = await finance.put("/reconciliation/sources/other", json=SOURCE | change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)


async def test_bad_rows_are_listed_and_a_file_can_be_thrown_away(finance: Operator) -> None:
    file = await ok(await finance.post(PATH, content=FILE + b"W2,never,C,G1,-1\n"), 201)
    assert file["bad"] == [{"line": 3, "reason": "at: not a time in the format of this source"}]
    assert (await finance.post(f"/reconciliation/files/{file['id']}/accept", json={})).status_code == 422
    assert (await ok(await finance.post(f"/reconciliation/files/{file['id']}/reject")))["state"] == "rejected"
    assert (await finance.post(PATH, content=b"\x00\x01")).status_code == 422
    assert (await finance.post(PATH.replace("2026-11-20", "yesterday!"), content=FILE)).status_code == 422
    assert (await finance.post(PATH.replace("mail", "nothing"), content=FILE)).status_code == 404
