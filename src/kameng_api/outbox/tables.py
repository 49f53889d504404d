"""Facts, recorded in the transaction that made them true, with the very bytes that merchants will read."""

from sqlalchemy import (
    BigInteger,
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

events = Table(
    "events",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("order_id", Uuid),
    Column("version", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("notify_url", Text),
    Column("xid", BigInteger, nullable=False, server_default=text("xid_now()")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "event_id"),
    # In commit-safe order: a reader that stays below the transaction horizon never skips a late commit.
    Index("ix_events_book_order", "book_id", "xid", "event_id"),
    Index("ix_events_xid", "xid"),
)

# How far events have been handed to the webhooks, one row per book range; claimed range by range.
fanout_marks = Table(
    "fanout_marks",
    metadata,
    Column("book_range", SmallInteger, primary_key=True, autoincrement=False),
    Column("upto_xid", BigInteger, nullable=False),
)
