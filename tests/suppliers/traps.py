"""The traps of the trade that every protocol can fall into, set for real: by the twin's engine, and judged by its own delivery log.

A trap is a function of a running twin; it raises AssertionError when the adapter said something that the log refutes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pydantic import SecretStr
from tests.suppliers.benches import TwinBench
from tests.suppliers.certificates import look_up, place, settled, until
from tests.suppliers.twins.world import ACCOUNT

from kameng_api.simulator.protocol import FAIL_CODES, ORDER_REFUSALS
from kameng_api.suppliers.port import (
    Accepted,
    AnswerUnusable,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    Purchase,
    Refused,
    Reversed,
    Scope,
    Unknown,
)
from kameng_api.suppliers.registry import get_adapter

WITHIN_S: Final = 4.0
Trap = Callable[[TwinBench], Awaitable[None]]
TRAPS: dict[str, Trap] = {}
"""Name → trap; what it shows is its docstring."""


def trap(function: Trap) -> Trap:
    TRAPS[function.__name__] = function
    return function


async def nothing_bought(bench: TwinBench, purchase: Purchase) -> None:
    assert await bench.delivered(purchase.reference) == 0, "delivered"
    assert await bench.charged(purchase.reference) == 0, "charged"


async def is_told(bench: TwinBench, purchase: Purchase, kind: type[Outcome]) -> None:
    """Within `WITHIN_S` a look-up says so; where nobody can be asked, it stays in doubt."""
    if bench.supplier.look_up is None or not (bench.supplier.capabilities.query_by_reference or purchase.reference in bench.numbers):
        if bench.supplier.look_up is not None:
            assert isinstance(await look_up(bench, purchase), Unknown)
        return
    found: list[Outcome] = []

    async def is_so() -> bool:
        found.append(await look_up(bench, purchase))
        assert isinstance(found[-1], kind | Accepted | Unknown | NotFound), found[-1]
        return isinstance(found[-1], kind)

    assert await until(is_so, WITHIN_S), found[-1]


async def _bought_in_doubt(bench: TwinBench, **knobs: Any) -> None:
    """The twin delivers, and its answer says nothing: doubt, then the truth, once."""
    await bench.world.turn(**knobs)
    purchase = bench.purchase()
    outcome = await place(bench, purchase)
    assert isinstance(outcome, Unknown | Accepted), outcome
    await bench.be_well()
    assert await bench.delivered(purchase.reference) == 1
    await is_told(bench, purchase, Delivered)


@trap
async def answer_lost(bench: TwinBench) -> None:
    """Delivered, and never answered."""
    await _bought_in_doubt(bench, hang_rate=1, hang_point="after")


@trap
async def connection_reset(bench: TwinBench) -> None:
    """Delivered, and the connection cut before the answer."""
    await _bought_in_doubt(bench, reset_rate=1, reset_point="after")


@trap
async def delivered_with_500(bench: TwinBench) -> None:
    """Delivered, and answered with an error page."""
    await _bought_in_doubt(bench, error_500_rate=1)


@trap
async def request_lost(bench: TwinBench) -> None:
    """Read and forgotten: doubt, and never a delivery."""
    await bench.world.turn(hang_rate=1, hang_point="before")
    purchase = bench.purchase()
    assert isinstance(await place(bench, purchase), Unknown)
    await bench.be_well()
    await nothing_bought(bench, purchase)
    if bench.supplier.look_up is not None:
        assert isinstance(await look_up(bench, purchase), NotFound | Unknown)


@trap
async def outage(bench: TwinBench) -> None:
    """503 for everything: nothing follows from it."""
    await bench.world.turn(outage="http_503")
    purchase = bench.purchase()
    assert isinstance(await place(bench, purchase), Unknown | NotSent)  # NotSent: not even a token was to be had
    if bench.supplier.look_up is not None:
        assert isinstance(await look_up(bench, purchase), Unknown)
    await nothing_bought(bench, purchase)


@trap
async def wrong_key(bench: TwinBench) -> None:
    """A wrong secret buys nothing, and is never taken for an answer about an order."""
    twin = bench.world.twin
    settings = twin.settings(bench.world.simulator.url, twin.app_key, twin.secret)
    model = get_adapter(twin.name).settings(**settings)
    secrets = {name: value.get_secret_value() for name in type(model).model_fields if isinstance(value := getattr(model, name), SecretStr)}
    changed = {name: ("0" if value[:1] != "0" else "1") + value[1:] for name, value in secrets.items()}
    stranger = bench.world.connect(**changed)
    purchase = bench.purchase()
    assert isinstance((await stranger.place(purchase)).outcome, Unknown | Refused | NotSent)
    await nothing_bought(bench, purchase)
    if stranger.look_up is not None:
        assert isinstance((await stranger.look_up(purchase.reference, "1")).outcome, Unknown)
    if stranger.balance is not None:
        try:
            await stranger.balance()
        except AnswerUnusable:
            return
        raise AssertionError("a balance for a wrong secret")


@trap
async def refusals(bench: TwinBench) -> None:
    """Every reason the engine has: a no is a no, reaches as far as it should, and costs nothing."""
    said: dict[str, Outcome] = {}
    for code in sorted(FAIL_CODES):
        await bench.world.turn(refuse_rate=1, refuse_code=code)
        purchase = bench.purchase()
        outcome = said[code] = await settled(bench, purchase)
        assert isinstance(outcome, Refused | Unknown), (code, outcome)
        if isinstance(outcome, Refused) and outcome.scope is Scope.ORDER:
            assert code in ORDER_REFUSALS, (code, outcome)
        await nothing_bought(bench, purchase)
    assert any(isinstance(outcome, Refused) for outcome in said.values()), said


@trap
async def wallet_empty(bench: TwinBench) -> None:
    """Our balance there is too low: this channel cannot, others may."""
    await bench.world.simulator.call("POST", f"suppliers/{ACCOUNT}/wallet", {"take": True})
    try:
        purchase = bench.purchase()
        outcome = await settled(bench, purchase)
        assert isinstance(outcome, Unknown) or (isinstance(outcome, Refused) and outcome.scope is Scope.CHANNEL), outcome
        await nothing_bought(bench, purchase)
    finally:
        await bench.world.simulator.call("POST", f"suppliers/{ACCOUNT}/wallet", {"amount": "1000000"})


async def _cannot(bench: TwinBench, **change: Any) -> None:
    purchase = bench.purchase()
    [product] = [one for one in bench.world.twin.products if one.code == purchase.product_code]
    path = f"suppliers/{ACCOUNT}/products/{product.code}"
    await bench.world.simulator.call("PUT", path, {**product.model_dump(), **change})
    outcome = await settled(bench, purchase)
    assert isinstance(outcome, Unknown) or (isinstance(outcome, Refused) and outcome.scope is Scope.CHANNEL), outcome
    await nothing_bought(bench, purchase)


@trap
async def out_of_stock(bench: TwinBench) -> None:
    """It has none: says nothing about other channels."""
    await _cannot(bench, stock=0)


@trap
async def product_off(bench: TwinBench) -> None:
    """It no longer sells it: says nothing about other channels."""
    await _cannot(bench, on_sale=False)


@trap
async def price_doubled(bench: TwinBench) -> None:
    """Dearer than we pay: refused, or what it really cost is said."""
    await bench.double_prices()
    purchase = bench.purchase()
    outcome = await settled(bench, purchase)
    if isinstance(outcome, Delivered):
        assert not bench.supplier.capabilities.price_version
        assert outcome.cost is None or outcome.cost == await bench.charged(purchase.reference)
    else:
        assert isinstance(outcome, Refused | Unknown), outcome
        await nothing_bought(bench, purchase)


@trap
async def late_failure(bench: TwinBench) -> None:
    """Accepted, and failed later: paid back."""
    await bench.work_for(0.3, in_vain=True)
    purchase = bench.purchase()
    outcome = await place(bench, purchase)
    assert isinstance(outcome, Accepted), outcome
    await is_told(bench, purchase, Refused)
    await nothing_bought(bench, purchase)


@trap
async def works_on_it(bench: TwinBench) -> None:
    """Accepted, and delivered later, once."""
    await bench.work_for(0.3)
    purchase = bench.purchase()
    assert isinstance(await place(bench, purchase), Accepted)
    await is_told(bench, purchase, Delivered)
    assert await bench.delivered(purchase.reference) == 1


@trap
async def callbacks_twice_and_late(bench: TwinBench) -> None:
    """Three copies and an old "processing" after them: none of them takes the delivery back."""
    if bench.supplier.read_callback is None:
        return
    await bench.world.turn(async_rate=1, async_after_s=2, callback_copies=3, callback_reorder=True)
    purchase = bench.purchase()
    assert isinstance(await place(bench, purchase), Accepted)

    async def all_came() -> bool:
        return len(bench.told(purchase.reference)) >= 4

    assert await until(all_came, WITHIN_S), bench.told(purchase.reference)
    assert all(isinstance(news, Delivered | Accepted | Unknown) for news in bench.told(purchase.reference))
    await is_told(bench, purchase, Delivered)


@trap
async def callbacks_forged(bench: TwinBench) -> None:
    """Signed with another secret: no news at all."""
    if bench.supplier.read_callback is None:
        return
    await bench.world.turn(async_rate=1, async_after_s=1, callback_wrong_signature_rate=1)
    purchase = bench.purchase()
    await place(bench, purchase)

    async def came() -> bool:
        return bool(bench.world.mailbox.calls)

    assert await until(came, WITHIN_S), "nobody called"
    assert bench.told(purchase.reference) == []


@trap
async def order_hidden(bench: TwinBench) -> None:
    """Delivered, and not to be found at first: never a reason to buy elsewhere, and then the truth."""
    await bench.world.turn(hang_rate=1, hang_point="after", not_found_for_s=20)
    purchase = bench.purchase()
    assert isinstance(await place(bench, purchase), Unknown)
    await bench.world.turn(not_found_for_s=20)
    if bench.supplier.look_up is not None:
        assert isinstance(await look_up(bench, purchase), NotFound | Unknown)
    await is_told(bench, purchase, Delivered)


@trap
async def too_many_requests(bench: TwinBench) -> None:
    """Above its limit: what it says it did not take, it did not take."""
    await bench.world.turn(rate_limit_per_s=1)
    purchases = [bench.purchase() for _ in range(6)]
    outcomes = [await place(bench, purchase) for purchase in purchases]
    assert not any(isinstance(outcome, Refused | NotFound | Reversed) for outcome in outcomes), outcomes
    assert any(isinstance(outcome, NotSent | Unknown) for outcome in outcomes)
    for purchase, outcome in zip(purchases, outcomes, strict=True):
        if isinstance(outcome, NotSent):
            await nothing_bought(bench, purchase)


@trap
async def same_reference_twice(bench: TwinBench) -> None:
    """The same reference again is never taken for a refusal: the first order stands."""
    purchase = bench.purchase()
    first = await settled(bench, purchase)
    assert isinstance(first, Delivered), first
    again = await settled(bench, purchase)
    assert isinstance(again, Delivered | Unknown), again
    if bench.supplier.capabilities.idempotent_submit:
        assert again == first
    if bench.supplier.capabilities.query_by_reference:
        assert isinstance(await look_up(bench, purchase), Delivered | Unknown)


@trap
async def longest_reference(bench: TwinBench) -> None:
    """Forty characters, the longest we make, come back whole."""
    purchase = bench.purchase()
    purchase = bench.purchase(reference=(purchase.reference + "Z9" * 20)[:40])
    outcome = await settled(bench, purchase)
    assert isinstance(outcome, Delivered), outcome
    assert await bench.delivered(purchase.reference) == 1


@trap
async def several_units(bench: TwinBench) -> None:
    """Three of one, and all three are told; or fewer, and only those."""
    if bench.world.twin.most_units < 3:
        return
    whole = bench.purchase(units=3)
    outcome = await settled(bench, whole)
    assert isinstance(outcome, Delivered) and outcome.units == 3 == await bench.delivered(whole.reference), outcome
    await bench.world.turn(partial_rate=1)
    part = bench.purchase(units=3)
    outcome = await settled(bench, part)
    assert isinstance(outcome, Unknown) or (isinstance(outcome, Delivered) and outcome.units == 2), outcome
    assert await bench.delivered(part.reference) == 2


@trap
async def card_codes(bench: TwinBench) -> None:
    """Exactly the codes that the log delivered, decrypted, pin and all."""
    if bench.world.twin.goods.card is None:
        return
    purchase = bench.purchase(kind="card", units=2)
    outcome = await settled(bench, purchase)
    assert isinstance(outcome, Delivered), outcome
    rows = await bench.world.simulator.rows("deliveries", purchase.reference)
    assert sorted((code.code, code.pin) for code in outcome.codes) == sorted((row["code"], row["pin"]) for row in rows)
    assert len(outcome.codes) == purchase.units


@trap
async def taken_back(bench: TwinBench) -> None:
    """A delivery that is taken back counts once, under one number."""
    await bench.world.turn(reversal_rate=1, reversal_after_s=6)
    purchase = bench.purchase()
    assert isinstance(await settled(bench, purchase), Delivered)

    async def returned() -> bool:
        return await bench.charged(purchase.reference) == 0

    assert await until(returned, WITHIN_S)
    if bench.supplier.look_up is None:
        return
    first, second = await look_up(bench, purchase), await look_up(bench, purchase)
    assert first == second and not isinstance(first, NotFound | NotSent), (first, second)
    assert isinstance(first, Refused) is bench.world.twin.reversed_is_failed, first


@trap
async def staff_only(bench: TwinBench) -> None:
    """Only their staff can tell: shown as doubt."""
    await bench.world.turn(contact_staff_rate=1)
    purchase = bench.purchase()
    outcome = await place(bench, purchase)
    assert isinstance(outcome, Unknown | Accepted), outcome
    if bench.supplier.look_up is not None:
        assert isinstance(await look_up(bench, purchase), Unknown | Accepted)


@trap
async def price_list(bench: TwinBench) -> None:
    """Every line of the list with its cost and stock; one line asked alone says the same; the balance is the engine's."""
    supplier, engine = bench.supplier, await bench.world.simulator.call("GET", f"suppliers/{ACCOUNT}")
    if supplier.balance is not None:
        from_them = await supplier.balance()
        assert (from_them.balance, from_them.currency) == (_amount(engine["balance"]), bench.world.twin.currency)
    if supplier.products is None:
        return
    lines = {line.product_code: line async for page in supplier.products() for line in page}
    goods = [product for product in bench.world.twin.products if product.on_sale]
    assert {product.code for product in goods} <= lines.keys()
    for product in goods:
        line = lines[product.code]
        assert line.cost == _amount(product.cost) and line.available, line
        assert line.stock in (None, product.stock), line
        if supplier.product is not None:
            alone = await supplier.product(product.code)
            assert alone is not None and (alone.product_code, alone.cost, alone.currency) == (line.product_code, line.cost, line.currency)
    if supplier.product is not None:
        assert await supplier.product("99999999") is None


