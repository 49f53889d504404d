"""Due work is rows, inserted in the transaction that made it due."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from kameng_api.kit.tables import metadata

# A lease token is never used twice, even when a task is finished and made due again.
lease_tokens = Sequence("lease_tokens", metadata=metadata)

# One row per (book, lane, ref): making the same work due twice is making it due. A finished task is deleted in its effect's transaction.
tasks = Table(
    "tasks",
    metadata,
    Column("book_id", BigInteger, nullable=False),
    Column("lane", Text, nullable=False),
    Column("ref", Uuid, nullable=False),
    Column("state", Text, nullable=False, server_default="ready"),
    Column("run_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("lease_until", DateTime(timezone=True)),
    Column("worker", Text),
    Column("trouble", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("book_id", "lane", "ref"),
    CheckConstraint("state IN ('ready', 'running', 'parked')", name="state"),
    Index("ix_tasks_due", "lane", "run_at", postgresql_where=text("state = 'ready'")),
    Index("ix_tasks_parked", "lane", "run_at", postgresql_where=text("state = 'parked'")),
    Index("ix_tasks_leased", "lane", "lease_until", postgresql_where=text("state = 'running'")),
    postgresql_with={
        "fillfactor": "70",
        "autovacuum_vacuum_scale_factor": "0.01",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

# When a chore of the clock last ran anywhere, so that many workers do not repeat it.
chores = Table(
    "chores",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ran_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
