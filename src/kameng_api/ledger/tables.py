"""The books: one append-only table of transfers, and balances only for accounts that have a floor."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
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

# A book (账本) is one merchant in one environment, or the house in one environment: play money never meets real money.
books = Table(
    "books",
    metadata,
    Column("book_id", BigInteger, primary_key=True, autoincrement=False),
    Column("merchant_id", Uuid, nullable=True),
    Column("environment", Text, nullable=False),
    CheckConstraint("environment IN ('live', 'test')", name="environment"),
    CheckConstraint("book_id < 1073741824", name="fits_reference"),
    UniqueConstraint("merchant_id", "environment", postgresql_nulls_not_distinct=True),
)

# Only accounts with a floor have a row: it is the lock and the running balance. `version` counts the transfers that touched it.
accounts = Table(
    "accounts",
    metadata,
    Column("book_id", BigInteger, ForeignKey("books.book_id"), nullable=False),
    Column("account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("floor", BigInteger, nullable=False, server_default=text("0")),
    Column("balance", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("book_id", "account", "currency"),
    CheckConstraint("balance >= floor", name="floor"),
    postgresql_with={"fillfactor": "50"},
)

transfers = Table(
    "transfers",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("event_key", Text, nullable=False),
    Column("line", SmallInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("debit_account", Text, nullable=False),
    Column("credit_account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("debit_balance_after", BigInteger),
    Column("debit_version", BigInteger),
    Column("credit_balance_after", BigInteger),
    Column("credit_version", BigInteger),
    Column("order_id", Uuid),
    Column("note", Text),
    Column("xid", BigInteger, nullable=False, server_default=text("xid_now()")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "event_key", "line"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("debit_account <> credit_account", name="two_accounts"),
    Index(
        "ix_transfers_debit_flow",
        "book_id",
        "debit_account",
        "currency",
        "debit_version",
        postgresql_where=text("debit_version IS NOT NULL"),
    ),
    Index(
        "ix_transfers_credit_flow",
        "book_id",
        "credit_account",
        "currency",
        "credit_version",
        postgresql_where=text("credit_version IS NOT NULL"),
    ),
    Index("ix_transfers_xid", "xid", postgresql_using="brin", postgresql_with={"pages_per_range": "16", "autosummarize": "on"}),
)

# Sums of accounts without a floor, per book, up to a transaction horizon; `exact = rolled up + transfers since`.
rollups = Table(
    "rollups",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("debits", BigInteger, nullable=False, server_default=text("0")),
    Column("credits", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("book_id", "account", "currency"),
    postgresql_with={"fillfactor": "70"},
)

# One row per book range (one server is one range): transfers with xid < upto_xid are in `rollups`.
rollup_marks = Table(
    "rollup_marks",
    metadata,
    Column("book_range", SmallInteger, primary_key=True, autoincrement=False),
    Column("upto_xid", BigInteger, nullable=False),
)

# Books whose postings are stopped, because something of their own money was found that must not be. Kept for ever; the open row is the stop.
# `marks` names the breaches found: once lifted, the same ones stop the book no more.
stopped_books = Table(
    "stopped_books",
    metadata,
    Column("book_id", BigInteger, ForeignKey("books.book_id"), nullable=False),
    Column("stop_id", Uuid, nullable=False),
    Column("invariant", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("marks", ARRAY(Text), nullable=False),
    Column("stopped_by", Text, nullable=False),
    Column("stopped_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("lift_asked_by", Text),
    Column("lift_asked_at", DateTime(timezone=True)),
    Column("note", Text),
    Column("lifted_by", Text),
    Column("lifted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("book_id", "stop_id"),
    CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted"),
    Index("uq_stopped_books_open", "book_id", unique=True, postgresql_where=text("lifted_at IS NULL")),
)

# How far the chain of running balances of each floor account has been checked: its version, and the balance after it.
chain_marks = Table(
    "chain_marks",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("checked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "account", "currency"),
    postgresql_with={"fillfactor": "50"},
)

# Who paid in what: the receipt names its one merchant, unique by the bank's or channel's own transaction id alone.
funding_receipts = Table(
    "funding_receipts",
    metadata,
    Column("channel", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("book_id", BigInteger, ForeignKey("books.book_id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("channel", "external_id"),
    CheckConstraint("amount > 0", name="amount"),
)

# What a book had spent in all (held or delivered, less what came back) at a moment; a row only when it has changed, the older the sparser.
balance_samples = Table(
    "balance_samples",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("spent", BigInteger, nullable=False),
    PrimaryKeyConstraint("book_id", "currency", "at"),
)

# How much a book spends in an hour, 1/10000 units, by its last hour, day and week.
burn_rates = Table(
    "burn_rates",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("last_hour", BigInteger, nullable=False),
    Column("last_day", BigInteger, nullable=False),
    Column("last_week", BigInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "currency"),
    postgresql_with={"fillfactor": "50"},
)
