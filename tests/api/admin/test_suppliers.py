"""The supplier desk: forms, tests against real servers, wallets that pause and resume, papers, contacts, and orders that are stopped."""

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp import web
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr
from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.counter import Counter
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import public_id
from kameng_api.settings import Settings
from kameng_api.suppliers import registry
from kameng_api.suppliers.port import (
    Accepted,
    Adapter,
    Answer,
    Capabilities,
    Delivered,
    NotFound,
    Outcome,
    Purchase,
    RefusalReason,
    Refused,
    Scope,
    Send,
    SupplierBase,
    Unknown,
)

SECRET = "0123456789abcdef-very-secret"
SETTINGS = {"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": SECRET}
CHANNEL = {"id": "sim-a", "name": "Simulator A", "adapter": "simulator", "environment": "test", "settings": SETTINGS}
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 8


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    found = Simulator(tmp_path_factory.mktemp("simulator"))
    await found.start()
    yield found
    await found.end(signal.SIGTERM)


def of(simulator: Simulator, **more: Any) -> dict[str, Any]:
    return {"base_url": simulator.url, "app_key": "app-sim-a", "secret": SECRETS["sim-a"], "timeout_s": 5, **more}


async def try_it(admin: Operator, settings: Mapping[str, Any]) -> dict[str, Any]:
    answer = await admin.post("/suppliers/try", json={"adapter": "simulator", "environment": "test", "settings": settings})
    assert SECRET not in answer.text and SECRETS["sim-a"] not in answer.text
    report: dict[str, Any] = await ok(answer, 200)
    return report


def found(report: Mapping[str, Any]) -> dict[str, str]:
    return {step["step"]: step["found"] for step in report["steps"]}


@asynccontextmanager
async def a_vendor(body: str, *, status: int = 200, kind: str = "application/json", ahead: timedelta = timedelta()) -> AsyncIterator[str]:
    """A server that says the same to everybody, with a clock of its own."""

    async def answer(_request: web.Request) -> web.Response:
        now = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        return web.Response(text=body, status=status, content_type=kind, headers={"Date": now})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# ---- the form and the test -------------------------------------------------------------------------------------------


async def test_the_form_asks_what_the_channel_then_is_made_of(admin: Operator) -> None:
    form = await ok(await admin.get("/adapters/simulator"))
    assert [(f["name"], f["secret"]) for f in form["fields"]] == [("base_url", False), ("app_key", False), ("secret", True), ("timeout_s", False)]
    assert all(f["title"]["en"] and f["title"]["zh"] for f in form["fields"])
    filled = {f["name"]: SETTINGS[f["name"]] for f in form["fields"] if f["required"]}
    await ok(await admin.post("/channels", json=CHANNEL | {"settings": filled}), 201)
    assert (await admin.get("/adapters/nobody")).status_code == 404


async def test_a_connection_that_works_says_so_before_and_after_it_is_saved(admin: Operator, simulator: Simulator) -> None:
    report = await try_it(admin, of(simulator))
    assert report["works"] and found(report) == {"balance": "well", "products": "well"}
    assert report["balance"] and report["currency"] == "CNY" and report["products_on_first_page"] > 0
    assert abs(report["clock_skew_s"]) < 5
    assert (await ok(await admin.get("/channels")))["items"] == [], "trying saves nothing"
    await ok(await admin.post("/channels", json=CHANNEL | {"settings": of(simulator)}), 201)
    again = await ok(await admin.post("/suppliers/sim-a/try", json={}))
    assert again["works"] and again["balance"] == (await ok(await admin.get("/suppliers/sim-a")))["wallet"]["balance"]
    [entry] = [e for e in (await ok(await admin.get("/audit")))["items"] if e["action"] == "channel.tried"]
    assert entry["facts"] == {"works": True, "found": ["well", "well"]}
    [tried] = [e for e in (await ok(await admin.get("/audit")))["items"] if e["action"] == "channel.settings_tried"]
    assert (tried["subject"], tried["facts"]["works"]) == ("adapter:simulator", True) and SECRETS["sim-a"] not in str(tried)
    assert (await simulator.call("GET", "log?limit=1000"))["items"] == [] or all(
        row["path"] != "place" for row in (await simulator.call("GET", "log?limit=1000"))["items"]
    ), "nothing is bought"


