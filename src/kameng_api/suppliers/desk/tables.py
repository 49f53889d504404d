"""Papers, contacts and notes of a channel, and what its wallet was charged by the hour."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
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

# A qualification document (资质). Never deleted: a withdrawn one counts no more. The file itself is sealed; `file_hash` is over its bytes.
supplier_documents = Table(
    "supplier_documents",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("number", Text, nullable=False, server_default=""),
    Column("issuer", Text, nullable=False, server_default=""),
    Column("valid_from", Date),
    Column("valid_until", Date),  # the last day on which it holds; NULL: it does not end
    Column("remind_days", SmallInteger, nullable=False, server_default="30"),
    Column("required", Boolean, nullable=False, server_default="false"),  # no orders after its last day
    Column("url", Text),
    Column("note", Text, nullable=False, server_default=""),
    Column("file_name", Text),
    Column("file_type", Text),
    Column("file_size", Integer),
    Column("file_hash", LargeBinary),
    Column("file_sealed", LargeBinary),
    Column("created_by", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("withdrawn_by", Text),
    Column("withdrawn_at", DateTime(timezone=True)),
    CheckConstraint("valid_from IS NULL OR valid_until IS NULL OR valid_from <= valid_until", name="period"),
    CheckConstraint("remind_days BETWEEN 0 AND 365", name="remind_days"),
    CheckConstraint("(file_sealed IS NULL) = (file_hash IS NULL)", name="file"),
    Index("ix_supplier_documents_channel", "channel_id", postgresql_where=text("withdrawn_at IS NULL")),
)

# Whom to ask there. Name, phone, messenger and mail address are personal data: sealed together, opened for roles that need them.
supplier_contacts = Table(
    "supplier_contacts",
    metadata,
    Column("contact_id", Uuid, primary_key=True),
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("hours", Text, nullable=False, server_default=""),
    Column("person_sealed", LargeBinary, nullable=False),
    Column("updated_by", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_supplier_contacts_channel", "channel_id"),
)

# What people wrote down about a supplier, in order; only written.
supplier_notes = Table(
    "supplier_notes",
    metadata,
    Column("note_id", Uuid, primary_key=True),
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_supplier_notes_channel", "channel_id", "note_id"),
)

# What a wallet was charged in an hour (UTC) for purchases, less what came back; counted from the attempts, the last hours anew each time.
wallet_burns = Table(
    "wallet_burns",
    metadata,
    Column("channel_id", Text, nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    PrimaryKeyConstraint("channel_id", "hour"),
)
