"""Names every table once, for migrations and tests; imports only."""

from kameng_api.alarms import tables as alarms
from kameng_api.batches import tables as batches
from kameng_api.catalog import tables as catalog
from kameng_api.evidence import tables as evidence
from kameng_api.kit.tables import metadata
from kameng_api.ledger import tables as ledger
from kameng_api.merchants import tables as merchants
from kameng_api.operators import tables as operators
from kameng_api.orders import tables as orders
from kameng_api.outbox import tables as outbox
from kameng_api.reconciliation import tables as reconciliation
from kameng_api.statements import tables as statements
from kameng_api.suppliers import tables as suppliers
from kameng_api.suppliers.desk import tables as supplier_desk
from kameng_api.suppliers.listings import tables as listings
from kameng_api.tasks import tables as tasks
from kameng_api.webhooks import tables as webhooks

__all__ = [
    "alarms",
    "batches",
    "catalog",
    "evidence",
    "ledger",
    "listings",
    "merchants",
    "metadata",
    "operators",
    "orders",
    "outbox",
    "reconciliation",
    "statements",
    "supplier_desk",
    "suppliers",
    "tasks",
    "webhooks",
]
