"""What a scanner at a counter reads, and which product it means. Pure; a scanned address is read as text and never opened."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

from kameng_api.catalog.checksums import gtin

MOST: Final = 50
"""Barcodes of one product."""
LONGEST: Final = 512
OWN_SCHEME: Final = "kameng:"
"""A QR text of ours: `kameng:SKU`."""

_LIKE_GTIN: Final = re.compile(r"[0-9]{8}|[0-9]{12,14}")
_ELEMENT: Final = re.compile(r"(?:\][A-Za-z][0-9])?(?:\(01\)|01)([0-9]{14})(?:\D.*)?", re.DOTALL)
_DIGITAL_LINK: Final = re.compile(r"/01/([0-9]{8}|[0-9]{12,14})(?:/|\Z)")
_SYMBOLOGY: Final = re.compile(r"\A\][A-Za-z][0-9]")


def key_of(barcode: str) -> str:
    """One spelling for one barcode: the four lengths of a GTIN are one number, any other text is itself."""
    return f"gtin:{barcode.zfill(14)}" if gtin(barcode) else f"text:{barcode}"


def is_barcode(text: str) -> bool:
    """Whether an operator may give this to a product: printable, without a blank at either end."""
    return 1 <= len(text) <= LONGEST and text.isprintable() and text == text.strip()


def is_misread(text: str) -> bool:
    """Digits of a GTIN's length whose check digit does not fit: worth scanning again."""
    return _LIKE_GTIN.fullmatch(text) is not None and not gtin(text)


def find_sku(text: str, barcodes: Mapping[str, str], skus: Mapping[str, object]) -> str | None:
    """The SKU that a scanned text means: a barcode on record first, then a GTIN inside GS1 data, then a SKU that the text carries.

    `barcodes`: key → SKU. Of a web address only `?sku=` and the GS1 Digital Link's `/01/GTIN` count.
    """
    text = text.strip()
    for candidate in (text, _SYMBOLOGY.sub("", text)):
        if (known := barcodes.get(key_of(candidate))) is not None:
            return known
    link = _link(text)
    inside = _DIGITAL_LINK.search(link[0]) if link else _ELEMENT.fullmatch(text)
    if inside is not None and gtin(inside[1]) and (known := barcodes.get(key_of(inside[1]))) is not None:
        return known
    carried = link[1] if link else text.removeprefix(OWN_SCHEME)
    return carried if carried in skus else None


def _link(text: str) -> tuple[str, str] | None:
    """(path, the one `sku` in the query or nothing) of a web address; None when it is none."""
    try:
        parts = urlsplit(text)
        asked = parse_qs(parts.query, max_num_fields=50).get("sku", []) if parts.scheme in ("http", "https") else []
    except ValueError:
        return None
    if parts.scheme not in ("http", "https"):
        return None
    return parts.path, asked[0] if len(asked) == 1 else ""
