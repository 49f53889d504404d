"""What can be bought, at what price, and where it comes from. Small shared reference tables."""

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

products = Table(
    "products",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("product_type", Text, nullable=False),
    Column("currency", Text, nullable=False, server_default="CNY"),
    Column("face_value", BigInteger),
    Column("face_min", BigInteger),
    Column("face_max", BigInteger),
    Column("face_step", BigInteger),
    Column("target_kind", Text),  # 'mobile' | 'account' | NULL for card codes
    Column("fields", JSONB, nullable=False, server_default="[]"),
    Column("environments", ARRAY(Text), nullable=False, server_default=text("'{live,test}'")),
    Column("status", Text, nullable=False, server_default="on_sale"),
    Column("max_quantity", Integer, nullable=False, server_default="100"),
    Column("deliver_within_s", Integer, nullable=False, server_default="600"),
    Column("duplicate_window_s", Integer, nullable=False, server_default="0"),
    Column("allow_below_cost", Boolean, nullable=False, server_default="false"),
    Column("refund_on_reversal", Boolean, nullable=False, server_default="true"),
    Column("carriers", ARRAY(Text), nullable=False, server_default=text("'{}'")),  # of mobile targets; none named: any
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("product_type IN ('topup', 'card', 'voucher')", name="product_type"),
    CheckConstraint("status IN ('on_sale', 'paused', 'retired')", name="status"),
    CheckConstraint(
        "(face_value IS NOT NULL AND face_min IS NULL AND face_max IS NULL AND face_step IS NULL) OR "
        "(face_value IS NULL AND face_min > 0 AND face_max >= face_min AND face_step > 0)",
        name="fixed_or_ranged",
    ),
)

# The price of a SKU: for everybody, for a merchant level (会员等级), or for one merchant (密价). The narrowest wins.
prices = Table(
    "prices",
    metadata,
    Column("price_id", Uuid, primary_key=True),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("level", Text),
    Column("merchant_id", Uuid),
    Column("unit_price", BigInteger),  # fixed face value
    Column("rate_ppm", BigInteger),  # ranged: price per face value, parts per million
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("sku", "level", "merchant_id", postgresql_nulls_not_distinct=True),
    CheckConstraint("num_nonnulls(level, merchant_id) <= 1", name="one_scope"),
    CheckConstraint("num_nonnulls(unit_price, rate_ppm) = 1", name="one_price"),
    CheckConstraint("unit_price > 0 OR rate_ppm > 0", name="positive"),
)

# A SKU marked here may be bought only by the merchants listed; without rows it is open to all.
product_grants = Table(
    "product_grants",
    metadata,
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("merchant_id", Uuid, nullable=False),
    PrimaryKeyConstraint("sku", "merchant_id"),
)

