"""What becomes of answers and work of a book that takes no postings: facts are stored, the work waits, nothing is half-posted.

An answer that was put off is not applied from its stored copy: after the lift the order is asked about again, as after any crash between
the call and its record. The stored copy is the evidence for whoever must judge meanwhile.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from kameng_api.kit import sets
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx
from kameng_api.orders.settle import Settlement
from kameng_api.suppliers import actions as suppliers
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.actions import Evidence
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Task

WHY: Final = "postings of the book are stopped"


async def put_off(tx: Tx, keyring: Keyring, settlements: Sequence[Settlement], until: datetime) -> None:
    """Keep what suppliers said, and give the tasks back, due at `until`. Orders, attempts and books stay as they are."""
    known = await attempts_of.find_attempts(tx, [(s.news.book_id, s.news.attempt_id) for s in settlements])
    told = [
        Evidence(s.news.book_id, s.news.attempt_id, s.news.beat, s.news.answer)
        for s in settlements
        if (s.news.book_id, s.news.attempt_id) in known
    ]
    await sets.write(tx, suppliers.parts_of_answers(keyring, told))
    await put_off_tasks(tx, [s.task for s in settlements if s.task is not None], until)


async def put_off_tasks(tx: Tx, waiting: Sequence[Task], until: datetime) -> None:
    """Give tasks back, due at `until`; a wait is no failure, so their count of attempts begins anew."""
    await tasks.reschedule(tx, [(task, until, None) for task in waiting])
