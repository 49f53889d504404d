"""What a good engineer writes in a day: the tuned breaker, but in the order of today's prices and never at a loss.

Source: none; Hystrix's machine (`hystrix.py`) over the current quotes. It is here so that ours is not praised for reading a price list.
"""

from benchmarks.routing.policies.hystrix import Hystrix
from kameng_api.suppliers.routing.facts import Ask, Option

# Found by `python -m benchmarks.routing.tune breaker-live-price`; the window as in `tuned_breaker.py` (10 s: better by 0.1).
WINDOW_S = 30.0
VOLUME = 3
ERROR_SHARE = 0.7
SLEEP_S = 30.0


class LivePriceBreaker(Hystrix):
    """The cheapest now whose circuit lets it through; an order that only a loss could fill waits for better prices."""

    def __init__(self, window_s: float = WINDOW_S, volume: int = VOLUME, error_share: float = ERROR_SHARE, sleep_s: float = SLEEP_S) -> None:
        super().__init__(window_s, volume, error_share, sleep_s)

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        for option in sorted(usable, key=_cost):
            if option.cost <= ask.price and self.lets_through(option.channel, now):
                return option.channel
        return None


def _cost(option: Option) -> int:
    return option.cost
