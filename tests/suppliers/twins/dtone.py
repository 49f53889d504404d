"""DT One DVS as a process: written from DVS OpenAPI 1.23.0 and the developer pages on transactions and callbacks, read 2026-11-22.

What the document leaves open is settled on the strict side here: five-digit status ids are invented, a number stays used once a transaction
was created under it, and a callback is tried four times. Statuses that DT One only learns from the operator come after the first answer.
"""

import base64
import hmac
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import orjson
from tests.suppliers.twins import Goods, Twin

from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

CALLBACK_USER: Final = "hub-callbacks"
CALLBACK_PASSWORD: Final = "callback-password-of-the-hub"
_E164: Final = re.compile(r"^\+[1-9][0-9]{6,14}$")
_ERRORS: Final[Mapping[int, tuple[int, str]]] = {
    1000400: (400, "Bad Request"),
    1000401: (401, "Unauthorized"),
    1000404: (404, "Resource not found"),
    1000429: (429, "Too many requests"),
    1003001: (404, "Product is not available in your account"),
    1003002: (400, "Requested product amount is out of range"),
    1005003: (400, "Credit party mobile number is invalid"),
    1006001: (400, "Insufficient balance"),
    1007001: (400, "Transaction external ID has already been used"),
    1008004: (404, "Transaction not found"),
    1009001: (500, "Unexpected error, please contact our support team"),
    1009503: (503, "Service unavailable, please retry later"),
}
_CLASSES: Final = {1: "CREATED", 2: "CONFIRMED", 3: "REJECTED", 4: "CANCELLED", 5: "SUBMITTED", 7: "COMPLETED", 8: "REVERSED", 9: "DECLINED"}
# The books' reasons that are errors of the request: no transaction is created.
_REQUEST_ERRORS: Final = {"PRODUCT_OFF_SHELF": 1003001, "BALANCE_NOT_ENOUGH": 1006001, "PARAM_INVALID": 1003002}
# … and those that a transaction fails with.
_FAILURES: Final[Mapping[str, tuple[int, str]]] = {
    "TARGET_NOT_EXIST": (9, "DECLINED-INVALID-CREDIT-PARTY"),
    "TARGET_BLACKLISTED": (9, "DECLINED-BARRED-CREDIT-PARTY"),
    "TARGET_NOT_ELIGIBLE": (9, "DECLINED-INELIGIBLE-CREDIT-PARTY"),
    "ORDER_REJECTED": (9, "DECLINED"),
    "STOCK_EMPTY": (3, "REJECTED"),
    "PRICE_CHANGED": (3, "REJECTED"),
    "CHANNEL_MAINTENANCE": (9, "DECLINED-OPERATOR-CURRENTLY-UNAVAILABLE"),
}


def error(code: int) -> Told:
    status, message = _ERRORS[code]
    return told({"errors": [{"code": code, "message": message}]}, status)


