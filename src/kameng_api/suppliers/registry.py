"""Finds the adapter folders and refuses to start with a broken one: no channel may find out at its first order."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final

from pydantic import BaseModel

from kameng_api.suppliers import adapters
from kameng_api.suppliers.port import Adapter

_NAME: Final = re.compile(r"\A[a-z][a-z0-9_]{0,39}\Z")


class AdapterBroken(RuntimeError):
    """A folder in `suppliers/adapters/` cannot be used; the message says which and why."""


class AdapterNotFound(LookupError):
    """No folder has this name."""


def load_adapters(files: Path | None = None) -> Mapping[str, Adapter]:
    """Imports every folder, then reads the suppliers' files: those that are shipped and those in `files`, an operator's own folder.

    By name in order. Raises AdapterBroken on the first that is not what it should be, or whose name is taken.
    """
    found: dict[str, Adapter] = {}
    for folder in sorted(pkgutil.iter_modules(adapters.__path__), key=lambda module: module.name):
        if not folder.ispkg:
            continue
        module = _imported(folder.name)
        if hasattr(module, "load_folder"):  # no vendor of its own: it makes an adapter of every file
            for adapter in [one for place in (module.SHIPPED, files) if place is not None for one in _read(module, place)]:
                if adapter.name in found or not _NAME.match(adapter.name):
                    raise AdapterBroken(f"the supplier's file {adapter.name!r}: there is an adapter of this name already")
                found[adapter.name] = adapter
        elif folder.name in found:
            raise AdapterBroken(f"the supplier's file {folder.name!r}: there is an adapter of this name already")
        else:
            found[folder.name] = _load(folder.name, module)
    return MappingProxyType(dict(sorted(found.items())))


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{adapters.__name__}.{name}")
    except Exception as error:
        raise AdapterBroken(f"adapter folder {name!r} does not import: {type(error).__name__}: {error}") from error


def _read(module: ModuleType, place: Path) -> list[Adapter]:
    try:
        made: list[Adapter] = module.load_folder(place)
    except (ValueError, OSError) as error:
        raise AdapterBroken(f"a supplier's file cannot be used: {error}") from error
    return made


def _load(name: str, module: ModuleType) -> Adapter:
    adapter = getattr(module, "ADAPTER", None)
    if not isinstance(adapter, Adapter):
        raise AdapterBroken(f"adapter folder {name!r} exports no ADAPTER")
    if adapter.name != name or not _NAME.match(name):
        raise AdapterBroken(f"adapter folder {name!r} calls itself {adapter.name!r}")
    if not (isinstance(adapter.settings, type) and issubclass(adapter.settings, BaseModel)):
        raise AdapterBroken(f"adapter folder {name!r} has no settings model")
    return adapter


_own_files: Path | None = None


def use_files(folder: Path | None) -> None:
    """Where an operator keeps suppliers' files of its own; said once at start, before the first adapter is asked for."""
    global _own_files  # noqa: PLW0603  the registry is one per process, as the folders it finds are
    if folder != _own_files:
        _own_files = folder
        _loaded.cache_clear()


@cache
def _loaded() -> Mapping[str, Adapter]:
    return load_adapters(_own_files)


def get_adapter(name: str) -> Adapter:
    """Raises AdapterNotFound."""
    try:
        return _loaded()[name]
    except KeyError:
        raise AdapterNotFound(f"no adapter named {name!r}; there are: {', '.join(_loaded())}") from None


def list_adapters() -> tuple[Adapter, ...]:
    """All adapters, by name in order; call it at start, so that a broken folder is loud there."""
    return tuple(_loaded().values())
