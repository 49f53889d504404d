"""The forms that are hashed: leaves, trees, blocks, commitments. No I/O; every byte of every form is fixed by its values.

A leaf is one business event of one book, as compact JSON with a fixed order of fields, integers and lower-case hex only. Leaves and nodes are
hashed apart as in RFC 6962: SHA-256(00 ‖ leaf), SHA-256(01 ‖ left ‖ right).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import orjson

VERSION: Final = 1
GENESIS: Final = bytes(32)
"""What the first block of a chain names as its predecessor."""
_BLOCK: Final = b"kameng/block/1\n"
_HEAD: Final = b"kameng/head/1\n"
_COMMIT: Final = b"kameng/commit/1\n"
_SHOWN: Final = b"kameng/salt/1\nmerchant"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """Whole microseconds since 1970, exactly as the database keeps a time."""
    return (at - _EPOCH) // _MICROSECOND


def canonical(form: Mapping[str, Any]) -> bytes:
    """The one spelling of a form: compact JSON, fields in the order given."""
    return orjson.dumps(form)


def is_canonical(line: bytes) -> bool:
    """Whether these bytes are the one spelling of what they say."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(said, dict) and orjson.dumps(said) == line


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash (RFC 6962) over leaf hashes; they are not none."""
    level = list(leaves)
    assert level, "a block has leaves"
    while len(level) > 1:
        level = _above(level)
    return level[0]


def _above(level: Sequence[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    paired = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
    return [*paired, level[-1]] if len(level) % 2 else paired


def path_of(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index`, from its neighbour up to the root's child."""
    level, path = list(leaves), []
    while len(level) > 1:
        neighbour = index ^ 1
        if neighbour < len(level):
            path.append(level[neighbour])
        level, index = _above(level), index // 2
    return path


def root_from_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """The root that `path` leads to from the leaf hash `leaf`; None when the path does not fit a tree of `count` leaves."""
    if not 0 <= index < count:
        return None
    steps, here, width = iter(path), leaf, count
    while width > 1:
        if index ^ 1 < width:
            beside = next(steps, None)
            if beside is None:
                return None
            here = node_hash(beside, here) if index % 2 else node_hash(here, beside)
        index, width = index // 2, (width + 1) // 2
    return here if next(steps, None) is None else None


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says. `total` counts all leaves of the chain up to and with this block; transaction ids from `from_xid` below `upto_xid`.

    `epoch` counts the restores of the chain: a block of a higher epoch begins where a restore has put the chain back.
    """

    chain: int
    no: int
    epoch: int
    prev: bytes
    root: bytes
    count: int
    total: int
    from_xid: int
    upto_xid: int
    at: int

    def form(self) -> dict[str, Any]:
        return {
            "v": VERSION,
            "chain": self.chain,
            "no": self.no,
            "epoch": self.epoch,
            "prev": self.prev.hex(),
            "root": self.root.hex(),
            "count": self.count,
            "total": self.total,
            "from": self.from_xid,
            "upto": self.upto_xid,
            "at": self.at,
        }

    @property
    def hash(self) -> bytes:
        """H(prev ‖ root ‖ count ‖ range ‖ time), under a domain of its own."""
        return hashlib.sha256(_BLOCK + canonical(self.form())).digest()


def header_from(form: Mapping[str, Any]) -> Header:
    """The inverse of `Header.form`. Raises ValueError, KeyError or TypeError for anything else."""
    header = Header(
        form["chain"], form["no"], form["epoch"], bytes.fromhex(form["prev"]), bytes.fromhex(form["root"]), form["count"],
        form["total"], form["from"], form["upto"], form["at"],
    )  # fmt: skip
    if canonical(header.form()) != canonical(form):
        raise ValueError("not a block header of a known version")
    return header


def signed_text(block_hash: bytes) -> bytes:
    """The bytes that a head's signature is over."""
    return _HEAD + block_hash


def key_id_of(public_key: bytes) -> str:
    """A key's name is made of the key: `ek_` and 16 hex digits of its hash."""
    return "ek_" + hashlib.sha256(public_key).hexdigest()[:16]


def commitment(salt: bytes, label: str, value: bytes) -> str:
    """Binds to `value` and shows nothing of it: without the salt nobody can tell, or guess, what it was."""
    return hmac.digest(salt, _COMMIT + label.encode() + b"\n" + value, "sha256").hex()


def shown_salt(salt: bytes) -> bytes:
    """The salt a merchant is given with its receipt. It opens target, receipt and codes, and leads back to nothing that `salt` itself covers."""
    return hmac.digest(salt, _SHOWN, "sha256")


def event_form(lines: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | orjson.Fragment | None) -> dict[str, Any]:
    """One event as its leaf says it. `lines` are its rows of `transfers`, in order; all of them belong to one event.

    `facts` as values, or spelt already.
    """
    first = lines[0]
    return {
        "v": VERSION,
        "book": first["book_id"],
        "key": first["event_key"],
        "kind": first["kind"],
        "currency": first["currency"],
        "order": first["order_id"].hex if first["order_id"] is not None else None,
        "at": microseconds(first["created_at"]),
        "xid": first["xid"],
        "note": hashlib.sha256(first["note"].encode()).hexdigest() if first["note"] is not None else None,
        "lines": [
            [
                r["line"], r["debit_account"], r["credit_account"], r["amount"],
                r["debit_balance_after"], r["debit_version"], r["credit_balance_after"], r["credit_version"],
            ]
            for r in lines
        ],
        "facts": facts,
    }  # fmt: skip
