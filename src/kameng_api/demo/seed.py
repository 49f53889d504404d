"""Fills an empty house through the operator's API: suppliers, catalogue, and merchants with keys and play money."""

import asyncio
import base64
import os
from dataclasses import dataclass
from typing import Final

from kameng_api.demo import catalogue
from kameng_api.demo.clients import Keys, Operator
from kameng_api.demo.stage import SUPPLIERS, WALLET, Addresses
from kameng_api.kit.signing import ed25519_public_key

ORDERS_OF_THE_POOR: Final = 50
PLENTY: Final = "500000"


@dataclass(frozen=True, slots=True)
class Wish:
    """A merchant to be made. `money` is decimal text."""

    name: str
    money: str
    ed25519: bool = False
    level: str = "standard"


FOR_VISITORS: Final = (
    Wish("demo-hmac", PLENTY),
    Wish("demo-ed25519", PLENTY, ed25519=True, level="gold"),
    Wish("demo-fifty-orders", catalogue.money_for(ORDERS_OF_THE_POOR, catalogue.FIRST_TOPUP)),
)
"""In the state file, and touched by nobody but its reader."""
FOR_THE_TOUR: Final = (
    Wish("tour-shop", "100000"),
    Wish("tour-app", "100000", ed25519=True, level="gold"),
    Wish("tour-poor", "100"),
)
"""The scenario's own."""


async def stock(operator: Operator, at: Addresses) -> None:
    """Two channels, every SKU with its prices, and an offer of each channel for each SKU."""
    for name, secret in at.supplier_secrets.items():
        settings = {"base_url": at.simulator_url, "app_key": f"app-{name}", "secret": secret}
        channel = {"id": name, "name": f"Simulated supplier {name}", "adapter": "simulator", "environment": "test"}
        await operator.post("/channels", {**channel, "settings": settings, "concurrency": 200, "wallet_low_at": "1000"})
        await operator.post(f"/channels/{name}/topups", {"topup_no": f"demo-{name}", "amount": WALLET})
        await operator.post(f"/channels/{name}/refresh-wallet")
    for goods in catalogue.GOODS:
        await operator.put(f"/products/{goods.sku}", goods.product())
        for price in goods.prices():
            await operator.put(f"/products/{goods.sku}/price", price)
        for name, (_, extra_ppm) in SUPPLIERS.items():
            await operator.put(f"/channels/{name}/offers/{goods.sku}", goods.offer(extra_ppm))


async def make_merchants(operator: Operator, wishes: tuple[Wish, ...]) -> tuple[Keys, ...]:
    """In the order of the wishes."""
    return tuple(await asyncio.gather(*(make_merchant(operator, wish) for wish in wishes)))


async def make_merchant(operator: Operator, wish: Wish) -> Keys:
    """With a key of the test environment, a delivery key, the default webhook secret, and play money."""
    made = await operator.post("/merchants", {"name": wish.name, "level": wish.level})
    path = f"/merchants/{made['id']}"
    test = {"environment": "test"}
    if wish.ed25519:
        seed = os.urandom(32)
        public_key = base64.b64encode(ed25519_public_key(seed)).decode()
        key = await operator.post(f"{path}/keys", {**test, "algorithm": "ed25519", "public_key": public_key})
        proof = {"private_key": base64.b64encode(seed).decode()}
    else:
        key = await operator.post(f"{path}/keys", test)
        proof = {"secret": key["secret"]}
    delivery = await operator.post(f"{path}/delivery-keys", test)
    webhook = await operator.post(f"{path}/webhook-secret", test)
    await operator.post(f"{path}/fundings", {**test, "channel": "demo", "external_id": f"play-{wish.name}", "amount": wish.money})
    return Keys(
        name=wish.name,
        merchant_id=made["id"],
        key_id=key["key_id"],
        delivery_key=delivery["key"],
        webhook_secret=webhook["secret"],
        **proof,
    )
