"""Verifies a receipt without our package: `python receipt.py RECEIPT.json PUBLIC_KEY_HEX`. Needs `pip install cryptography`."""

import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def verify(receipt, public_key_hex):
    """The order's events, proven; raises when anything does not fit."""
    public_key = bytes.fromhex(public_key_hex)
    key_id = "ek_" + hashlib.sha256(public_key).hexdigest()[:16]
    events = []
    for proof in receipt["leaves"]:
        here = hashlib.sha256(b"\x00" + proof["leaf"].encode()).digest()
        head, index, path = proof["head"], proof["index"], iter(proof["path"])
        width = head["block"]["count"]
        while width > 1:
            if index ^ 1 < width:  # it has a neighbour on this level
                beside = bytes.fromhex(next(path))
                here = hashlib.sha256(b"\x01" + (beside + here if index % 2 else here + beside)).digest()
            index, width = index // 2, (width + 1) // 2
        assert here.hex() == head["block"]["root"], "the event is not in the block"
        header = json.dumps(head["block"], separators=(",", ":")).encode()
        block_hash = hashlib.sha256(b"kameng/block/1\n" + header).digest()
        assert block_hash.hex() == head["hash"], "the block is not what its hash says"
        assert head["key"] == key_id, "signed by another key"
        Ed25519PublicKey.from_public_bytes(public_key).verify(bytes.fromhex(head["signature"]), b"kameng/head/1\n" + block_hash)
        events.append(json.loads(proof["leaf"]))
    return events


if __name__ == "__main__":
    for event in verify(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[2]):
        print(event["key"], event["kind"], event["currency"], event["lines"])
