"""What the vendor tells of its products: the list whole or page by page, one line, and which lines have changed."""

from bisect import bisect_right
from typing import Any, Final

from kameng_api.kit.money import format_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import cost_now
from kameng_api.simulator.config import Product

LARGEST_PAGE: Final = 1_000


class Unavailable(Exception):
    """The list breaks off here, as a knob says."""


def line(account: Account, product: Product) -> dict[str, str]:
    """One product as the list has it now."""
    stock = account.stock[product.code]
    return {
        "product_code": product.code,
        "name": product.name,
        "product_type": product.type,
        "cost": format_amount(cost_now(product, account.knobs.of(product.code).price_factor)),
        "currency": account.currency,
        "face_value": product.face_value or "",
        "face_min": product.face_min or "",
        "face_max": product.face_max or "",
        "stock": "" if stock is None else str(stock),
        "on_sale": "1" if product.on_sale else "0",
    }


def whole(account: Account) -> list[dict[str, str]]:
    """All lines, in no order."""
    return [line(account, product) for product in account.products.values()]


def page(account: Account, after: str, limit: int) -> dict[str, Any]:
    """Lines by code, those after the code `after`; `next` is empty at the end. Raises Unavailable."""
    codes, faults = account.codes(), account.knobs.catalogue
    start = bisect_right(codes, after) if after else 0
    if faults.fail_after is not None and start >= faults.fail_after:
        raise Unavailable
    end = len(codes) if faults.truncate_after is None else min(faults.truncate_after, len(codes))
    chosen = codes[start : min(start + min(limit, LARGEST_PAGE), end)]
    more = bool(chosen) and start + len(chosen) < end
    return {"lines": [line(account, account.products[code]) for code in chosen], "next": chosen[-1] if more else ""}
