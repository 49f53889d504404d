"""Every fault of the machine: how it is injected into a running rig, what it needs for itself, and how it heals.

An injection returns how to heal it; faults that are over at once return `nothing`.
"""

import asyncio
import contextlib
import json
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
import asyncpg
import orjson
from sqlalchemy.engine import make_url
from tests.chaos.receiver import MANNERS
from tests.chaos.rig import APIS, LEASE_S, RECEIVER, SUPPLIERS, WORKERS, Rig

from kameng_api.simulator import protocol

Heal = Callable[[], Awaitable[None]]
Inject = Callable[[Rig, str, random.Random, float], Awaitable[Heal]]
HOUSE: Final = (*APIS, *WORKERS)
COMMITTED: Final = b"C\x00\x00\x00\x0bCOMMIT\x00".hex()
"""How PostgreSQL says on the wire that a COMMIT took effect."""
_ANYBODY: Final = ("*",)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `needs` names what no other fault may touch meanwhile; `{}` is its target."""

    name: str
    inject: Inject
    targets: tuple[str, ...]
    seconds: tuple[float, float]
    needs: tuple[str, ...] = ("{}",)

    def resources(self, target: str) -> frozenset[str]:
        return frozenset(text.format(target) for text in self.needs)


async def nothing() -> None:
    """Already healed."""


# ---- processes --------------------------------------------------------------------------------------------------------


async def kill(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """kill -9; dead for the whole time."""
    rig.held_down.add(target)
    await rig.children[target].kill()
    return partial(_revive, rig, target)


async def _revive(rig: Rig, target: str) -> None:
    rig.held_down.discard(target)
    rig.children[target].start()


async def kill_and_restart(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """kill -9; the keeper starts it again at once."""
    await rig.children[target].kill()
    return nothing


async def terminate(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """SIGTERM: it drains and ends; then it is started again."""
    rig.children[target].signal(signal.SIGTERM)
    return nothing


async def roll_workers(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """A rolling deployment: each worker in turn."""
    for name in WORKERS:
        rig.children[name].signal(signal.SIGTERM)
        await asyncio.sleep(seconds / len(WORKERS))
    return nothing


async def freeze(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """SIGSTOP … SIGCONT: whoever it was wakes up as a zombie, its lease long given to another."""
    rig.children[target].signal(signal.SIGSTOP)
    return partial(_thaw, rig, target)


async def _thaw(rig: Rig, target: str) -> None:
    rig.children[target].signal(signal.SIGCONT)


async def wrong_clock(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """Ten minutes early or late, in one process."""
    rig.skew_file(target).write_text(str(draw.choice((-600, 600))))
    return partial(_right_clock, rig, target)


async def _right_clock(rig: Rig, target: str) -> None:
    rig.skew_file(target).write_text("0")


# ---- Redis ------------------------------------------------------------------------------------------------------------


async def flush_redis(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    connection = await asyncio.open_unix_connection(str(rig.machines.sockets / "redis.sock"))
    reader, writer = connection
    password = (make_url(rig.servers.redis_url).password or "").encode()
    writer.write(b"AUTH %b\r\nFLUSHALL\r\n" % password)
    await reader.readline()
    await reader.readline()
    writer.close()
    return nothing


async def kill_redis(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """kill -9, gone for the whole time; it comes back empty."""
    await asyncio.to_thread(rig.machines.signal_redis, signal.SIGKILL)
    return partial(asyncio.to_thread, rig.machines.start_redis)


async def hang_redis(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    await asyncio.to_thread(rig.machines.signal_redis, signal.SIGSTOP)
    return partial(asyncio.to_thread, rig.machines.signal_redis, signal.SIGCONT)


# ---- PostgreSQL -------------------------------------------------------------------------------------------------------


async def restart_postgres(how: int, rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """SIGQUIT: as a crash, with recovery; SIGINT: a fast one."""
    await asyncio.to_thread(rig.machines.end_postgres, how)
    return partial(asyncio.to_thread, rig.machines.start_postgres)


async def _connect(rig: Rig, *, owner: bool) -> "asyncpg.Connection[asyncpg.Record]":
    url = make_url(rig.servers.owner_url if owner else rig.servers.app_url).set(drivername="postgresql")
    return await asyncpg.connect(url.render_as_string(hide_password=False), command_timeout=60, timeout=10)


async def end_backends(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """pg_terminate_backend of half of the application's connections, in the middle of whatever they do."""
    connection = await _connect(rig, owner=False)
    try:
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid() ORDER BY pid")
        for row in rows:
            if draw.random() < 0.5:
                await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])
    finally:
        await connection.close()
    return nothing


