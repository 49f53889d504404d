"""The spelling of 京东 游戏点卡: form fields, base64 of JSON, MD5 with the private key behind an ampersand. Pure.

Source of every protocol fact here: 京东游戏点卡平台 服务接口规范说明文档, a public copy without a date; see README.md.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo

from kameng_api.kit.money import LARGEST, SCALE

_BEIJING: Final = ZoneInfo("Asia/Shanghai")
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/=]")
_LINE_ENDS: Final = re.compile(r"[\r\n]")
_AMOUNT_TEXT: Final = re.compile(r"\A[0-9]{1,12}(?:\.[0-9]{1,12})?\Z")


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


def sign(private_key: str, params: Mapping[str, str]) -> str:
    """Lower-case MD5 of `k=v` joined by `&`, names ascending, without `sign` and empty values, then `&` and the key (appendix 4.5, all samples)."""
    told = [f"{name}={params[name]}" for name in sorted(params) if name != "sign" and params[name]]
    return hashlib.md5("&".join([*told, private_key]).encode(), usedforsecurity=False).hexdigest()


def is_signed(private_key: str, params: Mapping[str, str]) -> bool:
    """In constant time. Without a key nothing is signed."""
    given = params.get("sign", "").lower().encode()
    return bool(private_key) and hmac.compare_digest(sign(private_key, params).encode(), given)


def mended(params: Mapping[str, str]) -> dict[str, str]:
    """A `+` that was not escaped arrives in a form as a space; base64 has no spaces, so in `data` it can only have been a `+`."""
    return {name: value.replace(" ", "+") if name == "data" else value for name, value in params.items()}


def read_data(text: str) -> dict[str, Any]:
    """`data` → its JSON object: numbers as text as they were written, names without the spaces around them (the document prints `"orderId "`).

    Raises Unreadable.
    """
    compact = _LINE_ENDS.sub("", text)  # a MIME encoder breaks its lines; they were signed, they mean nothing
    if not compact or _NOT_BASE64.search(compact):
        raise Unreadable("data is not base64")
    try:
        plain = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode()
        found = json.loads(plain, object_pairs_hook=_each_once, parse_int=str, parse_float=str, parse_constant=_no_constant)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Unreadable("data is not base64 of one JSON document in UTF-8") from error
    if not isinstance(found, dict):
        raise Unreadable("data is not an object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {name.strip(): value for name, value in pairs}
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON")


def data_of_answer(members: Mapping[str, Any]) -> str:
    """The `data` of an answer that we give: base64 of JSON in UTF-8, without line breaks."""
    return base64.b64encode(_json(members).encode()).decode()


def data_of_callback(members: Mapping[str, Any]) -> str:
    """The `data` of a callback: base64 of JSON in **GBK** ("由于历史原因", §3.2.1.1 and §3.3.1.1). What GBK cannot write is escaped in the JSON."""
    text = "".join([c if _in_gbk(c) else _escaped(c) for c in _json(members)])
    return base64.b64encode(text.encode("gbk")).decode()


def _json(members: Mapping[str, Any]) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


def _in_gbk(character: str) -> bool:
    try:
        character.encode("gbk")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def timestamp(now: datetime) -> str:
    """yyyyMMddHHmmss on a clock in China."""
    return now.astimezone(_BEIJING).strftime("%Y%m%d%H%M%S")


def price(text: object) -> int:
    """Yuan as decimal text → 1/10000 yuan, rounded down to them: `19.99` → 199900, never through a float. Raises Unreadable."""
    if not isinstance(text, str) or not _AMOUNT_TEXT.match(text):
        raise Unreadable("an amount is not a decimal number")
    try:
        amount = int(Decimal(text) * SCALE)
    except InvalidOperation as error:
        raise Unreadable("an amount is not a decimal number") from error
    if amount > LARGEST:
        raise Unreadable("an amount is too large")
    return amount
