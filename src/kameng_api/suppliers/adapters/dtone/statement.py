"""DT One has no statement by API (the portal has one): the list of transactions says what each did to our balance."""

from collections.abc import Sequence
from typing import Any

from kameng_api.suppliers.adapters.dtone import mapping, wire
from kameng_api.suppliers.port import LineKind, StatementLine


def lines(transaction: Any, currency: str) -> Sequence[StatementLine]:
    """Charge and reversal of one transaction; nothing while its money is only held, or when it was given back before it was taken.

    A line carries the time of creation, by which the vendor's list is cut into days: when a reversal happened is not told. Raises Unreadable.
    """
    if not isinstance(transaction, dict):
        raise wire.Unreadable("no transaction")
    try:
        class_id = transaction["status"]["class"]["id"]
    except (KeyError, TypeError) as error:
        raise wire.Unreadable("status") from error
    if class_id not in (mapping.COMPLETED, mapping.REVERSED):
        return ()
    cost = mapping.cost_of(transaction, currency)
    if cost is None:  # of another balance of ours
        return ()
    number, reference = mapping.number_of(transaction), transaction.get("external_id")
    at = wire.moment(transaction.get("creation_date"))
    ours = reference if isinstance(reference, str) else None
    charge = StatementLine(number, ours, number, LineKind.CHARGE, -cost, currency, at)
    if class_id == mapping.COMPLETED:
        return (charge,)
    reversal = f"{number}-reversed"
    return (charge, StatementLine(reversal, ours, number, LineKind.REVERSAL, cost, currency, at, external_id=reversal))
