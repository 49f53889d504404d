"""How far our books and a supplier's balance are apart within the day, when no statement can tell yet.

Our `supplier_prepaid` has given up the cost of what is under way; the supplier may or may not have taken it. Its balance is explained while it
lies between prepaid and prepaid + work in progress; what is beyond is drift. 1/10000 units, below zero: they hold less than we can explain.
"""

from dataclasses import dataclass
from typing import Final

from kameng_api.kit.db import Tx, fetch
from kameng_api.ledger import rules as books

# Only wallets that our books know of: a channel whose first balance was never booked as a top-up has nothing to be compared with.
_DRIFT: Final = """
WITH net AS (
  SELECT account, sum(net)::bigint AS net FROM (
    SELECT account, debits - credits AS net FROM rollups WHERE starts_with(account, $1) OR starts_with(account, $2)
    UNION ALL
    SELECT x.account, x.net FROM transfers t, LATERAL (VALUES (t.debit_account, t.amount), (t.credit_account, -t.amount)) AS x (account, net)
    WHERE t.xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0) AND (starts_with(x.account, $1) OR starts_with(x.account, $2))
  ) AS s GROUP BY 1
)
SELECT c.channel_id, c.wallet_balance AS theirs, coalesce(p.net, 0) AS prepaid, coalesce(w.net, 0) AS wip,
  (SELECT min(s.drift_limit) FROM recon_sources s WHERE s.channel_id = c.channel_id AND s.enabled) AS drift_limit
FROM channels c
LEFT JOIN net p ON p.account = $1 || c.channel_id LEFT JOIN net w ON w.account = $2 || c.channel_id
WHERE c.wallet_balance IS NOT NULL AND c.status = 'enabled'
  AND EXISTS (SELECT FROM rollups r JOIN books b USING (book_id) WHERE b.merchant_id IS NULL AND r.account = $1 || c.channel_id)
ORDER BY c.channel_id
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """One channel. `limit` None: nobody asked to be told."""

    channel_id: str
    theirs: int
    prepaid: int
    wip: int
    limit: int | None

    @property
    def amount(self) -> int:
        """What neither prepaid nor what is under way explains."""
        if self.theirs < self.prepaid:
            return self.theirs - self.prepaid
        return max(self.theirs - self.prepaid - self.wip, 0)

    @property
    def beyond(self) -> bool:
        return self.limit is not None and abs(self.amount) > self.limit


async def read_drifts(tx: Tx) -> list[Drift]:
    """Every enabled channel that has said its balance and whose wallet our books know of."""
    rows = await fetch(tx, _DRIFT, books.supplier_prepaid(""), books.supplier_wip(""))
    return [Drift(r["channel_id"], r["theirs"], r["prepaid"], r["wip"], r["drift_limit"]) for r in rows]
