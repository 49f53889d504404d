"""One certificate per capability: what a supplier must do, over HTTP, for its declaration to be believed.

Judged by the supplier's own log (what it delivered and charged), never by what the adapter says alone. A bench is a place where this can be
seen: a running supplier with its knobs. Delays of capabilities are multiplied by the bench's `scale`, as the supplier's own are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tests.simulator.conftest import SCALE, World

from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    Capabilities,
    Delivered,
    NotFound,
    Outcome,
    Purchase,
    Refused,
    Supplier,
    Unknown,
)

SLACK_S = 1.0
"""How long a loaded machine may take for what takes no time."""


class Refuted(AssertionError):
    """The declaration does not hold."""


class Bench(Protocol):
    """What certificates need of a supplier. `numbers`: reference → the supplier's own order number, as far as it was told."""

    @property
    def supplier(self) -> Supplier: ...

    @property
    def scale(self) -> float: ...

    @property
    def numbers(self) -> dict[str, str]: ...

    def purchase(self, **more: Any) -> Purchase: ...

    def ranged(self) -> Purchase | None:
        """One of a product of any face value, None where none is sold."""

    async def be_well(self) -> None: ...

    async def lose_answers(self) -> None:
        """Deliver, and never answer."""

    async def lose_requests(self) -> None:
        """Read, deliver nothing, never answer."""

    async def work_for(self, after_s: float, *, in_vain: bool = False) -> None:
        """Accept now; deliver, or fail, `after_s` later (not scaled)."""

    async def double_prices(self) -> None: ...

    async def delivered(self, reference: str) -> int:
        """Units, by the supplier's log."""

    async def charged(self, reference: str) -> int:
        """Net charge by the supplier's books, 1/10000 units."""

    async def called_back_after_s(self, reference: str) -> list[float]:
        """Seconds from the final outcome to each callback that was acknowledged."""

    def told(self, reference: str) -> Sequence[Outcome]:
        """What verified callbacks said."""


@dataclass
class SimulatorBench:
    """sim-a of the simulator process. `always`: knobs that stay turned whatever a certificate does."""

    world: World
    supplier: Supplier
    always: dict[str, Any] = field(default_factory=dict)
    scale: float = SCALE
    numbers: dict[str, str] = field(default_factory=dict)

    def purchase(self, **more: Any) -> Purchase:
        return self.world.purchase(**more)

    def ranged(self) -> Purchase | None:
        return self.purchase(product_code="qb", face_value=50_0000)

    async def _turn(self, **knobs: Any) -> None:
        await self.world.simulator.turn("sim-a", **{**knobs, **self.always})

    async def be_well(self) -> None:
        await self._turn()

    async def lose_answers(self) -> None:
        await self._turn(hang_rate=1, hang_point="after")

    async def lose_requests(self) -> None:
        await self._turn(hang_rate=1, hang_point="before")

    async def work_for(self, after_s: float, *, in_vain: bool = False) -> None:
        name = "late_failure" if in_vain else "async"
        await self._turn(**{f"{name}_rate": 1, f"{name}_after_s": after_s / self.scale})

    async def double_prices(self) -> None:
        await self._turn(price_factor=2)

    async def delivered(self, reference: str) -> int:
        return await self.world.simulator.delivered(reference)

    async def charged(self, reference: str) -> int:
        return -sum(int(row["amount"]) for row in await self.world.simulator.rows("movements", reference))

    async def called_back_after_s(self, reference: str) -> list[float]:
        (order,) = await self.world.simulator.rows("orders", reference)
        sent = await self.world.simulator.rows("callbacks", reference)
        return [row["at"] - order["finished_at"] for row in sent if row["acknowledged"]]

    def told(self, reference: str) -> list[Outcome]:
        return self.world.receiver.news(self.supplier, reference)


