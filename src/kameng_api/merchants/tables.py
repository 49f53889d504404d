"""Who may call, with which keys."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from kameng_api.kit.tables import metadata

merchants = Table(
    "merchants",
    metadata,
    Column("merchant_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False, server_default="active"),
    Column("level", Text, nullable=False, server_default="standard"),
    Column("currency", Text, nullable=False, server_default="CNY"),
    Column("timezone", Text, nullable=False, server_default="Asia/Shanghai"),
    Column("low_balance_at", BigInteger),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("status IN ('active', 'suspended')", name="status"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("merchant_id", Uuid, ForeignKey("merchants.merchant_id"), nullable=False),
    Column("book_id", BigInteger, ForeignKey("books.book_id"), nullable=False),
    Column("environment", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("secret_sealed", LargeBinary),
    Column("public_key", LargeBinary),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("cidrs", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("label", Text, nullable=False, server_default=""),
    Column("not_before", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("reads_per_s", BigInteger),
    Column("writes_per_s", BigInteger),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("environment IN ('live', 'test')", name="environment"),
    CheckConstraint(
        "(algorithm = 'hmac' AND secret_sealed IS NOT NULL) OR (algorithm = 'ed25519' AND public_key IS NOT NULL)",
        name="material",
    ),
    Index("ix_api_keys_merchant", "merchant_id"),
)

# The key under which card codes leave the house; never the API secret.
delivery_keys = Table(
    "delivery_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("book_id", BigInteger, ForeignKey("books.book_id"), nullable=False),
    Column("key_sealed", LargeBinary, nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_delivery_keys_book", "book_id"),
)
