"""Check digits: the kinds a form field may ask for, and the GTIN's. Pure; each takes the whole text and says whether it fits."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

_DIGITS: Final = re.compile(r"[0-9]+")
_CITIZEN: Final = re.compile(r"[1-9][0-9]{5}(?:18|19|20)[0-9]{9}[0-9X]")
_CREDIT: Final = re.compile(r"[0-9A-HJ-NP-RT-UW-Y]{18}")
_IBAN_LIKE: Final = re.compile(r"[0-9A-Z]{5,34}")
_CREDIT_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"  # GB 32100: no I, O, Z, S, V


def luhn(text: str) -> bool:
    """ISO/IEC 7812: bank cards, IMEI, ICCID."""
    if not _DIGITS.fullmatch(text) or len(text) < 2:
        return False
    doubled = [int(digit) * (1 + n % 2) for n, digit in enumerate(reversed(text))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def gb_11643(text: str) -> bool:
    """A citizen's identity number of mainland China, 18 characters: a date that existed, and ISO 7064 MOD 11-2."""
    if not _CITIZEN.fullmatch(text):
        return False
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return mod_11_2(text)


def gb_32100(text: str) -> bool:
    """A unified social credit code (统一社会信用代码): ISO 7064-like, modulus 31 with weights 3^n."""
    if not _CREDIT.fullmatch(text):
        return False
    total = sum(_CREDIT_ALPHABET.index(letter) * pow(3, n, 31) for n, letter in enumerate(text[:17]))
    return _CREDIT_ALPHABET.index(text[17]) == -total % 31


def mod_11_2(text: str) -> bool:
    """ISO 7064 MOD 11-2, the check character 0–9 or X."""
    if not re.fullmatch(r"[0-9]+[0-9X]", text):
        return False
    rest = 0
    for digit in text[:-1]:
        rest = (rest + int(digit)) * 2 % 11
    return (rest + (10 if text[-1] == "X" else int(text[-1]))) % 11 == 1


def mod_11_10(text: str) -> bool:
    """ISO 7064 MOD 11,10: digits with one check digit."""
    if not _DIGITS.fullmatch(text) or len(text) < 2:
        return False
    rest = 10
    for digit in text[:-1]:
        rest = (rest + int(digit)) % 10 or 10
        rest = rest * 2 % 11
    return (rest + int(text[-1])) % 10 == 1


def mod_97_10(text: str) -> bool:
    """ISO 7064 MOD 97-10 over digits and capital letters (A = 10), the two check digits last."""
    if not _IBAN_LIKE.fullmatch(text):
        return False
    return int("".join(str(int(letter, 36)) for letter in text)) % 97 == 1


def gtin(text: str) -> bool:
    """GTIN-8, -12 (UPC), -13 (EAN) or -14, with its check digit."""
    if len(text) not in (8, 12, 13, 14) or not _DIGITS.fullmatch(text):
        return False
    return sum(int(digit) * (3 if n % 2 else 1) for n, digit in enumerate(reversed(text))) % 10 == 0


KINDS: Final[Mapping[str, Callable[[str], bool]]] = {
    "luhn": luhn,
    "gb_11643": gb_11643,
    "gb_32100": gb_32100,
    "mod_11_2": mod_11_2,
    "mod_11_10": mod_11_10,
    "mod_97_10": mod_97_10,
    "gtin": gtin,
}
