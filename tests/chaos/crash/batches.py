"""Stories about many orders at once: a file that is imported, one that cannot be read, and batches that are all or nothing."""

import asyncio
import csv
import io
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any, Final

from tests.chaos.crash.scenarios import NOBODY, PATIENCE_S, PLAIN, Story, Told, insist, until_true
from tests.chaos.crash.stage import Lane

from kameng_api.kit.ids import parse_public_id
from kameng_api.kit.money import parse_amount

_COLUMNS: Final = ("merchant_order_no", "sku", "target", "quantity", "remark")
_GOOD: Final = {2: ("phone", PLAIN, "succeeded"), 3: ("card", "", "succeeded"), 5: ("phone", PLAIN, "succeeded"), 8: ("phone", NOBODY, "failed")}
"""Line of the file → product, target, and how its order must end."""
_BAD: Final = {
    4: ("phone", "1.38E+10", "1", "scientific_notation"),
    6: ("phone", PLAIN, "0", "validation_failed"),
    7: ("nothing", PLAIN, "1", "product_unavailable"),
}
"""Line of the file → product, target, quantity, and why it is no order."""
_LINES: Final = sorted([*_GOOD, *_BAD])
_TROUBLE: Final = """
CREATE OR REPLACE FUNCTION trouble_of_batches() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM batches WHERE book_id = NEW.book_id AND batch_id = NEW.batch_id AND merchant_batch_no LIKE '%-poisoned') THEN
    RAISE EXCEPTION 'trouble'; END IF;
  RETURN NEW; END $$;
CREATE OR REPLACE TRIGGER trouble_of_batches BEFORE INSERT ON batch_items FOR EACH ROW EXECUTE FUNCTION trouble_of_batches()
"""


# ---- what a merchant does ------------------------------------------------------------------------------------------------


def _number(lane: Lane) -> str:
    lane.orders += 1
    return f"B-{lane.orders}"


async def _sent(lane: Lane, told: Told, path: str, number: str, body: Any, **headers: str) -> str:
    """The batch's id; sent until there is an answer, and then once more: that is the same batch."""
    answer = await insist(lambda: lane.client.send("POST", path, body, headers=headers), 200, 202)
    again = await insist(lambda: lane.client.send("POST", path, body, headers=headers), 200)
    assert (again.headers["Idempotent-Replayed"], again.json()["id"]) == ("true", answer.json()["id"])
    told.batches[number] = answer.json()["id"]
    return told.batches[number]


async def _import(lane: Lane, told: Told, number: str, content: bytes, filename: str = "orders.csv") -> str:
    path = f"/v1/order-imports?merchant_batch_no={number}&filename={filename}"
    return await _sent(lane, told, path, number, content, **{"Content-Type": "application/octet-stream"})


async def _post(lane: Lane, told: Told, number: str, items: Sequence[dict[str, Any]], **options: str) -> str:
    return await _sent(lane, told, "/v1/order-batches", number, {"merchant_batch_no": number, "items": list(items), **options})


async def _shown(lane: Lane, batch_id: str, below: str = "") -> dict[str, Any]:
    found: dict[str, Any] = (await insist(lambda: lane.client.get(f"/v1/order-batches/{batch_id}{below}"))).json()
    return found


async def _until(lane: Lane, batch_id: str, *statuses: str) -> dict[str, Any]:
    """The batch, once it stands so."""
    async with asyncio.timeout(PATIENCE_S):
        while (shown := await _shown(lane, batch_id))["status"] not in statuses:
            assert shown["failure"] is None or "failed" in statuses, shown
            await lane.hurry()
            await asyncio.sleep(0.03)
    return shown


async def _money(lane: Lane) -> tuple[int, int]:
    """(to spend, held), in 1/10000 units."""
    shown = (await insist(lambda: lane.client.get("/v1/balance"))).json()
    return parse_amount(shown["available"]), parse_amount(shown["held"])


# ---- what must be so in the end ------------------------------------------------------------------------------------------


def _same(what: str, found: object, wanted: object) -> None:
    assert found == wanted, f"{what}: {found}, and not {wanted}"


async def _settled_with(lane: Lane, told: Told, ids: Sequence[str]) -> None:
    """What the merchant can spend less is the price of what was delivered to him, and nothing is held any more."""
    orders = {i["order_id"]: i for batch_id in ids for i in (await _shown(lane, batch_id, "/items?limit=100"))["items"] if i["order_id"]}
    spent = sum(parse_amount(i["amount"]) for i in orders.values() if i["status"] == "succeeded")
    _same("the balance", await _money(lane), (told.before - spent, 0))


async def _told_of(lane: Lane, batch_id: str) -> None:
    """Its merchant heard once how it ended, and each of its versions is one event."""
    shown = await _shown(lane, batch_id)
    events = {t["id"]: t for t in lane.world.receiver.told.get(lane.name, ()) if t["data"]["object"].get("id") == batch_id}
    ends = [t for t in events.values() if t["type"] == "batch.completed"]
    _same("told once how it ended", [t["data"]["object"]["status"] for t in ends], [shown["status"]])
    _same("each version is one event", max(Tally(t["data"]["version"] for t in events.values()).values()), 1)
    _same("told once that it was checked", sum(t["type"] == "batch.validated" for t in events.values()), int(shown["validated_at"] is not None))


