"""Finds the door folders and refuses to start with a broken one: no merchant may find out at its first order."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from kameng_api.api import doors
from kameng_api.api.doors.door import Kind, VendorDoor

_NAME: Final = re.compile(r"\A[a-z][a-z0-9_]{0,39}\Z")
_STEP: Final = re.compile(r"\A(?:[A-Za-z0-9._~-]+|\{[a-z_]+\})\Z")


class DoorBroken(RuntimeError):
    """A folder in `api/doors/` cannot be used; the message says which and why."""


class DoorNotFound(LookupError):
    """No folder has this name."""


def load_doors() -> Mapping[str, VendorDoor]:
    """Imports every folder, by name in order. Raises DoorBroken on the first that is not what it should be."""
    found: dict[str, VendorDoor] = {}
    for folder in sorted(pkgutil.iter_modules(doors.__path__), key=lambda module: module.name):
        if folder.ispkg:
            found[folder.name] = _load(folder.name)
    return MappingProxyType(found)


def _load(name: str) -> VendorDoor:
    try:
        module = importlib.import_module(f"{doors.__name__}.{name}")
    except Exception as error:
        raise DoorBroken(f"door folder {name!r} does not import: {type(error).__name__}: {error}") from error
    door = getattr(module, "DOOR", None)
    if not isinstance(door, VendorDoor):
        raise DoorBroken(f"door folder {name!r} exports no DOOR")
    if door.name != name or not _NAME.match(name):
        raise DoorBroken(f"door folder {name!r} calls itself {door.name!r}")
    why = _why_broken(door)
    if why is not None:
        raise DoorBroken(f"door folder {name!r}: {why}")
    return door


def _why_broken(door: VendorDoor) -> str | None:
    for path in door.paths:
        steps = path.template.split("/")
        if steps[0] or not all(_STEP.match(step) for step in steps[1:]) or steps[1].startswith("~"):
            return f"the path {path.template!r} cannot be mounted"
        if (path.answer is None) is not path.anonymous:
            return f"the path {path.template!r} needs an answer, or is anonymous, not both"
    if not any(path.kind is Kind.PLACE for path in door.paths):
        return "nothing can be bought through it"
    if len({(path.method, path.template) for path in door.paths}) != len(door.paths):
        return "two paths are the same"
    if not door.secrets:
        return "its accounts have no secret"
    return None


@cache
def _loaded() -> Mapping[str, VendorDoor]:
    return load_doors()


def get_door(name: str) -> VendorDoor:
    """Raises DoorNotFound."""
    try:
        return _loaded()[name]
    except KeyError:
        raise DoorNotFound(f"no door named {name!r}; there are: {', '.join(_loaded())}") from None


def list_doors() -> tuple[VendorDoor, ...]:
    """All doors, by name in order; call it at start, so that a broken folder is loud there."""
    return tuple(_loaded().values())
