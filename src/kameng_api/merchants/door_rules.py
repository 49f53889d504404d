"""An account at a door (兼容入口): who a foreign protocol's caller is here, with which secrets, and what its product numbers mean. No I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from kameng_api.kit.client_address import Address, Network, is_inside
from kameng_api.kit.errors import FieldError
from kameng_api.kit.money import parse_amount
from kameng_api.merchants.rules import MAX_RATE_PER_S

MAX_PRODUCTS: Final = 5_000
MAX_CIDRS: Final = 100
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_NUMBER: Final = re.compile(r"[^\x00-\x20\x7f]{1,64}")
_SKU: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_VALUE: Final = re.compile(r"[!-~]{8,512}")


@dataclass(frozen=True, slots=True)
class Sold:
    """What a foreign product number stands for. `face_value` in 1/10000 units, only for SKUs that are sold by face value."""

    sku: str
    face_value: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """An account as a door folder sees it. `account` is the vendor-side id that requests carry (userid, customerId, vendorId, API key)."""

    account: str
    environment: str
    currency: str
    secrets: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DoorAccount:
    """An account with all that the house knows of it: whose it is, where it may call from, what it may buy under which number."""

    door: str
    account_id: UUID
    seen: Account
    merchant_id: UUID
    merchant_name: str
    merchant_active: bool
    book_id: int
    level: str
    enabled: bool
    networks: tuple[Network, ...]
    products: Mapping[str, Sold]
    own_skus: bool
    """Product numbers that are not in `products` are read as SKUs."""
    reads_per_s: int | None
    writes_per_s: int | None

    def allows(self, address: Address) -> bool:
        """Whether the caller's address is in the allowlist; without a list every address is."""
        return not self.networks or is_inside(address, self.networks)

    def sold_as(self, number: str) -> Sold | None:
        """What the foreign product number stands for; None for a number that means nothing here."""
        known = self.products.get(number)
        if known is not None or not self.own_skus:
            return known
        return Sold(number) if _SKU.fullmatch(number) else None


def is_account_name(text: str) -> bool:
    """Whether an account can be called so; what strangers send may be anything."""
    return _ACCOUNT.fullmatch(text) is not None


def check_account(
    account: str, secrets: Mapping[str, str], products: Mapping[str, Mapping[str, str]], cidrs: Sequence[str], rates: Sequence[int | None]
) -> list[FieldError]:
    """What is wrong with an account to be, whatever its door; values of secrets are never repeated."""
    checks = (
        (_ACCOUNT.fullmatch(account), "/account", "format", "1–64 of letters, digits, . _ ~ -"),
        (len(products) <= MAX_PRODUCTS, "/products", "too_long", f"at most {MAX_PRODUCTS}"),
        (len(cidrs) <= MAX_CIDRS, "/cidrs", "too_long", f"at most {MAX_CIDRS}"),
        (all(r is None or 1 <= r <= MAX_RATE_PER_S for r in rates), "/writes_per_s", "out_of_range", "1 to 100000"),
    )
    errors = [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]
    errors += [
        FieldError(f"/secrets/{name}", "format", "8–512 printable ASCII characters without spaces")
        for name, value in secrets.items()
        if not _VALUE.fullmatch(value)
    ]
    for number, sold in list(products.items())[:MAX_PRODUCTS]:
        if not _NUMBER.fullmatch(number) or not _reads(sold):
            errors.append(FieldError("/products", "format", 'each number → {"sku": …}, and "face_value" where the SKU is sold by face value'))
            break
    return errors


def _reads(sold: Mapping[str, str]) -> bool:
    try:
        read_sold(sold)
    except (KeyError, ValueError, TypeError):
        return False
    return set(sold) <= {"sku", "face_value"} and _SKU.fullmatch(sold["sku"]) is not None


def read_sold(stored: Mapping[str, str]) -> Sold:
    """An entry of the product map as stored. Raises KeyError, ValueError."""
    face_value = stored.get("face_value")
    return Sold(stored["sku"], None if face_value is None else parse_amount(face_value))