async def test_a_wrong_secret_and_a_wrong_account_are_named(admin: Operator, simulator: Simulator) -> None:
    report = await try_it(admin, of(simulator, secret=SECRET))
    assert not report["works"] and found(report) == {"balance": "wrong_signature", "products": "skipped"}
    assert report["steps"][0]["meaning"]["zh"].startswith("对方提示签名错误")
    stranger = found(await try_it(admin, of(simulator, app_key="nobody-here")))
    assert stranger["balance"] in ("wrong_account", "wrong_signature")


async def test_what_cannot_be_reached_is_told_apart(admin: Operator) -> None:
    assert found(await try_it(admin, SETTINGS))["balance"] == "not_reachable"
    assert found(await try_it(admin, SETTINGS | {"base_url": "http://no-such-host.invalid"}))["balance"] == "no_such_host"
    async with a_vendor("{}") as url:
        assert found(await try_it(admin, SETTINGS | {"base_url": url.replace("http:", "https:")}))["balance"] == "bad_certificate"
    async with a_vendor("<h1>It works!</h1>", kind="text/html") as url:
        assert found(await try_it(admin, SETTINGS | {"base_url": url}))["balance"] == "wrong_address"
    async with a_vendor(f'{{"code":"X","message":"busy {SECRET}"}}', status=503) as url:
        report = await try_it(admin, SETTINGS | {"base_url": url})
        assert found(report)["balance"] == "supplier_trouble" and "busy" in report["steps"][0]["they_said"]


async def test_a_clock_that_is_off_is_named(admin: Operator) -> None:
    async with a_vendor('{"code":"SIGN_INVALID","message":"签名错误"}', ahead=timedelta(minutes=-10)) as url:
        report = await try_it(admin, SETTINGS | {"base_url": url})
    assert found(report)["balance"] == "clock_skew" and -610 < report["clock_skew_s"] < -590


async def test_settings_that_do_not_fit_are_refused_and_a_simulator_serves_no_live_channel(admin: Operator, hire: Hire) -> None:
    wanted = {"adapter": "simulator", "environment": "live", "settings": SETTINGS}
    assert (await admin.post("/suppliers/try", json=wanted)).json()["errors"][0]["pointer"] == "/environment"
    broken = wanted | {"environment": "test", "settings": {"base_url": "ftp://x"}}
    refused = await admin.post("/suppliers/try", json=broken)
    assert refused.status_code == 422 and "/settings/base_url" in [e["pointer"] for e in refused.json()["errors"]]
    assert (await (await hire("support")).post("/suppliers/try", json=wanted)).status_code == 403


async def test_one_setting_is_changed_without_typing_the_secret_again(admin: Operator, simulator: Simulator) -> None:
    await ok(await admin.post("/channels", json=CHANNEL | {"settings": of(simulator)}), 201)
    await ok(await admin.post("/suppliers/sim-a/settings", json={"settings": {"timeout_s": 3}}))
    assert (await ok(await admin.post("/suppliers/sim-a/try", json={})))["works"], "the sealed secret still signs"
    assert (await admin.post("/suppliers/sim-a/settings", json={"settings": {"colour": 1}})).status_code == 422
    [entry] = [e for e in (await ok(await admin.get("/audit")))["items"] if e["action"] == "channel.settings_changed"]
    assert entry["facts"] == {"changed": ["timeout_s"]}


