"""What `client.orders` and its like need of the client, so that none of them has to know it."""

from typing import Protocol, TypeVar

from kameng.calls import Call
from kameng.codes import DeliveryKey

T = TypeVar("T")


class AsyncRunner(Protocol):
    """Signs, sends and sends again; AsyncClient is one."""

    delivery_key: DeliveryKey | None

    async def run(self, call: Call[T]) -> T:
        """One call, as often as the rule of retries says."""
        ...
