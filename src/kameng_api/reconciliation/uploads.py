"""A file that a person brings: read row by row, listed with what is wrong in it, and kept apart until somebody accepts it."""

import hashlib
import os
from datetime import date
from io import BufferedRandom, BufferedReader
from typing import Final

from kameng_api.kit.db import Database
from kameng_api.kit.errors import Invalid, StateConflict
from kameng_api.reconciliation import landing, sources
from kameng_api.reconciliation.files import LARGEST_BYTES, read_file, refusal
from kameng_api.reconciliation.sources import Source, StatementFile

_LONGEST_NAME: Final = 120


async def upload(db: Database, source: Source, day: date, file: BufferedReader | BufferedRandom, name: str, by: str) -> tuple[StatementFile, bool]:
    """Read an open file for one day of a source. Returns it, and whether it is new: the same bytes again are the file they were.

    Raises StateConflict when the source is not one of files, Invalid when the file as a whole cannot be read.
    """
    if source.kind != "upload" or source.mapping is None:
        raise StateConflict("this source is fetched; files are uploaded to a source of kind upload")
    size = os.fstat(file.fileno()).st_size
    if size > LARGEST_BYTES:
        raise refusal(f"larger than {LARGEST_BYTES // 1_000_000} MB")
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").digest()
    async with db.transaction() as tx:
        known = await sources.find_file(tx, source.source_id, sha256)
        if known is not None and known.state not in ("reading", "rejected"):
            return known, False
        telling = await landing.begin(tx, source, day, _safe(name), by, sha256=sha256, size_bytes=size)
    try:
        async for batch in read_file(file, source.mapping, source.currency):
            if landing.take(telling, batch.lines, batch.bad):
                async with db.transaction() as tx:
                    await landing.keep(tx, telling)
        if not telling.rows:
            raise refusal("no row of it can be read" + (f"; line {telling.bad[0][0]}: {telling.bad[0][1]}" if telling.bad else ""))
    except Invalid as trouble:
        async with db.transaction() as tx:
            await landing.give_up(tx, telling, because=trouble.detail, for_good=True)
        raise
    async with db.transaction() as tx:
        return await landing.finish(tx, telling, with_bytes=True), True


def _safe(name: str) -> str:
    """The last part of a path, of characters that can be shown."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:_LONGEST_NAME] or "file"
