"""A run's folder made by hand: one good order by default, to be spoilt by a test. Times are seconds since the run began."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.history import History, code_fingerprint
from tests.chaos.judge import judge
from tests.chaos.judge_verdict import Verdict

from kameng_api.simulator.config import Knobs
from kameng_api.simulator.store import open_file

START = 1_700_000_000.0
PRICE, COST = 985_000, 975_000
FUNDED = 10_000_000
ENDS = {"succeeded", "partially_succeeded", "failed", "cancelled"}


class _At(History):
    """A history whose clock is set by hand."""

    at = 0.0

    def _write(self, event: str, request_id: str, facts: Mapping[str, Any]) -> None:
        line = {"event": event, "id": request_id, "wall": START + self.at, "mono": self.at, "facts": facts}
        self._file.write(json.dumps(line).encode() + b"\n")


@dataclass
class Stage:
    """Writes the evidence of a small run. What a test does not say is as it should be."""

    folder: Path
    idempotent: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    house: dict[str, Any] = field(default_factory=dict)
    hooks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = _At(self.folder / "history.jsonl")
        self.sim = open_file(self.folder / "sim-a.sqlite", "NORMAL")
        knobs = Knobs(idempotent=self.idempotent).model_dump_json()
        for name in ("sim-a", "sim-b"):
            self.sim.execute("INSERT INTO supplier VALUES (?,?,?,?,?,?,?)", (name, f"app-{name}", "s" * 16, "primary", "CNY", 0, knobs))
        self.facts = {
            "seed": 1, "commit": "c", "minutes": 0.1, "healed_at": START + 100, "quiet_at": START + 110, "ended_at": START + 120, "lease_s": 10,
            "merchants": {"m1": {"book_id": 16, "currency": "CNY", "endpoint": True}},
            "suppliers": {n: {"channel": n, "not_found_grace_s": 10} for n in ("sim-a", "sim-b")},
        }  # fmt: skip
        self.house = {
            "orders": [], "attempts": [], "incidents": [], "final_events": [], "sums": [{"environment": "test", "currency": "CNY", "net": 0}],
            "chain": [], "balances": [{"book_id": 16, "account": "merchant_available", "currency": "CNY", "balance": 5, "floor": 0,
                                       "version": 2, "sum": 5, "lowest": 0}],
            "workless": [], "stuck": [], "transfers": 4, "second_opinion": [], "stale": [], "trap": True,
        }  # fmt: skip
        self.sim_ids = 0
        self.say("fund", merchant="m1", number="F-1", amount=FUNDED)

    # ---- what clients did

    def say(self, kind: str, at: float = 0.0, outcome: str = "ok", told: Mapping[str, Any] | None = None, **asked: Any) -> None:
        """One request with its answer."""
        self.history.at = at
        request = self.history.invoke(kind, **asked)
        if outcome != "silent":
            getattr(self.history, outcome)(request, **(told or {}))

    def place(self, number: str, at: float = 1.0, **more: Any) -> str:
        """Acknowledged; returns the order id. `fingerprint`, `quantity`, `target`, `outcome`, `order_id`, `replayed` may be given."""
        order_id = more.pop("order_id", f"ord_{number}")
        quantity = more.pop("quantity", 1)
        told = {"order_id": order_id, "status": "accepted", "version": 1, "amount": PRICE * quantity, "unit_price": PRICE}
        told |= {"replayed": more.pop("replayed", False)}
        asked = {"merchant": "m1", "number": number, "fingerprint": "f", "sku": "s", "quantity": quantity, "target": f"t-{number}"} | more
        outcome = asked.pop("outcome", "ok")
        self.say(asked.pop("kind", "place"), at, outcome, told if outcome == "ok" else {}, **asked)
        return order_id

    def read(self, number: str, status: str = "succeeded", at: float = 115.0, **told: Any) -> None:
        """The last look at an order."""
        told = {"order_id": f"ord_{number}", "status": status, "version": 3, "unit_price": PRICE, "refunded": 0, "substatus": None} | told
        self.say("final_get", at, "ok", told, merchant="m1", number=number)

    def balance(self, spent: int, held: int = 0) -> None:
        told = {"available": FUNDED - spent - held, "held": held, "currency": "CNY"}
        self.say("final_balance", 119.0, "ok", told, merchant="m1")

    # ---- what the supplier did

    def place_at(self, reference: str, at: float = 2.0, verdict: str = "SUCCESS", supplier: str = "sim-a") -> None:
        self.asked("place", reference, at, verdict, supplier)

    def asked(self, path: str, reference: str, at: float, verdict: str, supplier: str = "sim-a") -> None:
        values = (START + at, supplier, path, reference, verdict)
        self.sim.execute("INSERT INTO request (at, supplier, path, reference, verdict) VALUES (?,?,?,?,?)", values)

    def called_back(self, reference: str, at: float, status: str, *, acknowledged: bool = True, supplier: str = "sim-a") -> None:
        self.sim.execute(
            "INSERT INTO callback (at, supplier, reference, order_id, status, attempt, answer, acknowledged) VALUES (?,?,?,?,?,?,?,?)",
            (START + at, supplier, reference, 1, status, 1, 200, acknowledged),
        )

    def sold(self, reference: str, at: float = 2.0, status: str = "SUCCESS", units: int = 1, delivered: int | None = None, **more: Any) -> None:
        """An order in the supplier's books; `delivered` units really went out at `at`."""
        supplier, target = more.get("supplier", "sim-a"), more.get("target", "")
        delivered = delivered if delivered is not None else (units if status == "SUCCESS" else 0)
        self.sim_ids += 1
        self.sim.execute(
            """INSERT INTO sim_order (id, supplier, reference, product_code, product_type, units, delivered_units, unit_cost, cost, target,
            callback_url, fields, status, fail_code, said_status, created_at, finished_at) VALUES (?,?,?,'p',?,?,?,?,?,?,'','',?,?,?,?,?)""",
            (
                self.sim_ids, supplier, reference, "card" if more.get("codes") else "topup", units, delivered, COST, COST * delivered, target,
                status, more.get("fail_code", ""), more.get("said_status"), START + at, START + at if status != "PROCESSING" else None,
            ),
        )  # fmt: skip
        for unit in range(delivered):
            code = more["codes"][unit] if more.get("codes") else None
            reversed_at = START + more["reversed_at"] if more.get("reversed_at") else None
            self.sim.execute(
                """INSERT INTO delivery (at, supplier, reference, order_id, unit, product_code, target, receipt, code, pin, reversed_at)
                VALUES (?,?,?,?,?,'p',?,'r',?,?,?)""",
                (START + at, supplier, reference, self.sim_ids, unit + 1, target, code, "1" if code else None, reversed_at),
            )

    # ---- what our database and the receiver saw

    def ours(self, number: str, reference: str, status: str = "succeeded", **more: Any) -> None:
        """The order and one attempt of it, as our tables have them."""
        order_id = f"ord_{number}"
        if not any(o["order_id"] == order_id for o in self.house["orders"]):
            self.house["orders"].append(
                {"order_id": order_id, "book_id": 16, "number": number, "status": status, "substatus": None, "created_at": START + 1,
                 "codes": more.get("codes", 0), "completed_at": START + more.get("completed_at", 50) if status in ENDS else None, "version": 3}
            )  # fmt: skip
        self.house["attempts"].append(
            {"reference": reference, "order_id": order_id, "n": 1, "channel": "sim-a", "state": "delivered", "settled_at": None,
             "sent_at": START + more.get("sent_at", 1.9)}
        )  # fmt: skip

    def hook(self, number: str, kind: str, version: int, at: float = 5.0, **more: Any) -> None:
        status = kind.split(".")[1] if kind != "order.refunded" else "succeeded"
        event_id = more.get("event_id", f"evt_{number}_{version}")
        thing = {"id": f"ord_{number}", "version": version, "object": {"status": status}}
        self.hooks.append(
            {"wall": START + at, "receiver": "m1", "id": event_id, "type": kind, "body": {"id": event_id, "type": kind, "data": thing},
             "verified": more.get("verified", True), "answered": more.get("answered", 204)}
        )  # fmt: skip

    def good_order(self, number: str = "PO-1", reference: str = "R1", quantity: int = 1) -> None:
        """Placed, bought once, delivered, told, read."""
        self.place(number, quantity=quantity)
        self.place_at(reference)
        self.sold(reference, units=quantity, target=f"t-{number}")
        self.ours(number, reference)
        self.hook(number, "order.accepted", 1)
        self.hook(number, "order.succeeded", 3)
        self.read(number, units_delivered=quantity)

    def good_card(self, number: str = "PO-C", reference: str = "RC", codes: tuple[str, ...] = ("A",)) -> None:
        self.place(number, quantity=len(codes), target=None)
        self.place_at(reference)
        self.sold(reference, units=len(codes), codes=codes)
        self.ours(number, reference, codes=len(codes))
        self.hook(number, "order.succeeded", 3)
        self.read(number, units_delivered=len(codes), codes=[code_fingerprint(c, "1") for c in codes])

    def failed_order(self, number: str = "PO-F", reference: str = "RF") -> None:
        """Refused by the only supplier: the money is back."""
        self.place(number)
        self.place_at(reference, verdict="ORDER_REJECTED")
        self.sold(reference, status="FAILED", fail_code="ORDER_REJECTED")
        self.ours(number, reference, "failed")
        self.hook(number, "order.failed", 3)
        self.read(number, "failed")

    def verdicts(self) -> dict[str, Verdict]:
        """The judge's word on what was written so far."""
        (self.folder / "run.json").write_text(json.dumps(self.facts))
        (self.folder / "house.json").write_text(json.dumps(self.house))
        (self.folder / "receiver.jsonl").write_text("".join(json.dumps(h) + "\n" for h in self.hooks))
        (self.folder / "nemesis.jsonl").write_text(json.dumps({"wall": START, "fault": "redis_flush", "event": "start"}) + "\n")
        self.sim.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return {v.invariant: v for v in judge(self.folder)}

