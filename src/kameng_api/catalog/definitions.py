"""What may be defined: every mistake of an operator's definition, found at once, with its place. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from kameng_api.catalog import barcodes, rules
from kameng_api.catalog.checksums import KINDS
from kameng_api.catalog.numbers import ALLOWED, CARRIERS
from kameng_api.catalog.rules import Channel, FormField, Offer, Price, Product
from kameng_api.kit.errors import FieldError
from kameng_api.kit.money import LARGEST, format_amount

_SKU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
_CHANNEL_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_FIELDS: Final = 20
_MAX_FIELD_LENGTH: Final = 256
_MAX_PATTERN: Final = 200
_LARGEST_RATE: Final = 10 * rules.RATE_ONE


def check_product(product: Product) -> list[FieldError]:
    """What is wrong with a definition."""
    checks = (
        (bool(_SKU.fullmatch(product.sku)), "/sku", "format", "1–64 of A–Z a–z 0–9 . _ ~ -"),
        (_is_label(product.name, 128), "/name", "format", "1–128 printable characters"),
        (
            product.product_type in rules.PRODUCT_TYPES,
            "/product_type",
            "unknown_value",
            " | ".join(rules.PRODUCT_TYPES),
        ),
        (product.status in rules.PRODUCT_STATUSES, "/status", "unknown_value", " | ".join(rules.PRODUCT_STATUSES)),
        (bool(_CURRENCY.fullmatch(product.currency)), "/currency", "format", "three capital letters"),
        (
            bool(product.environments) and product.environments <= set(rules.ENVIRONMENTS),
            "/environments",
            "unknown_value",
            "one or both of live, test",
        ),
        (1 <= product.max_quantity <= 10_000, "/max_quantity", "out_of_range", "1 to 10000"),
        (10 <= product.deliver_within_s <= 604_800, "/deliver_within_s", "out_of_range", "10 to 604800 seconds"),
        (0 <= product.duplicate_window_s <= 86_400, "/duplicate_window_s", "out_of_range", "0 to 86400 seconds"),
        (_target_fits(product), "/target_kind", "unknown_value", "mobile or account for top-ups, none for card codes"),
    )
    errors = [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]
    return errors + _check_face(product) + _check_fields(product.fields) + _check_carriers(product)


def _check_carriers(product: Product) -> list[FieldError]:
    if not product.carriers:
        return []
    if product.target_kind != "mobile":
        return [FieldError("/carriers", "not_allowed", "only products for mobile numbers name carriers")]
    if not set(product.carriers) <= set(ALLOWED) or not set(product.carriers) & set(CARRIERS):
        return [FieldError("/carriers", "unknown_value", f"some of {', '.join(CARRIERS)}, and virtual beside them")]
    return [] if len(set(product.carriers)) == len(product.carriers) else [FieldError("/carriers", "duplicate", "each once")]


def check_barcodes(wanted: Sequence[str]) -> list[FieldError]:
    """What is wrong with a product's barcodes."""
    if len(wanted) > barcodes.MOST:
        return [FieldError("/barcodes", "too_long", f"at most {barcodes.MOST}")]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for n, one in enumerate(wanted):
        if not barcodes.is_barcode(one):
            errors.append(FieldError(f"/barcodes/{n}", "format", f"1–{barcodes.LONGEST} printable characters"))
        elif barcodes.key_of(one) in seen:
            errors.append(FieldError(f"/barcodes/{n}", "duplicate", "the same barcode again"))
        seen.add(barcodes.key_of(one))
    return errors


def _target_fits(product: Product) -> bool:
    if product.product_type == "card":
        return product.target_kind is None
    if product.product_type == "topup":
        return product.target_kind in rules.TARGET_KINDS
    return product.target_kind is None or product.target_kind in rules.TARGET_KINDS


def _check_face(product: Product) -> list[FieldError]:
    ranged = (product.face_min, product.face_max, product.face_step)
    if product.face_value is not None:
        if any(part is not None for part in ranged):
            return [FieldError("/face_value", "ambiguous", "either one face value or a range")]
        fits = 0 < product.face_value <= LARGEST
        return [] if fits else [FieldError("/face_value", "out_of_range", "more than 0, at most 100 billion")]
    low, high, step = ranged
    if low is None or high is None or step is None:
        return [FieldError("/face_value", "required", "one face value, or face_min, face_max and face_step")]
    if not 0 < low <= high <= LARGEST:
        return [FieldError("/face_max", "out_of_range", "0 < face_min ≤ face_max ≤ 100 billion")]
    if step <= 0 or (high - low) % step:
        return [FieldError("/face_step", "out_of_range", "more than 0, dividing face_max - face_min")]
    return []


