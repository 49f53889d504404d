"""A batch, what was sent (sealed), and what became of each row."""

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
    Uuid,
    func,
    text,
)

from kameng_api.kit.tables import metadata

batches = Table(
    "batches",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("batch_id", Uuid, nullable=False),
    Column("merchant_batch_no", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("environment", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("filename", Text),
    Column("options", Text, nullable=False),  # JSON; see rules.Options
    Column("validate_only", Boolean, nullable=False),
    Column("state", Text, nullable=False, server_default="validating"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("invalid", Integer, nullable=False, server_default="0"),
    Column("pages", Integer, nullable=False, server_default="0"),
    Column("pages_validated", Integer, nullable=False, server_default="0"),
    Column("pages_placed", Integer, nullable=False, server_default="0"),
    Column("failure_code", Text),
    Column("failure_detail", Text),
    Column("warnings", Text),  # JSON; what the merchant should know of the file that was read
    Column("final_counts", Text),  # JSON; once no order of it can change any more
    Column("looks", Integer, nullable=False, server_default="0"),  # how often its open orders were waited for
    Column("told_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("validated_at", DateTime(timezone=True)),
    Column("confirmed_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("book_id", "batch_id"),
    CheckConstraint("kind IN ('json', 'file')", name="kind"),
    CheckConstraint("invalid BETWEEN 0 AND total", name="invalid"),
    CheckConstraint("pages_placed <= pages_validated AND pages_validated <= pages", name="pages"),
    CheckConstraint(
        "state IN ('validating', 'validated', 'processing', 'completed', 'completed_with_errors', 'failed', 'cancelled')", name="state"
    ),
    # A batch that was only validated takes no number: the real one may follow under it.
    Index("uq_batches_number", "book_id", "merchant_batch_no", unique=True, postgresql_where=text("NOT validate_only")),
    Index("ix_batches_number", "book_id", "merchant_batch_no"),
    Index("ix_batches_open", "book_id", "batch_id", postgresql_where=text("final_counts IS NULL")),
    postgresql_with={"fillfactor": "50"},
)

# A file as it was sent, in pieces, until its rows are read; then only the rows are kept.
batch_files = Table(
    "batch_files",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("batch_id", Uuid, nullable=False),
    Column("n", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("book_id", "batch_id", "n"),
)

# Rows as they were sent, some hundred to a page: targets are personal data and never lie here in clear.
batch_pages = Table(
    "batch_pages",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("batch_id", Uuid, nullable=False),
    Column("n", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("book_id", "batch_id", "n"),
)

# `part` 0 is a row itself; where a row was split, its parts are 1, 2, … and it has no part 0.
batch_items = Table(
    "batch_items",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("batch_id", Uuid, nullable=False),
    Column("line_no", Integer, nullable=False),
    Column("part", SmallInteger, nullable=False, server_default="0"),
    Column("page", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("merchant_order_no", Text),
    Column("sku", Text),
    Column("quantity", Integer),
    Column("amount", BigInteger, nullable=False, server_default="0"),
    Column("order_id", Uuid),
    Column("merged_into", Integer),  # the line that carries the order of this one
    Column("error_code", Text),
    Column("error_pointer", Text),
    Column("error_detail", Text),
    PrimaryKeyConstraint("book_id", "batch_id", "line_no", "part"),
    CheckConstraint("status IN ('pending', 'invalid', 'placed', 'duplicate', 'refused', 'unprocessed')", name="status"),
    Index("ix_batch_items_page", "book_id", "batch_id", "page"),
    postgresql_with={"fillfactor": "70"},
)
