"""The handle of the simulator, for tests, demo and operator; no part of the vendor's API."""

import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.simulator import reading
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Books
from kameng_api.simulator.catalogue import default_products
from kameng_api.simulator.config import Knobs, Product, SupplierConfig
from kameng_api.simulator.protocol import Status
from kameng_api.simulator.store import Writer

Handler = Callable[["Control", Request], Awaitable[Response]]


class Trouble(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class WalletMove(BaseModel):
    """`amount` is a decimal string; `take` takes it out of the wallet instead, without an amount all there is."""

    model_config = ConfigDict(extra="forbid", strict=True)
    amount: str | None = None
    take: bool = False


class Advance(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    status: str = Field(pattern=f"^({Status.SUCCESS}|{Status.FAILED}|{Status.REVERSED})$")


class Control:
    """What the endpoints of this file share; hangs on the application's state."""

    def __init__(self, books: Books, writer: Writer, file: reading.File, token: str) -> None:
        self.books = books
        self.writer = writer
        self.file = file
        self._token = token.encode()

    def allows(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self._token)

    def account(self, request: Request) -> Account:
        account = self.books.accounts.by_name.get(request.path_params["name"])
        if account is None:
            raise Trouble(404, "no such supplier")
        return account


def _shown(account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "app_key": account.app_key,
        "secret": account.secret.decode(),
        "role": account.role,
        "currency": account.currency,
        "balance": format_amount(account.balance),
        "knobs": account.knobs.model_dump(),
        "products": [{**product.model_dump(), "stock": account.stock[product.code]} for product in account.products.values()],
    }


async def list_suppliers(control: Control, request: Request) -> Response:
    return JSONResponse({"items": [_shown(account) for account in control.books.accounts.by_name.values()]})


async def get_supplier(control: Control, request: Request) -> Response:
    return JSONResponse(_shown(control.account(request)))


async def put_supplier(control: Control, request: Request) -> Response:
    """Creates or changes an account; the wallet is filled at creation only."""
    config = SupplierConfig.model_validate({**await _json(request), "name": request.path_params["name"]})
    products = default_products() if config.products is None else config.products
    await control.writer.submit(lambda: control.books.accounts.put_supplier(config, products, time.time(), start=False))
    return JSONResponse(_shown(control.books.accounts.by_name[config.name]))


async def get_knobs(control: Control, request: Request) -> Response:
    return JSONResponse(control.account(request).knobs.model_dump())


async def put_knobs(control: Control, request: Request) -> Response:
    """PUT sets all knobs (what is not named returns to its default), PATCH only the named ones."""
    account = control.account(request)
    named = await _json(request)
    knobs = Knobs.model_validate({**account.knobs.model_dump(), **named} if request.method == "PATCH" else named)
    await control.writer.submit(lambda: control.books.accounts.put_knobs(account, knobs))
    return JSONResponse(knobs.model_dump())


async def move_wallet(control: Control, request: Request) -> Response:
    account, move = control.account(request), WalletMove.model_validate(await _json(request))
    if move.amount is None and not move.take:
        raise Trouble(422, "amount is missing")
    amount = None if move.amount is None else parse_amount(move.amount)

    def moved() -> tuple[int, int]:
        before = account.balance
        change = -before if amount is None else -amount if move.take else amount
        return before, control.books.accounts.top_up(account, change, time.time())

    before, balance = await control.writer.submit(moved)
    return JSONResponse({"balance": format_amount(balance), "before": format_amount(before)})


async def put_product(control: Control, request: Request) -> Response:
    account = control.account(request)
    product = Product.model_validate({**await _json(request), "code": request.path_params["code"]})
    await control.writer.submit(lambda: control.books.accounts.put_product(account, product))
    return JSONResponse(product.model_dump())


async def remove_product(control: Control, request: Request) -> Response:
    account, code = control.account(request), request.path_params["code"]
    if not await control.writer.submit(lambda: control.books.accounts.remove_product(account, code)):
        raise Trouble(404, "no such product")
    return JSONResponse({"code": code})


async def advance_order(control: Control, request: Request) -> Response:
    """What the vendor's staff do with an order that waits for them."""
    account, step = control.account(request), Advance.model_validate(await _json(request))
    reference = request.path_params["reference"]
    if not await control.writer.submit(lambda: control.books.advance(account, reference, step.status, time.time())):
        raise Trouble(404, "no such order")
    return JSONResponse({"reference": reference, "status": step.status})


async def read_rows(control: Control, request: Request) -> Response:
    """Rows of one table of the log; `?reference=&supplier=&after=&limit=`, oldest first."""
    query = request.query_params
    try:
        after, limit = int(query.get("after", 0)), min(int(query.get("limit", 1000)), 10_000)
    except ValueError:
        raise Trouble(422, "after and limit are integers") from None
    table = request.url.path.rpartition("/")[2]
    rows = await control.file.rows(table, query.get("reference"), query.get("supplier"), after, limit)
    return JSONResponse({"items": rows, "next_after": rows[-1]["id"] if len(rows) == limit else None})


async def read_totals(control: Control, request: Request) -> Response:
    return JSONResponse(await control.file.totals())


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise Trouble(400, "not JSON") from None
    if not isinstance(body, dict):
        raise Trouble(422, "not an object")
    return body


def _guarded(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        control: Control = request.app.state.control
        if not control.allows(request):
            return JSONResponse({"detail": "control token missing or wrong"}, 401)
        try:
            return await handler(control, request)
        except Trouble as trouble:
            return JSONResponse({"detail": str(trouble)}, trouble.status)
        except (ValidationError, ValueError) as error:
            return JSONResponse({"detail": str(error)}, 422)

    return endpoint


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def routes() -> list[Route]:
    one: Final = "/sim/suppliers/{name}"
    guarded: tuple[tuple[str, Handler, list[str]], ...] = (
        ("/sim/suppliers", list_suppliers, ["GET"]),
        (one, get_supplier, ["GET"]),
        (one, put_supplier, ["PUT"]),
        (f"{one}/knobs", get_knobs, ["GET"]),
        (f"{one}/knobs", put_knobs, ["PUT", "PATCH"]),
        (f"{one}/wallet", move_wallet, ["POST"]),
        (f"{one}/products/{{code}}", put_product, ["PUT"]),
        (f"{one}/products/{{code}}", remove_product, ["DELETE"]),
        (f"{one}/orders/{{reference}}/advance", advance_order, ["POST"]),
        *((f"/sim/{table}", read_rows, ["GET"]) for table in reading.TABLES),
        ("/sim/totals", read_totals, ["GET"]),
    )
    return [Route("/sim/health", _health)] + [Route(path, _guarded(call), methods=methods) for path, call, methods in guarded]
