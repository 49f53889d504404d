""""Not found" is believed the first time, without waiting for the supplier's grace.

Where it bites: `suppliers.rules.not_found_proves_nothing_bought` as `orders.absorb` uses it. Needs a supplier that cannot find young orders,
and answers that get lost.
"""

from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.orders import absorb

RECIPE = Recipe(
    faults=("supplier: not found at first",),
    knobs=({"not_found_for_s": 60, "hang_rate": 0.3}, {"not_found_for_s": 60, "reset_rate": 0.4}),
    expected=frozenset({"I5", "I7", "I14"}),
)


def plant() -> None:
    def at_once(*_: Any) -> bool:
        return True

    absorb.not_found_proves_nothing_bought = at_once
