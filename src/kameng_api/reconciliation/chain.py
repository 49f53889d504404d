"""M2 minute by minute: the running balances of floor accounts, checked from where the last check ended."""

from typing import Final

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.ledger.queries import Breach

_ACCOUNTS_AT_ONCE: Final = 500
_MOVES_AT_ONCE: Final = 20_000
"""Per account and check: who is further behind is caught up over the next minutes."""

# One statement, one snapshot: the account's row and its transfers are of one moment. Versions are given out under the row's lock, so that all
# up to the row's own are there. Walks the two indexes that serve the fund flow.
_CHECK: Final = """
WITH moved AS (
  SELECT a.book_id, a.account, a.currency, a.balance, a.version, coalesce(m.version, 0) AS from_version,
    coalesce(m.balance, 0) AS from_balance, least(a.version, coalesce(m.version, 0) + $2) AS upto
  FROM accounts a LEFT JOIN chain_marks m USING (book_id, account, currency)
  WHERE a.version <> coalesce(m.version, 0) OR a.balance <> coalesce(m.balance, 0)
  ORDER BY m.checked_at NULLS FIRST LIMIT $1
)
SELECT v.book_id, v.account, v.currency, v.balance, v.version, v.upto, w.broken_at, w.n, v.from_version, coalesce(w.ends, v.from_balance) AS ends
FROM moved v CROSS JOIN LATERAL (
  SELECT count(*) AS n, min(version) FILTER (WHERE after <> running OR version <> place) AS broken_at,
    max(after) FILTER (WHERE version = v.upto) AS ends
  FROM (
    SELECT version, after, v.from_balance + sum(net) OVER (ORDER BY version) AS running,
      v.from_version + row_number() OVER (ORDER BY version) AS place
    FROM (
      SELECT debit_version AS version, debit_balance_after AS after, -amount AS net FROM transfers
      WHERE book_id = v.book_id AND debit_account = v.account AND currency = v.currency AND debit_version > v.from_version
        AND debit_version <= v.upto
      UNION ALL
      SELECT credit_version, credit_balance_after, amount FROM transfers
      WHERE book_id = v.book_id AND credit_account = v.account AND currency = v.currency AND credit_version > v.from_version
        AND credit_version <= v.upto
    ) AS moves
  ) AS chained
) AS w
"""

_MARK: Final = """
INSERT INTO chain_marks AS m (book_id, account, currency, version, balance)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
ON CONFLICT (book_id, account, currency) DO UPDATE SET version = excluded.version, balance = excluded.balance, checked_at = now()
WHERE m.version <= excluded.version
"""


async def check_chains(tx: Tx, *, remember: bool = True) -> list[Breach]:
    """Check what was posted to floor accounts since the last time, and remember how far. What is broken is not passed, so it is said again.

    What was changed below a mark is found by the nightly check, or here at once when it changed the account's own row.
    """
    found: list[Breach] = []
    sound = []
    for r in await fetch(tx, _CHECK, _ACCOUNTS_AT_ONCE, _MOVES_AT_ONCE):
        account = f"{r['account']} {r['currency']}"
        if r["broken_at"] is not None:
            found.append(Breach("chain", r["book_id"], f"{account} at version {r['broken_at']}"))
        elif r["n"] != r["upto"] - r["from_version"]:
            found.append(Breach("chain", r["book_id"], f"{account} at version {r['from_version'] + r['n'] + 1}"))
        elif r["upto"] == r["version"] and r["ends"] != r["balance"]:
            detail = f"{account}: balance off by {r['balance'] - r['ends']}, version by 0; balance {r['balance']}, version {r['version']}"
            found.append(Breach("balance_is_sum", r["book_id"], detail))
        else:
            sound.append((r["book_id"], r["account"], r["currency"], r["upto"], r["ends"]))
    if sound and remember:
        await execute(tx, _MARK, *([row[n] for row in sound] for n in range(5)))
    return found
