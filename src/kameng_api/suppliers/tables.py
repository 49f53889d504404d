"""What was asked of suppliers and what they answered."""

from sqlalchemy import (
    BigInteger,
    Boolean,
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

LIVE_STATES = "('created', 'submitting', 'accepted', 'unknown')"

attempts = Table(
    "attempts",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("attempt_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("n", SmallInteger, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("product_code", Text, nullable=False),
    Column("units", Integer, nullable=False),
    Column("delivered_units", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False, server_default="submitting"),
    Column("currency", Text, nullable=False),
    Column("cost", BigInteger, nullable=False),  # reserved: what all units should cost
    Column("actual_cost", BigInteger),
    Column("reference", Text, nullable=False),
    Column("supplier_order_no", Text),
    Column("refusal", Text),
    Column("reason", Text, nullable=False),  # why this channel, in one sentence
    Column("trouble", Text),
    Column("look_ups", Integer, nullable=False, server_default="0"),
    Column("not_found_first_at", DateTime(timezone=True)),
    Column("reversed_amount", BigInteger, nullable=False, server_default="0"),
    Column("sent_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("unknown_since", DateTime(timezone=True)),
    Column("settled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("book_id", "attempt_id"),
    UniqueConstraint("book_id", "order_id", "n"),
    CheckConstraint(
        "state IN ('created', 'submitting', 'accepted', 'unknown', 'delivered', 'refused', 'not_sent')", name="state"
    ),
    CheckConstraint("units > 0 AND delivered_units BETWEEN 0 AND units", name="units"),
    # The lock that no code can forget: one live attempt per order.
    Index("uq_attempts_live", "book_id", "order_id", unique=True, postgresql_where=text(f"state IN {LIVE_STATES}")),
    Index("ix_attempts_channel", "channel_id", "sent_at"),
    postgresql_with={"fillfactor": "70"},
)

# Raw answers are facts: stored unfenced, encrypted, pruned by age.
supplier_answers = Table(
    "supplier_answers",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("answer_id", Uuid, nullable=False),
    Column("attempt_id", Uuid, nullable=False),
    Column("beat", Text, nullable=False),  # place | look_up | callback
    Column("outcome", Text, nullable=False),
    Column("http_status", SmallInteger),
    Column("raw_sealed", LargeBinary),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "answer_id"),
    Index("ix_supplier_answers_attempt", "book_id", "attempt_id"),
    Index("ix_supplier_answers_received", "received_at", postgresql_using="brin"),
)

# What suppliers called us with, stored before anything is believed.
supplier_callbacks = Table(
    "supplier_callbacks",
    metadata,
    Column("callback_id", Uuid, primary_key=True),
    Column("channel_id", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("raw_sealed", LargeBinary, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("book_id", BigInteger),
    Column("attempt_id", Uuid),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_supplier_callbacks_received", "received_at", postgresql_using="brin"),
)
