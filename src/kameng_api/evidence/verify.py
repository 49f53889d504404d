"""Is an export what was sealed? Decided from the file alone, and from anchors and keys kept elsewhere.

An export is a gzip file of lines, and every byte of it means something:
    {"kameng_export":1,…}                               first line: which chain, which blocks, which keys
    {"block":{header},"hash":…,"key":…,"signature":…}   then its leaves, one line each, exactly as they were hashed
    {"end":{…}}                                         last line: how much there was
A second, empty gzip member carries the SHA-256 of all bytes before it, so that even bits which compression leaves unused are covered.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson

from kameng_api.evidence.rules import GENESIS, Header, header_from, is_canonical, key_id_of, leaf_hash, root_of
from kameng_api.evidence.signer import is_signed

_GZIP_HEADER: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255))
_SEAL_HEAD: Final = bytes((0x1F, 0x8B, 8, 0x10, 0, 0, 0, 0, 0, 255)) + b"sha256:"
_SEAL_TAIL: Final = b"\x00" + bytes((1, 0, 0, 0xFF, 0xFF)) + bytes(8)
SEAL_BYTES: Final = len(_SEAL_HEAD) + 64 + len(_SEAL_TAIL)
_CHUNK: Final = 1 << 20
_MOST_TROUBLES: Final = 20


class NotWhole(Exception):
    """The file cannot be read to its end as an export."""


def seal_member(digest: bytes) -> bytes:
    """The last member of the file: nothing, with the digest of everything before it as its comment."""
    return _SEAL_HEAD + digest.hex().encode() + _SEAL_TAIL


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head as it was put elsewhere."""

    chain: int
    no: int
    epoch: int
    total: int
    hash: bytes

    def form(self) -> dict[str, Any]:
        return {"chain": self.chain, "no": self.no, "epoch": self.epoch, "total": self.total, "hash": self.hash.hex()}


def anchor_from(form: Mapping[str, Any]) -> Anchor:
    """Raises KeyError, ValueError or TypeError."""
    return Anchor(form["chain"], form["no"], form["epoch"], form["total"], bytes.fromhex(form["hash"]))


@dataclass(slots=True)
class Report:
    """What was found. The file holds when `troubles` is empty; `notes` are what a reader should know all the same."""

    blocks: int = 0
    leaves: int = 0
    first: int = 0
    head: int = 0
    head_hash: str = ""
    anchored: int = 0
    troubles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def blame(self, trouble: str) -> None:
        if len(self.troubles) < _MOST_TROUBLES:
            self.troubles.append(trouble)

    @property
    def well(self) -> bool:
        return not self.troubles


