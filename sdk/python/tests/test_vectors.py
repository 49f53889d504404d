"""The contract's vectors, byte by byte."""

import base64
import hashlib
import json

import pytest

from kameng import NotGenuine, WebhookRefused, Webhooks, open_codes
from kameng.models import CodesEnvelope
from kameng.signing import Ed25519Key, HmacKey, authorization, string_to_sign
from kameng.webhooks import sign

KEY_ID = "ak_test_01JD0000000000000000000001"
SECRET = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
BODY = b'{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}'
NONCE = "b7f3c1d2e4a5968778695a4b3c2d1e0f"
WHSEC = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
EVENT_ID = "evt_01JD0000000000000000000042"
EVENT = (
    b'{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",'
    b'"data":{"id":"ord_01JD0000000000000000000009","version":4}}'
)
SIGNATURE = "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A="
HEADERS = {"webhook-id": EVENT_ID, "webhook-timestamp": "1795350300", "webhook-signature": SIGNATURE}


def test_the_text_that_is_signed() -> None:
    text = string_to_sign("KM1-HMAC-SHA256", 1795350000, NONCE, KEY_ID, "POST", "/v1/orders", BODY)
    assert len(text) == 176
    assert hashlib.sha256(text).hexdigest() == "b6c8ec0548e62c96fdd87fec5078fef2cde318b2f77a06b3fc545b91bdd3d978"


def test_hmac_signs_as_the_contract_says() -> None:
    key = HmacKey(KEY_ID, SECRET)
    header = authorization(key, "POST", "/v1/orders", BODY, timestamp=1795350000, nonce=NONCE)
    assert header == (
        f'KM1-HMAC-SHA256 key_id="{KEY_ID}",timestamp="1795350000",nonce="{NONCE}",signature="clPrHanEKN7puphiCPIqXozoZnGbw1jzU0DzD3zUANA="'
    )
    target = "/v1/orders?limit=20&status=succeeded&cursor=abc%3D"
    header = authorization(key, "GET", target, b"", timestamp=1795350001, nonce="0f1e2d3c4b5a69788796a5b4c3d2e1f0")
    assert header.endswith('signature="mFasBiUi09fU9Y9plqjG5/sYIvxIw4+8v8xQRZIkMaE="')


@pytest.mark.parametrize("seed", [bytes(range(32)), base64.b64encode(bytes(range(32))).decode()])
def test_ed25519_signs_as_the_contract_says(seed: bytes | str) -> None:
    header = authorization(Ed25519Key(KEY_ID, seed), "POST", "/v1/orders", BODY, timestamp=1795350000, nonce=NONCE)
    assert header.startswith("KM1-ED25519 ")
    assert header.endswith('signature="LWrNqjvwY27u5IS5AkaAYIKMM3UXiL4PZmNJSKZ0fWWikeOdWxebYVpe4eH4ITps1OqrwFZW7owau0jm0ScoBQ=="')


def test_every_attempt_has_a_nonce_of_its_own() -> None:
    headers = {authorization(HmacKey(KEY_ID, SECRET), "GET", "/v1/balance", b"", timestamp=1795350000) for _ in range(100)}
    assert len(headers) == 100


@pytest.mark.parametrize("key_id", ["", "ak_prod_01JD0000000000000000000001", KEY_ID + '",x="', "ak_test_short"])
def test_a_malformed_key_is_refused_at_once(key_id: str) -> None:
    with pytest.raises(ValueError, match="key id"):
        HmacKey(key_id, SECRET)


@pytest.mark.parametrize("private_key", [b"short", "no base64!", base64.b64encode(b"short").decode()])
def test_a_malformed_private_key_is_refused_without_being_shown(private_key: bytes | str) -> None:
    with pytest.raises(ValueError, match="32 bytes") as refused:
        Ed25519Key(KEY_ID, private_key)
    assert "short" not in str(refused.value) and "base64!" not in str(refused.value)


def test_secrets_stand_in_no_repr() -> None:
    assert SECRET not in repr(HmacKey(KEY_ID, SECRET))
    assert WHSEC[6:] not in repr(Webhooks(WHSEC))
    envelope = CodesEnvelope(algorithm="a", kid="k", nonce="n", associated_data="x", ciphertext="SEALED")
    assert "SEALED" not in repr(envelope)


def test_a_webhook_is_verified() -> None:
    event = Webhooks(WHSEC).verify(HEADERS, EVENT, now=1795350301)
    assert (event.id, event.type, event.object_id, event.version) == (EVENT_ID, "order.succeeded", "ord_01JD0000000000000000000009", 4)
    assert event.timestamp.isoformat() == "2026-11-22T11:44:59+00:00"
    assert sign(WHSEC, EVENT_ID, 1795350300, EVENT) == HEADERS


