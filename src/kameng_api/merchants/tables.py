"""Who may call, with which keys."""

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
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

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

# When a merchant is told that its money runs low: below `amount` (1/10000 units), or when it lasts for less than `hours_left`. Without `own`
# limits the operator's mark holds (`merchants.low_balance_at`). `low_since` is set from the crossing until the recovery.
balance_alerts = Table(
    "balance_alerts",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("own", Boolean, nullable=False),
    Column("amount", BigInteger),
    Column("hours_left", Integer),
    Column("low_since", DateTime(timezone=True)),
    Column("reason", Text),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "currency"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("hours_left > 0", name="hours_left"),
    CheckConstraint("(low_since IS NULL) = (reason IS NULL)", name="low"),
)

# Who a foreign protocol's caller is here (兼容入口账号): unique by what requests carry, as API key ids are.
door_accounts = Table(
    "door_accounts",
    metadata,
    Column("book_id", BigInteger, ForeignKey("books.book_id"), nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("door", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("secrets_sealed", LargeBinary, nullable=False),
    Column("settings", JSONB, nullable=False, server_default="{}"),
    Column("products", JSONB, nullable=False, server_default="{}"),
    Column("own_skus", Boolean, nullable=False, server_default="true"),
    Column("cidrs", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("reads_per_s", BigInteger),
    Column("writes_per_s", BigInteger),
    Column("label", Text, nullable=False, server_default=""),
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "account_id"),
    UniqueConstraint("door", "account"),
)
