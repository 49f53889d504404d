"""Merchant statements, and books whose postings are stopped

Revision ID: 20261122_statements
Revises: 20261122_reconciliation
"""

revision = "20261122_statements"
down_revision = "20261122_reconciliation"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
