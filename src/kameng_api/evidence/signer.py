"""The key that signs heads: from a file, or made of the key-encryption key; never from the database."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kameng_api.evidence.rules import key_id_of, signed_text


@dataclass(frozen=True, slots=True)
class Signer:
    """An Ed25519 key with its name."""

    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return key_id_of(self.public_key)

    def sign(self, block_hash: bytes) -> bytes:
        return self.key.sign(signed_text(block_hash))


def load_signer(key_file: Path | None, derived: bytes) -> Signer:
    """The key in `key_file` (PEM, PKCS#8, Ed25519), else the one made of the 32 bytes `derived`. Raises OSError or ValueError."""
    if key_file is None:
        return Signer(Ed25519PrivateKey.from_private_bytes(derived))
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{key_file} holds no Ed25519 key")
    return Signer(key)


def is_signed(public_key: bytes, block_hash: bytes, signature: bytes) -> bool:
    """Whether this is the key's signature over a head."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed_text(block_hash))
    except (InvalidSignature, ValueError):
        return False
    return True
