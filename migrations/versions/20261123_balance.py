"""Balance: thresholds, what was told of them

Revision ID: 20261123_balance
Revises: 20261123_counter
"""

revision = "20261123_balance"
down_revision = "20261123_counter"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
