"""Bytes on the wire, both ways: forms, JSON, multipart and flat XML, read so strictly that one text has one meaning."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus
from xml.parsers import expat

from kameng_api.suppliers.adapters.declared.expressions import Unreadable

MOST_DEPTH: Final = 20
MOST_PARTS: Final = 200_000
_XML_DEPTH: Final = 6
_ESCAPED: Final = json.JSONEncoder(ensure_ascii=True).encode
_AS_IT_IS: Final = json.JSONEncoder(ensure_ascii=False).encode
CHARSETS: Final[Mapping[str, str]] = {"utf-8": "utf-8", "gbk": "gb18030"}
"""What the trade calls GBK is read and written as its superset GB18030: equal where both have the character."""


# ---- writing -------------------------------------------------------------------------------------------------------------


def plain_text(value: Any) -> str:
    """A field as it stands in a form: text as it is, numbers in digits, nested values as compact JSON, null as nothing."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Decimal():
            return format(value, "f")
        case _:
            return json_text(value)


def json_text(value: Any, *, sort: bool = False, escape_slashes: bool = False, escape_unicode: bool = False) -> str:
    """Compact JSON. `sort`: names in order, at every level. Numbers keep their digits: `9.90` stays `9.90`."""
    encode = _ESCAPED if escape_unicode else _AS_IT_IS  # `json.dumps` would make an encoder for each text

    def write(item: Any) -> str:
        match item:
            case dict():
                pairs = sorted(item.items()) if sort else item.items()
                return "{" + ",".join([f"{text(name)}:{write(inner)}" for name, inner in pairs]) + "}"
            case list() | tuple():
                return "[" + ",".join([write(inner) for inner in item]) + "]"
            case str():
                return text(item)
            case None:
                return "null"
            case _:
                return plain_text(item)

    def text(item: str) -> str:
        quoted = encode(item)
        return quoted.replace("/", "\\/") if escape_slashes else quoted

    return write(value)


def form_text(fields: Mapping[str, Any], charset: str) -> str:
    """`a=1&b=%E4…`, in the order of `fields`. Raises UnicodeEncodeError for what the charset lacks."""
    codec = CHARSETS[charset]
    return "&".join([f"{quote_plus(name, encoding=codec)}={quote_plus(plain_text(value), encoding=codec)}" for name, value in fields.items()])


def multipart_body(fields: Mapping[str, Any], charset: str, boundary: str) -> bytes:
    """RFC 7578, one part per field. Names are the file's own, without quotes."""
    codec = CHARSETS[charset]
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode(codec) + plain_text(value).encode(codec) + b"\r\n"
        for name, value in fields.items()
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


# ---- reading -------------------------------------------------------------------------------------------------------------


def read_json(body: bytes, charset: str) -> Any:
    """Whole numbers as int, others as Decimal with their digits. Raises Unreadable, also for a name that stands twice."""
    try:
        return json.loads(
            body.decode(CHARSETS[charset]), object_pairs_hook=_each_once, parse_float=_decimal, parse_int=_whole, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _decimal(text: str) -> Decimal:
    if len(text) > 40 or "e" in text.lower():
        raise ValueError("a number in a spelling that money does not use")
    return Decimal(text)


def _whole(text: str) -> int:
    if len(text) > 20 or text == "-0":
        raise ValueError("a number too long")
    return int(text)


def _refuse(text: str) -> Any:
    raise ValueError("not a number")


def read_form(body: bytes, charset: str) -> dict[str, str]:
    """Each name once, empty values kept. Raises Unreadable."""
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, encoding=CHARSETS[charset], errors="strict", max_num_fields=200)
    except ValueError as error:
        raise Unreadable("not a form") from error
    found = dict(pairs)
    if not found or len(found) != len(pairs):
        raise Unreadable("no field, or a name stands twice")
    return found


class _Element:
    """An XML element while it is read."""

    __slots__ = ("inner", "text")

    def __init__(self) -> None:
        self.inner: dict[str, Any] = {}
        self.text: list[str] = []

    def value(self) -> Any:
        if not self.inner:
            return "".join(self.text).strip()
        if "".join(self.text).strip():
            raise Unreadable("text between elements")
        return self.inner


def read_xml(body: bytes, charset: str) -> Any:
    """`<a><b>1</b></a>` → `{"a": {"b": "1"}}`; an element that stands again becomes a list. Attributes are left out.

    The charset is the file's, whatever the declaration says. No document type, so no entities but the five of XML, nothing from outside.
    Raises Unreadable.
    """
    try:
        text = body.decode(CHARSETS[charset])
    except ValueError as error:
        raise Unreadable("not text") from error
    root = _Element()
    open_elements = [root]
    seen = 0

    def start(name: str, attributes: Sequence[str]) -> None:
        nonlocal seen
        seen += 1
        if len(open_elements) > _XML_DEPTH or seen > MOST_PARTS:
            raise Unreadable("XML too deep or too large")
        open_elements.append(_Element())

    def end(name: str) -> None:
        value = open_elements.pop().value()
        inner = open_elements[-1].inner
        if name not in inner:
            inner[name] = value
        elif isinstance(inner[name], list):
            inner[name].append(value)
        else:
            inner[name] = [inner[name], value]

    def characters(piece: str) -> None:
        open_elements[-1].text.append(piece)

    def no_document_type(*_: object) -> None:
        raise Unreadable("XML with a document type")

    parser = expat.ParserCreate(encoding="utf-8")
    parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler, parser.EntityDeclHandler = no_document_type, no_document_type
    try:
        parser.Parse(text.encode("utf-8", "strict"), True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise Unreadable("not XML") from error
    return root.inner
