"""Signatures from a menu: which text is signed, in which order and with what between, by which digest, and where it stands."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote_plus

from kameng_api.suppliers.adapters.declared.form import Fields, JsonText, Part, Signature
from kameng_api.suppliers.adapters.declared.spelling import CHARSETS, json_text, plain_text
from kameng_api.suppliers.adapters.declared.templates import CannotSay, Say, Scene, compile_amount_format, compile_template, float_text

_DIGESTS: Final[Mapping[str, str]] = {"md5": "md5", "sha1": "sha1", "sha256": "sha256", "sha512": "sha512"}


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature speaks about: the fields as they are sent or were received, in their order, and the exact body."""

    scene: Scene
    fields: Mapping[str, Any] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


Write = Callable[[Signed], str]


@dataclass(frozen=True, slots=True)
class Signer:
    """A compiled signature. `covers` names the top-level fields that are in it, None: all of them."""

    sign: Callable[[Signed], str]
    """Raises CannotSay."""
    text: Callable[[Signed], str]
    """What is signed, secrets and all. Raises CannotSay."""
    place: str
    name: str
    covers: Callable[[str], bool]
    needs_body: bool
    unambiguous: bool
    """Two different sets of fields never have the same signed text, as long as no value holds the separators."""
    separators: str

    def matches(self, signed: Signed, given: str) -> bool:
        """Whether `given` is the signature of what was received. Raises CannotSay when it cannot be computed."""
        return bool(given) and hmac.compare_digest(self.sign(signed).encode(), given.encode())


def compile_signature(form: Signature, allowed: frozenset[str], settings: frozenset[str]) -> Signer:
    """Raises ValueError, in words for whoever wrote the file."""
    [(place, name)] = form.at.items()
    codec = CHARSETS[form.charset]
    writers = [_part(part, allowed, settings, name if place == "field" else None, codec) for part in form.text]
    key = None if form.key is None else compile_template(form.key, allowed, settings)
    digest = _digest(form, key)

    def text(signed: Signed) -> str:
        return "".join([write(signed) for write in writers])

    def sign(signed: Signed) -> str:
        try:
            return digest(text(signed).encode(codec), signed)
        except UnicodeEncodeError as error:
            raise CannotSay(f"{form.charset} lacks a character") from error

    fields = [part.fields for part in form.text if part.fields is not None]
    return Signer(
        sign=sign,
        text=text,
        place=place,
        name=name,
        covers=_covers(form, name if place == "field" else None),
        needs_body=any(part.body for part in form.text),
        unambiguous=_unambiguous(form),
        separators="".join(dict.fromkeys("".join(["=" + one.join for one in fields]))),
    )


def _digest(form: Signature, key: Say | None) -> Callable[[bytes, Signed], str]:
    name = form.digest
    if name.startswith("hmac-"):
        if key is None:
            raise ValueError(f"{name} needs a key")
        algorithm, codec, secret = _DIGESTS[name.removeprefix("hmac-")], CHARSETS[form.charset], key
        return lambda text, signed: _spelled(hmac.digest(secret(signed.scene).encode(codec), text, algorithm), form.spelled)
    if key is not None:
        raise ValueError("only hmac digests take a key; put it into the text")
    return lambda text, signed: _spelled(hashlib.new(_DIGESTS[name], text, usedforsecurity=False).digest(), form.spelled)


def _spelled(digest: bytes, spelled: str) -> str:
    match spelled:
        case "lower":
            return digest.hex()
        case "upper":
            return digest.hex().upper()
        case _:
            return base64.b64encode(digest).decode()


# ---- the parts of a signed text ------------------------------------------------------------------------------------------


