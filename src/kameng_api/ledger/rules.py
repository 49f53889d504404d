"""Which transfers a business event is made of, and which of a batch of postings may be written. No I/O.

Every event has a deterministic key, and outcomes that exclude each other share one: whoever loses a race finds the key taken.
Amounts are integers in 1/10000 of the currency unit.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from kameng_api.kit.ids import ulid_text

AVAILABLE: Final = "merchant_available"  # spendable
HELD: Final = "merchant_held"  # 冻结货款: held for open orders
DEPOSIT: Final = "merchant_deposit"  # 保证金
FROZEN: Final = "merchant_frozen"  # disputes and risk
SALES: Final = "sales"
SALES_REFUNDS: Final = "sales_refunds"
SUSPENSE: Final = "suspense"
FUNDING_CLEARING: Final = "funding_clearing"
PLAY_MONEY: Final = "play_money"  # where a test book's money comes from

FLOOR_ACCOUNTS: Final = frozenset({AVAILABLE, DEPOSIT, FROZEN})
"""Accounts that have a row, a lock and a running balance; all others are sums over transfers."""

HOUSE_LIVE: Final = 1
HOUSE_TEST: Final = 2
FIRST_MERCHANT_BOOK: Final = 16


def house_book(environment: str) -> int:
    return HOUSE_LIVE if environment == "live" else HOUSE_TEST


def supplier_prepaid(channel_id: str) -> str:
    """Our wallet at the supplier."""
    return f"supplier_prepaid:{channel_id}"


def supplier_wip(channel_id: str) -> str:
    """Cost of attempts sent, outcome open."""
    return f"supplier_wip:{channel_id}"


def cogs(channel_id: str) -> str:
    """Cost of goods sold, per supplier connection."""
    return f"cogs:{channel_id}"


def supplier_claim(channel_id: str) -> str:
    """What the supplier owes us back."""
    return f"supplier_claim:{channel_id}"


def price_variance(channel_id: str) -> str:
    """Small differences between the price they charged and the price they had told."""
    return f"price_variance:{channel_id}"


def psp_clearing(channel: str) -> str:
    return f"psp_clearing:{channel}"


@dataclass(frozen=True, slots=True)
class Line:
    """`amount > 0` moves from the debit to the credit account."""

    debit: str
    credit: str
    amount: int


@dataclass(frozen=True, slots=True)
class Posting:
    """One business event in one book. Lines of amount 0 are left out by the makers below."""

    book_id: int
    event_key: str
    kind: str
    currency: str
    lines: tuple[Line, ...]
    order_id: UUID | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """A floor account as locked: `version` counts the transfers that touched it."""

    balance: int
    floor: int
    version: int
    stopped: bool = False
    """Postings of the book are stopped: only a person's adjustment may change it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One transfer as it will be written."""

    posting: Posting
    line_no: int
    debit_balance_after: int | None
    debit_version: int | None
    credit_balance_after: int | None
    credit_version: int | None

    @property
    def line(self) -> Line:
        return self.posting.lines[self.line_no]


@dataclass(frozen=True, slots=True)
class Posted:
    """Written. `available_after` is the merchant's spendable balance after it, None where it was not touched."""

    available_after: int | None = None


@dataclass(frozen=True, slots=True)
class Existed:
    """The same event with the same lines had been posted before; nothing changed."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key is taken by other lines: the other outcome won."""


@dataclass(frozen=True, slots=True)
class Insufficient:
    """A floor would break. `available` is what could be spent, 1/10000 units."""

    account: str
    available: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """Postings of this book are stopped; nothing changed."""


ADJUSTMENT: Final = "adjustment"
"""The one kind of event that a stopped book still takes: it is how people put things right."""

Verdict = Posted | Existed | Mismatch | Insufficient | Stopped
AccountKey = tuple[int, str, str]  # book, account, currency


def accounts_touched(postings: Iterable[Posting]) -> list[AccountKey]:
    """The floor accounts to lock, in the one order in which everybody locks."""
    touched = {
        (p.book_id, account, p.currency)
        for p in postings
        for line in p.lines
        for account in (line.debit, line.credit)
        if account in FLOOR_ACCOUNTS
    }
    return sorted(touched)


def touches_a_floor(postings: Iterable[Posting]) -> bool:
    """Whether a floor account must be locked for any of these."""
    return any(line.debit in FLOOR_ACCOUNTS or line.credit in FLOOR_ACCOUNTS for p in postings for line in p.lines)


def rows_of_new(postings: Iterable[Posting]) -> list[Row]:
    """The rows of events that cannot exist yet and touch no floor account: there is nothing to decide."""
    return [Row(p, n, None, None, None, None) for p in postings for n in range(len(p.lines))]


