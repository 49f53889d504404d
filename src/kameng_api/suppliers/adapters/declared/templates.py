"""What a file may say of ours in a request: `{…}` over a closed set of values, each with a format of its own."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from kameng_api.kit.money import SCALE
from kameng_api.suppliers.adapters.declared.spelling import json_text, plain_text
from kameng_api.suppliers.port import Purchase

MOST_CHARACTERS: Final = 1000
_SLOT: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INSIDE: Final = re.compile(r"\A([a-z_]+)(?:\.([A-Za-z0-9_-]{1,64}))?(\?)?(?::(.{1,40}))?\Z")
_FLOAT: Final = re.compile(r"\A%\.([0-4])f\Z")
_PARTS_OF_A_DATE: Final[Mapping[str, str]] = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "HH": "%H", "mm": "%M", "ss": "%S"}
_DATE: Final = re.compile("|".join([*_PARTS_OF_A_DATE, "SSS"]))
_DATE_FORMAT: Final = re.compile(rf"\A(?:{'|'.join([*_PARTS_OF_A_DATE, 'SSS'])}|[-/:. TZ])+\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
DEFAULT_ZONE: Final = "Asia/Shanghai"

ORDER: Final = frozenset({"reference"})
PURCHASE: Final = frozenset(
    {"product_code", "part", "product_type", "units", "currency", "max_cost", "unit_max_cost", "face_value", "target", "fields", "callback_url"}
)
ALWAYS: Final = frozenset({"now", "nonce", "settings"})
VALUES: Final[Mapping[str, frozenset[str]]] = {
    "place": ALWAYS | ORDER | PURCHASE,
    "look_up": ALWAYS | ORDER | {"supplier_order_no"},
    "cancel": ALWAYS | ORDER | {"supplier_order_no"},
    "balance": ALWAYS,
    "products": ALWAYS | {"page", "page_size", "cursor"},
    "product": ALWAYS | {"product_code"},
}
"""Which values each call knows."""
_WITH_A_NAME: Final = frozenset({"part", "fields", "settings", "sent", "received", "header"})
_AMOUNTS: Final = frozenset({"max_cost", "unit_max_cost", "face_value"})
_LIMITS: Final = frozenset({"max_cost", "unit_max_cost"})


class CannotSay(ValueError):
    """This purchase cannot be said in this protocol; the message names the part, never its value."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one request may speak of. Times and nonce are taken once, so that they are the same wherever they are named."""

    now: datetime
    nonce: str
    settings: Mapping[str, str] = field(repr=False)
    purchase: Purchase | None = field(default=None, repr=False)
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Short values of the call: reference, supplier_order_no, product_code, page, page_size, cursor, method, path."""
    parts: Sequence[str] = ()
    """The pieces of the product code, where the file splits it."""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What is sent, or what was received: for signatures."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Say = Callable[[Scene], str]
"""A template's text for one request. Raises CannotSay."""


