"""What a simulated supplier does with an order: magic targets as one table, the rest drawn from the knobs.

Pure: no clock, no I/O.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from kameng_api.simulator.config import Faults, Knobs, Role
from kameng_api.simulator.protocol import Status

_STALE_S: Final = 2.0
"""So long after the final callback a stale one leaves: it is to arrive after it on a busy machine, too, at a hundredth of the time."""


class Manner(StrEnum):
    """How the caller is treated, whatever was decided about the order."""

    ANSWER = "answer"
    ERROR_500 = "error_500"
    HANG = "hang"  # the connection stays open and silent
    RESET = "reset"  # the connection is cut after the request was read


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens to an order later, kept as a row with a due time.

    `finish` brings it to `status` (SUCCESS or FAILED), `reverse` takes a delivery back, `contradict` makes the vendor
    say `status` from then on although its books say otherwise. `stale_callbacks` are sent after the final one.
    """

    after_s: float
    kind: str
    status: str = ""
    fail_code: str = ""
    copies: int | None = None  # of the callback; None: as the knobs say
    stale_callbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one new order. `start` is its first state; `units` None: all that were asked."""

    start: str
    fail_code: str = ""
    units: int | None = None
    manner: Manner = Manner.ANSWER
    recorded: bool = True  # False: the request is lost before it becomes an order
    later: tuple[Step, ...] = ()


DELIVER: Final = Plan(Status.SUCCESS)


def refuse(fail_code: str) -> Plan:
    return Plan(Status.FAILED, fail_code=fail_code)


def accept(*later: Step, manner: Manner = Manner.ANSWER) -> Plan:
    return Plan(Status.PROCESSING, later=later, manner=manner)


def _finish(after_s: float, status: str, fail_code: str = "", **more: object) -> Step:
    return Step(after_s, "finish", status, fail_code, **more)  # type: ignore[arg-type]


def _one_unit_then_nothing(role: Role, units: int) -> Plan:
    if role is Role.SECONDARY:
        return refuse("CHANNEL_MAINTENANCE")
    return DELIVER if units == 1 else Plan(Status.PARTIAL, units=1)


def _second_supplier_only(role: Role, units: int) -> Plan:
    return refuse("CHANNEL_MAINTENANCE") if role is Role.PRIMARY else DELIVER


_SUCCESS, _FAILED = Status.SUCCESS, Status.FAILED
MAGIC: Final[Mapping[str, Callable[[Role, int], Plan]]] = {
    "10000000001": lambda role, units: accept(_finish(1, _SUCCESS)),
    "10000000002": lambda role, units: accept(_finish(1, _FAILED, "ORDER_REJECTED")),
    "10000000003": lambda role, units: accept(_finish(30, _SUCCESS)),
    "10000000004": lambda role, units: accept(_finish(60, _SUCCESS), manner=Manner.ERROR_500),
    "10000000005": lambda role, units: accept(_finish(60, _FAILED, "ORDER_REJECTED"), manner=Manner.ERROR_500),
    "10000000006": _one_unit_then_nothing,
    "10000000007": lambda role, units: Plan(_SUCCESS, later=(Step(30, "reverse"),)),
    "10000000008": lambda role, units: accept(_finish(1, _SUCCESS, copies=2, stale_callbacks=(Status.PROCESSING,))),
    "10000000009": lambda role, units: Plan(Status.CONTACT_STAFF),
    "10000000010": _second_supplier_only,
}


def plan(knobs: Faults, role: Role, target: str, units: int, draw: Random) -> Plan:
    """Decides about a new order. Magic targets ignore the shares of the knobs; a share that is 0 draws nothing."""
    magic = MAGIC.get(target)
    if magic is not None:
        return magic(role, units)

    def happens(rate: float) -> bool:
        return rate > 0 and draw.random() < rate

    if happens(knobs.hang_rate):
        return Plan(Status.SUCCESS, manner=Manner.HANG, recorded=knobs.hang_point == "after")
    if happens(knobs.reset_rate):
        return Plan(Status.SUCCESS, manner=Manner.RESET, recorded=knobs.reset_point == "after")
    if happens(knobs.error_500_rate):
        return Plan(Status.SUCCESS, manner=Manner.ERROR_500)
    if happens(knobs.late_success_rate):
        return accept(_finish(knobs.late_success_after_s, Status.SUCCESS), manner=Manner.HANG)
    if happens(knobs.refuse_rate):
        return refuse(knobs.refuse_code)
    if happens(knobs.late_failure_rate):
        after_s = knobs.late_failure_after_s + draw.random() * knobs.late_failure_spread_s
        return accept(_finish(after_s, Status.FAILED, knobs.refuse_code))
    if happens(knobs.contact_staff_rate):
        return Plan(Status.CONTACT_STAFF)
    if happens(knobs.contradiction_rate):
        return _contradiction(knobs)
    later = (Step(knobs.reversal_after_s, "reverse"),) if happens(knobs.reversal_rate) else ()
    if units > 1 and happens(knobs.partial_rate):
        return Plan(Status.PARTIAL, units=units - 1, later=later)
    if happens(knobs.async_rate):
        after_s = knobs.async_after_s * knobs.slow_factor
        return accept(_finish(after_s, Status.SUCCESS), *(Step(after_s + step.after_s, step.kind) for step in later))
    return Plan(Status.SUCCESS, later=later) if later else DELIVER


def _contradiction(knobs: Faults) -> Plan:
    if knobs.contradiction_kind == "success_then_failed":  # delivered for real; only their words change
        return Plan(Status.SUCCESS, later=(Step(knobs.contradiction_after_s, "contradict", _FAILED, "ORDER_REJECTED"),))
    return Plan(  # said no, and delivers all the same
        Status.FAILED, fail_code="ORDER_REJECTED", later=(_finish(knobs.contradiction_after_s, Status.SUCCESS),)
    )


def callback_times(knobs: Knobs, status: str, step: Step | None = None) -> list[tuple[float, str]]:
    """`[(after_s, status to tell)]`: what is called back when an order reached `status`."""
    copies = knobs.callback_copies if step is None or step.copies is None else step.copies
    stale = step.stale_callbacks if step is not None else ()
    if knobs.callback_reorder and not stale and copies:
        stale = (Status.PROCESSING,)
    times = [(knobs.callback_delay_s + 0.2 * number, status) for number in range(copies)]
    return times + [(knobs.callback_delay_s + _STALE_S + 0.2 * number, stale_status) for number, stale_status in enumerate(stale)]


def sent_at(knobs: Knobs, at: float, time_scale: float) -> float:
    """When a callback that is due `at` (seconds since 1970) leaves: at once, or with all others of its batch."""
    period = knobs.callback_batch_s * time_scale
    return math.ceil(at / period) * period if period > 0 else at


def wait_ms(knobs: Faults, draw: Random) -> float:
    """How long the answer is held back."""
    latency = knobs.latency
    match latency.kind:
        case "none":
            return 0
        case "fixed":
            ms = latency.ms
        case "lognormal":
            ms = draw.lognormvariate(math.log(max(latency.ms, 0.001)), latency.sigma)
    return min(ms * knobs.slow_factor, latency.max_ms)


def is_down(knobs: Faults, now: float, time_scale: float) -> str:
    """`none`, `http_503` or `silent` at `now` (seconds since 1970)."""
    if knobs.outage != "none":
        return knobs.outage
    period = knobs.flapping_period_s * time_scale
    return "http_503" if period > 0 and now % period >= period / 2 else "none"
