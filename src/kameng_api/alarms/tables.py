"""What a person must know."""

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, Table, Text, Uuid, func, text

from kameng_api.kit.tables import metadata

# One open row per (kind, subject): the same trouble again only counts up.
alarms = Table(
    "alarms",
    metadata,
    Column("alarm_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("count", Integer, nullable=False, server_default="1"),
    Column("first_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("last_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("sent_at", DateTime(timezone=True)),
    Column("sent_to", Text),  # the sinks that took it, comma-separated
    Column("send_tries", Integer, nullable=False, server_default="0"),
    Column("send_after", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("acknowledged_by", Text),
    Column("closed_at", DateTime(timezone=True)),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    Index("uq_alarms_open", "kind", "subject", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("ix_alarms_unsent", "first_at", postgresql_where=text("sent_at IS NULL")),
)
