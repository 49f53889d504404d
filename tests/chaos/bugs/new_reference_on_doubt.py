"""No answer? Ordered again at once, under a new reference, because the supplier refuses a reference that it knows.

Where it bites: the adapter's `place`. Needs suppliers that deliver and do not say so.
"""

from dataclasses import replace

from tests.chaos.bugs import Recipe

from kameng_api.suppliers.adapters.simulator.client import SimulatorSupplier
from kameng_api.suppliers.port import Answer, Purchase, Unknown

RECIPE = Recipe(
    faults=("supplier: delivers and resets", "supplier: delivers and says 500", "supplier: delivers, never answers"),
    expected=frozenset({"I5"}),
)


def plant() -> None:
    place = SimulatorSupplier.place

    async def stubborn(self: SimulatorSupplier, purchase: Purchase) -> Answer:
        answer = await place(self, purchase)
        if isinstance(answer.outcome, Unknown):
            return await place(self, replace(purchase, reference=f"{purchase.reference}R2"))
        return answer

    SimulatorSupplier.place = stubborn  # type: ignore[method-assign]
