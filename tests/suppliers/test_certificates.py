"""Capabilities are certified, not believed: every promise of every adapter, and that a false promise is found out."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.simulator.conftest import World
from tests.suppliers import twins
from tests.suppliers.certificates import CERTIFICATES, FOR_MONEY, UNCERTIFIED, Bench, Liar, Refuted, SimulatorBench, promises
from tests.suppliers.test_contract import connect, folder_of

from kameng_api.suppliers.adapters.simulator.client import SimulatorSupplier
from kameng_api.suppliers.port import Adapter, Capabilities, Delivered, Outcome, Purchase, Refused, Reversed, Unknown
from kameng_api.suppliers.registry import list_adapters

BENCHES: dict[str, tuple[Callable[[World], Bench], Capabilities]] = {
    "simulator": (lambda world: SimulatorBench(world, world.a), SimulatorSupplier.capabilities),
}
"""Adapter → where it is certified, and what it declares."""


def test_every_capability_has_a_certificate_or_a_reason() -> None:
    assert CERTIFICATES.keys() | UNCERTIFIED.keys() == {field.name for field in fields(Capabilities)}
    assert not CERTIFICATES.keys() & UNCERTIFIED.keys()


@pytest.mark.parametrize("adapter", list_adapters(), ids=lambda adapter: adapter.name)
def test_who_cannot_be_certified_promises_nothing_that_money_rests_on(adapter: Adapter) -> None:
    example = json.loads(next((folder_of(adapter) / "examples").glob("*.json")).read_text(encoding="utf-8"))
    supplier, _ = connect(adapter, example, Unknown("no call"))
    assert adapter.name in BENCHES or adapter.name in twins.names() or not FOR_MONEY & set(promises(supplier.capabilities))


PROMISES = [pytest.param(adapter, name, id=f"{adapter}-{name}") for adapter, (_, declared) in BENCHES.items() for name in promises(declared)]


@pytest.mark.parametrize(("adapter", "name"), PROMISES)
async def test_what_an_adapter_promises_holds(world: World, adapter: str, name: str) -> None:
    bench, declared = BENCHES[adapter]
    assert bench(world).supplier.capabilities == declared
    await CERTIFICATES[name](bench(world), declared)


def test_the_simulator_promises_all_but_cancelling() -> None:
    assert set(promises(SimulatorSupplier.capabilities)) == set(CERTIFICATES) - {"cancel"}


async def test_a_promised_batch_of_callbacks_holds(world: World) -> None:
    bench = SimulatorBench(world, world.a, {"callback_batch_s": 80})
    promised = replace(SimulatorSupplier.capabilities, callback_batch_s=80)
    await CERTIFICATES["callback_batch_s"](bench, promised)
    await CERTIFICATES["callback"](bench, promised)


# ---- false promises ------------------------------------------------------------------------------------------------


def _without_cost(outcome: Outcome) -> Outcome:
    return replace(outcome, cost=None) if isinstance(outcome, Delivered) else outcome


def _with_another_cost(outcome: Outcome) -> Outcome:
    return replace(outcome, cost=(outcome.cost or 0) + 1) if isinstance(outcome, Delivered) else outcome


def _at_any_price(purchase: Purchase) -> Purchase:
    return replace(purchase, max_cost=purchase.max_cost * 10)


@pytest.mark.parametrize(
    ("name", "found", "knobs", "lies"),
    [
        ("idempotent_submit", "instead of", {"idempotent": False}, {}),
        ("idempotent_resubmit", "delivered', 40", {"idempotent": False}, {}),
        ("query_by_reference", "NotFound", {"not_found_for_s": 3600}, {}),
        ("not_found_is_final", "and delivered", {"not_found_for_s": 30}, {}),  # the grace that is promised is 10
        ("min_query_interval_s", "Unknown", {"rate_limit_per_s": 3}, {}),
        ("callback", "no callback", {"callback_copies": 0}, {}),
        ("callback", "no callback", {"callback_wrong_signature_rate": 1}, {}),
        ("callback_batch_s", "callback", {"callback_batch_s": 80}, {}),
        ("returns_cost", "cost=None", {}, {"answering": _without_cost}),
        ("returns_cost", "cost=975001", {}, {"answering": _with_another_cost}),
        ("price_version", "cost=1950000", {}, {"asking": _at_any_price}),
    ],
)
async def test_a_false_promise_is_found_out(world: World, name: str, found: str, knobs: dict[str, Any], lies: dict[str, Any]) -> None:
    bench = SimulatorBench(world, Liar(world.a, **lies), knobs)
    with pytest.raises(Refuted, match=found):
        await CERTIFICATES[name](bench, SimulatorSupplier.capabilities)


async def test_a_declared_statement_shows_each_charge_and_refund_once(world: World) -> None:
    """For every adapter with a statement that can be certified: our reference, the amount, once; and no movement of the wallet is left out."""
    for name, (bench, _) in BENCHES.items():
        supplier = bench(world).supplier
        if supplier.statement is None:
            continue
        assert supplier.statement_terms is not None, name
        bought, failed, taken_back, refused = (bench(world).purchase(target=t) for t in ("10000000000", "10000000002", "10000000007", "10000000010"))
        for purchase in (bought, failed, taken_back, refused):
            await supplier.place(purchase)
        await world.look_until(failed, Refused)
        await world.look_until(taken_back, Reversed)
        day = datetime.now(ZoneInfo(supplier.statement_terms.timezone)).date()
        lines = [line async for page in supplier.statement(day) for line in page]
        told = {
            p.reference: [(line.kind, line.amount) for line in lines if line.reference == p.reference] for p in (bought, failed, taken_back, refused)
        }
        cost = await bench(world).charged(bought.reference)
        assert told[bought.reference] == [("charge", -cost)]
        assert told[failed.reference] == [("charge", -cost), ("refund", cost)]
        assert told[taken_back.reference] == [("charge", -cost), ("reversal", cost)]
        assert told[refused.reference] == []
        assert len({line.line_id for line in lines}) == len(lines)
        again = [line async for page in supplier.statement(day) for line in page]
        assert again[: len(lines)] == lines, "a movement keeps its number"
        assert supplier.balance is not None
        if supplier.statement_terms.complete:
            wallet = await supplier.balance()
            assert sum(line.amount for line in lines) == wallet.balance, "this wallet was filled today: every movement is told"
