"""A database put back to an older point: nothing is bought twice, and what was lost is listed. By the simulator's own delivery log."""

import os
import shutil
import subprocess
import tempfile
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr
from tests.factories.counter import Counter
from tests.factories.shop import open_desk
from tests.factories.workshop import log_of, open_counter, order_many, settled
from tests.simulator.conftest import Simulator

from kameng_api.catalog import queries as catalog
from kameng_api.embedded import places, postgres, servers
from kameng_api.embedded.servers import Servers
from kameng_api.evidence import restores
from kameng_api.evidence.checks import check
from kameng_api.evidence.restores import Standing
from kameng_api.jobs import evidence as evidence_jobs
from kameng_api.jobs import reconciliation as reconciliation_jobs
from kameng_api.jobs import restores as restore_jobs
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import StateConflict
from kameng_api.orders.rules import Order
from kameng_api.reconciliation import invariants, sources
from kameng_api.reconciliation import queries as breaks_of
from kameng_api.reconciliation.sources import SourceWanted
from kameng_api.settings import Settings
from kameng_api.statements import actions as statements
from kameng_api.webhooks import actions as webhooks

pytestmark = pytest.mark.slow

CHINA = ZoneInfo("Asia/Shanghai")
SMALL = {"shared_buffers": "32MB", "max_wal_size": "64MB"}


class House:
    """A PostgreSQL with a migrated, empty database at first, and another one after `restore`."""

    def __init__(self, folder: Path, found: Servers, shared: Settings) -> None:
        self.folder, self.found, self.shared = folder, found, shared

    @property
    def settings(self) -> Settings:
        return self.shared.model_copy(
            update={"database_url": SecretStr(self.found.app_url), "database_owner_url": SecretStr(self.found.owner_url), "anchor_file": self.anchors}
        )

    @property
    def anchors(self) -> Path:
        return self.folder / "anchors.jsonl"

    @property
    def ground(self) -> Any:
        ground = places.recall(self.found.var)
        assert ground is not None
        return ground

    def program(self, name: str, *arguments: str, user: str = postgres.OWNER) -> None:
        """One of PostgreSQL's own programs, as the embedded server's wheel brings it."""
        password = {postgres.OWNER: self.ground.record.owner_password, "postgres": self.ground.record.superuser_password}[user]
        where = ["-h", str(self.ground.sockets), "-p", "5432", "-U", user]
        subprocess.run([self.ground.postgres_bin / name, *where, *arguments], check=True, env={**os.environ, "PGPASSWORD": password})

    def sql(self, *statements: str, database: str = postgres.DATABASE) -> None:
        self.program("psql", "-X", "-q", "-d", database, *(a for s in statements for a in ("-c", s)), user="postgres")

    def dump(self) -> None:
        self.program("pg_dump", "-Fc", "-Z", "0", "-f", str(self.folder / "dump"), postgres.DATABASE)

    def fill(self) -> None:
        """The dump into a database made anew."""
        again = f"CREATE DATABASE {postgres.DATABASE} OWNER {postgres.OWNER} TEMPLATE template0"
        self.sql(f"DROP DATABASE {postgres.DATABASE} WITH (FORCE)", again, database="postgres")
        self.program("pg_restore", "-d", postgres.DATABASE, "--exit-on-error", str(self.folder / "dump"))

    def backup(self) -> None:
        raise NotImplementedError

    def restore(self) -> None:
        raise NotImplementedError


class Dumped(House):
    """`pg_dump` of the tests' own server, and `pg_restore` into a spare one, which counts transactions from its own beginning."""

    spare: Servers

    def backup(self) -> None:
        self.dump()

    def restore(self) -> None:
        self.found = self.spare
        self.fill()


