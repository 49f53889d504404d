"""The words of routing (路由): what is asked for, what could be asked, what was heard of it, and what was decided.

Amounts are integers in 1/10000 of the currency unit; times are seconds on one clock, as floats; expected values are floats in 1/10000 units.
`choose` is a function of these values alone, so that the simulation, the tests and production run the same code and a stored
decision can be made again bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol


class Heard(StrEnum):
    """What an answer says about the channel's health; the table of answer classes says which supplier answer is which."""

    GOOD = "good"  # delivered
    BAD = "bad"  # a definite failure that is the channel's
    DOUBT = "doubt"  # no verdict: counts as bad now, and is taken back when it resolves to a success
    TAKEN = "taken"  # accepted: the verdict comes later, evidence is pending
    BUSY = "busy"  # the supplier's documented limit refused it
    NEUTRAL = "neutral"  # says nothing about health: wrong number, our own limiter, a gate that closed (stock, wallet, price)
    REVERSED = "reversed"  # a success that was taken back


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt is on its way. `at`: when its row was written."""

    attempt: str
    channel: str
    sku: str
    at: float
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """Something was heard about an attempt; it may be said twice, late, or in another order than it happened."""

    attempt: str
    channel: str
    sku: str
    at: float
    sent_at: float
    what: Heard


Event = Sent | Answered


@dataclass(frozen=True, slots=True)
class Weights:
    """What things cost that no invoice shows, as millionths of the order's price."""

    undelivered: int = 30_000
    failed_attempt: int = 1_000
    second: int = 100


@dataclass(frozen=True, slots=True)
class Ask:
    """The units of one order that are still to be bought, seen from the router. `price` is what the merchant pays for them."""

    order: str
    sku: str
    price: int
    units: int = 1
    age_s: float = 0.0
    left_s: float = 900.0
    attempts: int = 0
    tried: Mapping[str, str] = field(default_factory=dict)
    """channel → what became of the attempt there; such a channel is not asked again for this order."""
    weights: Weights = Weights()
    premium: bool = False
    """Never used as a probe."""
    allow_loss: bool = False
    allowed: frozenset[str] | None = None
    banned: frozenset[str] = frozenset()
    pins: tuple[str, ...] = ()
    pin_hard: bool = False
    region: str | None = None
    carrier: str | None = None
    face_value: int | None = None
    qualifications: frozenset[str] = frozenset()


class Code(StrEnum):
    """Why a channel was not asked; in the order in which they are looked at, the first hit is the code."""

    NOT_MAPPED = "NOT_MAPPED"  # no channel sells this product
    DISABLED = "DISABLED"  # channel or offer switched off
    MERCHANT_BLACKLIST = "MERCHANT_BLACKLIST"  # not for this merchant
    PIN = "PIN"  # the order is pinned to other channels
    REGION = "REGION"
    CARRIER = "CARRIER"
    FACE_VALUE = "FACE_VALUE"
    QUALIFICATION = "QUALIFICATION"  # a licence or invoice the order asks for
    MAINTENANCE = "MAINTENANCE"  # inside its window, or its answer would come inside
    QUOTE_STALE = "QUOTE_STALE"  # its price is too old to be believed
    LOSS = "LOSS"  # it costs more than the merchant pays
    STOCK = "STOCK"
    BALANCE = "BALANCE"  # our prepaid wallet there would fall below its floor
    NO_QUERY = "NO_QUERY"  # too much money for a supplier that cannot be asked afterwards
    PAPERS = "PAPERS"  # a document without which it may not be used has ended (资质过期)
    TRIED = "TRIED"  # already failed for this order
    FORCED_OPEN = "FORCED_OPEN"  # a person closed it out
    CIRCUIT_OPEN = "CIRCUIT_OPEN"  # the evidence says that it is dead, and trying it is worth less than not
    FULL = "FULL"  # as many under way as it can take


PASSING: Final = frozenset(
    {Code.MAINTENANCE, Code.QUOTE_STALE, Code.BALANCE, Code.FORCED_OPEN, Code.CIRCUIT_OPEN, Code.FULL}
)
"""Codes that may go away while an order waits; the others stay for as long as the order lives, or (stock) as far as a merchant would wait."""


class Reason(StrEnum):
    """Why a decision is what it is."""

    BEST_VALUE = "BEST_VALUE"  # the most money of several
    ONLY_ELIGIBLE = "ONLY_ELIGIBLE"
    FAILOVER = "FAILOVER"  # the best of what is left after a definite failure
    PIN = "PIN"
    PROBE = "PROBE"  # an open circuit is asked whether it may close
    HELD = "HELD"  # every channel that could deliver is open, full or shut for now
    DEADLINE = "DEADLINE"  # no time is left
    NO_CHANNEL = "NO_CHANNEL"  # nothing that waiting could change


