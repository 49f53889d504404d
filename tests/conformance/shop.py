"""A small merchant's shop as somebody might write it from the docs alone: standard library only, none of our code.

`python shop.py MODE PORT PLATFORM_URL`, MODE `good` or the name of a mistake. Callback `/hooks`, trigger `/place`, probe `/believes`.
"""

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY_ID = "ak_test_01JD0000000000000000000001"
API_SECRET = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
WEBHOOK_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class Shop:
    """What the shop knows of its orders, and how it buys."""

    checks_signatures = True
    checks_age = True
    compares_versions = True
    counts_once = True
    status_for_unknown_types = 204
    answers_after_s = 0.0
    takes_replays = True
    tries = 6
    state_given_up = "needs_a_person"
    moved_to = ""

    def __init__(self, platform: str) -> None:
        self.host = urllib.parse.urlsplit(platform).netloc
        self.offset_s = 0
        self.lock = threading.Lock()
        self.orders: dict[str, dict] = {}
        self.tasks = 0

    # --- buying ---

    def new_number(self) -> str:
        return f"SHOP-{secrets.token_hex(8)}"

    def number_after_doubt(self, number: str) -> str:
        return number

    def wait_after_429(self, retry_after: float) -> float:
        return retry_after

    def clock(self) -> int:
        return int(time.time()) + self.offset_s

    def learn_clock(self, server_time: int) -> None:
        self.offset_s = server_time - int(time.time())

    def buy(self, sku: str, quantity: int, target: str) -> None:
        number = self.new_number()
        with self.lock:
            self.orders[number] = {"status": "pending", "version": 0, "deliveries": 0, "refunds": 0}
        for _ in range(self.tries):
            body = json.dumps({"merchant_order_no": number, "sku": sku, "quantity": quantity, "target": target}).encode()
            try:
                status, headers, answer = self.call("POST", "/v1/orders", body)
            except (OSError, http.client.HTTPException):
                status, headers, answer = 0, {}, {}
            if status == 201 or (status == 200 and self.takes_replays):
                self.learn_answer(number, answer)
                return
            if status in (0, 200) or status >= 500:
                time.sleep(0.1)
                renamed = self.number_after_doubt(number)
                if renamed != number:
                    with self.lock:
                        self.orders[renamed] = self.orders.pop(number)
                    number = renamed
            elif status == 429:
                time.sleep(self.wait_after_429(float(headers["retry-after"])))
            elif answer.get("code") == "timestamp_out_of_window":
                self.learn_clock(answer["server_time"])
            else:
                self.give_up(number)
                return
        self.give_up(number)

    def learn_answer(self, number: str, answer: dict) -> None:
        self.learn(number, answer["version"], answer["status"])

    def give_up(self, number: str) -> None:
        with self.lock:
            self.orders[number]["status"] = self.state_given_up

    def call(self, method: str, target: str, body: bytes) -> tuple[int, dict, dict]:
        timestamp, nonce = str(self.clock()), secrets.token_hex(16)
        lines = ["KM1-HMAC-SHA256", timestamp, nonce, KEY_ID, method, target, hashlib.sha256(body).hexdigest()]
        text = "".join(line + "\n" for line in lines).encode()
        signature = base64.b64encode(hmac.digest(API_SECRET.encode(), text, "sha256")).decode()
        authorization = f'KM1-HMAC-SHA256 key_id="{KEY_ID}",timestamp="{timestamp}",nonce="{nonce}",signature="{signature}"'
        connection = http.client.HTTPConnection(self.host, timeout=5)
        try:
            connection.request(method, target, body, {"Authorization": authorization, "Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(answer.read())
        finally:
            connection.close()

    # --- hearing ---

    def is_ours(self, headers: dict, body: bytes) -> bool:
        if not self.checks_signatures:
            return True
        at, message_id, given = (headers.get(f"webhook-{name}", "") for name in ("timestamp", "id", "signature"))
        if not at.isdecimal() or (self.checks_age and abs(int(at) - time.time()) > 300):
            return False
        key = base64.b64decode(WEBHOOK_SECRET.removeprefix("whsec_"))
        right = base64.b64encode(hmac.digest(key, f"{message_id}.{at}.".encode() + body, "sha256")).decode()
        return any(hmac.compare_digest(one, f"v1,{right}") for one in given.split(" "))

    def hear(self, event: dict) -> int:
        if not event["type"].startswith(("order.", "endpoint.")):
            return self.status_for_unknown_types
        if event["type"].startswith("order."):
            shown = event["data"]["object"]
            self.learn(shown["merchant_order_no"], event["data"]["version"], shown["status"])
            self.act_on(shown)
        return 204

    def act_on(self, shown: dict) -> None:
        """What a hasty shop does beside believing the event."""

    def learn(self, number: str, version: int, status: str) -> None:
        with self.lock:
            order = self.orders.get(number)
            if order is None or (self.compares_versions and self.counts_once and version <= order["version"]):
                return
            if self.compares_versions and version < order["version"]:
                return
            if status == "succeeded" and (order["status"] != "succeeded" or not self.counts_once):
                order["deliveries"] += 1
            order["status"], order["version"] = status, version


class NoSignatureCheck(Shop):
    checks_signatures = False


class NoAgeCheck(Shop):
    checks_age = False


class TakesDuplicates(Shop):
    counts_once = False


class OldOverwritesNew(Shop):
    """Of events alone: where the answer of a creation comes after the first event, nothing must hang on which was faster."""

    compares_versions = False

    def learn_answer(self, number: str, answer: dict) -> None:
        if self.orders[number]["version"] == 0:
            super().learn_answer(number, answer)


class InventsNumbers(Shop):
    def number_after_doubt(self, number: str) -> str:
        return self.new_number()


class Impatient(Shop):
    def wait_after_429(self, retry_after: float) -> float:
        return 0.05


class DeafToTheClock(Shop):
    def learn_clock(self, server_time: int) -> None:
        time.sleep(0.05)


class RefundsInDoubt(Shop):
    """Sells again and pays back as soon as an outcome is unknown."""

    def act_on(self, shown: dict) -> None:
        if shown["substatus"] == "outcome_unknown":
            with self.lock:
                self.orders[shown["merchant_order_no"]]["refunds"] += 1
            threading.Thread(target=self.buy, args=(shown["sku"], 1, "13800138000"), daemon=True).start()


class DeafAfterTheEnd(Shop):
    def learn(self, number: str, version: int, status: str) -> None:
        if self.orders.get(number, {}).get("status") != "succeeded":
            super().learn(number, version, status)


class StrictAboutTypes(Shop):
    status_for_unknown_types = 400


class GivesUpInDoubt(Shop):
    tries = 1
    state_given_up = "failed"


class DeafToReplays(Shop):
    takes_replays = False


class Slow(Shop):
    answers_after_s = 16.0


class Redirecting(Shop):
    moved_to = "/hooks/"


SHOPS = {
    "good": Shop, "no_signature_check": NoSignatureCheck, "no_age_check": NoAgeCheck, "takes_duplicates": TakesDuplicates,
    "old_overwrites_new": OldOverwritesNew, "invents_numbers": InventsNumbers, "impatient": Impatient, "deaf_to_the_clock": DeafToTheClock,
    "refunds_in_doubt": RefundsInDoubt, "deaf_after_the_end": DeafAfterTheEnd, "strict_about_types": StrictAboutTypes, "redirecting": Redirecting,
    "gives_up_in_doubt": GivesUpInDoubt, "deaf_to_replays": DeafToReplays, "slow": Slow,
}  # fmt: skip


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shop: Shop

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/place":
            wanted = json.loads(body)
            threading.Thread(target=self.shop.buy, args=(wanted["sku"], wanted["quantity"], wanted["target"]), daemon=True).start()
            self.answer(202)
            return
        time.sleep(self.shop.answers_after_s)
        if self.shop.moved_to:
            self.answer(308, headers={"Location": self.shop.moved_to})
        elif not self.shop.is_ours({name.lower(): value for name, value in self.headers.items()}, body):
            self.answer(401)
        else:
            self.answer(self.shop.hear(json.loads(body)))

    def do_GET(self) -> None:
        number = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("merchant_order_no", [""])[0]
        with self.shop.lock:
            order = self.shop.orders.get(number)
            self.answer(404 if order is None else 200, json.dumps(order).encode())

    def answer(self, status: int, content: bytes = b"", headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(0 if status == 204 else len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    mode, port, platform = sys.argv[1:]
    Door.shop = SHOPS[mode](platform)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Door)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