def decide(
    postings: Sequence[Posting],
    balances: Mapping[AccountKey, Balance],
    existing: Mapping[tuple[int, str], tuple[Line, ...]],
) -> tuple[list[Verdict], list[Row], dict[AccountKey, Balance]]:
    """Decide a batch over a local running balance, in order: one poor merchant spoils nobody's flush.

    Returns one verdict per posting, the rows to write, and the new state of every floor account that changed.
    """
    now = dict(balances)
    changed: dict[AccountKey, Balance] = {}
    known = dict(existing)
    verdicts: list[Verdict] = []
    rows: list[Row] = []
    for posting in postings:
        key = (posting.book_id, posting.event_key)
        if key in known:
            verdicts.append(Existed() if known[key] == posting.lines else Mismatch())
            continue
        applied = _apply(posting, now)
        if isinstance(applied, Insufficient | Stopped):
            verdicts.append(applied)
            continue
        after, posting_rows = applied
        now.update(after)
        changed.update(after)
        rows.extend(posting_rows)
        known[key] = posting.lines
        available = after.get((posting.book_id, AVAILABLE, posting.currency))
        verdicts.append(Posted(None if available is None else available.balance))
    return verdicts, rows, changed


def _apply(
    posting: Posting, now: Mapping[AccountKey, Balance]
) -> tuple[dict[AccountKey, Balance], list[Row]] | Insufficient | Stopped:
    after: dict[AccountKey, Balance] = {}
    rows: list[Row] = []
    for n, line in enumerate(posting.lines):
        assert line.amount > 0, posting.kind
        marks: list[int | None] = []
        for account, sign in ((line.debit, -1), (line.credit, 1)):
            if account not in FLOOR_ACCOUNTS:
                marks += (None, None)
                continue
            key = (posting.book_id, account, posting.currency)
            before = after.get(key) or now[key]
            if before.stopped and posting.kind != ADJUSTMENT:
                return Stopped()
            balance = before.balance + sign * line.amount
            if sign < 0 and balance < before.floor:
                return Insufficient(account, before.balance - before.floor)
            after[key] = Balance(balance, before.floor, before.version + 1, before.stopped)
            marks += (balance, before.version + 1)
        rows.append(Row(posting, n, *marks))
    return after, rows


def transaction_id(book_id: int, currency: str, version: int, created_at: datetime) -> str:
    """How merchants name a movement: the ledger knows it by book, currency and version; outside it is a ULID made of its time and of those."""
    milliseconds = int(created_at.timestamp() * 1000)
    name = f"{book_id}/{currency}/{version}".encode()
    rest = int.from_bytes(hashlib.blake2b(name, digest_size=10).digest())
    return f"txn_{ulid_text(UUID(int=(milliseconds << 80) | rest))}"


def _lines(*lines: tuple[str, str, int]) -> tuple[Line, ...]:
    return tuple([Line(debit, credit, amount) for debit, credit, amount in lines if amount])


def order_posting(
    book_id: int, order_id: UUID, step: str, kind: str, currency: str, lines: tuple[Line, ...]
) -> Posting:
    return Posting(book_id, f"order:{ulid_text(order_id)}:{step}", kind, currency, lines, order_id)


def hold(book_id: int, order_id: UUID, currency: str, amount: int) -> Posting:
    """At accept: the price leaves the spendable balance and is held."""
    return order_posting(book_id, order_id, "hold", "hold", currency, _lines((AVAILABLE, HELD, amount)))


def final(book_id: int, order_id: UUID, currency: str, *, captured: int, released: int) -> Posting:
    """Once per order: what was delivered becomes sales, the rest returns. Capture, release and split share one key."""
    kind = "capture" if not released else "release" if not captured else "split"
    lines = _lines((HELD, SALES, captured), (HELD, AVAILABLE, released))
    return order_posting(book_id, order_id, "final", kind, currency, lines)


def attempt_posting(
    book_id: int, attempt_id: UUID, order_id: UUID, step: str, kind: str, currency: str, lines: tuple[Line, ...]
) -> Posting:
    return Posting(book_id, f"attempt:{ulid_text(attempt_id)}:{step}", kind, currency, lines, order_id)


def reserve(book_id: int, attempt_id: UUID, order_id: UUID, channel_id: str, currency: str, cost: int) -> Posting:
    """Before the call: the cost leaves our wallet for 'in progress'."""
    lines = _lines((supplier_wip(channel_id), supplier_prepaid(channel_id), cost))
    return attempt_posting(book_id, attempt_id, order_id, "reserve", "attempt_reserve", currency, lines)


