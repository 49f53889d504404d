"""What suppliers list, what they asked since when, and what a person must say about it

Revision ID: 20261123_catalog_sync
Revises: 20261123_supplier_desk
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261123_catalog_sync"
down_revision = "20261123_supplier_desk"
branch_labels = None
depends_on = None


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def _now() -> sa.TextClause:
    return sa.text("now()")


def upgrade() -> None:
    op.add_column("offers", sa.Column("held", sa.Text()))
    op.add_column("offers", sa.Column("stocked_at", sa.DateTime(timezone=True)))
    op.add_column("offers", sa.Column("listed_at", sa.DateTime(timezone=True)))
    op.create_check_constraint(op.f("ck_offers_held"), "offers", "held IN ('price', 'margin', 'changed', 'currency', 'gone')")
    op.create_index("ix_offers_product_code", "offers", ["channel_id", "product_code"], unique=False)
    _offer_costs()
    _supplier_lists()
    _supplier_products()
    _supplier_costs()
    _offer_reviews()
    _catalog_syncs()
    _catalog_hints()
    op.execute(
        "INSERT INTO offer_costs (channel_id, sku, since, unit_cost, rate_ppm, said_by) "
        "SELECT channel_id, sku, quoted_at, unit_cost, rate_ppm, 'before the upgrade' FROM offers"
    )
    role = _role()
    op.execute(f"GRANT SELECT, INSERT ON offer_costs, supplier_costs TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON supplier_lists, supplier_products, offer_reviews, catalog_syncs, catalog_hints TO {role}")


def _offer_costs() -> None:
    op.create_table(
        "offer_costs",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("unit_cost", sa.BigInteger(), nullable=True),
        sa.Column("rate_ppm", sa.BigInteger(), nullable=True),
        sa.Column("said_by", sa.Text(), nullable=False),
        sa.CheckConstraint("num_nonnulls(unit_cost, rate_ppm) = 1", name=op.f("ck_offer_costs_one_cost")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_offer_costs_channel_id")),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_offer_costs_sku")),
        sa.PrimaryKeyConstraint("channel_id", "sku", "since", name=op.f("pk_offer_costs")),
    )


def _supplier_lists() -> None:
    op.create_table(
        "supplier_lists",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("every_s", sa.Integer(), nullable=False),
        sa.Column("changes_every_s", sa.Integer(), nullable=False),
        sa.Column("pause_ms", sa.Integer(), server_default="200", nullable=False),
        sa.Column("terms", JSONB(), server_default="{}", nullable=False),
        sa.Column("next_full_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_changes_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=True),
        sa.Column("whole_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changes_upto", sa.DateTime(timezone=True), nullable=True),
        sa.Column("numbered", sa.Integer(), server_default="0", nullable=False),
        sa.Column("may_vanish", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.CheckConstraint("(lease IS NULL) = (lease_until IS NULL)", name=op.f("ck_supplier_lists_lease")),
        sa.CheckConstraint("every_s >= 60 AND changes_every_s >= 10 AND pause_ms BETWEEN 0 AND 60000", name=op.f("ck_supplier_lists_clock")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_supplier_lists_channel_id")),
        sa.PrimaryKeyConstraint("channel_id", name=op.f("pk_supplier_lists")),
        postgresql_with={"fillfactor": "50"},
    )


def _supplier_products() -> None:
    op.create_table(
        "supplier_products",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("product_code", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("product_type", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("face_value", sa.BigInteger(), nullable=True),
        sa.Column("face_min", sa.BigInteger(), nullable=True),
        sa.Column("face_max", sa.BigInteger(), nullable=True),
        sa.Column("fields", JSONB(), server_default="[]", nullable=False),
        sa.Column("min_units", sa.Integer(), nullable=False),
        sa.Column("max_units", sa.Integer(), nullable=True),
        sa.Column("stock", sa.Integer(), nullable=True),
        sa.Column("available", sa.Boolean(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_supplier_products_channel_id")),
        sa.PrimaryKeyConstraint("channel_id", "product_code", name=op.f("pk_supplier_products")),
        postgresql_with={"fillfactor": "80"},
    )


def _supplier_costs() -> None:
    op.create_table(
        "supplier_costs",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("product_code", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("sync_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("channel_id", "product_code", "since", name=op.f("pk_supplier_costs")),
    )


def _offer_reviews() -> None:
    op.create_table(
        "offer_reviews",
        sa.Column("review_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("product_code", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("change_ppm", sa.BigInteger(), nullable=True),
        sa.Column("facts", JSONB(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'open') = (decided_at IS NULL)", name=op.f("ck_offer_reviews_decided")),
        sa.CheckConstraint("kind IN ('new', 'price_up', 'price_down', 'below_cost', 'gone', 'changed', 'currency')", name=op.f("ck_offer_reviews_kind")),
        sa.CheckConstraint("state IN ('open', 'approved', 'rejected', 'ignored', 'overtaken')", name=op.f("ck_offer_reviews_state")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_offer_reviews_channel_id")),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_offer_reviews")),
    )
    op.create_index("ix_offer_reviews_line", "offer_reviews", ["channel_id", "product_code", "review_id"], unique=False)
    op.create_index("ix_offer_reviews_state", "offer_reviews", ["state", "kind", "review_id"], unique=False)
    op.create_index("uq_offer_reviews_open", "offer_reviews", ["channel_id", "product_code", "sku", "kind"], unique=True, postgresql_where=sa.text("state = 'open'"))


def _catalog_syncs() -> None:
    op.create_table(
        "catalog_syncs",
        sa.Column("sync_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=True),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("added", sa.Integer(), server_default="0", nullable=False),
        sa.Column("changed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("gone", sa.Integer(), server_default="0", nullable=False),
        sa.Column("applied", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reviews", sa.Integer(), server_default="0", nullable=False),
        sa.Column("missing", sa.Integer(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('full', 'changes', 'hints')", name=op.f("ck_catalog_syncs_kind")),
        sa.CheckConstraint("state IN ('running', 'done', 'failed', 'stopped', 'lost')", name=op.f("ck_catalog_syncs_state")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_catalog_syncs_channel_id")),
        sa.PrimaryKeyConstraint("sync_id", name=op.f("pk_catalog_syncs")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index("ix_catalog_syncs_channel", "catalog_syncs", ["channel_id", "sync_id"], unique=False)
    op.create_index("ix_catalog_syncs_running", "catalog_syncs", ["channel_id"], unique=False, postgresql_where=sa.text("state = 'running'"))


def _catalog_hints() -> None:
    op.create_table(
        "catalog_hints",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("product_code", sa.Text(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_catalog_hints_channel_id")),
        sa.PrimaryKeyConstraint("channel_id", "product_code", name=op.f("pk_catalog_hints")),
    )


def downgrade() -> None:
    for table in ("catalog_hints", "catalog_syncs", "offer_reviews", "supplier_costs", "supplier_products", "supplier_lists", "offer_costs"):
        op.drop_table(table)
    op.drop_index("ix_offers_product_code", table_name="offers")
    op.drop_constraint(op.f("ck_offers_held"), "offers")
    op.drop_column("offers", "listed_at")
    op.drop_column("offers", "stocked_at")
    op.drop_column("offers", "held")
