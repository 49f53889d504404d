"""Make due, claim, finish: every step a set-based statement, all times from the database's clock."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from kameng_api.kit import sets
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.sets import Part, columns_of
from kameng_api.tasks.rules import Due, Task, earliest

# A task that is running now stays with its owner, whose completion sees `run_at` moved and leaves the row (see _COMPLETE).
_MAKE_DUE = """
INSERT INTO tasks AS t (book_id, lane, ref, run_at)
SELECT k.book_id, k.lane, k.ref, coalesce(k.run_at, now())
FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::timestamptz[]) AS k (book_id, lane, ref, run_at)
ORDER BY 1, 2, 3
ON CONFLICT (book_id, lane, ref) DO UPDATE SET
  run_at = CASE WHEN t.state = 'running' THEN greatest(excluded.run_at, t.run_at + interval '1 microsecond')
           ELSE least(t.run_at, excluded.run_at) END,
  state = CASE WHEN t.state = 'parked' THEN 'ready' ELSE t.state END
"""

# Ready work first; then work whose owner went silent. Two index scans, each with its own limit.
_CLAIM = """
WITH ready AS (
  SELECT book_id, lane, ref FROM tasks WHERE lane = $1 AND state = 'ready' AND run_at <= now()
  ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED
), silent AS (
  SELECT book_id, lane, ref FROM tasks WHERE lane = $1 AND state = 'running' AND lease_until < now()
  ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED
), picked AS (
  SELECT * FROM ready UNION ALL SELECT * FROM silent
)
UPDATE tasks t SET state = 'running', attempts = t.attempts + 1, lease_token = nextval('lease_tokens'),
  lease_until = now() + make_interval(secs => $3), worker = $4
FROM picked p WHERE t.book_id = p.book_id AND t.lane = p.lane AND t.ref = p.ref
RETURNING t.book_id, t.lane, t.ref, t.attempts, t.lease_token, t.run_at
"""

_NEW_CLAIMED = """
INSERT INTO tasks (book_id, lane, ref, state, run_at, attempts, lease_token, lease_until, worker)
SELECT k.book_id, $3, k.ref, 'running', now(), 1, nextval('lease_tokens'), now() + make_interval(secs => $4), $5
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, ref)
RETURNING book_id, lane, ref, attempts, lease_token, run_at
"""

# `IS NOT DISTINCT FROM` where a task is found by its key: with `=` the planner may prove that the partial index over running
# tasks fits, believe that index small, and read all running tasks once for each key (measured: 200 ms instead of 3).
_OWNED = """
SELECT t.book_id, t.ref FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::bigint[]) AS k (book_id, lane, ref, token)
JOIN tasks t ON t.book_id = k.book_id AND t.lane = k.lane AND t.ref = k.ref
WHERE t.lease_token = k.token AND t.state IS NOT DISTINCT FROM 'running'
ORDER BY t.book_id, t.lane, t.ref
FOR UPDATE OF t
"""

_COMPLETE = """
WITH mine AS (
  SELECT k.book_id, k.lane, k.ref, k.token, k.run_at
  FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[])
    AS k (book_id, lane, ref, token, run_at)
), again AS (
  UPDATE tasks t SET state = 'ready', lease_until = NULL, worker = NULL, attempts = 0
  FROM mine m WHERE t.book_id = m.book_id AND t.lane = m.lane AND t.ref = m.ref
    AND t.lease_token = m.token AND t.state IS NOT DISTINCT FROM 'running' AND t.run_at > m.run_at
  RETURNING t.book_id, t.ref
), gone AS (
  DELETE FROM tasks t USING mine m WHERE t.book_id = m.book_id AND t.lane = m.lane AND t.ref = m.ref
    AND t.lease_token = m.token AND t.state IS NOT DISTINCT FROM 'running' AND t.run_at <= m.run_at
  RETURNING t.book_id, t.ref
)
SELECT book_id, ref FROM again UNION ALL SELECT book_id, ref FROM gone
"""

# `_COMPLETE` for one lane, as two statements for a larger write.
_AGAIN_OF_LANE = """
UPDATE tasks t SET state = 'ready', lease_until = NULL, worker = NULL, attempts = 0
FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::timestamptz[]) AS k (book_id, ref, token, run_at)
WHERE t.book_id = k.book_id AND t.lane = $5 AND t.ref = k.ref AND t.lease_token = k.token
  AND t.state IS NOT DISTINCT FROM 'running' AND t.run_at > k.run_at
