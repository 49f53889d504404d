"""Makes the statements of days that are over: mark · cut · make, each step safe to repeat after a crash at any point.

A day is read in pages, each in a short transaction of its own, so that a day of a million movements neither fills the memory nor holds the
transaction horizon back.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

from kameng_api.alarms import actions as alarms
from kameng_api.jobs.upkeep import Chore, is_my_turn, stamp
from kameng_api.kit import log
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.settings import Settings
from kameng_api.statements import actions, queries
from kameng_api.statements.actions import Making
from kameng_api.statements.files import Shelf
from kameng_api.statements.rules import Disagrees, Key, keys_of

_CUT_S: Final = 30.0
_MAKE_S: Final = 10.0
_DAYS_AT_ONCE: Final = 2_000
_MADE_AT_ONCE: Final = 500
_PAGE: Final = 2_000
_PIECES_AT_ONCE: Final = 16
_FOLDER: Final = "kameng-statement-"
_LEFT_BEHIND_S: Final = 86_400.0

_log = log.get()
Item = TypeVar("Item")


class Desk(Protocol):
    """What this job needs of its process."""

    @property
    def db(self) -> Database: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def keyring(self) -> Keyring: ...


def signing_keys(settings: Settings, keyring: Keyring) -> list[Key]:
    """The keys of this deployment, the signing one first."""
    return keys_of([s.get_secret_value() for s in settings.statement_keys], keyring.derive("statement key"))


async def cut(desk: Desk) -> int:
    """Decide what belongs to days that are over. Returns how many statements can now be made."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "cut_statements", _CUT_S):
            return 0
        await actions.mark_ends(tx, _DAYS_AT_ONCE)
        await stamp(tx, "cut_statements")
    async with desk.db.transaction() as tx:  # a new snapshot: the mark's own transaction is over
        return await actions.cut_days(tx, _DAYS_AT_ONCE)


async def make(desk: Desk) -> int:
    """Make statements that are cut and not made. Returns how many became ready. Several workers share the work."""
    ready = 0
    key = signing_keys(desk.settings, desk.keyring)[0]
    for n in range(_MADE_AT_ONCE):
        async with desk.db.transaction() as tx:
            making = await actions.claim(tx)
        if making is None:
            break
        if n == 0:
            await asyncio.to_thread(_sweep)
        try:
            ready += await _make(desk, making, key)
        except Disagrees as trouble:  # left for later: the monitor has stopped the book, or will
            _log.error("statement.disagrees", book=making.cut.book_id, day=str(making.cut.day), trouble=str(trouble))
            async with desk.db.transaction() as tx:
                subject = f"statement in book {making.cut.book_id}"
                await alarms.raise_alarm(tx, "invariant_broken", subject, None, f"{making.cut.day}: {trouble}")
    return ready


def _sweep() -> None:
    """Remove what workers that were killed a day ago or more have left of the statements they were making. Blocking, a moment."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError):  # somebody else's, or another worker was faster
            if folder.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                shutil.rmtree(folder, ignore_errors=True)


async def _make(desk: Desk, making: Making, key: Key) -> bool:
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
        shelf = Shelf(making.cut, Path(folder))
        after = making.cut.from_version
        while after < making.cut.to_version:
            async with desk.db.transaction() as tx:
                lines = await queries.list_lines(tx, making.cut, after, _PAGE)
            if not lines:
                raise Disagrees(f"no movement follows {after}")
            pieces = await asyncio.to_thread(shelf.add, lines)
            if not await _store(desk, making, pieces):
                return False
            after = lines[-1].version
        rest = shelf.finish()
        while pieces := await asyncio.to_thread(_some, rest, _PIECES_AT_ONCE):
            if not await _store(desk, making, pieces):
                return False
    async with desk.db.transaction() as tx:
        return await actions.finish(tx, making, shelf.tally, shelf.files(), key) is not None


async def _store(desk: Desk, making: Making, pieces: list[tuple[str, int, bytes]]) -> bool:
    if not pieces:
        return True
    async with desk.db.transaction() as tx:
        return await actions.store(tx, making, pieces)


def _some(items: Iterator[Item], n: int) -> list[Item]:
    return list(islice(items, n))


CHORES: Final[tuple[Chore, ...]] = (
    Chore("cut_statements", _CUT_S, cut),  # type: ignore[arg-type]  # the desk of a worker has a keyring too
    Chore("make_statements", _MAKE_S, make),  # type: ignore[arg-type]
)
