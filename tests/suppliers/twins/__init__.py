"""Suppliers of the real world as processes of ours: each module here speaks one vendor's protocol, written from its document alone.

Underneath is the simulator's engine with its durable delivery log, wallet and faults; `TWIN` of each module says which goods it sells and how
the adapter of the same name connects to it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Face

DEFAULT_TARGET = "10000000000"
_OURS = ("__main__", "conftest", "world")


@dataclass(frozen=True, slots=True)
class Goods:
    """The codes under which the twin sells one of each kind, None where the vendor sells none.

    `topup` and `card` cost `cost` a unit and have no limit of stock; `ranged` is a top-up of any face value.
    """

    topup: str | None = None
    card: str | None = None
    ranged: str | None = None


@dataclass(frozen=True, slots=True)
class Twin:
    """One vendor. `settings(base_url, app_key, secret)` are the adapter's; the account's key and secret are as the vendor gives them."""

    name: str
    face: Face = field(repr=False)
    settings: Callable[[str, str, str], Mapping[str, Any]]
    products: tuple[Product, ...]
    goods: Goods
    app_key: str = "10001"
    secret: str = field(default="0123456789abcdef0123456789abcdef", repr=False)
    currency: str = "CNY"
    most_units: int = 10
    """How many units of `goods` one order may ask for."""
    max_cost: int = 100_0000
    """For one unit of the top-up or card, 1/10000."""
    target: str = DEFAULT_TARGET
    """An ordinary one; the magic ones differ from it in their last digits."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """What every purchase of it must say beside the target."""
    dashboard: str = ""
    """The path of the twin at which a human sets where all callbacks go, as {client_id, client_secret, webhook_url}; empty: orders carry it."""
    in_chaos: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the adapter for runs of chaos, where only cards are goods and all money is yuan."""
    codes: str = "{n}"
    """How the vendor writes a product of a fixed value; `{n}` a number, `{cost}` what it costs, in two decimals."""
    ranged_codes: str | None = None
    """The same with any face value; None where such a one cannot be named, or not for accounts."""
    takes_accounts: bool = True
    """Whether a target may be something else than a mobile number."""
    cards_have_pins: bool = True
    """Whether it tells the second text of a card."""
    reversed_is_failed: bool = False
    """The vendor has one word for what was delivered and taken back, and for what was never delivered."""
    traps: Mapping[str, str] = field(default_factory=dict)
    """Generic traps that the vendor's protocol cannot set, and why: `test_traps.py`."""


def names() -> list[str]:
    """All twins, by name in order."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name for name in found if name not in _OURS and not name.startswith(("test_", "_")))


@cache
def get(name: str) -> Twin:
    """Raises ModuleNotFoundError."""
    twin: Twin = importlib.import_module(f"{__name__}.{name}").TWIN
    assert twin.name == name
    return twin