async def test_a_sealed_secret_is_not_sent_to_another_host(admin: Operator, simulator: Simulator) -> None:
    """Whoever may change settings must not thereby read the secrets: those of the old address stay with it."""
    heard: list[str] = []

    async def listen(request: web.Request) -> web.Response:
        heard.append(str(request.headers) + await request.text())
        return web.Response(text="{}", content_type="application/json")

    await ok(await admin.post("/channels", json=CHANNEL | {"settings": of(simulator)}), 201)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", listen)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        elsewhere = f"http://127.0.0.1:{runner.addresses[0][1]}"
        for address in (elsewhere, simulator.url.replace("127.0.0.1", "localhost"), simulator.url.replace("http:", "https:")):
            refused = await admin.post("/suppliers/sim-a/settings", json={"settings": {"base_url": address}})
            assert refused.status_code == 422, address
            [wrong] = refused.json()["errors"]
            assert (wrong["pointer"], wrong["code"]) == ("/settings/secret", "required") and SECRETS["sim-a"] not in refused.text
        bare = {"base_url": elsewhere, "app_key": "app-sim-a"}
        again = await admin.post("/suppliers/try", json={"adapter": "simulator", "environment": "test", "settings": bare})
        assert "/settings/secret" in [e["pointer"] for e in again.json()["errors"]], "nor by trying: a test takes no sealed secret"
        await admin.post("/suppliers/sim-a/try", json={})
        await admin.post("/channels/sim-a/refresh-wallet", json={})
        assert heard == []
        assert (await ok(await admin.post("/suppliers/sim-a/try", json={})))["works"], "what was refused changed nothing"
        await ok(await admin.post("/suppliers/sim-a/settings", json={"settings": {"base_url": elsewhere, "secret": SECRET}}))
        await admin.post("/channels/sim-a/refresh-wallet", json={})
        assert heard, "with every secret given anew it moves"
    finally:
        await runner.cleanup()


async def test_a_path_at_the_same_host_asks_for_no_secret(admin: Operator) -> None:
    await ok(await admin.post("/channels", json=CHANNEL | {"settings": SETTINGS | {"base_url": "http://vendor.example"}}), 201)
    for address in ("http://VENDOR.example", "http://vendor.example:80"):
        await ok(await admin.post("/suppliers/sim-a/settings", json={"settings": {"base_url": address, "timeout_s": 4}}))


async def test_addresses_of_this_machines_cloud_are_refused_and_private_ones_are_not(admin: Operator) -> None:
    for environment in ("live", "test"):
        for address in ("http://169.254.169.254", "https://[fe80::1]", "http://[fd00:ec2::254]:8080"):
            wanted = {"adapter": "kakayun", "environment": environment, "settings": {"base_url": address, "userid": "1", "key": SECRET}}
            for path, body in (("/suppliers/try", wanted), ("/channels", {"id": "k", "name": "K", **wanted})):
                refused = await admin.post(path, json=body)
                assert refused.status_code == 422, (path, address)
                [wrong] = refused.json()["errors"]
                assert (wrong["pointer"], wrong["code"]) == ("/settings/base_url", "not_allowed") and "link-local" in wrong["detail"]
    inside = {"base_url": "http://10.0.0.7:8080", "userid": "1", "key": SECRET}
    await ok(await admin.post("/channels", json={"id": "k", "name": "K", "adapter": "kakayun", "environment": "live", "settings": inside}), 201)
    moved = await admin.post("/suppliers/k/settings", json={"settings": {"query_url": "http://169.254.169.254", "key": SECRET}})
    assert moved.json()["errors"][0]["pointer"] == "/settings/query_url"


# ---- the wallet ------------------------------------------------------------------------------------------------------


async def test_a_wallet_below_its_floor_pauses_the_channel_until_it_is_refilled(admin: Operator, simulator: Simulator, app: FastAPI) -> None:
    await ok(await admin.post("/channels", json=CHANNEL | {"settings": of(simulator)}), 201)
    balance = float((await ok(await admin.post("/channels/sim-a/refresh-wallet", json={})))["wallet"]["balance"])
    terms = {"low_at": "100", "floor": f"{balance + 1:.4f}", "resume_at": f"{balance + 500:.4f}", "hours_left": 12}
    told = await ok(await admin.put("/suppliers/sim-a/wallet", json=terms))
    assert told["paused_since"] is not None and (told["floor"], told["hours_left"]) == (terms["floor"], 12)
    one = await ok(await admin.get("/suppliers/sim-a"))
    assert not one["takes_orders"] and one["why_not"] == ["wallet_paused"]
    snapshot = await app.state.door.catalog.refresh()
    assert snapshot.channels["sim-a"].wallet_paused_at is not None, "every process hears of it"
    await ok(await admin.put("/suppliers/sim-a/wallet", json=terms | {"floor": "1", "resume_at": f"{balance:.4f}"}))
    one = await ok(await admin.get("/suppliers/sim-a"))
    assert one["takes_orders"] and one["wallet"]["paused_since"] is None
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"resume_at": "5"}, "/wallet/resume_at"), ({"floor": "9", "resume_at": "5"}, "/wallet/resume_at"), ({"hours_left": 0}, "/wallet/hours_left"),
    ]  # fmt: skip
    for wrong, pointer in wrongs:
        refused = await admin.put("/suppliers/sim-a/wallet", json=wrong)
        assert refused.json()["errors"][0]["pointer"] == pointer


