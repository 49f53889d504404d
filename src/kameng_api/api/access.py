"""Which signed request needs which right: one table, read by the gate before anything is routed, and by the OpenAPI document.

A route under /v1 that is missing here is not reachable, and a test says so: nothing is let in by forgetting.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

READS: Final = "reads"
WRITES: Final = "writes"
BATCHES: Final = "batches"
REVEALS: Final = "reveals"
NUMBERS: Final = "numbers"


_PARAMETER: Final = re.compile(r"\{[^/}]*\}")


def shape_of(template: str) -> str:
    """A path template without the names of its parameters, which routes may choose."""
    return _PARAMETER.sub("{}", template)


@dataclass(frozen=True, slots=True)
class Access:
    """What one endpoint asks of a caller.

    `repeatable`: a replay of this request buys nothing (a read, or a write under the merchant's own number), so it goes on while Redis, and with
    it the memory of nonces, is lost. `test_only`: for live keys it does not exist.
    """

    method: str
    template: str
    rate_class: str
    scope: str | None
    repeatable: bool = True
    test_only: bool = False
    shape: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", shape_of(self.template))


def _read(template: str, scope: str, rate_class: str = READS) -> Access:
    return Access("GET", template, rate_class, scope)


def _endpoint_write(method: str, below: str) -> Access:
    return Access(method, f"/v1/webhook-endpoints{below}", WRITES, "webhooks:write", repeatable=False)


TABLE: Final = (
    _read("/v1/balance", "balance:read"),
    _read("/v1/balance/transactions", "balance:read"),
    _read("/v1/balance/transactions/export", "balance:read", BATCHES),
    _read("/v1/balance/alerts", "balance:read"),
    Access("PUT", "/v1/balance/alerts", WRITES, "webhooks:write", repeatable=False),
    _read("/v1/statements", "balance:read"),
    _read("/v1/statements/{date}", "balance:read"),
    _read("/v1/products", "catalog:read"),
    _read("/v1/products/changes", "catalog:read"),
    _read("/v1/products/{sku}", "catalog:read"),
    _read("/v1/numbers/{number}", "catalog:read", NUMBERS),
    Access("POST", "/v1/scan", WRITES, "orders:write"),
    Access("POST", "/v1/orders", WRITES, "orders:write"),
    _read("/v1/orders", "orders:read"),
    _read("/v1/orders/{order_id}", "orders:read"),
    _read("/v1/orders/by-merchant-no/{merchant_order_no}", "orders:read"),
    _read("/v1/orders/{order_id}/timeline", "orders:read"),
    _read("/v1/orders/{order_id}/refunds", "orders:read"),
    _read("/v1/orders/{order_id}/codes", "codes:read", REVEALS),
    _read("/v1/orders/{order_id}/receipt", "orders:read"),
    _read("/v1/evidence/keys", "orders:read"),
    Access("POST", "/v1/orders/{order_id}/cancel", WRITES, "orders:write"),
    Access("POST", "/v1/order-batches", BATCHES, "orders:write"),
    Access("POST", "/v1/order-imports", BATCHES, "orders:write"),
    _read("/v1/order-imports/template", "orders:read"),
    _read("/v1/order-batches", "orders:read"),
    _read("/v1/order-batches/by-merchant-no/{merchant_batch_no}", "orders:read"),
    _read("/v1/order-batches/{batch_id}", "orders:read"),
    _read("/v1/order-batches/{batch_id}/items", "orders:read"),
    _read("/v1/order-batches/{batch_id}/lines/{line_no}", "orders:read"),
    _read("/v1/order-batches/{batch_id}/results/{which}", "orders:read"),
    Access("POST", "/v1/order-batches/{batch_id}/confirm", WRITES, "orders:write"),
    Access("POST", "/v1/order-batches/{batch_id}/cancel", WRITES, "orders:write"),
    _read("/v1/events", "orders:read"),
    _read("/v1/events/{event_id}", "orders:read"),
    _read("/v1/webhook-endpoints", "webhooks:write"),
    _read("/v1/webhook-endpoints/{endpoint_id}", "webhooks:write"),
    _read("/v1/webhook-endpoints/{endpoint_id}/deliveries", "webhooks:write"),
    _endpoint_write("POST", ""),
    _endpoint_write("PATCH", "/{endpoint_id}"),
    _endpoint_write("DELETE", "/{endpoint_id}"),
    _endpoint_write("POST", "/{endpoint_id}/enable"),
    _endpoint_write("POST", "/{endpoint_id}/disable"),
    _endpoint_write("POST", "/{endpoint_id}/rotate-secret"),
    _endpoint_write("POST", "/{endpoint_id}/ping"),
    _endpoint_write("POST", "/{endpoint_id}/resend"),
    _endpoint_write("POST", "/{endpoint_id}/replay-missing"),
    _endpoint_write("POST", "/{endpoint_id}/test"),
    _endpoint_write("POST", "/{endpoint_id}/expire-old-secret"),
    _read("/v1/webhook-endpoints/{endpoint_id}/health", "webhooks:write"),
    _read("/v1/webhook-deliveries", "webhooks:write"),
    Access("POST", "/v1/webhook-deliveries/{delivery_id}/resend", WRITES, "webhooks:write", repeatable=False),
    Access("POST", "/v1/notify-secret/rotate", WRITES, "webhooks:write", repeatable=False),
    Access("POST", "/v1/notify-secret/expire-old-secret", WRITES, "webhooks:write", repeatable=False),
    Access("POST", "/v1/test/signature", WRITES, None, repeatable=False, test_only=True),
    Access("POST", "/v1/test/balance", WRITES, "orders:write", repeatable=False, test_only=True),
    Access("POST", "/v1/test/orders/{order_id}/advance", WRITES, "orders:write", repeatable=False, test_only=True),
    Access("POST", "/v1/test/orders/{order_id}/fast-forward", WRITES, "orders:write", repeatable=False, test_only=True),
    Access("POST", "/v1/test/orders/{order_id}/webhook", WRITES, "orders:write", repeatable=False, test_only=True),
)

SIGNATURE_HELP: Final = "/v1/test/signature"
"""The one endpoint that also answers a test key whose signature is wrong: that is its purpose."""

TEST_PREFIX: Final = "/v1/test/"
_ANY: Final = "*"


class _Node:
    __slots__ = ("access", "below")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.access: dict[str, Access] = {}


class AccessMap:
    """Finds the row of the table for a request; a literal step wins over a parameter, as in the router."""

    def __init__(self, table: Iterable[Access] = TABLE) -> None:
        self._root = _Node()
        self._exact: dict[tuple[str, str], Access] = {}
        for row in table:
            if "{" not in row.template:
                self._exact[row.method, row.template] = row
            node = self._root
            for step in row.template.split("/")[1:]:
                node = node.below.setdefault(_ANY if step.startswith("{") else step, _Node())
            node.access[row.method] = row

    def find(self, method: str, path: str) -> Access | None:
        """The row for this request; None when the table has no such path or method."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact
        node = self._node(path)
        return None if node is None else node.access.get(method)

    def methods(self, path: str) -> list[str]:
        """Which methods the path knows; empty when there is no such path."""
        node = self._node(path)
        return [] if node is None else sorted(node.access)

    def covers(self, method: str, template: str) -> bool:
        """Whether a route's template stands in the table."""
        return self.find(method, shape_of(template)) is not None

    def _node(self, path: str) -> _Node | None:
        node = self._root
        for step in path.split("/")[1:]:
            below = node.below.get(step) or (node.below.get(_ANY) if step else None)
            if below is None:
                return None
            node = below
        return node


def nowhere(method: str) -> Access:
    """What a request to nowhere is measured by, before it gets its 404 or 405."""
    return Access(method, "unmatched", READS if method == "GET" else WRITES, None)
