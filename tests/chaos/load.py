"""The load: what forty merchants order, how they misbehave, and how often; all of it drawn from the seed."""

import asyncio
import json
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos import vendors
from tests.chaos.history import FINAL_STATUSES
from tests.chaos.merchant import Known, Programs, Wanted
from tests.chaos.shop import CHEAP_SKU, Buyer, poor_mans_portion

from kameng_api.kit.money import parse_amount

MOBILE_SKUS: Final = ("mobile-cn-10", "mobile-cn-30", "mobile-cn-50", "mobile-cn-100", "mobile-cn-200", "mobile-data-1gb")
ACCOUNT_SKUS: Final = ("video-month", "video-year", "qq-coin")
CARD_SKUS: Final = ("game-card-30", "test-card", "coffee-30")
MAGIC: Final = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
SLOW_MAGIC: Final = frozenset({"3", "4", "5", "7"})
"""What takes half a minute and more at the supplier."""
HOT_SHARE: Final = 0.25
MOST_OPEN: Final = 600
"""Orders whose program is still busy; above it no new one begins."""


@dataclass
class Load:
    """Paces the programs. `patient` also plays targets that end late."""

    programs: Programs
    buyers: list[Buyer]
    rate_per_s: float
    patient: bool = True
    drain_s: float = 60.0
    """How long programs that have begun may go on; those cut off then are resolved by the final reads."""
    begun: int = 0
    _running: set["asyncio.Task[None]"] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.draw = random.Random(f"{self.programs.rig.seed}/load")
        self._rich = [b for b in self.buyers if not b.poor]
        self._poor = [b for b in self.buyers if b.poor]

    async def run(self, seconds: float) -> None:
        """Orders at an even pace for so long; behind schedule it catches up. Then waits for the programs."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._spawn(self._look_around(begin + seconds))
        while (now := loop.time()) < begin + seconds:
            due = int((now - begin) * self.rate_per_s)
            while self.begun < due and len(self._running) < MOST_OPEN:
                self.begun += 1
                self._spawn(self._one(self.begun))
            await asyncio.sleep(0.01)
        if self._running:
            await asyncio.wait(self._running, timeout=self.drain_s)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (trouble := task.exception()) is not None:
            self.programs.count(f"program failed: {trouble!r}"[:200])

    # ---- one order

    def wish(self, n: int) -> Wanted:
        """Order `n` of this run, the same for the same seed; of what is not sold in it, something else."""
        wanted, vendor = self._wish(n), self.programs.rig.vendor
        if vendor is None:
            return wanted
        return self._of(wanted.buyer, n, magic=wanted.magic, **vendors.instead(vendor, json.loads(wanted.body), _phone(n)))

    def _wish(self, n: int) -> Wanted:
        draw = self.draw
        dice = draw.random()
        if self._poor and dice < 0.03:
            return self._of(draw.choice(self._poor), n, sku=CHEAP_SKU, target=_phone(n))
        buyer = self._rich[0] if draw.random() < HOT_SHARE else draw.choice(self._rich)
        if dice < 0.58:
            return self._of(buyer, n, sku=draw.choice(MOBILE_SKUS), target=_phone(n))
        if dice < 0.72:
            sku = draw.choice(ACCOUNT_SKUS)
            fields: dict[str, Any] = {"fields": {"face_value": str(draw.randint(1, 100))}} if sku == "qq-coin" else {}
            return self._of(buyer, n, sku=sku, target=f"acct-{n}", **fields)
        if dice < 0.84:
            return self._of(buyer, n, sku=draw.choice(CARD_SKUS), quantity=draw.randint(1, 3))
        if dice < 0.92:
            return self._of(buyer, n, sku=draw.choice(MOBILE_SKUS), target=_phone(n), quantity=draw.randint(2, 5))
        if dice < 0.94:
            return self._of(buyer, n, sku=draw.choice(MOBILE_SKUS), target=_phone(n), deliver_within_s=draw.randint(5, 30))
        if dice < 0.95:
            return self._of(buyer, n, sku="test-out-of-stock")
        which = draw.choice([m for m in MAGIC if self.patient or m not in SLOW_MAGIC])
        quantity = draw.randint(2, 4) if which == "6" else 1
        return self._of(buyer, n, magic=True, sku="mobile-cn-10", target=f"1{int(which):010d}", quantity=quantity)

    def _of(self, buyer: Buyer, n: int, *, magic: bool = False, **content: Any) -> Wanted:
        return Wanted.of(buyer, f"N{n:07d}", magic=magic, **content)

    async def _one(self, n: int) -> None:
        wanted = self.wish(n)
        programs = self.programs
        draw = random.Random(f"{programs.rig.seed}/{n}")
        dice = draw.random()
        if dice < 0.03:
            await programs.place_and_leave(wanted, draw.random() * 0.03)
        if dice > 0.999:
            await asyncio.gather(*(programs.place(wanted) for _ in range(50)))
        elif dice > 0.96:
            await asyncio.gather(*(programs.place(wanted) for _ in range(draw.randint(2, 4))))
        said = await programs.place(wanted)
        if 0.03 <= dice < 0.05 and said.outcome == "ok":
            await self._reuse_number(wanted, draw)
        known = programs.known[wanted.buyer.name, wanted.number]
        if said.outcome == "ok":
            await self._afterwards(known, draw)

    async def _reuse_number(self, wanted: Wanted, draw: random.Random) -> None:
        """The same number with other content, which must be refused whenever the first one stands."""
        other = Wanted.of(wanted.buyer, wanted.number, sku="mobile-cn-30", target=f"103{draw.randrange(10**8):08d}")
        await self.programs.place_once(Wanted(other.buyer, other.number, other.body, other.facts))
        self.programs.known[wanted.buyer.name, wanted.number].wanted = wanted

    async def _afterwards(self, known: Known, draw: random.Random) -> None:
        programs = self.programs
        dice = draw.random()
        if dice < 0.03:
            await programs.cancel(known)
        elif dice < 0.13:
            await asyncio.sleep(draw.random() * 4)
            await programs.get(known)
        elif dice < 0.155 and not known.wanted.magic:
            await self._refund(known, draw)

    async def _refund(self, known: Known, draw: random.Random) -> None:
        """Once final: a part, all of it, twice under one number, or two racing for more than there is."""
        programs = self.programs
        await programs.until_final(known, 30)
        if known.status not in FINAL_STATUSES - {"failed", "cancelled"}:
            return
        said = await programs.get(known)
        if said.outcome != "ok":
            return
        captured = parse_amount(said.body["unit_price"]) * int(said.body["delivered_quantity"])
        number = f"RF-{known.wanted.number}"
        match draw.randrange(4):
            case 0:
                await programs.refund(known, number, captured)
            case 1:
                await programs.refund(known, number, max(captured // 3, 1))
            case 2:
                await asyncio.gather(*(programs.refund(known, number, max(captured // 2, 1)) for _ in range(3)))
            case _:
                await asyncio.gather(*(programs.refund(known, f"{number}-{i}", captured * 2 // 3 or 1) for i in range(3)))

    # ---- beside the orders

    async def _look_around(self, until: float) -> None:
        """Lists and balances, and money for the poor when theirs is spent."""
        loop, programs, n = asyncio.get_running_loop(), self.programs, 0
        while loop.time() < until:
            n += 1
            buyer = self.draw.choice(self.buyers)
            await programs.balance(buyer)
            await programs.list(buyer)
            if self._poor and n % 6 == 0:
                amount = parse_amount(poor_mans_portion(self.draw.randint(1, 12)))
                await programs.fund(self.draw.choice(self._poor), f"more-{programs.rig.seed}-{n}", amount)
            await asyncio.sleep(0.5)


def _phone(n: int) -> str:
    """A target of its own for every order, from a range that no carrier has."""
    return f"102{n:08d}"