class Circuit(StrEnum):
    CLOSED = "closed"  # asked like any other
    OPEN = "open"  # asked by probes only


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a channel for one SKU at one moment, with all that `choose` needs to know of the past."""

    p: float = 0.95
    """Chance that an attempt delivers."""
    n: float = 0.0
    """How many answers, by weight, that rests on."""
    latency_s: float = 5.0
    """Expected seconds from sending to a verdict."""
    late_s: float = 30.0
    """95 of 100 verdicts come within this."""
    doubt: float = 0.0
    """Share of attempts that end without a verdict."""
    freeze_s: float = 300.0
    """How long such a doubt lasts."""
    circuit: Circuit = Circuit.CLOSED
    of_sku: bool = False
    """The open circuit is that of channel × SKU."""
    nats: float = 0.0
    """Evidence that the channel is dead, in nats."""
    failures: int = 0
    silent: int = 0
    opened_at: float | None = None
    probe_at: float | None = None
    """When the next probe is due; None while closed."""
    in_flight: int = 0
    limit: float | None = None
    """How many may be under way, as inferred; None: no limit known."""
    inferred: bool = True
    """The limit is a guess and yields to an order that has waited; a proven one does not."""
    p_healthy: float = 0.95
    """What `p` was before the suspicion, and would be again."""
    latency_healthy_s: float = 5.0
    probed_at: float | None = None
    """When the last probe was sent, or the circuit opened; None while closed."""
    probes: int = 0
    """Probes sent since it opened."""
    probing: int = 0
    """Probes under way and not overdue."""
    wins: int = 0
    """Successes in a row since the suspicion; the next probe then need not wait."""
    demand: float = 0.0
    """Orders a second that would come here if it were healthy."""


@dataclass(frozen=True, slots=True)
class Option:
    """A channel that is mapped to the SKU, as it stands now. `cost` is for all units asked for; None where a fact is not known."""

    channel: str
    cost: int
    product_code: str = ""
    enabled: bool = True
    stock: int | None = None
    wallet: int | None = None
    wallet_floor: int = 0
    quote_age_s: float | None = None
    quote_ttl_s: float | None = None
    maintenance_in_s: float | None = None
    """Seconds until its maintenance window begins; 0 or less inside the window; None: no window near."""
    queryable: bool = True
    value_limit: int | None = None
    """The largest cost that may be sent to a channel that cannot be asked afterwards."""
    regions: frozenset[str] | None = None
    carriers: frozenset[str] | None = None
    face_values: tuple[int, int] | None = None
    qualifications: frozenset[str] = frozenset()
    forced: Circuit | None = None
    weight: float = 1.0
    """The operator's factor on its value."""
    bonus: int = 0
    """What a delivery is worth besides its margin while a volume commitment lags, 1/10000 units."""
    cap: int | None = None
    """Contract: how many may be under way."""
    sent_last_second: int = 0
    qps: float | None = None
    """Contract: how many may be sent in a second."""
    shut: Code | None = None
    """What it refused an order for a moment ago, as the code of the same fact: it would refuse again (`answers.GATES`); or PAPERS."""
    reading: Reading = Reading()


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """What a channel is known to do before anything is heard from it."""

    callback_batch_s: float = 0.0
    """Its verdicts come in batches so many seconds apart (declared by the adapter); 0: each by itself."""
    latency_s: float = 5.0
    """Seconds to a verdict, until learnt."""


@dataclass(frozen=True, slots=True)
class Change:
    """A circuit that opened or closed; `sku` None: that of the whole channel."""

    channel: str
    sku: str | None
    circuit: Circuit
    at: float
    nats: float
    failures: int
    silent: int


class Action(StrEnum):
    DISPATCH = "dispatch"
    PROBE = "probe"  # a dispatch that also asks whether an open circuit may close
    HOLD = "hold"  # come back later: better than burning an attempt
    GIVE_UP = "give_up"  # no channel can change its mind before the deadline


@dataclass(frozen=True, slots=True)
class Seen:
    """What one channel looked like to one decision: the code that closed it out, or its value."""

    channel: str
    code: str = ""
    value: float | None = None
    until: float | None = None
    """When an open circuit is probed next, on the clock of `now`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, why, and what every option looked like, in the order given.

    `until_s`: hold at most so many seconds; for a probe: nobody else need probe this circuit for so long (the lease).
    """

    action: Action
    reason: str
    channel: str | None = None
    until_s: float | None = None
    seen: tuple[Seen, ...] = ()


class Policy(Protocol):
    """Anything that routes: ours, a rival's, a stranger's. One instance is one process's view."""

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        """`options` carry facts; a policy that keeps its own health ignores or replaces their `reading`."""
        ...

    def observe(self, event: Event) -> None:
        """Told of every event in the order in which this process learns of it."""
        ...
