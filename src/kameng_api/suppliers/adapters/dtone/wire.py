"""DT One's spelling: requests, exact numbers, dates. Source: DVS OpenAPI 1.23.0 (dvs-api-doc.dtone.com), read 2026-11-22."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

import orjson

from kameng_api.kit.money import LARGEST, SCALE
from kameng_api.suppliers.port import Purchase

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_CODE: Final = re.compile(r"([1-9][0-9]{0,9})(?:-([A-Z]{3}))?(-account)?")
# What a merchant may be asked for beside the target: `object.field` of the transaction (the product's `required_…_fields` name them).
_PARTS: Final = frozenset(
    {"credit_party_identifier", "debit_party_identifier", "sender", "beneficiary", "statement_identifier", "additional_identifier"}
)


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


@dataclass(frozen=True, slots=True)
class Line:
    """What our product code says: `1234`, `1234-PHP` (ranged, the unit of the face value), either with `-account` where the target is an
    account number and not a mobile number."""

    product_id: int
    unit: str
    by_account: bool


def read_code(code: str) -> Line:
    """Raises Unreadable."""
    match = _CODE.fullmatch(code)
    if match is None:
        raise Unreadable("product code")
    return Line(int(match[1]), match[2] or "", match[3] is not None)


def basic(user: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def order_body(purchase: Purchase, country_code: str) -> bytes:
    """`POST /async/transactions`, created and confirmed in one step. Raises Unreadable when it cannot be said in this protocol."""
    line = read_code(purchase.product_code)
    if purchase.units != 1:
        raise Unreadable("one unit per order")
    order: dict[str, Any] = {"external_id": purchase.reference, "product_id": line.product_id, "auto_confirm": True}
    if line.unit:
        if purchase.face_value is None:
            raise Unreadable("a ranged product without a face value")
        order["calculation_mode"] = "DESTINATION_AMOUNT"
        order["destination"] = {"unit_type": "CURRENCY", "unit": line.unit, "amount": number(purchase.face_value)}
    elif purchase.face_value is not None:
        raise Unreadable("a face value for a product that has its own")
    if purchase.product_type == "topup" and not purchase.target and not any(name.startswith("credit_party_identifier.") for name in purchase.fields):
        raise Unreadable("no target")
    if purchase.target:
        name, value = ("account_number", purchase.target) if line.by_account else ("mobile_number", mobile(purchase.target, country_code))
        order["credit_party_identifier"] = {name: value}
    for path, value in purchase.fields.items():
        part, dot, name = path.partition(".")
        if not dot or part not in _PARTS or not name.replace("_", "").isalnum():
            raise Unreadable("a field of no product")
        order.setdefault(part, {})[name] = value
    if purchase.callback_url:
        order["callback_url"] = purchase.callback_url
    return orjson.dumps(order)


def number(amount: int) -> int | float:
    """An amount as a JSON number. 1/10000 units of any order we take are told exactly by a double: 15 digits."""
    whole, part = divmod(amount, SCALE)
    return whole if not part else float(Decimal(amount) / SCALE)


def mobile(target: str, country_code: str) -> str:
    """E.164. Raises Unreadable."""
    text = target if target.startswith("+") else f"+{country_code}{target}"
    if not _E164.fullmatch(text):
        raise Unreadable("target is not a mobile number")
    return text


def read(body: bytes) -> Any:
    """JSON in which each name stands once and fractions are exact. Raises Unreadable."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error


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
    """RFC 3339 with a zone → aware UTC. Raises Unreadable."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Unreadable("not a moment")
    return found.astimezone(UTC)


def text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    return value[:128] if isinstance(value, str) and value else None