def _part(part: Part, allowed: frozenset[str], settings: frozenset[str], leave_out: str | None, codec: str) -> Write:
    if part.text is not None:
        say = compile_template(part.text, allowed, settings)
        return (lambda signed: unquote_plus(say(signed.scene))) if part.unquoted else (lambda signed: say(signed.scene))
    if part.fields is not None:
        return _fields(part.fields, leave_out)
    if part.json_of is not None:
        return _json(part.json_of, leave_out)
    if part.characters is not None:
        inner = _json(part.characters, leave_out)
        return lambda signed: "".join(sorted(inner(signed)))
    if part.body == "raw":
        return lambda signed: _decoded(signed.body, codec)
    assert part.body is not None
    algorithm = part.body
    return lambda signed: hashlib.new(algorithm, signed.body, usedforsecurity=False).hexdigest()


def _decoded(body: bytes, codec: str) -> str:
    try:
        return body.decode(codec)
    except UnicodeDecodeError as error:
        raise CannotSay("a signed body is not text") from error


def _fields(form: Fields, leave_out: str | None) -> Write:
    formats = {name: compile_amount_format(spelled) for name, spelled in form.formats.items()}
    if any(not spelled.startswith("%") for spelled in formats.values()):
        raise ValueError("formats of signed fields are %.0f to %.4f")
    without = {*form.without, leave_out}
    glue = {"k=v": "=", "kv": "", "v": None}[form.pair]
    keep_empty, join, sort_nested = form.empty == "keep", form.join, form.nested == "sorted_json"

    def text(value: Any) -> str:
        return json_text(value, sort=True) if sort_nested and isinstance(value, dict | list) else plain_text(value)

    def write(signed: Signed) -> str:
        if isinstance(form.order, list):
            names = form.order
            if keep_empty and any(name not in signed.fields for name in names):
                raise CannotSay("a signed field is missing")
        else:
            names = [name for name in signed.fields if name not in without]
            if form.order == "sorted":
                names.sort()
        pieces = []
        for name in names:
            value = text(signed.fields.get(name))
            if name in formats:
                value = float_text(value, formats[name])
            if value or keep_empty:
                pieces.append(value if glue is None else f"{name}{glue}{value}")
        return join.join(pieces)

    return write


def _json(form: JsonText, leave_out: str | None) -> Write:
    without = {*form.without, leave_out}

    def write(signed: Signed) -> str:
        kept = {name: value for name, value in signed.fields.items() if name not in without}
        return json_text(kept, sort=form.sorted, escape_slashes=form.escape_slashes, escape_unicode=form.escape_unicode)

    return write


# ---- what a signature is worth ---------------------------------------------------------------------------------------------


def _covers(form: Signature, itself: str | None) -> Callable[[str], bool]:
    """Whether a received field is in the signed text. Fields printed by a format are not: many values have the same print."""
    if any(part.body for part in form.text):
        return lambda name: True
    tests: list[Callable[[str], bool]] = []
    for part in form.text:
        if part.fields is not None:
            tests.append(_covered_by(part.fields))
        for text in (part.json_of, part.characters):
            if text is not None:
                tests.append(lambda name, without=frozenset(text.without): name not in without)  # type: ignore[misc]
        if part.text is not None:
            named = part.text
            tests.append(lambda name, named=named: f"{{received.{name}}}" in named)  # type: ignore[misc]
    return lambda name: name != itself and any(test(name) for test in tests)


def _covered_by(fields: Fields) -> Callable[[str], bool]:
    if isinstance(fields.order, list):
        names = frozenset(fields.order) - fields.formats.keys()
        return lambda name: name in names
    without = frozenset(fields.without) | fields.formats.keys()
    return lambda name: name not in without


def _unambiguous(form: Signature) -> bool:
    """Sorted characters are the same for anagrams; values without their names or without separators can be cut elsewhere."""
    if any(part.characters is not None for part in form.text):
        return False
    return all(part.fields is None or (part.fields.pair == "k=v" and part.fields.join != "") for part in form.text)


def with_fields(scene: Scene, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Scene:
    """The same scene, with what is sent or was received to speak of."""
    return replace(scene, fields={name: plain_text(value) for name, value in fields.items()}, headers={n.lower(): v for n, v in headers.items()})
