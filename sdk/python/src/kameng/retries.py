"""What to do after each attempt: the contract's rule of sending again, as decisions from values.

Timeout or 5xx: the same body and number again, signed anew. Never a new number: this module only ever repeats a call, it cannot change one.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_CLOCK: Final = "timestamp_out_of_window"
_ANEW: Final = frozenset((_CLOCK, "nonce_reused"))


@dataclass(frozen=True)
class RetryPolicy:
    """How long and how often. All times in seconds.

    `deadline_s` bounds the whole call with its waits and is never passed by another attempt's beginning; `attempts` counts the first one too.
    Waits grow from `first_wait_s` by doubling up to `longest_wait_s`, each shortened by up to half at random; a Retry-After is waited for in full.
    """

    attempts: int = 8
    deadline_s: float = 60.0
    first_wait_s: float = 0.25
    longest_wait_s: float = 8.0


@dataclass(frozen=True)
class Attempted:
    """What one attempt came to. `status` None: no whole answer came; `reached` False: the request cannot have arrived."""

    status: int | None
    document: Mapping[str, Any] = field(default_factory=dict)
    retry_after: str | None = None
    reached: bool = True


@dataclass(frozen=True)
class Again:
    """Send the same again after `wait_s`; where `server_time` is set, with that clock."""

    wait_s: float
    server_time: int | None = None


@dataclass(frozen=True)
class Stop:
    """Tell the caller."""


class Course:
    """The attempts of one call. `repeatable`: sending it twice does no more than sending it once; `writes`: it may change something."""

    def __init__(self, policy: RetryPolicy, *, repeatable: bool, writes: bool, began_s: float) -> None:
        self._policy, self._repeatable, self._writes, self._began_s = policy, repeatable, writes, began_s
        self._signed_anew = 0
        self.attempts = 0
        self.earlier_unknown = False  # an attempt may have done it, and nobody said whether

    def left_s(self, now_s: float) -> float:
        """Until the deadline; `now_s` on the same monotonic clock as `began_s`."""
        return self._began_s + self._policy.deadline_s - now_s

    def next(self, was: Attempted, now_s: float) -> Again | Stop:
        """What to do after this attempt, which was not a success."""
        self.attempts += 1
        verdict = self._verdict(was)
        if isinstance(verdict, Again) and (self.attempts >= self._policy.attempts or verdict.wait_s >= self.left_s(now_s)):
            verdict = Stop()
        if isinstance(verdict, Again) and self._writes and _is_unknown(was):
            self.earlier_unknown = True
        return verdict

    def _verdict(self, was: Attempted) -> Again | Stop:
        if was.status == 401 and was.document.get("code") in _ANEW:
            return self._sign_anew(was)
        wait_s = max(self._backoff_s(), _told_s(was))
        rule = was.document.get("retry")
        if was.status is None:
            return Again(wait_s) if self._repeatable or not was.reached else Stop()
        if was.status >= 500 and rule is None:
            rule = "same_request"  # a proxy's answer, or none that can be read
        if rule not in ("same_request", "after_s"):
            return Stop()
        return Again(wait_s) if self._repeatable or not _is_unknown(was) else Stop()

    def _sign_anew(self, was: Attempted) -> Again | Stop:
        """At once: nothing was done, a fresh signature is all that was missing. Twice, for the first correction may come from a slow answer."""
        self._signed_anew += 1
        told = was.document.get("server_time")
        if self._signed_anew > 2 or (was.document.get("code") == _CLOCK and not isinstance(told, int)):
            return Stop()
        return Again(0.0, told if was.document.get("code") == _CLOCK and isinstance(told, int) else None)

    def _backoff_s(self) -> float:
        widest: float = min(self._policy.first_wait_s * 2.0 ** (self.attempts - 1), self._policy.longest_wait_s)
        return widest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter keeps no secret


def _is_unknown(was: Attempted) -> bool:
    """Whether the house may have done it without our knowing: silence after sending, or a 5xx that does not say `charged: no`."""
    if was.status is None:
        return was.reached
    return was.status >= 500 and was.document.get("charged") != "no"


def _told_s(was: Attempted) -> float:
    """How long the house wants us to wait. Of Retry-After only the form in seconds: a date would need a clock we may not trust."""
    text, value = was.retry_after, was.document.get("retry_after_s")
    if text is not None and text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