class Archived(House):
    """A base backup with archived WAL, recovered to the named point of the backup: a new timeline of the same server."""

    def move_in(self) -> None:
        """Into a server of its own that archives."""
        self.dump()
        archive = self.folder / "archive"
        archive.mkdir()
        archive.chmod(0o777)
        archiving = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f", "wal_level": "replica"}
        self.found = servers.start(self.folder / "var", redis=False, settings=SMALL | archiving)
        self.fill()

    def backup(self) -> None:
        """The low-level way, which needs no replication connection."""
        data = places.data_folder(self.ground.place)
        script = self.folder / "backup.sql"
        script.write_text(
            "SELECT pg_backup_start('test', true);\n"
            f"\\! cp -a {data} {self.folder}/base\n"
            f"SELECT labelfile FROM pg_backup_stop() \\g (tuples_only=on format=unaligned) {self.folder}/label\n"
            "SELECT pg_create_restore_point('backup');\nSELECT pg_switch_wal();\n"
        )
        self.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", postgres.DATABASE, "-f", str(script), user="postgres")

    def restore(self) -> None:
        data, base = places.data_folder(self.ground.place), self.folder / "base"
        owner = data.stat()
        self.sql("SELECT pg_switch_wal()")
        servers.stop(self.folder / "var")
        shutil.rmtree(data)
        base.rename(data)
        for leftover in ("postmaster.pid", "pg_wal"):
            path = data / leftover
            if path.is_dir():
                shutil.rmtree(path)
                path.mkdir()
            else:
                path.unlink(missing_ok=True)
        (data / "backup_label").write_text((self.folder / "label").read_text())
        (data / "recovery.signal").touch()
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        data.chmod(0o700)
        archive = self.folder / "archive"
        recovering = {"restore_command": f"cp {archive}/%f %p", "recovery_target_name": "backup", "recovery_target_action": "promote"}
        self.found = servers.start(self.folder / "var", redis=False, settings=SMALL | recovering)
        # It answers readers before it is promoted.
        self.sql("DO $$ BEGIN FOR i IN 1..600 LOOP EXIT WHEN NOT pg_is_in_recovery(); PERFORM pg_sleep(0.1); END LOOP; END $$")


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """Not pytest's own folder: every pytest that starts on this machine closes it to the account that root lends to servers."""
    with tempfile.TemporaryDirectory(prefix="kameng-house-", dir=os.environ.get("KAMENG_TEST_VAR"), ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)  # the server's account copies its log into the archive
        try:
            yield Path(folder)
        finally:
            if (Path(folder) / "var").exists():
                servers.remove(Path(folder) / "var")


@pytest.fixture(scope="module")
def spare() -> Iterator[Servers]:
    """A second server for all tests here: younger than the first, so that its transaction ids are smaller."""
    with folder_for_servers() as folder:
        yield servers.start(folder / "var", redis=False, settings=SMALL)


@pytest.fixture
def dumped(database: Database, migrated: Servers, settings: Settings, spare: Servers) -> Iterator[Dumped]:
    with folder_for_servers() as folder:
        house = Dumped(folder, migrated, settings)
        house.spare = spare
        yield house


@pytest.fixture
def archived(database: Database, migrated: Servers, settings: Settings) -> Iterator[Archived]:
    with folder_for_servers() as folder:
        house = Archived(folder, migrated, settings)
        house.move_in()
        yield house


@pytest.fixture(params=["dumped", "archived"], ids=["pg_dump", "base backup and WAL"])
def house(request: pytest.FixtureRequest) -> House:
    found: House = request.getfixturevalue(request.param)
    return found


async def counter_in(house: House, simulator: Simulator) -> Counter:
    return await open_counter(Database(house.found.app_url, pool_size=10), house.settings, simulator)


async def turn(desk: Desk, *, times: int = 1) -> None:
    for _ in range(times):
        await desk.buyer.look_up(500)
        await settled(desk)
        if desk.standing.current is Standing.WELL:
            await desk.buyer.submit(500)
            await settled(desk)


async def delivered(simulator: Simulator) -> "Tally[str]":
    return Tally(row["reference"] for row in await log_of(simulator, "deliveries"))


async def state_of(db: Database) -> dict[str, int]:
    async with db.transaction() as tx:
        open_ = await restores.find_open(tx)
        return {} if open_ is None else await restores.states(tx, open_["restore_id"])


