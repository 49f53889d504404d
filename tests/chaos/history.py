"""What the merchants asked and were told, one JSON line each: the half of the ground truth that only the client has.

Jepsen's words. Each request is an `invoke` line followed by at most one answer line with the same id: `ok` (it happened, here is what we
were told), `fail` (it surely did not happen), `unclear` (cut, timed out, 5xx: it may have happened). An invoke without an answer counts as
unclear. The file is append-only and written line by line, so that a killed load generator loses nothing it was told.

Facts that the judge reads; writers may add others:

=============  =============================================================  =====================================================
kind           facts of the invoke                                            facts of the answer
=============  =============================================================  =====================================================
fund           merchant, number (unique), amount                              amount
place          merchant, number, fingerprint, sku, quantity, target           order_id, status, version, amount, unit_price, replayed,
                                                                              http_status, problem (code of the refusal)
final_place    the same, the same number and body once more after the heal    the same
get            merchant, number or order_id                                   order_id, number, status, substatus, version, amount, captured,
                                                                              refunded, units_delivered, http_status
final_get      the same                                                       the same, and `codes` (fingerprints of the codes shown)
list           merchant                                                       order_ids
cancel         merchant, order_id                                             order_id, status, version
refund         merchant, order_id, refund_no, amount                          order_id, status, version, refunded
balance        merchant                                                       available, held, currency
phase          name (fund, load, heal, quiet, final, end)                     -
=============  =============================================================  =====================================================

Amounts are integers in 1/10000 of the currency unit, ids the strings of the API. `codes`: `code_fingerprint(code, pin)` of each code shown.
`target` should be unique per order number: it lets the judge find an order's deliveries without believing any table of ours.

The load must do what the checks are about: the same number again while the first is under way (same body), the same number with another
body, refunds (some twice under one refund_no, some above what is left, some in parallel), gets all the time, cards whose codes are revealed
at the end, one merchant at least with a webhook endpoint; in the end final_get and final_place for every number, then final_balance.

The folder of a run, which is all that the judge reads (`judge.judge(folder)`):

history.jsonl    this file
run.json         {"seed", "commit", "minutes", "healed_at": wall, "quiet_at": wall or null (not quiet in time), "ended_at": wall, "lease_s",
                 "final_bound_s": p99 of time to final after the heal, "merchants": {merchant: {"book_id", "currency", "endpoint": bool}},
                 "suppliers": {account name at the simulator: {"channel": channel id, "idempotent": bool, "not_found_grace_s"}},
                 and with a vendor's twins "vendor", "reversed_is_failed" and "cards_have_pins", as its `Twin` says them}
sim-*.sqlite     the simulators' own files (with their -wal beside them, or checkpointed)
receiver.jsonl   every webhook that arrived, before it was answered: {"wall", "receiver", "id", "type", "body": {…}, "verified": bool, "answered"}
nemesis.jsonl    every fault: {"wall", "fault", "event": "start"|"end", ...}
house.json       what only our database shows, written by `await judge_house.take_house(owner_url, folder / "house.json")` after the final reads
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

KINDS: Final = frozenset(
    {"fund", "place", "get", "list", "cancel", "refund", "balance", "final_get", "final_place", "final_balance", "final_cancel", "phase"}
)
FINAL_STATUSES: Final = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled"})


def fingerprint_of(body: bytes) -> str:
    """Short name of a request body: equal bodies have equal names."""
    return hashlib.sha256(body).hexdigest()[:24]


def code_fingerprint(code: str, pin: str | None) -> str:
    """Name of a card code that is not the code."""
    return fingerprint_of(f"{code}\n{pin or ''}".encode())


class History:
    """The writer. One per load generator; safe within one event loop and between threads (one `write` per line, O_APPEND)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._next = 0
        self._who = os.getpid()

    def invoke(self, kind: str, **facts: Any) -> str:
        """Before the request is sent. Returns the id that its answer carries."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of request: {kind}")
        self._next += 1
        request_id = f"{self._who}-{self._next}"
        self._write("invoke", request_id, {"kind": kind, **facts})
        return request_id

    def ok(self, request_id: str, **facts: Any) -> None:
        """It happened: an answer 2xx was read to its end."""
        self._write("ok", request_id, facts)

    def fail(self, request_id: str, **facts: Any) -> None:
        """It surely did not happen: a problem with `charged: false` and a 4xx was read to its end, or nothing was ever sent."""
        self._write("fail", request_id, facts)

    def unclear(self, request_id: str, **facts: Any) -> None:
        """Nobody can say: no answer, a cut one, or a 5xx."""
        self._write("unclear", request_id, facts)

    def phase(self, name: str, **facts: Any) -> None:
        """A mark of the run: fund, load, heal, quiet, final, end."""
        self.ok(self.invoke("phase", name=name, **facts))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: str, request_id: str, facts: Mapping[str, Any]) -> None:
        line = {"event": event, "id": request_id, "wall": time.time(), "mono": time.monotonic(), "facts": facts}
        self._file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what became of it. `outcome` is ok, fail or unclear; times are seconds (wall clock, and one machine's monotonic)."""

    id: str
    kind: str
    asked: Mapping[str, Any]
    wall: float
    mono: float
    outcome: str = "unclear"
    told: Mapping[str, Any] = field(default_factory=dict)
    answered_wall: float | None = None
    answered_mono: float | None = None

    def fact(self, name: str, otherwise: Any = None) -> Any:
        """As told, else as asked."""
        return self.told.get(name, self.asked.get(name, otherwise))

    @property
    def is_ok(self) -> bool:
        return self.outcome == "ok"


class HistoryDamaged(Exception):
    """A history that cannot be judged: an answer to nothing, two answers to one request, a line in the middle that is no line."""


def read_history(path: Path) -> list[Request]:
    """All requests in the order in which they were sent. A torn last line is dropped. Raises HistoryDamaged."""
    asked: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, Any]] = {}
    for line in _lines(path):
        if line["event"] == "invoke":
            asked[line["id"]] = line
        elif line["id"] not in asked or line["id"] in answers:
            raise HistoryDamaged(f"answer to nothing, or a second one: {line['id']}")
        else:
            answers[line["id"]] = line
    return [_request(line, answers.get(request_id)) for request_id, line in asked.items()]


def _request(line: Mapping[str, Any], answer: Mapping[str, Any] | None) -> Request:
    facts = dict(line["facts"])
    kind = facts.pop("kind")
    if answer is None:
        return Request(line["id"], kind, facts, line["wall"], line["mono"])
    return Request(
        line["id"], kind, facts, line["wall"], line["mono"], answer["event"], answer["facts"], answer["wall"], answer["mono"]
    )  # fmt: skip


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    raw = path.read_bytes().split(b"\n")
    for n, text in enumerate(raw, 1):
        if not text:
            continue
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            if n == len(raw):  # no line feed after it: the writer died in the middle
                return
            raise HistoryDamaged(f"{path.name}:{n} is not JSON") from None