def verify(path: Path, anchors: Sequence[Anchor] = (), pinned: Sequence[bytes] = ()) -> Report:
    """Read the whole export. `pinned`: the 32-byte public keys to trust; without any, the file's own keys are taken and a note says so."""
    report = Report()
    reader = Reader(report, anchors, pinned)
    try:
        for line in lines_of(path):
            reader.take(line)
        reader.finish()
    except NotWhole as trouble:
        report.blame(str(trouble))
    return report


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of an export without their ends. Raises NotWhole when a byte of the wrapping is not as it was written."""
    size = path.stat().st_size
    if size <= len(_GZIP_HEADER) + SEAL_BYTES:
        raise NotWhole("the file is too short to be an export")
    with path.open("rb") as file:
        yield from _lines(_inflated(file, size - SEAL_BYTES))
        _check_seal(path, size)


def _check_seal(path: Path, size: int) -> None:
    digest, left = hashlib.sha256(), size - SEAL_BYTES
    with path.open("rb") as file:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise NotWhole("the file ends too early")
            digest.update(chunk)
            left -= len(chunk)
        if file.read() != seal_member(digest.digest()):
            raise NotWhole("the bytes of the file are not those that were written: its last member names another digest")


def _inflated(file: IO[bytes], size: int) -> Iterator[bytes]:
    if file.read(len(_GZIP_HEADER)) != _GZIP_HEADER:
        raise NotWhole("the file does not begin as an export does")
    file.seek(0)
    inflate, left = zlib.decompressobj(wbits=31), size
    try:
        while left and not inflate.eof:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise NotWhole("the file ends too early")
            left -= len(chunk)
            yield inflate.decompress(chunk)
    except zlib.error as trouble:
        raise NotWhole(f"the compressed stream is damaged: {trouble}") from None
    if not inflate.eof or left or inflate.unused_data:
        raise NotWhole("the compressed stream does not end where it should")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        raise NotWhole("the last line is cut")


class Reader:
    """One pass over the lines of an export; what was read is kept only as long as its block lasts."""

    def __init__(self, report: Report, anchors: Sequence[Anchor] = (), pinned: Sequence[bytes] = ()) -> None:
        self._report = report
        self._anchors: dict[int, list[Anchor]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.no, []).append(anchor)
        self._pinned = {key_id_of(key): key for key in pinned}
        self._keys: dict[str, bytes] = {}
        self._chain = 0
        self._header: Header | None = None
        self._leaves: list[bytes] = []
        self._last: tuple[int, int, bytes] | None = None
        self._ended = False
        self._n = 0

    def take(self, line: bytes) -> None:
        """The next line. Raises NotWhole where reading on makes no sense."""
        self._n += 1
        if not is_canonical(line):
            raise NotWhole(f"line {self._n} is not in its one spelling")
        said = orjson.loads(line)
        if self._ended:
            raise NotWhole(f"line {self._n} stands behind the end")
        if self._n == 1:
            self._begin(said)
        elif "block" in said:
            self._close_block()
            self._open_block(said)
        elif "end" in said:
            self._close_block()
            self._end(said)
        else:
            self._leaf(line, said)

    def finish(self) -> None:
        """No line follows. Raises NotWhole when one should."""
        if not self._ended:
            raise NotWhole("the file has no end: its tail is cut")
        self._check_anchors()

    def _begin(self, said: Mapping[str, Any]) -> None:
        try:
            if list(said) != ["kameng_export", "chain", "first", "keys"] or said["kameng_export"] != 1:
                raise ValueError
            self._chain, self._report.first = int(said["chain"]), int(said["first"])
            self._keys = {name: bytes.fromhex(key) for name, key in said["keys"].items()}
        except (ValueError, TypeError, AttributeError):
            raise NotWhole("the first line is not that of an export") from None
        for name, key in self._keys.items():
            if key_id_of(key) != name or said["keys"][name] != key.hex():
                self._report.blame(f"key {name} is not the key of this name")
        if not self._pinned:
            self._report.notes.append("no key was given: signatures are checked against the keys that the file itself brings")
        elif unknown := sorted(set(self._keys) - set(self._pinned)):
            self._report.notes.append(f"keys of the file that were not given: {', '.join(unknown)}")

    def _open_block(self, said: Mapping[str, Any]) -> None:
        report = self._report
        try:
            if list(said) != ["block", "hash", "key", "signature"]:
                raise ValueError
            header = header_from(said["block"])
            signature = bytes.fromhex(said["signature"])
            if said["hash"] != header.hash.hex() or said["signature"] != signature.hex():
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise NotWhole(f"a block after number {report.head} is not what its hash says") from None
        keys = self._pinned or self._keys
        if said["key"] not in keys or not is_signed(keys[said["key"]], header.hash, signature):
            report.blame(f"block {header.no} is not signed by a trusted key")
        self._follow(header)
        for anchor in self._anchors.get(header.no, ()):
            if (anchor.chain, anchor.epoch) == (header.chain, header.epoch):
                report.anchored += 1
                if (anchor.hash, anchor.total) != (header.hash, header.total):
                    report.blame(f"block {header.no} is not the one that was anchored")
        self._header, self._leaves = header, []

    def _follow(self, header: Header) -> None:
        report, before = self._report, self._header
        if header.chain != self._chain:
            report.blame(f"block {header.no} belongs to chain {header.chain}")
        if before is None:
            if header.no != report.first:
                report.blame(f"the file begins with block {header.no}, not with {report.first}")
            if header.no == 1 and (header.prev != GENESIS or header.total != header.count):
                report.blame("block 1 is not the beginning of a chain")
            if header.no > 1:
                report.notes.append(f"a part of the chain: what stands before block {header.no} is only named by its hash")
            return
        if header.no != before.no + 1 or header.prev != before.hash:
            report.blame(f"block {header.no} does not follow block {before.no}")
        if header.total != before.total + header.count:
            report.blame(f"block {header.no} miscounts the chain")
        if header.from_xid < before.upto_xid or header.at < before.at:
            report.blame(f"block {header.no} reaches back behind block {before.no}")
        if header.epoch != before.epoch:
            report.notes.append(f"the chain was restored before block {header.no} (epoch {header.epoch}): blocks after {before.no} were lost")
            if header.epoch < before.epoch:
                report.blame(f"block {header.no} goes back to epoch {header.epoch}")

    def _leaf(self, line: bytes, said: Mapping[str, Any]) -> None:
        header = self._header
        if header is None:
            raise NotWhole("a leaf stands before its block")
        if not {"v", "book", "key", "xid"} <= set(said) or not isinstance(said["key"], str):
            raise NotWhole(f"a line in block {header.no} is no leaf")
        place = said["xid"], said["book"], said["key"].encode()
        if not header.from_xid <= said["xid"] < header.upto_xid or (self._last is not None and self._leaves and place <= self._last):
            self._report.blame(f"block {header.no}: {said['key']} stands in the wrong place")
        self._last = place
        self._leaves.append(leaf_hash(line))

    def _close_block(self) -> None:
        header, report = self._header, self._report
        if header is None:
            return
        if len(self._leaves) != header.count:
            report.blame(f"block {header.no} has {len(self._leaves)} leaves instead of {header.count}")
        elif root_of(self._leaves) != header.root:
            report.blame(f"block {header.no}: its leaves are not those that were sealed")
        report.blocks += 1
        report.leaves += len(self._leaves)
        report.head, report.head_hash = header.no, header.hash.hex()

    def _end(self, said: Mapping[str, Any]) -> None:
        report = self._report
        if said != {"end": {"blocks": report.blocks, "leaves": report.leaves, "head": report.head_hash}}:
            report.blame("the end does not count what the file holds")
        self._ended = True

    def _check_anchors(self) -> None:
        report, epoch = self._report, self._header.epoch if self._header else 0
        beyond = [a for of_no in self._anchors.values() for a in of_no if a.chain == self._chain and a.no > report.head]
        cut = [a for a in beyond if a.epoch == epoch]
        if cut:
            last = max(cut, key=lambda a: a.no)
            report.blame(f"the tail is cut: block {last.no} with {last.total} leaves was anchored, the file ends with block {report.head}")
        if lost := [a for a in beyond if a.epoch < epoch]:
            report.notes.append(f"{len(lost)} anchored head(s) up to block {max(a.no for a in lost)} were lost in a restore")
        if self._anchors and not report.anchored:
            report.notes.append("no anchor names a block of this file")
