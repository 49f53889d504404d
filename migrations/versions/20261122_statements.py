"""Merchant statements, and books whose postings are stopped

Revision ID: 20261122_statements
Revises: 20261122_reconciliation
"""

import sqlalchemy as sa
from alembic import context, op

revision = "20261122_statements"
down_revision = "20261122_reconciliation"
branch_labels = None
depends_on = None

# Called for rows of a stopped book only; raising is what it is for. KM001 is `kit.sets.REFUSED`.
_REFUSE = """
CREATE FUNCTION refuse_stopped_book(book_id bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'postings of book % are stopped', book_id USING ERRCODE = 'KM001';
END $$
"""


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def _now() -> sa.TextClause:
    return sa.text("now()")


def upgrade() -> None:
    _stops()
    _statements()
    role = _role()
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON stopped_books, chain_marks, statements TO {role}")
    op.execute(f"GRANT SELECT, INSERT ON statement_days, statement_keys TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON statement_chunks TO {role}")  # what a maker that died left behind
    op.execute("REVOKE ALL ON FUNCTION refuse_stopped_book(bigint) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION refuse_stopped_book(bigint) TO {role}")


def _stops() -> None:
    op.create_table(
        "stopped_books",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("stop_id", sa.Uuid(), nullable=False),
        sa.Column("invariant", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("marks", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("stopped_by", sa.Text(), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("lift_asked_by", sa.Text(), nullable=True),
        sa.Column("lift_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name=op.f("ck_stopped_books_lifted")),
        sa.ForeignKeyConstraint(["book_id"], ["books.book_id"], name=op.f("fk_stopped_books_book_id")),
        sa.PrimaryKeyConstraint("book_id", "stop_id", name=op.f("pk_stopped_books")),
    )
    op.create_index(
        "uq_stopped_books_open", "stopped_books", ["book_id"], unique=True, postgresql_where=sa.text("lifted_at IS NULL")
    )
    op.execute(_REFUSE)
    op.create_table(
        "chain_marks",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "account", "currency", name=op.f("pk_chain_marks")),
        postgresql_with={"fillfactor": "50"},
    )


def _statements() -> None:
    op.create_table(
        "statement_days",
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ends_at", name=op.f("pk_statement_days")),
    )
    op.create_table(
        "statement_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_statement_keys")),
    )
    op.create_table(
        "statements",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("from_version", sa.BigInteger(), nullable=False),
        sa.Column("to_version", sa.BigInteger(), nullable=False),
        sa.Column("opening", sa.BigInteger(), nullable=False),
        sa.Column("closing", sa.BigInteger(), nullable=False),
        sa.Column("cut_at", sa.DateTime(timezone=True), server_default=_now(), nullable=False),
        sa.Column("make_id", sa.Uuid(), nullable=True),
        sa.Column("making_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("manifest", sa.LargeBinary(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.CheckConstraint("to_version >= from_version", name=op.f("ck_statements_versions")),
        sa.CheckConstraint("(ready_at IS NULL) = (manifest IS NULL)", name=op.f("ck_statements_ready")),
        sa.PrimaryKeyConstraint("book_id", "currency", "day", name=op.f("pk_statements")),
    )
    op.create_index("ix_statements_due", "statements", ["ends_at"], unique=False, postgresql_where=sa.text("ready_at IS NULL"))
    op.create_table(
        "statement_chunks",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("make_id", sa.Uuid(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "make_id", "format", "n", name=op.f("pk_statement_chunks")),
    )


def downgrade() -> None:
    op.drop_table("statement_chunks")
    op.drop_index("ix_statements_due", table_name="statements")
    op.drop_table("statements")
    op.drop_table("statement_keys")
    op.drop_table("statement_days")
    op.drop_table("chain_marks")
    op.execute("DROP FUNCTION refuse_stopped_book(bigint)")
    op.drop_index("uq_stopped_books_open", table_name="stopped_books")
    op.drop_table("stopped_books")