async def begin(house: House) -> restores.Begun:
    owner = Database(house.found.owner_url, pool_size=1)
    try:
        async with owner.transaction() as tx:
            return await restores.begin(tx, "test")
    finally:
        await owner.close()


async def test_nothing_is_bought_twice_and_the_lost_are_listed(house: House, simulator: Simulator) -> None:
    counter = await counter_in(house, simulator)
    # An old server: its transaction ids are far beyond those that a new one begins with. Its merchant's first day is over and not cut yet.
    house.sql("DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
              "UPDATE merchants SET created_at = now() - interval '1 day'")  # fmt: skip
    async with counter.db.transaction() as tx:
        assert await statements.mark_ends(tx, 10) == 1
    foreign = set(await delivered(simulator))  # what this supplier has of the tests before
    before = await order_many(counter, 2)
    async with open_desk(house.settings) as desk:
        await turn(desk)
        assert all([(await counter.now(o)).final for o in before])
        await evidence_jobs.seal(desk)
        await evidence_jobs.anchor(desk)
    kept = [placed.order for placed in await counter.place(*(counter.ask(f"KEPT-{i}", sku="mobile-cn-100") for i in range(2)))]  # type: ignore[union-attr]
    house.backup()
    # After the backup: the open orders are delivered, and others are placed and delivered.
    lost = [placed.order for placed in await counter.place(*(counter.ask(f"LOST-{i}", sku="mobile-cn-100") for i in range(2)))]  # type: ignore[union-attr]
    async with open_desk(house.settings) as desk:
        await turn(desk)
        assert all([(await counter.now(o)).final for o in (*kept, *lost)])
        await evidence_jobs.seal(desk)
    sold = await delivered(simulator)
    bought = {a.reference for o in (*kept, *lost) for a in await counter.attempts(o)}
    assert all(sold[reference] == 1 for reference in bought)
    await counter.db.close()
    house.restore()

    counter.db = Database(house.found.app_url, pool_size=10)
    async with counter.db.transaction() as tx:
        assert await restores.find_standing(tx) is Standing.MOVED
    with pytest.raises(RuntimeError, match="restore begin"):
        async with open_desk(house.settings):
            pass
    begun = await begin(house)
    assert begun.open_orders == 2 and (begun.xid_shift > 0) == isinstance(house, Dumped)
    with pytest.raises(StateConflict):
        await begin(house)

    async with open_desk(house.settings) as desk:
        assert desk.standing.current is Standing.HOLDING
        again = await counter.order("LOST-0", sku="mobile-cn-100")  # its merchant cannot know; accepted, and it waits
        for _ in range(3):
            await restore_jobs.look_into_restored(desk)
            await later(counter.db)
            await turn(desk)
        assert [(await counter.now(o)).status for o in kept] == ["succeeded"] * 2
        assert (await counter.now(again)).status == "accepted"
        assert await restore_jobs.read_losses(desk) == 2 + len(foreign)
        ours = {a.reference for o in (*before, *kept) for a in await counter.attempts(o)}
        async with counter.db.transaction() as tx:
            assert {r["reference"] for r in await restores.list_losses(tx, begun.restore_id)} - foreign == bought - ours
        assert await charged_for_what_we_never_asked(desk) - foreign == bought - ours
        await later(counter.db)
        await restore_jobs.look_into_restored(desk)
        assert await state_of(counter.db) == {"final": 2}
        assert await delivered(simulator) == sold
        async with counter.db.transaction() as tx:
            assert (await restores.end(tx, counter.keyring, "test"))["losses"] == 2 + len(foreign)
        await desk.standing.refresh()
        assert desk.standing.current is Standing.WELL
        assert (await counter.now(again)).substatus == "manual_review"
        await turn(desk)
        assert await delivered(simulator) == sold
        await goes_on(house, counter, desk, simulator)


