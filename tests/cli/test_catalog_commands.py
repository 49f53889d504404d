"""`kameng catalog …` as people type it: what the worker read is seen, asked about and answered at the command line."""

import json

from tests.cli.test_cli import Kameng, kameng
from tests.factories.merchants import keyring_of

from kameng_api.catalog import actions as catalog
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Price, Product
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.settings import Settings
from kameng_api.suppliers.listings import actions, wishes
from kameng_api.suppliers.listings.rules import ListTerms
from kameng_api.suppliers.port import SupplierProduct

__all__ = ["kameng"]

LINE = SupplierProduct("10086", "Card 10", "card", 9_0000, "CNY", 5, True)


async def _read(tx: Tx, *lines: SupplierProduct) -> None:
    """What a worker does with one page."""
    await wishes.want_now(tx, "one", "a test")
    claim = await actions.claim_list(tx, [], 120, 60)
    assert claim is not None
    reading = await actions.begin(tx, claim, "full", 60)
    await actions.take_page(tx, reading, lines, claim.now)
    await actions.end(tx, reading, actions.End("done", whole=True))
    await actions.give_back(tx, claim, full=True, failed=False)


async def test_a_line_is_asked_about_sold_and_its_costs_are_told(kameng: Kameng, database: Database, settings: Settings) -> None:
    connection = {"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": "0123456789abcdef-very-secret"}
    async with database.transaction() as tx:
        await catalog.create_channel(tx, keyring_of(settings), NewChannel("one", "One", "simulator", "test", json.dumps(connection).encode()))
        await catalog.put_product(tx, Product("card-10", "Card", "card", face_value=10_0000))
        await catalog.set_price(tx, "card-10", Price(unit_price=12_0000))
        await wishes.set_list(tx, "one", wishes.ListWanted(True, 3600, 300, 0, ListTerms()))
        await _read(tx, LINE)
    [listed] = (await kameng("catalog", "lists")).json["items"]
    assert (listed["channel_id"], listed["every_s"], listed["asked_by"]) == ("one", 3600, None)
    assert (await kameng("catalog", "sync", "one")).json["asked_by"].startswith("cli:")
    [sync] = (await kameng("catalog", "syncs", "--channel", "one")).json["items"]
    assert (sync["state"], sync["added"], sync["reviews"]) == ("done", 1, 1)
    [review] = (await kameng("catalog", "reviews", "--kind", "new")).json["items"]
    assert review["product_code"] == "10086"
    assert (await kameng("catalog", "decide", review["id"], "approve")).status == 2, "as which SKU?"
    assert (await kameng("catalog", "decide", review["id"], "approve", "--sku", "card-10")).json["state"] == "approved"
    assert (await kameng("catalog", "link", "one", "10086", "card-10")).status == 2, "sold already"
    [asked] = (await kameng("catalog", "costs", "one", "--code", "10086")).json["items"]
    [reckoned] = (await kameng("catalog", "costs", "one", "--sku", "card-10")).json["items"]
    assert (asked["cost"], reckoned["unit_cost"], reckoned["said_by"].startswith("cli:")) == ("9.0000", "9.0000", True)
    assert (await kameng("catalog", "costs", "one")).status == 2
    assert (await kameng("catalog", "let-go", sync["id"], "--note", "x")).status == 2, "it waits for nobody"
    async with database.transaction() as tx:
        told = [r["action"] for r in await fetch(tx, "SELECT action FROM audit_entries ORDER BY entry_id")]
    assert told == ["supplier_list.asked", "offer_review.approved"]
