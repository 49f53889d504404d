"""The contract's signature, its vectors, and every way of being almost right."""

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.kit import signing
from kameng_api.kit.signing import AuthMalformed, Credentials

SECRET = b"sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
KEY_ID = "ak_test_01JD0000000000000000000001"
BODY = b'{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}'
BODY_SHA256 = "66d9b4eee1dbc4e460df61f94d98a79c4b73360a7cf1874962b64b983537550c"
SEED = bytes(range(32))
POST: dict[str, Any] = {
    "scheme": "KM1-HMAC-SHA256",
    "timestamp": 1795350000,
    "nonce": "b7f3c1d2e4a5968778695a4b3c2d1e0f",
    "key_id": KEY_ID,
    "method": "POST",
    "target": b"/v1/orders",
    "body_sha256_hex": BODY_SHA256,
}
POST_SIGNATURE = base64.b64decode("clPrHanEKN7puphiCPIqXozoZnGbw1jzU0DzD3zUANA=")
HEADER = (
    b'KM1-HMAC-SHA256 key_id="ak_test_01JD0000000000000000000001",timestamp="1795350000",'
    b'nonce="b7f3c1d2e4a5968778695a4b3c2d1e0f",signature="clPrHanEKN7puphiCPIqXozoZnGbw1jzU0DzD3zUANA="'
)
PARTS = HEADER.removeprefix(b"KM1-HMAC-SHA256 ").split(b",")


def test_the_vector_of_a_post() -> None:
    text = signing.string_to_sign(**POST)
    assert hashlib.sha256(BODY).hexdigest() == BODY_SHA256
    assert len(text) == 176
    assert hashlib.sha256(text).hexdigest() == "b6c8ec0548e62c96fdd87fec5078fef2cde318b2f77a06b3fc545b91bdd3d978"
    assert signing.sign_hmac(SECRET, text) == POST_SIGNATURE
    assert signing.verify_hmac(SECRET, text, POST_SIGNATURE)


def test_the_vector_of_a_get_with_a_query() -> None:
    target = b"/v1/orders?limit=20&status=succeeded&cursor=abc%3D"
    nonce = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    text = signing.string_to_sign(signing.HMAC_SCHEME, 1795350001, nonce, KEY_ID, "GET", target, signing.EMPTY_BODY_SHA256)
    assert base64.b64encode(signing.sign_hmac(SECRET, text)) == b"mFasBiUi09fU9Y9plqjG5/sYIvxIw4+8v8xQRZIkMaE="


def test_the_vector_of_ed25519() -> None:
    text = signing.string_to_sign(**POST | {"scheme": "KM1-ED25519"})
    public = signing.ed25519_public_key(SEED)
    signature = signing.sign_ed25519(SEED, text)
    assert base64.b64encode(public) == b"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
    assert base64.b64encode(signature).startswith(b"LWrNqjvwY27u5IS5AkaAYIKMM3UXiL4PZmNJSKZ0fWWikeOdWxebYVpe4eH4ITps1Oqr")
    assert signing.verify_ed25519(public, text, signature)


def test_sign_request_writes_the_header_that_parse_reads() -> None:
    header = signing.sign_request(signing.HMAC_SCHEME, SECRET, KEY_ID, 1795350000, POST["nonce"], "POST", b"/v1/orders", BODY)
    assert header.encode() == HEADER
    assert signing.parse_authorization(HEADER) == Credentials("KM1-HMAC-SHA256", KEY_ID, 1795350000, POST["nonce"], POST_SIGNATURE)


@given(st.permutations(PARTS))
def test_the_parameters_may_stand_in_any_order(parts: list[bytes]) -> None:
    assert signing.parse_authorization(b"KM1-HMAC-SHA256 " + b",".join(parts)).signature == POST_SIGNATURE


@given(st.sampled_from(["scheme", "timestamp", "nonce", "key_id", "method", "target", "body_sha256_hex"]), st.data())
def test_changing_any_byte_of_any_line_breaks_the_signature(name: str, data: st.DataObject) -> None:
    value = POST[name]
    if isinstance(value, int):
        changed: Any = data.draw(st.integers(0, 10**12).filter(lambda other: other != value))
    else:
        raw = value.encode() if isinstance(value, str) else value
        place = data.draw(st.integers(0, len(raw) - 1))
        byte = data.draw(st.integers(1, 127).filter(lambda other: other not in {raw[place], 10}))
        raw = raw[:place] + bytes((byte,)) + raw[place + 1 :]
        changed = raw.decode() if isinstance(value, str) else raw
    text = signing.string_to_sign(**POST | {name: changed})
    assert not signing.verify_hmac(SECRET, text, POST_SIGNATURE)
    honest = signing.sign_ed25519(SEED, signing.string_to_sign(**POST))
    assert not signing.verify_ed25519(signing.ed25519_public_key(SEED), text, honest)


@given(st.data())
def test_changing_any_bit_of_the_signature_or_the_secret_breaks_it(data: st.DataObject) -> None:
    text = signing.string_to_sign(**POST)
    place, bit = data.draw(st.integers(0, 31)), 1 << data.draw(st.integers(0, 7))
    signature = bytearray(POST_SIGNATURE)
    signature[place] ^= bit
    assert not signing.verify_hmac(SECRET, text, bytes(signature))
    secret = bytearray(SECRET)
    secret[place] ^= bit
    assert not signing.verify_hmac(bytes(secret), text, POST_SIGNATURE)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 63, 65])
