"""The counter: barcodes, the change feed of products, numbers and their carriers

Revision ID: 20261123_counter
Revises: 20261123_batches
"""

revision = "20261123_counter"
down_revision = "20261123_batches"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