async def _numbers(lane: Lane, like: str) -> list[str]:
    rows = await lane.owner.fetch("SELECT merchant_order_no AS number FROM orders WHERE merchant_order_no LIKE $1 ORDER BY 1", f"{like}-%")
    return [r["number"] for r in rows]


async def _result(lane: Lane, batch_id: str, which: str) -> list[dict[str, str]]:
    """A result file as its reader sees it."""
    answer = await insist(lambda: lane.client.get(f"/v1/order-batches/{batch_id}/results/{which}?format=csv"))
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""), strict=True))


# ---- a file with good rows and bad ones ----------------------------------------------------------------------------------


def _file(number: str) -> bytes:
    rows = {line: (f"{number}-{line}", sku, target, "1", f"row {line}") for line, (sku, target, _) in _GOOD.items()}
    rows |= {line: (f"{number}-{line}", sku, target, quantity, f"row {line}") for line, (sku, target, quantity, _) in _BAD.items()}
    return "\r\n".join(",".join(row) for row in (_COLUMNS, *(rows[line] for line in _LINES))).encode()


async def _imported(lane: Lane, told: Told) -> None:
    """Imported, and when it is over imported again under another number; beside it a file that is none."""
    told.before, _ = await _money(lane)
    number = _number(lane)
    content = _file(number)
    unread = await _import(lane, told, f"{number}-unread", b"not a workbook", "orders.xlsx")
    told.ends |= {f"{number}-{line}": ends for line, (_, _, ends) in _GOOD.items()}
    await _until(lane, await _import(lane, told, number, content), "completed_with_errors")
    again = await _import(lane, told, f"{number}-again", content)
    await _until(lane, again, "completed_with_errors")
    shown = await _shown(lane, unread)
    assert (shown["status"], shown["failure"]["code"], shown["progress"]["total"]) == ("failed", "not_a_spreadsheet", 0), shown


async def _all_there(lane: Lane, told: Told) -> None:
    """Each good row is one order, each bad one is explained, and the same file again has bought nothing."""
    number, again = (n for n in told.batches if not n.endswith("-unread"))
    _same("each good row is one order", await _numbers(lane, number), sorted(told.ends))
    rows = await lane.owner.fetch("SELECT merchant_order_no, status FROM orders WHERE merchant_order_no = ANY ($1)", list(told.ends))
    ended = {r["merchant_order_no"]: r["status"] for r in rows}
    orders: dict[int, str] = {}
    for name in (number, again):
        batch_id = told.batches[name]
        items = (await _shown(lane, batch_id, "/items?limit=100"))["items"]
        _same("each row stands there once", [i["line_no"] for i in items], _LINES)
        good, bad = [i for i in items if i["line_no"] in _GOOD], [i for i in items if i["line_no"] in _BAD]
        shown = [(i["merchant_order_no"], i["status"], i["duplicate"]) for i in good]
        _same(f"the good rows of {name}", shown, [(n, ended[n], name == again) for n in (f"{number}-{line}" for line in _GOOD)])
        wrong = [(i["status"], i["error"]["code"], bool(i["error"]["detail"]), i["order_id"]) for i in bad]
        _same(f"the bad rows of {name}", wrong, [("invalid", code, True, None) for *_, code in _BAD.values()])
        bought = {i["line_no"]: i["order_id"] for i in good}
        _same("the same file again is the same orders", bought, orders or bought)
        _same("an order of its own for each row", len(set(bought.values())), len(_GOOD))
        orders = bought
        await _counted(lane, batch_id, list(ended.values()), len(_GOOD) if name == again else 0)
        await _files_whole(lane, number, batch_id, items)
    for batch_id in told.batches.values():
        await _told_of(lane, batch_id)
    ids = [parse_public_id("bat", batch_id) for batch_id in told.batches.values()]
    _same("a file that was read is let go", await lane.owner.fetchval("SELECT count(*) FROM batch_files WHERE batch_id = ANY ($1)", ids), 0)
    await _settled_with(lane, told, [told.batches[number]])


async def _counted(lane: Lane, batch_id: str, ended: Sequence[str], duplicates: int) -> None:
    shown = (await _shown(lane, batch_id))["progress"]
    wanted = {
        "total": len(_LINES), "valid": len(_GOOD), "invalid": len(_BAD), "accepted": len(_GOOD), "duplicates": duplicates, "processing": 0,
        "succeeded": ended.count("succeeded"), "failed": ended.count("failed"), "unprocessed": 0, "percent": 100,
    }  # fmt: skip
    _same("the counts", {name: shown[name] for name in wanted}, wanted)


