"""Reloadly's spelling: requests, exact numbers, times, webhook signature. Sources: the vendor's OpenAPI (`reloadly-api-documentation`, 2022-07),
support.reloadly.com/reloadly-webhook, and sandbox observations of 2026-10-08, all read 2026-11-22."""

import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

import orjson

from kameng_api.kit.ids import parse_ulid
from kameng_api.kit.money import LARGEST, SCALE
from kameng_api.suppliers.port import Purchase

_DIGITS: Final = re.compile(r"[1-9][0-9]{6,14}")
_CODE: Final = re.compile(r"([1-9][0-9]{0,9})-([A-Z]{2})(?:-([0-9]{1,7}(?:\.[0-9]{1,5})?))?")
WIDER: Final = timedelta(days=1, hours=12)
"""Filters by time read UTC-4 where the rows say UTC: every window is widened by so much at both ends and the rows are looked at."""

_BELIEVED_S: Final = 400 * 86_400


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


@dataclass(frozen=True, slots=True)
class Line:
    """What our product code says: `173-NG` (any amount), `173-NG-5.5` (this one), in our account's currency."""

    operator_id: int
    country: str
    amount: Decimal | None


def read_code(code: str) -> Line:
    """Raises Unreadable."""
    match = _CODE.fullmatch(code)
    if match is None:
        raise Unreadable("product code")
    return Line(int(match[1]), match[2], None if match[3] is None else Decimal(match[3]))


def order_body(purchase: Purchase, country_code: str) -> bytes:
    """`POST /topups-async`. In our currency always: an order in local currency forfeits the commission. Raises Unreadable."""
    line = read_code(purchase.product_code)
    if purchase.units != 1:
        raise Unreadable("one unit per order")
    if line.amount is None and purchase.face_value is None:
        raise Unreadable("a ranged product without a face value")
    if line.amount is not None and purchase.face_value is not None:
        raise Unreadable("a face value for a product that has its own")
    amount = Decimal(purchase.face_value or 0) / SCALE if line.amount is None else line.amount
    order = {
        "operatorId": line.operator_id,
        "amount": number(amount),
        "useLocalAmount": False,
        "customIdentifier": purchase.reference,
        "recipientPhone": {"countryCode": line.country, "number": phone(purchase.target or purchase.fields.get("phone", ""), country_code)},
    }
    if "email" in purchase.fields:  # Nauta Cuba
        order["recipientEmail"] = purchase.fields["email"]
    return orjson.dumps(order)


def number(value: Decimal) -> int | float:
    """As a JSON number: seven places before the point and five behind it are told exactly by a double."""
    return int(value) if value == value.to_integral_value() else float(value)


def phone(target: str, country_code: str) -> str:
    """Country code and national number, digits only: the form that is taken everywhere. Raises Unreadable."""
    text = target[1:] if target.startswith("+") else f"{country_code}{target}"
    if not (text.isascii() and _DIGITS.fullmatch(text)):
        raise Unreadable("target is not a mobile number")
    return text


def ordered_at(reference: str, now: datetime) -> datetime | None:
    """When the order of one of our references was made: they end in a ULID that carries it. No attempt is older. None where that makes no sense."""
    ulid = parse_ulid(reference[-26:])
    seconds = -1.0 if ulid is None else (ulid.int >> 80) / 1000
    return datetime.fromtimestamp(seconds, UTC) if abs(now.timestamp() - seconds) <= _BELIEVED_S else None


def window(start: datetime, end: datetime) -> dict[str, str]:
    """The widened window as their filters want it."""
    return {"startDate": f"{start - WIDER:%Y-%m-%d %H:%M:%S}", "endDate": f"{end + WIDER:%Y-%m-%d %H:%M:%S}"}


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
    """Units → 1/10000 units; their fifth decimal counts against us."""
    return int((value * SCALE).to_integral_value(ROUND_CEILING))


def holding(value: Decimal) -> int:
    """Units → 1/10000 units that are certainly there."""
    return int((value * SCALE).to_integral_value(ROUND_FLOOR))


def moment(value: object) -> datetime:
    """`2026-11-22 08:15:30`, UTC. Raises Unreadable."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None:
        raise Unreadable("not a moment")
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def signature(secret: str, body: bytes, timestamp: str) -> str:
    """Of a webhook: lower-case hex HMAC-SHA256 of the body as it came, a colon and the timestamp header."""
    return hmac.digest(secret.encode(), body + b":" + timestamp.encode(), "sha256").hex()
