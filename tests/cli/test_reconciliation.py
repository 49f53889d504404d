"""`kameng reconcile …` as an operator types it, over the same actions as the operator's API."""

import json
from pathlib import Path

from tests.cli.test_cli import Kameng, kameng

from kameng_api.kit.db import Database

__all__ = ["kameng"]

MAPPING = {"columns": {"at": "at", "amount": "amount", "kind": "kind", "line_id": "id", "reference": "ref"}, "kinds": {"C": "charge"}}


async def test_a_file_from_upload_to_a_break_that_two_people_close(kameng: Kameng, database: Database, tmp_path: Path) -> None:
    settings = json.dumps({"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": "0123456789abcdef-very-secret"})
    assert (await kameng("channel", "set", "sim-a", "A", "--adapter", "simulator", "-e", "test", "--settings", "-", stdin=settings)).status == 0
    mapping, file = tmp_path / "m.json", tmp_path / "s.csv"
    mapping.write_text(json.dumps(MAPPING))
    file.write_text("id,at,kind,ref,amount\nW1,2026-11-20 10:00:00,C,STRANGER1,-97.5\n")
    made = await kameng("reconcile", "source", "mail", "--channel", "sim-a", "--mapping", str(mapping), "--window-days", "0")
    assert made.status == 0, made.err
    assert (await kameng("reconcile", "source", "other", "--channel", "sim-a")).status == 2
    assert len((await kameng("reconcile", "sources")).json["items"]) == 1
    brought = await kameng("reconcile", "upload", "mail", "2026-11-20", str(file))
    assert brought.status == 0, brought.err
    assert (brought.json["state"], brought.json["rows_read"]) == ("read", 1)
    assert (await kameng("reconcile", "files", "--state", "read")).json["items"][0]["id"] == brought.json["id"]
    assert (await kameng("reconcile", "accept", brought.json["id"])).json["state"] == "accepted"
    ran = await kameng("reconcile", "run", "sim-a", "2026-11-20")
    assert (ran.status, ran.json["state"]) == (0, "done"), ran.err

    [found] = (await kameng("reconcile", "breaks")).json["items"]
    assert found["class"] == "R5"
    tokens = [(await kameng("operator", "create", name, "--role", "finance")).json["token"] for name in ("fang", "gao")]
    proposed = await kameng("reconcile", "propose", found["id"], "loss", "--note", "leaked", KAMENG_OPERATOR_TOKEN=tokens[0])
    assert proposed.json["proposed_by"] == "fang", proposed.err
    seen = found["id"], proposed.json["proposal"]
    assert (await kameng("reconcile", "approve", *seen, KAMENG_OPERATOR_TOKEN=tokens[0])).status == 2
    assert (await kameng("reconcile", "approve", found["id"], "0" * 16, KAMENG_OPERATOR_TOKEN=tokens[1])).status == 2
    assert (await kameng("reconcile", "approve", *seen, KAMENG_OPERATOR_TOKEN=tokens[1])).json["state"] == "closed"
    shown = (await kameng("reconcile", "show", found["id"])).json
    assert [step["step"] for step in shown["evidence"]["steps"]] == ["proposed", "approved"]
    assert (await kameng("reconcile", "report", "sim-a", "2026-11-20")).json["lines"] == 1
    out = tmp_path / "breaks.xlsx"
    assert (await kameng("reconcile", "breaks", "--out", str(out))).json["breaks"] == 1
    assert out.read_bytes()[:2] == b"PK"
    assert (await kameng("reconcile", "breaks", "--out", str(tmp_path / "x.txt"))).status == 2
    assert (await kameng("reconcile", "run", "nowhere", "2026-11-20")).status == 2