def at(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def units(amount: int) -> int | float:
    return amount / 10_000


class DtoneFace(Face):
    """HTTP Basic, transactions, and callbacks with credentials of their own."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    retry_after_s: Sequence[float] = (5.0, 15.0, 60.0)

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/v1/async/transactions", "place", self.create),
            Path("GET", "/v1/transactions", "query", self.search),
            Path("GET", "/v1/transactions/{number}", "query", self.one),
            Path("GET", "/v1/balances", "balance", self.balances),
            Path("GET", "/v1/products", "products", self.products),
            Path("GET", "/v1/products/{number}", "products", self.product),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        scheme, _, text = asked.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(text, validate=True).partition(b":")
        except ValueError:
            return error(1000401)
        account = accounts.get(user.decode("latin-1"))
        if scheme != "Basic" or account is None or not hmac.compare_digest(account.secret, password):
            return error(1000401)
        return account

    # ---- transactions

    async def create(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        if not isinstance(body, dict) or not asked.headers.get("content-type", "").startswith("application/json"):
            return error(1000400)
        reference, product_id, party = body.get("external_id"), body.get("product_id"), body.get("credit_party_identifier") or {}
        if not isinstance(reference, str) or not 1 <= len(reference) <= 40 or not isinstance(product_id, int) or isinstance(product_id, bool):
            return error(1000400)
        number = party.get("mobile_number", "")
        if number and not _E164.match(number):
            return error(1005003)
        if body.get("auto_confirm") is not True:  # transactions that wait for a confirmation are not kept here
            return error(1000400)
        if await counter.is_known(reference):
            return error(1007001)
        product = find(counter, product_id)
        face_value = None
        if product is not None and product.face_min is not None:
            amount = (body.get("destination") or {}).get("amount")
            if body.get("calculation_mode") != "DESTINATION_AMOUNT" or not isinstance(amount, int | float):
                return error(1000400)
            face_value = round(amount * 10_000)
        ask = Ask(
            reference=reference,
            product_code=str(product_id) if product is None else product.code,
            units=1,
            target=number.removeprefix("+86").removeprefix("+") or str(party.get("account_number", "")),
            face_value=face_value,
            max_cost=None,
            callback_url=str(body.get("callback_url", "")),
            fields="",
        )
        order, new = await counter.place(ask)
        if not new:
            return error(1007001)
        if was_refused(order):
            return error(_REQUEST_ERRORS[order["fail_code"]])
        return told(transaction(order, (2, "CONFIRMED")), 201)

    async def search(self, counter: Counter, asked: Asked) -> Told:
        """By `external_id`, whenever it was created; else a window of at most 24 hours, the last 24 unless said."""
        params = asked.params()
        if params.get("external_id"):
            order = await counter.find(reference=params["external_id"])
            found = [] if order is None or was_refused(order) else [order]
            return told([transaction(one) for one in found]) if found else error(1008004)
        try:
            start = moment(params["from_date"]) if "from_date" in params else counter.now - 86_400
            end = moment(params["to_date"]) if "to_date" in params else start + 86_400
        except ValueError:
            return error(1000400)
        if end - start > 86_400:
            return error(1000400)
        orders = [one for one in await counter.orders_between(start, end + 1e-6, limit=100_000) if not was_refused(one)]
        return paged(asked, [transaction(one) for one in orders]) if orders else error(1008004)

    async def one(self, counter: Counter, asked: Asked) -> Told:
        number = asked.named["number"]
        order = await counter.find(number=number) if number.isascii() and number.isdigit() else None
        if order is None or was_refused(order):
            return error(1008004)
        return told(transaction(order))

    # ---- what is sold, and our balance

    async def balances(self, counter: Counter, asked: Asked) -> Told:
        account = counter.account
        ours = {"id": 11, "unit_type": "CURRENCY", "unit": account.currency, "available": units(account.balance), "holding": 0, "credit_limit": 0}
        return paged(asked, [ours])

    async def products(self, counter: Counter, asked: Asked) -> Told:
        return paged(asked, [described(counter, product) for product in counter.products if product.on_sale])

    async def product(self, counter: Counter, asked: Asked) -> Told:
        number = asked.named["number"]
        product = find(counter, int(number)) if number.isascii() and number.isdigit() else None
        return error(1003001) if product is None or not product.on_sale else told(described(counter, product))

    # ---- callbacks and trouble

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        password = "not the password" if forged else CALLBACK_PASSWORD
        token = base64.b64encode(f"{CALLBACK_USER}:{password}".encode()).decode()
        return Written(
            orjson.dumps(transaction({**letter.more, **letter.view})), {"content-type": "application/json", "authorization": f"Basic {token}"}
        )

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        return 200 <= status < 300

    def busy(self, kind: str) -> Told:
        return error(1000429)

    def broken(self, kind: str) -> Told:
        return error(1009001)

    def down(self, kind: str) -> Told:
        return error(1009503)


def find(counter: Counter, product_id: int) -> Product | None:
    """The books' code of a ranged product carries its unit behind the vendor's id."""
    return next((product for product in counter.products if product.code.partition("-")[0] == str(product_id)), None)


def paged(asked: Asked, rows: Sequence[Any]) -> Told:
    params = asked.params()
    try:
        page, size = int(params.get("page", "1")), int(params.get("per_page", "50"))
    except ValueError:
        return error(1000400)
    if page < 1 or not 1 <= size <= 100:
        return error(1000400)
    pages = max(math.ceil(len(rows) / size), 1)
    headers = {"content-type": "application/json", "X-Total": str(len(rows)), "X-Total-Pages": str(pages)}
    headers |= {"X-Per-Page": str(size), "X-Page": str(page)}
    if page < pages:
        headers["X-Next-Page"] = str(page + 1)
    return Told(orjson.dumps(rows[(page - 1) * size : page * size]), 200, headers)


def was_refused(order: Mapping[str, Any]) -> bool:
    """Whether its request was answered with an error: no transaction came of it."""
    return order["status"] == "FAILED" and order["fail_code"] in _REQUEST_ERRORS and order["finished_at"] == order["created_at"]


def state(order: Mapping[str, Any]) -> tuple[int, str]:
    """(class id, status) of an order in the books."""
    match order["status"]:
        case "SUCCESS" | "PARTIAL":
            return 7, "COMPLETED"
        case "REVERSED":
            return 8, "REVERSED"
        case "FAILED":
            return _FAILURES.get(order["fail_code"], (9, "DECLINED"))
        case _:
            return 5, "SUBMITTED"


def transaction(order: Mapping[str, Any], shown: tuple[int, str] | None = None) -> dict[str, Any]:
    class_id, message = shown or state(order)
    done = class_id in (7, 8)
    cards = order.get("cards") if done else None
    card = order["product_type"] != "topup"
    code, _, unit = str(order["product_code"]).partition("-")
    kind = f"{'RANGED' if unit else 'FIXED'}_VALUE_{'PIN_PURCHASE' if card else 'RECHARGE'}"
    pin = None if not cards else {"code": cards[0]["pin"], "serial": cards[0]["code"]}
    return {
        "id": order["id"],
        "external_id": order["out_order_no"],
        "creation_date": at(order["created_at"]),
        "confirmation_expiration_date": at(order["created_at"] + 3600),
        "confirmation_date": at(order["created_at"]),
        "status": {"id": class_id * 10_000 + len(message), "message": message, "class": {"id": class_id, "message": _CLASSES[class_id]}},
        "operator_reference": (order["receipt"] or None) if done else None,
        "pin": pin,
        "product": {"id": int(code), "name": f"Product {code}", "description": "", "type": kind},
        "prices": {"wholesale": {"unit_type": "CURRENCY", "unit": order["currency"], "amount": units(order["unit_cost"]), "fee": 0}, "retail": None},
        "rates": {"base": 1, "wholesale": 1, "retail": None},
        "benefits": None,
        "promotions": None,
    }


def described(counter: Counter, product: Product) -> dict[str, Any]:
    code, _, unit = product.code.partition("-")
    cost, card = units(counter.cost_of(product)), product.type != "topup"
    kind = "PIN_PURCHASE" if card else "RECHARGE"
    line: dict[str, Any] = {
        "id": int(code),
        "name": product.name,
        "description": "",
        "type": f"{'RANGED' if unit else 'FIXED'}_VALUE_{kind}",
        "required_credit_party_identifier_fields": None if card else [["mobile_number"]],
        "source": {"unit_type": "CURRENCY", "unit": counter.account.currency, "amount": cost},
        "destination": {"unit_type": "CURRENCY", "unit": "CNY", "amount": 100},
        "prices": {"wholesale": {"unit_type": "CURRENCY", "unit": counter.account.currency, "amount": cost, "fee": 0}, "retail": None},
        "rates": {"base": 1, "wholesale": 1, "retail": None},
    }
    for name in ("debit_party_identifier", "sender", "beneficiary", "statement_identifier", "additional_identifier"):
        line[f"required_{name}_fields"] = None
    if unit:
        low, high = float(product.face_min or 0), float(product.face_max or 0)
        line["accepted_calculation_modes"] = ["SOURCE_AMOUNT", "DESTINATION_AMOUNT"]
        line["destination"] = {"unit_type": "CURRENCY", "unit": unit, "amount": {"min": low, "max": high, "increment": 0.01}}
        line["prices"]["wholesale"]["amount"] = {"min": round(low * cost, 5), "max": round(high * cost, 5)}
        line["source"]["amount"] = {"min": round(low * cost, 5), "max": round(high * cost, 5)}
    return line


TWIN: Final = Twin(
    name="dtone",
    face=DtoneFace(),
    settings=lambda base_url, app_key, secret: {
        "base_url": base_url,
        "api_key": app_key,
        "api_secret": secret,
        "callback_user": CALLBACK_USER,
        "callback_password": CALLBACK_PASSWORD,
        "currency": "USD",
        "country_code": "86",
    },
    products=(
        Product(code="1234", name="China Mobile 100 CNY", type="topup", cost="14.2"),
        Product(code="1235-CNY", name="China Mobile open range", type="topup", cost="0.142", face_min="10", face_max="500"),
        Product(code="1236", name="Gift card 100 CNY", type="card", cost="13.9"),
    ),
    goods=Goods(topup="1234", card="1236", ranged="1235-CNY"),
    currency="USD",
    most_units=1,
    in_chaos={"currency": "CNY"},
    takes_accounts=False,
)
