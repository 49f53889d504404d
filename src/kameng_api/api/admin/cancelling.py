"""Asking a supplier to stop an order it works on: found, asked outside any transaction, recorded like every other answer. No framework in here."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import NotFound, StateConflict
from kameng_api.kit.http import build_client
from kameng_api.operators import queries
from kameng_api.orders.absorb import News
from kameng_api.orders.settle import Settlement, settle
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import Accepted, Answer, RefusalReason, Refused, Scope, Supplier, Unknown
from kameng_api.suppliers.rules import Attempt, AttemptState, outcome_word
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane

_CONNECT_S: Final = 5.0
_LOOK_S: Final = 2.0
"""So soon after a request to cancel somebody looks what came of it."""
ASKABLE: Final = (AttemptState.ACCEPTED, AttemptState.UNKNOWN)
"""An attempt that is being sent has not been taken yet: nobody could stop it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An attempt that somebody wants stopped, where it was placed, and what its product says of money that comes back."""

    attempt: Attempt
    channel: Channel
    refund_on_reversal: bool

    @property
    def order(self) -> UUID:
        return self.attempt.order_id


async def find_asked(tx: Tx, order_id: UUID, attempt_id: UUID) -> Asked:
    """Raises NotFound, StateConflict for an attempt that has its verdict or is being sent, ChannelUnknown."""
    place = await queries.get_place(tx, order_id)
    attempt = (await attempts_of.find_attempts(tx, [(place.book_id, attempt_id)])).get((place.book_id, attempt_id))
    if attempt is None or attempt.order_id != order_id:
        raise NotFound("no such attempt")
    if attempt.state not in ASKABLE:
        raise StateConflict(f"an attempt that is {attempt.state} cannot be cancelled")
    [order] = await queries.list_orders(tx, merchant_id=place.merchant_id, order_id=order_id, limit=1)
    product = await catalog.find_product(tx, order["sku"])
    return Asked(attempt, await catalog.get_channel(tx, attempt.channel_id), product is None or product.refund_on_reversal)


async def ask(asked: Asked, keyring: Keyring, timeout_s: float) -> tuple[Answer, Supplier]:
    """What the supplier says. Raises StateConflict where it cannot be asked."""
    client = build_client(max_connections=1, connect_timeout_s=_CONNECT_S, read_timeout_s=timeout_s, guard=False)
    try:
        try:
            supplier = Connections(keyring, client, base_url="", timeout_s=timeout_s).of(asked.channel)
        except (LookupError, ValueError) as trouble:
            raise StateConflict("this channel cannot be connected") from trouble
        return await ask_through(supplier, asked.attempt, timeout_s), supplier
    finally:
        await client.aclose()


async def ask_through(supplier: Supplier, attempt: Attempt, timeout_s: float) -> Answer:
    """The answer as it may count: a final no, "taken", or nothing. Raises StateConflict where it cannot be asked.

    A refusal is this supplier's alone, whatever scope it names: that it stopped at our wish says nothing about the number. Anything but a
    refusal or "taken" is no verdict on the order, and a look-up decides.
    """
    if supplier.cancel is None:
        raise StateConflict("this supplier cannot be asked to cancel")
    try:
        async with asyncio.timeout(timeout_s + 2):
            answer = await supplier.cancel(attempt.reference, attempt.supplier_order_no)
    except Exception as trouble:  # an adapter that raises has not told us what happened
        return Answer(Unknown(f"cancelling: {type(trouble).__name__}"))
    match answer.outcome:
        case Refused(reason=reason, detail=detail):
            return Answer(Refused(Scope.CHANNEL, RefusalReason(reason), detail or "cancelled at our wish"), answer.raw, answer.http_status)
        case Accepted():  # whatever number it names may be that of the request, not of the order
            return Answer(Accepted(), answer.raw, answer.http_status)
        case Unknown(needs_person=False):
            return answer
        case other:
            return Answer(Unknown(f"cancelling: {type(other).__name__}"), answer.raw, answer.http_status)


async def record(tx: Tx, keyring: Keyring, asked: Asked, answer: Answer, supplier: Supplier) -> str:
    """Keep the answer as evidence and let it count; what is no verdict is looked up at once. Returns the word of the answer."""
    attempt = asked.attempt
    news = News(
        attempt.book_id, attempt.attempt_id, "cancel", answer, supplier.capabilities, supplier.look_up is not None, asked.refund_on_reversal
    )
    await settle(tx, keyring, [Settlement(news, order_id=attempt.order_id)])
    if supplier.look_up is not None and not isinstance(answer.outcome, Refused):
        soon = utc_now() + timedelta(seconds=max(_LOOK_S, supplier.capabilities.min_query_interval_s))
        await tasks.make_due(tx, [Due(attempt.book_id, Lane.LOOK_UP, attempt.attempt_id, soon)])
    return outcome_word(answer.outcome)
