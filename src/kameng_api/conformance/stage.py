"""Where a scenario is played: the miniature house, the sender, the hooks, and the words in which a scenario judges."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kameng_api.conformance.callback import TOTAL_S, Callback
from kameng_api.conformance.hooks import Hooks, Told
from kameng_api.conformance.house import House, Seen
from kameng_api.conformance.options import Options
from kameng_api.conformance.orders import Order
from kameng_api.conformance.trace import Exchange
from kameng_api.conformance.troubles import Trouble
from kameng_api.conformance.verdicts import Fault, Finding, NotChecked

_LOOK_EVERY_S: Final = 0.2
_LOST_STATES: Final = frozenset(("failed", "cancelled", "refunded"))


class NoOrder(NotChecked):
    """The merchant's software was asked for an order and none came. `refused` is the last creation that could not be accepted, if any."""

    def __init__(self, said: str, refused: Seen | None) -> None:
        super().__init__(said)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Placing:
    """What the merchant's software sent since it was asked for one order."""

    house: House
    mark: int
    known: frozenset[str]

    def posts(self) -> list[Seen]:
        """Well-formed creations with a number that is new since then, repetitions included."""
        return [seen for seen in self.house.seen[self.mark :] if seen.number is not None and seen.number not in self.known]

    def numbers(self) -> list[str]:
        return list(dict.fromkeys(seen.number for seen in self.posts() if seen.number is not None))

    def asked_again(self) -> bool:
        """Whether the first number was sent again, or looked up."""
        first = self.posts()[0]
        order = self.house.book.by_number.get(str(first.number))
        names = {f"/v1/orders/by-merchant-no/{first.number}"} | ({f"/v1/orders/{order.order_id}"} if order is not None else set())
        after = self.house.seen[self.house.seen.index(first) + 1 :]
        return any(seen.number == first.number or (seen.method == "GET" and seen.path in names) for seen in after)