async def old_snapshot(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """A long transaction that keeps the horizon where it is: nothing is vacuumed, no event becomes visible behind it."""
    connection = await _connect(rig, owner=True)
    await connection.execute("SET idle_in_transaction_session_timeout = 0")
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute("SELECT pg_current_xact_id()")  # a running transaction with a number holds xmin, not only a snapshot
    return partial(_end_connection, connection)


async def long_lock(table: str, rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """Nobody writes to a table for a while; nor while this waits for a frozen process that wrote to it before."""
    connection = await _connect(rig, owner=True)
    await connection.execute("SET idle_in_transaction_session_timeout = 0")
    await connection.execute("SET lock_timeout = '25s'")
    await connection.execute("BEGIN")
    await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
    return partial(_end_connection, connection)


async def _end_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    with contextlib.suppress(Exception):
        await connection.execute("ROLLBACK")
    await connection.close(timeout=5)


async def exhaust_connections(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """No connection slot is left for anyone, and half of the established ones are ended, so that pools must ask."""
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    with contextlib.suppress(asyncpg.PostgresError, OSError, TimeoutError):
        while len(taken) < 150:
            taken.append(await _connect(rig, owner=False))
    if taken:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            await taken[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> ALL($1::int[]) AND pid % 2 = 0",
                [c.get_server_pid() for c in taken],
            )

    async def heal() -> None:
        await asyncio.gather(*(c.close(timeout=5) for c in taken), return_exceptions=True)

    return heal


# ---- wires ------------------------------------------------------------------------------------------------------------


async def hurt_wire(fault: dict[str, Any], rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    await rig.wires.hurt(target, **fault)
    return partial(rig.wires.heal, target)


async def cut_wire(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    await rig.wires.cut(target)
    return nothing


async def stop_after_bytes(direction: str, rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """Each connection ends in the middle of something."""
    await rig.wires.hurt(target, stop_direction=direction, stop_after=[1, draw.choice((300, 3_000, 30_000))])
    return partial(rig.wires.heal, target)


# ---- suppliers --------------------------------------------------------------------------------------------------------


async def turn_knobs(knobs: dict[str, Any], rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    await rig.control(target, "PUT", "knobs", {"seed": draw.randrange(2**31), **knobs})
    return partial(_all_well, rig, target)


async def _all_well(rig: Rig, target: str) -> None:
    await rig.control(target, "PUT", "knobs", {})


async def empty_wallet(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    taken = await rig.control(target, "POST", "wallet", {"take": True})

    async def heal() -> None:
        await rig.control(target, "POST", "wallet", {"amount": taken["before"]})

    return heal


async def forge_callbacks(rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    """Somebody who knows the address and real references, but not the secret, says that all failed, or all was delivered."""
    orders = await asyncio.to_thread(_some_orders, rig, target, draw)
    url = f"http://127.0.0.1:{rig.ports['sim>callback']}"
    for order in orders:
        view = {
            "out_order_no": order["reference"], "order_no": f"S{order['id']}", "status": draw.choice(("SUCCESS", "FAILED", "REVERSED")),
            "units": str(order["units"]), "delivered_units": str(order["units"]), "notify_id": f"N{draw.randrange(10**9)}",
        }  # fmt: skip
        body = orjson.dumps(protocol.signed(b"not the secret of anybody", f"app-{target}", time.time(), view))
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with rig.http.post(order["callback_url"] or url, data=body, headers={"content-type": "application/json"}) as answer:
                await answer.read()
    return nothing


def _some_orders(rig: Rig, supplier: str, draw: random.Random) -> list[dict[str, Any]]:
    file = sqlite3.connect(f"file:{rig.folder / f'{supplier}.sqlite'}?mode=ro", uri=True, timeout=5)
    try:
        file.row_factory = sqlite3.Row
        rows = [dict(r) for r in file.execute("SELECT id, reference, units, callback_url FROM sim_order ORDER BY id DESC LIMIT 200")]
    finally:
        file.close()
    return draw.sample(rows, min(20, len(rows)))


# ---- merchants' endpoints ---------------------------------------------------------------------------------------------


async def rude_receiver(manners: dict[str, Any], rig: Rig, target: str, draw: random.Random, seconds: float) -> Heal:
    path = rig.folder / MANNERS
    path.write_text(json.dumps(manners))

    async def heal() -> None:
        path.write_text("{}")

    return heal


# ---- all of them ------------------------------------------------------------------------------------------------------

_CALLS: Final = tuple(f"worker>{name}" for name in SUPPLIERS)
_TO_PG: Final = tuple(f"{name}>pg" for name in HOUSE)
_TO_REDIS: Final = tuple(f"{name}>redis" for name in HOUSE)
_CLIENTS: Final = tuple(f"client>{name}" for name in APIS)
_OUT: Final = ("sim>callback", "worker>receiver")
_SHORT: Final = (2.0, 5.0)
_SIMS: Final = tuple(SUPPLIERS)


def _knobs(name: str, **knobs: Any) -> Fault:
    return Fault(f"supplier: {name}", partial(turn_knobs, knobs), _SIMS, (5.0, 10.0), ("{}",))


def _wire(name: str, targets: tuple[str, ...], seconds: tuple[float, float] = _SHORT, **fault: Any) -> Fault:
    return Fault(f"wire: {name}", partial(hurt_wire, fault), targets, seconds, ("{}",))


FAULTS: Final[tuple[Fault, ...]] = (
    Fault("kill -9 api", kill, APIS, _SHORT, ("apis",)),
    Fault("kill -9 worker", kill, WORKERS, _SHORT),
    Fault("kill -9 worker, started at once", kill_and_restart, WORKERS, (0.5, 1.0)),
    Fault("SIGTERM api", terminate, APIS, _SHORT, ("apis",)),
    Fault("rolling restart of workers", roll_workers, _ANYBODY, (3.0, 6.0), WORKERS),
    Fault("worker frozen beyond its lease", freeze, WORKERS, (LEASE_S + 1.5, LEASE_S + 4.0)),
    Fault("api frozen", freeze, APIS, _SHORT, ("apis",)),
    Fault("clock of a worker off by ten minutes", wrong_clock, WORKERS, (6.0, 12.0)),
    Fault("clock of an api off by ten minutes", wrong_clock, APIS, (6.0, 12.0)),
    Fault("redis FLUSHALL", flush_redis, _ANYBODY, (0.5, 1.0), ("redis",)),
    Fault("redis killed, back empty", kill_redis, _ANYBODY, (2.0, 6.0), ("redis",)),
    Fault("redis hangs", hang_redis, _ANYBODY, (2.0, 6.0), ("redis",)),
    Fault("postgres immediate restart", partial(restart_postgres, signal.SIGQUIT), _ANYBODY, (0.2, 1.5), ("pg",)),
    Fault("postgres fast restart", partial(restart_postgres, signal.SIGINT), _ANYBODY, (0.2, 1.5), ("pg",)),
    Fault("postgres backends terminated", end_backends, _ANYBODY, (0.5, 1.0), ("pg",)),
    Fault("long transaction holds xmin", old_snapshot, _ANYBODY, (5.0, 9.0), ("pg",)),
    Fault("orders locked", partial(long_lock, "orders"), _ANYBODY, (2.0, 7.0), ("pg",)),
    Fault("balances locked", partial(long_lock, "accounts"), _ANYBODY, (2.0, 7.0), ("pg",)),
    Fault("too many connections", exhaust_connections, _ANYBODY, (2.0, 4.0), ("pg",)),
    Fault("wire: COMMIT not acknowledged", partial(hurt_wire, {"cut_at": COMMITTED, "chance": 0.3}), _TO_PG, _SHORT),
    Fault("wire: postgres stops after N bytes", partial(stop_after_bytes, "down"), _TO_PG, _SHORT),
    Fault("wire: supplier stops after N bytes", partial(stop_after_bytes, "down"), _CALLS, _SHORT),
    Fault("wire: request cut after N bytes", partial(stop_after_bytes, "up"), (*_CLIENTS, *_CALLS, *_OUT), _SHORT),
    Fault("wire: reset", cut_wire, (*_TO_PG, *_TO_REDIS, *_CLIENTS, *_CALLS, *_OUT), (0.2, 0.5)),
    _wire("postgres slow", _TO_PG, latency_ms=20, jitter_ms=60),
    _wire("postgres silent", _TO_PG, (2.0, 7.0), silent="both"),
    _wire("postgres answers lost", _TO_PG, (2.0, 7.0), silent="down"),
    _wire("postgres refuses", _TO_PG, refuse=True),
    _wire("redis slow", _TO_REDIS, latency_ms=50, jitter_ms=200),
    _wire("redis silent", _TO_REDIS, (2.0, 7.0), silent="both"),
    _wire("clients slow", _CLIENTS, latency_ms=50, jitter_ms=200),
    _wire("answers to clients lost", _CLIENTS, silent="down"),
    _wire("clients refused", _CLIENTS, refuse=True),
    _wire("supplier slow", _CALLS, latency_ms=100, jitter_ms=900),
    _wire("supplier silent", _CALLS, (3.0, 6.0), silent="both"),
    _wire("answers of supplier lost", _CALLS, (3.0, 6.0), silent="down"),
    _wire("supplier refuses", _CALLS, (3.0, 6.0), refuse=True),
    _wire("callbacks and webhooks slow", _OUT, latency_ms=200, jitter_ms=1500),
    _wire("callbacks and webhooks lost", _OUT, silent="both"),
    Fault("supplier: kill -9", kill, _SIMS, (1.0, 4.0)),
    Fault("supplier: frozen", freeze, _SIMS, (2.0, 5.0)),
    _knobs("delivers, never answers", hang_rate=0.3, hang_point="after"),
    _knobs("never answers, delivers not", hang_rate=0.2, hang_point="before"),
    _knobs("delivers and resets", reset_rate=0.4, reset_point="after"),
    _knobs("resets before it delivers", reset_rate=0.4, reset_point="before"),
    _knobs("delivers and says 500", error_500_rate=0.4),
    _knobs("late success", late_success_rate=0.3, late_success_after_s=15),
    _knobs("asynchronous, callbacks twice and out of order", async_rate=1, async_after_s=1, callback_copies=3, callback_reorder=True),
    _knobs("asynchronous, callbacks lost", async_rate=0.7, async_after_s=2, callback_copies=0),
    _knobs("asynchronous, callbacks badly signed", async_rate=0.7, async_after_s=1, callback_wrong_signature_rate=0.7),
    _knobs("callback before the answer", callback_on_sync_success=True, latency={"kind": "fixed", "ms": 1200}),
    _knobs("not found at first", not_found_for_s=6, hang_rate=0.3),
    _knobs("delayed failures", late_failure_rate=0.5, late_failure_after_s=3, late_failure_spread_s=4),
    _knobs("refuses", refuse_rate=0.7),
    _knobs("delivers a part", partial_rate=0.7),
    _knobs("says delivered, then failed", contradiction_rate=0.03, contradiction_kind="success_then_failed"),
    _knobs("says failed, then delivers", contradiction_rate=0.03, contradiction_kind="failed_then_success"),
    _knobs("takes deliveries back", reversal_rate=0.1, reversal_after_s=6),
    _knobs("outage 503", outage="http_503"),
    _knobs("outage, silent", outage="silent"),
    _knobs("flapping", flapping_period_s=2),
    _knobs("prices up", price_factor=1.05),
    _knobs("rate limit", rate_limit_per_s=5),
    _knobs("at capacity", capacity=3, async_rate=1, async_after_s=1),
    _knobs("wallet empty, said as 500", wallet_empty_answer="http_500"),
    _knobs("contact staff", contact_staff_rate=0.02),
    Fault("supplier: wallet empty", empty_wallet, _SIMS, (3.0, 6.0), ("{}",)),
    Fault("forged callbacks", forge_callbacks, _SIMS, (0.5, 1.0), ("forger",)),
    Fault("receiver dead", kill, (RECEIVER,), (3.0, 8.0)),
    Fault("receiver slow", partial(rude_receiver, {"wait_s": 3}), (RECEIVER,), (3.0, 6.0)),
    Fault("receiver says 500", partial(rude_receiver, {"status": 500}), (RECEIVER,), (3.0, 6.0)),
)

_SIMULATOR_ONLY: Final = frozenset(
    {"supplier: says delivered, then failed", "supplier: says failed, then delivers", "supplier: takes deliveries back", "forged callbacks"}
)
"""Most vendors have no word for the first three, and a forgery is written in the simulator's protocol."""
FOR_VENDORS: Final = tuple(fault for fault in FAULTS if fault.name not in _SIMULATOR_ONLY)
"""What a run with a vendor's twins is tried with."""
