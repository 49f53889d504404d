"""Unpacks a stranger's ZIP package (every XLSX is one) piece by piece within limits: the sizes in its directory are only claims."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

_SMALL: Final = 1_000_000
"""Bytes a part may always unpack to, whatever its ratio: an empty sheet of styled cells packs very well."""


class BadPackage(ValueError):
    """It is no package, or unpacks to more than allowed; the message says why, in words safe to show."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`parts` in the package, `unpacked` bytes of all of them together, `ratio` of unpacked to packed bytes of any part above a megabyte."""

    parts: int
    unpacked: int
    ratio: int


def walk(raw: BinaryIO, limits: Limits, reader_of: Callable[[str], Callable[[bytes], object] | None]) -> None:
    """Unpack every part once and count; what `reader_of(name)` returns is handed the pieces. Raises BadPackage, before too much is unpacked."""
    try:
        with _opened(raw) as packed:
            parts = packed.infolist()
            if len(parts) > limits.parts:
                raise BadPackage(f"more than {limits.parts} parts")
            total = 0
            for part in parts:
                total += _measure(raw, part, limits, limits.unpacked - total, reader_of(part.filename))
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError) as trouble:
        raise BadPackage(f"not a spreadsheet ({type(trouble).__name__})") from None


def _opened(raw: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except (ValueError, OSError, OverflowError) as trouble:  # places before the file begins, names that are no text
        raise BadPackage(f"not a spreadsheet ({type(trouble).__name__})") from None


def _measure(raw: BinaryIO, part: zipfile.ZipInfo, limits: Limits, left: int, read: Callable[[bytes], object] | None) -> int:
    if part.flag_bits & 1:
        raise BadPackage("it is encrypted")
    if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadPackage("packed in a way that spreadsheets are not")
    if part.header_offset < 0:
        raise BadPackage("a part begins before the file does")
    raw.seek(part.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", raw.read(4))
    raw.seek(part.header_offset + 30 + name_length + extra_length)
    most = min(left, max(part.compress_size * limits.ratio, _SMALL))
    unpacked = 0
    for piece in _unpacked(raw, part):
        unpacked += len(piece)
        if unpacked > most:
            raise BadPackage("it unpacks to far more than a file of its size should")
        if read is not None:
            read(piece)
    return unpacked


def _unpacked(raw: BinaryIO, part: zipfile.ZipInfo) -> Iterator[bytes]:
    todo = part.compress_size
    inflate = zlib.decompressobj(-15) if part.compress_type == zipfile.ZIP_DEFLATED else None
    while todo > 0 and (packed := raw.read(min(todo, 65_536))):
        todo -= len(packed)
        if inflate is None:
            yield packed
            continue
        while packed:
            yield inflate.decompress(packed, _SMALL)
            packed = inflate.unconsumed_tail
