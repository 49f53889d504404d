"""Approved claims leave the open breaks: a further difference of the same purchase is a break beside them; runs name their terms

Revision ID: 20261123_claims
Revises: 20261123_balance
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261123_claims"
down_revision = "20261123_balance"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recon_runs", sa.Column("terms", postgresql.JSONB(), server_default="[]", nullable=False))
    op.drop_index("uq_recon_breaks_open", table_name="recon_breaks")
    op.create_index(
        "uq_recon_breaks_open", "recon_breaks", ["subject", "class"], unique=True, postgresql_where=sa.text("state NOT IN ('closed', 'approved')")
    )


def downgrade() -> None:
    op.drop_index("uq_recon_breaks_open", table_name="recon_breaks")
    op.create_index("uq_recon_breaks_open", "recon_breaks", ["subject", "class"], unique=True, postgresql_where=sa.text("state <> 'closed'"))
    op.drop_column("recon_runs", "terms")