async def _files_whole(lane: Lane, number: str, batch_id: str, items: Sequence[dict[str, Any]]) -> None:
    """Together the result files hold each row once, as it was sent and with what became of it; the retry file, what did not end well."""
    sent = list(csv.reader(io.StringIO(_file(number).decode(), newline="")))[1:]
    expected = {
        str(i["line_no"]): (*cells, i["order_id"] or "", i["status"], i["error"]["code"] if i["error"] else "")
        for i, cells in zip(items, sent, strict=True)
    }
    found = [row for which in ("succeeded", "failed", "unprocessed") for row in await _result(lane, batch_id, which)]
    told = {row["line_no"]: tuple(row[c] for c in (*_COLUMNS, "order_id", "status", "error_code")) for row in found}
    _same("the result files", (told, len(found)), (expected, len(_LINES)))
    retry = [row["merchant_order_no"] for row in await _result(lane, batch_id, "retry")]
    # an order that was made and failed has used its number up
    wanted = [f"{number}-{i['line_no']}" + ("-r1" if i["order_id"] else "") for i in items if i["status"] != "succeeded"]
    _same("the retry file", retry, wanted)


# ---- all or nothing ------------------------------------------------------------------------------------------------------


def _phones(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"sku": "phone", "target": PLAIN, **more} for _ in range(n)]


async def _at_once(lane: Lane, told: Told) -> None:
    """One batch is placed as a whole; of the next the merchant himself orders one row otherwise before he confirms; the third he cancels."""
    told.before, _ = await _money(lane)
    number = _number(lane)
    whole, none, dropped = f"{number}-whole", f"{number}-none", f"{number}-dropped"
    manual = {"mode": "all_or_nothing", "confirm": "manual"}
    for name in (whole, none, dropped):
        await _post(lane, told, name, _phones(3), **manual)
    for name in (whole, none, dropped):
        await _until(lane, told.batches[name], "validated")
    other = {"merchant_order_no": f"{none}-2", "sku": "card"}
    await insist(lambda: lane.client.post("/v1/orders", other))
    told.ends[f"{none}-2"] = "succeeded"
    for name in (whole, none):
        await insist(lambda name=name: lane.client.post(f"/v1/order-batches/{told.batches[name]}/confirm"))  # type: ignore[misc]
    told.ends |= {f"{whole}-{line}": "succeeded" for line in (1, 2, 3)}
    await insist(lambda: lane.client.post(f"/v1/order-batches/{told.batches[dropped]}/cancel"))
    await _poisoned(lane, told, f"{number}-poisoned")
    await _until(lane, told.batches[none], "failed")
    await _until(lane, told.batches[whole], "completed", "completed_with_errors")


async def _poisoned(lane: Lane, told: Told, number: str) -> None:
    """The database refuses a batch for a while, and it is tried again."""
    await lane.owner.execute(_TROUBLE)
    try:
        batch_id = parse_public_id("bat", await _post(lane, told, number, _phones(2)))
        await until_true(lane, "SELECT trouble IS NOT NULL FROM tasks WHERE lane = 'batch' AND ref = $1", batch_id)
    finally:
        await lane.owner.execute("DROP TRIGGER trouble_of_batches ON batch_items")
    told.ends |= {f"{number}-{line}": "succeeded" for line in (1, 2)}


async def _whole_or_not(lane: Lane, told: Told) -> None:
    whole, none, dropped, poisoned = told.batches
    states = [(await _shown(lane, told.batches[name])) for name in (whole, none, dropped, poisoned)]
    taken = f"{none}-2"
    _same("all of it was bought", await _numbers(lane, whole), [f"{whole}-{line}" for line in (1, 2, 3)])
    _same("none of it was bought", await _numbers(lane, none), [taken])
    _same("dropped before anything was bought", await _numbers(lane, dropped), [])
    _same("bought in the end", await _numbers(lane, poisoned), [f"{poisoned}-{line}" for line in (1, 2)])
    ends = [(s["status"].removesuffix("_with_errors"), s["failure"] and s["failure"]["code"]) for s in states]
    _same("how they ended", ends, [("completed", None), ("failed", "merchant_order_no_conflict"), ("cancelled", None), ("completed", None)])
    rows = [[i["status"] for i in (await _shown(lane, told.batches[name], "/items"))["items"]] for name in (none, dropped)]
    _same("their rows", rows, [["unprocessed", "refused", "unprocessed"], ["unprocessed"] * 3])
    left = [[r["line_no"] for r in await _result(lane, told.batches[name], "unprocessed")] for name in (whole, none, dropped)]
    _same("their result files", left, [[], ["1", "3"], ["1", "2", "3"]])
    for batch_id in told.batches.values():
        await _told_of(lane, batch_id)
    card = (await insist(lambda: lane.client.get(f"/v1/orders/by-merchant-no/{taken}"))).json()
    told.before -= parse_amount(card["amount"]) if card["status"] == "succeeded" else 0
    await _settled_with(lane, told, [told.batches[name] for name in (whole, poisoned)])


STORIES: Final = (
    Story("imported", _imported, check=_all_there),
    Story("at_once", _at_once, check=_whole_or_not),
)
