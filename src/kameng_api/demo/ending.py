"""After the last order: asks everybody who knows something, and has it judged."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import httpx

from kameng_api.demo import checks
from kameng_api.demo.checks import Delivered
from kameng_api.demo.clients import Merchant, Operator, Surprise
from kameng_api.demo.scenario import FAILOVER, MAGIC, Bought
from kameng_api.demo.screen import Screen
from kameng_api.demo.stage import Addresses

NOTIFY_HOOK: Final = "notify"
_SETTLE_S: Final = 30.0
_AT_ONCE: Final = 10

Verdict = tuple[str, str | None]


class Ending:
    """The tour's last questions. `funded` is what each of its merchants was given, as decimal text."""

    def __init__(self, at: Addresses, operator: Operator, bought: Sequence[Bought], funded: Mapping[str, str]) -> None:
        self._at = at
        self._operator = operator
        self._bought = bought
        self._funded = funded
        self._http = httpx.AsyncClient(timeout=30, trust_env=False)

    async def judge(self, listening: Sequence[Merchant]) -> list[Verdict]:
        """All of it; what cannot be asked is a verdict too. `listening` are the merchants with an endpoint."""
        questions: list[tuple[str, Callable[[], Awaitable[str | None]]]] = [
            ("every webhook arrived and verified", lambda: self._patiently(lambda: self._webhooks(listening))),
            ("every notify_url was called", lambda: self._patiently(self._notified)),
            ("balances and fund flows add up", self._money),
            ("the suppliers delivered each unit once", self._deliveries),
            ("every callback of the suppliers was taken", self._callbacks),
            ("the books hold (every transfer and order checked)", self._invariants),
            ("no work was given up, nothing contradicts itself", self._given_up),
        ]
        verdicts = []
        for name, question in questions:
            try:
                verdicts.append((name, await question()))
            except (Surprise, httpx.HTTPError, KeyError, ValueError) as trouble:
                verdicts.append((name, f"could not be asked: {type(trouble).__name__} {trouble}"))
        await self._http.aclose()
        return verdicts

    def _orders_of(self, name: str) -> list[dict[str, Any]]:
        return [one.order for one in self._bought if one.merchant.name == name]

    async def _patiently(self, ask: Callable[[], Awaitable[str | None]]) -> str | None:
        """Webhooks are under way for a moment after the last order."""
        deadline = time.monotonic() + _SETTLE_S
        while True:
            trouble = await ask()
            if trouble is None or time.monotonic() > deadline:
                return trouble
            await asyncio.sleep(0.5)

    async def _received(self) -> list[dict[str, Any]]:
        answer = await self._http.get(
            f"{self._at.receiver_url}/received", headers={"Authorization": f"Bearer {self._at.receiver_token}"}
        )
        items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
        return items

    async def _webhooks(self, listening: Sequence[Merchant]) -> str | None:
        received = await self._received()
        codes = [code["code"] for one in self._bought for code in one.codes]
        for merchant in listening:
            mine = [one for one in received if one["hook"] == merchant.name]
            events = await merchant.all_pages("/v1/events", "after")
            trouble = checks.judge_webhooks(events, self._orders_of(merchant.name), mine, codes)
            if trouble is not None:
                return f"{merchant.name}: {trouble}"
        return None

    async def _notified(self) -> str | None:
        received = [one for one in await self._received() if one["hook"] == NOTIFY_HOOK]
        return checks.judge_notified([one.order for one in self._bought if one.notified], received)

    async def _money(self) -> str | None:
        for merchant in {one.merchant.name: one.merchant for one in self._bought}.values():
            balance = await merchant.get("/v1/balance")
            flow = await merchant.all_pages("/v1/balance/transactions")
            trouble = checks.judge_flow(flow, balance["available"])
            trouble = trouble or checks.judge_balance(self._funded[merchant.name], self._orders_of(merchant.name), balance)
            if trouble is not None:
                return f"{merchant.name}: {trouble}"
        return None

    async def _deliveries(self) -> str | None:
        return checks.judge_deliveries(await self._delivered(), await self._suppliers_log("deliveries"))

    async def _callbacks(self) -> str | None:
        return checks.judge_callbacks(await self._delivered(), await self._suppliers_log("callbacks"))

    async def _delivered(self) -> list[Delivered]:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(bought: Bought) -> Delivered:
            async with at_once:
                case = await self._operator.get(f"/orders/{bought.order['id']}")
            references = frozenset(attempt["reference"] for attempt in case["attempts"])
            codes = frozenset((code["code"], code.get("pin") or None) for code in bought.codes)
            return Delivered(case["id"], case["delivered_quantity"], references, codes)

        return await asyncio.gather(*(one(bought) for bought in self._bought))

    async def _suppliers_log(self, name: str) -> list[dict[str, Any]]:
        headers, rows, after = {"Authorization": f"Bearer {self._at.simulator_token}"}, [], 0
        while True:
            url = f"{self._at.simulator_url}/sim/{name}"
            answer = await self._http.get(url, params={"after": after, "limit": 5000}, headers=headers)
            page = answer.raise_for_status().json()
            rows += page["items"]
            if page["next_after"] is None:
                return rows
            after = page["next_after"]

    async def _invariants(self) -> str | None:
        verdict = await self._operator.post("/ledger/verify", {"scope": "all"})
        if verdict["holds"]:
            return None
        return checks.few([f"{b['invariant']}: {b['detail']}" for b in verdict["breaches"]]) or "they do not"

    async def _given_up(self) -> str | None:
        ours = {one.order["id"] for one in self._bought}
        parked = (await self._operator.get("/tasks/parked"))["items"]
        incidents = (await self._operator.get("/incidents"))["items"]
        troubles = [f"{task['lane']} task given up: {task['trouble']}" for task in parked]
        troubles += [f"incident {i['kind']}: {i['detail']}" for i in incidents if i["order_id"] in ours]
        return checks.few(troubles)

    async def show(self, screen: Screen, shop: Merchant) -> None:
        """One order's timeline, and what became of the shop's money."""
        target = MAGIC.format(10)
        order = next((one.order for one in self._bought if one.order["target"] == f"{target[:3]}****{target[-4:]}"), None)
        if order is not None:
            steps = await shop.get(f"/v1/orders/{order['id']}/timeline")
            screen.timeline(f"timeline of {order['id']} ({FAILOVER})", steps["items"])
        flow = (await shop.get("/v1/balance/transactions?limit=12"))["items"]
        screen.money(shop.name, await shop.get("/v1/balance"), flow)
