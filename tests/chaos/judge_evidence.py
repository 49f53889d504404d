"""What a run left behind, read into values: the clients' history, the suppliers' own files, the receivers' log, and what only our database shows.

No check is made here. An order of the clients is a `Case`: what was asked and told, and what the suppliers say they did about it.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.chaos.history import FINAL_STATUSES, Request, code_fingerprint, read_history

from kameng_api.simulator.protocol import FAIL_CODES

GRACE_S: Final = 10.0
_DAY_S: Final = 86_400.0
"""How long "not found" proves nothing, where run.json does not say."""
_CALL_S: Final = 5.0
"""A callback is written down when it has been answered; so much earlier it may have been believed."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a supplier wrote down at `at` (seconds since 1970): a request with its verdict, or a callback with its status."""

    at: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit that really was delivered."""

    at: float
    target: str
    code: str | None
    reversed_at: float | None


@dataclass(slots=True)
class Sold:
    """All that one supplier knows of one of our references."""

    supplier: str
    reference: str
    places: list[Happening] = field(default_factory=list)
    queries: list[Happening] = field(default_factory=list)
    callbacks: list[Happening] = field(default_factory=list)
    heard: list[Happening] = field(default_factory=list)
    """Callbacks that were acknowledged."""
    orders: list[Mapping[str, Any]] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    noes: frozenset[str] = frozenset(("FAILED",))
    """The verdicts that its protocol tells as a no; of some vendors also that a delivery was taken back."""

    @property
    def first_at(self) -> float:
        return self.places[0].at if self.places else self.units[0].at if self.units else float("inf")

    def said_no_at(self, grace_s: float, sent_at: float | None, *, call_s: float = _CALL_S) -> list[float]:
        """When this supplier had said for certain that nothing more will come of it; empty: never.

        A callback is written down when it was answered, so its no may have been heard up to `call_s` before.
        """
        found = [p.at for p in self.places if p.verdict.removeprefix("repeated ") in FAIL_CODES | {"FAILED"}]
        found += [q.at for q in self.queries if q.verdict in self.noes]
        found += [c.at - call_s for c in self.callbacks if c.verdict in self.noes]
        since = sent_at if sent_at is not None else self.first_at
        found += [q.at for q in self.queries if q.verdict == "ORDER_NOT_FOUND" and q.at >= since + grace_s]
        if self.places and all(p.verdict == "RATE_LIMITED" for p in self.places):
            found.append(self.places[-1].at)
        return sorted(found)

    def freed_at(self, grace_s: float, sent_at: float | None) -> float | None:
        """The earliest moment from which another may be asked for what is still missing: a certain no, or a final delivery of fewer units."""
        found = self.said_no_at(grace_s, sent_at)
        found += [o["finished_at"] for o in self.orders if o["finished_at"] and 0 < o["delivered_units"] < o["units"]]
        return min(found) if found else None

    def lied(self, grace_s: float, sent_at: float | None) -> bool:
        """It said a certain no and delivered after it: its own fault, which must show as an incident."""
        said = self.said_no_at(grace_s, sent_at, call_s=0.0)
        return bool(said) and any(u.at > said[0] for u in self.units)

    @property
    def unsaid(self) -> bool:
        """It delivered, and afterwards told us for certain that it had not. Where its yes was lost on the way, its no is all that we heard."""
        said = [c.at for c in self.heard if c.verdict in self.noes] + [q.at for q in self.queries if q.verdict in self.noes]
        return bool(said) and any(u.at <= max(said) for u in self.units)


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook as it arrived. `version` and `thing` from its data; `thing` is the id of what it is about."""

    wall: float
    receiver: str
    event_id: str
    type: str
    thing: str
    version: int
    status: str | None
    verified: bool
    answered: int

    @property
    def taken(self) -> bool:
        return 200 <= self.answered < 300


