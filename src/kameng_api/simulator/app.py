"""Builds the simulator's application; nothing happens before its lifespan starts."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from kameng_api.simulator import control, reading, store, vendor
from kameng_api.simulator.books import Books, Habits
from kameng_api.simulator.catalogue import default_products
from kameng_api.simulator.clock import Clock, OwnMail
from kameng_api.simulator.config import SimulatorConfig
from kameng_api.simulator.face import Face


class SimulatorApp(Starlette):
    """Starlette, but for the vendor's paths: those are called at once, past middleware and router."""

    face: Face | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint(scope) if scope["type"] == "http" else None
        if endpoint is not None:
            scope["app"] = self
            await endpoint(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _endpoint(self, scope: Scope) -> ASGIApp | None:
        if self.face is not None:
            return self.face.find(scope["method"], scope["path"])
        return vendor.ENDPOINTS.get(scope["path"]) if scope["method"] == "POST" else None


def build_app(config: SimulatorConfig, face: Face | None = None) -> Starlette:
    """The vendor's API under /open/v2, or as `face` has it, and the control under /sim, over one file."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connection = store.open_file(config.data, config.synchronous)
        books = Books(connection, config.time_scale, Habits() if face is None else face.habits)
        more_due = asyncio.Event()
        writer = store.Writer(connection, books, lambda: more_due.set() if books.due else None)
        for supplier in config.suppliers:
            products = default_products() if supplier.products is None else supplier.products
            await writer.submit(partial(books.accounts.put_supplier, supplier, products, time.time(), start=True))
        connector = aiohttp.TCPConnector(limit=256, keepalive_timeout=4)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
            clock = Clock(books, writer, http, more_due, config.time_scale, face or OwnMail())
            ticking = asyncio.create_task(clock.run())
            app.state.vendor = vendor.Vendor(books, writer, config.time_scale)
            token = config.control_token.get_secret_value()
            app.state.control = control.Control(books, writer, reading.File(config.data), token)
            yield
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            await clock.close()
        await writer.close()

    app = SimulatorApp(routes=control.routes(), lifespan=lifespan)
    app.face = face
    return app