async def test_the_balances_of_a_wallet_are_told_over_time(admin: Operator, simulator: Simulator) -> None:
    await ok(await admin.post("/channels", json=CHANNEL | {"settings": of(simulator)}), 201)
    shown = await ok(await admin.get("/suppliers/sim-a/wallet?step_s=3600"))
    assert (shown["balances"], shown["charges"], shown["empty_in_s"]) == ([], [], None)
    wide = await admin.get("/suppliers/sim-a/wallet?step_s=60&since=2026-01-01T00:00:00Z")
    assert wide.status_code == 422
    assert (await admin.get("/suppliers/nobody/wallet")).status_code == 404


# ---- papers, contacts, notes -----------------------------------------------------------------------------------------


@pytest.fixture
async def channel(admin: Operator) -> str:
    await ok(await admin.post("/channels", json=CHANNEL), 201)
    return "sim-a"


async def test_a_required_document_that_has_ended_stops_the_channel(admin: Operator, channel: str) -> None:
    licence: dict[str, Any] = {
        "kind": "telecom_licence", "number": "B2-1", "issuer": "MIIT", "valid_from": "2020-01-01", "valid_until": "2026-01-31", "required": True,
    }  # fmt: skip
    made = await ok(await admin.post("/suppliers/sim-a/documents", json=licence), 201)
    assert (made["standing"], made["number"], made["valid_until"]) == ("ended", "B2-1", "2026-01-31")
    one = await ok(await admin.get("/suppliers/sim-a"))
    assert one["why_not"] == ["document_ended"] and one["documents"]["no_orders_after"] == "2026-01-31T16:00:00.000Z"
    assert [d["id"] for d in one["documents"]["ended"]] == [made["id"]]
    renewed = await ok(await admin.post("/suppliers/sim-a/documents", json=licence | {"valid_until": "2099-01-31"}), 201)
    assert (await ok(await admin.get("/suppliers/sim-a")))["why_not"] == ["document_ended"], "the old one must be withdrawn"
    gone = await ok(await admin.post(f"/suppliers/sim-a/documents/{made['id']}/withdraw", json={}))
    assert gone["standing"] == "withdrawn"
    assert (await ok(await admin.get("/suppliers/sim-a")))["takes_orders"]
    assert [d["id"] for d in (await ok(await admin.get("/suppliers/sim-a/documents")))["items"]] == [renewed["id"]]
    assert len((await ok(await admin.get("/suppliers/sim-a/documents?withdrawn=true")))["items"]) == 2
    assert (await admin.put(f"/suppliers/sim-a/documents/{made['id']}", json=licence)).status_code == 409
    changed = await ok(await admin.put(f"/suppliers/sim-a/documents/{renewed['id']}", json=licence | {"required": False}))
    assert changed["standing"] == "ended" and (await ok(await admin.get("/suppliers/sim-a")))["takes_orders"]


async def test_a_scan_is_sealed_and_comes_back_byte_for_byte(admin: Operator, hire: Hire, channel: str, database: Database) -> None:
    made = await ok(await admin.post("/suppliers/sim-a/documents", json={"kind": "contract"}), 201)
    where = f"/supplier-files?channel_id=sim-a&document_id={made['id']}&name=scan.pdf&type=application/pdf"
    binary = {"content-type": "application/octet-stream"}
    stored = await ok(await admin.post(where, content=PDF, headers=binary), 201)
    assert (stored["file"]["name"], stored["file"]["size"]) == ("scan.pdf", len(PDF))
    assert (await ok(await admin.post(where, content=PDF, headers=binary), 200))["file"] == stored["file"]
    assert (await admin.post(where, content=PDF + b"1", headers=binary)).status_code == 409
    assert (await admin.post(where.replace("application/pdf", "image/png"), content=PDF, headers=binary)).status_code == 422
    back = await admin.get(f"/suppliers/sim-a/documents/{made['id']}/file")
    assert (back.content, back.headers["content-type"]) == (PDF, "application/pdf")
    assert (await (await hire("viewer")).get(f"/suppliers/sim-a/documents/{made['id']}/file")).status_code == 403
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT file_sealed FROM supplier_documents")
    assert PDF[:64] not in row["file_sealed"]


