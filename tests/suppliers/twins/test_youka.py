"""优卡云's own traps, over HTTP: empty values that would be signed, a limit of unknown reach, no callback, two names for our number."""

from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Accepted, Delivered, NotSent, Unknown

NAME = "youka"


async def test_no_empty_value_is_sent_so_both_rules_of_signing_agree(twin: TwinWorld) -> None:
    """The twin signs what it gets, empty or not: an empty callback address would have to be signed."""
    purchase = twin.purchase(callback_url=None)
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert twin.supplier.look_up is not None
    outcome = (await twin.supplier.look_up(purchase.reference)).outcome
    assert isinstance(outcome, Delivered) and outcome.units == 1 and outcome.receipt


async def test_one_order_is_one_piece_so_the_limit_is_the_same_for_both_meanings(twin: TwinWorld) -> None:
    assert isinstance((await twin.supplier.place(twin.purchase(units=2))).outcome, NotSent)
    await twin.turn(price_factor=10)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown), "dearer than our limit, by a code that nobody documented"
    assert await twin.delivered(purchase.reference) == 0


async def test_nobody_calls_back_and_nobody_is_told_to(twin: TwinWorld) -> None:
    await twin.turn(async_rate=1, async_after_s=1)
    assert twin.supplier.read_callback is None and not twin.supplier.capabilities.callback
    await twin.supplier.place(twin.purchase())
    assert twin.mailbox.calls == []


async def test_the_vendors_own_number_is_asked_with_ours(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    placed = (await twin.supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted) and placed.supplier_order_no and twin.supplier.look_up is not None
    assert isinstance((await twin.supplier.look_up(purchase.reference, placed.supplier_order_no)).outcome, Delivered)
    assert isinstance((await twin.supplier.look_up(purchase.reference, "SIM999")).outcome, Unknown)


async def test_one_product_says_its_price(twin: TwinWorld) -> None:
    assert twin.supplier.product is not None
    found = await twin.supplier.product("10086")
    assert found is not None and (found.cost, found.name) == (168_000, "视频会员 月卡")
