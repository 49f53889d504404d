"""The chain as a file that proves itself: streamed, block by block, every byte determined by what it says."""

import gzip
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kameng_api.evidence.actions import leaf_of_stored
from kameng_api.evidence.queries import RANGE, Block, each_block, find_head, public_keys
from kameng_api.evidence.rules import canonical
from kameng_api.evidence.verify import seal_member
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import NotFound


class _Counting:
    """A file that knows the digest of what was written to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.digest = hashlib.sha256()

    def write(self, chunk: Any) -> int:
        self.digest.update(chunk)
        return self._file.write(chunk)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.write(seal_member(self.digest.digest()))
        self._file.close()


def block_line(block: Block) -> bytes:
    """A block's own line."""
    return canonical(
        {"block": block.header.form(), "hash": block.hash.hex(), "key": block.key_id, "signature": block.signature.hex()}
    )


async def lines_of_chain(tx: Tx, first: int, last: int) -> AsyncIterator[bytes]:
    """The lines of an export of blocks `first` to `last`, as the database has them now: what was tampered with is exported so, and found."""
    keys = {name: key.hex() for name, key in (await public_keys(tx)).items()}
    yield canonical({"kameng_export": 1, "chain": RANGE, "first": first, "keys": keys})
    blocks = leaves = 0
    head = ""
    async for block, events, _ in each_block(tx, first, last):
        yield block_line(block)
        for event in events:
            yield leaf_of_stored(event.rows, event.facts)
        blocks, leaves, head = blocks + 1, leaves + len(events), block.hash.hex()
    yield canonical({"end": {"blocks": blocks, "leaves": leaves, "head": head}})


async def export(tx: Tx, path: Path, first: int = 1, last: int | None = None) -> dict[str, Any]:
    """Write blocks `first` to `last` (all there are) to `path`. Raises NotFound where nothing is sealed yet."""
    head = await find_head(tx)
    if head is None or first > head.header.no:
        raise NotFound("nothing is sealed there yet")
    last = min(last or head.header.no, head.header.no)
    out, lines = _Counting(path), 0
    # Level and header fixed: whoever reads it knows every byte of the wrapping.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as packed:
        async for line in lines_of_chain(tx, first, last):
            packed.write(line + b"\n")
            lines += 1
    out.close()
    return {"file": str(path), "first": first, "last": last, "lines": lines}


