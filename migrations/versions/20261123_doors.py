"""Doors: accounts of foreign protocols, and the numbers of which they were told that no order stands under them

Revision ID: 20261123_doors
Revises: 20261123_catalog_sync
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "20261123_doors"
down_revision = "20261123_catalog_sync"
branch_labels = None
depends_on = None


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def _now() -> sa.TextClause:
    return sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "door_accounts",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("secrets_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("products", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("own_skus", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("cidrs", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("reads_per_s", sa.BigInteger(), nullable=True),
        sa.Column("writes_per_s", sa.BigInteger(), nullable=True),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.ForeignKeyConstraint(["book_id"], ["books.book_id"], name=op.f("fk_door_accounts_book_id_books")),
        sa.PrimaryKeyConstraint("book_id", "account_id", name=op.f("pk_door_accounts")),
        sa.UniqueConstraint("door", "account", name=op.f("uq_door_accounts_door_account")),
    )
    op.create_table(
        "closed_numbers",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("merchant_order_no", sa.Text(), nullable=False),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "merchant_order_no", name=op.f("pk_closed_numbers")),
    )
    role = _role()
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON door_accounts TO {role}")
    op.execute(f"GRANT SELECT, INSERT ON closed_numbers TO {role}")


def downgrade() -> None:
    op.drop_table("closed_numbers")
    op.drop_table("door_accounts")
