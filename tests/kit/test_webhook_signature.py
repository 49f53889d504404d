"""Webhooks are Standard Webhooks 1.0, proven against the public library and the contract's vector."""

import base64
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from kameng_api.kit.signing import sign_webhook

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ID = "evt_01JD0000000000000000000042"
BODY = (
    b'{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",'
    b'"data":{"id":"ord_01JD0000000000000000000009","version":4}}'
)


def other_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def test_the_contracts_vector() -> None:
    assert sign_webhook([SECRET], ID, 1795350300, BODY) == "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A="


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_the_public_library_accepts_what_we_sign_and_nothing_else(text: str) -> None:
    now = int(time.time())
    headers = {
        "webhook-id": ID,
        "webhook-timestamp": str(now),
        "webhook-signature": sign_webhook([SECRET], ID, now, text.encode()),
    }
    Webhook(SECRET).verify(text, headers, json_parse=False)
    for wrong in ({"webhook-id": ID + "x"}, {"webhook-timestamp": str(now - 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(text, headers | wrong, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(text + " ", headers, json_parse=False)


def test_while_a_secret_is_rotated_either_opens() -> None:
    old, new, now = other_secret(), other_secret(), int(time.time())
    signatures = sign_webhook([new, old], ID, now, BODY)
    assert len(signatures.split(" ")) == 2
    headers = {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": signatures}
    for secret in (old, new):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other_secret()).verify(BODY, headers)


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_AAAA", SECRET.removeprefix("whsec_"), SECRET[:-2], "whsec_!!!!", "WHSEC_" + SECRET[6:]],
)
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook secret"):
        sign_webhook([secret], ID, 1, b"")


def test_no_secret_or_an_ambiguous_id_is_refused() -> None:
    with pytest.raises(ValueError, match="secret"):
        sign_webhook([], ID, 1, b"")
    with pytest.raises(ValueError, match="dot"):
        sign_webhook([SECRET], "evt.1", 1, b"")
