"""The life of an order, as rows."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

from kameng_api.kit.tables import metadata

orders = Table(
    "orders",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("merchant_order_no", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("environment", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="accepted"),
    Column("substatus", Text),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("sku", Text, nullable=False),
    Column("product_type", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("committed_units", Integer, nullable=False, server_default="0"),  # live + delivered
    Column("delivered_units", Integer, nullable=False, server_default="0"),
    Column("target_sealed", LargeBinary),
    Column("target_masked", Text),
    Column("target_hash", LargeBinary),  # only where the product refuses one target twice
    Column("fields_sealed", LargeBinary),
    Column("face_value", BigInteger),
    Column("unit_price", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("captured", BigInteger, nullable=False, server_default="0"),
    Column("refunded", BigInteger, nullable=False, server_default="0"),
    Column("currency", Text, nullable=False),
    Column("codes_count", Integer, nullable=False, server_default="0"),
    Column("failure_code", Text),
    Column("receipt", Text),
    Column("review", Text),  # why a person must look, while substatus is manual_review
    Column("notify_url", Text),
    Column("metadata", LargeBinary, nullable=False),  # the merchant's JSON, byte for byte
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("dispatched_at", DateTime(timezone=True)),
    Column("delivered_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("book_id", "order_id"),
    UniqueConstraint("book_id", "merchant_order_no"),
    CheckConstraint("quantity > 0", name="quantity"),
    CheckConstraint("committed_units BETWEEN 0 AND quantity", name="committed"),
    CheckConstraint("delivered_units BETWEEN 0 AND committed_units", name="delivered"),
    CheckConstraint("captured BETWEEN 0 AND amount", name="captured"),
    CheckConstraint("refunded BETWEEN 0 AND captured", name="refunded"),
    CheckConstraint(
        "status IN ('accepted', 'processing', 'succeeded', 'partially_succeeded', 'failed', 'cancelled')", name="status"
    ),
    Index("ix_orders_open", "book_id", "order_id", postgresql_where=text("status IN ('accepted', 'processing')")),
    Index("ix_orders_review", "book_id", "order_id", postgresql_where=text("substatus = 'manual_review'")),
    Index(
        "ix_orders_target", "book_id", "sku", "target_hash", "created_at", postgresql_where=text("target_hash IS NOT NULL")
    ),
    postgresql_with={"fillfactor": "80"},
)

# One row per delivered card code (卡密), sealed and bound to its row.
codes = Table(
    "codes",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("unit_no", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "order_id", "unit_no"),
)

# One code is sold once, in the whole house.
code_fingerprints = Table(
    "code_fingerprints",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("environment", Text, nullable=False),
    Column("book_id", BigInteger, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

code_reveals = Table(
    "code_reveals",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("reveal_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "reveal_id"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("refund_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("refund_no", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "refund_id"),
    UniqueConstraint("book_id", "refund_no"),
    Index("ix_refunds_order", "book_id", "order_id"),
    CheckConstraint("amount > 0", name="amount"),
)

# Numbers of which a door has said for good that no order stands under them: none ever will. Kept for ever, as order numbers are.
closed_numbers = Table(
    "closed_numbers",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("merchant_order_no", Text, nullable=False),
    Column("door", Text, nullable=False),
    Column("closed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "merchant_order_no"),
)

# Facts that contradict each other; a person closes them (the reconciliation issue gives them classes and owners).
incidents = Table(
    "incidents",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("incident_id", Uuid, nullable=False),
    Column("order_id", Uuid),
    Column("attempt_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("severity", SmallInteger, nullable=False, server_default="2"),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_by", Text),
    PrimaryKeyConstraint("book_id", "incident_id"),
    Index("ix_incidents_open", "book_id", postgresql_where=text("closed_at IS NULL")),
)
