"""A day of real orders, the statements that suppliers would send about it, and differences of every class hidden in them.

Orders are placed, dispatched and settled through the application's own rooms. What a statement says is then made from what was really bought,
except where the plan says otherwise; so it is known for each break which class it must have, and everything else must agree.
"""

import json
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_of
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import book_reference, new_ulid, ulid_text
from kameng_api.merchants.rules import Caller
from kameng_api.orders import actions as orders
from kameng_api.orders.absorb import News
from kameng_api.orders.actions import Place, Placed
from kameng_api.orders.choices import Surroundings
from kameng_api.orders.dispatch import Submission, dispatch
from kameng_api.orders.requests import OrderRequest, appraise
from kameng_api.orders.settle import Settlement, settle
from kameng_api.reconciliation import actions as reconciliation
from kameng_api.reconciliation import matching
from kameng_api.reconciliation.rollforward import roll_forward
from kameng_api.reconciliation.rules import GAP, Finding
from kameng_api.suppliers.port import Answer, Capabilities, Delivered, Outcome, RefusalReason, Refused, Scope, Unknown

CLASSES: Final = tuple(f"R{n}" for n in range(1, 14))
COST: Final = 900_000
PRICE: Final = 1_000_000
PHONE: Final = "13800138000"  # the contract's own example number
MAIN, SECOND, NEW, ROLLED = "told-a", "told-b", "told-new", "told-days"
"""Cheapest; the next one; one whose window is still open; one that is there for its days alone."""
ZONE: Final = "Asia/Shanghai"
_AT_ONCE: Final = 250
_NO: Final = Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED)
_NEVER: Final = Refused(Scope.ORDER, RefusalReason.TARGET_INVALID)


@dataclass
class Line:
    """One line of a statement before it is landed. `amount` signed, 1/10000 units."""

    channel_id: str
    ext: str
    kind: str
    amount: int
    at: datetime
    day: date
    reference: str | None = None
    book_id: int | None = None
    attempt_id: UUID | None = None
    order_no: str | None = None
    external_id: str | None = None
    face_value: int | None = None
    currency: str = "CNY"


@dataclass
class Bought:
    """An attempt as it came out, the day it was sent, and what is planned for its lines."""

    plan: str
    submission: Submission
    outcome: Outcome
    day: date
    at: datetime


@dataclass
class Truth:
    """(class, subject) of everything that must be found, and the attempts that must come out as R1 though their lines look odd."""

    breaks: set[tuple[str, str]] = field(default_factory=set)
    odd_but_matched: set[UUID] = field(default_factory=set)
    injected: Counter[str] = field(default_factory=Counter)
    clean: int = 0


