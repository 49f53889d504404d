"""Their books beside ours: where statements come from, what they said, which attempt each line belongs to, and what does not agree.

None of these rows belongs to one order: a statement is about orders of many books, so its lines are unique by the supplier's own number.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kameng_api.kit.tables import metadata

# Where a channel's statements come from, and how far they are believed.
recon_sources = Table(
    "recon_sources",
    metadata,
    Column("source_id", Uuid, primary_key=True),
    Column("channel_id", Text, ForeignKey("channels.channel_id"), nullable=False),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False, server_default="CNY"),
    Column("timezone", Text, nullable=False, server_default="Asia/Shanghai"),
    Column("lag_s", Integer, nullable=False, server_default="0"),  # so long after midnight the day's statement is complete
    Column("complete", Boolean, nullable=False, server_default="false"),  # what is not on it did not happen
    Column("window_days", SmallInteger, nullable=False, server_default="2"),  # so long a line may be late (R2)
    Column("charges_at", Text, nullable=False, server_default="submission"),  # or 'success': a charge alone then proves the delivery
    Column("tolerance", BigInteger, nullable=False, server_default="100"),  # 1/10000 units per attempt: one fen
    Column("drift_limit", BigInteger),
    Column("mapping", JSONB),
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("kind IN ('fetch', 'upload')", name="kind"),
    CheckConstraint("charges_at IN ('submission', 'success')", name="charges_at"),
    CheckConstraint("window_days BETWEEN 0 AND 60 AND tolerance >= 0 AND lag_s >= 0", name="limits"),
    Index("ix_recon_sources_channel", "channel_id"),
)

# One telling of a day: a fetched statement or an uploaded file. The same bytes count once.
recon_files = Table(
    "recon_files",
    metadata,
    Column("file_id", Uuid, primary_key=True),
    Column("source_id", Uuid, ForeignKey("recon_sources.source_id"), nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="reading"),
    Column("rows_read", Integer, nullable=False, server_default="0"),
    Column("rows_new", Integer, nullable=False, server_default="0"),
    Column("rows_repeated", Integer, nullable=False, server_default="0"),
    Column("rows_bad", Integer, nullable=False, server_default="0"),
    Column("bad", JSONB, nullable=False, server_default="[]"),  # [[line, reason]], the first 200
    Column("opening", BigInteger),
    Column("closing", BigInteger),
    Column("by", Text, nullable=False),
    Column("accepted_by", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("accepted_at", DateTime(timezone=True)),
    UniqueConstraint("source_id", "sha256"),
    CheckConstraint("state IN ('reading', 'read', 'accepted', 'rejected', 'superseded')", name="state"),
    CheckConstraint("environment IN ('live', 'test')", name="environment"),
    Index("ix_recon_files_day", "channel_id", "day"),
)

# What a file said, before it counts: its lines land page by page once the whole of it was read and accepted.
recon_pages = Table(
    "recon_pages",
    metadata,
    Column("file_id", Uuid, nullable=False),
    Column("n", Integer, nullable=False),
    Column("lines", JSONB, nullable=False),
    Column("landed", Boolean, nullable=False, server_default="false"),
    PrimaryKeyConstraint("file_id", "n"),
)

# What a supplier's books say moved our wallet. Said once per their own number, however often the file is made; a line that the newest
# telling of its day no longer holds is withdrawn, not removed. No account is stored in clear.
recon_lines = Table(
    "recon_lines",
    metadata,
    Column("line_id", BigInteger, Identity(always=True), primary_key=True),
    Column("channel_id", Text, nullable=False),
    Column("ext_line_id", Text, nullable=False),
    Column("file_id", Uuid, nullable=False),  # no foreign keys here nor in matches: they cost more than the comparison, and nothing is deleted
    Column("line_no", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),  # signed: a charge is below zero
    Column("currency", Text, nullable=False),
    Column("reference", Text),
    Column("book_id", BigInteger),  # what our reference says, whether or not such an attempt exists
    Column("attempt_id", Uuid),
    Column("supplier_order_no", Text),
    Column("external_id", Text),
    Column("balance_after", BigInteger),
    Column("face_value", BigInteger),
    Column("units", Integer),
    Column("account_hash", LargeBinary),
    Column("withdrawn_at", DateTime(timezone=True)),
    UniqueConstraint("channel_id", "ext_line_id"),
    CheckConstraint("kind IN ('charge', 'refund', 'reversal', 'top_up', 'withdrawal', 'fee', 'other')", name="kind"),
    CheckConstraint("(book_id IS NULL) = (attempt_id IS NULL)", name="decoded"),
    Index("ix_recon_lines_day", "channel_id", "day", "line_id"),
)

# A comparison of one channel's day. One runs at a time; one that was cut off goes on where it was.
recon_runs = Table(
    "recon_runs",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("channel_id", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("by", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="running"),
    Column("step", Text, nullable=False, server_default="reference"),
    Column("place", Text, nullable=False, server_default=""),  # how far the step has come
    Column("counts", JSONB, nullable=False, server_default="{}"),
    Column("terms", JSONB, nullable=False, server_default="[]"),  # how far each source was believed when it began
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('running', 'done', 'failed')", name="state"),
    Index("uq_recon_runs_running", "channel_id", "day", unique=True, postgresql_where=text("state = 'running'")),
    Index("ix_recon_runs_started", "started_at"),
)

# Line and attempt belong together. A line belongs to one attempt: its number is the key.
recon_matches = Table(
    "recon_matches",
    metadata,
    Column("line_id", BigInteger, primary_key=True, autoincrement=False),
    Column("book_id", BigInteger, nullable=False),
    Column("attempt_id", Uuid, nullable=False),
    Column("rule", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),
    CheckConstraint("rule IN ('reference', 'order_no', 'person')", name="rule"),
    Index("ix_recon_matches_attempt", "book_id", "attempt_id"),
)

# Perhaps line and attempt belong together: shown to a person, believed by nobody.
recon_suggestions = Table(
    "recon_suggestions",
    metadata,
    Column("line_id", BigInteger, nullable=False),
    Column("book_id", BigInteger, nullable=False),
    Column("attempt_id", Uuid, nullable=False),
    Column("why", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),
    PrimaryKeyConstraint("line_id", "book_id", "attempt_id"),
)

# What does not agree. `amount`: how much more their books took from our wallet than ours did, 1/10000 units; below zero: less.
# `fingerprint`: the facts it rests on; a break that was resolved explains exactly these, and other facts make another break.
recon_breaks = Table(
    "recon_breaks",
    metadata,
    Column("break_id", Uuid, primary_key=True),
    Column("class", Text, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("book_id", BigInteger, nullable=False),  # where it is booked; the house's where no attempt is known
    Column("order_id", Uuid),
    Column("attempt_id", Uuid),
    Column("line_id", BigInteger),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),
    Column("owner", Text, nullable=False),
    Column("evidence", JSONB, nullable=False, server_default="{}"),
    Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("class_since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("run_id", Uuid),
    Column("resolution", Text),
    Column("note", Text),
    Column("automatic", Boolean, nullable=False, server_default="false"),
    Column("proposed_by", Text),
    Column("proposed_at", DateTime(timezone=True)),
    Column("approved_by", Text),
    Column("approved_at", DateTime(timezone=True)),
    Column("parked_by", Text),
    Column("parked_checked_by", Text),
    Column("parked_key", Text),  # the event that put it into suspense
    Column("event_key", Text),  # the event that resolved it
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_because", Text),
    CheckConstraint("class ~ '^R([1-9]|1[0-3])$'", name="class"),
    CheckConstraint("state IN ('open', 'waiting', 'proposed', 'approved', 'closed')", name="state"),
    CheckConstraint("environment IN ('live', 'test')", name="environment"),
    CheckConstraint("approved_by IS NULL OR approved_by <> proposed_by", name="two_people"),
    # Whatever a person resolves, two persons resolved; a machine may only do what statement evidence decides by itself.
    CheckConstraint(
        "resolution IS NULL OR state IN ('open', 'waiting', 'proposed') OR automatic OR (proposed_by IS NOT NULL AND approved_by IS NOT NULL)",
        name="checked",
    ),
    CheckConstraint("NOT automatic OR class IN ('R6', 'R7', 'R12')", name="automatic"),
    CheckConstraint("parked_key IS NULL OR (parked_by IS NOT NULL AND parked_checked_by IS NOT NULL)", name="parked"),
    CheckConstraint("parked_checked_by IS NULL OR parked_checked_by <> parked_by", name="parked_by_two"),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed"),
    # One that is not decided yet. An approved claim is: what is found beside it later is another break.
    Index("uq_recon_breaks_open", "subject", "class", unique=True, postgresql_where=text("state NOT IN ('closed', 'approved')")),
    Index("ix_recon_breaks_subject", "subject", "class"),
    Index("ix_recon_breaks_open", "channel_id", "first_seen_at", postgresql_where=text("state <> 'closed'")),
    Index("uq_recon_breaks_event", "event_key", unique=True, postgresql_where=text("event_key IS NOT NULL")),
)

# Who did what to a break, in order; only written.
recon_break_steps = Table(
    "recon_break_steps",
    metadata,
    Column("step_id", Uuid, primary_key=True),
    Column("break_id", Uuid, ForeignKey("recon_breaks.break_id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("facts", JSONB, nullable=False, server_default="{}"),
    Index("ix_recon_break_steps_break", "break_id"),
)

# A supplier's day as its lines add up: opening + top-ups − charges + refunds + other = closing, beside what the supplier says.
recon_days = Table(
    "recon_days",
    metadata,
    Column("channel_id", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("currency", Text, nullable=False),
    Column("opening", BigInteger),
    Column("top_ups", BigInteger, nullable=False, server_default="0"),
    Column("charges", BigInteger, nullable=False, server_default="0"),
    Column("refunds", BigInteger, nullable=False, server_default="0"),
    Column("other", BigInteger, nullable=False, server_default="0"),
    Column("closing", BigInteger),
    Column("theirs", BigInteger),
    Column("gap", BigInteger),
    Column("state", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("channel_id", "day", "currency"),
)

# What a supplier said our wallet holds, every few minutes.
wallet_snapshots = Table(
    "wallet_snapshots",
    metadata,
    Column("channel_id", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("balance", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    PrimaryKeyConstraint("channel_id", "at"),
)
