"""Juspay's multi-objective step after SR v3: the highest success rate × (margin − cost).

Source: juspay/decision-engine (6fe37d9) `gatewaydecider/multi_objective/algorithm.rs`, `gatewaydecider/flow_new.rs`: argmax of
EV = auth × (margin − cost), the ticket cancels, `margin` 1.0 of the ticket, no band and no gate; the step is skipped while hedging, so a
hedged decision goes to any gateway but the one with the best success rate. Everything else as `juspay_sr.py`.
"""

from benchmarks.routing.policies.juspay_sr import HEDGING, WINDOW, JuspaySR
from kameng_api.suppliers.routing.facts import Ask, Option

# Found by `python -m benchmarks.routing.tune hyperswitch-ev-tuned`.
TUNED_WINDOW = 25
TUNED_HEDGING = 0.0


class JuspayEV(JuspaySR):
    """The merchant pays `price`, the supplier takes `cost`."""

    def __init__(self, window: int = WINDOW, hedging: float = HEDGING) -> None:
        super().__init__(window, hedging)

    def worth(self, ask: Ask, option: Option, score: float) -> float:
        return score * (ask.price - option.cost)


class TunedJuspayEV(JuspayEV):
    """The same with constants searched on the tuning seeds."""

    def __init__(self, window: int = TUNED_WINDOW, hedging: float = TUNED_HEDGING) -> None:
        super().__init__(window, hedging)
