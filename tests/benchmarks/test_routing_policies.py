"""Each rival does what its own source says, at the numbers its source gives."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from benchmarks.routing.policies import POLICIES
from benchmarks.routing.policies.discounted_thompson import DiscountedThompson
from benchmarks.routing.policies.envoy import EnvoyOutlier
from benchmarks.routing.policies.epsilon_greedy import EpsilonGreedy
from benchmarks.routing.policies.finagle import FinagleP2C, Node
from benchmarks.routing.policies.hystrix import Hystrix
from benchmarks.routing.policies.juspay_ev import JuspayEV
from benchmarks.routing.policies.juspay_sr import JuspaySR
from benchmarks.routing.policies.litellm import LiteLLM
from benchmarks.routing.policies.resilience4j import Resilience4j
from benchmarks.routing.policies.sliding_ucb import SlidingUCB
from benchmarks.routing.policies.thompson import Thompson
from benchmarks.routing.policies.tuned_breaker import TunedBreaker
from benchmarks.routing.scenarios import stationary

from kameng_api.suppliers.routing.facts import Action, Answered, Ask, Circuit, Decision, Heard, Option, Policy, Sent

PRICE = 1_000_000
COSTS = {"a": 970_000, "b": 976_000, "c": 982_000, "d": 988_000}
OPTIONS = [Option(channel, cost) for channel, cost in COSTS.items()]
ASK = Ask("o", "sku", PRICE)
STATIONARY = stationary(100)
numbers = count()


def choose(policy: Policy, now: float = 0.0, ask: Ask = ASK, options: list[Option] = OPTIONS, seed: int = 7) -> Decision:
    return policy.choose(ask, options, now, seed)


def tell(policy: Policy, channel: str, what: Heard, at: float = 0.0, seconds: float = 1.0, sent: bool = True) -> str:
    """One whole call of `seconds` that ends at `at`."""
    attempt = f"x{next(numbers)}"
    if sent:
        policy.observe(Sent(attempt, channel, "sku", at - seconds))
    policy.observe(Answered(attempt, channel, "sku", at, at - seconds, what))
    return attempt


def repeat(policy: Policy, channel: str, what: Heard, times: int, at: float = 0.0) -> None:
    for _ in range(times):
        tell(policy, channel, what, at)


def channels(policy: Policy, times: int, now: float = 0.0) -> Counter[str | None]:
    return Counter(choose(policy, now, seed=seed).channel for seed in range(times))


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES.keys())
class TestEveryRival:
    def test_it_keeps_to_the_hard_facts(self, make: Callable[[], Policy]) -> None:
        only_d = [
            replace(OPTIONS[0], enabled=False),
            replace(OPTIONS[1], stock=0),
            replace(OPTIONS[2], wallet=500_000, wallet_floor=0),
            OPTIONS[3],
        ]
        policy = make()
        assert {choose(policy, options=only_d, seed=seed).channel for seed in range(50)} == {"d"}
        full = [replace(OPTIONS[0], cap=1), replace(OPTIONS[1], qps=2.0, sent_last_second=2), replace(OPTIONS[2], forced=Circuit.OPEN)]
        policy = make()
        choose(policy, options=full)
        policy.observe(Sent("under way", "a", "sku", 0.0))
        assert choose(policy, 1.0, options=full).action is Action.HOLD
        policy.observe(Answered("under way", "a", "sku", 1.0, 0.0, Heard.NEUTRAL))
        assert choose(policy, 1.0, options=full).channel == "a"

    def test_a_tried_or_forbidden_channel_is_not_asked(self, make: Callable[[], Policy]) -> None:
        policy = make()
        ask = Ask("o", "sku", PRICE, tried={"a": "failed"}, allowed=frozenset("abd"), banned=frozenset("b"))
        assert {choose(policy, ask=ask, seed=seed).channel for seed in range(20)} == {"d"}
        nobody = Ask("o", "sku", PRICE, tried=dict.fromkeys(COSTS, "failed"))
        assert choose(policy, ask=nobody).action is Action.GIVE_UP

    def test_it_runs_through_a_mixed_day(self, make: Callable[[], Policy]) -> None:
        policy = make()
        for number in range(600):
            now = number / 3
            decision = choose(policy, now, seed=number)
            if decision.channel is None:
                assert decision.action is Action.HOLD and decision.until_s is not None and 0 < decision.until_s <= 5
                continue
            what = (Heard.GOOD, Heard.BAD, Heard.TAKEN, Heard.DOUBT, Heard.BUSY, Heard.NEUTRAL, Heard.GOOD)[number % 7]
            attempt = tell(policy, decision.channel, what, now)
            if what in (Heard.TAKEN, Heard.DOUBT):
                policy.observe(Answered(attempt, decision.channel, "sku", now + 60, now - 1, (Heard.GOOD, Heard.BAD)[number % 2]))
            policy.observe(Answered(attempt, decision.channel, "sku", now + 61, now - 1, Heard.REVERSED))

    def test_a_verdict_said_twice_counts_once(self, make: Callable[[], Policy]) -> None:
        once, twice = make(), make()
        for policy in (once, twice):
            channels(policy, 1)
        for number in range(40):
            channel, what = "abcd"[number % 4], (Heard.BAD, Heard.GOOD, Heard.BAD)[number % 3]
            attempt = tell(once, channel, what, 1.0)
            for _ in range(3):
                twice.observe(Sent(attempt, channel, "sku", 0.0))
                twice.observe(Answered(attempt, channel, "sku", 1.0, 0.0, what))
        assert channels(once, 200, 2.0) == channels(twice, 200, 2.0)

    def test_it_goes_on_when_its_memory_was_lost(self, make: Callable[[], Policy]) -> None:
        policy = make()
        tell(policy, "a", Heard.DOUBT, 1.0, sent=False)
        tell(policy, "b", Heard.GOOD, 1.0, sent=False)
        assert choose(policy, 2.0).action is Action.DISPATCH


@pytest.mark.parametrize("name", ["hystrix", "breaker-tuned", "resilience4j", "envoy-outlier", "hyperswitch-ev", "hyperswitch-ev-tuned"])
def test_a_supplier_that_is_only_busy_stays_first(name: str) -> None:
    policy = POLICIES[name](STATIONARY.world)
    choose(policy)
    repeat(policy, "a", Heard.BUSY, 300)
    assert channels(policy, 100)["a"] > 90


class TestPlain:
    def test_static_priority_keeps_the_first_price_order(self) -> None:
        policy = POLICIES["static-priority"]()
        assert choose(policy).channel == "a"
        dearer = [replace(OPTIONS[0], cost=1_100_000), *OPTIONS[1:]]
        repeat(policy, "a", Heard.BAD, 500)
        assert choose(policy, options=dearer).channel == "a"
        assert choose(policy, ask=Ask("o", "sku", PRICE, tried={"a": "failed"})).channel == "b"

    def test_round_robin_gives_everybody_a_turn(self) -> None:
        policy = POLICIES["round-robin"]()
        assert [choose(policy).channel for _ in range(8)] == list("abcdabcd")

    def test_random_is_even(self) -> None:
        counts = channels(POLICIES["random"](), 4000)
        assert all(900 < counts[channel] < 1100 for channel in COSTS)


class TestHystrix:
    @pytest.mark.parametrize(("good", "bad", "opens"), [(0, 19, False), (0, 20, True), (10, 10, True), (11, 10, False), (10, 9, False)])
    def test_twenty_requests_and_half_of_them_bad_open_it(self, good: int, bad: int, opens: bool) -> None:
        policy = Hystrix()
        choose(policy)
        repeat(policy, "a", Heard.GOOD, good)
        repeat(policy, "a", Heard.BAD, bad)
        assert (choose(policy, 0.1).channel != "a") is opens

    def test_ten_seconds_are_its_memory(self) -> None:
        policy = Hystrix()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 19, at=0.0)
        tell(policy, "a", Heard.BAD, at=10.5)
        assert choose(policy, 10.6).channel == "a"

    def test_after_five_seconds_one_call_probes(self) -> None:
        policy = Hystrix()
        choose(policy)
        repeat(policy, "a", Heard.DOUBT, 20)
        assert choose(policy, 5.0).channel == "b"
        assert [choose(policy, 5.1).channel for _ in range(3)] == ["a", "b", "b"]
        tell(policy, "a", Heard.BAD, 6.0)
        assert [choose(policy, 10.9).channel, choose(policy, 11.1).channel, choose(policy, 11.1).channel] == ["b", "a", "b"]
        tell(policy, "a", Heard.GOOD, 12.0)
        repeat(policy, "a", Heard.BAD, 19, at=12.0)
        assert choose(policy, 12.0).channel == "a"

    def test_a_closed_circuit_starts_from_nothing(self) -> None:
        policy = Hystrix()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 20)
        assert choose(policy, 5.1).channel == "a"
        tell(policy, "a", Heard.GOOD, 6.0)
        repeat(policy, "a", Heard.BAD, 19, at=12.0)
        assert choose(policy, 12.0).channel == "a"
        tell(policy, "a", Heard.BAD, 12.0)
        assert choose(policy, 12.0).channel == "b"

    def test_a_probe_that_says_nothing_gives_the_permit_back(self) -> None:
        policy = Hystrix()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 20)
        assert choose(policy, 6.0).channel == "a"
        tell(policy, "a", Heard.NEUTRAL, 6.5)
        assert choose(policy, 6.6).channel == "a"

    def test_an_order_that_finds_everything_open_waits_until_the_first_probe(self) -> None:
        policy = Hystrix()
        choose(policy)
        for channel, at in zip("abcd", (3.0, 2.0, 1.0, 0.0), strict=True):
            repeat(policy, channel, Heard.BAD, 20, at)
        decision = choose(policy, 3.0)
        assert decision.action is Action.HOLD and decision.until_s == pytest.approx(2.0, abs=0.01)
        assert choose(policy, 5.01).channel == "d"

    def test_while_every_probe_is_under_way_it_looks_again_in_two_seconds(self) -> None:
        policy = Hystrix()
        choose(policy, options=OPTIONS[:1])
        repeat(policy, "a", Heard.BAD, 20)
        assert choose(policy, 6.0, options=OPTIONS[:1]).channel == "a"
        assert choose(policy, 6.0, options=OPTIONS[:1]) == Decision(Action.HOLD, "all_open", until_s=2.0)

    def test_the_live_one_follows_the_price_list_and_sells_nothing_at_a_loss(self) -> None:
        policy = POLICIES["breaker-live-price"]()
        assert choose(policy).channel == "a"
        dearer = [replace(OPTIONS[0], cost=980_000), *OPTIONS[1:]]
        assert choose(policy, options=dearer).channel == "b"
        assert choose(policy, options=[replace(option, cost=PRICE + 1) for option in OPTIONS]).action is Action.HOLD
        repeat(policy, "b", Heard.BAD, 20)
        assert choose(policy, options=dearer).channel == "a"

    def test_the_tuned_one_is_the_same_machine_with_other_numbers(self) -> None:
        policy = TunedBreaker(window_s=60.0, volume=4, error_share=0.7, sleep_s=2.0)
        choose(policy)
        repeat(policy, "a", Heard.GOOD, 1)
        repeat(policy, "a", Heard.BAD, 2)
        assert choose(policy, 1.0).channel == "a"
        tell(policy, "a", Heard.BAD)
        assert [choose(policy, 1.0).channel, choose(policy, 2.1).channel] == ["b", "a"]


class TestResilience4j:
    @pytest.mark.parametrize(("good", "bad", "opens"), [(0, 99, False), (0, 100, True), (50, 50, True), (51, 49, False)])
    def test_a_hundred_calls_are_judged(self, good: int, bad: int, opens: bool) -> None:
        policy = Resilience4j()
        choose(policy)
        repeat(policy, "a", Heard.GOOD, good)
        repeat(policy, "a", Heard.BAD, bad)
        assert (choose(policy, 1.0).channel != "a") is opens

    def test_only_the_last_hundred_count(self) -> None:
        policy = Resilience4j()
        choose(policy)
        repeat(policy, "a", Heard.GOOD, 100)
        repeat(policy, "a", Heard.BAD, 49)
        assert choose(policy).channel == "a"
        tell(policy, "a", Heard.BAD)
        assert choose(policy).channel == "b"

    def test_a_hundred_slow_calls_open_it_too(self) -> None:
        policy = Resilience4j()
        choose(policy)
        for _ in range(100):
            tell(policy, "a", Heard.GOOD, 100.0, seconds=61.0)
        assert choose(policy, 100.0).channel == "b"

    def open_and_wait(self) -> Resilience4j:
        policy = Resilience4j()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 100)
        assert choose(policy, 60.0).channel == "b"
        return policy

    def test_after_a_minute_ten_calls_are_permitted(self) -> None:
        policy = self.open_and_wait()
        assert [choose(policy, 60.1).channel for _ in range(12)] == ["a"] * 10 + ["b"] * 2
        repeat(policy, "a", Heard.BAD, 4, at=61.0)
        repeat(policy, "a", Heard.GOOD, 5, at=61.0)
        assert choose(policy, 61.0).channel == "b", "it waits for the tenth"
        tell(policy, "a", Heard.GOOD, 61.0)
        assert choose(policy, 61.0).channel == "a"

    def test_half_of_the_ten_bad_opens_it_again(self) -> None:
        policy = self.open_and_wait()
        choose(policy, 60.1)
        repeat(policy, "a", Heard.GOOD, 5, at=61.0)
        repeat(policy, "a", Heard.BAD, 5, at=61.0)
        assert [choose(policy, 120.9).channel, choose(policy, 121.1).channel] == ["b", "a"]


class TestEnvoy:
    def test_five_in_a_row_eject(self) -> None:
        policy = EnvoyOutlier()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 4)
        tell(policy, "a", Heard.GOOD)
        repeat(policy, "a", Heard.BAD, 4)
        assert choose(policy).channel == "a"
        tell(policy, "a", Heard.DOUBT)
        assert choose(policy).channel == "b"

    def test_an_ejection_ends_at_a_sweep_and_the_next_one_is_longer(self) -> None:
        policy = EnvoyOutlier()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 5, at=1.0)
        assert [choose(policy, now).channel for now in (31.5, 39.9, 40.0)] == ["b", "b", "a"]
        repeat(policy, "a", Heard.BAD, 5, at=41.0)
        assert [choose(policy, now).channel for now in (71.0, 101.5, 109.9, 110.0)] == ["b", "b", "b", "a"]

    def test_healthy_sweeps_shorten_the_next_ejection(self) -> None:
        policy = EnvoyOutlier()
        choose(policy)
        repeat(policy, "a", Heard.BAD, 5, at=1.0)
        assert choose(policy, 50.0).channel == "a"
        repeat(policy, "a", Heard.BAD, 5, at=51.0)
        assert [choose(policy, now).channel for now in (89.9, 90.0)] == ["b", "a"], "30 s again, not 60"

    def test_no_more_than_half_are_ejected(self) -> None:
        policy = EnvoyOutlier()
        choose(policy)
        for channel in "abcd":
            repeat(policy, channel, Heard.BAD, 5)
        assert [choose(policy).channel, sum(host.ejected_at is not None for host in policy.hosts.values())] == ["c", 2]

    def test_the_success_rate_outlier_needs_five_hosts_with_a_hundred_requests(self) -> None:
        policy = EnvoyOutlier()
        options = [Option(channel, 970_000 + number) for number, channel in enumerate("abcde")]
        choose(policy, options=options)
        for channel in "abcde":
            for number in range(100):
                tell(policy, channel, Heard.BAD if channel == "a" and number % 2 else Heard.GOOD, 5.0)
        assert choose(policy, 9.0, options=options).channel == "a"
        assert choose(policy, 10.0, options=options).channel == "b"


class TestFinagle:
    def test_the_peak_ewma_jumps_up_and_falls_slowly(self) -> None:
        node = Node(0.0)
        node.take(1.0, 0.0)
        node.take(8.0, 1.0)
        assert node.cost == 8.0
        node.take(1.0, 11.0)
        assert node.cost == pytest.approx(8.0 / 2.71828 + 1.0 * (1 - 1 / 2.71828), rel=1e-4)

    def test_a_host_without_history_is_penalised_once_it_has_a_call(self) -> None:
        node = Node(0.0)
        assert node.load(0, 1.0) == 0.0
        assert node.load(1, 1.0) > 1e9

    def test_the_less_loaded_of_two_wins(self) -> None:
        policy = FinagleP2C()
        for channel, seconds in zip("abcd", (9.0, 1.0, 2.0, 3.0), strict=True):
            tell(policy, channel, Heard.GOOD, 0.0, seconds)
        counts = channels(policy, 600)
        assert counts["a"] == 0 and counts["b"] > counts["c"] > counts["d"] > 0

    def test_five_failures_in_a_row_mark_it_dead_and_each_death_is_longer(self) -> None:
        policy = FinagleP2C()
        only_a = OPTIONS[:1]
        choose(policy, options=only_a)
        repeat(policy, "a", Heard.BAD, 4)
        assert choose(policy, 0.0, options=only_a).channel == "a"
        tell(policy, "a", Heard.BAD)
        assert [choose(policy, now, options=only_a).channel for now in (4.9, 5.0, 5.1)] == [None, "a", None]
        tell(policy, "a", Heard.BAD, 6.0)
        node = policy.nodes["a"]
        assert node.dead_until is not None and 11.0 <= node.dead_until <= 16.0
        assert choose(policy, node.dead_until, options=only_a).channel == "a"
        tell(policy, "a", Heard.GOOD, 20.0)
        assert choose(policy, 20.0, options=only_a).channel == "a"
        assert (policy.nodes["a"].deaths, policy.nodes["a"].failures) == (0, 0)

    def test_a_poor_success_rate_marks_it_dead_after_thirty_seconds(self) -> None:
        policy = FinagleP2C()
        choose(policy, options=OPTIONS[:1])
        for second in range(0, 40):
            tell(policy, "a", Heard.BAD if second % 2 else Heard.GOOD, float(second))
            if second < 30:
                assert policy.nodes["a"].dead_until is None
        assert policy.nodes["a"].dead_until is not None


class TestLiteLLM:
    def test_a_full_list_keeps_the_nine_oldest(self) -> None:
        policy = LiteLLM()
        for seconds in range(1, 13):
            tell(policy, "a", Heard.GOOD, 100.0, float(seconds))
        assert policy.deployments["a"].latencies == [1, 2, 3, 4, 5, 6, 7, 8, 9, 12]

    def test_a_timeout_counts_a_thousand_seconds_and_no_history_is_best(self) -> None:
        policy = LiteLLM()
        for channel, seconds in zip("abc", (2.0, 1.0, 3.0), strict=True):
            tell(policy, channel, Heard.GOOD, 0.0, seconds)
        assert channels(policy, 20) == {"d": 20}
        tell(policy, "d", Heard.GOOD, 0.0, 5.0)
        assert channels(policy, 20) == {"b": 20}
        tell(policy, "b", Heard.DOUBT, 0.0, 30.0)
        assert channels(policy, 20) == {"a": 20}

    def test_most_of_a_minute_failed_means_five_seconds_of_cooling(self) -> None:
        policy = LiteLLM()
        for channel, seconds in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True):
            tell(policy, channel, Heard.GOOD, 30.0, seconds)
        tell(policy, "a", Heard.BAD, 40.0)
        assert choose(policy, 40.0).channel == "a", "half is not most"
        tell(policy, "a", Heard.BAD, 40.0)
        assert [choose(policy, 44.9).channel, choose(policy, 45.0).channel] == ["b", "a"]
        tell(policy, "a", Heard.BAD, 61.0)
        assert choose(policy, 61.0).channel == "a", "the first result of a new minute does not cool"
        tell(policy, "b", Heard.BUSY, 61.0)
        assert policy.deployments["b"].cool_until == 66.0


class TestJuspay:
    def test_the_window_starts_full_of_successes(self) -> None:
        policy = JuspaySR()
        tell(policy, "a", Heard.BAD)
        assert policy.gateways["a"].score() == pytest.approx(124 / 125)
        repeat(policy, "a", Heard.GOOD, 125)
        assert policy.gateways["a"].score() == 1.0

    @pytest.mark.parametrize(("failures", "eliminated"), [(58, False), (59, True)])
    def test_fifty_nine_failures_in_a_row_eliminate(self, failures: int, eliminated: bool) -> None:
        policy = JuspaySR()
        repeat(policy, "a", Heard.BAD, failures)
        rate = (125 - failures) / 125
        assert policy.gateways["a"].score() == pytest.approx(rate / 5 if eliminated else rate)
        tell(policy, "a", Heard.GOOD)
        assert policy.gateways["a"].score() > 0.4, "one success brings it back over the threshold"

    def test_five_of_a_hundred_decisions_go_to_anyone_but_the_leader(self) -> None:
        policy = JuspaySR()
        for channel in "abc":
            tell(policy, channel, Heard.BAD)
        counts = channels(policy, 6000)
        assert 0.04 < 1 - counts["d"] / 6000 < 0.06 and min(counts.values()) > 60

    def test_the_money_decides_outside_of_hedging(self) -> None:
        policy = JuspayEV(hedging=0.0)
        assert channels(policy, 20) == {"a": 20}
        repeat(policy, "a", Heard.BAD, 26)  # 0.792 × 3.0 < 1.0 × 2.4
        assert channels(policy, 20) == {"b": 20}
        dearer = [replace(option, cost=1_010_000) if option.channel == "b" else option for option in OPTIONS]
        assert choose(policy, options=dearer).channel == "a"

    def test_what_comes_after_a_timeout_is_a_second_feedback(self) -> None:
        policy = JuspaySR()
        attempt = tell(policy, "a", Heard.DOUBT, 30.0)
        policy.observe(Answered(attempt, "a", "sku", 90.0, 0.0, Heard.GOOD))
        policy.observe(Answered(attempt, "a", "sku", 91.0, 0.0, Heard.GOOD))
        assert list(policy.gateways["a"].results)[-3:] == [1, 0, 1]


class TestBandits:
    @pytest.mark.parametrize("make", [Thompson, DiscountedThompson, EpsilonGreedy, SlidingUCB])
    def test_they_follow_the_money(self, make: Callable[[], Policy]) -> None:
        policy = make()
        for number in range(200):
            for channel in "abcd":
                tell(policy, channel, Heard.BAD if channel == "a" and number % 2 else Heard.GOOD, number / 10)
        counts = channels(policy, 200, 20.0)
        assert counts["b"] > 160, counts
        dearer = [replace(option, cost=1_010_000) if option.channel == "b" else option for option in OPTIONS]
        assert choose(policy, 20.0, options=dearer).channel in ("a", "c")

    @pytest.mark.parametrize("make", [Thompson, DiscountedThompson, lambda: EpsilonGreedy(0.0), SlidingUCB])
    def test_they_would_rather_wait_than_lose_more_than_an_undelivered_order(self, make: Callable[[], Policy]) -> None:
        policy = make()
        repeat(policy, "a", Heard.GOOD, 50)
        assert choose(policy, options=[Option("a", 1_050_000)]).action is Action.HOLD
        assert choose(policy, options=[Option("a", 1_001_000)]).channel == "a"

    def test_a_timeout_is_taken_back_when_the_truth_comes(self) -> None:
        for policy, arm in ((Thompson(), "arms"), (SlidingUCB(), "arms")):
            attempt = tell(policy, "a", Heard.DOUBT, 30.0, 30.0)
            policy.observe(Answered(attempt, "a", "sku", 60.0, 0.0, Heard.GOOD))
            kept = getattr(policy, arm)["a"]
            assert (kept.good, kept.seconds) == (1, 60.0)
            assert getattr(kept, "bad", 0) == 0

    def test_thompson_never_forgets_and_the_discounted_one_does(self) -> None:
        for policy, back in ((Thompson(), False), (DiscountedThompson(half_life=60.0), True)):
            repeat(policy, "a", Heard.BAD, 200, at=0.0)
            for channel in "bcd":
                repeat(policy, channel, Heard.GOOD, 200, at=900.0)
            assert (channels(policy, 100, 900.0)["a"] > 20) is back

    def test_rounds_forget_as_results_come_in(self) -> None:
        policy = DiscountedThompson(half_life=10.0, in_rounds=True)
        tell(policy, "a", Heard.BAD)
        tell(policy, "a", Heard.GOOD)
        repeat(policy, "b", Heard.GOOD, 10, at=5000.0)
        arm = policy.arm("a", 9000.0)
        assert arm.bad == pytest.approx(0.5**1.1)
        assert arm.good == pytest.approx(0.5)

    def test_epsilon_of_the_decisions_are_uniform(self) -> None:
        policy = EpsilonGreedy(epsilon=0.2)
        counts = channels(policy, 4000)
        assert 0.12 < 1 - counts["a"] / 4000 < 0.18  # 0.2 × 3/4

    def test_the_window_forgets_play_by_play(self) -> None:
        policy = SlidingUCB(window=10)
        repeat(policy, "a", Heard.BAD, 10)
        assert policy.arms["a"].plays == 10
        repeat(policy, "b", Heard.GOOD, 9)
        assert (policy.arms["a"].plays, policy.arms["b"].good) == (1, 9)

    def test_ignorance_is_worth_more_with_a_greater_xi(self) -> None:
        bold, shy = SlidingUCB(xi=2.0), SlidingUCB(xi=0.001)
        for policy in (bold, shy):
            tell(policy, "a", Heard.GOOD)
            tell(policy, "a", Heard.BAD)
            for channel in "bcd":
                repeat(policy, channel, Heard.GOOD, 50)
        assert [choose(bold).channel, choose(shy).channel] == ["a", "b"]
