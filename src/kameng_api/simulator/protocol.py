"""The simulated vendor's protocol: signature, codes, and how a request becomes an `Ask` (manual: docs/simulator.md).

Every parameter is a string. The text to sign is one line `name=value` per parameter that is not empty, `sign` excepted,
sorted by name and joined by LF; the signature is lower-case hex HMAC-SHA256 of it. Control characters are refused, so
that no two requests share a text.
"""

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from kameng_api.kit.money import parse_amount

OK: Final = "OK"
CLOCK_WINDOW_S: Final = 300
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

# Final refusals of an order: nothing was and nothing will be delivered.
ORDER_REFUSALS: Final = frozenset({"TARGET_NOT_EXIST", "TARGET_BLACKLISTED", "TARGET_NOT_ELIGIBLE", "ORDER_REJECTED"})
SUPPLIER_REFUSALS: Final = frozenset(
    {"STOCK_EMPTY", "PRODUCT_OFF_SHELF", "BALANCE_NOT_ENOUGH", "PRICE_CHANGED", "CHANNEL_MAINTENANCE", "PARAM_INVALID"}
)
FAIL_CODES: Final = ORDER_REFUSALS | SUPPLIER_REFUSALS

MESSAGES: Final[Mapping[str, str]] = {
    OK: "成功",
    "TARGET_NOT_EXIST": "充值号码不存在",
    "TARGET_BLACKLISTED": "充值号码在黑名单中",
    "TARGET_NOT_ELIGIBLE": "该号码不支持此商品",
    "ORDER_REJECTED": "运营商充值失败",
    "STOCK_EMPTY": "库存不足",
    "PRODUCT_OFF_SHELF": "商品已下架",
    "BALANCE_NOT_ENOUGH": "账户余额不足",
    "PRICE_CHANGED": "商品价格已变动",
    "CHANNEL_MAINTENANCE": "渠道维护中",
    "PARAM_INVALID": "参数错误",
    "CONTACT_STAFF": "订单异常，请联系客服",
    "RATE_LIMITED": "请求过于频繁",
    "ORDER_NOT_FOUND": "订单不存在",
    "PRODUCT_NOT_FOUND": "商品不存在",
    "SIGN_INVALID": "签名错误",
    "APP_KEY_INVALID": "应用不存在",
    "TIMESTAMP_EXPIRED": "请求已过期",
    "NONCE_REUSED": "重复的请求",
    "BAD_REQUEST": "请求无法解析",
    "SYSTEM_ERROR": "系统繁忙",
    "SERVICE_UNAVAILABLE": "服务不可用",
}


class Status:
    """The vendor's order states, as they stand on the wire."""

    PROCESSING: Final = "PROCESSING"
    SUCCESS: Final = "SUCCESS"  # all units delivered
    PARTIAL: Final = "PARTIAL"  # final; fewer units delivered than asked, the rest was paid back
    FAILED: Final = "FAILED"  # final; fail_code says why
    REVERSED: Final = "REVERSED"  # was SUCCESS or PARTIAL; taken back and paid back
    CONTACT_STAFF: Final = "CONTACT_STAFF"  # only their staff can tell


class Malformed(Exception):
    """A request this protocol cannot read."""


def text_to_sign(params: Mapping[str, str]) -> bytes:
    return "\n".join([f"{name}={params[name]}" for name in sorted(params) if name != "sign" and params[name]]).encode()


def sign(secret: bytes, params: Mapping[str, str]) -> str:
    return hmac.digest(secret, text_to_sign(params), "sha256").hex()


def signed(secret: bytes, app_key: str, now: float, params: Mapping[str, str]) -> dict[str, str]:
    """`params` with app_key, timestamp, nonce and sign added."""
    complete = {**params, "app_key": app_key, "timestamp": str(int(now)), "nonce": secrets.token_hex(12)}
    complete["sign"] = sign(secret, complete)
    return complete


def read_params(body: bytes) -> dict[str, str]:
    """A flat JSON object of strings without control characters. Raises Malformed."""
    try:
        params = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed("not JSON") from error
    if not isinstance(params, dict) or not all(isinstance(value, str) for value in params.values()):
        raise Malformed("not a flat object of strings")
    if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in params.items()):
        raise Malformed("control characters")
    return params


@dataclass(frozen=True, slots=True)
class Ask:
    """An order as the vendor read it. Amounts in 1/10000 units; `max_cost` for all units, None: any."""

    reference: str
    product_code: str
    units: int
    target: str = field(repr=False)
    face_value: int | None
    max_cost: int | None
    callback_url: str
    fields: str = field(repr=False)


def read_ask(params: Mapping[str, str]) -> Ask:
    """Raises Malformed when the order cannot be recorded at all (no usable reference, no units)."""
    reference = params.get("out_order_no", "")
    units = params.get("units", "")
    if not (1 <= len(reference) <= 64 and reference.isascii() and reference.isalnum()):
        raise Malformed("out_order_no is 1 to 64 letters and digits")
    if not (units.isascii() and units.isdigit() and 1 <= int(units) <= 10_000):
        raise Malformed("units is 1 to 10000")
    try:
        return Ask(
            reference=reference,
            product_code=params.get("product_code", ""),
            units=int(units),
            target=params.get("target", ""),
            face_value=_amount(params, "face_value"),
            max_cost=_amount(params, "max_cost"),
            callback_url=params.get("callback_url", ""),
            fields=params.get("fields", ""),
        )
    except ValueError as error:
        raise Malformed(str(error)) from error


def _amount(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name, "")
    return parse_amount(text) if text else None


def answer(code: str, data: object = None) -> bytes:
    return orjson.dumps({"code": code, "message": MESSAGES[code], "data": data})