@dataclass
class Liar:
    """A supplier seen through an adapter that changes what is asked or answered."""

    inner: Supplier
    asking: Callable[[Purchase], Purchase] = lambda purchase: purchase
    answering: Callable[[Outcome], Outcome] = lambda outcome: outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def place(self, purchase: Purchase) -> Answer:
        answer = await self.inner.place(self.asking(purchase))
        return replace(answer, outcome=self.answering(answer.outcome))


def hold(condition: bool, *said: object) -> None:
    if not condition:
        raise Refuted(*said)


async def place(bench: Bench, purchase: Purchase) -> Outcome:
    outcome = (await bench.supplier.place(purchase)).outcome
    if isinstance(outcome, Accepted | Delivered) and outcome.supplier_order_no:
        bench.numbers[purchase.reference] = outcome.supplier_order_no
    return outcome


async def look_up(bench: Bench, purchase: Purchase) -> Outcome:
    hold(bench.supplier.look_up is not None, "it cannot be asked")
    assert bench.supplier.look_up is not None
    return (await bench.supplier.look_up(purchase.reference, bench.numbers.get(purchase.reference))).outcome


async def settled(bench: Bench, purchase: Purchase, within_s: float = SLACK_S) -> Outcome:
    """The outcome of a purchase; of one that is accepted first, as soon as a look-up tells another."""
    found = [await place(bench, purchase)]

    async def is_over() -> bool:
        found[0] = await look_up(bench, purchase)
        return not isinstance(found[0], Accepted)

    if isinstance(found[0], Accepted):
        await until(is_over, within_s)
    return found[0]


