"""What is sealed opens only where it belongs; what is stolen from the database alone is worth nothing."""

import base64
import os

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.kit import crypto
from kameng_api.kit.crypto import CryptoError, Keyring, delivery_envelope, kek_id_of

KEK_1, KEK_2 = bytes(range(32)), bytes(range(1, 33))
RING = Keyring({"k1": KEK_1, "k2": KEK_2}, "k1")


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_a_sealed_value_opens_with_the_same_associated_data(plaintext: bytes, aad: bytes) -> None:
    sealed = RING.seal(plaintext, aad)
    assert RING.open(sealed, aad) == plaintext
    assert kek_id_of(sealed) == "k1"
    assert len(sealed) == len(plaintext) + 1 + 1 + 2 + 8 + 12 + 16


def test_another_process_with_the_same_keys_opens_it_whichever_key_is_current() -> None:
    sealed = RING.seal(b"13800138000", b"order:1")
    rotated = Keyring({"k1": KEK_1, "k2": KEK_2}, "k2")
    assert rotated.open(sealed, b"order:1") == b"13800138000"
    assert kek_id_of(rotated.seal(b"x", b"")) == "k2"


@given(st.data())
def test_a_flipped_bit_anywhere_is_noticed(data: st.DataObject) -> None:
    sealed = RING.seal(b"13800138000", b"order:1")
    place = data.draw(st.integers(0, len(sealed) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    damaged = sealed[:place] + bytes((sealed[place] ^ bit,)) + sealed[place + 1 :]
    with pytest.raises(CryptoError):
        RING.open(damaged, b"order:1")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02" + bytes(60), b"\x01\xff" + bytes(60), b"\x01\x02k1" + bytes(35)])
def test_what_is_no_sealed_value_is_refused(sealed: bytes) -> None:
    with pytest.raises(CryptoError):
        RING.open(sealed, b"")


def test_a_value_moved_to_another_row_does_not_open() -> None:
    sealed = RING.seal(b"13800138000", b"order:1")
    with pytest.raises(CryptoError):
        RING.open(sealed, b"order:2")


def test_a_value_under_a_removed_key_does_not_open_but_still_names_it() -> None:
    sealed = RING.seal(b"x", b"")
    with pytest.raises(CryptoError):
        Keyring({"k2": KEK_2}, "k2").open(sealed, b"")
    assert kek_id_of(sealed) == "k1"


def test_the_kek_itself_never_encrypts_and_the_text_is_not_in_the_value() -> None:
    sealed = RING.seal(b"13800138000", b"order:1")
    header, nonce, rest = sealed[:12], sealed[12:24], sealed[24:]
    assert b"13800138000" not in sealed
    with pytest.raises(InvalidTag):
        AESGCM(KEK_1).decrypt(nonce, rest, header + b"order:1")


def test_nonces_never_repeat_and_the_salt_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "_SEALS_PER_SALT", 1000)
    ring = Keyring({"k1": KEK_1}, "k1")
    sealed = [ring.seal(b"x", b"") for _ in range(20_000)]
    assert len({value[4:24] for value in sealed}) == 20_000
    assert len({value[4:12] for value in sealed}) == 20
    assert all(ring.open(value, b"") == b"x" for value in sealed[::997])


def test_opening_values_of_very_many_processes_keeps_a_bounded_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "_MAX_CACHED_KEYS", 8)
    values = [Keyring({"k1": KEK_1}, "k1").seal(b"%d" % n, b"") for n in range(30)]
    ring = Keyring({"k1": KEK_1}, "k1")
    assert [ring.open(value, b"") for value in values] == [b"%d" % n for n in range(30)]
    assert len(ring._opening) <= 8


def test_fingerprints_survive_a_new_key_put_in_front_and_differ_by_purpose() -> None:
    before = Keyring({"k2": KEK_2}, "k2")
    for current in ("k1", "k2"):
        rotated = Keyring({"k1": KEK_1, "k2": KEK_2}, current)
        assert rotated.fingerprint(b"13800138000", "target") == before.fingerprint(b"13800138000", "target")
    assert RING.fingerprint(b"13800138000", "target") != RING.fingerprint(b"13800138000", "card_code")
    assert RING.fingerprint(b"13800138000", "target") != RING.fingerprint(b"13800138001", "target")
    assert len(RING.fingerprint(b"", "target")) == 32
    assert Keyring({"k2": KEK_2, "k1": KEK_1}, "k2", index_kek="k2").derive("cursor") == RING.derive("cursor")


@pytest.mark.parametrize(
    ("keks", "current", "index"),
    [
        ({}, "k1", None),
        ({"k1": b"short"}, "k1", None),
        ({"k1": KEK_1}, "k2", None),
        ({"k 1": KEK_1}, "k 1", None),
        ({"k1": KEK_1}, "k1", "k9"),
    ],
)
def test_a_ring_that_cannot_work_is_refused_at_once(keks: dict[str, bytes], current: str, index: str | None) -> None:
    with pytest.raises(ValueError, match="key"):
        Keyring(keks, current, index_kek=index)


def test_a_ring_does_not_print_its_keys() -> None:
    assert "k1" in repr(RING)
    assert KEK_1.hex() not in repr(RING)
    assert repr(KEK_1) not in repr(RING)


def test_the_contracts_card_code_envelope() -> None:
    envelope = delivery_envelope(
        b"0123456789abcdef0123456789abcdef",
        "dk_1",
        "ord_01JD0000000000000000000009",
        b'[{"code":"TEST-AAAA-BBBB-CCCC","pin":"1234"}]',
        nonce="a1b2c3d4e5f6",
    )
    assert envelope == {
        "algorithm": "AEAD_AES_256_GCM",
        "kid": "dk_1",
        "nonce": "a1b2c3d4e5f6",
        "associated_data": "order_codes:ord_01JD0000000000000000000009",
        "ciphertext": "fEfNd1PcZQa6vuE54rDckVbo6b0yN3DtbzDQSttNSuGV5e3vWi5XBjsLpesP8YCLLPU/MtQ4bltAGBzx8w==",
    }


def test_a_delivered_envelope_opens_with_nothing_but_the_merchants_key() -> None:
    key = os.urandom(32)
    seen = set()
    for _ in range(1000):
        envelope = delivery_envelope(key, "dk_1", "ord_1", b"TEST-1")
        nonce = envelope["nonce"].encode("ascii")
        opened = AESGCM(key).decrypt(nonce, base64.b64decode(envelope["ciphertext"]), envelope["associated_data"].encode())
        assert opened == b"TEST-1"
        assert len(nonce) == 12
        assert nonce.decode().isprintable()
        seen.add(nonce)
    assert len(seen) == 1000
    with pytest.raises(ValueError, match="32 bytes"):
        delivery_envelope(b"short", "dk_1", "ord_1", b"x")
