"""The pool of connections that all tests of a process share with the apps and workers that they start in their own loop.

On a connection of its own every statement is prepared and planned anew: 30 to 55 ms of CPU for each test of the API (2026-11-23).
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from kameng_api.kit.db import Database
from kameng_api.settings import Settings


class _Borrowed(Database):
    """Closed by whoever opened it, not by the app or the worker that borrows it."""

    def __init__(self, lender: Database) -> None:
        self._pool_size = lender._pool_size
        self.engine = lender.engine

    async def close(self) -> None:
        return None


_shared: dict[str, tuple[Database, asyncio.AbstractEventLoop]] = {}


@contextmanager
def shared(db: Database, url: str) -> Iterator[None]:
    """Whoever asks for a pool of `url`, meanwhile and in this loop, borrows `db`."""
    _shared[url] = db, asyncio.get_running_loop()
    try:
        yield
    finally:
        del _shared[url]


def borrow(settings: Settings) -> Database | None:
    """None where there is none to borrow, or where the settings ask for a pool of a size of their own."""
    assert settings.database_url is not None
    db, loop = _shared.get(settings.database_url.get_secret_value(), (None, None))
    usual = settings.database_pool == Settings.model_fields["database_pool"].default
    return _Borrowed(db) if db is not None and usual and loop is asyncio.get_running_loop() else None
