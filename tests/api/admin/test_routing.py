"""What operators say about routing, through their API: kept, shown, audited, in every process within a second, and never a 5xx."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from tests.api.admin.conftest import Hire, Operator, ok
from tests.api.admin.test_catalog import CHANNEL, TOPUP

from kameng_api.catalog import hand
from kameng_api.catalog.hand import Buyer
from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.db import Database, fetch
from kameng_api.suppliers import vitals
from kameng_api.suppliers.routing.facts import Change, Circuit

SKU = "mobile-cn-100"
WHY: dict[str, Any] = {"reason": "agreed on the phone"}


def soon(hours: int = 1) -> str:
    return wire_time(utc_now() + timedelta(hours=hours))


BODIES: dict[str, dict[str, Any]] = {
    "pins": {"channels": ["sim-b", "sim-a"], "hard": True, "sku": SKU},
    "bans": {"channel_id": "sim-a", "level": "gold"},
    "allow-lists": {"channels": ["sim-a"], "sku": SKU},
    "weights": {"channel_id": "sim-a", "sku": SKU, "factor": "1.5"},
    "commitments": {"channel_id": "sim-a", "name": "autumn", "target_amount": "50000", "period": "month", "bonus_rate": "0.005"},
    "maintenance": {"channel_id": "sim-a", "name": "night", "weekdays": [0, 6], "at": "02:00", "minutes": 90},
    "forces": {"channel_id": "sim-a", "state": "open", "expires_at": soon()},
    "stakes": {"level": "gold", "undelivered_rate": "0.05", "second_rate": "0.0002", "premium": True},
    "terms": {
        "channel_id": "sim-a", "regions": ["gd", "bj"], "face_min": "10", "face_max": "500", "quote_ttl_s": 600, "cap": 20, "qps": 5,
        "wallet_floor": "1000", "unqueryable_limit": "200", "qualifications": ["invoice"],
    },
    "needs": {"sku": SKU, "region": "gd", "carrier": "cmcc", "qualifications": ["invoice"]},
}  # fmt: skip
FACTS: dict[str, dict[str, Any]] = {
    "pins": {"channels": ["sim-b", "sim-a"], "hard": True},
    "bans": {},
    "allow-lists": {"channels": ["sim-a"]},
    "weights": {"factor": "1.500000"},
    "commitments": {"target_amount": "50000.0000", "period": "month", "bonus_rate": "0.005000"},
    "maintenance": {"weekdays": [0, 6], "at": "02:00", "minutes": 90, "timezone": "Asia/Shanghai"},
    "forces": {"state": "open"},
    "stakes": {"undelivered_rate": "0.050000", "second_rate": "0.000200", "premium": True},
    "terms": {
        "regions": ["gd", "bj"], "face_min": "10.0000", "face_max": "500.0000", "quote_ttl_s": 600, "cap": 20, "qps": 5,
        "wallet_floor": "1000.0000", "unqueryable_limit": "200.0000", "qualifications": ["invoice"],
    },
    "needs": {"region": "gd", "carrier": "cmcc", "qualifications": ["invoice"]},
}  # fmt: skip


@pytest.fixture
async def desk(admin: Operator) -> Operator:
    """An admin, in a house with one product and two channels."""
    await ok(await admin.put(f"/products/{SKU}", json=TOPUP))
    for channel in ("sim-a", "sim-b"):
        await ok(await admin.post("/channels", json=CHANNEL | {"id": channel}))
    return admin


async def test_everything_is_said_shown_said_again_and_taken_back(desk: Operator, app: FastAPI, database: Database) -> None:
    ids = {}
    for path, body in BODIES.items():
        made = await ok(await desk.put(f"/routing/{path}", json=body | WHY), 201)
        assert (made["facts"], made["reason"], made["made_by"], made["created_at"]) == (FACTS[path], WHY["reason"], "admin", made["updated_at"])
        again = await ok(await desk.put(f"/routing/{path}", json=body | {"reason": "still"}), 200)
        assert (again["id"], again["reason"], again["facts"]) == (made["id"], "still", made["facts"])
        assert await ok(await desk.get(f"/routing/rules/{made['id']}")) == again
        ids[made["kind"]] = made["id"]
    assert set(ids) == set(hand.Kind)

    snapshot = await app.state.door.catalog.refresh()
    now = utc_now()
    gold = Buyer(None, "gold")
    assert hand.pin_of(snapshot.hand, gold, SKU, now) == hand.Pin(("sim-b", "sim-a"), True)
    assert hand.banned_channels(snapshot.hand, gold, SKU, now) == {"sim-a"}
    assert hand.terms_of(snapshot.hand, "sim-a", SKU, now).wallet_floor == 10_000_000
    assert hand.forced_state(snapshot.hand, "sim-a", SKU, now) == "open"

    listed = (await ok(await desk.get("/routing/rules")))["items"]
    assert [one["id"] for one in listed] == list(ids.values())
    assert {one["kind"]: one["counts"] for one in listed} | {"maintenance": True} == dict.fromkeys(hand.Kind, True)
    page = await ok(await desk.get("/routing/rules?channel_id=sim-a&limit=4"))
    rest = await ok(await desk.get(f"/routing/rules?channel_id=sim-a&limit=4&cursor={page['next_cursor']}"))
    assert [one["kind"] for one in page["items"] + rest["items"]] == ["ban", "weight", "commitment", "maintenance", "force", "terms"]
    assert [one["kind"] for one in (await ok(await desk.get("/routing/rules?level=gold&kind=stakes")))["items"]] == ["stakes"]

    for rule_id in ids.values():
        gone = await ok(await desk.delete(f"/routing/rules/{rule_id}"))
        assert (gone["id"], gone["counts"]) == (rule_id, False)
        assert (await desk.delete(f"/routing/rules/{rule_id}")).status_code == 404
    assert (await ok(await desk.get("/routing/rules?over=true")))["items"] == []
    assert hand.pin_of((await app.state.door.catalog.refresh()).hand, gold, SKU, now) is None
    async with database.transaction() as tx:
        rows = await fetch(tx, "SELECT action, count(*) AS n FROM audit_entries WHERE action LIKE 'routing.%' GROUP BY 1")
    assert {r["action"]: r["n"] for r in rows} == {f"routing.{k}_set": 2 for k in hand.Kind} | {f"routing.{k}_removed": 1 for k in hand.Kind}
    of_channel = (await ok(await desk.get("/audit?subject=channel:sim-a")))["items"]
    assert of_channel[0]["facts"]["reason"] == "still"


async def test_a_merchants_own_list(desk: Operator) -> None:
    shop = (await ok(await desk.post("/merchants", json={"name": "shop"})))["id"]
    made = await ok(await desk.put("/routing/allow-lists", json={"merchant_id": shop, "channels": ["sim-a"], **WHY}), 201)
    assert made["merchant_id"] == shop
    found = (await ok(await desk.get(f"/routing/rules?merchant_id={shop}")))["items"]
    assert [one["id"] for one in found] == [made["id"]]
    stranger = {"merchant_id": "mer_01JD0000000000000000000009", "channels": ["sim-a"], **WHY}
    assert (await desk.put("/routing/allow-lists", json=stranger)).json()["errors"][0]["pointer"] == "/merchant_id"


async def test_support_closes_what_hurts_and_undoes_no_agreement(hire: Hire, desk: Operator) -> None:
    support = await hire("support")
    await ok(await support.put("/routing/forces", json=BODIES["forces"] | WHY), 201)
    ban = await ok(await support.put("/routing/bans", json=BODIES["bans"] | WHY), 201)
    await ok(await support.put("/routing/maintenance", json=BODIES["maintenance"] | WHY), 201)
    assert (await support.put("/routing/pins", json=BODIES["pins"] | WHY)).json()["code"] == "role_missing"
    pin = await ok(await desk.put("/routing/pins", json=BODIES["pins"] | WHY), 201)
    refused = await support.delete(f"/routing/rules/{pin['id']}")
    assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    assert (await desk.get(f"/routing/rules/{pin['id']}")).status_code == 200, "what was refused has not happened"
    await ok(await support.delete(f"/routing/rules/{ban['id']}"))


@pytest.mark.parametrize(
    ("path", "change", "status", "pointers"),
    [
        ("pins", {"channels": ["sim-a", "nowhere"]}, 422, ["/channels/1"]),
        ("pins", {"channels": []}, 422, ["/channels"]),
        ("pins", {"channel_id": "sim-a"}, 422, ["/channel_id"]),
        ("pins", {"sku": "nothing"}, 404, []),
        ("bans", {"channel_id": "nowhere"}, 404, []),
        ("bans", {"merchant_id": "mer_01JD0000000000000000000009"}, 422, ["/level"]),
        ("bans", {"merchant_id": "gold"}, 404, []),
        ("bans", {"reason": ""}, 422, ["/reason"]),
        ("bans", {"reason": " "}, 422, ["/reason"]),
        ("bans", {"expires_at": "2026-11-22T12:00:00"}, 422, ["/expires_at"]),
        ("bans", {"expires_at": "2020-01-01T00:00:00Z"}, 422, ["/expires_at"]),
        ("weights", {"factor": 1.5}, 422, ["/factor"]),
        ("weights", {"factor": "10.1"}, 422, ["/factor"]),
        ("commitments", {"target_units": 5}, 422, ["/target_units"]),
        ("commitments", {"target_amount": "0"}, 422, ["/target_amount"]),
        ("commitments", {"period": "year"}, 422, ["/period"]),
        ("maintenance", {"weekdays": [7]}, 422, ["/weekdays"]),
        ("maintenance", {"at": "24:00"}, 422, ["/at"]),
        ("maintenance", {"timezone": "../etc/passwd"}, 422, ["/timezone"]),
        ("maintenance", {"weekdays": []}, 422, ["/weekdays"]),
        ("forces", {"expires_at": None}, 422, ["/expires_at"]),
        ("forces", {"expires_at": soon(24 * 40)}, 422, ["/expires_at"]),
        ("terms", {"sku": SKU}, 422, ["/cap", "/qps", "/wallet_floor", "/unqueryable_limit"]),
        ("terms", {"regions": []}, 422, ["/regions"]),
        ("needs", {"region": "广东 省"}, 422, ["/region"]),
        ("needs", {"sku": None}, 422, ["/sku"]),
    ],
)
async def test_mistakes_are_told_with_their_places(
    desk: Operator, path: str, change: dict[str, Any], status: int, pointers: list[str]
) -> None:
    answer = await desk.put(f"/routing/{path}", json=BODIES[path] | WHY | change)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [e["pointer"] for e in answer.json().get("errors", [])] == pointers
    assert (await ok(await desk.get("/routing/rules?over=true")))["items"] == []


HOSTILE: list[Any] = [
    None, True, -1, 2**31, 10**19, 1.5, "", "x" * 5000, "'; DROP TABLE routing_rules --", "\u202e", "💥" * 70, "999999999999.9999",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30T00:00:00Z", "00:00:00.1", [], {}, [{}], ["x"] * 101, ["sim-a"] * 2,
]  # fmt: skip
EVERYWHERE = {"starts_at", "expires_at", "sku", "merchant_id", "level", "name", "odd"}
"""Read alike for every kind: tried with one of them."""


@pytest.mark.parametrize("path", BODIES)
async def test_no_input_breaks_it(desk: Operator, path: str) -> None:
    body = BODIES[path] | WHY
    names = {*body, *EVERYWHERE} if path == "bans" else set(body) - {"channel_id", "reason", *EVERYWHERE}
    for name in sorted(names):
        for value in HOSTILE:
            answer = await desk.put(f"/routing/{path}", json=body | {name: value})
            assert answer.status_code in (200, 201, 404, 422), (name, value, answer.text)
    for query in ("kind=x", "channel_id=%00", "sku='", "merchant_id=x", "merchant_id=%00", "level=%ff", "over=2", "limit=0", "cursor=x"):
        answer = await desk.get(f"/routing/rules?{query}")
        assert answer.status_code in (400, 404, 422), (query, answer.text)
    listed = await desk.get("/routing/rules?over=true&limit=100")
    assert listed.status_code == 200, listed.text
    for one in listed.json()["items"]:
        assert (await desk.delete(f"/routing/rules/{one['id']}")).status_code == 200
    assert (await desk.get("/routing/rules/rul_x")).status_code == 404


async def test_what_was_let_in_can_be_asked(desk: Operator, app: FastAPI) -> None:
    """The largest and smallest of everything, so that no router stumbles over what an operator may say."""
    extremes: dict[str, dict[str, Any]] = {
        "weights": {"channel_id": "sim-a", "factor": "0"},
        "commitments": {"channel_id": "sim-a", "target_units": 1, "period": "week", "bonus_rate": "1"},
        "maintenance": {"channel_id": "sim-a", "weekdays": list(range(7)), "at": "23:59", "minutes": 1440, "timezone": "Pacific/Apia"},
        "terms": {"channel_id": "sim-a", "face_min": "0.0001", "face_max": "99999999999", "cap": 1, "qps": 1, "wallet_floor": "0"},
    }
    for path, body in extremes.items():
        await ok(await desk.put(f"/routing/{path}", json=body | WHY | {"starts_at": "2000-01-01T00:00:00Z", "expires_at": "2099-12-31T23:59:59Z"}))
    rules = (await app.state.door.catalog.refresh()).hand
    now = utc_now()
    assert hand.weight_of(rules, "sim-a", SKU, now) == 0.0
    wait_s = hand.maintenance_in_s(rules, "sim-a", SKU, now)
    assert wait_s is not None and wait_s <= 0, "one window begins as the last one ends"
    assert len(hand.commitments_of(rules, "sim-a", SKU, now)) == 1


async def test_when_circuits_opened_and_closed(desk: Operator, database: Database) -> None:
    at = utc_now() - timedelta(minutes=5)
    async with database.transaction() as tx:
        for n, (sku, state) in enumerate([(None, Circuit.OPEN), (SKU, Circuit.OPEN), (None, Circuit.CLOSED)]):
            when = at + timedelta(seconds=n)
            change = Change("sim-a", sku, state, when.timestamp(), 7.5, 3, 2)
            assert await vitals.record_transitions(tx, [vitals.Transition(change, when)])
    page = await ok(await desk.get("/routing/transitions?channel_id=sim-a&limit=2"))
    assert [(one["sku"], one["state"]) for one in page["items"]] == [(None, "closed"), (SKU, "open")]
    rest = await ok(await desk.get(f"/routing/transitions?channel_id=sim-a&limit=2&cursor={page['next_cursor']}"))
    assert [(one["sku"], one["state"], one["reason"]) for one in rest["items"]] == [(None, "open", "7.5 nats: 3 failures, 2 late answers")]
    assert len((await ok(await desk.get(f"/routing/transitions?sku={SKU}")))["items"]) == 1
    assert (await ok(await desk.get("/routing/transitions?channel_id=sim-b")))["items"] == []
