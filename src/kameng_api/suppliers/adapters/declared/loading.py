"""Finds suppliers' files, those that are shipped and an operator's own, and makes an adapter of each."""

from functools import partial
from pathlib import Path
from typing import Final

from kameng_api.suppliers.adapters.declared.client import DeclaredSupplier
from kameng_api.suppliers.adapters.declared.compiled import Compiled, compile_file
from kameng_api.suppliers.port import Adapter

SHIPPED: Final = Path(__file__).parent / "files"
MOST_FILES: Final = 200


def find_files(folder: Path) -> list[Path]:
    """The `*.yaml` of a folder, by name in order. Raises ValueError where the folder is not there or holds too many."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    found = sorted(folder.glob("*.yaml"))
    if len(found) > MOST_FILES:
        raise ValueError(f"{folder} holds more than {MOST_FILES} files")
    return found


def build_adapter(compiled: Compiled) -> Adapter:
    return Adapter(
        name=compiled.form.name,
        settings=compiled.settings,
        connect=partial(DeclaredSupplier, compiled),
        title=compiled.form.title,
        folder=compiled.folder,
    )


def load_folder(folder: Path) -> list[Adapter]:
    """Raises FileWrong with the first broken file, ValueError for a folder that is not there."""
    return [build_adapter(compile_file(file)) for file in find_files(folder)]
