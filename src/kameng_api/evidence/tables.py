"""The chain: one row for each range of books that says how far it is sealed, its blocks, what was proven beside the books, and anchors.

A chain belongs to a range of books, as the marks of fan-out and roll-up do: it is written by one sealer at a time and moves with its range.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
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

# The sealer's lock, and the transaction id up to which everything is sealed.
chain_state = Table(
    "chain_state",
    metadata,
    Column("book_range", SmallInteger, primary_key=True, autoincrement=False),
    Column("upto_xid", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("checked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# `leaves`: the hashes of all its leaves, 32 bytes each, in the order (xid, book, event key): one row instead of thousands.
chain_blocks = Table(
    "chain_blocks",
    metadata,
    Column("book_range", SmallInteger, nullable=False),
    Column("no", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("prev", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("count", Integer, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("from_xid", BigInteger, nullable=False),
    Column("upto_xid", BigInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("leaves", LargeBinary, nullable=False),
    PrimaryKeyConstraint("book_range", "no"),
    Index("ix_chain_blocks_xid", "book_range", "upto_xid"),
)

# What a leaf says besides its transfers, kept for ever: raw answers are pruned by age, and codes may be erased.
# The salt opens the commitments in it; without the salt they say nothing.
chain_facts = Table(
    "chain_facts",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("event_key", Text, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("salt", LargeBinary),
    PrimaryKeyConstraint("book_id", "event_key"),
)

# Public keys that ever signed a head.
chain_keys = Table(
    "chain_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("first_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Heads that were put where this database's people cannot change them.
chain_anchors = Table(
    "chain_anchors",
    metadata,
    Column("book_range", SmallInteger, nullable=False),
    Column("target", Text, nullable=False),
    Column("no", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("token", LargeBinary),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_range", "target", "no"),
)

# Which server these rows were last seen on: a copy that wakes up elsewhere, or at an older point, is noticed.
database_identity = Table(
    "database_identity",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("system_identifier", BigInteger, nullable=False),
    Column("timeline_id", Integer, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Restores: while one is open nothing is bought.
restores = Table(
    "restores",
    metadata,
    Column("restore_id", Uuid, primary_key=True),
    Column("begun_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("begun_by", Text, nullable=False),
    Column("last_commit_at", DateTime(timezone=True), nullable=False),
    Column("xid_shift", BigInteger, nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("ended_by", Text),
    Index("uq_restores_open", text("(ended_at IS NULL)"), unique=True, postgresql_where=text("ended_at IS NULL")),
)

# Orders that were open at the restored point; each is asked about under the references that its next attempts would have had.
restored_orders = Table(
    "restored_orders",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("restore_id", Uuid, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),  # waiting | found | free | person | final
    Column("first_asked_at", DateTime(timezone=True)),
    Column("detail", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("book_id", "order_id", "restore_id"),
)

# Purchases that suppliers know of and we no longer do: made after the backup, lost with it.
restore_losses = Table(
    "restore_losses",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("restore_id", Uuid, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("supplier_order_no", Text),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("book_id", "reference", "restore_id"),
)
