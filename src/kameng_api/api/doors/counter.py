"""The house's side of every door: the same actions as the contract's own endpoints, bound to one account, and nothing said that may not stay true."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from kameng_api.api import deps
from kameng_api.api.doors.door import (
    Account,
    Answer,
    Balance,
    Card,
    Conflict,
    Doubt,
    Offered,
    Placed,
    Refused,
    Shown,
    VendorDoor,
    Wanted,
    WantedField,
)
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Product, Reader
from kameng_api.evidence import restores
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem, StateConflict
from kameng_api.kit.ids import parse_public_id
from kameng_api.kit.money import format_amount
from kameng_api.kit.public_address import UrlRefused, check_url
from kameng_api.ledger import queries as ledger
from kameng_api.merchants.door_rules import DoorAccount, Sold
from kameng_api.merchants.errors import MerchantSuspended
from kameng_api.merchants.rules import Caller
from kameng_api.orders import actions, codes, foreign, queries
from kameng_api.orders import closing as numbers
from kameng_api.orders.actions import Place, target_binding
from kameng_api.orders.errors import NumberClosed, OrderNoConflict, ProductUnavailable
from kameng_api.orders.requests import Draft, OrderRequest, appraise
from kameng_api.orders.rules import Order
from kameng_api.tasks.rules import Lane

_NUMBER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VERDICTS: Final = frozenset((
    "validation_failed", "product_unavailable", "product_not_authorised", "price_changed", "out_of_stock", "target_not_supported",
    "duplicate_target", "test_value_in_live", "insufficient_balance", "merchant_suspended",
))  # fmt: skip
"""Refusals that say nothing was bought. Whatever else placing may raise is doubt."""
_MAX_QUANTITY: Final = 100_000
_MAX_FIELDS: Final = 20
_MAX_FIELD_CHARS: Final = 256
_MAX_FACTS_BYTES: Final = 4_096
_ASKED_ABOUT: Final = timedelta(days=180)
"""How old an order may be that somebody still asks about by its number."""


class BoundCounter:
    """See `door.Counter`. Made for one proven request; `account` is all it can reach."""

    def __init__(self, house: deps.Door, vendor: VendorDoor, account: DoorAccount, address: str, request_id: str) -> None:
        self._house = house
        self._vendor = vendor
        self._mine = account
        self._address = address
        self._request_id = request_id
        self._caller = Caller(
            f"door:{vendor.name}:{account.seen.account}", account.merchant_id, account.merchant_name, account.book_id, account.seen.environment,
            account.level, account.seen.currency, frozenset(), address, request_id,
        )  # fmt: skip

    @property
    def account(self) -> Account:
        return self._mine.seen

    # --- placing -----------------------------------------------------------------------------------------------------

    async def place(self, wanted: Wanted) -> Answer:
        """See `door.Counter.place`."""
        if not _NUMBER.fullmatch(wanted.number):  # nothing stands, or can ever stand, under it
            return Refused("validation_failed", "an order number is 1-64 of A-Z a-z 0-9 _ -")
        request, wrong = self._request_of(wanted)
        key = (self._mine.book_id, wanted.number)
        in_hand = self._house.lobby.in_hand
        in_hand.take(key)
        # A caller that hangs up does not end what it began: the number stays in hand until the verdict is there.
        work = asyncio.ensure_future(self._decide(wanted, request, wrong))
        work.add_done_callback(lambda _: in_hand.put_down(key))
        answer = await asyncio.shield(work)
        self._count(answer)
        return answer

    async def _decide(self, wanted: Wanted, request: OrderRequest, wrong: Problem | None) -> Answer:
        item = Place(
            self._mine.book_id, self._mine.seen.environment, self._mine.seen.currency, request, request.fingerprint(),
            wrong or await self._appraise(request),
        )  # fmt: skip
        try:
            placed = await self._house.orders.submit(item)
        except OrderNoConflict:
            return self._met(await self._standing(wanted.number), wanted)
        except NumberClosed as closed:
            return Refused("number_closed", closed.detail)
        except Problem as problem:
            if problem.code not in _VERDICTS:
                raise Doubt from problem
            return await self._no(wanted, problem)
        return Placed(self._show(placed.order), placed.created)

    async def _appraise(self, request: OrderRequest) -> Draft | Problem:
        if not self._mine.merchant_active:
            return MerchantSuspended("the operator has stopped this merchant")
        snapshot = self._house.catalog.current
        looked_up = await self._house.lookups.word_for(snapshot, self._caller.environment, request.sku, request.target)
        return appraise(request, self._caller, snapshot, looked_up)

    async def _no(self, wanted: Wanted, problem: Problem) -> Answer:
        """A refusal, once it is certain that no twin of this request has bought, or will buy, what is refused here."""
        code = "url_refused" if any(e.code == "url_refused" for e in problem.errors) else problem.code
        if self._vendor.a_refusal_closes and code not in self._vendor.asked_again:
            order = await self._close(wanted.number)
        else:
            if self._house.lobby.in_hand.count((self._mine.book_id, wanted.number)) > 1:
                raise Doubt
            order = await self._settled(wanted.number)
        if order is not None:
            return self._met(order, wanted)
        detail = "; ".join(f"{e.pointer} {e.detail}" for e in problem.errors) or problem.detail
        return Refused(code, detail)

    def _met(self, order: Order, wanted: Wanted) -> Answer:
        """An order stands already: the one that was asked for, or another."""
        shown = self._show(order)
        marks = foreign.read_marks(order, self._vendor.name, self._mine.account_id)
        return Placed(shown, created=False) if marks.get("same") == wanted.same else Conflict(shown)

    def _request_of(self, wanted: Wanted) -> tuple[OrderRequest, Problem | None]:
        """The request in our words, and what is already known to be wrong with it: an order that stands is looked for all the same."""
        sold = self._mine.sold_as(wanted.product)
        face_value, wrong = self._face_value(wanted, sold)
        fields = dict(wanted.fields)
        if face_value is not None:
            fields["face_value"] = format_amount(face_value)
        wrong = wrong or self._wrong_form(wanted)
        quantity = max(wanted.quantity, 1)
        request = OrderRequest(
            merchant_order_no=wanted.number,
            sku=sold.sku if sold is not None else wanted.product[:64],
            quantity=quantity,
            target=wanted.target or None,
            fields=fields,
            max_unit_price=None if wanted.most is None else wanted.most // quantity,
            notify_url=None if wanted.callback is None else foreign.receiver(self._mine.account_id, wanted.callback),
            metadata=foreign.marks(self._vendor.name, self._mine.account_id, wanted.product, wanted.same, wanted.facts),
        )
        return request, ProductUnavailable("this product number is not on sale") if sold is None else wrong

    def _face_value(self, wanted: Wanted, sold: Sold | None) -> tuple[int | None, Problem | None]:
        """What `fields.face_value` is to say; a fixed product says nothing there, and must have the face value that was asked for."""
        if sold is None:
            return None, None
        product = self._house.catalog.current.products.get(sold.sku)
        if product is None or product.ranged:
            asked, fixed = wanted.face_value, sold.face_value
            wrong = asked is not None and fixed is not None and asked != fixed
            return fixed if fixed is not None else asked, _invalid("/face_value", "differs from the product's") if wrong else None
        wrong = wanted.face_value is not None and wanted.face_value != product.face_value
        return None, _invalid("/face_value", "differs from the product's") if wrong else None

    def _wrong_form(self, wanted: Wanted) -> Problem | None:
        if not 1 <= wanted.quantity <= _MAX_QUANTITY:
            return _invalid("/quantity", f"1 to {_MAX_QUANTITY}")
        if len(wanted.fields) > _MAX_FIELDS or any(len(v) > _MAX_FIELD_CHARS for v in wanted.fields.values()):
            return _invalid("/fields", "too many, or too long")
        if len(orjson.dumps(dict(wanted.facts))) + len(wanted.same) > _MAX_FACTS_BYTES:
            return _invalid("", "the request says too much")
        if wanted.callback is not None:
            try:
                check_url(wanted.callback, development=self._house.settings.webhook_development)
            except UrlRefused as refused:
                return Invalid(errors=[FieldError("/callback", "url_refused", str(refused))])
        return None

    def _count(self, answer: Answer) -> None:
        match answer:
            case Placed(created=created):
                word = "placed" if created else "repeated"
            case Conflict():
                word = "conflict"
            case Refused():
                word = "refused"
        self._house.metrics.door_orders.labels(self._vendor.name, word).inc()

    # --- asking ------------------------------------------------------------------------------------------------------

    async def find(self, number: str, *, closing: bool | None = None) -> Shown | None:
        """See `door.Counter.find`."""
        if not _NUMBER.fullmatch(number):
            return None
        async with self._house.db.transaction() as tx:
            known = await queries.look_up_numbers(tx, [(self._mine.book_id, number)])
        order = known.orders.get((self._mine.book_id, number))
        if order is None and known.closed:
            return None
        if order is None:
            if self._house.lobby.in_hand.count((self._mine.book_id, number)):
                raise Doubt
            closes = self._vendor.a_no_closes if closing is None else closing
            order = await (self._close(number, was_asked=True) if closes else self._settled(number))
        return None if order is None else self._show(order)

    async def _close(self, number: str, *, was_asked: bool = False) -> Order | None:
        """`was_asked`: whoever asks about a number has placed it, maybe long ago; a restore since then may have taken its order away."""
        async with self._house.db.transaction() as tx:
            order = await numbers.close_number(tx, self._mine.book_id, self._mine.seen.currency, number, self._vendor.name)
            if order is None:
                await _be_certain(tx, utc_now() - _ASKED_ABOUT if was_asked else None)
        return order

    async def _settled(self, number: str) -> Order | None:
        async with self._house.db.transaction() as tx:
            order = await numbers.find_settled(tx, self._mine.book_id, self._mine.seen.currency, number)
            if order is None:
                await _be_certain(tx)
        return order

    async def _standing(self, number: str) -> Order:
        async with self._house.db.transaction() as tx:
            return await queries.get_by_number(tx, self._mine.book_id, number)

    async def find_by_id(self, order_id: str) -> Shown | None:
        """See `door.Counter.find_by_id`."""
        key = parse_public_id("ord", order_id)
        if key is None:
            return None
        async with self._house.db.transaction() as tx:
            order = await queries.find_order(tx, self._mine.book_id, key)
            if order is None:
                await _be_certain(tx, _born(key))
        return None if order is None else self._show(order)

    async def find_by_short(self, short: int) -> Shown | None:
        """See `door.Counter.find_by_short`."""
        between = foreign.ids_of_short(short)
        if between is None:
            return None
        async with self._house.db.transaction() as tx:
            near = await queries.list_between(tx, self._mine.book_id, *between)
            found = [order for order in near if foreign.short_of(order.order_id) == short]
            if not found:
                await _be_certain(tx, _born(between[0]))
        if len(found) > 1:
            raise Doubt
        return self._show(found[0]) if found else None

    async def cancel(self, order_id: str) -> Shown | None:
        """See `door.Counter.cancel`."""
        key = parse_public_id("ord", order_id)
        shown = await self.find_by_id(order_id)
        if key is None or shown is None or not shown.mine:
            return shown
        try:
            order = await self._cancelled(key)
        except NotFound:
            return None
        except StateConflict:
            return await self.find_by_id(order_id)
        self._house.doorbell.ring(Lane.WEBHOOK)
        return self._show(order)

    async def _cancelled(self, key: UUID) -> Order:
        async with self._house.db.transaction() as tx:
            order = await actions.cancel(tx, self._house.keyring, self._mine.book_id, key)
            if await restores.may_have_been_bought(tx, *order.key):
                raise StateConflict("the order may have been dispatched: its supplier is being asked")
        return order

    async def cards(self, order: Shown) -> Sequence[Card]:
        """See `door.Counter.cards`."""
        if not order.cards or not order.mine:
            return ()
        async with self._house.db.transaction() as tx:
            sealed = await queries.list_codes(tx, self._mine.book_id, order.key)
            await actions.record_reveal(
                tx, self._mine.book_id, order.key, key_id=self._caller.key_id, address=self._address, request_id=self._request_id,
                count=len(sealed),
            )  # fmt: skip
        return foreign.read_cards(codes.opened(self._house.keyring, self._mine.book_id, order.key, sealed))

    async def balance(self) -> Balance:
        async with self._house.db.transaction() as tx:
            now = await ledger.get_balance(tx, self._mine.book_id, self._mine.seen.currency)
        return Balance(now.available, now.held, now.credit_limit, now.currency)

    def _show(self, order: Order) -> Shown:
        target = None
        if order.target_sealed is not None:
            target = self._house.keyring.open(order.target_sealed, target_binding(order.book_id, order.order_id)).decode()
        shown = foreign.show(order, self._vendor.name, self._mine.account_id, target)
        return shown if shown.mine else foreign.veiled(shown)

    # --- the catalogue -----------------------------------------------------------------------------------------------

    def products(self) -> Sequence[Offered]:
        """See `door.Counter.products`."""
        numbers = dict(self._mine.products)
        if self._mine.own_skus:
            numbers |= {sku: Sold(sku) for sku, p in self._house.catalog.current.products.items() if sku not in numbers and not p.ranged}
        found = (self._offered(number, sold) for number, sold in sorted(numbers.items()))
        return [one for one in found if one is not None]

    def product(self, number: str) -> Offered | None:
        """See `door.Counter.product`."""
        sold = self._mine.sold_as(number)
        return None if sold is None else self._offered(number, sold)

    def is_mapped(self, number: str) -> bool:
        """See `door.Counter.is_mapped`."""
        return number in self._mine.products

    def _offered(self, number: str, sold: Sold) -> Offered | None:
        """None for what this account may not see: another environment's or currency's, not opened to it, or without a price for it."""
        snapshot, seen = self._house.catalog.current, self._mine.seen
        reader = Reader(self._mine.book_id, seen.environment, self._mine.merchant_id, self._mine.level, seen.currency)
        product = snapshot.products.get(sold.sku)
        status = catalog.visible_status(snapshot, sold.sku, reader)
        if product is None or status == "retired":
            return None
        face_value = sold.face_value if product.ranged else product.face_value
        price = None
        if face_value is not None:
            price = catalog.unit_price(snapshot, product, self._mine.merchant_id, self._mine.level, face_value)
        return Offered(
            number=number, sku=product.sku, name=product.name, product_type=product.product_type, unit_price=price, face_value=face_value,
            currency=product.currency, target_kind=product.target_kind, stock=catalog.stock_word(snapshot, product.sku, seen.environment),
            on_sale=status == "on_sale", max_quantity=product.max_quantity, fields=_fields(product), updated_at=product.updated_at,
        )  # fmt: skip


async def _be_certain(tx: Tx, since: datetime | None = None) -> None:
    """Before a no: raises Doubt in a database that was put back to an older point, where orders that were acknowledged may be gone.

    Also when that is over, if it has happened `since` then: what was lost does not come back with the end of a restore.
    """
    if await restores.find_standing(tx) is not restores.Standing.WELL or (since is not None and await restores.has_begun_since(tx, since)):
        raise Doubt


def _born(order_id: UUID) -> datetime:
    """When an id was made. One that claims to be of the end of time is of today: nothing is lost that has not been."""
    return datetime.fromtimestamp(min((order_id.int >> 80) / 1000, utc_now().timestamp()), UTC)


def _fields(product: Product) -> list[WantedField]:
    return [WantedField(f.name, f.label, f.required, f.max_length) for f in product.fields]


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, "wrong", detail)])