def _amount(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * 10_000 + int(part.ljust(4, "0")[:4])


STORM: Final[Mapping[str, Any]] = {
    "seed": 7, "hang_rate": 0.05, "reset_rate": 0.05, "error_500_rate": 0.05, "refuse_rate": 0.1, "late_failure_rate": 0.1, "async_rate": 0.4,
    "late_failure_after_s": 4, "async_after_s": 4, "partial_rate": 0.2, "callback_copies": 2, "callback_reorder": True,
    "callback_wrong_signature_rate": 0.2, "not_found_for_s": 2,
}  # fmt: skip


async def _last_word(bench: TwinBench, purchase: Purchase) -> Outcome:
    """What a look-up says; asked again where it was not answered, as any look-up is."""
    for _ in range(5):
        outcome = await look_up(bench, purchase)
        if not isinstance(outcome, Unknown | NotFound):
            break
        await asyncio.sleep(0.1)
    return outcome


@trap
async def storm(bench: TwinBench) -> None:
    """A hundred purchases through all of it at once; what the adapter says in the end is what the log says."""
    purchases = [bench.purchase(units=1 + n % 2) for n in range(100)]
    gate = asyncio.Semaphore(20)

    async def buy(purchase: Purchase) -> Outcome:
        async with gate:
            return await place(bench, purchase)

    await bench.world.turn(**STORM)
    first = await asyncio.gather(*(buy(purchase) for purchase in purchases))
    await bench.be_well()
    await asyncio.sleep(0.5)
    open_ = 0
    for purchase, outcome in zip(purchases, first, strict=True):
        final = outcome
        askable = bench.supplier.capabilities.query_by_reference or purchase.reference in bench.numbers
        if isinstance(outcome, Accepted | Unknown) and bench.supplier.look_up is not None and askable:
            final = await _last_word(bench, purchase)
        units, charged = await bench.delivered(purchase.reference), await bench.charged(purchase.reference)
        match final:
            case Delivered():
                assert final.units == units and (final.cost is None or final.cost == charged), (final, units, charged)
            case Refused() | NotSent():
                assert units == 0 and charged == 0, (final, units, charged)
            case Accepted():
                raise AssertionError("still at work, although everything is over")
            case _:
                # A part is doubt where the vendor has no word for it, and so is what never reached it.
                reached = bool(await bench.world.simulator.rows("orders", purchase.reference))
                open_ += askable and reached and units in (0, purchase.units)
    assert open_ == 0, f"{open_} of 100 stay in doubt although it can be asked"