@dataclass(slots=True)
class Case:
    """One order number of one merchant. `final` is the last final_get that was answered ok."""

    merchant: str
    number: str
    places: list[Request] = field(default_factory=list)
    finals: list[Request] = field(default_factory=list)
    replays: list[Request] = field(default_factory=list)
    """final_place: the same number and body once more."""
    refunds: list[Request] = field(default_factory=list)
    gets: list[Request] = field(default_factory=list)
    order_ids: set[str] = field(default_factory=set)
    ours: Mapping[str, Any] | None = None
    rows: list[str] = field(default_factory=list)
    """Ids of all orders that our table has under this number."""
    attempts: list[Mapping[str, Any]] = field(default_factory=list)
    sold: list[Sold] = field(default_factory=list)
    incidents: list[str] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.merchant}/{self.number} ({', '.join(sorted(self.order_ids)) or 'no id'})"

    @property
    def acknowledged(self) -> bool:
        return any(p.is_ok for p in self.places)

    @property
    def final(self) -> Request | None:
        return next((r for r in reversed(self.finals) if r.is_ok), None)

    @property
    def order_id(self) -> str | None:
        return min(self.order_ids) if self.order_ids else None

    @property
    def status(self) -> str | None:
        return self.final.told.get("status") if self.final else None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES

    @property
    def quantity(self) -> int:
        return int(self.places[0].asked.get("quantity", 1)) if self.places else 1

    @property
    def unit_price(self) -> int | None:
        """As first told, 1/10000 units."""
        for request in (*self.places, *self.replays, *self.finals):
            if not request.is_ok:
                continue
            if request.told.get("unit_price") is not None:
                return int(request.told["unit_price"])
            if request.told.get("amount") is not None:
                return int(request.told["amount"]) // self.quantity
        return None

    @property
    def born_late(self) -> bool:
        """Only the last repetition created it, when all had become quiet: nothing can be asked about its end."""
        return not self.acknowledged and any(r.is_ok and not r.told.get("replayed") for r in self.replays)

    @property
    def delivered(self) -> int:
        """Units that the suppliers really delivered."""
        return sum(len(s.units) for s in self.sold)


@dataclass
class Run:
    """A whole run. What could not be read is named in `missing`, and the checks that need it are red."""

    facts: Mapping[str, Any]
    requests: list[Request]
    sold: dict[tuple[str, str], Sold]
    hooks: list[Hook]
    faults: list[Mapping[str, Any]]
    house: Mapping[str, Any]
    idempotent: Mapping[str, bool]
    missing: list[str]

    @cached_property
    def attempts(self) -> dict[str, Mapping[str, Any]]:
        """Our own table of attempts: the one link between a reference and an order that needs our word. Targets check it."""
        return {a["reference"]: a for a in self.house.get("attempts", ())}

    def grace_s(self, supplier: str) -> float:
        return float(self.facts.get("suppliers", {}).get(supplier, {}).get("not_found_grace_s", GRACE_S))

    def sent_at(self, reference: str) -> float | None:
        attempt = self.attempts.get(reference)
        return None if attempt is None else float(attempt["sent_at"])

    def has_endpoint(self, merchant: str) -> bool:
        return bool(self.facts.get("merchants", {}).get(merchant, {}).get("endpoint"))

    @cached_property
    def cases(self) -> list[Case]:
        """Every order number that was ever asked for, with all that is known about it."""
        cases: dict[tuple[str, str], Case] = {}
        by_id: dict[str, Case] = {}
        for request in self.requests:
            if request.kind in ("place", "final_place", "final_get", "get") and request.asked.get("number"):
                key = str(request.asked.get("merchant")), str(request.asked["number"])
                case = cases.setdefault(key, Case(*key))
                _into(case, request)
                if request.is_ok and request.told.get("order_id"):
                    case.order_ids.add(request.told["order_id"])
                    by_id.setdefault(request.told["order_id"], case)
        self._join(cases.values(), by_id)
        return list(cases.values())

    def _join(self, cases: Collection[Case], by_id: dict[str, Case]) -> None:
        by_number = {(case.merchant, case.number): case for case in cases}
        merchants = {facts["book_id"]: name for name, facts in self.facts.get("merchants", {}).items()}
        for row in self.house.get("orders", ()):
            case = by_id.get(row["order_id"]) or by_number.get((merchants.get(row.get("book_id"), ""), row.get("number", "")))
            if case is not None:
                by_id[row["order_id"]] = case
                case.rows.append(row["order_id"])
                if case.ours is None or row["order_id"] == case.order_id:
                    case.ours = row
        for incident in self.house.get("incidents", ()):
            if incident["order_id"] in by_id:
                by_id[incident["order_id"]].incidents.append(incident["kind"])
        for attempt in self.attempts.values():
            if attempt["order_id"] in by_id:
                by_id[attempt["order_id"]].attempts.append(attempt)
        for sold in self.sold.values():
            order_id = str(self.attempts.get(sold.reference, {}).get("order_id"))
            if order_id in by_id:
                by_id[order_id].sold.append(sold)
        for request in self.requests:
            if request.kind in ("refund", "get", "final_get") and not request.asked.get("number") and request.asked.get("order_id") in by_id:
                _into(by_id[request.asked["order_id"]], request)
        for hook in self.hooks:
            if hook.thing in by_id:
                by_id[hook.thing].hooks.append(hook)
        for case in by_id.values():
            case.sold.sort(key=lambda s: s.first_at)


