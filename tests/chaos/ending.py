"""After the load: everything is healed, the house becomes quiet or the run is red, and the clients read the end of every order."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos import vendors
from tests.chaos.merchant import Known, Programs
from tests.chaos.receiver import MANNERS
from tests.chaos.rig import APIS, RECEIVER, SUPPLIERS, WORKERS, Rig
from tests.chaos.shop import Buyer

from kameng_api.kit.db import execute, fetch
from kameng_api.kit.errors import Unavailable

QUIET_S: Final = 180.0
_READERS: Final = 24
_HURRY_S: Final = 2.0
_ROUNDS: Final = 5

# Work that is due now or will be; a review waits for a person and an upkeep task for its clock.
_BUSY: Final = """
SELECT 'orders ' || status || coalesce(' ' || substatus, '') AS what, count(*) AS n FROM orders
  WHERE status IN ('accepted', 'processing') AND substatus IS DISTINCT FROM 'manual_review' GROUP BY 1
UNION ALL
SELECT 'tasks ' || lane || ' ' || state, count(*) FROM tasks WHERE lane IN ('submit', 'callback', 'webhook') GROUP BY 1
UNION ALL
SELECT 'tasks ' || t.lane || ' ' || t.state, count(*) FROM tasks t
  JOIN attempts a ON a.book_id = t.book_id AND a.attempt_id = t.ref JOIN orders o ON o.book_id = a.book_id AND o.order_id = a.order_id
  WHERE t.lane = 'look_up' AND o.substatus IS DISTINCT FROM 'manual_review' GROUP BY 1
