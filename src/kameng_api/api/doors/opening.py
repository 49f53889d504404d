"""What a door asks of an account that is to be opened at it: which secrets, which settings, and what we make ourselves."""

import re
from collections.abc import Mapping
from typing import Any

from kameng_api.api.doors.door import VendorDoor
from kameng_api.api.doors.registry import DoorNotFound, get_door
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.merchants.door_accounts import made_secret


def find_door(name: str) -> VendorDoor:
    """Raises Invalid, naming the doors there are."""
    try:
        return get_door(name)
    except DoorNotFound as unknown:
        raise Invalid(str(unknown), errors=[FieldError("/door", "unknown_value", str(unknown))]) from None


def complete_secrets(door: VendorDoor, given: Mapping[str, str]) -> dict[str, str]:
    """The secrets of an account: those given, and those we make. Raises Invalid; values are never repeated."""
    known = {secret.name: secret for secret in door.secrets}
    wrong = [FieldError(f"/secrets/{name[:64]}", "unknown_field", f"{door.name} knows no such secret") for name in given if name not in known]
    wrong += [
        FieldError(f"/secrets/{secret.name}", "required", f"{secret.label}: the other side assigns it")
        for secret in door.secrets
        if secret.vendor_given and not given.get(secret.name)
    ]
    if wrong:
        raise Invalid("these are not the secrets of this door", errors=wrong)
    return {name: given.get(name) or made_secret(secret.length) for name, secret in known.items()}


def check_settings(door: VendorDoor, given: Mapping[str, str]) -> None:
    """Raises Invalid for a setting that is unknown, missing or does not fit."""
    known = {setting.name: setting for setting in door.settings}
    wrong = [FieldError(f"/settings/{name[:64]}", "unknown_field", f"{door.name} knows no such setting") for name in given if name not in known]
    for setting in door.settings:
        value = given.get(setting.name, "")
        if setting.required and not value:
            wrong.append(FieldError(f"/settings/{setting.name}", "required", setting.label))
        elif value and not re.fullmatch(setting.pattern, value):
            wrong.append(FieldError(f"/settings/{setting.name}", "format", setting.label))
    if wrong:
        raise Invalid("these are not the settings of this door", errors=wrong)


def describe(door: VendorDoor, base_url: str) -> dict[str, Any]:
    """A door as the desk shows it: where it is, and the form of an account."""
    return {
        "name": door.name,
        "title": door.title,
        "base_url": f"{base_url.rstrip('/')}/doors/{door.name}",
        "paths": [{"method": path.method, "path": path.template, "kind": path.kind.value} for path in door.paths],
        "secrets": [{"name": s.name, "label": s.label, "given_by_them": s.vendor_given} for s in door.secrets],
        "settings": [{"name": s.name, "label": s.label, "pattern": s.pattern, "required": s.required} for s in door.settings],
        "calls_back": door.letters is not None,
        "retries_s": list(door.letters.retries_s) if door.letters is not None else [],
        "a_no_closes": door.a_no_closes,
        "a_refusal_closes": door.a_refusal_closes,
    }
