"""`kameng supplier …`: the desk from the command line, audited like the API."""

import json
from pathlib import Path

from tests.cli.test_cli import SECRET, Kameng, kameng  # noqa: F401  the fixture

from kameng_api.kit.db import Database, fetch

CONNECTION = json.dumps({"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": SECRET})
CHANNEL = ("channel", "set", "sim-a", "Simulator A", "--adapter", "simulator", "-e", "test", "--settings", "-")


async def test_a_supplier_is_looked_after_by_hand(kameng: Kameng, database: Database, tmp_path: Path) -> None:  # noqa: F811
    form = (await kameng("supplier", "form", "simulator")).json["items"]
    assert [one["name"] for one in form] == ["base_url", "app_key", "secret", "timeout_s"] and form[2]["secret"]
    tried = await kameng("supplier", "try", "--adapter", "simulator", "--settings", "-", stdin=CONNECTION)
    assert tried.status == 1 and json.loads(tried.out)["steps"][0]["found"] == "not_reachable" and SECRET not in tried.out + tried.err
    refused = await kameng("supplier", "try", "--adapter", "simulator", "--settings", "-", stdin="{}")
    assert refused.status == 2 and "/settings/base_url" in refused.err
    assert (await kameng("supplier", "try")).status == 2

    await kameng(*CHANNEL, stdin=CONNECTION)
    assert (await kameng("supplier", "try", "sim-a")).status == 1
    terms = ("supplier", "wallet-terms", "sim-a", "--floor", "100", "--resume-at", "500", "--hours-left", "12")
    assert (await kameng(*terms)).json["resume_at"] == "500.0000"
    assert (await kameng("supplier", "wallet-terms", "sim-a", "--resume-at", "5")).status == 2
    assert (await kameng("supplier", "wallet", "sim-a")).json["floor"] == "100.0000"

    scan = tmp_path / "licence.pdf"
    scan.write_bytes(b"%PDF-1.7 licence")
    added = await kameng(
        "supplier", "document", "add", "sim-a", "telecom_licence", "--valid-until", "2020-12-31", "--required", "--file", str(scan)
    )
    assert (added.json["standing"], added.json["file"]["size"]) == ("ended", 16)
    assert (await kameng("supplier", "document", "add", "sim-a", "contract", "--valid-until", "soon")).status == 2
    [one] = (await kameng("supplier", "list")).json["items"]
    assert (one["takes_orders"], one["why_not"]) == (False, ["document_ended"])
    await kameng("supplier", "document", "withdraw", "sim-a", added.json["id"])
    assert (await kameng("supplier", "show", "sim-a")).json["takes_orders"]

    person = json.dumps({"name": "Wang Er", "phone": "13800138000"})
    made = (await kameng("supplier", "contact", "set", "sim-a", "on_duty", "--person", "-", "--hours", "24/7", stdin=person)).json
    assert (await kameng("supplier", "contact", "list", "sim-a")).json["items"][0]["person"]["phone"] == "13800138000"
    assert (await kameng("supplier", "contact", "set", "sim-a", "on_duty", "--person", "-", stdin="{}")).status == 2
    await kameng("supplier", "contact", "remove", "sim-a", made["id"])
    await kameng("supplier", "note", "add", "sim-a", "asked for a better price")
    assert (await kameng("supplier", "note", "list", "sim-a")).json["items"][0]["text"] == "asked for a better price"
    assert (await kameng("supplier", "ask-to-cancel", "ord_x", "att_x", "--reason", "late")).status == 2

    async with database.transaction() as tx:
        rows = await fetch(tx, "SELECT action, facts::text AS facts FROM audit_entries WHERE subject = 'channel:sim-a' ORDER BY entry_id")
    assert [r["action"] for r in rows] == [
        "channel.created", "channel.tried", "channel.wallet_terms_set", "supplier.document_added", "supplier.document_withdrawn",
        "supplier.contact_added", "supplier.contacts_read", "supplier.contact_removed", "supplier.note_added",
    ]  # fmt: skip
    assert not any(part in r["facts"] for r in rows for part in ("Wang", "13800138000", SECRET))
