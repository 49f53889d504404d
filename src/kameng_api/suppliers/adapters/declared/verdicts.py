"""What a vendor's words mean in ours, by the tables of its file. Total: whatever no table lists is Unknown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kameng_api.suppliers.adapters.declared import form
from kameng_api.suppliers.adapters.declared.cards import ReadCards, compile_cards
from kameng_api.suppliers.adapters.declared.expressions import Pick, Unreadable, amount_of, compile_expression, count_of, shown, text_of, word
from kameng_api.suppliers.adapters.declared.spelling import read_json, read_xml
from kameng_api.suppliers.adapters.declared.templates import Scene
from kameng_api.suppliers.port import Accepted, Cause, Delivered, HttpAnswer, NotFound, NotSent, Outcome, Refused, Reversed, Unknown

_TYPES: Final[Mapping[str, tuple[str, ...]]] = {"json": ("application/json",), "xml": ("text/xml", "application/xml")}
_ABOUT_NO_ORDER: Final = frozenset({"refused", "not_found", "busy", "unknown", "contact_staff"})
"""Verdicts of an envelope's code that need no order beside it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the answer is about. `units` None where nobody remembers how many were asked for."""

    reference: str
    units: int | None = None
    cards_expected: bool = False
    placed: bool = False
    """Of an order that was placed before (look-up, cancel): a no that does not name it may be about the question itself."""


def _pick(text: str | None) -> Pick | None:
    return None if text is None else compile_expression(text)


class OrderReader:
    """Reads one order: the part that answers and callbacks have in common. Raises ValueError for a file that does not fit."""

    def __init__(self, reading: form.Reading, settings: frozenset[str]) -> None:
        self._order = _pick(reading.order)
        self.reference = _pick(reading.reference)
        self._state = _pick(reading.state)
        self._states = reading.states
        self._units = _pick(reading.units)
        self._asked = _pick(reading.asked)
        self._one_unit = reading.one_unit
        self._cost = None if reading.cost is None else (compile_expression(reading.cost.at), reading.cost.unit)
        self._receipt = _pick(reading.receipt)
        self._order_no = _pick(reading.order_no)
        self._cards: ReadCards | None = None if reading.cards is None else compile_cards(reading.cards, settings)
        rows = [*reading.states.values(), *(reading.codes.values() if isinstance(reading, form.Answer) else ())]
        rows += [part for row in rows for part in (row.none, row.part, row.whole) if part is not None]
        self._expressions = {text: compile_expression(text) for row in rows for text in (row.returned, row.charged, row.id) if text is not None}

    def find(self, found: Any, reference: str) -> Any:
        """The order in an answer; of a list the one row with our reference, None where none or several have it."""
        order = found if self._order is None else self._order(found)
        if not isinstance(order, list):
            return order
        if self.reference is None:
            return None
        ours = [row for row in order if word(self.reference(row)) == reference]
        return ours[0] if len(ours) == 1 else None

    def named(self, order: Any) -> str | None:
        """The reference that the order names."""
        return None if self.reference is None else word(self.reference(order)) or None

    def row_of_state(self, order: Any) -> form.Row | None:
        state = None if self._state is None else word(self._state(order))
        return None if state is None else self._states.get(state)

    def by_state(self, order: Any, asked: Asked, scene: Scene) -> Outcome:
        if self._state is None:
            return Unknown("no state is read here")
        row = self.row_of_state(order)
        if row is None:
            return Unknown(f"state {shown(self._state(order))}")
        return self.by_row(row, order, asked, scene, shown(self._state(order)))

    def by_row(self, row: form.Row, order: Any, asked: Asked, scene: Scene, said: str) -> Outcome:
        """What a row of a table says about the order. Raises Unreadable."""
        match row.verdict:
            case "delivered" | "partial":
                return self._delivered(order, asked, scene, whole=row.verdict == "delivered")
            case "accepted":
                return Accepted(None if self._order_no is None else text_of(self._order_no(order)))
            case "refused":
                return Refused(*row.refusal(), detail=said)
            case "contact_staff":
                return Unknown("the supplier asks to contact its staff", needs_person=True)
            case "reversed":
                return self._reversed(row, order)
            case "by_refund":
                return self._by_refund(row, order, asked, scene, said)
            case "not_found":
                return NotFound()
            case "busy":
                return NotSent("rate limited by the supplier", Cause.BUSY)
            case _:
                return Unknown(f"code {said}")

    def _delivered(self, order: Any, asked: Asked, scene: Scene, *, whole: bool) -> Outcome:
        units = 1 if self._one_unit else count_of(self._units(order) if self._units else None)
        wanted = asked.units if self._asked is None else count_of(self._asked(order))
        if asked.units is not None and wanted != asked.units:
            return Unknown("the order is for another number of units")
        if units < 1 or (wanted is not None and (units > wanted or whole != (units == wanted))):
            return Unknown("units do not fit the state")
        codes = () if self._cards is None else self._cards(order, scene)
        if len(codes) != units and (codes or asked.cards_expected):
            return Unknown("cards do not fit the units")
        return Delivered(
            units=units,
            cost=self._cost_of(order),
            supplier_order_no=None if self._order_no is None else text_of(self._order_no(order)),
            receipt=None if self._receipt is None else text_of(self._receipt(order)),
            codes=codes,
        )

    def _cost_of(self, order: Any) -> int | None:
        if self._cost is None:
            return None
        pick, unit = self._cost
        cost = amount_of(pick(order), unit)
        if cost < 0:
            raise Unreadable("a cost below zero")
        return cost

    def _reversed(self, row: form.Row, order: Any) -> Outcome:
        assert row.id is not None
        external_id = text_of(self._expressions[row.id](order))
        return Unknown("a reversal without a number") if external_id is None else Reversed(external_id)

    def _by_refund(self, row: form.Row, order: Any, asked: Asked, scene: Scene, said: str) -> Outcome:
        """The vendor says what became of the order by an amount: nothing, part or all of the charge has come back."""
        assert row.returned is not None and row.charged is not None and row.none is not None and row.part is not None and row.whole is not None
        returned = amount_of(self._expressions[row.returned](order), row.unit)
        charged = amount_of(self._expressions[row.charged](order), row.unit)
        if not 0 <= returned <= charged or charged == 0:
            return Unknown("a refund does not fit the charge")
        chosen = row.none if returned == 0 else row.whole if returned == charged else row.part
        return self.by_row(chosen, order, asked, scene, said)