@dataclass
class World:
    """A shop of three channels, one merchant's test book with money, and a seed."""

    db: Database
    keyring: Keyring
    merchant_id: UUID
    book_id: int
    seed: int
    owner_does: Callable[[Sequence[str]], Awaitable[None]]
    truth: Truth = field(default_factory=Truth)
    lines: list[Line] = field(default_factory=list)

    async def stock(self) -> None:
        """Two products: one that the first two channels sell, one that only the third does."""
        async with self.db.transaction() as tx:
            for sku in ("both", "new"):
                await catalog.put_product(tx, Product(sku, sku, "topup", face_value=PRICE, target_kind="mobile"))
                await catalog.set_price(tx, sku, Price(unit_price=PRICE))
            for channel_id in (MAIN, SECOND, NEW, ROLLED):
                connection = {"base_url": "http://127.0.0.1:9", "app_key": "app", "secret": "s" * 32, "timeout_s": 5}
                settings = json.dumps(connection).encode()
                await catalog.create_channel(tx, self.keyring, NewChannel(channel_id, channel_id, "simulator", "test", settings, concurrency=10_000))
                window = 30 if channel_id == NEW else 2
                await execute(
                    tx,
                    """INSERT INTO recon_sources (source_id, channel_id, name, kind, complete, window_days)
                    VALUES ($1, $2, $2, 'upload', true, $3)""",
                    new_ulid(), channel_id, window,
                )  # fmt: skip
            await catalog.set_offer(tx, Offer(MAIN, "both", "code", unit_cost=COST))
            await catalog.set_offer(tx, Offer(SECOND, "both", "code", unit_cost=COST + 10_000))
            await catalog.set_offer(tx, Offer(NEW, "new", "code", unit_cost=COST))

    # ---- orders -------------------------------------------------------------------------------------------------------------

    async def trade(self, per_class: int, clean: int) -> None:
        """Place and settle every order that is needed, in random order, and write the lines of their statements."""
        plans = [p for name in CLASSES if name not in ("R5", "R11") for p in [name] * per_class] + ["clean"] * clean
        random.Random(self.seed).shuffle(plans)
        async with self.db.transaction() as tx:
            around = Surroundings(await catalog_of.load_snapshot(tx))
        for start in range(0, len(plans), _AT_ONCE):
            bought = await self._buy(around, plans[start : start + _AT_ONCE], start)
            for n, one in enumerate(bought):
                self.lines += self._told(one, start + n)

    async def _buy(self, around: Surroundings, plans: Sequence[str], start: int) -> list[Bought]:
        caller = Caller("ak", self.merchant_id, "m", self.book_id, "test", "standard", "CNY", frozenset(), "127.0.0.1", "r")
        asked = []
        for n, plan in enumerate(plans):
            request = OrderRequest(f"{plan}-{start + n}", "new" if plan == "R2" else "both", target=PHONE)
            asked.append(Place(self.book_id, "test", "CNY", request, request.fingerprint(), appraise(request, caller, around.snapshot)))
        async with self.db.transaction() as tx:
            placed = await orders.place(tx, self.keyring, asked)
        plan_of = {}
        for plan, one in zip(plans, placed, strict=True):
            assert isinstance(one, Placed), one
            plan_of[one.order.order_id] = plan
        bought: list[Bought] = []
        while found := await self._send(around):
            answers = [(s, _told_number(s, _outcome(plan_of[s.order_key[1]], s))) for s in found]
            async with self.db.transaction() as tx:
                news = [News(*s.attempt_key, "place", Answer(o), capabilities=Capabilities()) for s, o in answers]
                await settle(tx, self.keyring, [Settlement(n, s.task, s.order_key[1]) for n, (s, _) in zip(news, answers, strict=True)])
                times = await fetch(
                    tx,
                    f"""SELECT attempt_id, sent_at, (sent_at AT TIME ZONE '{ZONE}')::date AS day FROM attempts
                    WHERE book_id = $1 AND attempt_id = ANY ($2::uuid[])""",
                    self.book_id, [s.attempt_key[1] for s, _ in answers],
                )  # fmt: skip
            at = {r["attempt_id"]: r for r in times}
            bought += [
                Bought(plan_of[s.order_key[1]], s, o, at[s.attempt_key[1]]["day"], at[s.attempt_key[1]]["sent_at"]) for s, o in answers
            ]
        return bought

    async def _send(self, around: Surroundings) -> list[Submission]:
        async with self.db.transaction() as tx:
            found = await dispatch(tx, self.keyring, around, limit=500, lease_s=60, worker="bench")
        assert not found.poisoned, found.poisoned
        return found.submissions

    # ---- what the suppliers say ---------------------------------------------------------------------------------------------

    def _told(self, b: Bought, n: int) -> Iterator[Line]:
        """The lines about one attempt; what they hide is entered into the truth."""
        s, plan = b.submission, b.plan
        subject = f"attempt:{ulid_text(s.attempt_key[1])}"
        good = isinstance(b.outcome, Delivered)
        cost = b.outcome.cost if isinstance(b.outcome, Delivered) and b.outcome.cost else s.purchase.max_cost

        def line(kind: str, amount: int, part: str = "", *, later_s: float = 1.0, **more: Any) -> Line:
            ours: dict[str, Any] = {
                "reference": s.purchase.reference, "book_id": s.attempt_key[0], "attempt_id": s.attempt_key[1], "order_no": _number(s),
            }  # fmt: skip
            name = f"L{ulid_text(s.attempt_key[1])}{part}"
            return Line(s.channel_id, name, kind, amount, b.at + timedelta(seconds=later_s), b.day, **ours | more)

        if plan == "R9" and s.channel_id == SECOND:
            yield line("charge", -cost)  # the second supplier delivered, and is right
            return
        if plan != "clean":
            self.truth.injected[plan] += 1
            if plan == "R1":
                self.truth.odd_but_matched.add(s.attempt_key[1])
            else:
                self.truth.breaks.add((plan, subject))
        match plan:
            case "clean":
                self.truth.clean += 1
                if good:
                    yield line("charge", -cost)
            case "R1" if not good:  # charged at once, given back when it failed
                yield line("charge", -cost)
                yield line("refund", cost, "r", later_s=5)
            case "R1" if n % 3 == 0:  # they lost our reference; their own number tells
                yield line("charge", -cost, reference=None, book_id=None, attempt_id=None)
            case "R1" if n % 3 == 1:  # charged in two parts
                yield line("charge", -(cost // 3))
                yield line("charge", -(cost - cost // 3), "b")
            case "R1":  # charged twice, and one given back by themselves
                yield from (line("charge", -cost), line("charge", -cost, "b"), line("refund", cost, "r", later_s=60))
            case "R2" | "R3":
                return
            case "R6" if n % 2:  # it failed at theirs
                yield line("charge", -cost)
                yield line("refund", cost, "r", later_s=5)
            case "R7":
                yield line("charge", -(cost + (60 if n % 3 == 0 else 5_000 if n % 3 == 1 else -5_000)))
            case "R8":
                yield from (line("charge", -cost), line("charge", -cost, "b", later_s=30))
            case "R10":
                yield line("charge", -cost, **({"face_value": PRICE // 2} if n % 2 else {"currency": "USD"}))
            case "R12":
                yield line("charge", -cost)
                yield line("reversal", cost if n % 2 else cost // 2, "v", later_s=7200, external_id=f"RV{n}")
            case _:  # R4, R6, R9, R13: charged like any other
                yield line("charge", -cost)

    def strangers(self, count: int, day: date, at: datetime) -> None:
        """R5: charges for what was never asked; every other one carries a reference of ours that no attempt has."""
        for n in range(count):
            lost = new_ulid()
            reference = book_reference(self.book_id, lost) if n % 2 else f"ELSE{n:08d}"
            decoded = {"book_id": self.book_id, "attempt_id": lost} if n % 2 else {}
            self.lines.append(Line(MAIN, f"S{n}", "charge", -COST, at, day, reference=reference, order_no=f"SX{n}", **decoded))  # type: ignore[arg-type]
            self.truth.breaks.add(("R5", f"line:{MAIN}:{reference}:{day}:CNY"))
            self.truth.injected["R5"] += 1

    async def days(self, count: int, today: date) -> None:
        """R11: as many days whose lines do not add up, and as many beside them that do, of a channel of its own."""
        closing = 10_000 * COST
        rng = random.Random(self.seed)
        wrong = set(rng.sample(range(2 * count), count))
        for n in range(2 * count):
            day = today - timedelta(days=2 * count - n)
            opening, closing = closing, closing - COST + (777 if n in wrong else 0)
            at = matching.day_bounds(day)[0] + timedelta(hours=9)
            # A wallet's own movements: what is rolled forward, and belongs to no attempt.
            await self.land([Line(ROLLED, f"D{n}", "withdrawal", -COST, at, day)], ROLLED, day, opening, closing)
            async with self.db.transaction() as tx:
                rolled = await roll_forward(tx, ROLLED, day, timezone=ZONE, currency="CNY")
                if rolled.gap:
                    await reconciliation.record_break(tx, gap_of(ROLLED, "test", day, rolled.gap))
            if n in wrong:
                self.truth.breaks.add(("R11", f"day:{ROLLED}:{day}:CNY"))
                self.truth.injected["R11"] += 1

    async def land(self, lines: Iterable[Line], channel_id: str, day: date, opening: int | None = None, closing: int | None = None) -> None:
        """One accepted file of a day, with its lines."""
        file_id, waiting = new_ulid(), deque(lines)
        async with self.db.transaction() as tx:
            await execute(
                tx,
                """INSERT INTO recon_files (file_id, source_id, channel_id, environment, day, sha256, name, size_bytes, state, opening, closing, by)
                SELECT $1, source_id, channel_id, 'test', $3, $4, 'bench', 0, 'accepted', $5, $6, 'bench' FROM recon_sources
                WHERE channel_id = $2""",
                file_id, channel_id, day, file_id.bytes, opening, closing,
            )  # fmt: skip
            while waiting:
                some = [waiting.popleft() for _ in range(min(5_000, len(waiting)))]
                columns = [[getattr(x, name) for x in some] for name in _COLUMNS]
                await execute(tx, _LAND, file_id, *columns)

    async def drift(self, day: date) -> None:
        """R13: what a bug of ours would leave behind; only the owner of the tables can do that to the books."""
        subjects = [s.removeprefix("attempt:") for c, s in sorted(self.truth.breaks) if c == "R13"]
        lost = subjects[::2]
        extra = subjects[1::2]
        keys = ",".join(f"'attempt:{s}:settle'" for s in lost)
        names = ",".join(f"'{s}'" for s in extra)
        await self.owner_does(
            [f"DELETE FROM transfers WHERE book_id = {self.book_id} AND event_key IN ({keys})"] * bool(lost)
            + [f"""INSERT INTO transfers (book_id, event_key, line, kind, debit_account, credit_account, currency, amount)
            SELECT {self.book_id}, 'attempt:' || s || ':settle', 9, 'attempt_delivered', 'cogs:{MAIN}', 'supplier_prepaid:{MAIN}', 'CNY', 5
            FROM unnest(ARRAY[{names}]) AS s"""] * bool(extra)
        )  # fmt: skip

    async def today(self) -> tuple[date, datetime]:
        async with self.db.transaction() as tx:
            [row] = await fetch(tx, f"SELECT now() AS at, (now() AT TIME ZONE '{ZONE}')::date AS day")
        return row["day"], row["at"]

    async def tell(self) -> list[date]:
        """Land the statements, shuffled, day by day, and empty ones for the days of the window. The days with lines."""
        days = sorted({x.day for x in self.lines})
        random.Random(self.seed).shuffle(self.lines)
        for channel_id in (MAIN, SECOND, NEW):
            for n in range((days[-1] - days[0]).days + 3):
                day = days[0] + timedelta(days=n)
                await self.land([x for x in self.lines if x.channel_id == channel_id and x.day == day], channel_id, day)
        return days

    async def compare(self, days: Sequence[date]) -> None:
        """Every channel's days, as the job does it."""
        for channel_id in (MAIN, SECOND, NEW):
            for day in days:
                await matching.run_day(self.db, channel_id, day, "bench")

    async def found(self) -> set[tuple[str, str]]:
        async with self.db.transaction() as tx:
            rows = await fetch(tx, "SELECT class, subject FROM recon_breaks WHERE state <> 'closed'")
        return {(r["class"], r["subject"]) for r in rows}

    async def matched(self) -> set[UUID]:
        """Attempts with lines of their own."""
        async with self.db.transaction() as tx:
            return {r["attempt_id"] for r in await fetch(tx, "SELECT DISTINCT attempt_id FROM recon_matches")}


_COLUMNS: Final = ("channel_id", "ext", "day", "at", "kind", "amount", "currency", "reference", "book_id", "attempt_id", "order_no", "external_id",
                   "face_value")  # fmt: skip
_LAND: Final = """
INSERT INTO recon_lines (file_id, line_no, channel_id, ext_line_id, day, at, kind, amount, currency, reference, book_id, attempt_id,
  supplier_order_no, external_id, face_value)
SELECT $1, k.n, channel_id, ext, day, at, kind, amount, currency, reference, book_id, attempt_id, order_no, external_id, face_value
FROM unnest($2::text[], $3::text[], $4::date[], $5::timestamptz[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::uuid[],
  $12::text[], $13::text[], $14::bigint[]) WITH ORDINALITY
  AS k (channel_id, ext, day, at, kind, amount, currency, reference, book_id, attempt_id, order_no, external_id, face_value, n)
"""


def _number(s: Submission) -> str:
    return "SO" + ulid_text(s.attempt_key[1])


def _outcome(plan: str, s: Submission) -> Outcome:
    """What the supplier answers when it is asked. Some orders that hide nothing fail, too."""
    if plan in ("R1", "clean") and s.attempt_key[1].int % 5 == 0:
        return _NEVER
    if plan == "R6":
        return Unknown("no answer")
    if plan == "R4":
        return _NEVER
    if plan == "R9" and s.channel_id == MAIN:
        return _NO
    return Delivered(1)


def _told_number(s: Submission, outcome: Outcome) -> Outcome:
    return Delivered(outcome.units, outcome.cost, _number(s)) if isinstance(outcome, Delivered) else outcome


def gap_of(channel_id: str, environment: str, day: date, gap: int) -> Finding:
    """A day that does not add up, as a break of the house's book."""
    return Finding(
        GAP, channel_id, environment, f"day:{channel_id}:{day}:CNY", 2 if environment == "test" else 1, gap, "CNY", str(gap),
        evidence={"day": str(day), "why": "their lines do not add up to their balance"},
    )  # fmt: skip