"""

_GONE_OF_LANE = """
DELETE FROM tasks t USING unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::timestamptz[]) AS k (book_id, ref, token, run_at)
WHERE t.book_id = k.book_id AND t.lane = $5 AND t.ref = k.ref AND t.lease_token = k.token
  AND t.state IS NOT DISTINCT FROM 'running' AND t.run_at <= k.run_at
"""

_RESCHEDULE = """
UPDATE tasks t SET state = 'ready', lease_until = NULL, worker = NULL, trouble = k.trouble,
  run_at = CASE WHEN t.run_at > k.had_run_at THEN least(t.run_at, k.run_at) ELSE k.run_at END,
  attempts = CASE WHEN k.trouble IS NULL THEN 0 ELSE t.attempts END
FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[], $7::timestamptz[])
  AS k (book_id, lane, ref, token, run_at, trouble, had_run_at)
WHERE t.book_id = k.book_id AND t.lane = k.lane AND t.ref = k.ref AND t.lease_token = k.token AND t.state IS NOT DISTINCT FROM 'running'
RETURNING t.book_id, t.ref
"""

_PARK = """
UPDATE tasks SET state = 'parked', lease_until = NULL, trouble = $5
WHERE book_id = $1 AND lane = $2 AND ref = $3 AND lease_token = $4 AND state = 'running'
"""

_DROP = """
DELETE FROM tasks t USING unnest($1::bigint[], $2::uuid[]) AS k (book_id, ref)
WHERE t.book_id = k.book_id AND t.lane = $3 AND t.ref = k.ref
"""

_RENEW = """
UPDATE tasks t SET lease_until = now() + make_interval(secs => $5)
FROM unnest($1::bigint[], $2::text[], $3::uuid[], $4::bigint[]) AS k (book_id, lane, ref, token)
WHERE t.book_id = k.book_id AND t.lane = k.lane AND t.ref = k.ref AND t.lease_token = k.token AND t.state IS NOT DISTINCT FROM 'running'
RETURNING t.book_id, t.ref
"""


async def make_due(tx: Tx, items: Sequence[Due]) -> None:
    """Make work due. Due twice is due once, at the earlier time; work that is running now will run once more."""
    if items:
        await execute(tx, _MAKE_DUE, *_columns(earliest(items)))


async def make_new_due(tx: Tx, items: Sequence[Due]) -> None:
    """`make_due` for refs that were born in this transaction; cheaper, and a conflict is a bug that raises."""
    await sets.write(tx, parts_of_new(items))


def parts_of_new(items: Sequence[Due]) -> list[Part]:
    """`make_new_due` as a part of a larger write."""
    assert all(i.run_at is None for i in items), "born due"
    return [sets.inserting("tasks", columns_of(items, (("ref", "uuid"), ("book_id", "bigint"), ("lane", "text"))))] if items else []


async def make_new_claimed(tx: Tx, items: Sequence[Due], lease_s: float, worker: str) -> list[Task]:
    """`make_new_due` and `claim` in one, for whoever will do at once what it has just found out."""
    if not items:
        return []
    rows = await fetch(
        tx, _NEW_CLAIMED, [i.book_id for i in items], [i.ref for i in items], items[0].lane, float(lease_s), worker
    )  # fmt: skip
    return [Task(*r) for r in rows]


def _columns(items: Sequence[Due]) -> tuple[list[int], list[str], list[UUID], list[datetime | None]]:
    return [i.book_id for i in items], [i.lane for i in items], [i.ref for i in items], [i.run_at for i in items]


async def claim(tx: Tx, lane: str, limit: int, lease_s: float, worker: str) -> list[Task]:
    """Take up to `limit` due tasks (twice that when leases ran out) for `lease_s` seconds."""
    rows = await fetch(tx, _CLAIM, lane, limit, float(lease_s), worker)
    return [Task(r["book_id"], r["lane"], r["ref"], r["attempts"], r["lease_token"], r["run_at"]) for r in rows]


async def lock_owned(tx: Tx, tasks: Sequence[Task]) -> set[tuple[int, UUID]]:
    """(book, ref) of the tasks whose lease is still ours, locked until `tx` ends: the fence before an effect."""
    return _keys(await fetch(tx, _OWNED, *_identity(tasks))) if tasks else set()


async def renew(tx: Tx, tasks: Sequence[Task], lease_s: float) -> set[tuple[int, UUID]]:
    """Extend leases; what is missing from the answer is no longer ours."""
    return _keys(await fetch(tx, _RENEW, *_identity(tasks), float(lease_s))) if tasks else set()


async def complete(tx: Tx, tasks: Sequence[Task]) -> set[tuple[int, UUID]]:
    """Finish tasks inside the transaction of their effect. Returns (book, ref) of those that were still ours.

    The caller must not let the effect of a missing one stand. A task made due again while it ran becomes ready instead.
    """
    return _keys(await fetch(tx, _COMPLETE, *_identity(tasks), [t.run_at for t in tasks])) if tasks else set()


def parts_of_completed(tasks: Sequence[Task]) -> list[Part]:
    """`complete` as parts of a larger write, for tasks of one lane whose effect stands whether or not their lease is still ours."""
    if not tasks:
        return []
    lane = tasks[0].lane
    assert all(t.lane == lane for t in tasks), "one lane"
    values = ([t.book_id for t in tasks], [t.ref for t in tasks], [t.lease_token for t in tasks], [t.run_at for t in tasks], lane)
    return [Part(_AGAIN_OF_LANE, values), Part(_GONE_OF_LANE, values)]


async def reschedule(tx: Tx, plans: Sequence[tuple[Task, datetime, str | None]]) -> set[tuple[int, UUID]]:
    """Give tasks back, due at the given time; `trouble` says why and keeps the count of attempts running."""
    if not plans:
        return set()
    tasks = [task for task, _, _ in plans]
    rows = await fetch(
        tx, _RESCHEDULE, *_identity(tasks), [at for _, at, _ in plans], [why for _, _, why in plans],
        [t.run_at for t in tasks],
    )  # fmt: skip
    return _keys(rows)


async def park(tx: Tx, task: Task, trouble: str) -> None:
    """Stop trying; nothing is dropped, and a person is told by the caller."""
    await execute(tx, _PARK, task.book_id, task.lane, task.ref, task.lease_token, trouble)


async def drop(tx: Tx, lane: str, refs: Iterable[tuple[int, UUID]]) -> None:
    """Remove work that its subject no longer needs, whoever runs it: the runner will find its lease gone."""
    keys = sorted(refs)
    if keys:
        await execute(tx, _DROP, [k[0] for k in keys], [k[1] for k in keys], lane)


def _identity(tasks: Sequence[Task]) -> tuple[list[int], list[str], list[UUID], list[int]]:
    return (
        [t.book_id for t in tasks],
        [t.lane for t in tasks],
        [t.ref for t in tasks],
        [t.lease_token for t in tasks],
    )


def _keys(rows: Sequence[object]) -> set[tuple[int, UUID]]:
    return {(r["book_id"], r["ref"]) for r in rows}  # type: ignore[index]
