"""The reconciliation room's tables: sources, files, lines, runs, matches, breaks

Revision ID: 20261122_reconciliation
Revises: 20261122_routing
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "20261122_reconciliation"
down_revision = "20261122_routing"
branch_labels = None
depends_on = None

_TABLES = (
    "recon_sources", "recon_files", "recon_pages", "recon_lines", "recon_runs", "recon_matches", "recon_suggestions", "recon_breaks",
    "recon_break_steps", "recon_days", "wallet_snapshots",
)  # fmt: skip


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def upgrade() -> None:
    _theirs()
    _comparison()
    _breaks()
    _wallets()
    _grants()


def _theirs() -> None:
    op.create_table(
        "recon_sources",
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), server_default="CNY", nullable=False),
        sa.Column("timezone", sa.Text(), server_default="Asia/Shanghai", nullable=False),
        sa.Column("lag_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("complete", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("window_days", sa.SmallInteger(), server_default="2", nullable=False),
        sa.Column("charges_at", sa.Text(), server_default="submission", nullable=False),
        sa.Column("tolerance", sa.BigInteger(), server_default="100", nullable=False),
        sa.Column("drift_limit", sa.BigInteger(), nullable=True),
        sa.Column("mapping", postgresql.JSONB(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("charges_at IN ('submission', 'success')", name=op.f('ck_recon_sources_charges_at')),
        sa.CheckConstraint("kind IN ('fetch', 'upload')", name=op.f('ck_recon_sources_kind')),
        sa.CheckConstraint("window_days BETWEEN 0 AND 60 AND tolerance >= 0 AND lag_s >= 0", name=op.f("ck_recon_sources_limits")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_recon_sources_channel_id")),
        sa.PrimaryKeyConstraint("source_id", name=op.f("pk_recon_sources")),
        sa.UniqueConstraint("name", name=op.f("uq_recon_sources_name")),
    )
    op.create_index("ix_recon_sources_channel", "recon_sources", ["channel_id"], unique=False)
    op.create_table(
        "recon_files",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="reading", nullable=False),
        sa.Column("rows_read", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rows_new", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rows_repeated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rows_bad", sa.Integer(), server_default="0", nullable=False),
        sa.Column("bad", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("opening", sa.BigInteger(), nullable=True),
        sa.Column("closing", sa.BigInteger(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("accepted_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("environment IN ('live', 'test')", name=op.f('ck_recon_files_environment')),
        sa.CheckConstraint("state IN ('reading', 'read', 'accepted', 'rejected', 'superseded')", name=op.f('ck_recon_files_state')),
        sa.ForeignKeyConstraint(["source_id"], ["recon_sources.source_id"], name=op.f("fk_recon_files_source_id")),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_recon_files")),
        sa.UniqueConstraint("source_id", "sha256", name=op.f("uq_recon_files_source_id_sha256")),
    )
    op.create_index("ix_recon_files_day", "recon_files", ["channel_id", "day"], unique=False)
    op.create_table(
        "recon_pages",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("lines", postgresql.JSONB(), nullable=False),
        sa.Column("landed", sa.Boolean(), server_default="false", nullable=False),
        sa.PrimaryKeyConstraint("file_id", "n", name=op.f("pk_recon_pages")),
    )
    op.create_table(
        "recon_lines",
        sa.Column("line_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("ext_line_id", sa.Text(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("book_id", sa.BigInteger(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("supplier_order_no", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("balance_after", sa.BigInteger(), nullable=True),
        sa.Column("face_value", sa.BigInteger(), nullable=True),
        sa.Column("units", sa.Integer(), nullable=True),
        sa.Column("account_hash", sa.LargeBinary(), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('charge', 'refund', 'reversal', 'top_up', 'withdrawal', 'fee', 'other')", name=op.f('ck_recon_lines_kind')),
        sa.CheckConstraint("(book_id IS NULL) = (attempt_id IS NULL)", name=op.f("ck_recon_lines_decoded")),
        sa.PrimaryKeyConstraint("line_id", name=op.f("pk_recon_lines")),
        sa.UniqueConstraint("channel_id", "ext_line_id", name=op.f("uq_recon_lines_channel_id_ext_line_id")),
    )
    op.create_index("ix_recon_lines_day", "recon_lines", ["channel_id", "day", "line_id"], unique=False)


def _comparison() -> None:
    op.create_table(
        "recon_runs",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("step", sa.Text(), server_default="reference", nullable=False),
        sa.Column("place", sa.Text(), server_default="", nullable=False),
        sa.Column("counts", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done', 'failed')", name=op.f('ck_recon_runs_state')),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_recon_runs")),
    )
    op.create_index("ix_recon_runs_started", "recon_runs", ["started_at"], unique=False)
    op.create_index('uq_recon_runs_running', 'recon_runs', ['channel_id', 'day'], unique=True, postgresql_where=sa.text("state = 'running'"))
    op.create_table(
        "recon_matches",
        sa.Column("line_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("rule IN ('reference', 'order_no', 'person')", name=op.f('ck_recon_matches_rule')),
        sa.PrimaryKeyConstraint("line_id", name=op.f("pk_recon_matches")),
    )
    op.create_index("ix_recon_matches_attempt", "recon_matches", ["book_id", "attempt_id"], unique=False)
    op.create_table(
        "recon_suggestions",
        sa.Column("line_id", sa.BigInteger(), nullable=False),
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("line_id", "book_id", "attempt_id", name=op.f("pk_recon_suggestions")),
    )


def _breaks() -> None:
    op.create_table(
        "recon_breaks",
        sa.Column("break_id", sa.Uuid(), nullable=False),
        sa.Column("class", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("line_id", sa.BigInteger(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("class_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("automatic", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=True),
        sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parked_by", sa.Text(), nullable=True),
        sa.Column("parked_checked_by", sa.Text(), nullable=True),
        sa.Column("parked_key", sa.Text(), nullable=True),
        sa.Column("event_key", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_because", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name=op.f('ck_recon_breaks_closed')),
        sa.CheckConstraint("NOT automatic OR class IN ('R6', 'R7', 'R12')", name=op.f('ck_recon_breaks_automatic')),
        sa.CheckConstraint("class ~ '^R([1-9]|1[0-3])$'", name=op.f('ck_recon_breaks_class')),
        sa.CheckConstraint("environment IN ('live', 'test')", name=op.f('ck_recon_breaks_environment')),
        sa.CheckConstraint("resolution IS NULL OR state IN ('open', 'waiting', 'proposed') OR automatic OR (proposed_by IS NOT NULL AND approved_by IS NOT NULL)", name=op.f('ck_recon_breaks_checked')),
        sa.CheckConstraint("state IN ('open', 'waiting', 'proposed', 'approved', 'closed')", name=op.f('ck_recon_breaks_state')),
        sa.CheckConstraint("approved_by IS NULL OR approved_by <> proposed_by", name=op.f("ck_recon_breaks_two_people")),
        sa.CheckConstraint("parked_key IS NULL OR (parked_by IS NOT NULL AND parked_checked_by IS NOT NULL)", name=op.f("ck_recon_breaks_parked")),
        sa.CheckConstraint("parked_checked_by IS NULL OR parked_checked_by <> parked_by", name=op.f("ck_recon_breaks_parked_by_two")),
        sa.PrimaryKeyConstraint("break_id", name=op.f("pk_recon_breaks")),
    )
    op.create_index('ix_recon_breaks_open', 'recon_breaks', ['channel_id', 'first_seen_at'], unique=False, postgresql_where=sa.text("state <> 'closed'"))
    op.create_index("ix_recon_breaks_subject", "recon_breaks", ["subject", "class"], unique=False)
    op.create_index("uq_recon_breaks_event", "recon_breaks", ["event_key"], unique=True, postgresql_where=sa.text("event_key IS NOT NULL"))
    op.create_index('uq_recon_breaks_open', 'recon_breaks', ['subject', 'class'], unique=True, postgresql_where=sa.text("state <> 'closed'"))
    op.create_table(
        "recon_break_steps",
        sa.Column("step_id", sa.Uuid(), nullable=False),
        sa.Column("break_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["break_id"], ["recon_breaks.break_id"], name=op.f("fk_recon_break_steps_break_id")),
        sa.PrimaryKeyConstraint("step_id", name=op.f("pk_recon_break_steps")),
    )
    op.create_index("ix_recon_break_steps_break", "recon_break_steps", ["break_id"], unique=False)


def _wallets() -> None:
    op.create_table(
        "recon_days",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("opening", sa.BigInteger(), nullable=True),
        sa.Column("top_ups", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("charges", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refunds", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("other", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("closing", sa.BigInteger(), nullable=True),
        sa.Column("theirs", sa.BigInteger(), nullable=True),
        sa.Column("gap", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "day", "currency", name=op.f("pk_recon_days")),
    )
    op.create_table(
        "wallet_snapshots",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "at", name=op.f("pk_wallet_snapshots")),
    )


def _grants() -> None:
    role = _role()
    # What a supplier said stays as it was said: a line can be withdrawn, and nothing else of it can change.
    op.execute(f"GRANT SELECT, INSERT ON recon_lines, recon_matches, recon_break_steps TO {role}")
    op.execute(f"GRANT UPDATE (withdrawn_at) ON recon_lines TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON recon_sources, recon_files, recon_runs, recon_breaks, recon_days TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON recon_pages TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON recon_suggestions, wallet_snapshots TO {role}")


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