def compile_template(text: str, allowed: frozenset[str], settings: frozenset[str]) -> Say:
    """Raises ValueError, in words for whoever wrote the file. `{{` and `}}` are braces."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a template has at most {MOST_CHARACTERS} characters")
    pieces: list[str | Say] = []
    end = 0
    for match in _SLOT.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(match[0][0])
        elif match[1] is None:
            raise ValueError("a single brace; write {{ or }} for a brace")
        else:
            pieces.append(_slot(match[1], allowed, settings))
    pieces.append(text[end:])
    kept = [piece for piece in pieces if piece != ""]
    if all(isinstance(piece, str) for piece in kept):
        constant = "".join(str(piece) for piece in kept)
        return lambda scene: constant
    if len(kept) == 1 and callable(kept[0]):
        return kept[0]
    return lambda scene: "".join([piece if isinstance(piece, str) else piece(scene) for piece in kept])


def _slot(inside: str, allowed: frozenset[str], settings: frozenset[str]) -> Say:
    match = _INSIDE.match(inside)
    if match is None:
        raise ValueError(f"{{{inside}}} is not a value with an optional format, such as {{max_cost:yuan2}}")
    name, sub, optional, spelled = match.groups()
    if name not in allowed:
        raise ValueError(f"no value {name!r} here; there are: {', '.join(sorted(allowed))}")
    if (sub is not None) != (name in _WITH_A_NAME):
        raise ValueError(f"{{{name}.NAME}} needs a name" if sub is None else f"{{{name}}} has no parts")
    if name == "settings" and sub not in settings:
        raise ValueError(f"no setting {sub!r}; there are: {', '.join(sorted(settings))}")
    if name == "part" and not str(sub).isdigit():
        raise ValueError("{part.N} counts from 1")
    if name in _AMOUNTS:
        return _amount(name, spelled, optional=bool(optional))
    if name == "now":
        return compile_time(spelled or "")
    if name == "nonce":
        if spelled is not None and not (spelled.isdigit() and 1 <= int(spelled) <= 32):
            raise ValueError("{nonce:N} has 1 to 32 characters")
        return lambda scene: scene.nonce[: int(spelled or 32)]
    if spelled is not None:
        raise ValueError(f"{{{name}}} has no formats")
    return _plain(name, sub, optional=bool(optional))


def _plain(name: str, sub: str | None, *, optional: bool) -> Say:
    read = _READERS.get(name) or (lambda scene, _: scene.values.get(name))

    def say(scene: Scene) -> str:
        found = read(scene, sub or "")
        if not found:
            if optional:
                return ""
            raise CannotSay(f"no {name}{'.' + sub if sub else ''}")
        if _CONTROL.search(found):
            raise CannotSay(f"{name} holds control characters")
        return found

    return say


def _part(scene: Scene, number: str) -> str | None:
    return scene.parts[int(number) - 1] if 0 < int(number) <= len(scene.parts) else None


def _of_purchase(name: str) -> Callable[[Scene, str], str | None]:
    def read(scene: Scene, _: str) -> str | None:
        found = scene.values.get(name) if scene.purchase is None else getattr(scene.purchase, name)
        return None if found is None else str(found)

    return read


_READERS: Final[Mapping[str, Callable[[Scene, str], str | None]]] = {
    "settings": lambda scene, name: scene.settings.get(name),
    "fields": lambda scene, name: scene.purchase.fields.get(name) if scene.purchase else None,
    "sent": lambda scene, name: scene.fields.get(name),
    "received": lambda scene, name: scene.fields.get(name),
    "header": lambda scene, name: scene.headers.get(name.lower()),
    "part": _part,
    **{name: _of_purchase(name) for name in ("product_code", "product_type", "units", "currency", "target", "callback_url")},
}


# ---- amounts -------------------------------------------------------------------------------------------------------------


def spell_amount(amount: int, spelled: str, *, downwards: bool = False) -> str:
    """`amount` in 1/10000 units as `yuan2`, `yuan4`, `yuan` (as short as it can be), `fen` (1/100) or `%.Nf`.

    Raises CannotSay when it does not fit; with `downwards` it is cut, as a limit may be.
    """
    match = _FLOAT.match(spelled)
    places = int(match[1]) if match else {"yuan2": 2, "yuan4": 4, "yuan": 4, "fen": 2}[spelled]
    step = 10 ** (4 - places)
    if amount % step and not downwards:
        raise CannotSay(f"an amount has more than {places} places")
    whole, part = divmod(amount - amount % step, SCALE)
    if spelled == "fen":
        return str((whole * SCALE + part) // 100)
    text = f"{whole}.{part:04d}"[: -(4 - places) or None]
    return (text.rstrip("0") if spelled == "yuan" else text).rstrip(".")


def compile_amount_format(spelled: str) -> str:
    """Raises ValueError."""
    if spelled not in ("yuan", "yuan2", "yuan4", "fen") and not _FLOAT.match(spelled):
        raise ValueError(f"no amount format {spelled!r}; there are: yuan, yuan2, yuan4, fen, %.0f to %.4f")
    return spelled


def float_text(text: str, spelled: str) -> str:
    """`text`, a decimal number of theirs, as C's printf would print the nearest double: `%.1f` of 9.95 is 9.9, for their code does just that.

    Raises CannotSay. For signatures only: no amount of ours is ever a float.
    """
    try:
        return spelled % float(Decimal(text))
    except (ArithmeticError, ValueError) as error:
        raise CannotSay("a number in a signature is not a number") from error


def _amount(name: str, spelled: str | None, *, optional: bool) -> Say:
    if spelled is None:
        raise ValueError(f"{{{name}}} needs a format, such as {{{name}:yuan2}}")
    compile_amount_format(spelled)

    def say(scene: Scene) -> str:
        assert scene.purchase is not None
        match name:
            case "unit_max_cost":
                amount: int | None = scene.purchase.max_cost // scene.purchase.units
            case "max_cost":
                amount = scene.purchase.max_cost
            case _:
                amount = scene.purchase.face_value
        if amount is None:
            if optional:
                return ""
            raise CannotSay(f"no {name}")
        return spell_amount(amount, spelled, downwards=name in _LIMITS)

    return say


# ---- times ---------------------------------------------------------------------------------------------------------------


def compile_time(spelled: str) -> Say:
    """`unix_s`, `unix_ms`, `iso` or letters such as `yyyy-MM-dd HH:mm:ss` and `yyyyMMddHHmmss`, each but the first two with `@Zone`.

    Raises ValueError.
    """
    if spelled in ("unix_s", "unix_ms"):
        factor = 1 if spelled == "unix_s" else 1000
        return lambda scene: str(int(scene.now.timestamp() * factor))
    letters, _, zone_name = spelled.partition("@")
    zone = _zone(zone_name or DEFAULT_ZONE)
    if letters == "iso":
        return lambda scene: scene.now.astimezone(zone).isoformat(timespec="seconds")
    pattern = _pattern(letters)
    if "SSS" in letters:
        return lambda scene: scene.now.astimezone(zone).strftime(pattern).replace("%f", f"{scene.now.microsecond // 1000:03d}")
    return lambda scene: scene.now.astimezone(zone).strftime(pattern)


def compile_time_reader(spelled: str) -> Callable[[str], datetime]:
    """The inverse of `compile_time`: their text → an aware moment. Raises ValueError here and when reading."""
    if spelled in ("unix_s", "unix_ms"):
        factor = 1 if spelled == "unix_s" else 1000

        def read_number(text: str) -> datetime:
            if not (text.isascii() and text.isdigit() and len(text) <= 13):
                raise ValueError("not a time")
            return datetime.fromtimestamp(int(text) / factor, UTC)

        return read_number
    letters, _, zone_name = spelled.partition("@")
    zone = _zone(zone_name or DEFAULT_ZONE)
    if letters == "iso":
        return lambda text: _aware(datetime.fromisoformat(text), zone)
    pattern = _pattern(letters).replace("%%f", "%f")
    return lambda text: _aware(datetime.strptime(text, pattern), zone)  # noqa: DTZ007  the zone is named beside the pattern


def _aware(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r}") from None


def _pattern(letters: str) -> str:
    """strftime's spelling; thousandths stay as `%%f`, for strftime knows only millionths."""
    if not _DATE_FORMAT.match(letters):
        raise ValueError(f"no time format {letters!r}; there are: unix_s, unix_ms, iso, or letters of yyyy yy MM dd HH mm ss SSS")
    return _DATE.sub(lambda match: _PARTS_OF_A_DATE.get(match[0], "%%f"), letters)