def test_header_names_may_be_spelt_in_any_way() -> None:
    Webhooks(WHSEC).verify({name.title(): value for name, value in HEADERS.items()}, EVENT, now=1795350301)


def test_during_a_rotation_old_and_new_fit_on_either_side() -> None:
    other = "whsec_" + base64.b64encode(b"another secret of thirty-two byte").decode()
    both = sign(other, EVENT_ID, 1795350300, EVENT)["webhook-signature"] + " v1a,ZWQyNTUxOQ== " + SIGNATURE
    for receiver in (Webhooks(WHSEC), Webhooks(other), Webhooks(other, WHSEC)):
        receiver.verify(HEADERS | {"webhook-signature": both}, EVENT, now=1795350301)
    with pytest.raises(WebhookRefused, match="no signature"):
        Webhooks(other).verify(HEADERS, EVENT, now=1795350301)


@pytest.mark.parametrize(
    ("headers", "body", "now"),
    [
        ({}, EVENT + b" ", 0),
        ({}, EVENT.replace(b'"version":4', b'"version":5'), 0),
        ({}, EVENT, 301),
        ({}, EVENT, -301),
        ({"webhook-id": "evt_01JD0000000000000000000043"}, EVENT, 0),
        ({"webhook-timestamp": "1795350301"}, EVENT, 0),
        ({"webhook-timestamp": "１795350300"}, EVENT, 0),
        ({"webhook-timestamp": ""}, EVENT, 0),
        ({"webhook-signature": ""}, EVENT, 0),
        ({"webhook-signature": SIGNATURE[3:]}, EVENT, 0),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v2,")}, EVENT, 0),
        ({"webhook-signature": "v1,é"}, EVENT, 0),
    ],
)
def test_what_is_not_genuine_is_refused(headers: dict[str, str], body: bytes, now: int) -> None:
    with pytest.raises(WebhookRefused):
        Webhooks(WHSEC).verify(HEADERS | headers, body, now=1795350300 + now)


def test_what_is_signed_but_no_event_is_refused() -> None:
    for body in (b"[]", b"{}", b"no json", EVENT.replace(b"42", b"43")):
        with pytest.raises(WebhookRefused):
            Webhooks(WHSEC).verify(sign(WHSEC, EVENT_ID, 1795350300, body), body, now=1795350300)


@pytest.mark.parametrize("secret", ["", "whsec_", "AAECAwQF", "whsec_***"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        Webhooks(secret)
    with pytest.raises(ValueError, match="no secret"):
        Webhooks()


ENVELOPE = {
    "algorithm": "AEAD_AES_256_GCM",
    "kid": "dk_1",
    "nonce": "a1b2c3d4e5f6",
    "associated_data": "order_codes:ord_01JD0000000000000000000009",
    "ciphertext": "fEfNd1PcZQa6vuE54rDckVbo6b0yN3DtbzDQSttNSuGV5e3vWi5XBjsLpesP8YCLLPU/MtQ4bltAGBzx8w==",
}
DELIVERY_KEY = "0123456789abcdef0123456789abcdef"
ORDER_ID = "ord_01JD0000000000000000000009"


@pytest.mark.parametrize("key", [DELIVERY_KEY, {"dk_0": "x" * 32, "dk_1": DELIVERY_KEY}])
def test_codes_are_opened(key: str | dict[str, str]) -> None:
    (card,) = open_codes(CodesEnvelope.read(ENVELOPE), key, ORDER_ID)
    assert (card.code, card.pin) == ("TEST-AAAA-BBBB-CCCC", "1234")
    assert "TEST" not in repr(card) and "1234" not in json.dumps(str(card))


@pytest.mark.parametrize(
    ("change", "key", "order_id"),
    [
        ({}, "0123456789abcdef0123456789abcdeX", ORDER_ID),
        ({}, "short", ORDER_ID),
        ({}, {"dk_2": DELIVERY_KEY}, ORDER_ID),
        ({}, DELIVERY_KEY, "ord_01JD0000000000000000000008"),
        ({"associated_data": "order_codes:ord_01JD0000000000000000000008"}, DELIVERY_KEY, "ord_01JD0000000000000000000008"),
        ({"ciphertext": "AAAA" + str(ENVELOPE["ciphertext"])[4:]}, DELIVERY_KEY, ORDER_ID),
        ({"algorithm": "AES_ECB"}, DELIVERY_KEY, ORDER_ID),
    ],
)
def test_codes_of_somebody_else_or_tampered_with_are_refused(change: dict[str, str], key: str | dict[str, str], order_id: str) -> None:
    with pytest.raises(NotGenuine):
        open_codes(CodesEnvelope.read(ENVELOPE | change), key, order_id)
