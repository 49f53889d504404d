"""A day's statement: where it was cut, and, once it is made, the very bytes that were signed."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from kameng_api.kit.tables import metadata

# For each end of a day, a transaction that began after it: when everything older has ended, the day is over.
statement_days = Table(
    "statement_days",
    metadata,
    Column("ends_at", DateTime(timezone=True), primary_key=True),
    Column("xid", BigInteger, nullable=False),
)

# Public halves of every key that ever signed: a statement can be checked after its key is gone from the settings.
statement_keys = Table(
    "statement_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("first_used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# The cut is decided once: movements with from_version < version <= to_version are this day's, for ever.
statements = Table(
    "statements",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("from_version", BigInteger, nullable=False),
    Column("to_version", BigInteger, nullable=False),
    Column("opening", BigInteger, nullable=False),
    Column("closing", BigInteger, nullable=False),
    Column("cut_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("make_id", Uuid),
    Column("making_until", DateTime(timezone=True)),
    Column("ready_at", DateTime(timezone=True)),
    Column("manifest", LargeBinary),
    Column("signature", LargeBinary),
    Column("key_id", Text),
    PrimaryKeyConstraint("book_id", "currency", "day"),
    CheckConstraint("to_version >= from_version", name="versions"),
    CheckConstraint("(ready_at IS NULL) = (manifest IS NULL)", name="ready"),
    Index("ix_statements_due", "ends_at", postgresql_where=text("ready_at IS NULL")),
)

# The files, in pieces that can be written and served one at a time. `make_id` keeps two makers apart; the statement names the one that counts.
statement_chunks = Table(
    "statement_chunks",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("make_id", Uuid, nullable=False),
    Column("format", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("book_id", "make_id", "format", "n"),
)