async def test_contacts_are_sealed_and_shown_to_those_who_call_them(admin: Operator, hire: Hire, channel: str, database: Database) -> None:
    person = {"role": "on_duty", "name": "Wang Er", "phone": "13800138000", "im": "wx-wang", "email": "w@example.com", "hours": "24/7"}
    made = await ok(await admin.post("/suppliers/sim-a/contacts", json=person), 201)
    assert made["person"]["phone"] == "13800138000"
    await ok(await (await hire("support")).put(f"/suppliers/sim-a/contacts/{made['id']}", json=person | {"role": "technical"}))
    [listed] = (await ok(await (await hire("finance")).get("/suppliers/sim-a/contacts")))["items"]
    assert (listed["role"], listed["person"]["name"]) == ("technical", "Wang Er")
    viewer = await hire("viewer")
    assert (await viewer.get("/suppliers/sim-a/contacts")).status_code == 403
    assert "Wang" not in (await viewer.get("/suppliers/sim-a")).text + (await viewer.get("/suppliers")).text
    async with database.transaction() as tx:
        rows = await fetch(tx, "SELECT c::text AS row FROM supplier_contacts c UNION ALL SELECT a::text FROM audit_entries a")
    for part in ("Wang", "13800138000", "wx-wang", "example.com"):
        assert not any(part in r["row"] or part.encode().hex() in r["row"] for r in rows), part
    refused = await admin.post("/suppliers/sim-a/contacts", json=person | {"email": "13800138000"})
    assert refused.status_code == 422 and "13800138000" not in refused.text
    await ok(await admin.delete(f"/suppliers/sim-a/contacts/{made['id']}"))
    assert (await ok(await admin.get("/suppliers/sim-a/contacts")))["items"] == []
    assert (await admin.delete(f"/suppliers/sim-a/contacts/{made['id']}")).status_code == 404


async def test_notes_are_only_written(admin: Operator, channel: str) -> None:
    for n in range(3):
        await ok(await admin.post("/suppliers/sim-a/notes", json={"text": f"note {n}"}), 201)
    page = await ok(await admin.get("/suppliers/sim-a/notes?limit=2"))
    assert [one["text"] for one in page["items"]] == ["note 2", "note 1"]
    rest = await ok(await admin.get(f"/suppliers/sim-a/notes?limit=2&cursor={page['next_cursor']}"))
    assert [one["text"] for one in rest["items"]] == ["note 0"]


async def test_the_overview_shows_every_channel(admin: Operator, channel: str) -> None:
    await ok(await admin.post("/channels", json=CHANNEL | {"id": "sim-b", "status": "disabled"}), 201)
    source = {"channel_id": "sim-a", "kind": "fetch", "lag_s": 7200}
    await ok(await admin.put("/reconciliation/sources/by-itself", json=source))
    items = {one["id"]: one for one in (await ok(await admin.get("/suppliers")))["items"]}
    assert items["sim-a"]["takes_orders"] and items["sim-b"]["why_not"] == ["disabled"]
    assert items["sim-a"]["last_sync"] is None and items["sim-a"]["offers"] == {"count": 0, "read_at": None}
    assert items["sim-a"]["unknowns"] == {"count": 0, "oldest_at": None} and items["sim-a"]["last_statement"] is None
    assert (await ok(await admin.get("/suppliers?environment=live")))["items"] == []
    [schedule] = (await ok(await admin.get("/suppliers/sim-a")))["statements"]
    assert (schedule["source"], schedule["format"], schedule["lag_s"], schedule["last"]) == ("by-itself", "adapter", 7200, None)
    assert schedule["next_at"].endswith("T18:00:00.000Z"), "two hours after midnight in Shanghai"


# ---- stopping an order -----------------------------------------------------------------------------------------------


class StoppingSettings(BaseModel):
    secret: SecretStr = SecretStr("a-secret-for-tests")


class Stopping(SupplierBase):
    """A supplier that works on whatever it is given, and says to a request to cancel what the test wants."""

    capabilities = Capabilities(query_by_reference=True, cancel=True)
    says: Outcome = Unknown("nothing was said")
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012  the test looks at it

    async def place(self, purchase: Purchase) -> Answer:
        return Answer(Accepted("their-1"))

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        return Answer(Accepted("their-1"))

    async def cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        self.asked.append((reference, supplier_order_no))
        return Answer(self.says, b"what they said", 200)


