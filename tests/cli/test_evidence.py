"""`kameng evidence`, `restore`, `book` and the doctor's lines about them, as an operator types and reads them."""

import json
from pathlib import Path

from tests.cli.test_cli import Kameng, kameng
from tests.conftest import _owner_connection
from tests.factories.counter import Counter

from kameng_api.embedded.servers import Servers
from kameng_api.evidence import actions
from kameng_api.evidence.anchors import FileTarget
from kameng_api.evidence.queries import find_head
from kameng_api.evidence.verify import Anchor
from kameng_api.jobs.evidence import signer_of
from kameng_api.kit.db import Database
from kameng_api.settings import Settings

__all__ = ["kameng"]


async def seal(counter: Counter, settings: Settings) -> None:
    async with counter.db.transaction() as tx:
        assert (await actions.seal(tx, counter.keyring, signer_of(settings, counter.keyring))).leaves


async def anchor(db: Database, file: Path) -> None:
    async with db.transaction() as tx:
        head = await find_head(tx)
    assert head is not None
    h = head.header
    FileTarget(file).put(Anchor(h.chain, h.no, h.epoch, h.total, head.hash), head.signature, head.key_id)


async def test_a_chain_is_exported_and_verified_and_a_changed_byte_or_row_is_status_1(
    kameng: Kameng, database: Database, settings: Settings, migrated: Servers, tmp_path: Path
) -> None:
    counter = await Counter.open(database, settings)
    assert (await kameng("evidence", "export", str(tmp_path / "e.gz"))).status == 2, "nothing is sealed yet"
    for n in range(2):
        await counter.order(f"PO-{n}")
        await seal(counter, settings)
    out, anchors = tmp_path / "e.gz", tmp_path / "anchors"
    await anchor(database, anchors)
    status = (await kameng("evidence", "status")).json
    assert (status["head"], status["anchors"]) == (2, [])
    told = (await kameng("evidence", "export", str(out))).json
    assert (told["first"], told["last"]) == (1, 2)
    proof = ("--anchors", str(anchors), "--key", status["public_key"])
    verified = (await kameng("evidence", "verify", str(out), *proof)).json
    assert (verified["well"], verified["leaves"], verified["anchored"], verified["notes"]) == (True, status["leaves"], 1, [])
    assert (await kameng("evidence", "check", *proof)).json["well"]
    assert (await kameng("evidence", "export", str(tmp_path / "part.gz"), "--to", "1")).json["last"] == 1
    assert (await kameng("evidence", "verify", str(tmp_path / "part.gz"), *proof)).status == 1, "its tail is cut"

    changed = bytearray(out.read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "changed.gz").write_bytes(changed)
    found = await kameng("evidence", "verify", str(tmp_path / "changed.gz"))
    assert found.status == 1 and '"well": false' in found.out
    assert (await kameng("evidence", "verify", str(tmp_path / "none.gz"))).status == 2
    assert (await kameng("evidence", "verify", str(out), "--key", "xyz")).status == 2
    owner = await _owner_connection(migrated.owner_url)
    await owner.execute("UPDATE transfers SET amount = amount + 1 WHERE kind = 'hold'")
    await owner.close()
    assert (await kameng("evidence", "check", *proof)).status == 1


async def test_a_restore_is_begun_watched_and_ended_and_the_doctor_names_it(kameng: Kameng, database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    await counter.order("PO-1")
    assert (await kameng("restore", "status")).json == {"standing": "well"}
    assert (await kameng("restore", "end", "--reconciled")).status == 2
    begun = (await kameng("restore", "begin")).json
    assert (begun["open_orders"], begun["restore"][:4]) == (1, "rst_")
    assert (await kameng("restore", "begin")).status == 2
    seen = (await kameng("restore", "status")).json
    assert (seen["standing"], seen["orders"], seen["lost_purchases"]) == ("holding", {"waiting": 1}, 0)
    assert (await kameng("restore", "losses")).json == {"items": []}
    assert "OPEN" in await line(kameng, "restore", well=False)
    assert (await kameng("restore", "end")).status == 2, "the statements come first"
    assert (await kameng("restore", "end", "--reconciled")).status == 2, "it is still asked about"
    ended = (await kameng("restore", "end", "--reconciled", "--whatever")).json
    assert (ended["was_waiting"], ended["sent_to_review"]) == (1, 1)
    assert await line(kameng, "restore", well=True) == "none is open"


async def test_a_book_is_stopped_by_hand_and_two_people_lift_it(kameng: Kameng) -> None:
    await kameng("merchant", "create", "shop")
    assert (await kameng("book", "stop", "16", "--note", "odd refunds")).json["invariant"] == "by_hand"
    assert (await kameng("book", "stop", "16", "--note", "again")).status == 2
    assert (await kameng("book", "stop", "9999", "--note", "no such book")).status == 2
    assert "book 16 since" in await line(kameng, "stopped books", well=False)
    tokens = [(await kameng("operator", "create", name, "--role", "finance")).json["token"] for name in ("fang", "gao")]
    support = (await kameng("operator", "create", "su", "--role", "support")).json["token"]
    assert (await kameng("book", "lift", "16", "--note", "n", KAMENG_OPERATOR_TOKEN=support)).status == 2
    for _ in range(2):
        asked = (await kameng("book", "lift", "16", "--note", "counted", KAMENG_OPERATOR_TOKEN=tokens[0])).json
        assert (asked["lift_asked_by"], asked["lifted_by"]) == ("fang", None)
    assert (await kameng("book", "lift", "16", "--note", "agreed", KAMENG_OPERATOR_TOKEN=tokens[1])).json["lifted_by"] == "gao"
    assert (await kameng("book", "stopped")).json == {"items": []}
    assert len((await kameng("book", "stopped", "--all")).json["items"]) == 1
    assert await line(kameng, "stopped books", well=True) == "none"


async def test_the_doctor_names_the_monitor_that_a_changed_row_breaks(
    kameng: Kameng, database: Database, settings: Settings, migrated: Servers
) -> None:
    counter = await Counter.open(database, settings)
    await counter.order("PO-1")
    assert await line(kameng, "M2 balances are the sums of their transfers, running balances chain, versions are dense", well=True) == "holds"
    owner = await _owner_connection(migrated.owner_url)
    await owner.execute("UPDATE accounts SET balance = balance + 5 WHERE account = 'merchant_available' AND book_id = $1", counter.book_id)
    await owner.execute("UPDATE transfers SET created_at = now() - interval '2 minutes'")
    await owner.close()
    for whole in ((), ("--whole",)):
        found = {f["check"][:2]: f for f in (await doctor(kameng, *whole)) if f["check"][:1] == "M"}
        assert f"book {counter.book_id}: balance_is_sum" in found["M2"]["detail"]
        assert "chain 0: events wait since" in found["M8"]["detail"] or "roll-up" in found["M8"]["detail"]
        assert found["M3"]["well"] and found["M4"]["well"]


async def doctor(kameng: Kameng, *more: str) -> list[dict[str, str]]:
    ended = await kameng("doctor", *more)
    items: list[dict[str, str]] = json.loads(ended.out)["items"]
    assert ended.status == int(not all(f["well"] for f in items))
    return items


async def line(kameng: Kameng, check: str, *, well: bool) -> str:
    """The doctor's words about one thing."""
    [found] = [f for f in await doctor(kameng) if f["check"] == check]
    assert found["well"] is well, found
    return found["detail"]
