"""How fast books spend: sampled from the rolled-up sums now and then, so that posting an order costs nothing more.

Whatever was held or delivered counts, less what was released or refunded: `sales + merchant_held + sales_refunds`, credits minus debits. A
window is cut into pieces, and its two busiest pieces count no more than the third busiest: one big batch is no rate.
"""

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.ledger import rules
from kameng_api.ledger.forecast import Rates

_SAMPLE = """
INSERT INTO balance_samples (book_id, currency, at, spent)
SELECT r.book_id, r.currency, now(), r.spent FROM (
  SELECT book_id, currency, sum(credits - debits)::bigint AS spent FROM rollups
  WHERE account = ANY ($1::text[]) AND book_id >= $2 GROUP BY 1, 2
) AS r LEFT JOIN LATERAL (
  SELECT spent FROM balance_samples s WHERE s.book_id = r.book_id AND s.currency = r.currency ORDER BY at DESC LIMIT 1
) AS last ON true
WHERE last.spent IS DISTINCT FROM r.spent
ON CONFLICT DO NOTHING
"""

# What stood at the end of an hour, of six hours, and before the week: no more is read.
_THIN = """
DELETE FROM balance_samples s WHERE s.at < now() - interval '75 minutes' AND EXISTS (
  SELECT FROM balance_samples l WHERE l.book_id = s.book_id AND l.currency = s.currency AND l.at > s.at AND CASE
    WHEN s.at < now() - interval '174 hours' THEN l.at < now() - interval '174 hours'
    WHEN s.at < now() - interval '25 hours' THEN date_bin('6 hours', l.at, 'epoch') = date_bin('6 hours', s.at, 'epoch')
    ELSE date_bin('1 hour', l.at, 'epoch') = date_bin('1 hour', s.at, 'epoch') END)
"""

_RATE = """
INSERT INTO burn_rates (book_id, currency, last_hour, last_day, last_week, at)
SELECT book_id, currency, max(rate) FILTER (WHERE n = 12), max(rate) FILTER (WHERE n = 24), max(rate) FILTER (WHERE n = 28), now() FROM (
  SELECT book_id, currency, n, greatest(0, round(
    (sum(piece) - (array_agg(piece ORDER BY piece DESC))[1] - (array_agg(piece ORDER BY piece DESC))[2]
      + 2 * (array_agg(piece ORDER BY piece DESC))[3]) * 3600 / (n * extract(epoch FROM step))))::bigint AS rate
  FROM (
    SELECT k.book_id, k.currency, w.n, w.step, v.spent - lead(v.spent) OVER (PARTITION BY k.book_id, k.currency, w.n ORDER BY i) AS piece
    FROM (SELECT DISTINCT book_id, currency FROM balance_samples WHERE at > now() - interval '8 days') AS k
    CROSS JOIN (VALUES (12, interval '5 minutes'), (24, interval '1 hour'), (28, interval '6 hours')) AS w (n, step)
    CROSS JOIN LATERAL generate_series(0, w.n) AS i
    CROSS JOIN LATERAL (SELECT coalesce(
      (SELECT spent FROM balance_samples s WHERE s.book_id = k.book_id AND s.currency = k.currency AND s.at <= now() - i * w.step
       ORDER BY at DESC LIMIT 1),
      (SELECT spent FROM balance_samples s WHERE s.book_id = k.book_id AND s.currency = k.currency ORDER BY at LIMIT 1)) AS spent) AS v
  ) AS pieces WHERE piece IS NOT NULL GROUP BY 1, 2, 3, step
) AS rates GROUP BY 1, 2
ON CONFLICT (book_id, currency) DO UPDATE SET
  last_hour = excluded.last_hour, last_day = excluded.last_day, last_week = excluded.last_week, at = excluded.at
"""

_SPENDING = (rules.SALES, rules.HELD, rules.SALES_REFUNDS)


async def sample(tx: Tx) -> int:
    """Note what every book has spent by now and work out its rates. Returns how many books have spent since the last time."""
    changed = await execute(tx, _SAMPLE, list(_SPENDING), rules.FIRST_MERCHANT_BOOK)
    await execute(tx, _THIN)
    await execute(tx, _RATE)
    return changed


async def find_rates(tx: Tx, book_id: int, currency: str) -> Rates:
    """As worked out last; nothing at all for a book that has spent nothing yet."""
    rows = await fetch(tx, "SELECT last_hour, last_day, last_week FROM burn_rates WHERE book_id = $1 AND currency = $2", book_id, currency)
    return Rates(*rows[0].values()) if rows else Rates()
