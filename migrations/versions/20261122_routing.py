"""The router's tables: the operator's hand, decisions by day, health, circuits, volumes

Revision ID: 20261122_routing
Revises: 20261122_roles
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "20261122_routing"
down_revision = "20261122_roles"
branch_labels = None
depends_on = None

# The application may not make or drop tables; this function lets it make the days ahead and drop the days that are over, and nothing else.
# A day whose rows already lie in the default partition stays there: a partition for it could not be attached.
_PARTITIONS = """
CREATE FUNCTION route_partitions(days_ahead integer, days_kept integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  today date := (now() AT TIME ZONE 'UTC')::date;
  parent text;
  child text;
  wanted date;
  taken boolean;
  changed integer := 0;
BEGIN
  IF days_ahead IS NULL OR days_kept IS NULL OR days_ahead NOT BETWEEN 0 AND 31 OR days_kept NOT BETWEEN 1 AND 3650 THEN
    RAISE EXCEPTION 'days_ahead is 0 to 31, days_kept 1 to 3650' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('kameng:route_partitions', 0));
  FOREACH parent IN ARRAY ARRAY['route_decisions', 'route_inputs'] LOOP
    FOR wanted IN SELECT today + n FROM generate_series(0, days_ahead) AS n LOOP
      child := parent || '_p' || to_char(wanted, 'YYYYMMDD');
      CONTINUE WHEN to_regclass('public.' || quote_ident(child)) IS NOT NULL;
      EXECUTE format('SELECT EXISTS (SELECT FROM public.%I WHERE day = %L)', parent || '_default', wanted) INTO taken;
      CONTINUE WHEN taken;
      EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)', child, parent, wanted, wanted + 1);
      changed := changed + 1;
    END LOOP;
    FOR child IN
      SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = ('public.' || quote_ident(parent))::regclass AND c.relname ~ '_p[0-9]{8}$'
        AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - days_kept
    LOOP
      EXECUTE format('DROP TABLE public.%I', child);
      changed := changed + 1;
    END LOOP;
    EXECUTE format('DELETE FROM public.%I WHERE day < %L', parent || '_default', today - days_kept);
  END LOOP;
  RETURN changed;
END $$
"""


def _role() -> str:
    role = context.config.attributes.get("app_role") or "kameng_app"
    return '"' + role.replace('"', '""') + '"'


def upgrade() -> None:
    _hand()
    _decisions()
    _health()
    _grants()


def _hand() -> None:
    op.add_column("offers", sa.Column("quoted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False))
    op.execute("UPDATE offers SET quoted_at = updated_at")
    op.create_table(
        "routing_rules",
        sa.Column("rule_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=True),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("merchant_id", sa.Uuid(), nullable=True),
        sa.Column("level", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("facts", postgresql.JSONB(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("expires_at > starts_at", name=op.f("ck_routing_rules_period")),
        sa.CheckConstraint(
            "kind IN ('pin', 'ban', 'allow', 'weight', 'commitment', 'maintenance', 'force', 'stakes', 'terms', 'needs')",
            name=op.f("ck_routing_rules_kind"),
        ),
        sa.CheckConstraint("num_nonnulls(level, merchant_id) <= 1", name=op.f("ck_routing_rules_one_buyer")),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.channel_id"], name=op.f("fk_routing_rules_channel_id")),
        sa.ForeignKeyConstraint(["sku"], ["products.sku"], name=op.f("fk_routing_rules_sku")),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_routing_rules")),
        sa.UniqueConstraint(
            "kind", "channel_id", "sku", "merchant_id", "level", "name", name="uq_routing_rules_scope", postgresql_nulls_not_distinct=True
        ),
    )
    op.create_table(
        "channel_volumes",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "channel_id", "sku", name=op.f("pk_channel_volumes")),
    )


def _decisions() -> None:
    op.add_column("attempts", sa.Column("sku", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("price", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("loss_allowed", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("attempts", sa.Column("probe", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(op.f("ck_attempts_loss"), "attempts", "cost <= price OR loss_allowed")
    op.create_table(
        "route_decisions",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("inputs_id", sa.Uuid(), nullable=False),
        sa.Column("ask", sa.LargeBinary(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("book_id", "order_id", "n", "day", name=op.f("pk_route_decisions")),
        postgresql_partition_by="RANGE (day)",
    )
    op.create_table(
        "route_inputs",
        sa.Column("inputs_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("inputs_id", "day", name=op.f("pk_route_inputs")),
        postgresql_partition_by="RANGE (day)",
    )
    # So that no row is ever refused, whatever the upkeep has or has not done.
    op.execute("CREATE TABLE route_decisions_default PARTITION OF route_decisions DEFAULT")
    op.execute("CREATE TABLE route_inputs_default PARTITION OF route_inputs DEFAULT")
    op.execute(_PARTITIONS)
    op.execute("SELECT route_partitions(3, 3650)")


def _health() -> None:
    op.create_table(
        "route_snapshots",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stream_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_route_snapshots")),
    )
    op.create_table(
        "route_probes",
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "sku", name=op.f("pk_route_probes")),
    )
    # Few attempts are refused for stock, wallet, price or product; those of the last half hour close gates.
    op.create_index(
        "ix_attempts_gates", "attempts", ["settled_at"], unique=False,
        postgresql_where=sa.text("refusal IN ('out_of_stock', 'product_off', 'price_exceeded', 'wallet_empty')"),
    )  # fmt: skip
    op.create_table(
        "channel_transitions",
        sa.Column("transition_id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("transition_id", name=op.f("pk_channel_transitions")),
    )
    op.create_index("ix_channel_transitions_at", "channel_transitions", ["at"], unique=False, postgresql_using="brin")
    op.create_index("ix_channel_transitions_channel", "channel_transitions", ["channel_id", "at"], unique=False)


def _grants() -> None:
    role = _role()
    op.execute(f"GRANT SELECT, INSERT ON route_decisions, route_inputs TO {role}")  # facts: aged out by route_partitions alone
    op.execute(f"GRANT SELECT, INSERT, DELETE ON channel_transitions TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON routing_rules, channel_volumes, route_snapshots, route_probes TO {role}")
    op.execute("REVOKE ALL ON FUNCTION route_partitions(integer, integer) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION route_partitions(integer, integer) TO {role}")


def downgrade() -> None:
    op.execute("DROP FUNCTION route_partitions(integer, integer)")
    op.drop_index("ix_channel_transitions_channel", table_name="channel_transitions")
    op.drop_index("ix_channel_transitions_at", table_name="channel_transitions", postgresql_using="brin")
    op.drop_table("channel_transitions")
    op.drop_index("ix_attempts_gates", table_name="attempts")
    op.drop_table("route_probes")
    op.drop_table("route_snapshots")
    op.drop_table("route_inputs")
    op.drop_table("route_decisions")
    op.drop_constraint(op.f("ck_attempts_loss"), "attempts", type_="check")
    for column in ("probe", "loss_allowed", "price", "sku"):
        op.drop_column("attempts", column)
    op.drop_table("channel_volumes")
    op.drop_table("routing_rules")
    op.drop_column("offers", "quoted_at")
