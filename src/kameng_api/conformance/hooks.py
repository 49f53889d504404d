"""Two small hooks into the merchant's software, agreed for rehearsals only: one that asks it to place an order, one that asks what it believes."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from kameng_api.conformance.options import Options
from kameng_api.conformance.trace import Exchange, Redactor
from kameng_api.conformance.verdicts import NotChecked
from kameng_api.kit.http import Client

_PROBE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the merchant's software believes of one order. None: it did not say.

    `deliveries`: how often it told its own customer that the order succeeded. `refunds`: how often it gave that customer the money back.
    """

    status: str | None = None
    version: int | None = None
    deliveries: int | None = None
    refunds: int | None = None


class Hooks:
    """`ask_for_order` and `look`; both raise NotChecked where the hook is missing or does not work."""

    def __init__(self, options: Options, client: Client, redactor: Redactor) -> None:
        self._options = options
        self._client = client
        self._redactor = redactor

    @property
    def can_trigger(self) -> bool:
        return self._options.trigger is not None

    @property
    def can_probe(self) -> bool:
        return self._options.probe is not None

    async def ask_for_order(self, scenario: str, exchange: Exchange) -> None:
        """Ask for one new order; returns when the hook has answered, which may be after the order came in."""
        url = self._options.trigger
        assert url is not None
        wanted = {"scenario": scenario, "sku": self._options.sku, "quantity": self._options.quantity, "target": self._options.target}
        body = orjson.dumps(wanted)
        exchange.request, exchange.request_body = f"POST {self._redactor.url(url)}", self._redactor.body(body)
        try:
            answer = await self._client.exchange("POST", url, headers={"content-type": "application/json"}, content=body, cut=True)
        except httpx.HTTPError as trouble:
            exchange.trouble = f"{type(trouble).__name__}: no answer"
            return
        exchange.status, exchange.answer_body = answer.status_code, self._redactor.body(answer.content)

    async def look(self, number: str) -> tuple[Told | None, Exchange]:
        """What is believed of the order with this number; None when it is not known. Raises NotChecked."""
        url = self._options.probe
        if url is None:
            raise NotChecked("needs --probe: only your software can say what it believes of the order")
        url += ("&" if "?" in url else "?") + "merchant_order_no=" + quote(number, safe="")
        exchange = Exchange("kit → probe", f"GET {self._redactor.url(url)} ({number})")
        try:
            async with asyncio.timeout(_PROBE_S):
                answer = await self._client.exchange("GET", url, cut=True)
        except (httpx.HTTPError, TimeoutError) as trouble:
            raise NotChecked(f"the probe did not answer ({type(trouble).__name__})") from None
        exchange.status, exchange.answer_body = answer.status_code, self._redactor.body(answer.content)
        if answer.status_code == 404:
            return None, exchange
        if answer.status_code != 200:
            raise NotChecked(f"the probe answered {answer.status_code} instead of 200 or 404")
        return _read(answer.content), exchange


def _read(content: bytes) -> Told:
    try:
        told = orjson.loads(content)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise NotChecked("the probe did not answer with a JSON object")
    status: Any = told.get("status")
    numbers = {name: told.get(name) for name in ("version", "deliveries", "refunds")}
    if not (status is None or isinstance(status, str)) or any(not (n is None or type(n) is int) for n in numbers.values()):
        raise NotChecked("the probe's status must be a string, its version, deliveries and refunds integers")
    return Told(status, **numbers)
