"""Sign a request and verify a webhook with Python's standard library (Ed25519 needs the package `cryptography`).

python kameng.py                          prints the signatures of the published test vectors
python kameng.py GET /v1/balance          sends a request; set KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET
python kameng.py POST /v1/orders '{...}'
"""

import base64
import hashlib
import hmac
import os
import secrets
import sys
import time
import urllib.error
import urllib.request

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
except ImportError:
    Ed25519PrivateKey = None  # type: ignore[assignment,misc]


def string_to_sign(scheme, timestamp, nonce, key_id, method, target, body):
    """Seven lines, each ended by one line feed, the last one too."""
    body_sha256 = hashlib.sha256(body).hexdigest()
    lines = [scheme, timestamp, nonce, key_id, method, target, body_sha256]
    return "".join(line + "\n" for line in lines).encode()


def sign_hmac(secret, text):
    """The key is the secret as it is written, not decoded."""
    return base64.b64encode(hmac.digest(secret.encode(), text, "sha256")).decode()


def sign_ed25519(seed, text):
    return base64.b64encode(Ed25519PrivateKey.from_private_bytes(seed).sign(text)).decode()


def authorization(key_id, secret, method, target, body):
    """The Authorization header of one request; a retry needs a new one."""
    scheme, timestamp, nonce = "KM1-HMAC-SHA256", str(int(time.time())), secrets.token_hex(16)
    signature = sign_hmac(secret, string_to_sign(scheme, timestamp, nonce, key_id, method, target, body))
    return f'{scheme} key_id="{key_id}",timestamp="{timestamp}",nonce="{nonce}",signature="{signature}"'


def webhook_signature(secret, webhook_id, timestamp, body):
    """Here the secret is decoded: base64 after whsec_."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, "sha256")).decode()


def verify_webhook(secret, headers, body, now=None):
    """Headers with lower-case names, body as the bytes received. While a secret is rotated, several signatures come."""
    timestamp = headers["webhook-timestamp"]
    if not timestamp.isdigit() or abs((now or time.time()) - int(timestamp)) > 300:
        return False
    expected = webhook_signature(secret, headers["webhook-id"], timestamp, body)
    return any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split(" "))


def send(method, target, body):
    """`target` is signed and sent as it is: percent-encode the query before, keep the path plain."""
    header = authorization(os.environ["KAMENG_KEY_ID"], os.environ["KAMENG_SECRET"], method, target, body)
    request = urllib.request.Request(os.environ["KAMENG_BASE_URL"] + target, data=body or None, method=method)
    request.add_header("Authorization", header)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            print(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())


def print_vectors():
    secret, key_id = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA", "ak_test_01JD0000000000000000000001"
    body = b'{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}'
    post = ("1795350000", "b7f3c1d2e4a5968778695a4b3c2d1e0f", key_id, "POST", "/v1/orders", body)
    target = "/v1/orders?limit=20&status=succeeded&cursor=abc%3D"
    get = ("1795350001", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", key_id, "GET", target, b"")
    print("post hmac", sign_hmac(secret, string_to_sign("KM1-HMAC-SHA256", *post)))
    if Ed25519PrivateKey is not None:
        print("post ed25519", sign_ed25519(bytes(range(32)), string_to_sign("KM1-ED25519", *post)))
    print("get hmac", sign_hmac(secret, string_to_sign("KM1-HMAC-SHA256", *get)))

    whsec = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    event = (
        b'{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",'
        b'"data":{"id":"ord_01JD0000000000000000000009","version":4}}'
    )
    headers = {
        "webhook-id": "evt_01JD0000000000000000000042",
        "webhook-timestamp": "1795350300",
        "webhook-signature": "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=",
    }
    print("webhook", webhook_signature(whsec, headers["webhook-id"], headers["webhook-timestamp"], event))
    assert verify_webhook(whsec, headers, event, now=1795350301)
    assert not verify_webhook(whsec, headers, event + b" ", now=1795350301)
    assert not verify_webhook(whsec, headers, event, now=1795350601)
    print("webhook verified")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        send(sys.argv[1], sys.argv[2], sys.argv[3].encode() if len(sys.argv) > 3 else b"")
    else:
        print_vectors()
