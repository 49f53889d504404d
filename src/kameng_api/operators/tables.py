"""Who runs the platform: bearer tokens with roles, second signatures, and the audit trail."""

from sqlalchemy import CheckConstraint, Column, DateTime, Index, LargeBinary, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB

from kameng_api.kit.tables import metadata

operators = Table(
    "operators",
    metadata,
    Column("operator_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("role IN ('viewer', 'support', 'finance', 'admin')", name="role"),
)

# A money movement above the set amount waits here for a second person.
approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", Uuid, primary_key=True),
    Column("action", Text, nullable=False),
    Column("arguments", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("made_by", Text, nullable=False),
    Column("decided_by", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("decided_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('waiting', 'approved', 'rejected')", name="state"),
    CheckConstraint("decided_by IS NULL OR decided_by <> made_by OR state = 'rejected'", name="two_people"),
    Index("ix_approvals_waiting", "created_at", postgresql_where=text("state = 'waiting'")),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("entry_id", Uuid, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("facts", JSONB, nullable=False, server_default="{}"),
    Column("request_id", Text),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_audit_entries_subject", "subject", "entry_id"),
)
