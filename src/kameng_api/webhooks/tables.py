"""Telling merchants, until they have heard."""

from sqlalchemy import (
    ARRAY,
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
    Uuid,
    func,
    text,
)

from kameng_api.kit.tables import metadata

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("endpoint_id", Uuid, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False, server_default=text("'{}'")),  # empty: all
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("old_secret_sealed", LargeBinary),
    Column("old_secret_until", DateTime(timezone=True)),
    Column("status", Text, nullable=False, server_default="enabled"),
    Column("status_reason", Text),
    Column("description", Text, nullable=False, server_default=""),
    Column("failures", Integer, nullable=False, server_default="0"),  # since the last success
    Column("first_failure_at", DateTime(timezone=True)),
    Column("last_success_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("deleted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("book_id", "endpoint_id"),
    CheckConstraint("status IN ('enabled', 'disabled')", name="status"),
)

# The merchant's default secret signs per-order notify_url calls; one per book.
notify_secrets = Table(
    "notify_secrets",
    metadata,
    Column("book_id", BigInteger, primary_key=True, autoincrement=False),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("old_secret_sealed", LargeBinary),
    Column("old_secret_until", DateTime(timezone=True)),
)

# One event to one receiver. endpoint_id is NULL for a per-order notify_url.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("delivery_id", Uuid, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("endpoint_id", Uuid),
    Column("notify_url", Text),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("delivered_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("book_id", "delivery_id"),
    CheckConstraint("state IN ('pending', 'delivered', 'given_up', 'held')", name="state"),
    CheckConstraint("num_nonnulls(endpoint_id, notify_url) = 1", name="one_receiver"),
    Index("ix_webhook_deliveries_event", "book_id", "event_id"),
    Index(
        "ix_webhook_deliveries_missing",
        "book_id",
        "endpoint_id",
        postgresql_where=text("state IN ('given_up', 'held')"),
    ),
    postgresql_with={"fillfactor": "70"},
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("attempt_id", Uuid, nullable=False),
    Column("delivery_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("took_ms", Integer, nullable=False),
    Column("http_status", SmallInteger),
    Column("trouble", Text),
    PrimaryKeyConstraint("book_id", "attempt_id"),
    Index("ix_webhook_attempts_delivery", "book_id", "delivery_id"),
    Index("ix_webhook_attempts_at", "at", postgresql_using="brin"),
)
