"""Batches and imports: a merchant's files, their rows, and what became of each

Revision ID: 20261123_batches
Revises: 20261122_evidence
"""

revision = "20261123_batches"
down_revision = "20261122_evidence"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
