"""What is known of a phone number, for tills that want to offer the right products before the shopper pays."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.routes import StrictRoute
from kameng_api.catalog import abroad, numbers
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.abroad import PlanEntry
from kameng_api.catalog.numbers import NumberWord
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.orders.rules import magic_number

router = APIRouter(route_class=StrictRoute, tags=["counter"])


class NumberCarrier(BaseModel):
    """The network a number is on."""

    code: Literal["cmcc", "cucc", "ctcc", "cbn"] | None = Field(description="As products name it in `carriers`; null outside mainland China.")
    name: str
    name_zh: str | None


class NumberHome(BaseModel):
    """Where the number was given out."""

    zh: str
    en: str


class Number(BaseModel):
    """A number as the public plan knows it, and for mainland China as a supplier knows it where one can be asked."""

    object: Literal["number"]
    number: str = Field(description="E.164.", examples=["+8613800138000"])
    country: str | None = Field(description="ISO 3166-1.", examples=["CN"])
    valid: bool = Field(description="Whether the plan has such a number; not whether anybody has it.")
    type: Literal["mobile", "mobile_or_fixed_line", "fixed_line", "other"]
    carrier: NumberCarrier | None
    virtual: bool = Field(description="Sold by a virtual operator on that network.")
    home: NumberHome | None
    source: Literal["prefix", "lookup"] = Field(description="`prefix`: the plan alone, so a number that was taken along shows its first carrier.")
    ported: bool | None = Field(description="Taken along from another carrier; null: nobody said.")


@router.get("/v1/numbers/{number}", response_model=Number, summary="Carrier and home of a number")
async def get_number(
    door: InDoor,
    caller: CalledBy,
    number: Annotated[
        str, Path(max_length=20, description="Eleven digits (China), or `00`, country code and number: `008613800138000`. A path holds no `+`.")
    ],
) -> Number:
    """Whom a number belongs to and where it is at home. Nothing of the question is stored or logged."""
    entry = abroad.read_number(number) if _is_plain(number) else None
    if entry is None:
        raise Invalid("this is no phone number", errors=[FieldError("/path/number", "format", "11 digits, or 00 with country code and number")])
    chinese = entry.e164.startswith("+86") and catalog.check_mobile(entry.national)
    if not chinese:
        return _shown(entry, None)
    magic = magic_number(entry.national) is not None
    word = numbers.of_mobile(entry.national) if magic else await door.lookups.word_on(door.catalog.current, caller.environment, entry.national)
    return _shown(entry, word)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isdigit() and 5 <= len(text) <= 17


def _shown(entry: PlanEntry, word: NumberWord | None) -> Number:
    carrier, home = None, None
    if word is not None and word.carrier is not None:
        zh, en = numbers.CARRIERS[word.carrier]
        carrier = NumberCarrier.model_validate({"code": word.carrier, "name": en, "name_zh": zh})
    elif entry.carrier:
        carrier = NumberCarrier(code=None, name=entry.carrier, name_zh=None)
    if word is not None and (place := numbers.home_of(entry.national)).zh:
        home = NumberHome(zh=place.zh, en=place.en)
    return Number.model_validate(
        {
            "object": "number",
            "number": entry.e164,
            "country": entry.region,
            "valid": entry.valid,
            "type": entry.kind,
            "carrier": carrier,
            "virtual": word is not None and word.virtual,
            "home": home,
            "source": "prefix" if word is None else word.source,
            "ported": None if word is None else word.ported,
        }
    )
