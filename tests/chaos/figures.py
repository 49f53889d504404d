"""Figures of survival, each a command of its own: `python -m tests.chaos.figures acceptance|lease|rolling`; exit code 1 when one is missed."""

import argparse
import asyncio
import base64
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import Process
from tests.chaos import ending
from tests.chaos.fleet import ROOT, Failed
from tests.chaos.merchant import Programs, Said, Wanted
from tests.chaos.rig import SUPPLIERS, Rig
from tests.chaos.shop import CHEAP_SKU, Buyer, open_shop

from kameng_api.kit.db import fetch

P99_MS: Final = 200.0
ACCEPT_PER_S: Final = 100.0
CLAIMED: Final = 500
LEASE_SLACK_S: Final = 10.0


def _folder(name: str) -> Path:
    return ROOT / "var" / "chaos" / f"figure-{name}"


# ---- acceptance -------------------------------------------------------------------------------------------------------


async def acceptance(seconds: float = 20.0) -> dict[str, Any]:
    """Orders while all workers, Redis and one supplier are dead: they are accepted as if nothing were, and finish when all are back."""
    rig = Rig(_folder("acceptance"), 1)
    try:
        await rig.open()
        buyers = await open_shop(rig, rich=20, poor=0, hooks=False)
        await rig.start_workers()
        load = await Process.start("load", ("-m", "benchmarks.load"), rig.folder, {}, spoken=True)
        await load.ask(keys=[[b.key_id, b.secret, CHEAP_SKU, "10200000001"] for b in buyers])
        dead = (*rig.workers, "sim-a")
        rig.held_down.update(dead)
        await asyncio.gather(*(rig.children[name].kill() for name in dead))
        await asyncio.to_thread(rig.machines.signal_redis, 9)
        round_ = await load.ask(
            port=rig.ports["front"], path="/v1/orders", seconds=seconds, warm_s=1.0, connections=16, spread=len(buyers), rate=ACCEPT_PER_S,
            orders=0, prefix="A",
        )  # fmt: skip
        await load.stop()
        await ending.heal(rig)
        quiet = await ending.become_quiet(rig)
        rows = await _ask(rig, "SELECT status, count(*) AS n FROM orders GROUP BY 1")
    finally:
        await rig.close()
    ended = {r["status"]: r["n"] for r in rows}
    held = (
        round_["sent"] == round_["acknowledged"] == sum(ended.values()) and round_["p99_ms"] < P99_MS and round_["per_s"] > 0.95 * ACCEPT_PER_S
        and quiet.after_s is not None and set(ended) == {"succeeded"}
    )  # fmt: skip
    return {
        "held": held, "sent": round_["sent"], "accepted": round_["acknowledged"], "per_s": round_["per_s"], "p50_ms": round_["p50_ms"],
        "p99_ms": round_["p99_ms"], "max_ms": round_["max_ms"], "trouble": round_["trouble"], "afterwards": ended,
        "quiet_after_s": quiet.after_s,
    }  # fmt: skip


async def _ask(rig: Rig, statement: str, *values: Any) -> list[Any]:
    async with rig.db.transaction() as tx:
        return list(await fetch(tx, statement, *values))


# ---- lease ------------------------------------------------------------------------------------------------------------


async def lease(orders: int = 600) -> dict[str, Any]:
    """A worker is killed with 500 tasks claimed, its supplier having delivered and not answered: others finish them all."""
    lease_s = 40
    rig = Rig(_folder("lease"), 1, lease_s=lease_s, supplier_timeout_s=30.0, settings={"supplier_concurrency": "600"})
    try:
        await rig.open()
        [buyer] = await open_shop(rig, rich=1, poor=0)
        for name in SUPPLIERS:
            await rig.control(name, "PUT", "knobs", {"hang_rate": 1, "hang_point": "after"})
        programs = Programs(rig, random.Random(1))
        programs.direct = True
        placed = await asyncio.gather(*(programs.place(_order(buyer, n)) for n in range(orders)))
        if any(said.status != 201 for said in placed):
            raise Failed("not every order was accepted")
        victim = rig.workers[0]
        rig.children[victim].start()
        await _until_sent(rig, orders)
        for name in rig.workers[1:]:
            rig.children[name].start()
        await asyncio.gather(*(rig.children[name].until_well() for name in rig.workers[1:]))
        rig.held_down.add(victim)
        await rig.children[victim].kill()
        killed_at = time.monotonic()
        claimed = await _running(rig)
        for name in SUPPLIERS:
            await rig.control(name, "PUT", "knobs", {})
        took_s = await _until_final(rig, killed_at, patience_s=lease_s + 60)
        rows = await _ask(rig, "SELECT status, count(*) AS n FROM orders GROUP BY 1")
        [bought] = await _ask(rig, "SELECT count(*) AS n FROM attempts")
    finally:
        await rig.close()
    ended = {r["status"]: r["n"] for r in rows}
    return {
        "held": claimed >= CLAIMED and took_s is not None and took_s <= lease_s + LEASE_SLACK_S and ended == {"succeeded": orders},
        "claimed_when_killed": claimed, "lease_s": lease_s, "all_final_after_s": took_s, "ended": ended, "purchases": bought["n"],
    }  # fmt: skip


