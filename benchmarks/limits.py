"""What we measure ourselves against: an endpoint behind our own gate that stores nothing, and a bare FastAPI POST.

`python -m benchmarks.limits gate` is our app, as `kameng serve` runs it, with one more route; `python -m benchmarks.limits bare` reads the
keys from standard input and listens on KAMENG_PORT.
"""

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from kameng_api import main
from kameng_api.api.access import TABLE, WRITES, Access, AccessMap
from kameng_api.api.deps import caller_of
from kameng_api.api.order_schemas import OrderResource
from kameng_api.api.orders import OrderBody
from kameng_api.api.routes import StrictRoute
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.signing import HMAC_SCHEME, parse_authorization, string_to_sign, verify_hmac
from kameng_api.orders.rules import Order, mask
from kameng_api.orders.views import view_json
from kameng_api.settings import Settings

PATH: Final = "/v1/bench/orders"
_PRICE: Final = 985_000
_JSON: Final = "application/json"

router = APIRouter(prefix="/v1/bench", route_class=StrictRoute)


@router.post("/orders", status_code=201, response_model=OrderResource, responses={200: {"model": OrderResource}})
async def answer_order(body: OrderBody, request: Request) -> Response:
    """The answer of `POST /v1/orders`, with nothing behind it."""
    return _answer(body, caller_of(request).book_id)


def _answer(body: OrderBody, book_id: int) -> Response:
    now = utc_now()
    order = Order(
        book_id=book_id,
        order_id=new_ulid(),
        merchant_order_no=body.merchant_order_no,
        fingerprint=b"",
        environment="test",
        sku=body.sku,
        product_type="topup",
        quantity=body.quantity,
        unit_price=_PRICE,
        amount=_PRICE * body.quantity,
        currency="CNY",
        deadline_at=now + timedelta(seconds=600),
        created_at=now,
        target_masked=mask(body.target) if body.target else None,
    )
    return Response(view_json(order), 201, {"Location": f"/v1/orders/{public_id('ord', order.order_id)}"}, _JSON)


def build_limit_app(settings: Settings, db: Database | None = None) -> FastAPI:
    """Our app with the route above, asked first, and its row in the table of the gate. In this process only."""
    app = build_app(settings, db)
    app.include_router(router)
    app.router.routes.insert(0, app.router.routes.pop())
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[Any]:
        async with inner(of) as state:
            of.state.door.access = AccessMap((*TABLE, Access("POST", PATH, WRITES, "orders:write")))
            yield state

    app.router.lifespan_context = lifespan
    return app


build_app = main.build_app


def serve_gate() -> None:
    """`kameng_api.main.serve` itself, with our app instead of its own."""
    main.build_app = build_limit_app
    main.serve(Settings(_env_file=None))


def serve_bare() -> None:
    """FastAPI, one POST: HMAC checked, body checked against the same model, an answer of the same bytes. No middleware at all."""
    secrets = {key_id: secret.encode() for key_id, secret in json.loads(sys.stdin.readline())["keys"]}
    app = FastAPI()

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.post("/v1/orders", status_code=201)
    async def place(request: Request) -> Response:
        raw = await request.body()
        said = parse_authorization(request.headers["authorization"].encode())
        text = string_to_sign(
            HMAC_SCHEME, said.timestamp, said.nonce, said.key_id, "POST", b"/v1/orders", hashlib.sha256(raw).hexdigest()
        )
        if not verify_hmac(secrets[said.key_id], text, said.signature):
            return Response(status_code=401)
        return _answer(OrderBody.model_validate_json(raw), 1)

    uvicorn.run(
        app, port=Settings(_env_file=None).port, loop="uvloop", http="httptools", access_log=False, log_config=None, server_header=False,
        backlog=main.BACKLOG,
    )  # fmt: skip


if __name__ == "__main__":
    {"gate": serve_gate, "bare": serve_bare}[sys.argv[1]]()
