"""Whose mobile number this is and where it is at home, from the public prefix plan of mainland China. Pure; one array look-up per number.

The plan says who a number was given to. Since numbers may be taken along to another carrier (携号转网), only a look-up tells who has it now.
"""

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CARRIERS: Final = {
    "cmcc": ("中国移动", "China Mobile"),
    "cucc": ("中国联通", "China Unicom"),
    "ctcc": ("中国电信", "China Telecom"),
    "cbn": ("中国广电", "China Broadnet"),
}
VIRTUAL: Final = "virtual"
"""Beside carriers in a product's list: numbers of virtual operators (虚拟运营商) on those carriers' networks are charged too."""
ALLOWED: Final = (*CARRIERS, VIRTUAL)

FIRST_PREFIX: Final = 1_300_000
PREFIXES: Final = 700_000
_CODES: Final = (None, *CARRIERS)
_VIRTUAL_BIT: Final = 1 << 12
_PLACE_BITS: Final = 9
_FILE: Final = Path(__file__).with_name("cn_numbers.bin")


@dataclass(frozen=True, slots=True)
class NumberWord:
    """What is known of a number. `carrier` is the network it is on (None: nobody says), `virtual`: sold by a virtual operator on it.

    `source` is `prefix` (the plan alone) or `lookup` (somebody who knows where numbers went was asked); `ported` None: not known.
    """

    carrier: str | None
    virtual: bool = False
    source: str = "prefix"
    ported: bool | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """Where a number is at home; empty where the plan does not say."""

    zh: str = ""
    en: str = ""


def of_mobile(number: str) -> NumberWord:
    """The plan's word on an 11-digit mobile number of mainland China."""
    return _word(_packed(number) & ~((1 << _PLACE_BITS) - 1))


def home_of(number: str) -> Home:
    """The province and city of an 11-digit mobile number of mainland China."""
    place = _packed(number) & ((1 << _PLACE_BITS) - 1)
    return Home(*_table()[1][place])


def may_charge(carriers: Sequence[str], word: NumberWord) -> bool:
    """Whether a product for these carriers may be sold to this number. A carrier that nobody knows is not wrong: the supplier decides."""
    if not carriers or word.carrier is None:
        return True
    return word.carrier in carriers and (not word.virtual or VIRTUAL in carriers)


def pack(carrier: str | None, virtual: bool, place: int) -> int:
    """One 7-digit prefix as the file holds it."""
    assert place < 1 << _PLACE_BITS
    return _CODES.index(carrier) << _PLACE_BITS | (_VIRTUAL_BIT if virtual else 0) | place


def _packed(number: str) -> int:
    prefix = int(number[:7]) - FIRST_PREFIX
    return _table()[0][prefix] if 0 <= prefix < PREFIXES else 0


@cache
def _word(packed: int) -> NumberWord:
    return NumberWord(_CODES[packed >> _PLACE_BITS & 7], bool(packed & _VIRTUAL_BIT))


@cache
def _table() -> tuple["array[int]", list[tuple[str, str]]]:
    """A number for each prefix, and the places they name; 1.4 MB, read once."""
    content = zlib.decompress(_FILE.read_bytes())
    [size] = struct.unpack_from("<I", content)
    words = array("H", content[4 + size :])
    if sys.byteorder == "big":
        words.byteswap()
    return words, [(zh, en) for zh, en in json.loads(content[4 : 4 + size])]