class Stage:
    """One for the whole run; `finding` is that of the scenario being played."""

    def __init__(self, options: Options, house: House, callback: Callback, hooks: Hooks, journal: list[Exchange]) -> None:
        self.options = options
        self.house = house
        self.callback = callback
        self.hooks = hooks
        self._journal = journal
        self._triggers: set[asyncio.Task[None]] = set()
        self.finding: Finding

    def begin(self, finding: Finding) -> None:
        """Nothing of an earlier scenario counts any more."""
        self.finding = finding
        self.house.script = []
        self.house.settled = frozenset(seen.number for seen in self.house.seen if seen.number is not None)

    async def end(self) -> None:
        """Let the last trigger come back, so that it does not speak into the next scenario."""
        if self._triggers:
            await asyncio.wait(self._triggers, timeout=self.options.quiet_s)

    async def close(self) -> None:
        for task in self._triggers:
            task.cancel()
        await asyncio.gather(*self._triggers, return_exceptions=True)

    def blame(self, code: str, said: str) -> None:
        """A fault; the same code once per scenario is enough."""
        if all(fault.code != code for fault in self.finding.faults):
            self.finding.faults.append(Fault(code, said))

    def note(self, said: str) -> None:
        self.finding.notes.append(said)

    def uncheck(self, reason: str) -> None:
        """A part of the scenario could not be seen."""
        if reason not in self.finding.unchecked:
            self.finding.unchecked.append(reason)

    async def quiet(self) -> None:
        """Watch for a while that nothing more happens."""
        await asyncio.sleep(self.options.quiet_s)

    async def until(self, there: Callable[[], bool], within_s: float) -> bool:
        """Whether `there` came true, looked at after each request of the merchant's software."""
        try:
            async with asyncio.timeout(within_s), self.house.changed:
                await self.house.changed.wait_for(there)
        except TimeoutError:
            return there()
        return True

    # --- orders ---------------------------------------------------------------------------------------------------

    def ask(self, *troubles: Trouble) -> Placing:
        """Ask the merchant's software for one order, with these troubles waiting for its attempts. Raises NotChecked without a trigger."""
        if not self.hooks.can_trigger:
            raise NotChecked("needs --trigger: the kit cannot make your software place an order")
        self.house.script = list(troubles)
        placing = Placing(self.house, len(self.house.seen), self.house.settled)
        exchange = Exchange("kit → trigger", "")
        self._journal.append(exchange)
        task = asyncio.create_task(self.hooks.ask_for_order(self.finding.scenario.key, exchange))
        self._triggers.add(task)
        task.add_done_callback(self._triggers.discard)
        return placing

    async def place(self, *troubles: Trouble) -> Placing:
        """`ask`, and wait for the first creation. Raises NotChecked, or NoOrder."""
        placing = self.ask(*troubles)
        trigger = self._journal[-1]
        if not await self.until(lambda: bool(placing.posts()), self.options.wait_s):
            refused = [s for s in self.house.seen[placing.mark :] if s.method == "POST" and s.path == "/v1/orders" and s.number is None]
            said = f"no order came within {self.options.wait_s:g} s (the trigger answered {trigger.status or trigger.trouble or 'nothing yet'})"
            if refused:
                said = f"the order was refused: {refused[-1].problem}: {refused[-1].detail}"
            raise NoOrder(said, refused[-1] if refused else None)
        return placing

    async def placed_order(self) -> Order | None:
        """An order that the merchant's software placed for this scenario; None without a trigger. Raises NoOrder."""
        if not self.hooks.can_trigger:
            return None
        placing = await self.place()
        return self.house.book.by_number[placing.numbers()[0]]

    async def subject(self) -> Order:
        """An order to tell of: the merchant's own if it can be asked for one, else one that nobody placed. Then only answers can be judged."""
        try:
            order = await self.placed_order()
        except NoOrder as missing:
            self.uncheck(str(missing))
            order = None
        if order is None:
            self.uncheck("what your software made of the event needs --trigger and --probe")
            order = self.house.book.imagine(self.options.sku, self.options.target)
        elif not self.hooks.can_probe:
            self.uncheck("what your software made of the event needs --probe")
        return order

    def judge_numbers(self, placing: Placing, after: str) -> None:
        """The rule of rules: after doubt the same number with the same content, never a new one."""
        numbers = placing.numbers()
        if len(numbers) > 1:
            self.blame("number_invented", f"after {after} it invented a new number ({numbers[1]} after {numbers[0]}): a shopper may pay twice")
        contents: dict[str | None, Any] = {}
        for seen in placing.posts():
            if contents.setdefault(seen.number, seen.content) != seen.content:
                self.blame("content_changed", f"after {after} it sent the number {seen.number} again with other content")

    # --- webhooks -------------------------------------------------------------------------------------------------

    def expect_taken(self, exchange: Exchange, what: str) -> None:
        """2xx is the only yes."""
        status = exchange.status
        if status is None:
            self.blame("webhook_unanswered", f"{what}: {exchange.trouble}")
        elif 300 <= status < 400:
            self.blame("webhook_redirected", f"{what}: answered {status}, and redirects are not followed")
        elif not 200 <= status < 300:
            self.blame("webhook_refused", f"{what}: answered {status} instead of 2xx, so it would be sent again for three days")

    def expect_refused(self, exchange: Exchange, what: str, code: str) -> None:
        """A clear no: 4xx."""
        status = exchange.status
        if status is None:
            self.blame("webhook_unanswered", f"{what}: {exchange.trouble}; refuse it with 400 or 401")
        elif 200 <= status < 300:
            self.blame(code, f"{what}: answered {status}, as if it were ours")
        elif 300 <= status < 400:
            self.blame("webhook_redirected", f"{what}: answered {status} instead of 400 or 401")
        elif status >= 500:
            self.blame("refused_by_failing", f"{what}: answered {status}; refuse it with 400 or 401 before anything else happens")

    # --- what the merchant's software believes --------------------------------------------------------------------

    async def look(self, order: Order) -> Told | None:
        """What the probe says now. Raises NotChecked where that cannot be seen."""
        if not self._is_theirs(order):
            raise NotChecked("what your software made of it needs --trigger and --probe")
        told, exchange = await self.hooks.look(order.number)
        self._journal.append(exchange)
        return told

    async def look_for(self, order: Order, right: Callable[[Told], bool]) -> Told | None:
        """The probe's answer as soon as it is `right`, else its last one after 1.5 `quiet_s`: the work may follow the answer."""
        deadline = time.monotonic() + 1.5 * self.options.quiet_s
        while True:
            if not self._is_theirs(order):
                raise NotChecked("what your software made of it needs --trigger and --probe")
            told, exchange = await self.hooks.look(order.number)
            if (told is not None and right(told)) or time.monotonic() >= deadline:
                self._journal.append(exchange)
                return told
            await asyncio.sleep(_LOOK_EVERY_S)

    async def expect_status(self, order: Order, status: str, code: str, said: str) -> Told | None:
        """The probe comes to say `status`, else a fault. Raises NotChecked where that cannot be seen."""
        told = await self.look_for(order, lambda told: told.status == status)
        if told is None:
            self.blame(code, f"{said}: the probe does not know the order {order.number}")
        elif told.status is None:
            raise NotChecked("the probe does not tell `status`")
        elif told.status != status:
            self.blame(code, f"{said}: the probe says {told.status!r} instead of {status!r}")
        return told

    def expect_hope(self, told: Told | None, code: str, said: str) -> None:
        """While the outcome is open, the order must be known, and neither given up nor paid back."""
        if told is None:
            self.blame("order_forgotten", f"{said}: the probe does not know it")
        elif told.status is None:
            self.uncheck("the probe does not tell `status`")
        if told is not None and told.status in _LOST_STATES:
            self.blame(code, f"{said}: the probe says {told.status!r}")
        if told is not None and told.refunds:
            self.blame("refunded_in_doubt", f"{said}: it gave its customer the money back while the order may still succeed")

    def _is_theirs(self, order: Order) -> bool:
        return self.hooks.can_trigger and any(seen.number == order.number for seen in self.house.seen)

    # --- over the whole run ---------------------------------------------------------------------------------------

    def too_slow(self) -> list[Exchange]:
        return [exchange for exchange in self.callback.sent if exchange.status is None and exchange.took_s >= TOTAL_S - 0.5]
