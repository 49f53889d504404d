"""Checks what the house has signed, offline: statements, and receipts of orders.

The public keys are the root of it: take them once (`client.statements.keys()`, `client.evidence_keys()`), compare them by another way, keep them.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kameng.errors import NotGenuine
from kameng.models import Leaf, Receipt

_SIGNED: Final = b"kameng-statement/1\n"
_BLOCK: Final = b"kameng/block/1\n"
_HEAD: Final = b"kameng/head/1\n"
_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class SignedManifest:
    """The figures of a day and the hashes of its files, as the exact bytes that were signed."""

    manifest: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    key_id: str

    @property
    def content(self) -> dict[str, Any]:
        """Raises NotGenuine."""
        try:
            found = json.loads(self.manifest)
        except ValueError:
            raise NotGenuine("the manifest is no JSON") from None
        if not isinstance(found, dict):
            raise NotGenuine("the manifest is no JSON object")
        return found

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> "SignedManifest":
        """From a download's headers. Raises NotGenuine."""
        parts = dict(_PARAMETER.findall(headers.get("kameng-statement-signature", "")))
        try:
            manifest = base64.b64decode(headers.get("kameng-statement-manifest", ""), validate=True)
            signature = base64.b64decode(parts.get("signature", ""), validate=True)
        except (binascii.Error, ValueError):
            raise NotGenuine("the headers with the proof are malformed") from None
        if parts.get("algorithm") != "ed25519" or not manifest or not signature:
            raise NotGenuine("the answer carries no proof this client knows")
        return cls(manifest, signature, parts.get("key_id", ""))


def verify_statement(file: IO[bytes], format_: str, proof: SignedManifest, keys: Mapping[str, str]) -> dict[str, Any]:
    """The manifest's content, after the file (read from its beginning) was found to be the one that was signed.

    `keys`: key id → base64 of the public key, those you trust. Raises NotGenuine.
    """
    key = keys.get(proof.key_id)
    if key is None:
        raise NotGenuine(f"signed by the key {proof.key_id}, which is not among those you trust")
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True)).verify(proof.signature, _SIGNED + proof.manifest)
    except (InvalidSignature, ValueError):
        raise NotGenuine("the manifest is not what was signed") from None
    content = proof.content
    told = content.get("files", {}).get(format_)
    if not isinstance(told, dict):
        raise NotGenuine(f"the manifest names no {format_} file")
    digest, size = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(_CHUNK):
        digest.update(piece)
        size += len(piece)
    if (digest.hexdigest(), size) != (told.get("sha256"), told.get("bytes")):
        raise NotGenuine("the file is not the one that was signed")
    return content


def verify_receipt(receipt: Receipt, keys: Mapping[str, str] | None = None) -> tuple[dict[str, Any], ...]:
    """The order's money movements, after each was found in a sealed and signed block.

    `keys`: key id → hex of the public key, those you trust; without them the receipt's own are used, which proves only that it fits together.
    Raises NotGenuine.
    """
    trusted = receipt.keys if keys is None else keys
    if not receipt.leaves:
        raise NotGenuine("the receipt proves nothing: it has no leaves")
    return tuple(_verify_leaf(leaf, trusted) for leaf in receipt.leaves)


def _verify_leaf(leaf: Leaf, keys: Mapping[str, Any]) -> dict[str, Any]:
    head = leaf.head
    try:
        root = _root(leaf, int(head.block["count"]))
        if root.hex() != head.block["root"]:
            raise NotGenuine("the event is not in the block")
        header = json.dumps(head.block, separators=(",", ":"), ensure_ascii=False).encode()
        block_hash = hashlib.sha256(_BLOCK + header).digest()
        if block_hash.hex() != head.hash:
            raise NotGenuine("the block is not what its hash says")
        public = bytes.fromhex(keys[head.key])
        if head.key != "ek_" + hashlib.sha256(public).hexdigest()[:16]:
            raise NotGenuine("a key does not bear its own name")
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(head.signature), _HEAD + block_hash)
        found = json.loads(leaf.leaf)
    except KeyError as missing:
        raise NotGenuine(f"signed by a key that you do not trust, or incomplete: {missing}") from None
    except (InvalidSignature, ValueError, TypeError, StopIteration):
        raise NotGenuine("the proof does not fit together") from None
    if not isinstance(found, dict):
        raise NotGenuine("the leaf is no event")
    return found


def _root(leaf: Leaf, count: int) -> bytes:
    """Climbs from the leaf. Raises NotGenuine, StopIteration for a path that is too short."""
    here = hashlib.sha256(b"\x00" + leaf.leaf.encode()).digest()
    index, width, path = leaf.index, count, iter(leaf.path)
    if not 0 <= index < width:
        raise NotGenuine("the event is not in the block")
    while width > 1:
        if index ^ 1 < width:  # it has a neighbour on this level
            beside = bytes.fromhex(next(path))
            here = hashlib.sha256(b"\x01" + (beside + here if index % 2 else here + beside)).digest()
        index, width = index // 2, (width + 1) // 2
    if next(path, None) is not None:
        raise NotGenuine("the path is too long")
    return here
