"""Differences of every class hidden among clean orders: all are found, each in its class, and none is invented."""

from collections import Counter

import asyncpg
from benchmarks.discrepancies import CLASSES, World
from sqlalchemy.engine import make_url
from tests.factories.merchants import keyring_of, make_merchant

from kameng_api.kit.db import Database, fetch
from kameng_api.reconciliation import actions, invariants
from kameng_api.settings import Settings

PER_CLASS, CLEAN, SEED = 10, 400, 20261122


async def _world(database: Database, settings: Settings) -> World:
    merchant = await make_merchant(database, settings, money="1000000")
    assert settings.database_owner_url is not None
    owner = make_url(settings.database_owner_url.get_secret_value()).set(drivername="postgresql").render_as_string(hide_password=False)

    async def owner_does(statements: "list[str]") -> None:
        connection = await asyncpg.connect(owner)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    world = World(database, keyring_of(settings), merchant.merchant_id, merchant.book_id, SEED, owner_does)  # type: ignore[arg-type]
    await world.stock()
    return world


async def _whole_day(world: World) -> None:
    await world.trade(PER_CLASS, CLEAN)
    async with world.db.transaction() as tx:
        assert await invariants.check_all(tx) == []
    day, at = await world.today()
    world.strangers(PER_CLASS, day, at)
    await world.days(PER_CLASS, day)
    await world.drift(day)
    await world.compare(await world.tell())


async def _rows(world: World) -> list[tuple[object, ...]]:
    async with world.db.transaction() as tx:
        breaks = await fetch(tx, "SELECT class, subject, state, amount, fingerprint, first_seen_at FROM recon_breaks ORDER BY 1, 2")
        [matches] = await fetch(tx, "SELECT count(*) AS n, min(run_id::text) AS low, max(run_id::text) AS high FROM recon_matches")
    return [tuple(r) for r in breaks] + [tuple(matches)]


async def test_all_are_found_each_in_its_class_and_none_is_invented(database: Database, settings: Settings) -> None:
    world = await _world(database, settings)
    await _whole_day(world)
    found, truth = await world.found(), world.truth
    assert Counter(c for c, _ in found) == {c: PER_CLASS for c in CLASSES if c != "R1"}
    assert found == truth.breaks
    assert truth.injected == dict.fromkeys(CLASSES, PER_CLASS)
    assert truth.odd_but_matched <= await world.matched()

    before = await _rows(world)  # the same again changes nothing
    day, _ = await world.today()
    await world.compare([day])
    assert await _rows(world) == before

    async with database.transaction() as tx:  # the gaps are on a channel of their own: the others' evidence counts
        assert await actions.auto_resolve(tx, world.keyring, 1000) > 0
    while True:
        async with database.transaction() as tx:
            if not await actions.auto_resolve(tx, world.keyring, 1000):
                break
    left = Counter(c for c, _ in await world.found())
    assert (left["R6"], left["R12"]) == (0, 0)
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM attempts WHERE state = 'unknown'")
    assert row["n"] == 0
