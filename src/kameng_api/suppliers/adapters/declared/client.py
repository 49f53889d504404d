"""A declared supplier at work: the port's calls, said and read as its file says."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kameng_api.kit.clock import utc_now
from kameng_api.suppliers.adapters.declared import callback, form
from kameng_api.suppliers.adapters.declared.compiled import Compiled
from kameng_api.suppliers.adapters.declared.expressions import Pick, Unreadable, amount_of, compile_expression, text_of, word
from kameng_api.suppliers.adapters.declared.settings import DeclaredSettings, texts_of
from kameng_api.suppliers.adapters.declared.templates import CannotSay, Scene
from kameng_api.suppliers.adapters.declared.verdicts import Asked
from kameng_api.suppliers.port import (
    Answer,
    AnswerUnusable,
    CallbackNews,
    CallbackReply,
    CatalogHint,
    Cause,
    HttpAnswer,
    NotSent,
    Purchase,
    Reversed,
    Send,
    SupplierBase,
    SupplierProduct,
    Unknown,
    Wallet,
)

_MOST_PAGES: Final = 10_000


class DeclaredSupplier(SupplierBase):
    """One account at a declared supplier. A call that its file does not describe is None."""

    def __init__(self, compiled: Compiled, settings: DeclaredSettings, send: Send) -> None:
        self.compiled = compiled
        self.capabilities = compiled.capabilities
        self._settings = texts_of(settings)
        self._timeout_s = settings.timeout_s
        self._send = send
        supplier = compiled.form
        self.look_up = self._look_up if supplier.look_up is not None else None
        self.cancel = self._cancel if supplier.cancel is not None else None
        self.balance = self._balance if supplier.balance is not None else None
        self.products = self._products if supplier.products is not None else None
        self.product = self._product if supplier.product is not None else None
        self.read_callback = self._read_callback if compiled.callback is not None else None
        if supplier.callback is not None:
            reply = supplier.callback.reply
            self.callback_reply = CallbackReply(reply.status, reply.text.encode(), reply.content_type)

    def scene(self, purchase: Purchase | None = None, **values: str) -> Scene:
        """What one request may speak of."""
        separator = self.compiled.form.limits.split_product_code
        parts = () if purchase is None or separator is None else tuple(purchase.product_code.split(separator))
        if purchase is not None:
            values["reference"] = purchase.reference
        return Scene(utc_now(), os.urandom(16).hex(), self._settings, purchase, values, parts)

    async def place(self, purchase: Purchase) -> Answer:
        limits = self.compiled.form.limits
        scene = self.scene(purchase)
        if purchase.currency != limits.currency:
            return Answer(NotSent("this supplier sells in another currency", Cause.UNSAYABLE))
        if purchase.product_type not in limits.product_types or not 1 <= purchase.units <= limits.max_units:
            return Answer(NotSent("this supplier does not sell such an order", Cause.UNSAYABLE))
        asked = Asked(purchase.reference, purchase.units, cards_expected=purchase.product_type == "card")
        try:
            verdict = await self._call("place", scene)
        except CannotSay as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        if not isinstance(verdict, HttpAnswer):
            return Answer(verdict)
        return self._read("place", verdict, asked, scene)

    async def _look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        return await self._ask_about("look_up", reference, supplier_order_no)

    async def _cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        return await self._ask_about("cancel", reference, supplier_order_no)

    async def _ask_about(self, call: str, reference: str, supplier_order_no: str | None) -> Answer:
        scene = self.scene(reference=reference, supplier_order_no=supplier_order_no or "")
        try:
            verdict = await self._call(call, scene)
        except CannotSay as error:
            return Answer(Unknown(f"cannot be asked in this protocol: {error}"))
        match verdict:
            case HttpAnswer():
                return self._read(call, verdict, Asked(reference, placed=True), scene)
            case NotSent(reason=reason):
                return Answer(Unknown(f"{call} not sent: {reason}"))
            case Unknown():
                return Answer(verdict)

    def _read(self, call: str, answer: HttpAnswer, asked: Asked, scene: Scene) -> Answer:
        outcome = self.compiled.answers[call].outcome(answer, asked, scene)
        if isinstance(outcome, Reversed) and call != "look_up":
            outcome = Unknown("a reversal where none can be")
        return Answer(outcome, answer.body, answer.status)

    async def _call(self, call: str, scene: Scene) -> HttpAnswer | NotSent | Unknown:
        outgoing = self.compiled.requests[call].build(scene)
        return await self._send(
            outgoing.method, outgoing.url, headers=outgoing.headers, content=outgoing.content, timeout_s=self._timeout_s
        )

    # ---- what buys nothing -----------------------------------------------------------------------------------------------

    async def _balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        part = self.compiled.form.balance
        assert part is not None
        found, _ = await self._found("balance", self.scene())
        try:
            amount = amount_of(compile_expression(part.answer.balance.at)(found), part.answer.balance.unit)
        except Unreadable as error:
            raise AnswerUnusable(f"balance: {error}") from error
        return Wallet(amount, part.answer.currency)

    async def _products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable."""
        part = self.compiled.form.products
        assert part is not None
        paging, rows, read = part.paging, compile_expression(part.answer.rows), compile_product(part.answer.product)
        next_of = None if paging.next is None else compile_expression(paging.next)
        cursor = ""
        for number in range(paging.first, paging.first + _MOST_PAGES):
            found, _ = await self._found("products", self.scene(page=str(number), page_size=str(paging.size), cursor=cursor))
            try:
                lines = rows(found)
                if not isinstance(lines, list):
                    raise Unreadable("no list")
                page = tuple([read(line) for line in lines])
                following = None if next_of is None else word(next_of(found))
            except Unreadable as error:
                raise AnswerUnusable(f"products: {error}") from error
            if page:
                yield page
            if paging.by == "none" or _is_last(paging, len(page), following):
                return
            if paging.by == "cursor":
                if following == cursor:
                    break
                cursor = following or ""
        raise AnswerUnusable("products: no end")

    async def _product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        part = self.compiled.form.product
        assert part is not None
        found, row = await self._found("product", self.scene(product_code=code))
        if row.verdict == "not_found":
            return None
        try:
            line = found if part.answer.order is None else compile_expression(part.answer.order)(found)
            read = compile_product(part.answer.product)(line)
        except Unreadable as error:
            raise AnswerUnusable(f"product: {error}") from error
        if read.product_code != code:
            raise AnswerUnusable("product: an answer about another product")
        return read

    async def _found(self, call: str, scene: Scene) -> tuple[Any, form.Row]:
        try:
            verdict = await self._call(call, scene)
        except CannotSay as error:
            raise AnswerUnusable(f"{call}: {error}") from error
        if not isinstance(verdict, HttpAnswer):
            raise AnswerUnusable(f"{call}: {verdict.reason}")
        reader = self.compiled.answers[call]
        try:
            found = reader.parse(verdict)
            row, said = reader.row(found, verdict.status)
        except Unreadable as error:
            raise AnswerUnusable(f"{call}: {error}") from error
        if row is None or row.verdict not in ("ok", "not_found"):
            raise AnswerUnusable(f"{call}: code {said}")
        return found, row

    def _read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
        """Raises CallbackRefused."""
        assert self.compiled.callback is not None
        return callback.read(self.compiled.callback, self._settings, headers, body, now)