class AnswerReader:
    """Reads whole answers. Raises ValueError for a file that does not fit."""

    def __init__(self, answer: form.Answer, settings: frozenset[str]) -> None:
        self.order = OrderReader(answer, settings)
        self._code = _pick(answer.code)
        self._codes = answer.codes
        self._read = read_xml if answer.kind == "xml" else read_json
        self.charset = answer.charset
        self._types = tuple(one.lower() for one in answer.content_types) or _TYPES[answer.kind]
        self._statuses = frozenset({200, *(status for row in answer.codes.values() for status in row.status)})

    def parse(self, answer: HttpAnswer) -> Any:
        """Raises Unreadable."""
        if answer.status not in self._statuses:
            raise Unreadable(f"HTTP {answer.status}")
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() not in self._types:
            raise Unreadable("another content type than the file says")
        found = self._read(answer.body, self.charset)
        if not isinstance(found, dict | list) or not found:
            raise Unreadable("nothing in it")
        return found

    def row(self, found: Any, status: int) -> tuple[form.Row | None, str]:
        """The row of the envelope's code under this HTTP status, and the code as it may be shown."""
        if self._code is None:
            return (form.Row(verdict="state") if status == 200 else None), "none"
        code = word(self._code(found))
        row = None if code is None else self._codes.get(code)
        return (row if row is not None and status in row.status else None), shown(code)

    def outcome(self, answer: HttpAnswer, asked: Asked, scene: Scene) -> Outcome:
        """What the answer says about what was asked; never raises."""
        try:
            return self._outcome(answer, asked, scene)
        except Unreadable as error:
            return Unknown(f"unreadable answer: {error}")

    def _outcome(self, answer: HttpAnswer, asked: Asked, scene: Scene) -> Outcome:
        found = self.parse(answer)
        row, said = self.row(found, answer.status)
        if row is None or row.verdict == "unknown":
            return Unknown(f"code {said}")
        order = self.order.find(found, asked.reference)
        named = self.order.named(order)
        if named is not None and named != asked.reference:
            return Unknown("an answer about another order")
        if row.verdict in _ABOUT_NO_ORDER:
            contrary = None if order is None else self.order.row_of_state(order)
            if contrary is not None and contrary.verdict != row.verdict:
                return Unknown("code and state disagree")
            if row.verdict == "refused" and asked.placed and self.order.reference is not None and named is None:
                return Unknown("a no that does not name our order")
            return self.order.by_row(row, order, asked, scene, said)
        if order is None or (self.order.reference is not None and named is None):
            return Unknown("our order is not in the answer")
        if row.verdict == "state":
            return self.order.by_state(order, asked, scene)
        return self.order.by_row(row, order, asked, scene, said)
