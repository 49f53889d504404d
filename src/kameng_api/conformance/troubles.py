"""What may go wrong with the creation of an order, one trouble for each attempt, in the order in which a scenario wants them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """The order is booked, but the answer never arrives: nothing for `hold_s` seconds, then the connection ends."""

    hold_s: float


@dataclass(frozen=True, slots=True)
class ServerError:
    """A 5xx; `booked` says whether the order stands nevertheless, which the caller cannot know."""

    status: int
    booked: bool


@dataclass(frozen=True, slots=True)
class TooMany:
    """429 with `Retry-After`, in seconds."""

    retry_after_s: int


@dataclass(frozen=True, slots=True)
class NumberUsed:
    """The number already stands for an order with other content: 409."""


@dataclass(frozen=True, slots=True)
class RefusedForGood:
    """422 `product_unavailable`, `retry: never`."""


@dataclass(frozen=True, slots=True)
class NewMembers:
    """201, with members and headers that did not exist when the merchant's software was written."""


Trouble = AnswerLost | ServerError | TooMany | NumberUsed | RefusedForGood | NewMembers
