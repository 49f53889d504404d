"""The supplier desk: papers, contacts, notes, what wallets burn, and when a channel pauses

Revision ID: 20261123_supplier_desk
Revises: 20261123_batch_warnings
"""

import sqlalchemy as sa
from alembic import context, op

revision = "20261123_supplier_desk"
down_revision = "20261123_batch_warnings"
branch_labels = None
depends_on = None

_ON_CHANNELS = ("wallet_floor", "wallet_resume_at", "wallet_hours_left", "wallet_paused_at", "no_orders_after")


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def _at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    op.add_column("channels", sa.Column("wallet_floor", sa.BigInteger()))
    op.add_column("channels", sa.Column("wallet_resume_at", sa.BigInteger()))
    op.add_column("channels", sa.Column("wallet_hours_left", sa.SmallInteger()))
    op.add_column("channels", sa.Column("wallet_paused_at", sa.DateTime(timezone=True)))
    op.add_column("channels", sa.Column("no_orders_after", sa.DateTime(timezone=True)))
    op.create_check_constraint(op.f("ck_channels_resume"), "channels", "wallet_resume_at IS NULL OR wallet_resume_at >= wallet_floor")
    op.create_table(
        "supplier_documents",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), server_default="", nullable=False),
        sa.Column("issuer", sa.Text(), server_default="", nullable=False),
        sa.Column("valid_from", sa.Date()),
        sa.Column("valid_until", sa.Date()),
        sa.Column("remind_days", sa.SmallInteger(), server_default="30", nullable=False),
        sa.Column("required", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("file_name", sa.Text()),
        sa.Column("file_type", sa.Text()),
        sa.Column("file_size", sa.Integer()),
        sa.Column("file_hash", sa.LargeBinary()),
        sa.Column("file_sealed", sa.LargeBinary()),
        sa.Column("created_by", sa.Text(), nullable=False),
        _at("created_at"),
        sa.Column("withdrawn_by", sa.Text()),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("valid_from IS NULL OR valid_until IS NULL OR valid_from <= valid_until", name=op.f("ck_supplier_documents_period")),
        sa.CheckConstraint("remind_days BETWEEN 0 AND 365", name=op.f("ck_supplier_documents_remind_days")),
        sa.CheckConstraint("(file_sealed IS NULL) = (file_hash IS NULL)", name=op.f("ck_supplier_documents_file")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_supplier_documents_channel_id_channels")),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_supplier_documents")),
    )
    op.create_index("ix_supplier_documents_channel", "supplier_documents", ["channel_id"], postgresql_where=sa.text("withdrawn_at IS NULL"))
    op.create_table(
        "supplier_contacts",
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("hours", sa.Text(), server_default="", nullable=False),
        sa.Column("person_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        _at("created_at"),
        _at("updated_at"),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_supplier_contacts_channel_id_channels")),
        sa.PrimaryKeyConstraint("contact_id", name=op.f("pk_supplier_contacts")),
    )
    op.create_index("ix_supplier_contacts_channel", "supplier_contacts", ["channel_id"])
    op.create_table(
        "supplier_notes",
        sa.Column("note_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        _at("at"),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_supplier_notes_channel_id_channels")),
        sa.PrimaryKeyConstraint("note_id", name=op.f("pk_supplier_notes")),
    )
    op.create_index("ix_supplier_notes_channel", "supplier_notes", ["channel_id", "note_id"])
    op.create_table(
        "wallet_burns",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "hour", name=op.f("pk_wallet_burns")),
    )
    role = _role()
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON supplier_documents TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON supplier_contacts TO {role}")
    op.execute(f"GRANT SELECT, INSERT ON supplier_notes TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON wallet_burns TO {role}")


def downgrade() -> None:
    for table in ("wallet_burns", "supplier_notes", "supplier_contacts", "supplier_documents"):
        op.drop_table(table)
    op.drop_constraint(op.f("ck_channels_resume"), "channels")
    for column in _ON_CHANNELS:
        op.drop_column("channels", column)
