"""What may be posted, decided from values alone."""

from collections import defaultdict
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from kameng_api.ledger import rules
from kameng_api.ledger.rules import AVAILABLE, DEPOSIT, FROZEN, Balance, Existed, Insufficient, Line, Mismatch, Posted, Posting

BOOKS = (16, 17)
ORDERS = [UUID(int=n) for n in range(1, 5)]

accounts = st.sampled_from([AVAILABLE, DEPOSIT, FROZEN, rules.HELD, rules.SALES, rules.SUSPENSE])
lines = st.builds(Line, accounts, accounts, st.integers(1, 50)).filter(lambda line: line.debit != line.credit)
postings = st.builds(
    Posting,
    book_id=st.sampled_from(BOOKS),
    event_key=st.sampled_from([f"key:{n}" for n in range(12)]),
    kind=st.just("test"),
    currency=st.just("CNY"),
    lines=st.lists(lines, min_size=1, max_size=3).map(tuple),
)
states = st.fixed_dictionaries(
    {
        (book, account, "CNY"): st.tuples(st.integers(0, 120), st.integers(0, 30)).map(
            lambda x: Balance(balance=x[0] - x[1], floor=-x[1], version=7)
        )
        for book in BOOKS
        for account in sorted(rules.FLOOR_ACCOUNTS)
    }
)
batches = st.lists(postings, max_size=25)


@given(batches, states)
def test_no_floor_ever_breaks_and_every_balance_is_the_sum_of_its_lines(
    batch: list[Posting], before: dict[rules.AccountKey, Balance]
) -> None:
    verdicts, rows, changed = rules.decide(batch, before, {})
    assert len(verdicts) == len(batch)
    net: defaultdict[rules.AccountKey, int] = defaultdict(int)
    touched: defaultdict[rules.AccountKey, int] = defaultdict(int)
    for row in rows:
        for account, sign, after, version in (
            (row.line.debit, -1, row.debit_balance_after, row.debit_version),
            (row.line.credit, 1, row.credit_balance_after, row.credit_version),
        ):
            key = (row.posting.book_id, account, "CNY")
            if account not in rules.FLOOR_ACCOUNTS:
                assert after is None
                assert version is None
                continue
            net[key] += sign * row.line.amount
            touched[key] += 1
            # The running balance is stored with each line, without a gap in the versions.
            assert after == before[key].balance + net[key]
            assert version == before[key].version + touched[key]
            assert after is not None
            assert sign > 0 or after >= before[key].floor
    assert changed == {k: Balance(before[k].balance + net[k], before[k].floor, before[k].version + touched[k]) for k in touched}


@given(batches, states)
def test_one_key_is_posted_once_whole_or_not_at_all(batch: list[Posting], before: dict[rules.AccountKey, Balance]) -> None:
    verdicts, rows, _ = rules.decide(batch, before, {})
    written: dict[tuple[int, str], Posting] = {}
    for posting, verdict in zip(batch, verdicts, strict=True):
        key = (posting.book_id, posting.event_key)
        match verdict:
            case Posted():
                assert key not in written
                written[key] = posting
            case Existed():
                assert written[key].lines == posting.lines
            case Mismatch():
                assert written[key].lines != posting.lines
            case Insufficient():
                assert key not in written or written[key] is not posting
    by_key: defaultdict[tuple[int, str], list[Line]] = defaultdict(list)
    for row in rows:
        by_key[row.posting.book_id, row.posting.event_key].append(row.line)
    assert {k: tuple(v) for k, v in by_key.items()} == {k: p.lines for k, p in written.items()}


@given(batches, states)
def test_a_refused_posting_changes_nothing_for_the_others(batch: list[Posting], before: dict[rules.AccountKey, Balance]) -> None:
    verdicts, rows, changed = rules.decide(batch, before, {})
    kept = [p for p, v in zip(batch, verdicts, strict=True) if isinstance(v, Posted)]
    again, same_rows, same_changed = rules.decide(kept, before, {})
    assert all(isinstance(v, Posted) for v in again)
    assert (same_rows, same_changed) == (rows, changed)