async def charged_for_what_we_never_asked(desk: Desk) -> set[str]:
    """References of the breaks R5 once today's statement has been read and compared."""
    day = datetime.now(CHINA).date()
    async with desk.db.transaction() as tx:
        source = await sources.put_source(tx, SourceWanted("sim-a", "sim-a", "fetch", lag_s=600, window_days=0, complete=True))
        channel = await catalog.get_channel(tx, "sim-a")
    await reconciliation_jobs.fetch_day(desk, channel, source, day, "fang")
    await reconciliation_jobs.land_files(desk)
    await reconciliation_jobs.compare_day(desk.db, "sim-a", day, "Asia/Shanghai", "CNY", "fang")
    async with desk.db.transaction() as tx:
        found = await breaks_of.list_breaks(tx, limit=1000, class_="R5", state="open")
    assert all(b.evidence["carries_our_reference"] for b in found)
    return {b.evidence["name"] for b in found}


async def later(db: Database) -> None:
    """As if hours had passed, so that "not found" may be believed and chores run again."""
    async with db.transaction() as tx:
        await execute(tx, "UPDATE restored_orders SET first_asked_at = first_asked_at - interval '1 hour'")
        await execute(tx, "UPDATE chores SET ran_at = ran_at - interval '1 hour'")


async def goes_on(house: House, counter: Counter, desk: Desk, simulator: Simulator) -> None:
    """Sealing, fan-out and roll-up run on behind the old marks; the chain names its restore; new orders are bought."""
    order = await counter.order("NEW-1", sku="mobile-cn-100")
    await turn(desk)
    assert (await counter.now(order)).status == "succeeded"
    await evidence_jobs.seal(desk)
    async with counter.db.transaction() as tx:
        report = await check(tx, counter.keyring)
        assert report.troubles == [] and any("restored" in note for note in report.notes)
        [row] = await fetch(tx, "SELECT count(DISTINCT (book_id, event_key)) AS n FROM transfers")
        assert report.leaves == row["n"]
        assert await invariants.check_all(tx) == []
    async with counter.db.transaction() as tx:  # marked before the backup, and by now no transaction of then can be open
        assert await statements.cut_days(tx, 10) == 2
    for _ in range(20):
        async with counter.db.transaction() as tx:
            await webhooks.fan_out(tx, 1000)
    async with counter.db.transaction() as tx:
        [left] = await fetch(tx, "SELECT count(*) AS n FROM events WHERE xid >= (SELECT upto_xid FROM fanout_marks)")
    assert left["n"] == 0
    await later(counter.db)
    assert await evidence_jobs.anchor(desk) == 1  # a new epoch follows the anchored one


async def test_an_order_of_which_no_supplier_knows_is_bought_once_when_the_restore_ends(dumped: Dumped, simulator: Simulator) -> None:
    house: House = dumped
    counter = await counter_in(house, simulator)
    order: Order = await counter.order("OPEN-1", sku="mobile-cn-100")
    async with open_desk(house.settings) as desk:
        await desk.standing.refresh()
    house.backup()
    await counter.db.close()
    house.restore()
    counter.db = Database(house.found.app_url, pool_size=10)
    await begin(house)
    async with open_desk(house.settings) as desk:
        await restore_jobs.look_into_restored(desk)
        assert await state_of(counter.db) == {"waiting": 1}  # asked once: not yet a proof
        async with counter.db.transaction() as tx:
            with pytest.raises(StateConflict):
                await restores.end(tx, counter.keyring, "test")
        async with counter.db.transaction() as tx:
            await execute(tx, "UPDATE restored_orders SET first_asked_at = now() - interval '1 hour'")
        owner = Database(house.found.owner_url, pool_size=1)
        async with owner.transaction() as tx:
            await execute(tx, "UPDATE restores SET begun_at = begun_at - interval '2 hours'")
        await owner.close()
        await later(counter.db)
        await restore_jobs.look_into_restored(desk)
        assert await state_of(counter.db) == {"free": 1}
        async with counter.db.transaction() as tx:
            await restores.end(tx, counter.keyring, "test")
        await desk.standing.refresh()
        await turn(desk)
    assert (await counter.now(order)).status == "succeeded"
    [attempt] = await counter.attempts(order)
    assert (await delivered(simulator))[attempt.reference] == 1
