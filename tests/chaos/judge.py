"""Judges a run from its folder alone: the clients' history and the suppliers' own logs against I1 to I17 of work.md.

`python -m tests.chaos.judge FOLDER`; exit code 1 when anything is broken or could not be checked.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.chaos import judge_clients, judge_house, judge_suppliers, judge_webhooks
from tests.chaos.history import HistoryDamaged
from tests.chaos.judge_evidence import Run, read_run
from tests.chaos.judge_verdict import Verdict

CHECKS: Final[tuple[Callable[[Run], Verdict], ...]] = (
    judge_house.check_books,
    judge_house.check_balances,
    judge_clients.check_money,
    judge_clients.check_acknowledged,
    judge_suppliers.check_deliveries,
    judge_webhooks.check_one_end,
    judge_suppliers.check_one_at_a_time,
    judge_suppliers.check_sent_once,
    judge_clients.check_numbers,
    judge_suppliers.check_codes,
    judge_suppliers.check_leases,
    judge_house.check_work,
    judge_clients.check_finished,
    judge_suppliers.check_doubt_is_held,
    judge_clients.check_refunds,
    judge_webhooks.check_hooks,
    judge_house.check_liveness,
    judge_house.check_second_opinion,
)


def judge(folder: Path) -> list[Verdict]:
    """Every invariant over the run in `folder`. Reads nothing else and changes nothing."""
    try:
        run = read_run(folder)
    except HistoryDamaged as trouble:
        return [_damaged(str(trouble))]
    verdicts = [check(run) for check in CHECKS]
    if run.missing:
        verdicts.append(_damaged(f"not there: {', '.join(run.missing)}"))
    return verdicts


def _damaged(why: str) -> Verdict:
    verdict = Verdict("run", "the run left all its evidence")
    verdict.cannot(why)
    return verdict


def is_green(verdicts: Sequence[Verdict]) -> bool:
    """Only when every invariant was checked and held."""
    return bool(verdicts) and all(v.ok for v in verdicts)


def broken(verdicts: Sequence[Verdict]) -> list[str]:
    """The invariants that were seen broken; what was merely not checked is not among them."""
    return [v.invariant for v in verdicts if v.broken]


def main() -> None:
    verdicts = judge(Path(sys.argv[1]))
    for verdict in verdicts:
        print(verdict)
    print("GREEN" if is_green(verdicts) else "RED")
    sys.exit(not is_green(verdicts))


if __name__ == "__main__":
    main()
