"""What the kit is told before it begins: whom it plays against, with which keys, and how patient it is."""

from dataclasses import dataclass, field
from typing import Final

# The contract's own published vectors: good for a rehearsal, and nobody's secret.
VECTOR_KEY_ID: Final = "ak_test_01JD0000000000000000000001"
VECTOR_API_SECRET: Final = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"  # noqa: S105
VECTOR_WEBHOOK_SECRET: Final = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # noqa: S105


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a run depends on. Durations in seconds, all greater than 0.

    `wait_s`: how long the merchant may take for a step (place an order, ask again). `quiet_s`: how long the kit watches that nothing more
    happens. `hold_s`: how long an answer that gets lost is held back before the connection is cut.
    """

    callback: str
    webhook_secret: str = field(default=VECTOR_WEBHOOK_SECRET, repr=False)
    trigger: str | None = None
    probe: str | None = None
    host: str = "127.0.0.1"
    port: int = 8091
    key_id: str = VECTOR_KEY_ID
    api_secret: str = field(default=VECTOR_API_SECRET, repr=False)
    sku: str = "mobile-cn-100"
    target: str | None = "13800138000"
    quantity: int = 1
    wait_s: float = 20.0
    quiet_s: float = 2.0
    hold_s: float = 3.0
    only: tuple[str, ...] = ()
