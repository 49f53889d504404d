"""What the rig sells and who buys: the tour's catalogue on three channels, forty merchants with keys, endpoints and money of their own."""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from tests.chaos import vendors
from tests.chaos.fleet import Failed
from tests.chaos.receiver import SECRETS
from tests.chaos.rig import SUPPLIERS, WALLET, Rig

from kameng_api.demo import catalogue
from kameng_api.demo.clients import Keys, Operator
from kameng_api.demo.seed import Wish, make_merchant
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.kit.signing import HMAC_SCHEME, sign_request

RICH: Final = "1000000"
CHEAP_SKU: Final = "mobile-cn-10"
POOR_ORDERS: Final = 25
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Buyer:
    """A merchant of the run. `poor` ones have money for exactly some orders, and now and then more."""

    name: str
    merchant_id: str
    key_id: str
    secret: str = field(repr=False)
    delivery_key: str = field(repr=False)
    poor: bool = False

    def signed(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Headers for one request, signed now."""
        text = sign_request(
            HMAC_SCHEME, self.secret.encode(), self.key_id, int(time.time()), secrets.token_urlsafe(18), method, target.encode(), body
        )
        headers = {"authorization": text}
        return headers | {"content-type": "application/json"} if body else headers


async def open_shop(rig: Rig, *, rich: int = 34, poor: int = 6, hooks: bool = True) -> list[Buyer]:
    """Channels, goods, merchants; the first one is the hot one. Every funding is in the history."""
    async with Operator(f"{rig.direct(rig.apis[0])}/admin/v1", rig.operator_token) as operator:
        await _stock(rig, operator)
        wishes = [Wish(f"rich-{n:02d}", RICH) for n in range(rich)]
        wishes += [Wish(f"poor-{n:02d}", catalogue.money_for(POOR_ORDERS + n, CHEAP_SKU)) for n in range(poor)]
        buyers: list[Buyer] = []
        for start in range(0, len(wishes), _AT_ONCE):
            made = await asyncio.gather(*(_make(rig, operator, wish) for wish in wishes[start : start + _AT_ONCE]))
            buyers += made
    if hooks:
        await _register(rig, buyers)
    return buyers


async def _make(rig: Rig, operator: Operator, wish: Wish) -> Buyer:
    # make_merchant funds under a number of its own; it is written down under that number.
    keys: Keys = await make_merchant(operator, wish)
    assert keys.secret is not None
    buyer = Buyer(wish.name, keys.merchant_id, keys.key_id, keys.secret, keys.delivery_key, wish.name.startswith("poor"))
    request = rig.history.invoke("fund", merchant=buyer.name, number=f"play-{wish.name}", amount=parse_amount(wish.money))
    rig.history.ok(request, amount=parse_amount(wish.money))
    return buyer


async def _stock(rig: Rig, operator: Operator) -> None:
    for name, secret in rig.supplier_secrets.items():
        base_url = f"http://127.0.0.1:{rig.ports[f'worker>{name}']}"
        settings: Mapping[str, Any] = {"base_url": base_url, "app_key": f"app-{name}", "secret": secret}
        if rig.vendor:
            settings = vendors.settings(rig.vendor, base_url)
        channel = {"id": name, "name": f"Simulated supplier {name}", "adapter": rig.vendor or "simulator", "environment": "test"}
        settings = {**settings, "timeout_s": rig.supplier_timeout_s}
        made = await operator.post("/channels", {**channel, "settings": settings, "concurrency": 600, "wallet_low_at": "1000"})
        await _tell_dashboard(rig, name, made["callback_url"])
        await operator.post(f"/channels/{name}/topups", {"topup_no": f"chaos-{name}", "amount": WALLET})
        await operator.post(f"/channels/{name}/refresh-wallet")
    for goods in vendors.sold(rig.vendor):
        await operator.put(f"/products/{goods.sku}", goods.product())
        for price in goods.prices():
            await operator.put(f"/products/{goods.sku}/price", price)
        for name, (_, extra_ppm) in SUPPLIERS.items():
            offer = {**goods.offer(extra_ppm), "product_code": vendors.code_of(rig.vendor, goods, extra_ppm)}
            await operator.put(f"/channels/{name}/offers/{goods.sku}", {**offer, "stock": None if offer["stock"] else offer["stock"]})


async def _tell_dashboard(rig: Rig, name: str, callback_url: str) -> None:
    """Where the vendor has no callback address in an order, a human writes it into its dashboard."""
    twin = vendors.twin_of(rig.vendor)
    if twin is None or not twin.dashboard:
        return
    told = {"client_id": twin.app_key, "client_secret": twin.secret, "webhook_url": callback_url}
    async with rig.http.put(f"{rig.direct(name)}{twin.dashboard}", json=told) as answer:
        if answer.status != 200:
            raise Failed(f"{name}: the dashboard answered {answer.status}")


async def _register(rig: Rig, buyers: list[Buyer]) -> None:
    """Each merchant's endpoint, for all events, and its secret for the receiver."""
    known: dict[str, str] = {}
    for buyer in buyers:
        made = await ask(rig, buyer, "POST", "/v1/webhook-endpoints", {"url": f"{rig.hooks_url}/{buyer.name}"})
        known[buyer.name] = made["secret"]
    (rig.folder / SECRETS).write_text(json.dumps(known))


async def ask(rig: Rig, buyer: Buyer, method: str, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One signed request past all wires, for setting up and for reading at the end. Raises Failed unless it is 2xx."""
    content = b"" if body is None else json.dumps(body).encode()
    url = rig.direct(rig.apis[0]) + target
    async with rig.http.request(
        method, url, data=content or None, headers=buyer.signed(method, target, content), timeout=aiohttp.ClientTimeout(total=30)
    ) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        if answer.status >= 300:
            raise Failed(f"{method} {target}: {answer.status} {found}")
        return found


def poor_mans_portion(orders: int) -> str:
    """Decimal text of what so many of the cheapest orders cost."""
    return format_amount(orders * parse_amount(catalogue.find(CHEAP_SKU).price))
