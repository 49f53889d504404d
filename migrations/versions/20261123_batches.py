"""Batches and imports: a merchant's files, their rows, and what became of each

Revision ID: 20261123_batches
Revises: 20261122_evidence
"""

import sqlalchemy as sa
from alembic import context, op

revision = "20261123_batches"
down_revision = "20261122_evidence"
branch_labels = None
depends_on = None


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def _now() -> sa.TextClause:
    return sa.text("now()")


def upgrade() -> None:
    _batches()
    _sent("batch_files")
    _sent("batch_pages")
    _items()
    role = _role()
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON batches, batch_items TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON batch_files, batch_pages TO {role}")


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("merchant_batch_no", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("validate_only", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), server_default="validating", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("invalid", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pages_validated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pages_placed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_detail", sa.Text(), nullable=True),
        sa.Column("final_counts", sa.Text(), nullable=True),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("validated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('json', 'file')", name=op.f("ck_batches_kind")),
        sa.CheckConstraint("invalid BETWEEN 0 AND total", name=op.f("ck_batches_invalid")),
        sa.CheckConstraint("pages_placed <= pages_validated AND pages_validated <= pages", name=op.f("ck_batches_pages")),
        sa.CheckConstraint(
            "state IN ('validating', 'validated', 'processing', 'completed', 'completed_with_errors', 'failed', 'cancelled')",
            name=op.f("ck_batches_state"),
        ),
        sa.PrimaryKeyConstraint("book_id", "batch_id", name=op.f("pk_batches")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index(
        "uq_batches_number", "batches", ["book_id", "merchant_batch_no"], unique=True, postgresql_where=sa.text("NOT validate_only")
    )
    op.create_index("ix_batches_number", "batches", ["book_id", "merchant_batch_no"], unique=False)
    op.create_index("ix_batches_open", "batches", ["book_id", "batch_id"], unique=False, postgresql_where=sa.text("final_counts IS NULL"))


def _sent(table: str) -> None:
    op.create_table(
        table,
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "batch_id", "n", name=op.f(f"pk_{table}")),
    )


def _items() -> None:
    op.create_table(
        "batch_items",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("part", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("merchant_order_no", sa.Text(), nullable=True),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("quantity", sa.Integer(), nullable=True),
        sa.Column("amount", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("merged_into", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_pointer", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'invalid', 'placed', 'duplicate', 'refused', 'unprocessed')", name=op.f("ck_batch_items_status")
        ),
        sa.PrimaryKeyConstraint("book_id", "batch_id", "line_no", "part", name=op.f("pk_batch_items")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_batch_items_page", "batch_items", ["book_id", "batch_id", "page"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_batch_items_page", table_name="batch_items")
    op.drop_table("batch_items")
    op.drop_table("batch_pages")
    op.drop_table("batch_files")
    op.drop_index("ix_batches_open", table_name="batches")
    op.drop_index("ix_batches_number", table_name="batches")
    op.drop_index("uq_batches_number", table_name="batches")
    op.drop_table("batches")
