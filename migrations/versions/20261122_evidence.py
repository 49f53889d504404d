"""The evidence chain: sealed blocks, heads, anchors

Revision ID: 20261122_evidence
Revises: 20261122_statements
"""

revision = "20261122_evidence"
down_revision = "20261122_statements"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
