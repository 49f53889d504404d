"""The committed contract, read once for all tests of a process."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).parents[2] / "openapi" / "kameng.v1.yaml"


@cache
def document() -> dict[str, Any]:
    """`openapi/kameng.v1.yaml`. Nobody changes what this returns."""
    read: dict[str, Any] = yaml.load(FILE.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return read
