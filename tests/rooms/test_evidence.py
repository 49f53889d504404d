"""The chain over a real database: every committed event once, none early, and whatever is changed afterwards is found."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.conftest import _owner_connection
from tests.factories.counter import Counter, shop
from tests.factories.merchants import keyring_of

from kameng_api.embedded.servers import Servers
from kameng_api.evidence import actions, queries
from kameng_api.evidence.checks import check
from kameng_api.evidence.export import export
from kameng_api.evidence.rules import commitment, shown_salt
from kameng_api.evidence.signer import Signer, load_signer
from kameng_api.evidence.verify import Anchor, NotWhole, Reader, Report, verify
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.orders.choices import Surroundings
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Code, Delivered, RefusalReason, Refused, Scope

SIGNER = load_signer(None, bytes(range(32)))
CODE = Code("SECRET-CODE-4711", "PIN-4712")


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


@pytest.fixture
async def superuser(migrated: Servers) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The owner of the tables: whom no grant holds back."""
    connection = await _owner_connection(migrated.owner_url)
    yield connection
    await connection.close()


async def seal(counter: Counter, signer: Signer = SIGNER, **more: Any) -> int:
    """Everything that can be sealed now."""
    sealed = 0
    while True:
        async with counter.db.transaction() as tx:
            round_ = await actions.seal(tx, counter.keyring, signer, **more)
        sealed += round_.leaves
        if not round_.more:
            return sealed


async def some_business(counter: Counter) -> None:
    _, topup = await counter.buy("PO-topup")
    await counter.told(topup, Delivered(1, 910_000, "S-1", receipt="R-77"))
    _, card = await counter.buy("PO-card", sku="card")
    await counter.told(card, Delivered(1, 900_000, "S-2", codes=(CODE,)))
    _, bad = await counter.buy("PO-bad")
    await counter.told(bad, Refused(Scope.ORDER, RefusalReason.TARGET_INVALID))


async def events_in_books(db: Database) -> set[tuple[int, str]]:
    async with db.transaction() as tx:
        return {(r["book_id"], r["event_key"]) for r in await fetch(tx, "SELECT DISTINCT book_id, event_key FROM transfers")}


async def sealed_events(db: Database) -> list[tuple[int, str]]:
    async with db.transaction() as tx:
        return [event.key async for _, events, _ in queries.each_block(tx, 1, 1 << 60) for event in events]


async def checked(counter: Counter, **more: Any) -> Report:
    async with counter.db.transaction() as tx:
        return await check(tx, counter.keyring, **more)


async def exported(counter: Counter, path: Path, **more: Any) -> Path:
    async with counter.db.transaction() as tx:
        await export(tx, path, **more)
    return path


async def anchor_of_head(db: Database) -> Anchor:
    async with db.transaction() as tx:
        head = await queries.find_head(tx)
    assert head is not None
    return Anchor(0, head.header.no, head.header.epoch, head.header.total, head.hash)


async def test_every_event_is_sealed_once_and_the_export_proves_it(counter: Counter, tmp_path: Path) -> None:
    await seal(counter, most_rows=2)
    await some_business(counter)
    await seal(counter, most_rows=2)
    sealed = await sealed_events(counter.db)
    assert len(sealed) == len(set(sealed)) and set(sealed) == await events_in_books(counter.db)
    report = verify(await exported(counter, tmp_path / "e.gz"), [await anchor_of_head(counter.db)], [SIGNER.public_key])
    assert report.troubles == [] and report.leaves == len(sealed) and report.anchored == 1 and report.blocks > 3
    assert (await checked(counter)).troubles == []
    assert await seal(counter) == 0


async def test_the_salt_that_a_merchant_is_shown_does_not_open_the_suppliers_number(counter: Counter) -> None:
    await some_business(counter)
    await seal(counter)
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT facts, salt FROM chain_facts WHERE event_key LIKE 'order:%'")
    opened = 0
    for facts, salt in ((orjson.loads(r["facts"]), r["salt"]) for r in rows):
        shown = shown_salt(salt)
        for delivery in facts["deliveries"]:
            number = delivery["supplier_order_no"]
            assert number in {commitment(salt, "supplier_order_no", s) for s in (b"S-1", b"S-2")}
            assert number not in {commitment(shown, "supplier_order_no", s) for s in (b"S-1", b"S-2")}
            opened += 1
        assert facts["order"]["receipt"] in (None, commitment(shown, "receipt", b"R-77"))
    assert opened == 2


