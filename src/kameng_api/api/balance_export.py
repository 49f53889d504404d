"""The fund flow of some business days as one file: cut where statements are cut, written by their writers, read page by page."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from starlette.responses import StreamingResponse

from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.ledger import queries as ledger
from kameng_api.ledger.queries import Place
from kameng_api.merchants import queries as merchants
from kameng_api.merchants.rules import Caller
from kameng_api.statements import queries as statements
from kameng_api.statements.files import CsvWriter, Writer, XlsxWriter
from kameng_api.statements.queries import DayCut
from kameng_api.statements.rules import MEDIA_TYPES, Cut, Disagrees, Tally

__all__ = ["MEDIA_TYPES", "answer", "cut_of", "read_days"]

MOST_DAYS: Final = 93
MOST_MOVEMENTS: Final = 1_000_000
_PAGE: Final = 2_000
_DAY: Final = timedelta(days=1)


def read_days(first: str, last: str) -> tuple[date, date]:
    """Raises Invalid for what is no date, for an end before its beginning, and for more than 93 days."""
    wrong, days = [], []
    for name, text in (("from", first), ("to", last)):
        try:
            day = date.fromisoformat(text)
            if not 2000 <= day.year < 2100:
                raise ValueError
            days.append(day)
        except ValueError:
            wrong.append(FieldError(f"/query/{name}", "format", "a day such as 2026-11-21"))
    if not wrong and not timedelta() <= days[1] - days[0] < timedelta(days=MOST_DAYS):
        wrong.append(FieldError("/query/to", "out_of_range", f"not before `from`, and at most {MOST_DAYS} days in all"))
    if wrong:
        raise Invalid(errors=wrong)
    return days[0], days[1]


async def cut_of(tx: Tx, caller: Caller, currency: str, first: date, last: date) -> Cut:
    """The movements of these business days. Raises NotFound for a currency without money, Invalid for the future and for too many movements."""
    end = await ledger.find_end(tx, caller.book_id, currency)
    if end is None:
        raise NotFound("no money in this currency")
    merchant = await merchants.get_merchant(tx, caller.merchant_id)
    zone, now = ZoneInfo(merchant.timezone), utc_now()
    if first > now.astimezone(zone).date():
        raise Invalid(errors=[FieldError("/query/from", "out_of_range", "a day that has not begun")])
    starts_at, opening = await _start(tx, caller.book_id, currency, first, zone)
    ends_at, closing = await _end(tx, caller.book_id, currency, last, zone, now, end)
    if closing.version < opening.version:  # a day that nobody has cut yet, around a clock that was set back
        closing = opening
    if closing.version - opening.version > MOST_MOVEMENTS:
        raise Invalid(errors=[FieldError("/query/to", "out_of_range", f"more than {MOST_MOVEMENTS} movements: ask for fewer days at once")])
    return Cut(
        caller.book_id, caller.merchant_id, caller.environment, currency, first, merchant.timezone, starts_at, ends_at,
        opening.version, closing.version, opening.balance, closing.balance, last,
    )  # fmt: skip


async def _start(tx: Tx, book_id: int, currency: str, day: date, zone: ZoneInfo) -> tuple[datetime, Place]:
    cut = await statements.find_cut(tx, book_id, currency, day)
    if cut is not None and cut.day == day:
        return cut.starts_at, Place(cut.from_version, cut.opening)
    if cut is not None and cut.day == day - _DAY:
        return cut.ends_at, Place(cut.to_version, cut.closing)
    return await _midnight(tx, book_id, currency, day, zone, cut)


async def _end(tx: Tx, book_id: int, currency: str, day: date, zone: ZoneInfo, now: datetime, end: Place) -> tuple[datetime, Place]:
    cut = await statements.find_cut(tx, book_id, currency, day)
    if cut is not None and cut.day == day:
        return cut.ends_at, Place(cut.to_version, cut.closing)
    if _begin(day + _DAY, zone) > now:
        return now, end
    return await _midnight(tx, book_id, currency, day + _DAY, zone, cut)


async def _midnight(tx: Tx, book_id: int, currency: str, day: date, zone: ZoneInfo, cut: DayCut | None) -> tuple[datetime, Place]:
    """The beginning of a day that no statement has cut yet: by the time of booking, never within what is cut."""
    at = _begin(day, zone)
    if cut is not None and cut.ends_at > at:
        return cut.ends_at, Place(cut.to_version, cut.closing)
    place = await ledger.find_place(tx, book_id, currency, at)
    return at, place if cut is None or place.version > cut.to_version else Place(cut.to_version, cut.closing)


def _begin(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone)


def answer(db: Database, cut: Cut, format_: str) -> StreamingResponse:
    """Sent as it is read (CSV), or once it is packed (XLSX); never more than a page of it in memory."""
    name = f"transactions-{cut.day}-{cut.upto}-{cut.currency}-{cut.environment}.{format_}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-transform"}
    return StreamingResponse(_pieces(db, cut, format_), headers=headers, media_type=MEDIA_TYPES[format_])


async def _pieces(db: Database, cut: Cut, format_: str) -> AsyncIterator[bytes]:
    """Raises Disagrees when the movements do not lead from the opening to the closing balance: the answer breaks off."""
    tally, after = Tally(cut), cut.from_version
    with tempfile.TemporaryDirectory(prefix="kameng-export-") as folder:
        writer: Writer = CsvWriter(cut) if format_ == "csv" else await asyncio.to_thread(XlsxWriter, cut, Path(folder))
        if cut.from_version == cut.to_version:
            yield writer.add([])
        while after < cut.to_version:
            async with db.transaction() as tx:
                lines = await statements.list_lines(tx, cut, after, _PAGE)
            if not lines:
                raise Disagrees(f"no movement follows {after}")
            tally.add(lines)
            made = await asyncio.to_thread(writer.add, lines)
            if made:
                yield made
            after = lines[-1].version
        tally.close()
        rest = writer.finish(tally)
        while (piece := await asyncio.to_thread(next, rest, None)) is not None:
            yield piece
