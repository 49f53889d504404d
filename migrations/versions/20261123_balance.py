"""Balance: thresholds, what was told of them

Revision ID: 20261123_balance
Revises: 20261123_counter
"""

import sqlalchemy as sa
from alembic import context, op

revision = "20261123_balance"
down_revision = "20261123_counter"
branch_labels = None
depends_on = None


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def upgrade() -> None:
    op.create_table(
        "balance_samples",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "currency", "at", name=op.f("pk_balance_samples")),
    )
    op.create_table(
        "burn_rates",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("last_hour", sa.BigInteger(), nullable=False),
        sa.Column("last_day", sa.BigInteger(), nullable=False),
        sa.Column("last_week", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "currency", name=op.f("pk_burn_rates")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "balance_alerts",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("hours_left", sa.Integer(), nullable=True),
        sa.Column("low_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_balance_alerts_amount")),
        sa.CheckConstraint("hours_left > 0", name=op.f("ck_balance_alerts_hours_left")),
        sa.CheckConstraint("(low_since IS NULL) = (reason IS NULL)", name=op.f("ck_balance_alerts_low")),
        sa.PrimaryKeyConstraint("book_id", "currency", name=op.f("pk_balance_alerts")),
    )
    role = _role()
    op.execute(f"GRANT SELECT, INSERT, DELETE ON balance_samples TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON burn_rates, balance_alerts TO {role}")


def downgrade() -> None:
    op.drop_table("balance_alerts")
    op.drop_table("burn_rates")
    op.drop_table("balance_samples")