async def test_a_leaf_tells_the_delivery_but_no_secret(counter: Counter, tmp_path: Path) -> None:
    await some_business(counter)
    await seal(counter)
    text = zlib.decompress((await exported(counter, tmp_path / "e.gz")).read_bytes(), wbits=31)
    for secret in (b"SECRET-CODE-4711", b"PIN-4712", b"13800138000", b"R-77"):
        assert secret not in text
    facts = [leaf["facts"] for leaf in map(orjson.loads, text.splitlines()) if leaf.get("facts")]
    attempts = [a for f in facts for a in f.get("attempts", ())]
    assert {a["supplier_order_no"] for a in attempts} == {"S-1", "S-2", None}
    assert all(a["answer"]["stored_sha256"] for a in attempts)
    assert [len(a["codes"]) for a in attempts if a["supplier_order_no"] == "S-2"] == [1]
    assert {f["order"]["status"] for f in facts if "order" in f} == {"succeeded", "failed"}


async def test_what_a_supplier_gives_for_nothing_is_told_with_the_orders_end(counter: Counter) -> None:
    counter.around = Surroundings(shop(costs={"a": 0}))
    order, bought = await counter.buy("PO-free")
    await counter.told(bought, Delivered(1, 0, "S-free"))
    await seal(counter)
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT facts FROM chain_facts WHERE order_id = $1", order.order_id)
    assert [(d["delivered"], d["answer"]["outcome"]) for d in orjson.loads(row["facts"])["deliveries"]] == [(1, "delivered")]


async def test_a_transaction_that_stays_open_holds_back_what_came_after_it(counter: Counter) -> None:
    await seal(counter)
    async with counter.db.transaction() as slow:
        await execute(slow, "SELECT pg_current_xact_id()")
        await counter.order("PO-late")
        assert await seal(counter) == 0  # nothing early
        async with counter.db.transaction() as tx:
            assert (await queries.lag_of(tx, [])).seal_s > 0
        await execute(slow, "INSERT INTO books (book_id, environment, merchant_id) VALUES (4711, 'test', $1)", new_ulid())
        await execute(
            slow,
            """INSERT INTO transfers (book_id, event_key, line, kind, debit_account, credit_account, currency, amount)
            VALUES (4711, 'x:1', 0, 'x', 'a', 'b', 'CNY', 1)""",
        )
    await seal(counter)
    sealed = await sealed_events(counter.db)
    assert set(sealed) == await events_in_books(counter.db) and (4711, "x:1") in sealed and len(set(sealed)) == len(sealed)


async def test_two_sealers_and_busy_merchants_leave_one_whole_chain(counter: Counter) -> None:
    done = asyncio.Event()

    async def sealer() -> None:
        while not done.is_set():
            async with counter.db.transaction() as tx:
                await actions.seal(tx, counter.keyring, SIGNER, most_rows=3)
            await asyncio.sleep(0)

    async def merchant(n: int) -> None:
        for i in range(8):
            await counter.order(f"PO-{n}-{i}")

    sealers = [asyncio.create_task(sealer()) for _ in range(2)]
    await asyncio.gather(*(merchant(n) for n in range(4)))
    done.set()
    await asyncio.gather(*sealers)
    await seal(counter)
    sealed = await sealed_events(counter.db)
    assert len(sealed) == len(set(sealed)) and set(sealed) == await events_in_books(counter.db)
    assert (await checked(counter)).troubles == []


