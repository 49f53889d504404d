"""Secrets at rest and blind indexes: what is stolen with the database alone must be worth nothing.

`Keyring` holds key-encryption keys (KEK) by id, one of them current. A sealed value names its KEK, so keys can be
rotated row by row.

Why values are not encrypted under the KEK itself: AES-GCM with random 96-bit nonces may encrypt at most 2^32 messages
under one key (SP 800-38D), and a platform seals more than that in its life. Wrapping a fresh data key per value would
cost 48 bytes and a second AES key schedule on every row. Instead each process draws a random 64-bit salt and derives
its own AES-256 key from it, HKDF-SHA256(KEK, salt); the salt is stored in the value, the derived key is cached. A
salt is replaced after 2^24 values, so one derived key sees far fewer than 2^32 random nonces (collision probability
below 2^-49). Two processes that draw the same salt, or a process that was forked, only share a key whose nonces are
still random. Salt, KEK id and version are authenticated together with the caller's associated data.

Layout of a sealed value: version (1 byte, 0x01) · length of kek_id (1 byte) · kek_id (ASCII) · salt (8) · nonce (12)
· ciphertext and tag (16).
"""

import base64
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_VERSION = 1
_SALT_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_SEALS_PER_SALT = 1 << 24
_MAX_CACHED_KEYS = 4096
_KEK_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class CryptoError(Exception):
    """A sealed value cannot be opened: damaged, moved to another row, or sealed under a key that is not here."""


class Keyring:
    """Seals, opens and fingerprints bytes under a set of 32-byte KEKs.

    `keks` maps kek_id (1–32 of `[A-Za-z0-9_-]`) to its key; `current` names the one new values are sealed under.
    Fingerprints and `derive`d keys must not change when the current KEK does, so they come from `index_kek`, by
    default the KEK listed last (new keys are put in front): keep that one in the ring for as long as stored
    fingerprints are compared. Raises `ValueError` for a key of another length, an odd id, or an unknown name. Not
    thread-safe beyond what one event loop needs.
    """

    def __init__(self, keks: Mapping[str, bytes], current: str, *, index_kek: str | None = None) -> None:
        index_kek = index_kek or next(reversed(list(keks)), "")
        for kek_id, kek in keks.items():
            if not _KEK_ID.fullmatch(kek_id):
                raise ValueError(f"key id {kek_id!r} is not 1-32 of [A-Za-z0-9_-]")
            if len(kek) != KEY_BYTES:
                raise ValueError(f"key {kek_id!r} is {len(kek)} bytes long, not {KEY_BYTES}")
        for name in (current, index_kek):
            if name not in keks:
                raise ValueError(f"key {name!r} is not in the ring")
        self.current = current
        self._keks = dict(keks)
        self._index_kek = self._keks[index_kek]
        self._purpose_keys: dict[str, bytes] = {}
        self._opening: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._renew_salt()

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keks)}; current={self.current})"

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt under the current KEK, bound to `aad` (name the row and the column, so that a value cannot be
        moved).
        """
        if self._seals_left <= 0:
            self._renew_salt()
        self._seals_left -= 1
        nonce = os.urandom(_NONCE_BYTES)
        return self._header + nonce + self._sealing.encrypt(nonce, plaintext, self._header + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what `seal` made with the same `aad`; raises `CryptoError`."""
        header_end = _header_length(sealed)
        header = sealed[:header_end]
        nonce_end = header_end + _NONCE_BYTES
        cipher = self._opening.get(header) or self._opening_cipher(header)
        try:
            return cipher.decrypt(sealed[header_end:nonce_end], sealed[nonce_end:], header + aad)
        except InvalidTag:
            raise CryptoError("the sealed value is damaged or belongs elsewhere") from None

    def fingerprint(self, value: bytes, purpose: str) -> bytes:
        """32 bytes that are equal exactly for equal values of one purpose, and say nothing without the key (a blind
        index).
        """
        key = self._purpose_keys.get(purpose) or self.derive(purpose)
        return hmac.digest(key, value, "sha256")

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key of its own for `purpose` (a cursor's MAC, a nonce's hash); the same for every process and
        every current KEK.
        """
        key = self._purpose_keys.get(purpose)
        if key is None:
            key = _hkdf(self._index_kek, salt=b"", info=b"kameng/purpose/1/" + purpose.encode())
            self._purpose_keys[purpose] = key
        return key

    def _renew_salt(self) -> None:
        kek_id = self.current.encode()
        self._header = bytes((_VERSION, len(kek_id))) + kek_id + os.urandom(_SALT_BYTES)
        self._sealing = self._opening_cipher(self._header)
        self._seals_left = _SEALS_PER_SALT

    def _opening_cipher(self, header: bytes) -> AESGCM:
        kek = self._keks.get(header[2:-_SALT_BYTES].decode("ascii", "replace"))
        if kek is None:
            raise CryptoError("the sealed value names a key that is not in the ring")
        cipher = AESGCM(_hkdf(kek, salt=header[-_SALT_BYTES:], info=b"kameng/seal/1"))
        self._opening[header] = cipher
        if len(self._opening) > _MAX_CACHED_KEYS:
            self._opening.popitem(last=False)
        return cipher


def kek_id_of(sealed: bytes) -> str:
    """The id of the KEK a value was sealed under, without opening it; raises `CryptoError` if it is no sealed value."""
    return sealed[2 : _header_length(sealed) - _SALT_BYTES].decode("ascii", "replace")


def delivery_envelope(key: bytes, kid: str, order_id: str, plaintext: bytes, *, nonce: str | None = None) -> dict[str, str]:
    """Card codes for one merchant, as `GET /v1/orders/{id}/codes` shows them: AEAD_AES_256_GCM under the merchant's
    32-byte delivery key.

    The nonce is 12 printable ASCII characters because merchants' libraries take it as text; 12 random base64url
    characters are 72 bits, so one delivery key should serve fewer than 2^20 reveals before the merchant renews it.
    `nonce` is given only by tests of the vector.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a delivery key is {KEY_BYTES} bytes long, not {len(key)}")
    nonce = nonce or base64.urlsafe_b64encode(os.urandom(9)).decode()
    associated_data = f"order_codes:{order_id}"
    sealed = AESGCM(key).encrypt(nonce.encode("ascii"), plaintext, associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "kid": kid,
        "nonce": nonce,
        "associated_data": associated_data,
        "ciphertext": base64.b64encode(sealed).decode(),
    }


def _header_length(sealed: bytes) -> int:
    if len(sealed) < 2 or sealed[0] != _VERSION:
        raise CryptoError("not a sealed value of a known version")
    length = 2 + sealed[1] + _SALT_BYTES
    if len(sealed) < length + _NONCE_BYTES + _TAG_BYTES:
        raise CryptoError("the sealed value is cut short")
    return length


def _hkdf(key: bytes, *, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key)
