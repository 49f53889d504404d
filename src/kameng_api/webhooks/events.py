"""The facts merchants may hear of, as they are spelt on the wire, and the one that this room states itself."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

from kameng_api.kit.ids import public_id
from kameng_api.outbox.rules import Fact

ENDPOINT_PREFIX: Final = "whe"
DELIVERY_PREFIX: Final = "whd"
EVENT_PREFIX: Final = "evt"
PING: Final = "endpoint.ping"
SAMPLE: Final = "endpoint.sample"
"""How an event that was made up for a test is kept; its body says the type it plays. Never sent under this name, never polled."""

# Wire formats: literal strings, in the order of the contract. Later rooms add theirs here.
EVENT_TYPES: Final = (
    "order.accepted",
    "order.processing",
    "order.succeeded",
    "order.partially_succeeded",
    "order.failed",
    "order.cancelled",
    "order.refunded",
    "balance.low",
    "balance.credited",
    "product.price_changed",
    "product.status_changed",
    "statement.ready",
    "batch.validated",
    "batch.progress",
    "batch.completed",
    PING,
)


@dataclass(frozen=True, slots=True)
class EndpointPinged:
    """A merchant asked for a sign of life; only this endpoint hears it."""

    book_id: int
    endpoint_id: UUID
    url: str

    def fact(self) -> Fact:
        """As the outbox records it. Pings have no history, so their version is always 1."""
        wire_id = public_id(ENDPOINT_PREFIX, self.endpoint_id)
        thing = {"id": wire_id, "object": "webhook_endpoint", "url": self.url}
        return Fact(self.book_id, PING, wire_id, 1, orjson.dumps(thing))
