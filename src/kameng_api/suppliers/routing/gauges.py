"""What is known of the channels, as figures for a graph. Pure: the worker serves them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Final

from kameng_api.suppliers.routing.facts import Circuit, Option, Reading
from kameng_api.suppliers.routing.health import Health


@dataclass(frozen=True, slots=True)
class Family:
    """One gauge: its name is contract with dashboards; docs/operations.md explains each."""

    name: str
    help: str
    labels: tuple[str, ...] = ("channel",)


SUCCESS: Final = Family("kameng_channel_success", "Chance that an attempt there delivers, as the router sees it")
EVIDENCE: Final = Family("kameng_channel_evidence_nats", "Evidence that the channel is dead; it opens at 5 to 13, by its traffic")
LATE: Final = Family("kameng_channel_late_answers", "Answers that should have come and have not, within that evidence")
LATENCY: Final = Family("kameng_channel_latency_seconds", "Time to a verdict, as expected now", ("channel", "quantile"))
IN_FLIGHT: Final = Family("kameng_channel_in_flight", "Attempts without any answer")
LIMIT: Final = Family("kameng_channel_limit", "How many may be under way: the contract's, else inferred; absent: no limit known")
CIRCUIT: Final = Family("kameng_channel_circuit_open", "1 while the circuit of the whole channel is open")
OPEN_SKUS: Final = Family("kameng_channel_open_skus", "SKUs whose own circuit on this channel is open")
ROUTE_WALLET: Final = Family("kameng_channel_wallet", "Our balance there less what is under way, in currency units; absent: not known")

FAMILIES: Final = (SUCCESS, EVIDENCE, LATE, LATENCY, IN_FLIGHT, LIMIT, CIRCUIT, OPEN_SKUS, ROUTE_WALLET)

_ANY_SKU: Final = ""
"""No SKU is called so: its reading is the channel's own."""
_SCALE: Final = 10_000
_Z95: Final = 1.645

Sample = tuple[tuple[str, ...], float]


def sample(health: Health, options: Mapping[str, Sequence[Option]], now: float) -> dict[Family, list[Sample]]:
    """Every figure of every channel. `options`: SKU → what can be asked for it, as the router is given it; call `health.tend` first."""
    samples: dict[Family, list[Sample]] = {family: [] for family in FAMILIES}
    for channel, (option, skus) in sorted(_by_channel(options).items()):
        reading = health.reading(channel, _ANY_SKU, now)
        open_skus = sum(1 for sku in skus if _has_own_open_circuit(health.reading(channel, sku, now)))
        for family, labels, value in _figures(option, reading):
            samples[family].append(((channel, *labels), value))
        samples[OPEN_SKUS].append(((channel,), float(open_skus)))
    return samples


def _by_channel(options: Mapping[str, Sequence[Option]]) -> dict[str, tuple[Option, list[str]]]:
    found: dict[str, tuple[Option, list[str]]] = {}
    for sku, each in options.items():
        for option in each:
            found.setdefault(option.channel, (option, []))[1].append(sku)
    return found


def _has_own_open_circuit(reading: Reading) -> bool:
    return reading.circuit is Circuit.OPEN and reading.of_sku


def _figures(option: Option, reading: Reading) -> Iterator[tuple[Family, tuple[str, ...], float]]:
    yield SUCCESS, (), reading.p
    yield EVIDENCE, (), reading.nats
    yield LATE, (), float(reading.silent)
    median_s = _median_s(reading.latency_s, reading.late_s)
    yield LATENCY, ("0.5",), median_s
    yield LATENCY, ("0.95",), max(reading.late_s, median_s)
    yield IN_FLIGHT, (), float(reading.in_flight)
    limits = [float(limit) for limit in (option.cap, reading.limit) if limit is not None]
    if limits:
        yield LIMIT, (), min(limits)
    yield CIRCUIT, (), float(reading.circuit is Circuit.OPEN)
    if option.wallet is not None:
        yield ROUTE_WALLET, (), option.wallet / _SCALE


def _median_s(mean_s: float, late_s: float) -> float:
    """Of the log-normal law with this mean and this 95th percentile; the mean where there is no such law.

    ln late = mu + 1.645 sigma and ln mean = mu + sigma^2 / 2: the smaller root for sigma, whose mean lies below the 95th percentile.
    """
    if mean_s <= 0 or late_s <= mean_s:
        return mean_s
    spread = _Z95 * _Z95 - 2.0 * log(late_s / mean_s)
    if spread < 0:
        return mean_s
    sigma = _Z95 - sqrt(spread)
    return mean_s * exp(-sigma * sigma / 2)
