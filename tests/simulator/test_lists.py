"""The vendor's list: page by page, line by line, and what of it has changed, each seen through the real adapter."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from kameng_api.simulator.protocol import signed
from kameng_api.suppliers.port import AnswerUnusable, CatalogHint, SupplierProduct

from .conftest import SECRETS, World

LONG_AGO = timedelta(days=1)


async def products(world: World) -> list[SupplierProduct]:
    assert world.a.products is not None
    return [line async for page in world.a.products() for line in page]


async def changed(world: World, since: datetime) -> set[str]:
    assert world.a.changed_since is not None
    return {code async for page in world.a.changed_since(since) for code in page}


@pytest.fixture
async def long_list(world: World) -> AsyncIterator[list[str]]:
    """1,200 lines beside the usual ones: three pages."""
    codes = [f"zz-{n:04d}" for n in range(1_200)]
    lines = [{"code": code, "name": code, "type": "card", "cost": "1"} for code in codes]
    account = {"app_key": "app-sim-b", "secret": "secret-of-sim-b-only-for-tests", "role": "secondary", "products": lines}
    await world.simulator.call("PUT", "suppliers/sim-b", account)
    yield codes


async def test_a_long_list_comes_in_pages_and_each_line_once(world: World, long_list: list[str]) -> None:
    assert world.b.products is not None
    pages = [[line.product_code for line in page] async for page in world.b.products()]
    assert len(pages) == 3 and max(len(page) for page in pages) == 500
    found = [code for page in pages for code in page]
    assert len(found) == len(set(found)) and set(long_list) <= set(found) and "hf-100" in found


async def test_a_list_that_breaks_off_raises_and_one_that_is_cut_short_does_not(world: World, long_list: list[str]) -> None:
    assert world.b.products is not None
    await world.simulator.turn("sim-b", catalogue={"fail_after": 500})
    read = 0
    with pytest.raises(AnswerUnusable):
        async for page in world.b.products():
            read += len(page)
    assert read == 500
    await world.simulator.turn("sim-b", catalogue={"truncate_after": 700})
    assert len([line async for page in world.b.products() for line in page]) == 700


async def test_one_line_is_read_fresh_and_a_stranger_is_none(world: World) -> None:
    assert world.a.product is not None
    ranged = await world.a.product("qb")
    assert ranged is not None and (ranged.cost, ranged.face_min, ranged.face_max) == (9650, 1_0000, 1000_0000)
    await world.simulator.call("PUT", "suppliers/sim-a/products/one-line", {"name": "One", "cost": "4.5", "face_value": "5", "stock": 2})
    line = await world.a.product("one-line")
    assert line is not None and (line.cost, line.face_value, line.stock, line.available) == (4_5000, 5_0000, 2, True)
    assert await world.a.product("no-such-line") is None


async def test_changes_name_what_moved_since_and_what_went(world: World) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    body = {"name": "Moving", "cost": "4.5", "stock": 1}
    await world.simulator.call("PUT", "suppliers/sim-a/products/moving", body)
    await world.simulator.call("PUT", "suppliers/sim-a/products/going", body)
    await world.simulator.call("DELETE", "suppliers/sim-a/products/going")
    assert {"moving", "going"} <= await changed(world, before)
    assert "hf-100" not in await changed(world, datetime.now(UTC) - LONG_AGO)
    assert await changed(world, datetime.now(UTC) + timedelta(seconds=5)) == set()
    assert "going" not in {line.product_code for line in await products(world)}


async def test_a_price_that_moves_for_all_is_a_change_of_all(world: World) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    await world.simulator.turn("sim-a", price_factor=1.05)
    assert {"hf-10", "hf-100", "qb"} <= await changed(world, before)
    await world.simulator.turn("sim-a")


async def test_a_pushed_change_is_a_hint_and_no_news(world: World) -> None:
    assert world.a.read_callback is not None
    now = datetime.now(UTC)
    body = orjson.dumps(signed(SECRETS["sim-a"].encode(), "app-sim-a", now.timestamp(), {"product_codes": "hf-100,qb", "cost": "0.01"}))
    assert world.a.read_callback({}, body, now) == CatalogHint(("hf-100", "qb"))