def _into(case: Case, request: Request) -> None:
    match request.kind:
        case "place":
            case.places.append(request)
        case "final_place":
            case.replays.append(request)
        case "final_get":
            case.finals.append(request)
        case "refund":
            case.refunds.append(request)
        case "get":
            case.gets.append(request)


def read_run(folder: Path) -> Run:
    """Everything in a run's folder. What is not there is named, never guessed. Raises HistoryDamaged."""
    missing: list[str] = []
    for name in ("history.jsonl", "run.json", "receiver.jsonl", "house.json"):
        if not (folder / name).exists():
            missing.append(name)
    files = sorted(folder.glob("sim-*.sqlite"))
    if not files:
        missing.append("sim-*.sqlite")
    sold: dict[tuple[str, str], Sold] = {}
    idempotent: dict[str, bool] = {}
    facts = _json(folder / "run.json")
    for file in files:
        _read_supplier(file, facts, sold, idempotent)
    for name, supplier in facts.get("suppliers", {}).items():
        if "idempotent" in supplier:
            idempotent[name] = bool(supplier["idempotent"])
    requests = read_history(folder / "history.jsonl") if (folder / "history.jsonl").exists() else []
    hooks = [h for line in _lines(folder / "receiver.jsonl") if (h := _hook(line)) is not None]
    house = _json(folder / "house.json")
    aged = Counter(facts.get("aged", ()))
    for attempt in house.get("attempts", ()):
        attempt["sent_at"] += _DAY_S * aged[attempt["reference"]]
    return Run(facts, requests, sold, hooks, list(_lines(folder / "nemesis.jsonl")), house, idempotent, missing)


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_bytes()) if file.exists() else {}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        for text in file.read_bytes().split(b"\n"):
            if text.endswith(b"}"):
                yield json.loads(text)


def _hook(line: Mapping[str, Any]) -> Hook | None:
    data = line["body"].get("data") or {}
    thing = data.get("object") or {}
    if not data.get("id"):
        return None
    return Hook(
        line["wall"], str(line.get("receiver", "")), line["id"], line["type"], data["id"], int(data.get("version", 0)),
        thing.get("status"), bool(line.get("verified", True)), int(line["answered"]),
    )  # fmt: skip


def _read_supplier(file: Path, facts: Mapping[str, Any], sold: dict[tuple[str, str], Sold], idempotent: dict[str, bool]) -> None:
    """One simulator's file: the ground truth. Each account in it is a supplier of its own."""
    noes = frozenset(("FAILED", "REVERSED") if facts.get("reversed_is_failed") else ("FAILED",))
    pins = facts.get("cards_have_pins", True)
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        for row in db.execute("SELECT name, knobs FROM supplier"):
            idempotent[row["name"]] = bool(json.loads(row["knobs"]).get("idempotent", True))

        def of(row: sqlite3.Row) -> Sold:
            key = row["supplier"], row["reference"]
            return sold.setdefault(key, Sold(*key, noes=noes))

        for row in db.execute("SELECT at, supplier, path, reference, verdict FROM request WHERE reference <> '' ORDER BY id"):
            one = of(row)
            (one.places if row["path"] == "place" else one.queries).append(Happening(row["at"], row["verdict"]))
        for row in db.execute("SELECT * FROM sim_order ORDER BY id"):
            of(row).orders.append(dict(row))
        for row in db.execute("SELECT * FROM delivery ORDER BY id"):
            code = None if row["code"] is None else code_fingerprint(row["code"], row["pin"] if pins else None)
            of(row).units.append(Unit(row["at"], row["target"], code, row["reversed_at"]))
        for row in db.execute("SELECT at, supplier, reference, status, acknowledged FROM callback ORDER BY id"):
            one = of(row)
            one.callbacks.append(Happening(row["at"], row["status"]))
            if row["acknowledged"]:
                one.heard.append(Happening(row["at"], row["status"]))
    db.close()


def phase_at(requests: Sequence[Request], name: str) -> float | None:
    """When a phase began, wall clock."""
    return next((r.wall for r in requests if r.kind == "phase" and r.asked.get("name") == name), None)


def grouped(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """By merchant."""
    found: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.merchant].append(case)
    return dict(found)