def test_a_signature_of_another_length_is_only_wrong(length: int) -> None:
    text = signing.string_to_sign(**POST)
    assert not signing.verify_hmac(SECRET, text, bytes(length))
    assert not signing.verify_ed25519(signing.ed25519_public_key(SEED), text, bytes(length))


@pytest.mark.parametrize("name", ["scheme", "nonce", "key_id", "method", "target", "body_sha256_hex"])
def test_a_line_feed_in_a_part_is_refused(name: str) -> None:
    value = POST[name]
    injected = value + b"\nx" if isinstance(value, bytes) else value + "\nx"
    with pytest.raises(ValueError, match="line feed"):
        signing.string_to_sign(**POST | {name: injected})


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer abc",
        HEADER.replace(b"KM1-HMAC-SHA256", b"km1-hmac-sha256"),
        HEADER.replace(b"KM1-HMAC-SHA256", b"KM1-HMAC-SHA512"),
        HEADER.replace(b"SHA256 ", b"SHA256  "),
        HEADER.replace(b",", b", "),
        HEADER.replace(b'"', b""),
        HEADER.replace(b'"', b"'"),
        HEADER + b",",
        HEADER + b" ",
        b" " + HEADER,
        HEADER + b"\n",
        HEADER + b',extra="1"',
        HEADER + b"," + PARTS[0],
        b"KM1-HMAC-SHA256 " + b",".join(PARTS[:3]),
        b"KM1-HMAC-SHA256 " + b",".join([*PARTS[:3], PARTS[0]]),
        b"KM1-HMAC-SHA256 " + b"".join(PARTS),
        b"KM1-HMAC-SHA256 ," + b",".join(PARTS),
        HEADER.replace(b"ak_test_", b"ak-test-"),
        HEADER.replace(KEY_ID.encode(), b""),
        HEADER.replace(KEY_ID.encode(), b"a" * 65),
        HEADER.replace(b"1795350000", b"+1795350000"),
        HEADER.replace(b"1795350000", b"-1795350000"),
        HEADER.replace(b"1795350000", b"01795350000"),
        HEADER.replace(b"1795350000", b"0"),
        HEADER.replace(b"1795350000", b"1795350000.0"),
        HEADER.replace(b"1795350000", b"1e9"),
        HEADER.replace(b"1795350000", b"NaN"),
        HEADER.replace(b"1795350000", b"1" * 13),
        HEADER.replace(b"1795350000", "١٧٩٥٣٥٠٠٠٠".encode()),
        HEADER.replace(b"1795350000", b""),
        HEADER.replace(b"b7f3c1d2e4a5968778695a4b3c2d1e0f", b"a" * 15),
        HEADER.replace(b"b7f3c1d2e4a5968778695a4b3c2d1e0f", b"a" * 65),
        HEADER.replace(b"b7f3c1d2e4a5968778695a4b3c2d1e0f", b"a" * 15 + b"\n"),
        HEADER.replace(b"b7f3c1d2e4a5968778695a4b3c2d1e0f", b"a" * 16 + b'\\"'),
        HEADER.replace(b"NA=", b"NB="),  # the same bytes, spelt differently
        HEADER.replace(b"NA=", b"NA"),
        HEADER.replace(b"NA=", b"NA=="),
        HEADER.replace(b"clPr", b"cl_r"),
        HEADER.replace(b"clPr", b"cl Pr"),
        HEADER.replace(b"clPrHan", b"clPr=an"),
        HEADER[:-1] + b"A" * 600 + b'"',
    ],
)
def test_a_header_that_is_not_exactly_right_is_malformed(header: bytes) -> None:
    assert header != HEADER
    with pytest.raises(AuthMalformed) as caught:
        signing.parse_authorization(header)
    assert caught.value.code == "auth_malformed"


@given(st.binary(max_size=300))
def test_noise_is_malformed_and_nothing_worse(value: bytes) -> None:
    with pytest.raises(AuthMalformed):
        signing.parse_authorization(value)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/v1/orders",
        b"/v1/orders/",
        b"/v1/orders/by-merchant-no/PO-1_2.x~",
        b"/v1/.well-known",
        b"/v1/..a",
        b"/v1/a..",
    ],
)
def test_our_paths_are_canonical(path: bytes) -> None:
    assert signing.path_is_canonical(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"",
            b"v1/orders",
            b"//v1/orders",
            b"/v1//orders",
            b"/v1/orders//",
            b"/v1/%6frders",
            b"/v1/orders%2F1",
            b"/v1/orders;a=1",
        ),
        *(
            b"/v1/./orders",
            b"/v1/../orders",
            b"/v1/orders/.",
            b"/v1/orders/..",
            b"/.",
            b"/..",
            b"/v1/a b",
            b"/v1/a\\b",
            b"/v1/\xe4",
        ),
        *(b"/v1/a\n", b"/v1/a\x00", b"/v1/a?b", b"http://host/v1/orders", b"*"),
    ],
)
def test_a_path_that_could_be_read_twice_is_not(path: bytes) -> None:
    assert not signing.path_is_canonical(path)