def connect_stopping(_settings: Any, _send: Send) -> Stopping:
    return Stopping()


@pytest.fixture
async def stopping(admin: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channel `a` of the counter's shop, at a supplier that can be asked to cancel."""
    known = {one.name: one for one in registry.list_adapters()}
    more = {"stopping": Adapter("stopping", StoppingSettings, connect_stopping, simulated=True), **known}
    monkeypatch.setattr(registry, "_loaded", lambda: MappingProxyType(more))
    monkeypatch.setattr(Stopping, "asked", [])
    await ok(await admin.post("/channels", json={"id": "a", "name": "A", "adapter": "stopping", "environment": "test", "settings": {}}), 201)


async def ask_to_cancel(admin: Operator, order: Any, attempt: Any) -> Any:
    from_ids = f"/orders/{public_id('ord', order.order_id)}/attempts/{public_id('att', attempt.attempt_id)}/ask-to-cancel"
    return await admin.post(from_ids, json={"reason": "the customer waits"})


@pytest.mark.parametrize(
    ("says", "word", "state", "status", "money"),
    [
        (Accepted("request-77"), "accepted", "accepted", "processing", (9900, 100)),
        (Unknown("broken"), "unknown", "accepted", "processing", (9900, 100)),
        (Unknown("ask us", needs_person=True), "unknown", "accepted", "processing", (9900, 100)),
        (NotFound(), "unknown", "accepted", "processing", (9900, 100)),
        (Delivered(1), "unknown", "accepted", "processing", (9900, 100)),
        (Refused(Scope.ORDER, RefusalReason.SUPPLIER_REJECTED), "refused_channel", "refused", "processing", (9900, 100)),
    ],
)
async def test_only_a_final_no_frees_what_was_asked_to_be_cancelled(
    admin: Operator, stopping: None, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    says: Outcome, word: str, state: str, status: str, money: tuple[int, int],
) -> None:  # fmt: skip
    counter = await Counter.open(database, settings)
    order, submission = await counter.buy()
    await counter.told(submission, Accepted("their-1"))
    [attempt] = await counter.attempts(order)
    monkeypatch.setattr(Stopping, "says", says)
    told = await ok(await ask_to_cancel(admin, order, attempt))
    assert (told["answer"], told["attempt"]["state"]) == (word, state)
    assert Stopping.asked == [(attempt.reference, "their-1")]
    now = await counter.now(order)
    assert (now.status, await counter.money()) == (status, money), "the order is never failed by it: other channels may be asked"
    [attempt] = await counter.attempts(order)
    assert attempt.supplier_order_no == "their-1", "the number of a request is not that of the order"
    async with database.transaction() as tx:
        beats = [r["beat"] for r in await fetch(tx, "SELECT beat FROM supplier_answers ORDER BY received_at")]
        due = await fetch(tx, "SELECT lane, run_at <= now() + interval '4 seconds' AS soon FROM tasks")
    assert beats == ["place", "cancel"], "what they said is kept as evidence"
    assert [(r["lane"], r["soon"]) for r in due] == [("submit" if state == "refused" else "look_up", True)]
    [entry] = [e for e in (await ok(await admin.get("/audit")))["items"] if e["action"] == "attempt.cancel_asked"]
    assert (entry["facts"]["outcome"], entry["facts"]["reason"]) == (word, "the customer waits")
    await counter.holds()


async def test_what_is_settled_or_cannot_be_asked_is_not_cancelled(
    admin: Operator, hire: Hire, stopping: None, database: Database, settings: Settings
) -> None:
    counter = await Counter.open(database, settings)
    order, submission = await counter.buy()
    [attempt] = await counter.attempts(order)
    assert (await ask_to_cancel(admin, order, attempt)).status_code == 409, "it is being sent"
    await counter.told(submission, Delivered(1))
    assert (await ask_to_cancel(admin, order, attempt)).status_code == 409
    assert Stopping.asked == []
    other = await counter.order("PO-2")
    assert (await ask_to_cancel(admin, other, attempt)).status_code == 404
    assert (await ask_to_cancel(await hire("viewer"), order, attempt)).status_code == 403
