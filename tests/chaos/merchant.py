"""A merchant's program under fire: every request by the contract's rule, and every request in the history before and after."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import aiohttp
from tests.chaos.history import FINAL_STATUSES, code_fingerprint, fingerprint_of
from tests.chaos.rig import Rig
from tests.chaos.shop import Buyer

from kameng_api.demo.clients import open_codes
from kameng_api.kit.money import format_amount, parse_amount

ANSWER_S: Final = 8.0
PATIENCE_S: Final = 25.0
"""How long a merchant sends the same order again; what is unclear then is resolved at the end of the run."""
AGAIN_CODES: Final = frozenset({"timestamp_out_of_window", "nonce_reused", "rate_limited", "unknown_key"})
"""4xx that say nothing about the order: a clock is wrong, a process has not read its keys yet. Nothing was done; ask again."""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer. `status` 0: none came."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    replayed: bool = False

    @property
    def outcome(self) -> str:
        """ok, fail or unclear, in the history's sense."""
        return "ok" if 200 <= self.status < 300 else "fail" if 400 <= self.status < 500 else "unclear"

    @property
    def problem(self) -> str:
        return str(self.body.get("code", ""))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One order as it will be sent, always with the same bytes."""

    buyer: Buyer
    number: str
    body: bytes
    facts: Mapping[str, Any]
    magic: bool = False

    @classmethod
    def of(cls, buyer: Buyer, number: str, *, magic: bool = False, **content: Any) -> "Wanted":
        body = json.dumps({"merchant_order_no": number, **content}).encode()
        facts = {
            "merchant": buyer.name, "number": number, "fingerprint": fingerprint_of(body), "sku": content["sku"],
            "quantity": content.get("quantity", 1), "target": content.get("target"),
        }  # fmt: skip
        return cls(buyer, number, body, facts, magic)


@dataclass
class Known:
    """What the load remembers of an order, for the final reads."""

    wanted: Wanted
    order_id: str | None = None
    status: str = ""
    refused: bool = False
    """A definite 4xx was the last word about it."""


class Programs:
    """All merchants' programs: one HTTP client, one history."""

    def __init__(self, rig: Rig, draw: random.Random) -> None:
        self.rig = rig
        self.draw = draw
        self.known: dict[tuple[str, str], Known] = {}
        self.counts: dict[str, int] = {}
        self.direct = False
        """Past the wires: after the heal."""
        self.unanswered: dict[str, Callable[[], Awaitable[None]]] = {}
        """Fundings and refunds that are not known to have happened, by their numbers: to be sent again after the heal."""

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    async def send(self, buyer: Buyer, method: str, target: str, body: bytes = b"", *, patience_s: float = ANSWER_S) -> Said:
        """One request, signed now, to one of the APIs. Never raises for what a network or a server does."""
        rig = self.rig
        base = rig.direct(rig.apis[self.draw.randrange(len(rig.apis))]) if self.direct else rig.front(self.draw.randrange(len(rig.apis)))
        try:
            async with rig.http.request(
                method, base + target, data=body or None, headers=buyer.signed(method, target, body),
                timeout=aiohttp.ClientTimeout(total=patience_s), allow_redirects=False,
            ) as answer:  # fmt: skip
                text = await answer.read()
                try:
                    found = json.loads(text)
                except ValueError:
                    found = {}
                return Said(answer.status, found if isinstance(found, dict) else {}, answer.headers.get("Idempotent-Replayed") == "true")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Said(0)

    def write(self, request_id: str, said: Said, **facts: Any) -> None:
        history = self.rig.history
        facts = {"http_status": said.status, **facts}
        match said.outcome:
            case "ok":
                history.ok(request_id, **facts)
            case "fail":
                history.fail(request_id, **facts, problem=said.problem, charged=said.body.get("charged"))
            case _:
                history.unclear(request_id, **facts, problem=said.problem)

    # ---- orders

    async def place_once(self, wanted: Wanted, *, kind: str = "place", patience_s: float = ANSWER_S) -> Said:
        history = self.rig.history
        known = self.known.setdefault((wanted.buyer.name, wanted.number), Known(wanted))  # before it is sent: who goes away is read at the end too
        request_id = history.invoke(kind, **wanted.facts)
        try:
            said = await self.send(wanted.buyer, "POST", "/v1/orders", wanted.body, patience_s=patience_s)
        except asyncio.CancelledError:  # the client goes away in the middle
            history.unclear(request_id, problem="client_gone")
            raise
        self.write(request_id, said, **(order_facts(said.body) | {"replayed": said.replayed} if said.outcome == "ok" else {}))
        if said.outcome == "ok":
            known.order_id, known.status = str(said.body["id"]), str(said.body["status"])
        known.refused = said.outcome == "fail"
        self.count(f"{kind} {said.status} {said.problem}".rstrip())
        return said

    async def place(self, wanted: Wanted, *, kind: str = "place", patience_s: float = PATIENCE_S) -> Said:
        """By the contract's rule: no answer or 5xx → the same body and number again, signed anew."""
        deadline = asyncio.get_running_loop().time() + patience_s
        wait_s = 0.1
        while True:
            said = await self.place_once(wanted, kind=kind)
            settled = said.outcome == "ok" or (said.outcome == "fail" and said.problem not in AGAIN_CODES)
            if settled or asyncio.get_running_loop().time() > deadline:
                return said
            await asyncio.sleep(wait_s * (0.5 + self.draw.random()))
            wait_s = min(2 * wait_s, 2.0)

    async def place_and_leave(self, wanted: Wanted, after_s: float) -> None:
        """The client is gone before the answer."""
        sending = asyncio.create_task(self.place_once(wanted))
        await asyncio.wait([sending], timeout=after_s)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    async def get(self, known: Known, *, kind: str = "get", codes: bool = False) -> Said:
        """One look at an order, by number; with its codes when asked for."""
        wanted = known.wanted
        by_id = kind == "get" and known.order_id is not None and self.draw.random() < 0.5
        asked = {"order_id": known.order_id} if by_id else {"number": wanted.number}
        target = f"/v1/orders/{known.order_id}" if by_id else f"/v1/orders/by-merchant-no/{wanted.number}"
        request_id = self.rig.history.invoke(kind, merchant=wanted.buyer.name, **asked)
        said = await self.send(wanted.buyer, "GET", target)
        facts = order_facts(said.body) if said.outcome == "ok" else {}
        if said.outcome == "ok":
            known.order_id, known.status = str(said.body["id"]), str(said.body["status"])
            if codes and said.body["codes_available"]:
                shown = await self.codes(known)
                if shown is not None:
                    facts["codes"] = shown
        self.write(request_id, said, **facts)
        self.count(f"{kind} {said.status}")
        return said

    async def codes(self, known: Known) -> list[str] | None:
        """Names of the codes shown; None when they could not be read."""
        said = await self.send(known.wanted.buyer, "GET", f"/v1/orders/{known.order_id}/codes")
        if said.outcome != "ok":
            return None
        shown = open_codes(known.wanted.buyer.delivery_key, str(known.order_id), dict(said.body))
        return [code_fingerprint(one["code"], one.get("pin")) for one in shown]

    async def cancel(self, known: Known) -> None:
        request_id = self.rig.history.invoke("cancel", merchant=known.wanted.buyer.name, order_id=known.order_id)
        said = await self.send(known.wanted.buyer, "POST", f"/v1/orders/{known.order_id}/cancel")
        self.write(request_id, said, **(order_facts(said.body) if said.outcome == "ok" else {}))
        self.count(f"cancel {said.status}")

    async def list(self, buyer: Buyer) -> None:
        request_id = self.rig.history.invoke("list", merchant=buyer.name)
        said = await self.send(buyer, "GET", "/v1/orders?limit=100")
        self.write(request_id, said, **({"order_ids": [o["id"] for o in said.body["items"]]} if said.outcome == "ok" else {}))
        self.count(f"list {said.status}")

    async def balance(self, buyer: Buyer, *, kind: str = "balance") -> Said:
        request_id = self.rig.history.invoke(kind, merchant=buyer.name)
        said = await self.send(buyer, "GET", "/v1/balance")
        facts: dict[str, Any] = {}
        if said.outcome == "ok":
            facts = {name: parse_amount(said.body[name]) for name in ("available", "held")} | {"currency": said.body["currency"]}
        self.write(request_id, said, **facts)
        return said

    async def until_final(self, known: Known, patience_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + patience_s
        while known.status not in FINAL_STATUSES:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.5 + self.draw.random())
            await self.get(known)
        return True

    # ---- the operator

    async def operate(self, path: str, body: Mapping[str, Any]) -> Said:
        """One request of the operator's, through the same wires."""
        rig = self.rig
        base = rig.direct(rig.apis[0]) if self.direct else rig.front(self.draw.randrange(len(rig.apis)))
        try:
            async with rig.http.post(
                f"{base}/admin/v1{path}", json=body, headers={"authorization": f"Bearer {rig.operator_token}"},
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            ) as answer:  # fmt: skip
                found = await answer.json(content_type=None)
                return Said(answer.status, found if isinstance(found, dict) else {})
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return Said(0)

    async def refund(self, known: Known, refund_no: str, amount: int) -> None:
        """The same refund number until there is an answer."""
        self.unanswered[refund_no] = partial(self.refund, known, refund_no, amount)
        body = {"refund_no": refund_no, "amount": format_amount(amount), "reason": "chaos"}
        for _ in range(40):
            request_id = self.rig.history.invoke(
                "refund", merchant=known.wanted.buyer.name, order_id=known.order_id, refund_no=refund_no, amount=amount
            )
            said = await self.operate(f"/orders/{known.order_id}/refunds", body)
            self.write(request_id, said, **({"refunded": amount} if said.outcome == "ok" else {}))
            self.count(f"refund {said.status} {said.problem}".rstrip())
            if said.outcome != "unclear":
                self.unanswered.pop(refund_no, None)
                return
            await asyncio.sleep(0.5)

    async def fund(self, buyer: Buyer, number: str, amount: int) -> None:
        """The same number until there is an answer."""
        self.unanswered[number] = partial(self.fund, buyer, number, amount)
        body = {"environment": "test", "channel": "chaos", "external_id": number, "amount": format_amount(amount)}
        for _ in range(60):
            request_id = self.rig.history.invoke("fund", merchant=buyer.name, number=number, amount=amount)
            said = await self.operate(f"/merchants/{buyer.merchant_id}/fundings", body)
            self.write(request_id, said, **({"amount": amount} if said.outcome == "ok" else {}))
            self.count(f"fund {said.status}")
            if said.outcome != "unclear":
                self.unanswered.pop(number, None)
                return
            await asyncio.sleep(0.5)


def order_facts(body: Mapping[str, Any]) -> dict[str, Any]:
    """An order as the API shows it, in the history's words."""
    return {
        "order_id": body["id"],
        "number": body["merchant_order_no"],
        "status": body["status"],
        "substatus": body["substatus"],
        "version": body["version"],
        "amount": parse_amount(body["amount"]),
        "unit_price": parse_amount(body["unit_price"]),
        "refunded": parse_amount(body["refunded_amount"]),
        "units_delivered": body["delivered_quantity"],
    }
