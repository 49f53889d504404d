"""Makes `catalog/cn_numbers.bin` from the installed `phonenumbers`: `python -m tests.factories.areas`. Its metadata is Apache-2.0.

The library's own area data costs a process 100 MB and a second at its start, for 341 places.
"""

import json
import struct
import sys
import zlib
from array import array
from pathlib import Path
from typing import Final

from phonenumbers.carrierdata import CARRIER_DATA

from kameng_api.catalog import numbers

FILE: Final = Path(numbers.__file__).parent / "cn_numbers.bin"
_CARRIERS: Final = {"China Mobile": "cmcc", "China Unicom": "cucc", "China Telecom": "ctcc", "China Broadnet": "cbn"}
# What the metadata does not know: numbers of virtual operators, by the network that carries them (工信部 2014–2020).
_VIRTUAL: Final = {
    "162": "ctcc", "165": "cmcc", "167": "cucc", "171": "cucc",
    "1700": "ctcc", "1701": "ctcc", "1702": "ctcc", "1703": "cmcc", "1705": "cmcc", "1706": "cmcc",
    "1704": "cucc", "1707": "cucc", "1708": "cucc", "1709": "cucc",
}  # fmt: skip


def made() -> bytes:
    """The file's bytes: 4 bytes length of the places as JSON, the places, and one number for each of the 7-digit prefixes; all of it zlib."""
    from phonenumbers.geodata import GEOCODE_DATA

    places: dict[tuple[str, str], int] = {("", ""): 0}
    words = array("H", bytes(2 * numbers.PREFIXES))
    for prefix in range(numbers.PREFIXES):
        digits = str(numbers.FIRST_PREFIX + prefix)
        carrier, virtual = _carrier(digits)
        area = next((found for n in range(9, 4, -1) if (found := GEOCODE_DATA.get(f"86{digits}"[:n]))), {})
        place = places.setdefault((area.get("zh", ""), area.get("en", "")), len(places))
        words[prefix] = numbers.pack(carrier, virtual, place)
    if sys.byteorder == "big":
        words.byteswap()
    names = json.dumps(list(places), ensure_ascii=False).encode()
    return zlib.compress(struct.pack("<I", len(names)) + names + words.tobytes(), 9)


def _carrier(digits: str) -> tuple[str | None, bool]:
    for n in (4, 3):
        if digits[:n] in _VIRTUAL:
            return _VIRTUAL[digits[:n]], True
    named = next((found for n in range(9, 4, -1) if (found := CARRIER_DATA.get(f"86{digits}"[:n]))), {})
    return _CARRIERS.get(named.get("en", "")), False


if __name__ == "__main__":
    FILE.write_bytes(made())
    print(FILE, FILE.stat().st_size)
