"""The rivals by name: what `python -m benchmarks.routing` runs beside ours.

Each factory gives a fresh `Policy`; it may be handed the `World`, as every policy factory is, and needs nothing of it: a rival learns the
channels from the options it is shown. A stranger adds a line here.
"""

from collections.abc import Callable

from benchmarks.routing.policies.discounted_thompson import DiscountedThompson
from benchmarks.routing.policies.envoy import EnvoyOutlier
from benchmarks.routing.policies.epsilon_greedy import EpsilonGreedy
from benchmarks.routing.policies.finagle import FinagleP2C
from benchmarks.routing.policies.hystrix import Hystrix
from benchmarks.routing.policies.juspay_ev import JuspayEV, TunedJuspayEV
from benchmarks.routing.policies.juspay_sr import JuspaySR
from benchmarks.routing.policies.litellm import LiteLLM
from benchmarks.routing.policies.live_breaker import LivePriceBreaker
from benchmarks.routing.policies.resilience4j import Resilience4j
from benchmarks.routing.policies.round_robin import RoundRobin
from benchmarks.routing.policies.sliding_ucb import SlidingUCB
from benchmarks.routing.policies.static_priority import StaticPriority
from benchmarks.routing.policies.thompson import Thompson
from benchmarks.routing.policies.tuned_breaker import TunedBreaker
from benchmarks.routing.policies.uniform import Uniform
from benchmarks.routing.world import World
from kameng_api.suppliers.routing.facts import Policy


def _fresh(kind: Callable[[], Policy]) -> Callable[..., Policy]:
    def make(world: World | None = None) -> Policy:
        return kind()

    return make


RIVALS: dict[str, Callable[[], Policy]] = {
    "breaker-tuned": TunedBreaker,
    "breaker-live-price": LivePriceBreaker,
    "hystrix": Hystrix,
    "resilience4j": Resilience4j,
    "envoy-outlier": EnvoyOutlier,
    "disc-thompson": DiscountedThompson,
    "thompson": Thompson,
    "sw-ucb": SlidingUCB,
    "eps-greedy": EpsilonGreedy,
    "hyperswitch-ev-tuned": TunedJuspayEV,
    "hyperswitch-ev": JuspayEV,
    "hyperswitch-sr": JuspaySR,
    "litellm-latency": LiteLLM,
    "finagle-p2c": FinagleP2C,
    "static-priority": StaticPriority,
    "round-robin": RoundRobin,
    "random": Uniform,
}

POLICIES: dict[str, Callable[..., Policy]] = {name: _fresh(kind) for name, kind in RIVALS.items()}
