"""A timeout, a reset or a 500 counts as a refusal: the channel did not deliver, so another one is asked.

Where it bites: `jobs.orders.Buyer._call`. The supplier may have delivered, or may deliver a minute later. Needs suppliers that deliver
and do not say so.
"""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.jobs.orders import Buyer
from kameng_api.suppliers.port import Answer, RefusalReason, Refused, Scope, Unknown

RECIPE = Recipe(
    faults=("supplier: delivers, never answers", "supplier: delivers and resets", "supplier: delivers and says 500"),
    expected=frozenset({"I5", "I7", "I14"}),
)


def plant() -> None:
    call = Buyer._call

    async def careless(self: Buyer, channel_id: str, beat: str, asking: Awaitable[Answer]) -> Any:
        answer = await call(self, channel_id, beat, asking)
        if isinstance(answer.outcome, Unknown):
            return replace(answer, outcome=Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "no answer"))
        return answer

    Buyer._call = careless  # type: ignore[method-assign]
