"""A supplier's list read whole, by change and by hint, with a line that is gone: a reader that dies leaves nothing half, and doubles nothing."""

import asyncio
from typing import Final

from tests.chaos.crash.scenarios import PATIENCE_S, Story, Told
from tests.chaos.crash.stage import Lane

_GHOST: Final = "ghost"

# As if the list had once held a line that we sell and the supplier has taken away, two lines were hinted at, and no other list was ever heard of.
_BEFORE: Final = f"""
DELETE FROM catalog_hints; DELETE FROM catalog_syncs; DELETE FROM offer_reviews; DELETE FROM supplier_costs; DELETE FROM supplier_products;
DELETE FROM supplier_lists;
INSERT INTO supplier_lists (channel_id, every_s, changes_every_s, pause_ms, next_full_at, next_changes_at, numbered)
VALUES ('%(a)s', 21600, 300, 0, now(), now() + interval '1 hour', 1);
INSERT INTO products (sku, name, product_type, face_value) VALUES ('{_GHOST}', 'Ghost', 'card', 10000) ON CONFLICT DO NOTHING;
INSERT INTO offers (channel_id, sku, product_code, unit_cost) VALUES ('%(a)s', '{_GHOST}', '{_GHOST}', 9000)
ON CONFLICT (channel_id, sku) DO UPDATE SET held = NULL;
INSERT INTO supplier_products (channel_id, product_code, number, name, product_type, currency, cost, min_units, available)
VALUES ('%(a)s', '{_GHOST}', 0, 'Ghost', 'card', 'CNY', 9000, 1, true);
INSERT INTO catalog_hints (channel_id, product_code) VALUES ('%(a)s', 'hf-100'), ('%(a)s', 'no-such-line')
"""

# The whole list was read, and what changed since; what was hinted at was followed; the other lists are heard of; nobody reads any more.
_READ: Final = f"""
SELECT (SELECT held FROM offers WHERE channel_id = $1 AND sku = '{_GHOST}') = 'gone'
  AND EXISTS (SELECT FROM catalog_syncs WHERE channel_id = $1 AND kind = 'changes' AND state = 'done')
  AND EXISTS (SELECT FROM catalog_syncs WHERE channel_id = $1 AND kind = 'hints' AND state <> 'running')
  AND NOT EXISTS (SELECT FROM catalog_hints WHERE channel_id = $1)
  AND (SELECT count(*) FROM supplier_lists) > 1 AND NOT EXISTS (SELECT FROM supplier_lists WHERE lease IS NOT NULL)
"""

# A reader renews its lease of three minutes with every page: one that has not for ten seconds has died. Then it is time to ask for changes.
_MINUTES_PASS: Final = """
UPDATE supplier_lists SET lease_until = now() - interval '1 second' WHERE lease IS NOT NULL AND lease_until < now() + interval '170 seconds';
UPDATE supplier_lists SET next_changes_at = now() WHERE whole_at IS NOT NULL AND lease IS NULL
  AND NOT EXISTS (SELECT FROM catalog_syncs s WHERE s.channel_id = supplier_lists.channel_id AND s.kind = 'changes' AND s.state = 'done')
"""


async def _list_moves(lane: Lane, told: Told) -> None:
    await lane.owner.execute(_BEFORE % {"a": lane.channel("a")})


async def _listed(lane: Lane, told: Told) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await lane.owner.fetchval(_READ, lane.channel("a")):
            await lane.owner.execute(_MINUTES_PASS)
            await lane.hurry()
            await asyncio.sleep(0.1)


async def _once(lane: Lane, told: Told) -> None:
    twice = "SELECT product_code FROM supplier_costs WHERE channel_id = $1 GROUP BY 1 HAVING count(*) > 1"
    assert await lane.owner.fetch(twice, lane.channel("a")) == [], "a cost that did not change was remembered twice"
    asked = await lane.owner.fetch("SELECT kind FROM offer_reviews WHERE channel_id = $1 AND sku = $2 AND state = 'open'", lane.channel("a"), _GHOST)
    assert [row["kind"] for row in asked] == ["gone"], "one line is gone, and one question is asked"
    held = "SELECT sku FROM offers WHERE channel_id = $1 AND held IS NOT NULL"
    assert [row["sku"] for row in await lane.owner.fetch(held, lane.channel("a"))] == [_GHOST], "what is still in the list is still sold"
    numbers = """SELECT count(*) = count(DISTINCT number) AND max(number) < (SELECT numbered FROM supplier_lists WHERE channel_id = $1)
    FROM supplier_products WHERE channel_id = $1"""
    assert await lane.owner.fetchval(numbers, lane.channel("a")), "a line's number was given twice"


STORIES: Final = (Story("listed", _listed, _list_moves, check=_once),)
