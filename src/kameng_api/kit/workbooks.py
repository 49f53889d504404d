"""XLSX files to be written. Their library is loaded for the first of them: it is 2 MB, and many a process never writes one."""

from importlib import import_module
from typing import Any


def new_workbook(where: Any, options: dict[str, Any]) -> Any:
    """An `xlsxwriter.Workbook` at a path or in a buffer; `options` are the library's own."""
    return import_module("xlsxwriter").Workbook(where, options)
