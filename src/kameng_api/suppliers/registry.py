"""Finds the adapter folders and refuses to start with a broken one: no channel may find out at its first order."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from kameng_api.suppliers import adapters
from kameng_api.suppliers.port import Adapter

_NAME: Final = re.compile(r"\A[a-z][a-z0-9_]{0,39}\Z")


class AdapterBroken(RuntimeError):
    """A folder in `suppliers/adapters/` cannot be used; the message says which and why."""


class AdapterNotFound(LookupError):
    """No folder has this name."""


def load_adapters() -> Mapping[str, Adapter]:
    """Imports every folder, by name in order. Raises AdapterBroken on the first that is not what it should be."""
    found: dict[str, Adapter] = {}
    for folder in sorted(pkgutil.iter_modules(adapters.__path__), key=lambda module: module.name):
        if folder.ispkg:
            found[folder.name] = _load(folder.name)
    return MappingProxyType(found)


def _load(name: str) -> Adapter:
    try:
        module = importlib.import_module(f"{adapters.__name__}.{name}")
    except Exception as error:
        raise AdapterBroken(f"adapter folder {name!r} does not import: {type(error).__name__}: {error}") from error
    adapter = getattr(module, "ADAPTER", None)
    if not isinstance(adapter, Adapter):
        raise AdapterBroken(f"adapter folder {name!r} exports no ADAPTER")
    if adapter.name != name or not _NAME.match(name):
        raise AdapterBroken(f"adapter folder {name!r} calls itself {adapter.name!r}")
    if not (isinstance(adapter.settings, type) and issubclass(adapter.settings, BaseModel)):
        raise AdapterBroken(f"adapter folder {name!r} has no settings model")
    return adapter


@cache
def _loaded() -> Mapping[str, Adapter]:
    return load_adapters()


def get_adapter(name: str) -> Adapter:
    """Raises AdapterNotFound."""
    try:
        return _loaded()[name]
    except KeyError:
        raise AdapterNotFound(f"no adapter named {name!r}; there are: {', '.join(_loaded())}") from None


def list_adapters() -> tuple[Adapter, ...]:
    """All adapters, by name in order; call it at start, so that a broken folder is loud there."""
    return tuple(_loaded().values())
