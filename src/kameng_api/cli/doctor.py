"""`kameng doctor`: does this deployment have what it needs, and do its books hold?"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.script import ScriptDirectory
from redis.asyncio import Redis
from sqlalchemy import text

from kameng_api.cli.bench import keyring_of
from kameng_api.evidence import queries as chain
from kameng_api.evidence import restores
from kameng_api.evidence.anchors import names_of
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.ledger import stops
from kameng_api.reconciliation import monitor
from kameng_api.settings import DEVELOPMENT_SECRET, Settings
from kameng_api.suppliers.registry import list_adapters

_MOST_SKEW_S: Final = 2.0
_LATE_S: Final = 60.0
_ANCHOR_LATE_S: Final = 600.0
_STANDING: Final = {
    restores.Standing.WELL: "none is open",
    restores.Standing.HOLDING: "OPEN: orders wait, nothing is bought; see `kameng restore status`",
    restores.Standing.MOVED: "this is another server, or an older point, than these rows were last on: run `kameng restore begin`",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    check: str
    well: bool
    detail: str


def examine(settings: Settings, alembic_ini: Path, *, whole: bool = False) -> list[Finding]:
    """Every check; one that raises is a finding too. `whole`: the monitors read every transfer and order."""
    return asyncio.run(_examine(settings, alembic_ini, whole))


async def _examine(settings: Settings, alembic_ini: Path, whole: bool) -> list[Finding]:
    assert settings.database_url is not None
    db = Database(settings.database_url.get_secret_value(), pool_size=2)

    async def in_database(look: Callable[[Tx], Awaitable[tuple[bool, str]]]) -> tuple[bool, str]:
        async with db.transaction() as tx:
            return await look(tx)

    async def heads(tx: Tx) -> tuple[bool, str]:
        wanted = set(ScriptDirectory.from_config(Config(str(alembic_ini))).get_heads())
        found = set((await tx.execute(text("SELECT version_num FROM alembic_version"))).scalars())
        return found == wanted, f"{', '.join(sorted(found)) or 'none'} (code: {', '.join(sorted(wanted))})"

    async def role(tx: Tx) -> tuple[bool, str]:
        [row] = await fetch(tx, "SELECT has_table_privilege('transfers', 'UPDATE, DELETE, TRUNCATE') AS may")
        return not row["may"], "cannot change the books" if not row["may"] else "MAY CHANGE the books: use the app role"

    async def clock(tx: Tx) -> tuple[bool, str]:
        [row] = await fetch(tx, "SELECT clock_timestamp() AS now")
        skew_s = abs((row["now"] - utc_now()).total_seconds())
        return skew_s < _MOST_SKEW_S, f"{skew_s:.2f} s apart from the database's"

    async def durability(tx: Tx) -> tuple[bool, str]:
        rows = await fetch(
            tx,
            """SELECT name, setting FROM pg_settings
            WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes') AND setting = 'off'""",
        )
        return not rows, "on" if not rows else f"off: {', '.join(r['name'] for r in rows)}"

    async def keys(tx: Tx) -> tuple[bool, str]:
        keyring = keyring_of(settings)
        rows = await fetch(tx, "SELECT key_id, secret_sealed FROM api_keys WHERE secret_sealed IS NOT NULL LIMIT 1")
        for row in rows:
            keyring.open(row["secret_sealed"], b"api_keys.secret:" + row["key_id"].encode())
        default = any(s.get_secret_value() == DEVELOPMENT_SECRET for s in settings.keys.values())
        return True, f"{', '.join(settings.keys)}{' (the development key: not for real money)' if default else ''}"

    async def house(tx: Tx) -> tuple[bool, str]:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM books WHERE merchant_id IS NULL")
        return row["n"] == 2, f"{row['n']} of 2"

    async def redis() -> tuple[bool, str]:
        assert settings.redis_url is not None
        client = Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=2, socket_connect_timeout=2)
        try:
            await client.ping()
        finally:
            await client.aclose()
        return True, "answers"

    async def adapters() -> tuple[bool, str]:
        return True, ", ".join(adapter.name for adapter in list_adapters())

    async def evidence(tx: Tx) -> tuple[bool, str]:
        lag = await chain.lag_of(tx, names_of(settings))
        well = lag.seal_s < _LATE_S and lag.anchor_s < _ANCHOR_LATE_S
        where = ", ".join(names_of(settings)) or "nowhere: nothing outside proves the chain's length"
        return well, f"block {lag.head}, {lag.total} leaves, {lag.seal_s:.0f} s behind; anchored {lag.anchor_s:.0f} s behind in {where}"

    async def restored(tx: Tx) -> tuple[bool, str]:
        standing = await restores.find_standing(tx)
        return standing is restores.Standing.WELL, _STANDING[standing]

    findings = [
        await _look("redis", redis()),
        await _look("adapters", adapters()),
        await _look("schema", in_database(heads)),
        await _look("application role", in_database(role)),
        await _look("clock", in_database(clock)),
        await _look("durability", in_database(durability)),
        await _look("house books", in_database(house)),
        await _look("keys", in_database(keys)),
        await _look("evidence", in_database(evidence)),
        await _look("restore", in_database(restored)),
        await _look("stopped books", in_database(_no_book_is_stopped)),
        *await _monitors(db, whole),
    ]
    await db.close()
    return findings


async def _no_book_is_stopped(tx: Tx) -> tuple[bool, str]:
    found = await stops.list_stops(tx)
    return not found, "none" if not found else "; ".join(f"book {s.book_id} since {s.stopped_at:%Y-%m-%d %H:%M}Z: {s.invariant}" for s in found)


async def _monitors(db: Database, whole: bool) -> list[Finding]:
    try:
        async with db.transaction() as tx:
            found = await monitor.examine(tx, whole=whole)
    except Exception as trouble:
        return [Finding("monitors", False, f"{type(trouble).__name__}: {trouble}".partition("\n")[0])]
    return [
        Finding(f"{name} {what}", not found[name], "holds" if not found[name] else f"{found[name][0]} ({len(found[name])} in all)")
        for name, what in monitor.MONITORS.items()
    ]


async def _look(check: str, looking: Awaitable[tuple[bool, str]]) -> Finding:
    try:
        well, detail = await looking
    except Exception as trouble:
        return Finding(check, False, f"{type(trouble).__name__}: {trouble}".partition("\n")[0])
    return Finding(check, well, detail)
