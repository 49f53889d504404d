"""The evidence chain: sealed blocks, heads, anchors; transaction ids that survive a logical restore

Revision ID: 20261122_evidence
Revises: 20261122_statements
"""

import sqlalchemy as sa
from alembic import context, op

revision = "20261122_evidence"
down_revision = "20261122_statements"
branch_labels = None
depends_on = None

# The house's transaction ids: PostgreSQL's own plus a shift, 0 until a dump is restored into a server that counts from the beginning.
# `kameng restore begin` writes both functions anew. They are inlined: a default costs what it cost before.
_FUNCTIONS = (
    "CREATE FUNCTION xid_now() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT (pg_current_xact_id()::text)::bigint + 0'",
    "CREATE FUNCTION xid_horizon() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint + 0'",
)
_OWN = "(pg_current_xact_id()::text)::bigint"


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def upgrade() -> None:
    for function in _FUNCTIONS:
        op.execute(function)
    for table in ("transfers", "events"):
        op.execute(f"ALTER TABLE {table} ALTER COLUMN xid SET DEFAULT xid_now()")
    _chain()
    _restores()
    _grants()


def _chain() -> None:
    op.create_table(
        "chain_state",
        sa.Column("book_range", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("upto_xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("book_range", name=op.f("pk_chain_state")),
    )
    op.create_table(
        "chain_blocks",
        sa.Column("book_range", sa.SmallInteger(), nullable=False),
        sa.Column("no", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("prev", sa.LargeBinary(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("from_xid", sa.BigInteger(), nullable=False),
        sa.Column("upto_xid", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("book_range", "no", name=op.f("pk_chain_blocks")),
    )
    op.create_index("ix_chain_blocks_xid", "chain_blocks", ["book_range", "upto_xid"], unique=False)
    # Hashes do not compress; out of the row, so that headers are read without them.
    op.execute("ALTER TABLE chain_blocks ALTER COLUMN leaves SET STORAGE EXTERNAL")
    op.create_table(
        "chain_facts",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("event_key", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("book_id", "event_key", name=op.f("pk_chain_facts")),
    )
    op.create_table(
        "chain_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_chain_keys")),
    )
    op.create_table(
        "chain_anchors",
        sa.Column("book_range", sa.SmallInteger(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("no", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("book_range", "target", "no", name=op.f("pk_chain_anchors")),
    )


def _restores() -> None:
    op.create_table(
        "database_identity",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=False),
        sa.Column("timeline_id", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_database_identity")),
    )
    op.create_table(
        "restores",
        sa.Column("restore_id", sa.Uuid(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("begun_by", sa.Text(), nullable=False),
        sa.Column("last_commit_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("xid_shift", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("restore_id", name=op.f("pk_restores")),
    )
    op.create_index(
        "uq_restores_open", "restores", [sa.literal_column("(ended_at IS NULL)")], unique=True, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_table(
        "restored_orders",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("restore_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("first_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("book_id", "order_id", "restore_id", name=op.f("pk_restored_orders")),
    )
    op.create_table(
        "restore_losses",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("restore_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("supplier_order_no", sa.Text(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "reference", "restore_id", name=op.f("pk_restore_losses")),
    )


def _grants() -> None:
    role = _role()
    op.execute(f"GRANT SELECT, INSERT ON chain_blocks, chain_facts, chain_keys, chain_anchors, database_identity TO {role}")
    op.execute(f"GRANT UPDATE (salt) ON chain_facts TO {role}")  # erasure: the salt goes, the leaf stays
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON chain_state TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON restored_orders TO {role}")
    op.execute(f"GRANT SELECT, INSERT ON restore_losses, restores TO {role}")
    op.execute(f"GRANT UPDATE (ended_at, ended_by) ON restores TO {role}")
    op.execute(f"GRANT UPDATE (seen_at) ON database_identity TO {role}")


def downgrade() -> None:
    for table in ("restore_losses", "restored_orders", "restores", "database_identity"):
        op.drop_table(table)
    for table in ("chain_anchors", "chain_keys", "chain_facts", "chain_blocks", "chain_state"):
        op.drop_table(table)
    for table in ("transfers", "events"):
        op.execute(f"ALTER TABLE {table} ALTER COLUMN xid SET DEFAULT {_OWN}")
    op.execute("DROP FUNCTION xid_horizon()")
    op.execute("DROP FUNCTION xid_now()")
