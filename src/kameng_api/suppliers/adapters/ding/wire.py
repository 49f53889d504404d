"""Ding's spelling: requests in PascalCase (other names are silently ignored), exact numbers, times. Sources: swagger V1 of api.dingconnect.com, the
vendor's help pages, and what others saw live on 2026-09-07; all read 2026-11-22."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

import orjson

from kameng_api.kit.money import LARGEST, SCALE
from kameng_api.suppliers.port import Purchase

_CODE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})-(range|[0-9]{1,7}\.[0-9]{2})")
_DIGITS: Final = re.compile(r"[1-9][0-9]{5,14}")
_NO_ACCOUNT: Final = "0000000000"
"""What stands for the account where a voucher is bought."""


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


@dataclass(frozen=True, slots=True)
class Line:
    """What our product code says: `IN_AI_TopUp-4.50` (at this SendValue and no other) or `IN_AI_TopUp-range`."""

    sku: str
    send_value: int | None


def read_code(code: str) -> Line:
    """Raises Unreadable."""
    match = _CODE.fullmatch(code)
    if match is None:
        raise Unreadable("product code")
    return Line(match[1], None if match[2] == "range" else charge(Decimal(match[2])))


def order_body(purchase: Purchase, country_code: str) -> bytes:
    """`POST SendTransfer`, for real: `ValidateOnly` must stand there. Raises Unreadable when it cannot be said in this protocol."""
    line = read_code(purchase.product_code)
    if purchase.units != 1:
        raise Unreadable("one unit per order")
    if line.send_value is not None and purchase.face_value is not None:
        raise Unreadable("a face value for a product that has its own")
    send_value = purchase.face_value if line.send_value is None else line.send_value
    if send_value is None:
        raise Unreadable("a ranged product without a face value")
    if send_value % 100:
        raise Unreadable("a face value of more than two decimals")
    if send_value > purchase.max_cost:  # this is what would be charged
        raise Unreadable("dearer than we pay")
    voucher = purchase.product_type != "topup" and not purchase.target
    order: dict[str, Any] = {
        "SkuCode": line.sku,
        "SendValue": number(send_value),
        "SendCurrencyIso": purchase.currency,
        "AccountNumber": _NO_ACCOUNT if voucher else account(purchase.target or "", country_code),
        "DistributorRef": purchase.reference,
        "ValidateOnly": False,
    }
    if purchase.fields:
        order["Settings"] = [{"Name": name, "Value": value} for name, value in purchase.fields.items()]
    return orjson.dumps(order)


def number(amount: int) -> int | float:
    """An amount with two decimals as a JSON number."""
    whole, part = divmod(amount, SCALE)
    return whole if not part else float(Decimal(amount) / SCALE)


def account(target: str, country_code: str) -> str:
    """International digits without "+", which is refused. Raises Unreadable."""
    text = target[1:] if target.startswith("+") else f"{country_code}{target}"
    if not (text.isascii() and _DIGITS.fullmatch(text)):
        raise Unreadable("target is not a number")
    return text


def read(body: bytes) -> dict[str, Any]:
    """A JSON object in which each name stands once and fractions are exact. Raises Unreadable."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _no_constant(_text: str) -> Any:
    raise Unreadable("not a number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def decimal(value: object) -> Decimal:
    """A JSON number, exact, zero or more. Raises Unreadable."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Unreadable("not a number")
    found = Decimal(value)
    if not 0 <= found * SCALE <= LARGEST:
        raise Unreadable("an amount out of bounds")
    return found


def charge(value: Decimal) -> int:
    """Units → 1/10000 units; a fifth decimal counts against us."""
    return int((value * SCALE).to_integral_value(ROUND_CEILING))


def holding(value: Decimal) -> int:
    """Units → 1/10000 units that are certainly there."""
    return int((value * SCALE).to_integral_value(ROUND_FLOOR))


def moment(value: object) -> datetime:
    """`2026-11-22T08:15:30.12Z`, UTC with or without its letter. Raises Unreadable."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None:
        raise Unreadable("not a moment")
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
