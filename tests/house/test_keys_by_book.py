"""Every row of an order can be found by its book, so that books can one day live on many servers."""

from sqlalchemy import DateTime, Numeric, PrimaryKeyConstraint, Table, UniqueConstraint

from kameng_api.tables import metadata

# Unique by an identity that lies outside an order: one bank transaction, one card code, one key, one callback.
# What one round of choices saw belongs to orders of many books.
EXEMPT = {"funding_receipts", "code_fingerprints", "api_keys", "door_accounts", "supplier_callbacks", "route_inputs"}
# A statement is about orders of many books: its lines are unique by the supplier's own number, and what does not agree may have no order at all.
EXEMPT |= {
    "recon_files", "recon_pages", "recon_lines", "recon_runs", "recon_matches", "recon_suggestions", "recon_breaks", "recon_break_steps",
    "recon_days",
    "wallet_snapshots",
}  # fmt: skip
# Small tables that every server would hold a copy of, and those about people and processes.
REFERENCE = {
    "products", "prices", "product_grants", "product_barcodes", "catalog_marks", "channels", "offers", "catalog_version",
    "routing_rules", "channel_volumes", "channel_transitions", "route_snapshots", "route_probes", "recon_sources",
    "books", "merchants", "delivery_keys", "statement_keys", "operators", "approvals", "audit_entries", "alarms", "chores",
    "chain_keys", "database_identity", "restores",
    "supplier_documents", "supplier_contacts", "supplier_notes", "wallet_burns",
    "offer_costs", "supplier_lists", "supplier_products", "supplier_costs", "offer_reviews", "catalog_syncs", "catalog_hints",
}  # fmt: skip
# One row for each range of books: they move with the range.
MARKS = {"rollup_marks", "fanout_marks", "statement_days", "chain_state", "chain_blocks", "chain_anchors"}


def _spread() -> list[Table]:
    return [table for name, table in metadata.tables.items() if name not in EXEMPT | REFERENCE | MARKS]


def test_the_lists_name_tables_that_exist() -> None:
    assert (EXEMPT | REFERENCE | MARKS) - set(metadata.tables) == set()


def test_the_tables_of_orders_and_money_are_not_on_a_list_of_exceptions() -> None:
    spread = {table.name for table in _spread()}
    assert {"orders", "attempts", "transfers", "accounts", "rollups", "refunds", "codes", "events", "tasks", "webhook_deliveries"} <= spread


def test_every_key_and_unique_index_begins_with_the_book() -> None:
    wrong = []
    for table in _spread():
        keys = [tuple(c.columns) for c in table.constraints if isinstance(c, PrimaryKeyConstraint | UniqueConstraint)]
        keys += [tuple(index.columns) for index in table.indexes if index.unique]
        wrong += [f"{table.name}({', '.join(c.name for c in key)})" for key in keys if not key or key[0].name != "book_id"]
    assert not wrong


def test_every_row_knows_its_book() -> None:
    assert [table.name for table in _spread() if "book_id" not in table.columns or table.columns["book_id"].nullable] == []


def test_rows_refer_to_each_other_within_one_book() -> None:
    crossing = [
        f"{table.name} -> {key.referred_table.name}"
        for table in _spread()
        for key in table.foreign_key_constraints
        if key.referred_table.name not in REFERENCE and "book_id" not in key.column_keys
    ]
    assert not crossing


def test_amounts_are_whole_numbers_and_times_know_their_zone() -> None:
    columns = [(f"{table.name}.{column.name}", column.type) for table in metadata.tables.values() for column in table.columns]
    assert [name for name, kind in columns if isinstance(kind, Numeric)] == []  # Float is one of them
    assert [name for name, kind in columns if isinstance(kind, DateTime) and not kind.timezone] == []