# What is printed on a product's card or shown as its QR. `barcode` is its one spelling (barcodes.key_of), `shown` as the operator said it.
product_barcodes = Table(
    "product_barcodes",
    metadata,
    Column("barcode", Text, primary_key=True),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("shown", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_product_barcodes_sku", "sku"),
)

# The change feed: since which version of the catalogue a book sees another price or status of a SKU; see changes.py.
product_marks = Table(
    "product_marks",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("price_version", BigInteger, nullable=False, server_default="0"),
    Column("status_version", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("book_id", "sku"),
    Index("ix_product_marks_book_id_version", "book_id", "version", "sku"),
)

# The same for what every book of an environment sees alike: stock and description.
catalog_marks = Table(
    "catalog_marks",
    metadata,
    Column("environment", Text, nullable=False),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("stock_version", BigInteger, nullable=False, server_default="0"),
    Column("details_version", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("environment", "sku"),
    Index("ix_catalog_marks_environment_version", "environment", "version", "sku"),
)

# A configured connection to a supplier (渠道).
channels = Table(
    "channels",
    metadata,
    Column("channel_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("adapter", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="enabled"),
    Column("settings_sealed", LargeBinary, nullable=False),
    Column("callback_token_hash", LargeBinary, nullable=False, unique=True),
    Column("callback_token_sealed", LargeBinary, nullable=False),
    Column("concurrency", Integer, nullable=False, server_default="100"),
    Column("wallet_low_at", BigInteger),
    Column("wallet_balance", BigInteger),
    Column("wallet_checked_at", DateTime(timezone=True)),
    Column("wallet_floor", BigInteger),  # below it no new orders
    Column("wallet_resume_at", BigInteger),  # and then none until it holds so much again; NULL: as soon as the floor is reached
    Column("wallet_hours_left", SmallInteger),  # tell somebody when it lasts for less
    Column("wallet_paused_at", DateTime(timezone=True)),
    Column("no_orders_after", DateTime(timezone=True)),  # a document it must have ends then
    Column("statement_note", Text),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("environment IN ('live', 'test')", name="environment"),
    CheckConstraint("status IN ('enabled', 'disabled')", name="status"),
    CheckConstraint("wallet_resume_at IS NULL OR wallet_resume_at >= wallet_floor", name="resume"),
)

# Channel × SKU: the supplier's product code and what it costs us.
offers = Table(
    "offers",
    metadata,
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("product_code", Text, nullable=False),
    Column("unit_cost", BigInteger),
    Column("rate_ppm", BigInteger),
    Column("stock", Integer),
    Column("status", Text, nullable=False, server_default="enabled"),
    Column("held", Text),  # why nobody buys of it until a person has looked: price, margin, changed, currency, gone
    Column("quoted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),  # when its cost was last said
    Column("stocked_at", DateTime(timezone=True)),  # when its stock was last read while something was closed for want of it
    Column("listed_at", DateTime(timezone=True)),  # when it was last seen on sale while it was closed as off sale
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("channel_id", "sku"),
    Index("ix_offers_sku", "sku"),
    Index("ix_offers_product_code", "channel_id", "product_code"),
    CheckConstraint("held IN ('price', 'margin', 'changed', 'currency', 'gone')", name="held"),
    CheckConstraint("num_nonnulls(unit_cost, rate_ppm) = 1", name="one_cost"),
    CheckConstraint("unit_cost >= 0 OR rate_ppm >= 0", name="not_negative"),
    CheckConstraint("status IN ('enabled', 'disabled')", name="status"),
)

# What we reckoned with, since when, and on whose word: never changed, never deleted.
offer_costs = Table(
    "offer_costs",
    metadata,
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("sku", Text, ForeignKey("products.sku"), nullable=False),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("unit_cost", BigInteger),
    Column("rate_ppm", BigInteger),
    Column("said_by", Text, nullable=False),
    PrimaryKeyConstraint("channel_id", "sku", "since"),
    CheckConstraint("num_nonnulls(unit_cost, rate_ppm) = 1", name="one_cost"),
)

# The operator's hand on routing (路由): pins, bans, weights, windows and the like, one row each. What `kind` and `facts` may be stands in
# hand.py. A row past `expires_at` counts no more and is thrown away by age.
routing_rules = Table(
    "routing_rules",
    metadata,
    Column("rule_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("channel_id", Text, ForeignKey("channels.channel_id")),
    Column("sku", Text, ForeignKey("products.sku")),
    Column("merchant_id", Uuid),
    Column("level", Text),
    Column("name", Text, nullable=False, server_default=""),  # tells several of one kind and scope apart
    Column("facts", JSONB, nullable=False),
    Column("starts_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # One name: the metadata's convention would name the index after its first column only.
    UniqueConstraint(
        "kind", "channel_id", "sku", "merchant_id", "level", "name", name="uq_routing_rules_scope", postgresql_nulls_not_distinct=True
    ),
    CheckConstraint(
        "kind IN ('pin', 'ban', 'allow', 'weight', 'commitment', 'maintenance', 'force', 'stakes', 'terms', 'needs')", name="kind"
    ),
    CheckConstraint("num_nonnulls(level, merchant_id) <= 1", name="one_buyer"),
    CheckConstraint("expires_at > starts_at", name="period"),
)

# One row; grows with every change in this room, so that processes know when their copy is stale.
catalog_version = Table(
    "catalog_version",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default="true"),
    Column("version", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("singleton", name="one_row"),
)