def _check_fields(fields: Sequence[FormField]) -> list[FieldError]:
    errors = [] if len(fields) <= _MAX_FIELDS else [FieldError("/fields", "too_long", f"at most {_MAX_FIELDS}")]
    seen: set[str] = set()
    for n, wanted in enumerate(fields[:_MAX_FIELDS]):
        at = f"/fields/{n}"
        if not _FIELD_NAME.fullmatch(wanted.name):
            errors.append(FieldError(f"{at}/name", "format", "lower-case letters, digits and _, at most 32"))
        if wanted.name in rules.RESERVED_FIELDS:
            errors.append(FieldError(f"{at}/name", "reserved", "ranged products ask for it by themselves"))
        if wanted.name in seen:
            errors.append(FieldError(f"{at}/name", "duplicate", "this name is already asked for"))
        if not _is_label(wanted.label, 64):
            errors.append(FieldError(f"{at}/label", "format", "1–64 printable characters"))
        if not 1 <= wanted.max_length <= _MAX_FIELD_LENGTH:
            errors.append(FieldError(f"{at}/max_length", "out_of_range", f"1 to {_MAX_FIELD_LENGTH}"))
        if not 0 <= wanted.min_length <= wanted.max_length:
            errors.append(FieldError(f"{at}/min_length", "out_of_range", "0 to max_length"))
        if wanted.checksum is not None and wanted.checksum not in KINDS:
            errors.append(FieldError(f"{at}/checksum", "unknown_value", " | ".join(KINDS)))
        if wanted.pattern is not None and not _compiles(wanted.pattern):
            errors.append(FieldError(f"{at}/pattern", "format", f"a regular expression of at most {_MAX_PATTERN}"))
        seen.add(wanted.name)
    return errors


def _compiles(pattern: str) -> bool:
    if len(pattern) > _MAX_PATTERN:
        return False
    try:
        rules.compiled(pattern)
    except re.error:
        return False
    return True


def _is_label(text: str, most: int) -> bool:
    return 1 <= len(text) <= most and text.isprintable() and not text.isspace()


IDENTITY: Final = ("product_type", "currency", "face_value", "face_min", "face_max", "face_step", "target_kind")


def identity_changes(old: Product, new: Product) -> list[str]:
    """Names of what a SKU is and may not become under those who sell it."""
    return [name for name in IDENTITY if getattr(old, name) != getattr(new, name)]


def check_price(product: Product, price: Price) -> list[FieldError]:
    """What is wrong with a price for this product."""
    return _check_amount(product, price.unit_price, price.rate_ppm, "/unit_price", least=1)


def check_offer(product: Product, offer: Offer) -> list[FieldError]:
    """What is wrong with an offer for this product."""
    errors = _check_amount(product, offer.unit_cost, offer.rate_ppm, "/unit_cost", least=0)
    if not 1 <= len(offer.product_code) <= 128 or not offer.product_code.isprintable():
        errors.append(FieldError("/product_code", "format", "1–128 printable characters"))
    if offer.stock is not None and not 0 <= offer.stock < 2**31:
        errors.append(FieldError("/stock", "out_of_range", "0 or more, or null when the supplier does not tell"))
    if offer.status not in rules.SWITCH:
        errors.append(FieldError("/status", "unknown_value", " | ".join(rules.SWITCH)))
    return errors


def _check_amount(product: Product, amount: int | None, rate: int | None, at: str, *, least: int) -> list[FieldError]:
    if (amount is None) == (rate is None):
        return [FieldError(at, "required", "either an amount or a rate")]
    if amount is not None and product.ranged:
        return [FieldError(at, "not_allowed", "a ranged product is priced by a rate of its face value")]
    if amount is not None and not least <= amount <= LARGEST:
        return [FieldError(at, "out_of_range", f"at least {format_amount(least)}, at most 100 billion")]
    if rate is not None and not least <= rate <= _LARGEST_RATE:
        return [FieldError("/rate", "out_of_range", "above 0, at most 10")]
    return []


def check_channel(channel: Channel) -> list[FieldError]:
    """What is wrong with a channel; its settings are the adapter's to check."""
    checks = (
        (bool(_CHANNEL_ID.fullmatch(channel.channel_id)), "/id", "format", "1–32 of a–z 0–9 -"),
        (_is_label(channel.name, 64), "/name", "format", "1–64 printable characters"),
        (channel.environment in rules.ENVIRONMENTS, "/environment", "unknown_value", " | ".join(rules.ENVIRONMENTS)),
        (channel.status in rules.SWITCH, "/status", "unknown_value", " | ".join(rules.SWITCH)),
        (1 <= channel.concurrency <= 10_000, "/concurrency", "out_of_range", "1 to 10000"),
        (
            channel.wallet_low_at is None or 0 <= channel.wallet_low_at <= LARGEST,
            "/wallet_low_at",
            "out_of_range",
            "0 to 100 billion",
        ),
        (channel.wallet_floor is None or 0 <= channel.wallet_floor <= LARGEST, "/wallet/floor", "out_of_range", "0 to 100 billion"),
        (
            channel.wallet_resume_at is None or (channel.wallet_floor is not None and channel.wallet_floor <= channel.wallet_resume_at <= LARGEST),
            "/wallet/resume_at",
            "out_of_range",
            "at least the floor, which must be set",
        ),
        (channel.wallet_hours_left is None or 1 <= channel.wallet_hours_left <= 720, "/wallet/hours_left", "out_of_range", "1 to 720"),
    )
    return [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]
