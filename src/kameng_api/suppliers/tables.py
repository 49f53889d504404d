"""What was asked of suppliers and what they answered."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
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
from sqlalchemy.dialects.postgresql import JSONB

from kameng_api.kit.tables import metadata

GATE_REASONS = "('out_of_stock', 'product_off', 'price_exceeded', 'wallet_empty')"
LIVE_STATES = "('created', 'submitting', 'accepted', 'unknown')"

attempts = Table(
    "attempts",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("attempt_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("n", SmallInteger, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("sku", Text),
    Column("product_code", Text, nullable=False),
    Column("units", Integer, nullable=False),
    Column("delivered_units", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False, server_default="submitting"),
    Column("currency", Text, nullable=False),
    Column("cost", BigInteger, nullable=False),  # reserved: what all units should cost
    Column("price", BigInteger),  # what the merchant pays for these units
    Column("loss_allowed", Boolean, nullable=False, server_default="false"),
    Column("actual_cost", BigInteger),
    Column("probe", Boolean, nullable=False, server_default="false"),
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
    # Routing has looked already; the database looks again.
    CheckConstraint("cost <= price OR loss_allowed", name="loss"),
    CheckConstraint("units > 0 AND delivered_units BETWEEN 0 AND units", name="units"),
    # The lock that no code can forget: one live attempt per order.
    Index("uq_attempts_live", "book_id", "order_id", unique=True, postgresql_where=text(f"state IN {LIVE_STATES}")),
    Index("ix_attempts_channel", "channel_id", "sent_at"),
    Index("ix_attempts_gates", "settled_at", postgresql_where=text(f"refusal IN {GATE_REASONS}")),
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

# Every choice of a channel, replayable bit for bit: what was asked, the inputs it saw (shared by the choices of one round), the seed.
# By day, so that age is dropped and not deleted; partitions are made ahead by `route_partitions()`.
route_decisions = Table(
    "route_decisions",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("n", Integer, nullable=False),
    Column("day", Date, nullable=False),  # of decided_at, UTC
    Column("decided_at", DateTime(timezone=True), nullable=False),
    Column("action", Text, nullable=False),  # dispatch | probe | hold | give_up
    Column("channel_id", Text),
    Column("reason", Text, nullable=False),
    Column("inputs_id", Uuid, nullable=False),
    Column("ask", LargeBinary, nullable=False),
    Column("seed", BigInteger, nullable=False),
    PrimaryKeyConstraint("book_id", "order_id", "n", "day"),
    postgresql_partition_by="RANGE (day)",
)

# What the choices of one round saw: the options with their readings, and the tuning.
route_inputs = Table(
    "route_inputs",
    metadata,
    Column("inputs_id", Uuid, nullable=False),
    Column("day", Date, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("inputs_id", "day"),
    postgresql_partition_by="RANGE (day)",
)

# The folded health of the channels, so that a process that lost everything else knows again what is ill.
route_snapshots = Table(
    "route_snapshots",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("taken_at", DateTime(timezone=True), nullable=False),
    Column("stream_id", Text, nullable=False),  # the last entry of the stream of events that is in it
    Column("body", LargeBinary, nullable=False),
)

# Who may probe an open circuit: one process until `until`. `sku` '': the circuit of the whole channel.
route_probes = Table(
    "route_probes",
    metadata,
    Column("channel_id", Text, primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("until", DateTime(timezone=True), nullable=False),
)

# When a circuit opened or closed, and why; `sku` None: that of the whole channel.
channel_transitions = Table(
    "channel_transitions",
    metadata,
    Column("transition_id", Uuid, primary_key=True),
    Column("channel_id", Text, nullable=False),
    Column("sku", Text),
    Column("state", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("reason", Text, nullable=False),
    Column("facts", JSONB, nullable=False, server_default="{}"),
    Index("ix_channel_transitions_channel", "channel_id", "at"),
    Index("ix_channel_transitions_at", "at", postgresql_using="brin"),
)

# What a channel has delivered on a business day; volume commitments are counted from it.
channel_volumes = Table(
    "channel_volumes",
    metadata,
    Column("day", Date, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "channel_id", "sku"),
)
