"""A declared supplier calls us: verified by the file's rule, and only what the signature covers is read."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from kameng_api.suppliers.adapters.declared.compiled import CallbackPlan
from kameng_api.suppliers.adapters.declared.expressions import Unreadable, word
from kameng_api.suppliers.adapters.declared.signing import Signed, with_fields
from kameng_api.suppliers.adapters.declared.spelling import plain_text, read_form, read_json
from kameng_api.suppliers.adapters.declared.templates import CannotSay, Scene
from kameng_api.suppliers.adapters.declared.verdicts import Asked
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CatalogHint

_MOST_CODES = 1000


def read(plan: CallbackPlan, settings: Mapping[str, str], headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
    """Raises CallbackRefused for what does not verify, is stale or cannot be read."""
    try:
        fields = _received(plan, body)
        scene = with_fields(Scene(now, "", settings), fields, headers)
        covered = _verified(plan, scene, fields, headers, body)
        _fresh(plan, scene, now)
        if plan.product_codes is not None:
            codes = plan.product_codes(covered)
            if codes:
                return _hint(codes)
        reference = word(plan.reference(covered))
        if not reference:
            raise CallbackRefused("no reference")
        return CallbackNews(reference, plan.reader.by_state(covered, Asked(reference), scene))
    except (Unreadable, CannotSay, ValueError) as error:
        raise CallbackRefused("unreadable") from error


def _received(plan: CallbackPlan, body: bytes) -> dict[str, Any]:
    found = read_form(body, plan.form.charset) if plan.form.encoding == "form" else read_json(body, plan.form.charset)
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _verified(plan: CallbackPlan, scene: Scene, fields: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The fields that the signature covers."""
    signer = plan.signer
    given = fields.get(signer.name) if signer.place == "field" else scene.headers.get(signer.name.lower())
    if not isinstance(given, str) or not signer.matches(Signed(scene, fields, body), given):
        raise CallbackRefused("bad signature")
    if plan.form.trusted and not signer.needs_body:
        held = [plain_text(value) for name, value in fields.items() if name != signer.name and not isinstance(value, dict | list)]
        if any(separator in value for value in held for separator in signer.separators if separator != "="):
            raise CallbackRefused("a value holds a separator of the signed text")
    return {name: value for name, value in fields.items() if signer.covers(name) and name != signer.name}


def _fresh(plan: CallbackPlan, scene: Scene, now: datetime) -> None:
    if plan.sent_at is None or plan.form.time is None:
        return
    [(place, name)] = plan.form.time.at.items()
    text = scene.fields.get(name) if place == "field" else scene.headers.get(name.lower())
    if abs(now - plan.sent_at(text or "")) > timedelta(seconds=plan.form.time.within_s):
        raise CallbackRefused("stale")


def _hint(codes: Any) -> CatalogHint:
    listed = [word(code) for code in codes[:_MOST_CODES]] if isinstance(codes, list) else [word(codes)]
    return CatalogHint(tuple([code for code in listed if code]))


