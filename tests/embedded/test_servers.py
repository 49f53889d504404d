"""The embedded servers are the default of every fresh clone: they must come up, come back and leave nothing behind."""

import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from kameng_api import embedded
from kameng_api.embedded.processes import command_of

SMALL = {"shared_buffers": "16MB", "max_wal_size": "256MB"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's tmp_path: below it nobody else may walk, and every new session of pytest closes it again."""
    with tempfile.TemporaryDirectory(prefix="kameng-embedded-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
def make_var(folder: Path) -> Iterator[Callable[[str], Path]]:
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(folder / name / "var")
        made[-1].parent.mkdir(parents=True)
        return made[-1]

    yield make
    for var in made:
        embedded.remove(var)


async def ask(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def tell(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def pids(var: Path) -> tuple[int | None, int | None]:
    seen = embedded.status(var)
    return seen.postgres.pid, seen.redis.pid


async def test_both_servers_start_are_found_again_and_stop(make_var: Callable[[str], Path]) -> None:
    var = make_var("one")
    first = embedded.start(var, settings=SMALL)
    before = pids(var)
    assert None not in before
    assert embedded.start(var) == first
    assert pids(var) == before

    engine = create_async_engine(first.app_url)
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT current_user"))).scalar() == "kameng_app"
    await engine.dispose()
    async with Redis.from_url(first.redis_url) as redis:
        assert await redis.ping()
        assert (await redis.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"

    embedded.stop(var)
    assert pids(var) == (None, None)
    assert "database system is shut down" in (var / "log" / "postgres.log").read_text()
    embedded.stop(var)


async def test_a_commit_is_durable_and_no_caller_can_change_that(make_var: Callable[[str], Path]) -> None:
    servers = embedded.start(make_var("durable"), redis=False, settings=SMALL)
    assert servers.redis_url == ""
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert await ask(servers.app_url, f"SHOW {name}") == "on"
    assert await ask(servers.app_url, "SHOW shared_buffers") == "16MB"
    for name in ("fsync", "FSYNC", "synchronous_commit", "full_page_writes"):
        with pytest.raises(ValueError, match="not to be overridden"):
            embedded.start(servers.var, settings={name: "off"})


async def test_the_application_role_makes_no_tables_and_reads_none_it_was_not_granted(
    make_var: Callable[[str], Path],
) -> None:
    servers = embedded.start(make_var("roles"), redis=False, settings=SMALL)
    await tell(servers.owner_url, "CREATE TABLE books (amount bigint)")
    for sql in ("CREATE TABLE mine (a int)", "CREATE TEMP TABLE mine (a int)", "CREATE SCHEMA mine", "TABLE books"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await tell(servers.app_url, sql)
    await tell(servers.owner_url, "GRANT SELECT ON books TO kameng_app")
    assert await ask(servers.app_url, "SELECT count(*) FROM books") == 0


async def test_nobody_connects_without_the_password(make_var: Callable[[str], Path]) -> None:
    servers = embedded.start(make_var("closed"), settings=SMALL)
    for role in ("kameng_app", "kameng_owner", "postgres"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                user=role, password="guess", database="kameng", host=str(_sockets(servers.app_url)), port=5432
            )
    assert await ask(servers.app_url, "SHOW listen_addresses") == ""
    assert stat.S_IMODE(_sockets(servers.app_url).stat().st_mode) == 0o700
    assert stat.S_IMODE((servers.var / "embedded.json").stat().st_mode) == 0o600
    for line in (servers.app_url, servers.owner_url, servers.redis_url):
        assert line not in repr(servers)


def _sockets(url: str) -> Path:
    return Path(url.split("host=")[1].split("&")[0])


async def test_data_is_kept_when_both_servers_are_killed(make_var: Callable[[str], Path]) -> None:
    var = make_var("killed")
    servers = embedded.start(var, settings=SMALL)
    await tell(servers.owner_url, "CREATE TABLE books (amount bigint); INSERT INTO books VALUES (42)")
    for pid in pids(var):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    again = embedded.start(var, settings=SMALL)
    assert again == servers
    assert await ask(again.owner_url, "SELECT amount FROM books") == 42
    async with Redis.from_url(again.redis_url) as redis:
        assert await redis.ping()


async def test_a_server_stopped_while_busy_keeps_only_what_was_committed(make_var: Callable[[str], Path]) -> None:
    var = make_var("busy")
    servers = embedded.start(var, redis=False, settings=SMALL)
    await tell(servers.owner_url, "CREATE TABLE books (amount bigint); INSERT INTO books VALUES (1)")
    connection = await asyncpg.connect(servers.owner_url.replace("+asyncpg", ""))
    await connection.execute("BEGIN; INSERT INTO books VALUES (2)")
    embedded.stop(var)
    connection.terminate()
    embedded.start(var, redis=False, settings=SMALL)
    assert await ask(servers.owner_url, "SELECT count(*) FROM books") == 1


async def test_a_process_id_that_now_belongs_to_somebody_else_is_no_server(make_var: Callable[[str], Path]) -> None:
    var = make_var("reused")
    servers = embedded.start(var, redis=False, settings=SMALL)
    pid = pids(var)[0]
    assert pid is not None
    lock = embedded.status(var).place / "postgres" / "postmaster.pid"
    left_behind = lock.read_text()
    embedded.stop(var)
    # As after a container's restart: the file names a living process, this test, which is no PostgreSQL.
    lock.write_text(left_behind.replace(str(pid), str(os.getpid()), 1))
    assert pids(var)[0] is None
    embedded.start(var, redis=False, settings=SMALL)
    assert await ask(servers.app_url, "SELECT 1") == 1


async def test_data_half_made_is_thrown_away(make_var: Callable[[str], Path]) -> None:
    var = make_var("half")
    var.mkdir(mode=0o711)
    (var / ".postgres-new-dead").mkdir()
    (var / ".postgres-new-dead" / "PG_VERSION").write_text("18\n")
    servers = embedded.start(var, redis=False, settings=SMALL)
    assert await ask(servers.app_url, "SELECT 1") == 1
    assert not list(var.glob(".postgres-new-*"))


async def test_lost_passwords_are_made_anew_and_the_data_kept(make_var: Callable[[str], Path]) -> None:
    var = make_var("lost")
    servers = embedded.start(var, settings=SMALL)
    await tell(servers.owner_url, "CREATE TABLE books (amount bigint); INSERT INTO books VALUES (42)")
    (var / "embedded.json").unlink()
    again = embedded.start(var, settings=SMALL)
    assert again.owner_url != servers.owner_url
    assert await ask(again.owner_url, "SELECT amount FROM books") == 42


async def test_two_clones_know_nothing_of_each_other(make_var: Callable[[str], Path]) -> None:
    left, right = make_var("left"), make_var("right")
    with embedded.running(left, settings=SMALL) as here, embedded.running(right, settings=SMALL) as there:
        await tell(here.owner_url, "CREATE TABLE books (amount bigint)")
        assert await ask(there.owner_url, "SELECT to_regclass('books') IS NULL")
        async with Redis.from_url(here.redis_url) as redis, Redis.from_url(there.redis_url) as other:
            await redis.set("bell", "here")
            assert await other.get("bell") is None
        embedded.stop(left)
        assert None not in pids(right)
    assert pids(right) == (None, None)


def test_running_stops_only_what_it_started(make_var: Callable[[str], Path]) -> None:
    var = make_var("nested")
    with embedded.running(var, redis=False, settings=SMALL):
        kept = pids(var)[0]
        with embedded.running(var, settings=SMALL):
            assert None not in pids(var)
        assert pids(var) == (kept, None)
    assert pids(var) == (None, None)


def _start_in_another_process(var: Path, answer: "multiprocessing.Queue[tuple[str, int | None]]") -> None:
    servers = embedded.start(var, settings=SMALL)
    answer.put((servers.app_url, pids(var)[0]))


def test_processes_starting_at_the_same_moment_share_one_server(make_var: Callable[[str], Path]) -> None:
    var = make_var("race")
    context = multiprocessing.get_context("fork")  # one that is spawned imports for seconds before it starts anything
    answers: multiprocessing.Queue[tuple[str, int | None]] = context.Queue()
    starters = [context.Process(target=_start_in_another_process, args=(var, answers)) for _ in range(3)]
    for starter in starters:
        starter.start()
    seen = {answers.get(timeout=60) for _ in starters}
    for starter in starters:
        starter.join(timeout=30)
        assert starter.exitcode == 0
    assert len(seen) == 1


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.6])
def test_a_starter_killed_at_any_moment_does_no_harm(make_var: Callable[[str], Path], after_s: float) -> None:
    var = make_var("cut")
    context = multiprocessing.get_context("fork")
    starter = context.Process(target=embedded.start, args=(var,), kwargs={"settings": SMALL})
    starter.start()
    time.sleep(after_s)
    starter.kill()
    starter.join(timeout=10)
    embedded.start(var, settings=SMALL)
    seen = embedded.status(var)
    assert seen.postgres.answers
    assert seen.redis.answers


def test_no_mode_outside_var_changes_and_root_finds_a_way_below_a_closed_folder(
    make_var: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    var = make_var("closed-clone")
    var.parent.chmod(0o700)
    if os.geteuid() == 0:
        elsewhere = folder / "elsewhere"
        monkeypatch.setattr("kameng_api.embedded.places._ELSEWHERE", elsewhere)
    before = {parent: parent.stat().st_mode for parent in var.parents}
    with embedded.running(var, settings=SMALL):
        seen = embedded.status(var)
        assert seen.postgres.answers and seen.redis.answers
        assert (seen.place == var) == (os.geteuid() != 0)
        assert {parent: parent.stat().st_mode for parent in var.parents} == before
    embedded.remove(var)
    assert not seen.place.exists() or seen.place == var
    assert {parent: parent.stat().st_mode for parent in var.parents} == before


async def test_a_deep_folder_with_chinese_and_blanks_in_its_name(make_var: Callable[[str], Path]) -> None:
    var = make_var("卡盟, 我的 '店'/" + "deep" * 20)
    servers = embedded.start(var, settings=SMALL)
    sockets = _sockets(servers.app_url)
    assert await ask(servers.app_url, "SELECT 1") == 1
    async with Redis.from_url(servers.redis_url) as redis:
        assert await redis.ping()
    embedded.stop(var)
    sockets.rmdir()  # as /tmp is emptied between two starts
    again = embedded.start(var, settings=SMALL)
    assert await ask(again.app_url, "SELECT 1") == 1


def test_remove_leaves_only_logs(make_var: Callable[[str], Path]) -> None:
    var = make_var("removed")
    embedded.start(var, settings=SMALL)
    embedded.remove(var)
    assert pids(var) == (None, None)
    assert sorted(left.name for left in var.iterdir()) == ["embedded.lock", "log"]
    embedded.remove(var)


async def test_a_folder_deleted_under_running_servers_is_started_anew(make_var: Callable[[str], Path]) -> None:
    var = make_var("deleted")
    embedded.start(var, settings=SMALL)
    left_running = pids(var)
    while var.exists():  # the servers go on writing while their folder goes
        shutil.rmtree(var, ignore_errors=True)
    servers = embedded.start(var, settings=SMALL)
    assert await ask(servers.app_url, "SELECT 1") == 1
    assert not set(pids(var)) & set(left_running)
    for pid in left_running:
        assert pid is not None
        assert command_of(pid) == ""