def settle_delivered(
    book_id: int, attempt_id: UUID, order_id: UUID, channel_id: str, currency: str, *, reserved: int, actual: int
) -> Posting:
    """Delivered: the reserved cost becomes cost of goods; a difference goes to or comes from our wallet."""
    wip, prepaid, goods = supplier_wip(channel_id), supplier_prepaid(channel_id), cogs(channel_id)
    lines = _lines(
        (goods, wip, min(reserved, actual)),
        (goods, prepaid, max(actual - reserved, 0)),
        (prepaid, wip, max(reserved - actual, 0)),
    )
    return attempt_posting(book_id, attempt_id, order_id, "settle", "attempt_delivered", currency, lines)


def settle_refused(
    book_id: int, attempt_id: UUID, order_id: UUID, channel_id: str, currency: str, *, reserved: int
) -> Posting:
    """Definitely not delivered: the reserved cost is back in our wallet."""
    lines = _lines((supplier_prepaid(channel_id), supplier_wip(channel_id), reserved))
    return attempt_posting(book_id, attempt_id, order_id, "settle", "attempt_refused", currency, lines)


def reversal(
    book_id: int, attempt_id: UUID, order_id: UUID, channel_id: str, currency: str, *, external_id: str, amount: int
) -> Posting:
    """The supplier took a delivery back and paid us back."""
    lines = _lines((supplier_prepaid(channel_id), cogs(channel_id), amount))
    return attempt_posting(
        book_id, attempt_id, order_id, f"reversal:{external_id}", "attempt_reversed", currency, lines
    )


def late_success(
    book_id: int, attempt_id: UUID, order_id: UUID, channel_id: str, currency: str, *, external_id: str, cost: int
) -> Posting:
    """A success learnt after the failure was settled: an open break in suspense."""
    lines = _lines((SUSPENSE, supplier_prepaid(channel_id), cost))
    return attempt_posting(book_id, attempt_id, order_id, f"late:{external_id}", "attempt_late", currency, lines)


def refund(book_id: int, order_id: UUID, refund_no: str, currency: str, amount: int) -> Posting:
    """After capture: money returns to the merchant as its own event."""
    lines = _lines((SALES_REFUNDS, AVAILABLE, amount))
    return Posting(book_id, f"refund:{refund_no}", "refund", currency, lines, order_id)


def fund_merchant(book_id: int, channel: str, external_id: str, currency: str, amount: int) -> Posting:
    lines = _lines((FUNDING_CLEARING, AVAILABLE, amount))
    return Posting(book_id, f"fund:{channel}:{external_id}", "fund", currency, lines)


def fund_house(book_id: int, channel: str, external_id: str, currency: str, amount: int) -> Posting:
    """The house's half of a funding; the receipt row ties the two and `funding_clearing` sums to zero."""
    lines = _lines((psp_clearing(channel), FUNDING_CLEARING, amount))
    return Posting(book_id, f"fund:{channel}:{external_id}", "fund", currency, lines)


def supplier_topup(book_id: int, topup_no: str, channel_id: str, currency: str, amount: int) -> Posting:
    """We paid the supplier in advance."""
    lines = _lines((supplier_prepaid(channel_id), "bank:main", amount))
    return Posting(book_id, f"stopup:{topup_no}", "supplier_topup", currency, lines)


def adjustment(book_id: int, ticket: str, account: str, currency: str, amount: int, note: str) -> Posting:
    """A signed correction against suspense; the caller has seen to it that maker and checker differ."""
    sides = (SUSPENSE, account) if amount > 0 else (account, SUSPENSE)
    return Posting(book_id, f"adj:{ticket}", ADJUSTMENT, currency, _lines((*sides, abs(amount))), note=note)


def reconciled(
    book_id: int, key: str, way: str, currency: str, target: str, source: str, amount: int, order_id: UUID | None, break_id: UUID
) -> Posting:
    """The resolution of a break (signed amount: below zero the other way round); its note names the break."""
    sides = (target, source) if amount > 0 else (source, target)
    return Posting(book_id, key, f"recon_{way}", currency, _lines((*sides, abs(amount))), order_id, f"break {ulid_text(break_id)}")


def play_money(book_id: int, number: str, currency: str, change: int) -> Posting:
    """Test books only: set the balance, by a signed change."""
    sides = (PLAY_MONEY, AVAILABLE) if change > 0 else (AVAILABLE, PLAY_MONEY)
    return Posting(book_id, f"play:{number}", "play_money", currency, _lines((*sides, abs(change))))