@given(batches, states)
def test_a_refusal_is_true(batch: list[Posting], before: dict[rules.AccountKey, Balance]) -> None:
    verdicts, _, _ = rules.decide(batch, before, {})
    done: list[Posting] = []
    for posting, verdict in zip(batch, verdicts, strict=True):
        if isinstance(verdict, Insufficient):
            _, _, changed = rules.decide(done, before, {})
            now = {**before, **changed}
            # Walk the lines as one would by hand: some debit really finds too little.
            balance = {a: now[posting.book_id, a, "CNY"].balance for a in rules.FLOOR_ACCOUNTS}
            floor = {a: now[posting.book_id, a, "CNY"].floor for a in rules.FLOOR_ACCOUNTS}
            broke = None
            for line in posting.lines:
                if line.debit in balance:
                    if balance[line.debit] - line.amount < floor[line.debit]:
                        broke = (line.debit, balance[line.debit] - floor[line.debit])
                        break
                    balance[line.debit] -= line.amount
                if line.credit in balance:
                    balance[line.credit] += line.amount
            assert broke == (verdict.account, verdict.available)
        elif isinstance(verdict, Posted):
            done.append(posting)


@given(batches, states)
def test_posting_everything_again_changes_nothing(batch: list[Posting], before: dict[rules.AccountKey, Balance]) -> None:
    verdicts, rows, changed = rules.decide(batch, before, {})
    existing: dict[tuple[int, str], tuple[Line, ...]] = {}
    for row in rows:
        key = (row.posting.book_id, row.posting.event_key)
        existing[key] = (*existing.get(key, ()), row.line)
    posted = [p for p, v in zip(batch, verdicts, strict=True) if isinstance(v, Posted)]
    again, no_rows, no_change = rules.decide(posted, {**before, **changed}, existing)
    assert all(isinstance(v, Existed) for v in again)
    assert not no_rows
    assert not no_change


@given(batches)
def test_locks_are_taken_in_one_order_by_everybody(batch: list[Posting]) -> None:
    locks = rules.accounts_touched(batch)
    assert locks == sorted(set(locks))
    assert set(locks) == set(rules.accounts_touched(list(reversed(batch))))
    assert all(account in rules.FLOOR_ACCOUNTS for _, account, _ in locks)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_captured_and_released_share_one_key_and_move_the_whole_hold(captured: int, released: int) -> None:
    posting = rules.final(16, ORDERS[0], "CNY", captured=captured, released=released)
    assert posting.event_key == rules.final(16, ORDERS[0], "CNY", captured=0, released=1).event_key
    assert sum(line.amount for line in posting.lines) == captured + released
    assert all(line.debit == rules.HELD for line in posting.lines)


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_a_settled_attempt_clears_what_it_reserved_and_costs_what_it_cost(reserved: int, actual: int) -> None:
    net: defaultdict[str, int] = defaultdict(int)
    for posting in (
        rules.reserve(16, ORDERS[1], ORDERS[0], "ch", "CNY", reserved),
        rules.settle_delivered(16, ORDERS[1], ORDERS[0], "ch", "CNY", reserved=reserved, actual=actual),
    ):
        for line in posting.lines:
            net[line.debit] -= line.amount
            net[line.credit] += line.amount
    assert net[rules.supplier_wip("ch")] == 0
    assert -net[rules.cogs("ch")] == net[rules.supplier_prepaid("ch")] == actual


def test_success_and_failure_of_an_attempt_exclude_each_other_by_their_key() -> None:
    good = rules.settle_delivered(16, ORDERS[1], ORDERS[0], "ch", "CNY", reserved=5, actual=5)
    bad = rules.settle_refused(16, ORDERS[1], ORDERS[0], "ch", "CNY", reserved=5)
    assert good.event_key == bad.event_key
    verdicts, _, _ = rules.decide([good, bad], {}, {})
    assert verdicts == [Posted(None), Mismatch()]


def test_the_final_of_a_free_order_moves_nothing() -> None:
    free = rules.final(16, ORDERS[2], "CNY", captured=0, released=0)
    assert free.lines == ()
    assert rules.decide([free], {}, {})[0] == [Posted(None)]
