"""What suppliers list, as it was read last, and everything that was ever asked for it. One copy of small and middling tables, no books."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kameng_api.kit.tables import metadata

# How one channel's list (货源目录) is read: its clock, its terms, and who is reading it now. The row's lock keeps the channel's writers apart.
supplier_lists = Table(
    "supplier_lists",
    metadata,
    Column("channel_id", Text, ForeignKey("channels.channel_id"), primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("every_s", Integer, nullable=False),
    Column("changes_every_s", Integer, nullable=False),
    Column("pause_ms", Integer, nullable=False, server_default="200"),  # between two calls
    Column("terms", JSONB, nullable=False, server_default="{}"),
    Column("next_full_at", DateTime(timezone=True), nullable=False),
    Column("next_changes_at", DateTime(timezone=True), nullable=False),
    Column("asked_by", Text),  # who wants it read now
    Column("whole_at", DateTime(timezone=True)),  # when it was last read to its end
    Column("changes_upto", DateTime(timezone=True)),
    Column("tells", ARRAY(Text), nullable=False, server_default=text("'{}'")),  # rules.told_by: what it has said of any line
    Column("numbered", Integer, nullable=False, server_default="0"),
    Column("may_vanish", Integer, nullable=False, server_default="0"),  # lines that a person lets go at the next whole reading
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("lease", Uuid),
    Column("lease_until", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("every_s >= 60 AND changes_every_s >= 10 AND pause_ms BETWEEN 0 AND 60000", name="clock"),
    CheckConstraint("(lease IS NULL) = (lease_until IS NULL)", name="lease"),
    postgresql_with={"fillfactor": "50"},
)

# One line of a supplier's list. `number` is its place in a whole reading's bitmap, counted per channel and never given twice.
supplier_products = Table(
    "supplier_products",
    metadata,
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("product_code", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("product_type", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("face_value", BigInteger),
    Column("face_min", BigInteger),
    Column("face_max", BigInteger),
    Column("fields", JSONB, nullable=False, server_default="[]"),
    Column("min_units", Integer, nullable=False),
    Column("max_units", Integer),
    Column("stock", Integer),
    Column("available", Boolean, nullable=False),
    Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("gone_at", DateTime(timezone=True)),
    Column("listed", Boolean, nullable=False, server_default="true"),  # a page of the list held it; else it was only ever told alone
    Column("asked_alone", Boolean, nullable=False, server_default="false"),
    PrimaryKeyConstraint("channel_id", "product_code"),
    postgresql_with={"fillfactor": "80"},
)

# What a supplier asked, since when. Never changed, never deleted.
supplier_costs = Table(
    "supplier_costs",
    metadata,
    Column("channel_id", Text, nullable=False),
    Column("product_code", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("cost", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("sync_id", Uuid),
    PrimaryKeyConstraint("channel_id", "product_code", "since"),
)

# What a person must say yes or no to; `sku` '': the line is sold under none. `told` names what it is about: the same is not asked twice.
offer_reviews = Table(
    "offer_reviews",
    metadata,
    Column("review_id", Uuid, primary_key=True),
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("product_code", Text, nullable=False),
    Column("sku", Text, nullable=False, server_default=""),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),
    Column("told", Text, nullable=False),
    Column("change_ppm", BigInteger),  # of a cost; below zero: it fell
    Column("facts", JSONB, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("told_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("decided_at", DateTime(timezone=True)),
    Column("decided_by", Text),
    Column("note", Text),
    CheckConstraint("kind IN ('new', 'price_up', 'price_down', 'below_cost', 'gone', 'changed', 'currency')", name="kind"),
    CheckConstraint("state IN ('open', 'approved', 'rejected', 'ignored', 'overtaken')", name="state"),
    CheckConstraint("(state = 'open') = (decided_at IS NULL)", name="decided"),
    Index("uq_offer_reviews_open", "channel_id", "product_code", "sku", "kind", unique=True, postgresql_where=text("state = 'open'")),
    Index("ix_offer_reviews_line", "channel_id", "product_code", "review_id"),
    Index("ix_offer_reviews_state", "state", "kind", "review_id"),
)

# Each reading: what was read, what came of it, how it ended.
catalog_syncs = Table(
    "catalog_syncs",
    metadata,
    Column("sync_id", Uuid, primary_key=True),
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="running"),
    Column("asked_by", Text),
    Column("pages", Integer, nullable=False, server_default="0"),
    Column("lines", Integer, nullable=False, server_default="0"),
    Column("added", Integer, nullable=False, server_default="0"),
    Column("changed", Integer, nullable=False, server_default="0"),
    Column("gone", Integer, nullable=False, server_default="0"),
    Column("applied", Integer, nullable=False, server_default="0"),
    Column("reviews", Integer, nullable=False, server_default="0"),
    Column("missing", Integer),  # of a reading that was stopped: lines that would have been closed
    Column("trouble", Text),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("kind IN ('full', 'changes', 'hints')", name="kind"),
    CheckConstraint("state IN ('running', 'done', 'failed', 'stopped', 'lost')", name="state"),
    Index("ix_catalog_syncs_channel", "channel_id", "sync_id"),
    Index("ix_catalog_syncs_running", "channel_id", postgresql_where=text("state = 'running'")),
    postgresql_with={"fillfactor": "50"},
)

# Lines that somebody says have changed: read again one by one, whoever said it and whatever he said of them.
catalog_hints = Table(
    "catalog_hints",
    metadata,
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("product_code", Text, nullable=False),
    Column("told_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("failures", Integer, nullable=False, server_default="0"),  # so often the line could not be read, in a row
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("channel_id", "product_code"),
)