"""

# Time that passes: what would be tried again in a minute or an hour is tried now. Nothing but the due time of waiting work is touched.
_HURRY: Final = """
UPDATE tasks SET run_at = now() WHERE state = 'ready' AND run_at > now() + interval '1 second' AND lane IN ('submit', 'look_up', 'webhook')
"""

# Of vendors that never say for certain that they know nothing of an order, or show what only their staff can tell as "at work": what they still
# leave open after a day waits for a person.
_A_DAY: Final = """
UPDATE attempts SET sent_at = sent_at - interval '1 day'
WHERE state IN ('unknown', 'accepted') AND sent_at > now() - interval '1 day' RETURNING reference
"""
_PATIENT_S: Final = 45.0

# What a person would press after looking: try again what had been given up.
_RETRY: Final = "UPDATE tasks SET state = 'ready', run_at = now(), attempts = 0 WHERE state = 'parked'"


@dataclass(slots=True)
class Quiet:
    """How it became quiet. `after_s` None: it did not, and `left` says what was still going on."""

    after_s: float | None
    left: dict[str, int]
    parked: int = 0
    """Tasks that had used up their budget and were given back by the operator."""


async def heal(rig: Rig) -> None:
    """Wires, knobs, clocks, processes, servers: all well. Raises Failed when the rig cannot."""
    await rig.wires.heal()
    await asyncio.to_thread(rig.machines.start)
    rig.held_down.clear()
    for name in (*APIS, *WORKERS):
        rig.skew_file(name).write_text("0")
    (rig.folder / MANNERS).write_text("{}")
    for child in rig.children.values():
        child.signal(18)  # SIGCONT
        if not child.alive:
            child.start()
    await asyncio.gather(*(child.until_well() for child in rig.children.values()))
    for name in SUPPLIERS:
        await rig.control(name, "PUT", "knobs", {})


async def become_quiet(rig: Rig, patience_s: float = QUIET_S) -> Quiet:
    """Until nothing is due, nothing is unknown that a supplier could resolve, and no supplier has anything to come."""
    begin = time.monotonic()
    parked, calm, left = 0, 0, {"not looked": 1}
    hurried_at = begin
    while time.monotonic() - begin < patience_s:
        await asyncio.sleep(0.5)
        try:
            left = await _still_going_on(rig)
            if time.monotonic() - hurried_at > _HURRY_S:
                hurried_at = time.monotonic()
                async with rig.db.transaction() as tx:
                    await execute(tx, _HURRY)
                    parked += await execute(tx, _RETRY)
                    if rig.vendor and time.monotonic() - begin > _PATIENT_S:
                        rig.aged += [r["reference"] for r in await fetch(tx, _A_DAY)]
        except Unavailable:
            left = {"the database did not answer": 1}
        calm = calm + 1 if not left else 0
        if calm == 3:  # fan-out and settlement leave no gap of a second
            return Quiet(time.monotonic() - begin, {}, parked)
    return Quiet(None, left, parked)


async def _still_going_on(rig: Rig) -> dict[str, int]:
    async with rig.db.transaction() as tx:
        found = {r["what"]: int(r["n"]) for r in await fetch(tx, _BUSY)}
        [behind] = await fetch(
            tx,
            """SELECT count(*) AS n FROM events WHERE xid >= (SELECT min(upto_xid) FROM fanout_marks)
            AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint""",
        )
    if behind["n"]:
        found["events not fanned out"] = int(behind["n"])
    for name in SUPPLIERS:
        waiting = await asyncio.to_thread(_timers, rig, name)
        if waiting:
            found[f"{name} has things to come"] = waiting
    return found


def _timers(rig: Rig, supplier: str) -> int:
    """Finishes, reversals, callbacks that the supplier will still send; retries of callbacks that we refused are waited for as well."""
    file = sqlite3.connect(f"file:{rig.folder / f'{supplier}.sqlite'}?mode=ro", uri=True, timeout=5)
    try:
        return int(file.execute("SELECT count(*) FROM timer WHERE due_at < ?", (time.time() + 60,)).fetchone()[0])
    finally:
        file.close()


async def last_words(programs: Programs) -> dict[str, int]:
    """Whatever had no clear answer is sent once more with the same body and number, and so is a sample of what had one."""
    programs.direct = True
    for again in list(programs.unanswered.values()):
        await again()
    numbers = list(programs.known.values())
    unclear = [k for k in numbers if k.order_id is None and not k.refused]
    await _all(unclear, lambda known: _resend(programs, known))
    sample = programs.draw.sample(numbers, min(len(numbers) // 20 + 1, 500))
    await _all([k for k in sample if k.order_id is not None], lambda known: _resend(programs, known))
    return {"unclear": len(unclear), "orders": sum(k.order_id is not None for k in numbers), "numbers": len(numbers)}


async def read_everything(programs: Programs, buyers: Iterable[Buyer]) -> None:
    """The last reads, when all is quiet: by these the judge compares."""
    await _all(list(programs.known.values()), lambda known: _read(programs, known))
    for buyer in buyers:
        for _ in range(_ROUNDS):
            if (await programs.balance(buyer, kind="final_balance")).outcome == "ok":
                break
            await asyncio.sleep(0.5)


async def _resend(programs: Programs, known: Known) -> None:
    await programs.place(known.wanted, kind="final_place", patience_s=30)


async def _read(programs: Programs, known: Known) -> None:
    for _ in range(_ROUNDS):
        said = await programs.get(known, kind="final_get", codes=True)
        if said.outcome != "unclear":
            return
        await asyncio.sleep(0.5)


async def _all(items: list[Known], work: Callable[[Known], Awaitable[None]]) -> None:
    queue = iter(items)

    async def one() -> None:
        for item in queue:
            await work(item)

    await asyncio.gather(*(one() for _ in range(_READERS)))


async def write_facts(rig: Rig, buyers: Iterable[Buyer], **facts: Any) -> None:
    """run.json: what the judge must know besides the logs."""
    async with rig.db.transaction() as tx:
        rows = await fetch(
            tx,
            """SELECT m.name, b.book_id, m.currency FROM merchants m JOIN books b USING (merchant_id) WHERE b.environment = 'test'""",
        )
    books = {r["name"]: r for r in rows}
    merchants = {
        b.name: {"book_id": books[b.name]["book_id"], "currency": books[b.name]["currency"], "endpoint": RECEIVER in rig.children} for b in buyers
    }
    # What no vendor promises is not believed of it either.
    terms = {"idempotent": False, "not_found_grace_s": 1e9} if rig.vendor else {"idempotent": True, "not_found_grace_s": 10}
    suppliers = {name: {"channel": name, **terms} for name in SUPPLIERS}
    facts |= {"vendor": rig.vendor, "aged": rig.aged, **vendors.facts(rig.vendor)}
    (rig.folder / "run.json").write_text(
        json.dumps({"seed": rig.seed, "lease_s": rig.lease_s, "merchants": merchants, "suppliers": suppliers, **facts}, indent=1)
    )