async def until(found: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not await found():
        if loop.time() > end:
            return False
        await asyncio.sleep(0.05)
    return True


async def bought_once(bench: Bench, purchase: Purchase) -> None:
    units = await bench.delivered(purchase.reference)
    hold(units == purchase.units, "delivered", units, "instead of", purchase.units)
    cost, charged = purchase.max_cost, await bench.charged(purchase.reference)
    hold(0 < charged <= cost, "charged", charged, "instead of at most", cost)


async def idempotent_submit(bench: Bench, promised: Capabilities) -> None:
    await bench.be_well()
    purchase = bench.purchase(units=2)
    first = await settled(bench, purchase)
    hold(isinstance(first, Delivered), first)
    for _ in range(3):
        again = await settled(bench, purchase)
        hold(again == first, again, "instead of", first)
    await bought_once(bench, purchase)


async def idempotent_resubmit(bench: Bench, promised: Capabilities) -> None:
    await bench.be_well()
    at_once = bench.purchase(units=2)
    await asyncio.gather(*(bench.supplier.place(at_once) for _ in range(20)))
    await bought_once(bench, at_once)
    await bench.lose_answers()
    unanswered = bench.purchase()
    hold(isinstance(await place(bench, unanswered), Unknown), "the answer was not lost")
    await bench.be_well()
    again = await settled(bench, unanswered)
    hold(isinstance(again, Delivered), again)
    await bought_once(bench, unanswered)


async def query_by_reference(bench: Bench, promised: Capabilities) -> None:
    await bench.be_well()
    never, bought = bench.purchase(), bench.purchase()
    placed = await settled(bench, bought)
    found = await look_up(bench, bought)
    hold(isinstance(placed, Delivered) and found == placed, found, "instead of", placed)
    hold(isinstance(await look_up(bench, never), NotFound | Unknown), "it found what was never sent")
    await bench.work_for(0.4)
    worked_on = bench.purchase()
    await place(bench, worked_on)
    hold(isinstance(await look_up(bench, worked_on), Accepted), "it does not say that it works on it")

    async def is_delivered() -> bool:
        return isinstance(await look_up(bench, worked_on), Delivered)

    hold(await until(is_delivered, 0.4 + SLACK_S), "it never said how it ended")


async def not_found_is_final(bench: Bench, promised: Capabilities) -> None:
    grace_s = promised.not_found_grace_s * bench.scale

    async def asked_after_the_grace(purchase: Purchase) -> tuple[Purchase, Outcome]:
        placing = asyncio.ensure_future(bench.supplier.place(purchase))
        await asyncio.sleep(grace_s)
        said = await look_up(bench, purchase)
        await placing
        return purchase, said

    answers: list[tuple[Purchase, Outcome]] = []
    for losing in (bench.lose_answers, bench.lose_requests):
        await losing()
        answers += await asyncio.gather(*(asked_after_the_grace(bench.purchase()) for _ in range(3)))
    await bench.be_well()
    await asyncio.sleep(3 * grace_s)
    lost = [purchase for purchase, outcome in answers if isinstance(outcome, NotFound)]
    hold(bool(lost), "no request was lost")
    for purchase in lost:
        hold(await bench.delivered(purchase.reference) == 0, "not found after the grace, and delivered")


async def min_query_interval_s(bench: Bench, promised: Capabilities) -> None:
    await bench.be_well()
    purchase = bench.purchase()
    await settled(bench, purchase)
    for _ in range(max(2, min(10, int(6 / promised.min_query_interval_s)))):
        await asyncio.sleep(min(promised.min_query_interval_s, 3.0))  # who answers sooner answers then, too
        outcome = await look_up(bench, purchase)
        hold(isinstance(outcome, Delivered), outcome)


async def callback(bench: Bench, promised: Capabilities) -> None:
    """Of every outcome there is a callback; it says the same as a look-up wherever its verdict is to be believed.

    A callback after the end that says no more than Accepted is one, too: it tells the number by which the look-up finds the verdict.
    """
    wait_s = 0.1 + promised.callback_batch_s * bench.scale + SLACK_S
    for in_vain, verdict in ((False, Delivered), (True, Refused)):
        await bench.work_for(0.1, in_vain=in_vain)
        purchases = [bench.purchase() for _ in range(3)]
        for purchase in purchases:
            hold(isinstance(await place(bench, purchase), Accepted), "not accepted")

        def told(purchase: Purchase) -> list[Outcome]:
            return [one for one in bench.told(purchase.reference) if not isinstance(one, Accepted)]

        async def is_told(purchase: Purchase) -> bool:
            named = [one for one in bench.told(purchase.reference) if isinstance(one, Accepted) and one.supplier_order_no]
            return bool(told(purchase)) or (bool(named) and any(after_s >= 0 for after_s in await bench.called_back_after_s(purchase.reference)))

        async def all_told(purchases: list[Purchase] = purchases) -> bool:
            return all([await is_told(purchase) for purchase in purchases])

        hold(await until(all_told, wait_s), "no callback")
        for purchase in purchases if promised.trusted_callback else ():
            said, found = told(purchase), await look_up(bench, purchase)
            hold(isinstance(found, verdict) and all(_agree(one, found) for one in said), said, found)


def _agree(told: Outcome, found: Outcome) -> bool:
    """A callback may leave out what the units cost; everything else is the same."""
    if isinstance(told, Delivered) and isinstance(found, Delivered) and told.cost is None:
        return told == replace(found, cost=None)
    return told == found


async def callback_batch_s(bench: Bench, promised: Capabilities) -> None:
    """Three orders far enough apart that one of them misses a batch longer than promised."""
    await bench.work_for(0.05)
    purchases = []
    for _ in range(3):
        purchases.append(bench.purchase())
        await place(bench, purchases[-1])
        await asyncio.sleep(1.2)
    longest_s = promised.callback_batch_s * bench.scale + SLACK_S

    async def all_sent() -> bool:
        return all([await bench.called_back_after_s(purchase.reference) for purchase in purchases])

    hold(await until(all_sent, longest_s), "no callback")
    for purchase in purchases:
        after_s = min(await bench.called_back_after_s(purchase.reference))
        hold(after_s <= longest_s, f"a callback {after_s:.1f} s after the end")


async def returns_cost(bench: Bench, promised: Capabilities) -> None:
    await bench.be_well()
    ranged = bench.ranged()
    for purchase in [bench.purchase(), bench.purchase(units=3), *([] if ranged is None else [ranged])]:
        outcome = await settled(bench, purchase)
        charged = await bench.charged(purchase.reference)
        hold(isinstance(outcome, Delivered) and outcome.cost == charged, outcome, charged)
    await bench.work_for(0.1)
    later = bench.purchase()
    await place(bench, later)

    async def says_its_cost() -> bool:
        outcome = await look_up(bench, later)
        return isinstance(outcome, Delivered) and outcome.cost == await bench.charged(later.reference)

    hold(await until(says_its_cost, 0.1 + SLACK_S), "a look-up does not say what it cost")


async def price_version(bench: Bench, promised: Capabilities) -> None:
    await bench.be_well()
    before = bench.purchase()
    hold(isinstance(await settled(bench, before), Delivered), "not even at the old price")
    await bench.double_prices()
    after = bench.purchase()
    outcome = await settled(bench, after)
    delivered, charged = await bench.delivered(after.reference), await bench.charged(after.reference)
    hold(isinstance(outcome, Refused) and not delivered and not charged, outcome, delivered, charged)


async def cancel(bench: Bench, promised: Capabilities) -> None:
    """What it works on can be stopped, is paid back, and never comes after all; what it delivered stays delivered."""
    assert bench.supplier.cancel is not None
    await bench.work_for(SLACK_S)
    stopped = bench.purchase()
    hold(isinstance(await place(bench, stopped), Accepted), "not accepted")
    said = (await bench.supplier.cancel(stopped.reference, bench.numbers.get(stopped.reference))).outcome
    hold(isinstance(said, Accepted | Refused), said)

    async def is_over() -> bool:
        return isinstance(await look_up(bench, stopped), Refused)

    hold(await until(is_over, SLACK_S), "it does not say that it was cancelled")
    await asyncio.sleep(SLACK_S)
    hold(not await bench.delivered(stopped.reference) and not await bench.charged(stopped.reference), "cancelled, and delivered or charged")
    await bench.be_well()
    done = bench.purchase()
    hold(isinstance(await settled(bench, done), Delivered), "not delivered")
    said = (await bench.supplier.cancel(done.reference, bench.numbers.get(done.reference))).outcome
    hold(not isinstance(said, Refused | NotFound), said)
    hold(await bench.delivered(done.reference) == done.units, "a delivery was cancelled")


FOR_MONEY = frozenset({"idempotent_submit", "idempotent_resubmit", "not_found_is_final", "returns_cost", "price_version", "cancel"})
"""Promises on which money rests: made only by who has been certified."""
CERTIFICATES: Mapping[str, Callable[[Bench, Capabilities], Awaitable[None]]] = {
    "idempotent_submit": idempotent_submit,
    "idempotent_resubmit": idempotent_resubmit,
    "query_by_reference": query_by_reference,
    "not_found_is_final": not_found_is_final,
    "min_query_interval_s": min_query_interval_s,
    "callback": callback,
    "callback_batch_s": callback_batch_s,
    "returns_cost": returns_cost,
    "price_version": price_version,
    "cancel": cancel,
}
"""`callback_batch_s` is promised by whoever promises `callback`, `min_query_interval_s` by whoever can be asked."""
UNCERTIFIED: Mapping[str, str] = {
    "not_found_grace_s": "part of not_found_is_final",
    "trusted_callback": "the contract suite tampers with callbacks",
}


def promises(capabilities: Capabilities) -> list[str]:
    """The certificates that an adapter with these `capabilities` must earn."""
    made = [name for name in CERTIFICATES if getattr(capabilities, name) is True]
    made += ["callback_batch_s"] if capabilities.callback else []
    return made + (["min_query_interval_s"] if capabilities.query_by_reference else [])
