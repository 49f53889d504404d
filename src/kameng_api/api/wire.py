"""Types of the wire, shared by the endpoints: amounts, times, page sizes."""

import re
from typing import Annotated, Final

from annotated_types import Ge, Le
from fastapi import Query
from pydantic import BeforeValidator, Field, StringConstraints

AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?$"
_DIGITS: Final = re.compile(r"[0-9]{1,9}")

AmountIn = Annotated[str, StringConstraints(pattern=AMOUNT_PATTERN), Field(examples=["98.5000"])]
"""An amount as it may be sent: a decimal string with at most four places. Read it with `kit.money.parse_amount`."""
Amount = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]{4}$", examples=["98.5000"])]
"""An amount as we show it: always four places."""
SignedAmount = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{4}$", examples=["-98.5000"])]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-22T11:44:59.000Z"])]
"""RFC 3339, UTC."""


def _digits(value: object) -> object:
    """Query parameters are text, and the framework would also take `1.0`, `+1` and `1_0` for an integer."""
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            raise ValueError("digits only")
        return int(value)
    return value


_Page = Annotated[int, Ge(1), Le(100)]
Limit = Annotated[_Page, BeforeValidator(_digits, json_schema_input_type=_Page), Query(description="How many on this page.")]