# ---- fields of a request -----------------------------------------------------------------------------------------------------

Make = Callable[[Scene], Any]
"""One field's value for one request: text, a number, or nested. Raises CannotSay."""


def compile_field(node: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    """A template, a constant, or a mapping with one of the names of `_SHAPES`. Raises ValueError."""
    if isinstance(node, str):
        return compile_template(node, allowed, settings)
    if isinstance(node, int):
        return lambda scene: node
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError(f"a field is a template, a number, or one of: {', '.join(_SHAPES)}")
    [(shape, inner)] = node.items()
    if shape not in _SHAPES:
        raise ValueError(f"no {shape!r} here; there are: {', '.join(_SHAPES)}")
    return _SHAPES[shape](inner, allowed, settings)


def _number(inner: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    say = compile_template(inner if isinstance(inner, str) else str(inner), allowed, settings)

    def make(scene: Scene) -> Any:
        text = say(scene)
        try:
            found = Decimal(text)
        except ArithmeticError as error:
            raise CannotSay("a number is not a number") from error
        return int(found) if found == found.to_integral_value() and "." not in text else found

    return make


def _object(inner: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    if not isinstance(inner, dict):
        raise ValueError("an object is a mapping of names to fields")
    made = {name: compile_field(node, allowed, settings) for name, node in inner.items()}
    return lambda scene: {name: make(scene) for name, make in made.items()}


def _list(inner: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    if not isinstance(inner, list):
        raise ValueError("a list is a list of fields")
    made = [compile_field(node, allowed, settings) for node in inner]
    return lambda scene: [make(scene) for make in made]


def _all_fields(inner: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    """Everything the purchase's `fields` hold: one object, or a list of objects with a name and a value each."""
    if "fields" not in allowed:
        raise ValueError("no purchase here")
    if inner == "object":
        return lambda scene: dict(sorted(scene.purchase.fields.items())) if scene.purchase else {}
    if not (isinstance(inner, dict) and inner.keys() == {"name", "value"} and all(isinstance(value, str) for value in inner.values())):
        raise ValueError("all_fields is `object`, or {name: …, value: …}: what the list calls a name and a value")
    name, value = inner["name"], inner["value"]
    return lambda scene: [{name: n, value: v} for n, v in sorted(scene.purchase.fields.items())] if scene.purchase else []


def _json(inner: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    """Another field, as compact JSON text."""
    make = compile_field(inner, allowed, settings)
    return lambda scene: json_text(make(scene))


def _base64(inner: Any, allowed: frozenset[str], settings: frozenset[str]) -> Make:
    """Another field's text in base64, UTF-8, without line breaks."""
    make = compile_field(inner, allowed, settings)
    return lambda scene: base64.b64encode(plain_text(make(scene)).encode()).decode()


_SHAPES: Final[Mapping[str, Callable[[Any, frozenset[str], frozenset[str]], Make]]] = {
    "number": _number,
    "object": _object,
    "list": _list,
    "all_fields": _all_fields,
    "json": _json,
    "base64": _base64,
}