async def test_making_a_block_holds_nobody_s_horizon_back(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merchants are told of what is below the horizon, and a transaction with an id would stop it for as long as a block is made."""
    await counter.order("PO-1")
    await seal(counter)
    await counter.order("PO-2")
    facts_of, seen = actions.facts_of, list[bool]()

    async def watched(tx: Any, *given: Any) -> Any:
        found = await facts_of(tx, *given)
        seen.append((await fetch(tx, "SELECT pg_current_xact_id_if_assigned() IS NULL AS free"))[0]["free"])
        return found

    monkeypatch.setattr(actions, "facts_of", watched)
    await seal(counter)
    assert seen == [True]


async def test_a_round_that_a_restore_overtook_seals_nothing(counter: Counter, superuser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await counter.order("PO-1")
    await seal(counter)
    before = await sealed_events(counter.db)
    await counter.order("PO-2")
    facts_of = actions.facts_of

    async def overtaken(*given: Any) -> Any:
        await superuser.execute("UPDATE chain_state SET epoch = epoch + 1")
        return await facts_of(*given)

    monkeypatch.setattr(actions, "facts_of", overtaken)
    async with counter.db.transaction() as tx:
        assert (await actions.seal(tx, counter.keyring, SIGNER)).leaves == 0
    assert await sealed_events(counter.db) == before


async def test_a_sealer_that_dies_before_its_commit_leaves_nothing(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement of a round is the last one once: the connection is lost there, as with kill -9."""
    await some_business(counter)
    before = await events_in_books(counter.db)
    statement = 0
    for dies_at in range(1, 40):
        statement = 0

        async def dying(real: Any, tx: Any, sql: str, *values: Any, dies_at: int = dies_at) -> Any:
            nonlocal statement
            statement += 1
            found = await real(tx, sql, *values)
            if statement == dies_at:
                raise ConnectionError("killed")
            return found

        with monkeypatch.context() as patch:
            for module in ("actions", "queries", "facts"):
                for name, real in (("fetch", fetch), ("execute", execute)):
                    patch.setattr(
                        f"kameng_api.evidence.{module}.{name}", lambda *a, real=real: dying(real, *a), raising=False
                    )
            try:
                async with counter.db.transaction() as tx:
                    await actions.seal(tx, counter.keyring, SIGNER)
                break
            except Exception:
                async with counter.db.transaction() as tx:
                    assert await queries.find_head(tx) is None
    assert dies_at > 8
    await seal(counter)
    assert set(await sealed_events(counter.db)) == before
    assert (await checked(counter)).troubles == []


async def test_any_single_changed_byte_and_any_cut_tail_is_found(counter: Counter, tmp_path: Path) -> None:
    await seal(counter)
    _, card = await counter.buy("PO-card", sku="card")
    await counter.told(card, Delivered(1, 900_000, "S-2", codes=(CODE,)))
    await seal(counter, most_rows=3)
    path = await exported(counter, tmp_path / "e.gz")
    whole, anchors, keys = path.read_bytes(), [await anchor_of_head(counter.db)], [SIGNER.public_key]
    assert verify(path, anchors, keys).well
    for pinned in ([], keys):
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            assert not verify(path, [], pinned).well, place
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not verify(path).well, length


async def test_a_change_inside_is_found_whatever_is_wrapped_around_it(counter: Counter, tmp_path: Path) -> None:
    """Whoever changes an export can wrap it anew; then the lines speak. Every byte of every line, wrapped as a genuine export is."""
    await counter.buy("PO-1")
    await seal(counter)
    path = await exported(counter, tmp_path / "e.gz")
    text = zlib.decompress(path.read_bytes(), wbits=31)

    def found(changed: bytes) -> bool:
        report = Report()
        reader = Reader(report, [], [SIGNER.public_key])
        try:
            for line in changed.split(b"\n")[:-1] if changed.endswith(b"\n") else [b""]:
                reader.take(line)
            reader.finish()
        except NotWhole:
            return True
        return not report.well

    assert not found(text)
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1 << place % 7
        assert found(bytes(changed)), (place, text[max(0, place - 30) : place + 30])


async def test_a_tail_cut_with_a_new_end_is_defeated_by_the_anchor(counter: Counter, tmp_path: Path) -> None:
    await seal(counter)
    await some_business(counter)
    await seal(counter, most_rows=3)
    anchor = await anchor_of_head(counter.db)
    shorter = await exported(counter, tmp_path / "short.gz", last=anchor.no - 1)
    assert verify(shorter, [], [SIGNER.public_key]).well
    assert "cut" in " ".join(verify(shorter, [anchor], [SIGNER.public_key]).troubles)
    part = verify(await exported(counter, tmp_path / "part.gz", first=2), [anchor], [SIGNER.public_key])
    assert part.well and "part" in " ".join(part.notes)
    assert not verify(shorter, [], [load_signer(None, bytes(32)).public_key]).well


TAMPERINGS = {
    "amount": "UPDATE transfers SET amount = amount + 1 WHERE event_key LIKE 'play%'",
    "note": "UPDATE transfers SET note = 'x' WHERE event_key LIKE '%hold'",
    "when": "UPDATE transfers SET created_at = created_at - interval '1 microsecond' WHERE event_key LIKE '%:hold'",
    "gone": "DELETE FROM transfers WHERE event_key LIKE '%:final'",
    "more": """INSERT INTO transfers (book_id, event_key, line, kind, debit_account, credit_account, currency, amount, xid)
        SELECT book_id, 'fund:bank:forged', 0, kind, debit_account, credit_account, currency, amount, xid FROM transfers LIMIT 1""",
    "moved": "UPDATE transfers SET book_id = 2 WHERE event_key LIKE '%:final'",
    "facts": """UPDATE chain_facts SET facts = convert_to(replace(convert_from(facts, 'UTF8'), 'S-1', 'S-9'), 'UTF8')
        WHERE convert_from(facts, 'UTF8') LIKE '%S-1%'""",
    "order": "UPDATE orders SET merchant_order_no = 'PO-other' WHERE merchant_order_no = 'PO-topup'",
    "attempt": "UPDATE attempts SET supplier_order_no = 'S-9' WHERE supplier_order_no = 'S-1'",
    "answer": "UPDATE supplier_answers SET raw_sealed = raw_sealed || '\\x00' WHERE outcome = 'delivered'",
    "code": "UPDATE codes SET sealed = sealed || '\\x00'",
    "leaves": "UPDATE chain_blocks SET leaves = overlay(leaves PLACING '\\x00ff00' FROM 5) WHERE no = 1",
    "block": "UPDATE chain_blocks SET total = total + 1 WHERE no = 2",
    "head": "DELETE FROM chain_blocks WHERE no = (SELECT max(no) FROM chain_blocks)",
}


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_a_row_changed_by_the_owner_of_the_tables_is_found(
    counter: Counter, superuser: "asyncpg.Connection[asyncpg.Record]", what: str
) -> None:
    await seal(counter)
    await some_business(counter)
    await seal(counter, most_rows=6)
    anchor = await anchor_of_head(counter.db)
    assert (await checked(counter, anchors=[anchor], pinned=[SIGNER.public_key])).troubles == []
    assert await superuser.execute(TAMPERINGS[what]) not in ("UPDATE 0", "DELETE 0", "INSERT 0 0")
    assert (await checked(counter, anchors=[anchor], pinned=[SIGNER.public_key])).troubles


async def test_a_chain_made_anew_by_the_owner_is_found_by_key_and_anchor(
    counter: Counter, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await some_business(counter)
    await seal(counter)
    anchor = await anchor_of_head(counter.db)
    await superuser.execute("UPDATE transfers SET amount = amount + 1 WHERE event_key LIKE 'play%'")
    await superuser.execute("TRUNCATE chain_blocks, chain_facts, chain_state")
    await seal(counter, load_signer(None, bytes(32)))
    assert not (await checked(counter, pinned=[SIGNER.public_key])).well
    assert not (await checked(counter, anchors=[anchor])).well


async def test_a_new_key_goes_on_where_the_old_one_ended(counter: Counter, tmp_path: Path) -> None:
    """By a key file of the kind that the documentation makes; what the old key signed stays as good as it was."""
    file = tmp_path / "head.pem"
    key = Ed25519PrivateKey.generate()
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    new = load_signer(file, bytes(32))
    assert new.public_key == key.public_key().public_bytes_raw()
    await seal(counter)
    await some_business(counter)
    await seal(counter, new)
    out = await exported(counter, tmp_path / "e.gz")
    assert verify(out, pinned=[SIGNER.public_key, new.public_key]).troubles == []
    assert (await checked(counter, pinned=[SIGNER.public_key, new.public_key])).troubles == []
    for one, blocks in ((SIGNER, "block 2"), (new, "block 1")):  # a key that is not trusted any more, or not yet
        [trouble] = verify(out, pinned=[one.public_key]).troubles
        assert trouble.startswith(f"{blocks} is not signed")
    async with counter.db.transaction() as tx:
        assert await queries.public_keys(tx) == {SIGNER.key_id: SIGNER.public_key, new.key_id: new.public_key}


async def test_what_is_pruned_or_erased_by_rule_is_not_missed(
    counter: Counter, superuser: "asyncpg.Connection[asyncpg.Record]", tmp_path: Path
) -> None:
    await some_business(counter)
    await seal(counter)
    await superuser.execute("DELETE FROM supplier_answers")
    await superuser.execute("DELETE FROM codes")
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT book_id, order_id FROM orders WHERE merchant_order_no = 'PO-card'")
        assert await actions.forget(tx, row["book_id"], row["order_id"]) == 2
    assert (await checked(counter)).troubles == []
    assert verify(await exported(counter, tmp_path / "e.gz")).well


async def test_the_application_cannot_change_what_it_sealed(counter: Counter) -> None:
    await some_business(counter)
    await seal(counter)
    for sql in ("UPDATE chain_blocks SET no = 9", "DELETE FROM chain_blocks", "UPDATE chain_facts SET facts = ''", "DELETE FROM chain_anchors"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with counter.db.transaction() as tx:
                await execute(tx, sql)


def test_the_keyring_makes_the_key_where_no_file_is_named(settings: Settings, tmp_path: Path) -> None:
    one, two = (load_signer(None, keyring_of(settings).derive("evidence-signing")) for _ in range(2))
    assert one.public_key == two.public_key and one.key_id.startswith("ek_")