def _is_last(paging: form.Paging, lines: int, following: str | None) -> bool:
    match paging.last:
        case "short":
            return lines < paging.size
        case "next":
            return following in (None, "", "0", "false")
        case _:
            return lines == 0


def compile_product(product: form.ProductForm) -> Callable[[Any], SupplierProduct]:
    """Reads one line of a list. Raises Unreadable when it does."""

    def pick(text: str | None) -> Pick:
        return compile_expression(text) if text is not None else lambda line: None

    code_of, name_of, type_of, cost_of = pick(product.code), pick(product.name), pick(product.type_at), pick(product.cost.at)
    stock_of, available_of = pick(product.stock), pick(product.available)
    face_of = None if product.face_value is None else (pick(product.face_value.at), product.face_value.unit)

    def read(line: Any) -> SupplierProduct:
        code, name = text_of(code_of(line)), text_of(name_of(line))
        kind = product.product_type or product.types.get(word(type_of(line)) or "")
        stock = word(stock_of(line))
        if not code or not name or kind is None:
            raise Unreadable("a product without code, name or known type")
        if stock is not None and not (stock.isascii() and stock.isdigit()):
            raise Unreadable("a stock is not a whole number")
        return SupplierProduct(
            product_code=code,
            name=name,
            product_type=kind,
            cost=amount_of(cost_of(line), product.cost.unit),
            currency=product.currency,
            stock=None if stock is None else int(stock),
            available=product.available is None or word(available_of(line)) in product.available_is,
            face_value=None if face_of is None else amount_of(face_of[0](line), face_of[1]),
        )

    return read
