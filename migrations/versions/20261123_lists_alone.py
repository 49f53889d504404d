"""What a supplier's list tells and which lines it holds, apart from what a line tells when it is asked for alone; hints that are put off

Revision ID: 20261123_lists_alone
Revises: 20261123_doors
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_lists_alone"
down_revision = "20261123_doors"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("supplier_lists", sa.Column("tells", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("supplier_products", sa.Column("listed", sa.Boolean(), server_default="true", nullable=False))
    op.add_column("supplier_products", sa.Column("asked_alone", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("catalog_hints", sa.Column("failures", sa.Integer(), server_default="0", nullable=False))
    op.add_column("catalog_hints", sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False))


def downgrade() -> None:
    op.drop_column("catalog_hints", "due_at")
    op.drop_column("catalog_hints", "failures")
    op.drop_column("supplier_products", "asked_alone")
    op.drop_column("supplier_products", "listed")
    op.drop_column("supplier_lists", "tells")
