"""Every number and every switch of the router in one value, so that a decision can name the version it was made with."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the router weighs evidence. The switches exist for the ablation; each part that is on has shown its worth there."""

    version: str = "1"

    circuits: bool = True
    """Channels whose evidence says dead are closed out and probed."""
    silence: bool = True
    """An answer that should have come and has not is evidence."""
    sku_level: bool = True
    """Health per channel × SKU beside that of the channel."""
    look_ahead: bool = True
    """A failure is worth what the next channel is worth, not an undelivered order."""
    hold: bool = True
    """An order may wait for a channel instead of burning an attempt."""
    limits: bool = True
    """How many a channel can take is inferred from its refusals."""

    window: int = 256
    """Attempts per channel that are evidence."""
    sku_window: int = 64
    p_dead: float = 0.10
    """What a dead channel still delivers."""
    h_min: float = 5.0
    h_max: float = 13.0
    """Evidence that opens a circuit, in nats: ln(attempts a day) between these; about one false trip a day at any volume."""

    breadth: float = 0.35
    """A channel is condemned only if so much of the evidence is left without its worst SKU."""

    p_prior: float = 0.95
    ref_prior: float = 8.0
    """What is believed of a channel before it is known, and how many attempts that belief is worth."""
    ref_memory: float = 400.0
    half_life_s: float = 300.0
    sku_half_life_s: float = 900.0
    prior: float = 6.0
    sku_prior: float = 15.0

    own_delay_s: float = 2.0
    """A verdict may lie so long with us before it is recorded: what is missing for less says nothing, however quick the supplier is."""
    latencies: int = 20
    """Verdicts that must be known before silence says anything."""

    probe_share: float = 0.08
    """Probes may cost this share of what an open circuit loses if the channel is well."""
    probe_min_s: float = 5.0
    probe_max_s: float = 300.0
    probe_again_s: float = 1.0
    """After a success the next probe comes so soon."""
    probes_out: int = 6
    """Probes without an answer, not yet overdue, that may be under way."""
    cheap_s: float = 15.0
    """Where a failure costs less time than this, one success closes the circuit; else two in a row."""

    limit_growth: float = 0.25
    """What a success adds to the inferred limit a minute after the last refusal; with the square of the time."""

    hold_s: float = 5.0
    yield_age_s: float = 30.0
    """A guessed limit yields to an order that has waited so long."""
    busy_s: float = 10.0
    """After a refusal for load, silence is no evidence for so long."""


DEFAULT: Final = Tuning()
