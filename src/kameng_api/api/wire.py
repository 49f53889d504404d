"""Types of the wire, shared by the endpoints: amounts, times, page sizes."""

import re
from datetime import datetime
from typing import Annotated, Final

from annotated_types import Ge, Le
from fastapi import Query
from pydantic import BeforeValidator, Field, StringConstraints

AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?$"
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_RFC_3339: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")

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


def _instant(value: object) -> object:
    """RFC 3339 with an offset, in a century that every date library can shift between time zones."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("an RFC 3339 time such as 2026-11-22T11:44:59Z")
    at = datetime.fromisoformat(value)
    if not 2000 <= at.year < 2100:
        raise ValueError("from 2000 to 2099")
    return at


Instant = Annotated[datetime, BeforeValidator(_instant, json_schema_input_type=datetime)]
"""A time in a query."""

_Page = Annotated[int, Ge(1), Le(100)]
Limit = Annotated[_Page, BeforeValidator(_digits, json_schema_input_type=_Page), Query(description="How many on this page.")]
