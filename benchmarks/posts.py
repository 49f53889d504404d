"""The limit of the worker: two bare POSTs per order through the worker's own HTTP clients, and nothing else.

`python -m benchmarks.posts` answers each line `{"orders", "supplier", "receiver", "secret", "app_key", "product_code", "target", "max_cost",
"in_flight"}` with what it reached. The first POST of an order places a real purchase at the simulator, as the adapter sends it; the second
delivers a body as long as a real webhook, with the headers of one, to the receiver. Both are built and signed before the clock starts.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import uvloop

from kameng_api.kit.http import Client, build_client
from kameng_api.kit.ids import book_reference, new_ulid, public_id
from kameng_api.kit.signing import sign_webhook
from kameng_api.suppliers.adapters.simulator.wire import order_params, signed_body
from kameng_api.suppliers.port import Purchase

_SECRET: Final = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
_JSON: Final = {"content-type": "application/json", "accept": "application/json"}
_BODY_BYTES: Final = 900  # an `order.succeeded` of the benchmark's orders, to within some bytes

Pair = tuple[bytes, dict[str, str], bytes]


def _prepare(asked: dict[str, Any]) -> list[Pair]:
    now = int(time.time())
    pairs: list[Pair] = []
    for _ in range(asked["orders"]):
        purchase = Purchase(
            reference=book_reference(17, new_ulid()), product_code=asked["product_code"], product_type="topup", units=1, currency="CNY",
            max_cost=asked["max_cost"], target=asked["target"],
        )  # fmt: skip
        order = signed_body(asked["secret"], asked["app_key"], now, secrets.token_hex(12), order_params(purchase))
        event_id = public_id("evt", new_ulid())
        body = b'{"id":"%b","type":"bench.post","filler":"' % event_id.encode()
        body += b"x" * (_BODY_BYTES - len(body) - 2) + b'"}'
        headers = {
            "Content-Type": "application/json", "webhook-id": event_id, "webhook-timestamp": str(now),
            "webhook-signature": sign_webhook([_SECRET], event_id, now, body),
        }  # fmt: skip
        pairs.append((order, headers, body))
    return pairs


async def _run(asked: dict[str, Any]) -> dict[str, Any]:
    pairs = iter(_prepare(asked))
    supplier = build_client(max_connections=220, connect_timeout_s=5.0, read_timeout_s=120.0, guard=False)
    merchant = build_client(max_connections=400, connect_timeout_s=5.0, guard=True, allow_loopback=True)
    started = time.perf_counter()
    wrong = sum(await asyncio.gather(*(_one_after_another(pairs, supplier, merchant, asked) for _ in range(asked["in_flight"]))))
    seconds = time.perf_counter() - started
    await supplier.aclose()
    await merchant.aclose()
    return {"orders": asked["orders"], "wrong": wrong, "seconds": round(seconds, 3), "per_s": round(asked["orders"] / seconds, 1)}


async def _one_after_another(pairs: Iterator[Pair], supplier: Client, merchant: Client, asked: dict[str, Any]) -> int:
    wrong = 0
    for order, headers, body in pairs:
        bought = await supplier.exchange("POST", f"{asked['supplier']}/open/v2/order/place", headers=_JSON, content=order)
        told = await merchant.exchange("POST", asked["receiver"], headers=headers, content=body)
        wrong += bought.status_code != 200 or b'"SUCCESS"' not in bought.content or told.status_code != 200
    return wrong


async def main() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(json.dumps(await _run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
