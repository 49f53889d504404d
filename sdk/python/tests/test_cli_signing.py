"""A refused signature is explained: each usual mistake, made on purpose, is found by its name."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable

import pytest

from kameng.cli_signing import explain, read_header
from kameng.signing import HmacKey, authorization

KEY_ID = "ak_test_01JD0000000000000000000001"
SECRET = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
NONCE = "b7f3c1d2e4a5968778695a4b3c2d1e0f"
BODY = b'{"merchant_order_no": "PO-1", "sku": "mobile-cn-100"}'
TARGET = "/v1/orders?x=1"


def _header(signature: str, timestamp: str = "1795350000") -> str:
    return f'KM1-HMAC-SHA256 key_id="{KEY_ID}",timestamp="{timestamp}",nonce="{NONCE}",signature="{signature}"'


def _text(method: str = "POST", target: str = TARGET, body: bytes = BODY) -> bytes:
    lines = ["KM1-HMAC-SHA256", "1795350000", NONCE, KEY_ID, method, target, hashlib.sha256(body).hexdigest()]
    return "".join(line + "\n" for line in lines).encode()


def _sign(text: bytes, key: bytes = SECRET.encode()) -> str:
    return base64.b64encode(hmac.digest(key, text, "sha256")).decode()


MISTAKES: dict[str, Callable[[], str]] = {
    "lacks its line feed": lambda: _sign(_text()[:-1]),
    "CR LF": lambda: _sign(_text().replace(b"\n", b"\r\n")),
    "hex instead of base64": lambda: hmac.digest(SECRET.encode(), _text(), "sha256").hex(),
    "padding": lambda: _sign(_text()).rstrip("="),
    "upper case": lambda: _sign(_text()[:-65] + _text()[-65:].upper()),
    "body was left out": lambda: _sign(_text(body=b"")),
    "query was left out": lambda: _sign(_text(target="/v1/orders")),
    "method is not in upper case": lambda: _sign(_text(method="post")),
    "slash at the end": lambda: _sign(_text(target="/v1/orders/?x=1")),
    "body itself stands in line 7": lambda: _sign(_text()[:-65] + BODY + b"\n"),
    "secret was cut": lambda: _sign(_text(), SECRET.removeprefix("sk_test_").encode()),
    "line feed after the secret": lambda: _sign(_text(), SECRET.encode() + b"\n"),
    "base64-decoded": lambda: _sign(_text(), base64.b64decode(SECRET.removeprefix("sk_test_") + "=")),
    "(compact)": lambda: _sign(_text(body=json.dumps(json.loads(BODY), separators=(",", ":")).encode())),
    "without HMAC": lambda: base64.b64encode(hashlib.sha256(_text() + SECRET.encode()).digest()).decode(),
    "none of the usual": lambda: _sign(b"something else"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_each_usual_mistake_is_named(words: str) -> None:
    said = explain(read_header(_header(MISTAKES[words]())), SECRET, "POST", TARGET, BODY)
    assert said is not None
    assert words in said
    assert SECRET not in said


def test_a_right_signature_is_right() -> None:
    header = authorization(HmacKey(KEY_ID, SECRET), "POST", TARGET, BODY, timestamp=1795350000, nonce=NONCE)
    assert explain(read_header(f"Authorization: {header}"), SECRET, "POST", TARGET, BODY) is None


@pytest.mark.parametrize(
    "header",
    ["", "Bearer x", _header("AAAA") + ",", _header("AAAA").replace("nonce", "nonsense"), _header("AAAA", "1795350000.5"),
     _header("AAAA").replace(NONCE, "short"), _header("AAAA").replace('",', '", ')],
)  # fmt: skip
def test_a_malformed_header_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        read_header(header)
