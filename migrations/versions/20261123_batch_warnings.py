"""What a merchant should know of a file that was read: columns that mean nothing to us

Revision ID: 20261123_batch_warnings
Revises: 20261123_claims
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_batch_warnings"
down_revision = "20261123_claims"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("warnings", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("batches", "warnings")
