"""The application on a real socket, in the loop of the test."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from tests.factories.pools import borrow

from kameng_api.main import build_app
from kameng_api.settings import Settings


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[FastAPI, Settings]]:
    """Yields it and settings that name its address, which suppliers call back."""
    # Bound before anybody is told of it and held until the end: uvicorn answers a port that somebody else has taken meanwhile with SystemExit.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        here = settings.model_copy(update={"base_url": f"http://127.0.0.1:{port}", "port": port})
        app = build_app(here, borrow(here))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=5))
        work = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started:
                assert not work.done(), "it ended before it had started"
                await asyncio.sleep(0.02)
            yield app, here
        finally:
            server.should_exit = True
            await work
