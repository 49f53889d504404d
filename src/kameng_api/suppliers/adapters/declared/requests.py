"""One call's request, byte for byte: fields, encoding, signature and address, as the file says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from kameng_api.suppliers.adapters.declared import form
from kameng_api.suppliers.adapters.declared.signing import Signed, Signer, compile_signature, with_fields
from kameng_api.suppliers.adapters.declared.spelling import CHARSETS, form_text, json_text, multipart_body
from kameng_api.suppliers.adapters.declared.templates import VALUES, CannotSay, Make, Say, Scene, compile_field, compile_template

_T = TypeVar("_T")
_IN_SIGNATURES: Final = frozenset({"sent", "header", "method", "path"})
_ACCEPT: Final[Mapping[str, str]] = {"json": "application/json", "xml": "text/xml, application/xml"}

Try = Callable[[tuple[str | int, ...], Callable[[], _T]], _T | None]
"""Runs a compilation; its ValueError becomes a problem at the given place of the file."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, ready to be sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)
    signed_text: str = field(default="", repr=False)
    """What the signature was made of, secrets and all; only where it was asked for."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """One call of the file, compiled."""

    method: str
    path: Say
    encoding: str
    charset: str
    headers: Mapping[str, Say]
    fields: Mapping[str, Make]
    omit_empty: bool
    signer: Signer | None
    accept: str

    def build(self, scene: Scene, *, explain: bool = False) -> Outgoing:
        """Raises CannotSay; nothing has been sent then. `explain`: with the signed text."""
        base_url, path = scene.settings["base_url"], self.path(scene)
        made = {name: make(scene) for name, make in self.fields.items()}
        if self.omit_empty:
            made = {name: value for name, value in made.items() if value not in ("", None)}
        headers = {name: say(scene) for name, say in self.headers.items()}
        whole_path = urlsplit(base_url).path + path
        spoken = replace(scene, values={**scene.values, "method": self.method, "path": whole_path})
        query: dict[str, Any] = {}
        signer, signed_text = self.signer, ""
        if signer is not None and signer.place == "field":
            signed = Signed(with_fields(spoken, made, headers), made)
            signed_text = signer.text(signed) if explain else ""
            made = {**made, signer.name: signer.sign(signed)}
        try:
            body = self._body(made, scene)
            if signer is not None and signer.place != "field":
                signed = Signed(with_fields(spoken, made, headers), made, body)
                signed_text = signer.text(signed) if explain else ""
                (headers if signer.place == "header" else query)[signer.name] = signer.sign(signed)
            asked = form_text({**(made if self.encoding == "query" else {}), **query}, self.charset)
        except UnicodeEncodeError as error:
            raise CannotSay(f"{self.charset} lacks a character") from error
        url = f"{base_url}{path}" + (f"?{asked}" if asked else "")
        return Outgoing(self.method, url, {**self._fixed_headers(scene), **headers}, body, signed_text)

    def _body(self, made: Mapping[str, Any], scene: Scene) -> bytes:
        match self.encoding:
            case "form":
                return form_text(made, self.charset).encode()
            case "json":
                return json_text(made).encode(CHARSETS[self.charset])
            case "multipart":
                return multipart_body(made, self.charset, scene.nonce)
            case _:
                return b""

    def _fixed_headers(self, scene: Scene) -> dict[str, str]:
        headers = {"accept": self.accept}
        match self.encoding:
            case "form":
                headers["content-type"] = f"application/x-www-form-urlencoded; charset={self.charset}"
            case "json":
                headers["content-type"] = f"application/json; charset={self.charset}"
            case "multipart":
                headers["content-type"] = f"multipart/form-data; boundary={scene.nonce}"
        return headers


def plan_request(call: str, request: form.Request, kind: str, common: form.Common, settings: frozenset[str], attempt: Try[Any]) -> RequestPlan:
    """Compiles one call; what is wrong is told to `attempt` with its place in the file."""
    allowed = VALUES[call]
    fields: dict[str, Make] = {}
    headers: dict[str, Say] = {}
    parts: tuple[tuple[str, form.Common | form.Request], ...] = (("common", common), (call, request))
    for where, part in parts:
        for name, node in part.fields.items():
            made = attempt((where, "fields", name), partial(compile_field, node, allowed, settings))
            fields.pop(name, None)
            fields[name] = made or (lambda scene: "")
        for name, text in part.headers.items():
            said = attempt((where, "headers", name), partial(compile_template, text, allowed, settings))
            headers[name.lower()] = said or (lambda scene: "")
    signature, place = (request.signature, call) if request.signature is not None else (common.signature, "common")
    signer = None
    if signature is not None and not request.unsigned:
        signer = attempt((place, "signature"), lambda: compile_signature(signature, allowed | _IN_SIGNATURES, settings))
    encoding = request.encoding or common.encoding
    if request.method == "GET" and encoding != "query":
        attempt((call, "method"), lambda: _wrong("GET has no body: its encoding is query"))
    return RequestPlan(
        method=request.method,
        path=attempt((call, "path"), lambda: _path(request.path, call, settings)) or (lambda scene: "/"),
        encoding=encoding,
        charset=request.charset or common.charset,
        headers=headers,
        fields=fields,
        omit_empty=common.omit_empty if request.omit_empty is None else request.omit_empty,
        signer=signer,
        accept=_ACCEPT[kind],
    )


def _path(text: str, call: str, settings: frozenset[str]) -> Say:
    """A path below the base URL. What is put into it is quoted; a setting may be a whole path of its own."""
    if not text.startswith("/") and not text.startswith("{settings."):
        raise ValueError("a path begins with / or is a setting")
    if any(letter in text for letter in "?# \\"):
        raise ValueError("a path has no query, no fragment and no spaces")
    say = compile_template(text, VALUES[call] - {"now", "nonce"}, settings)

    def quoted(scene: Scene) -> str:
        path = say(scene)
        if not path.startswith("/") or "/../" in f"{path}/":
            raise CannotSay("a path that leaves the API")
        return quote(path, safe="/:@-._~!$'()*,;=")

    return quoted


def _wrong(said: str) -> None:
    raise ValueError(said)
