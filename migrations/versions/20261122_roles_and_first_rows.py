"""What the application role may do, the lease sequence, and the rows that exist exactly once

Revision ID: 20261122_roles
Revises: 20261122_skeleton
"""

from alembic import context, op

revision = "20261122_roles"
down_revision = "20261122_skeleton"
branch_labels = None
depends_on = None

# Append-only: the role the application runs as can write a fact once and never change it.
APPEND_ONLY = ("transfers", "funding_receipts", "audit_entries", "code_reveals", "code_fingerprints", "refunds", "codes")
# Changed but never deleted: books and orders are kept for ever.
NEVER_DELETED = ("books", "accounts", "rollups", "rollup_marks", "fanout_marks", "orders", "attempts", "merchants",
                 "api_keys", "incidents", "approvals", "operators", "catalog_version")  # fmt: skip


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def upgrade() -> None:
    role = _role()
    op.execute("CREATE SEQUENCE lease_tokens AS bigint CACHE 64")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    op.execute(f"GRANT USAGE ON SEQUENCE lease_tokens TO {role}")
    for table in APPEND_ONLY:
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {role}")
    for table in NEVER_DELETED:
        op.execute(f"REVOKE DELETE, TRUNCATE ON {table} FROM {role}")
    op.execute(f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON alembic_version FROM {role}")
    op.execute("INSERT INTO books (book_id, merchant_id, environment) VALUES (1, NULL, 'live'), (2, NULL, 'test')")
    op.execute("INSERT INTO rollup_marks (book_range, upto_xid) VALUES (0, 0)")
    op.execute("INSERT INTO fanout_marks (book_range, upto_xid) VALUES (0, 0)")
    op.execute("INSERT INTO catalog_version (singleton, version) VALUES (true, 1)")


def downgrade() -> None:
    role = _role()
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
    op.execute("DELETE FROM catalog_version")
    op.execute("DELETE FROM fanout_marks")
    op.execute("DELETE FROM rollup_marks")
    op.execute("DELETE FROM books WHERE merchant_id IS NULL")
    op.execute("DROP SEQUENCE lease_tokens")
