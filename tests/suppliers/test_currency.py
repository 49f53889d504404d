"""A purchase in a currency that the account does not have is held back by every adapter: their amounts carry no currency, a number is enough."""

from dataclasses import replace
from typing import Any

import pytest
from tests.suppliers.test_contract import Line, examples

from kameng_api.suppliers.port import Adapter, Cause, NotSent, Purchase, Unknown


def first_of_each() -> list[Any]:
    """The first purchase shown for every adapter that is no simulator."""
    found = {param.values[0].name: param for param in reversed(examples("place")) if not param.values[0].simulated}
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize(("adapter", "example"), first_of_each())
async def test_a_purchase_in_another_currency_is_not_sent(adapter: Adapter, example: dict[str, Any]) -> None:
    line = Line(Unknown("asked"))
    purchase = replace(Purchase(**example["purchase"]), currency="XTS")
    outcome = (await adapter.connect(adapter.settings(**example["settings"]), line).place(purchase)).outcome
    assert isinstance(outcome, NotSent) and outcome.cause is Cause.UNSAYABLE, outcome
    assert line.asked == []
