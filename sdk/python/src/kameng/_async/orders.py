"""Orders: place, watch, and what belongs to one."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from kameng import calls
from kameng._async.paging import AsyncPager
from kameng._async.runner import AsyncRunner
from kameng.calls import Money, Page, segment
from kameng.codes import DeliveryKey, open_codes
from kameng.errors import NotFinal, NotFound
from kameng.models import CardCode, CodesEnvelope, Json, Order, OrderValidation, Receipt, Refund, Step

_LONGEST_LOOK_S: Final = 5.0


class AsyncOrders:
    """`client.orders`"""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    async def create(
        self,
        merchant_order_no: str,
        sku: str,
        *,
        quantity: int = 1,
        target: str | None = None,
        fields: Mapping[str, str] | None = None,
        max_unit_price: Money | None = None,
        deliver_within_s: int | None = None,
        notify_url: str | None = None,
        metadata: Json | None = None,
        confirm_duplicate: bool = False,
    ) -> Order:
        """Buy. Store `merchant_order_no` before you call: it names this purchase for ever, and the same call again buys nothing twice.

        After NoAnswer or a ServerError, call again with the very same arguments, or ask `by_number`; never with a new number.
        Raises InsufficientBalance, NumberConflict, PriceChanged, OutOfStock, TargetNotSupported, ValidationFailed …
        """
        body = calls.order_body(
            merchant_order_no, sku, quantity=quantity, target=target, fields=fields, max_unit_price=max_unit_price,
            deliver_within_s=deliver_within_s, notify_url=notify_url, metadata=metadata, confirm_duplicate=confirm_duplicate,
        )  # fmt: skip
        return await self._client.run(calls.send("POST", "/v1/orders", calls.order, body))

    async def scan(
        self,
        till_no: str,
        receipt_no: str,
        code: str,
        *,
        wait_s: int = 5,
        quantity: int = 1,
        target: str | None = None,
        fields: Mapping[str, str] | None = None,
        max_unit_price: Money | None = None,
        metadata: Json | None = None,
        confirm_duplicate: bool = False,
    ) -> Order:
        """Sell what a till's scanner read, and wait up to `wait_s` (at most 10) for the outcome.

        The order's permanent number is `{till_no}-{receipt_no}`; everything else as in `create`.
        """
        terms = calls.order_body(
            "", "", quantity=quantity, target=target, fields=fields, max_unit_price=max_unit_price,
            metadata=metadata, confirm_duplicate=confirm_duplicate,
        )  # fmt: skip
        del terms["merchant_order_no"], terms["sku"]
        body = {"till_no": till_no, "receipt_no": receipt_no, "code": code, "wait_s": wait_s, **terms}
        return await self._client.run(calls.send("POST", "/v1/scan", calls.order, body))

    async def validate(
        self,
        merchant_order_no: str,
        sku: str,
        *,
        quantity: int = 1,
        target: str | None = None,
        fields: Mapping[str, str] | None = None,
        max_unit_price: Money | None = None,
        confirm_duplicate: bool = False,
    ) -> OrderValidation | Order:
        """What `create` would say, without buying. The order itself where the number is known already."""
        body = calls.order_body(
            merchant_order_no, sku, quantity=quantity, target=target, fields=fields, max_unit_price=max_unit_price,
            confirm_duplicate=confirm_duplicate,
        )  # fmt: skip
        return await self._client.run(calls.send("POST", "/v1/orders", calls.order_or_validation, {**body, "validate_only": True}))

    async def get(self, order_id: str) -> Order:
        """Raises NotFound."""
        return await self._client.run(calls.get(f"/v1/orders/{segment(order_id)}", calls.order))

    async def by_number(self, merchant_order_no: str) -> Order:
        """By your own number. Raises NotFound: then nothing was bought under it."""
        return await self._client.run(calls.get(f"/v1/orders/by-merchant-no/{segment(merchant_order_no)}", calls.order))

    async def find(self, merchant_order_no: str) -> Order | None:
        """By your own number, None when there is none."""
        try:
            return await self.by_number(merchant_order_no)
        except NotFound:
            return None

    def list(
        self,
        *,
        status: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        page_size: int = 100,
        cursor: str | None = None,
    ) -> AsyncPager[Order]:
        """Newest first."""

        async def fetch(at: str | None) -> Page[Order]:
            return await self._client.run(
                calls.get(
                    "/v1/orders", calls.page(Order),
                    status=status, created_from=created_from, created_to=created_to, limit=page_size, cursor=at,
                )
            )

        return AsyncPager(fetch, cursor)

    async def cancel(self, order_id: str) -> Order:
        """Before it is dispatched; cancelled again answers the same. Raises StateConflict once it is on its way."""
        return await self._client.run(calls.send("POST", f"/v1/orders/{segment(order_id)}/cancel", calls.order))

    async def wait_until_final(self, order: Order | str, *, timeout_s: float = 60.0, every_s: float = 0.5) -> Order:
        """Looks again and again, ever more seldom. `order`: itself or its id. Raises NotFinal with the order as it stands then."""
        ends_at = time.monotonic() + timeout_s
        found = await self.get(order) if isinstance(order, str) else order
        while not found.is_final:
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise NotFinal(found)
            await asyncio.sleep(min(every_s, left_s))
            every_s = min(every_s * 1.5, _LONGEST_LOOK_S)
            found = await self.get(found.id)
        return found

    async def timeline(self, order_id: str) -> tuple[Step, ...]:
        return await self._client.run(calls.get(f"/v1/orders/{segment(order_id)}/timeline", calls.items(Step)))

    async def refunds(self, order_id: str) -> tuple[Refund, ...]:
        """What came back after the order was final."""
        return await self._client.run(calls.get(f"/v1/orders/{segment(order_id)}/refunds", calls.items(Refund)))

    async def codes(self, order_id: str, *, delivery_key: DeliveryKey | None = None) -> tuple[CardCode, ...]:
        """The card codes, opened with the delivery key (the client's when none is given). Each call is written down at the house.

        Raises ValueError without a delivery key, StateConflict when there are no codes, NotGenuine when they do not open.
        """
        key = delivery_key if delivery_key is not None else self._client.delivery_key
        if key is None:
            raise ValueError("card codes need a delivery key: AsyncClient(…, delivery_key=…)")
        return open_codes(await self.sealed_codes(order_id), key, order_id)

    async def sealed_codes(self, order_id: str) -> CodesEnvelope:
        """The codes as they are sent, still encrypted."""
        return await self._client.run(calls.get(f"/v1/orders/{segment(order_id)}/codes", calls.one(CodesEnvelope)))

    async def receipt(self, order_id: str) -> Receipt:
        """Proof for third parties; see `kameng.proofs.verify_receipt`. Raises NotReady within seconds after a change."""
        return await self._client.run(calls.get(f"/v1/orders/{segment(order_id)}/receipt", calls.one(Receipt)))
