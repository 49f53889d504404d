"""What the public plans of all countries say of a number: valid or not, what kind, where, whose. Pure; for questions, never for an order."""

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

HOME_REGION: Final = "CN"
_KINDS: Final = {
    PhoneNumberType.MOBILE: "mobile",
    PhoneNumberType.FIXED_LINE_OR_MOBILE: "mobile_or_fixed_line",
    PhoneNumberType.FIXED_LINE: "fixed_line",
}


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """A number as the plan of its country knows it. `carrier` is the operator's own name, "" where the plan does not say or people may port."""

    e164: str = field(repr=False)
    national: str = field(repr=False)
    region: str | None
    valid: bool
    kind: str
    carrier: str


def read_number(text: str) -> PlanEntry | None:
    """`+…` or `00…` with a country's code, or digits of mainland China; None for what is no number at all."""
    try:
        parsed = phonenumbers.parse(text, HOME_REGION)
    except phonenumbers.NumberParseException:
        return None
    return PlanEntry(
        e164=phonenumbers.format_number(parsed, PhoneNumberFormat.E164),
        national=phonenumbers.national_significant_number(parsed),
        region=phonenumbers.region_code_for_number(parsed),
        valid=phonenumbers.is_valid_number(parsed),
        kind=_KINDS.get(phonenumbers.number_type(parsed), "other"),
        carrier=_carriers().name_for_number(parsed, "en"),
    )


@cache
def _carriers() -> Any:
    """By name, at the first question: the carriers of all countries take some 30 MB, and many a process is never asked about a number."""
    return import_module("phonenumbers.carrier")
