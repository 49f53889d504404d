"""Ding Connect as a process: written from swagger V1 of api.dingconnect.com, the vendor's help pages, and what others saw live on 2026-09-07, all
read 2026-11-22. It does not deduplicate, because the live one was seen not to.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from tests.suppliers.twins import Goods, Twin

from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told
from kameng_api.simulator.protocol import Ask

_BASE: Final = "/api/V1"
_MOST_TAKEN: Final = 100
# The books' reasons → (ResultCode, code, context). Those of the second table fail at the operator and leave a record.
_REFUSED: Final[Mapping[str, tuple[int, str, str]]] = {
    "PRODUCT_OFF_SHELF": (5, "ProviderError", "ProductUnavailable"),
    "PARAM_INVALID": (4, "ParameterInvalid", "SendValue"),
    "PRICE_CHANGED": (4, "ParameterOutOfRange", "SendValue"),
    "BALANCE_NOT_ENOUGH": (5, "InsufficientBalance", ""),
}
_FAILED: Final[Mapping[str, tuple[int, str, str]]] = {
    "STOCK_EMPTY": (5, "ProviderError", "ProductUnavailable"),
    "TARGET_NOT_EXIST": (4, "AccountNumberInvalid", "ProviderRefusedRequest"),
    "TARGET_BLACKLISTED": (5, "RechargeNotAllowed", ""),
    "TARGET_NOT_ELIGIBLE": (5, "ProviderError", "RechargeNotAllowed"),
    "ORDER_REJECTED": (3, "TransientProviderError", "ProviderRefusedRequest"),
    "CHANNEL_MAINTENANCE": (3, "TransientProviderError", "ProviderTimedOut"),
}
_STATES: Final = {"SUCCESS": "Complete", "PARTIAL": "Complete", "FAILED": "Failed", "PROCESSING": "Submitted", "CONTACT_STAFF": "Processing"}


def said(result: int, code: str = "", context: str = "", status: int = 200, **more: Any) -> Told:
    errors = [{"Code": code, "Context": context}] if code else []
    return Told(orjson.dumps({**more, "ResultCode": result, "ErrorCodes": errors}), status, {"content-type": "application/json; charset=utf-8"})


def units(amount: int) -> int | float:
    return amount / 10_000


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class DingFace(Face):
    """The header `api_key`, names in PascalCase, answers with ResultCode and ErrorCodes. It calls nobody back."""

    def __init__(self) -> None:
        self.sent: defaultdict[str, list[str]] = defaultdict(list)  # DistributorRef → ids of all that were sent under it

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", f"{_BASE}/SendTransfer", "place", self.send_transfer),
            Path("POST", f"{_BASE}/ListTransferRecords", "query", self.list_records),
            Path("GET", f"{_BASE}/GetBalance", "balance", self.get_balance),
            Path("GET", f"{_BASE}/GetCountries", "products", self.get_countries),
            Path("GET", f"{_BASE}/GetProducts", "products", self.get_products),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        key = asked.headers.get("api_key", "").encode()
        found = [account for account in accounts.values() if account.secret == key]
        return found[0] if found else said(4, "AuthenticationFailed", status=401)

    async def send_transfer(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        if not isinstance(body, dict):
            return said(4, "RequestInvalid")
        for name in ("SkuCode", "SendValue", "AccountNumber", "DistributorRef"):
            if not body.get(name):  # a name in another spelling is not seen at all
                return said(4, "ParameterMissing", name)
        if not isinstance(body.get("ValidateOnly"), bool):
            return said(4, "ParameterInvalid", "ValidateOnly")
        number, value = str(body["AccountNumber"]), body["SendValue"]
        if not (number.isascii() and number.isdigit()):
            return said(4, "AccountNumberInvalid", "AccountNumberFailedRegex")
        product = next((one for one in counter.products if one.code.rpartition("-")[0] == body["SkuCode"]), None)
        if product is None or not product.on_sale:
            return said(5, "ProviderError", "ProductUnavailable")
        if not isinstance(value, int | float) or not is_sold_at(counter, product, value):
            return said(4, "ParameterOutOfRange", "SendValue")
        if body["ValidateOnly"]:
            return said(1, TransferRecord=None)
        ask = Ask(
            reference=str(body["DistributorRef"]),
            product_code=product.code,
            units=1,
            target="" if number == "0000000000" else number.removeprefix("86"),
            face_value=None if product.face_min is None else round(value * 10_000),
            max_cost=None,
            callback_url="",
            fields="",
        )
        order, _ = await counter.place(ask, always_new=True)
        if order["fail_code"] in _REFUSED:
            return said(*_REFUSED[order["fail_code"]], status=500 if order["fail_code"] == "BALANCE_NOT_ENOUGH" else 200, TransferRecord=None)
        self.sent[ask.reference].append(str(order["id"]))
        return said(*failure(order), TransferRecord=record(order))

    async def list_records(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        skip, take = (body.get("Skip", 0), body.get("Take", 0)) if isinstance(body, dict) else (0, 0)
        if not isinstance(take, int) or not 1 <= take <= _MOST_TAKEN or not isinstance(skip, int):
            return said(4, "ParameterOutOfRange", "Take", Items=[], ThereAreMoreItems=False)
        reference = body.get("DistributorRef")
        if reference:
            orders = await self._under(counter, str(reference))
        else:
            orders = await counter.orders_between(counter.now - 60 * 86_400, counter.now + 1, limit=1_000_000)
        shown = [order for order in orders if order["fail_code"] not in _REFUSED]
        items = [enveloped(order) for order in shown[skip : skip + take]]
        return said(1, Items=items, ThereAreMoreItems=len(shown) > skip + take)

    async def _under(self, counter: Counter, reference: str) -> list[dict[str, Any]]:
        first = await counter.find(reference=reference)
        if first is None:
            return []
        others = [number for number in self.sent.get(reference, ()) if number != str(first["id"])]
        return [first, *[order for number in others if (order := await counter.find(number=number)) is not None]]

    async def get_balance(self, counter: Counter, asked: Asked) -> Told:
        return said(1, Balance=units(counter.account.balance), CurrencyIso=counter.account.currency)

    async def get_countries(self, counter: Counter, asked: Asked) -> Told:
        return said(1, Items=[{"CountryIso": "CN", "CountryName": "China"}, {"CountryIso": "IE", "CountryName": "Ireland"}])

    async def get_products(self, counter: Counter, asked: Asked) -> Told:
        params = asked.params()
        if params.get("countryIsos", "CN") != "CN":
            return said(1, Items=[])
        wanted = params.get("skuCodes")
        skus = [product for product in counter.products if product.on_sale and wanted in (None, product.code.rpartition("-")[0])]
        return said(1, Items=[described(counter, product) for product in skus])

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        raise NotImplementedError("no transfer names an address")

    def busy(self, kind: str) -> Told:
        return said(3, "RateLimited", status=429)

    def broken(self, kind: str) -> Told:
        return said(5, "OtherError", status=500)


def is_sold_at(counter: Counter, product: Product, value: float) -> bool:
    if product.face_min is not None and product.face_max is not None:
        return float(product.face_min) <= value <= float(product.face_max) and round(value * 100) == round(value * 10_000) / 100
    return Decimal(str(value)) * 10_000 == counter.cost_of(product)


def failure(order: Mapping[str, Any]) -> tuple[int, str, str]:
    return _FAILED.get(order["fail_code"], (5, "OtherError", "")) if order["status"] == "FAILED" else (1, "", "")


def enveloped(order: Mapping[str, Any]) -> dict[str, Any]:
    result, code, context = failure(order)
    return {"TransferRecord": record(order), "ResultCode": result, "ErrorCodes": [{"Code": code, "Context": context}] if code else []}


def record(order: Mapping[str, Any]) -> dict[str, Any]:
    state = _STATES.get(order["status"], "Failed")
    done, cards = state == "Complete", order.get("cards")
    value = order["unit_cost"]
    price = {"CustomerFee": 0.0, "DistributorFee": 0.0, "ReceiveValue": units(value) if done else 0, "ReceiveCurrencyIso": "CNY"}
    return {
        "TransferId": {"TransferRef": str(863_000_000 + order["id"]), "DistributorRef": order["out_order_no"]},
        "SkuCode": str(order["product_code"]).rpartition("-")[0],
        "Price": {**price, "SendValue": units(value), "SendCurrencyIso": order["currency"]},
        "CommissionApplied": 0.0,
        "StartedUtc": stamp(order["created_at"]),
        "CompletedUtc": stamp(order["finished_at"]) if order["finished_at"] else None,
        "ProcessingState": state,
        "ReceiptText": "",
        "ReceiptParams": {"providerRef": order["receipt"], **({"pin": cards[0]["code"]} if cards else {})} if done else {},
        "AccountNumber": order["target"],
    }


def described(counter: Counter, product: Product) -> dict[str, Any]:
    low = product.face_min or str(units(counter.cost_of(product)))
    high = product.face_max or low
    ends = [{"SendValue": float(value), "SendCurrencyIso": counter.account.currency, "ReceiveValue": float(value)} for value in (low, high)]
    return {
        "ProviderCode": "CMCN",
        "SkuCode": product.code.rpartition("-")[0],
        "SettingDefinitions": [],
        "Minimum": ends[0],
        "Maximum": ends[1],
        "CommissionRate": 0.0,
        "ProcessingMode": "Instant",
        "RedemptionMechanism": "Immediate" if product.type == "topup" else "ReadReceipt",
        "DefaultDisplayText": product.name,
        "RegionCode": "CN",
        "LookupBillsRequired": False,
    }


TWIN: Final = Twin(
    name="ding",
    cards_have_pins=False,
    reversed_is_failed=True,
    face=DingFace(),
    settings=lambda base_url, app_key, secret: {"base_url": base_url, "api_key": secret, "country_code": "86"},
    products=(
        Product(code="CN_CM_TopUp-14.50", name="China Mobile 100 CNY", type="topup", cost="14.5"),
        Product(code="CN_CU_TopUp-range", name="China Unicom", type="topup", cost="1", face_min="1", face_max="100"),
        Product(code="CN_Voucher-9.90", name="Voucher", type="card", cost="9.9"),
    ),
    goods=Goods(topup="CN_CM_TopUp-14.50", card="CN_Voucher-9.90", ranged="CN_CU_TopUp-range"),
    currency="USD",
    in_chaos={"currency": "CNY"},
    codes="SKU{n}-{cost}",
    takes_accounts=False,
    most_units=1,
    traps={"card_codes": "a receipt has one PIN and no number beside it; test_ding.py compares that"},
)