def _order(buyer: Buyer, n: int) -> Wanted:
    return Wanted.of(buyer, f"L{n:06d}", sku=CHEAP_SKU, target=f"102{n:08d}")


async def _running(rig: Rig) -> int:
    [row] = await _ask(rig, "SELECT count(*) AS n FROM tasks WHERE lane IN ('submit', 'look_up') AND state = 'running'")
    return int(row["n"])


async def _until_sent(rig: Rig, orders: int) -> None:
    """All purchases have reached a supplier, which delivered and keeps silent: nobody here knows how any of them ended.

    What was claimed and not yet sent would take the supplier's own grace longer, by right: "not found" proves nothing before.
    """
    deadline = time.monotonic() + 60
    while (sent := sum(await asyncio.gather(*(asyncio.to_thread(_bought, rig, name) for name in SUPPLIERS)))) < orders:
        if time.monotonic() > deadline:
            raise Failed(f"only {sent} purchases were sent")
        await asyncio.sleep(0.02)


def _bought(rig: Rig, supplier: str) -> int:
    file = sqlite3.connect(f"file:{rig.folder / f'{supplier}.sqlite'}?mode=ro", uri=True, timeout=5)
    try:
        return int(file.execute("SELECT count(*) FROM sim_order").fetchone()[0])
    finally:
        file.close()


async def _until_final(rig: Rig, since: float, patience_s: float) -> float | None:
    while (took := time.monotonic() - since) < patience_s:
        [row] = await _ask(rig, "SELECT count(*) AS n FROM orders WHERE status IN ('accepted', 'processing')")
        if not row["n"]:
            return round(took, 1)
        await asyncio.sleep(0.2)
    return None


# ---- rolling ----------------------------------------------------------------------------------------------------------


async def rolling(rate_per_s: float = 60.0) -> dict[str, Any]:
    """Both APIs behind a small balancer, then all workers, are stopped by SIGTERM and started again, one by one, under load."""
    key = base64.b64encode(os.urandom(32)).decode()
    live = {"mode": "live", "keys": f"roll:{key}", "base_url": "https://callbacks.invalid", "webhook_development": "false"}
    rig = Rig(_folder("rolling"), 1, settings=live)
    try:
        await rig.open()
        buyers = await open_shop(rig, rich=10, poor=0, hooks=False)
        await rig.start_workers()
        programs = Programs(rig, random.Random(1))
        rig.ports |= {f"client>{name}": rig.ports["front"] for name in rig.apis}
        done = asyncio.Event()
        sending = asyncio.create_task(_steadily(programs, buyers, rate_per_s, done))
        await asyncio.sleep(3)
        restarts = [await _roll(rig, name) for name in (*rig.apis, *rig.workers)]
        await asyncio.sleep(3)
        done.set()
        answers = await sending
        quiet = await ending.become_quiet(rig)
        rows = await _ask(rig, "SELECT status, count(*) AS n FROM orders GROUP BY 1")
    finally:
        await rig.close()
    failed = [said for said in answers if said.status != 201]
    ended = {r["status"]: r["n"] for r in rows}
    return {
        "held": not failed and all(restarts) and quiet.after_s is not None and ended == {"succeeded": len(answers)},
        "requests": len(answers), "failed": len(failed), "first_failures": [f"{s.status} {s.problem}" for s in failed[:5]],
        "drained_by_themselves": sum(restarts), "restarts": len(restarts), "afterwards": ended,
    }  # fmt: skip


async def _roll(rig: Rig, name: str) -> bool:
    """Whether it ended by itself after SIGTERM."""
    rig.held_down.add(name)
    drained = await rig.children[name].stop()
    rig.held_down.discard(name)
    rig.children[name].start()
    await rig.children[name].until_well()
    await asyncio.sleep(1)  # the balancer must have seen it
    return drained


async def _steadily(programs: Programs, buyers: list[Buyer], rate_per_s: float, done: asyncio.Event) -> list[Said]:
    """One try per order: a request that fails has failed."""
    sending: list[asyncio.Task[Said]] = []
    begin = time.monotonic()
    while not done.is_set():
        while len(sending) < int((time.monotonic() - begin) * rate_per_s):
            wanted = _order(buyers[len(sending) % len(buyers)], len(sending))
            sending.append(asyncio.create_task(programs.place_once(wanted)))
        await asyncio.sleep(0.005)
    return list(await asyncio.gather(*sending))


FIGURES: Final[dict[str, Callable[[], Awaitable[dict[str, Any]]]]] = {"acceptance": acceptance, "lease": lease, "rolling": rolling}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.figures")
    parser.add_argument("figure", choices=[*FIGURES, "all"])
    wanted = parser.parse_args().figure
    held = True
    for name in FIGURES if wanted == "all" else (wanted,):
        found: dict[str, Any] = asyncio.run(_awaited(FIGURES[name]))
        print(name, json.dumps(found, indent=1), flush=True)
        held = held and bool(found["held"])
    sys.exit(not held)


async def _awaited(figure: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await figure()


if __name__ == "__main__":
    main()
