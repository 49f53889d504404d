"""The counter: barcodes, the change feed of products, numbers and their carriers

Revision ID: 20261123_counter
Revises: 20261123_batches
"""

import sqlalchemy as sa
from alembic import context, op

revision = "20261123_counter"
down_revision = "20261123_batches"
branch_labels = None
depends_on = None


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def upgrade() -> None:
    op.add_column("products", sa.Column("carriers", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.create_table(
        "product_barcodes",
        sa.Column("barcode", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_product_barcodes_sku_products")),
        sa.PrimaryKeyConstraint("barcode", name=op.f("pk_product_barcodes")),
    )
    op.create_index("ix_product_barcodes_sku", "product_barcodes", ["sku"], unique=False)
    op.create_table(
        "product_marks",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("price_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("status_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_product_marks_sku_products")),
        sa.PrimaryKeyConstraint("book_id", "sku", name=op.f("pk_product_marks")),
    )
    op.create_index("ix_product_marks_book_id_version", "product_marks", ["book_id", "version", "sku"], unique=False)
    op.create_table(
        "catalog_marks",
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("stock_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("details_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_catalog_marks_sku_products")),
        sa.PrimaryKeyConstraint("environment", "sku", name=op.f("pk_catalog_marks")),
    )
    op.create_index("ix_catalog_marks_environment_version", "catalog_marks", ["environment", "version", "sku"], unique=False)
    role = _role()
    op.execute(f"GRANT SELECT, INSERT, DELETE ON product_barcodes TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON product_marks, catalog_marks TO {role}")


def downgrade() -> None:
    for table in ("catalog_marks", "product_marks", "product_barcodes"):
        op.drop_table(table)
    op.drop_column("products", "carriers")
