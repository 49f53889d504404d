"""What is settled is settled: a success that comes after the refusal is dropped without a trace.

Where it bites: `orders.absorb._deliver_too_late`. We paid, the merchant did not, and nobody will ever know. Needs suppliers that say no and
deliver all the same.
"""

from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.orders import absorb

RECIPE = Recipe(
    faults=("supplier: says failed, then delivers",),
    knobs=({"contradiction_rate": 0.2, "contradiction_kind": "failed_then_success"},),
    expected=frozenset({"I5"}),
)


def plant() -> None:
    def forget(*_: Any) -> None:
        return None

    absorb._deliver_too_late = forget
