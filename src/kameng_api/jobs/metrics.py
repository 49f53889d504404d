"""Gauges of the whole house, read from the database every few seconds and served to Prometheus from the worker's own port.

Every figure has a bounded cost, whatever the tables hold: counts of unfinished things stop at a cap, counts of finished orders are the
planner's estimates. All workers of a house serve the same gauges; scrape any of them, and take `max` over them.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kameng_api.catalog import queries as catalog
from kameng_api.evidence.queries import lag_of
from kameng_api.kit import log
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.money import SCALE
from kameng_api.operators import suppliers
from kameng_api.reconciliation import queries as books_apart
from kameng_api.reconciliation.drift import read_drifts
from kameng_api.settings import Settings
from kameng_api.suppliers.routing import gauges
from kameng_api.tasks.rules import Lane

_log = log.get()

REFRESH_S: Final = 15.0
CAP: Final = 100_000
"""Nothing is counted beyond this: a backlog of a hundred thousand needs no third digit."""


@dataclass(frozen=True, slots=True)
class Family(gauges.Family):
    """As those of the router; most have no label."""

    labels: tuple[str, ...] = ()


ORDERS: Final = Family("kameng_orders", "Orders by status: open ones counted (capped), final ones estimated", ("status",))
REVIEWS: Final = Family("kameng_manual_reviews", "Orders that wait for a person (capped)")
LANE_DUE: Final = Family("kameng_lane_due", "Tasks that are due and not claimed (capped)", ("lane",))
LANE_RUNNING: Final = Family("kameng_lane_running", "Tasks claimed and under way (capped)", ("lane",))
LANE_PARKED: Final = Family("kameng_lane_parked", "Tasks given up, waiting for a person (capped)", ("lane",))
LANE_AGE: Final = Family("kameng_lane_oldest_due_seconds", "How long the oldest due task has been due", ("lane",))
UNKNOWN: Final = Family("kameng_unknown_attempts", "Attempts whose outcome is not known (capped)", ("channel",))
UNKNOWN_AGE: Final = Family("kameng_unknown_oldest_seconds", "Age of the oldest unknown outcome", ("channel",))
ATTEMPTS: Final = Family("kameng_attempts_recent", "Attempts sent in the last 5 minutes", ("channel", "state"))
FANOUT_LAG: Final = Family("kameng_fanout_lag_seconds", "Age of the oldest event not yet handed to the webhooks")
ROLLUP_LAG: Final = Family("kameng_rollup_lag_seconds", "Age of the oldest transfer not yet rolled up")
SEAL_LAG: Final = Family("kameng_seal_lag_seconds", "Age of the oldest transfer not yet sealed")
ANCHOR_LAG: Final = Family("kameng_anchor_lag_seconds", "Age of the oldest sealed block that one of the anchors in use lacks")
SEALED: Final = Family("kameng_sealed_leaves", "Leaves in the evidence chain")
WEBHOOKS: Final = Family("kameng_webhook_backlog", "Webhook deliveries that are not done (capped)")
ALARMS: Final = Family("kameng_open_alarms", "Open alarms", ("kind", "severity"))
WALLET: Final = Family("kameng_supplier_wallet", "Our balance at the supplier, in currency units", ("channel",))
WALLET_LEFT: Final = Family(
    "kameng_wallet_empty_seconds", "Until our balance at the supplier ends at the rate it is spent; absent: not spent, or not known", ("channel",)
)
DRIFT: Final = Family("kameng_wallet_drift", "What a supplier's balance holds beyond what our books explain, in currency units", ("channel",))
BREAKS: Final = Family("kameng_open_breaks", "Open breaks between a supplier's books and ours", ("class", "channel"))
BREAKS_AGE: Final = Family("kameng_oldest_break_seconds", "Age of the oldest open break", ("class",))
LIST_AGE: Final = Family("kameng_supplier_list_age_seconds", "Since a supplier's list was last read to its end", ("channel",))
OFFER_REVIEWS: Final = Family("kameng_offer_reviews", "Questions about offers that wait for a person (capped)", ("kind",))
HELD: Final = Family("kameng_offers_held", "Offers that nobody buys of until a person has looked", ("channel", "reason"))
AGE: Final = Family("kameng_gauges_age_seconds", "Age of the figures above; they are read every 15 s")

FAMILIES: Final = (
    ORDERS, REVIEWS, LANE_DUE, LANE_RUNNING, LANE_PARKED, LANE_AGE, UNKNOWN, UNKNOWN_AGE, ATTEMPTS, FANOUT_LAG, ROLLUP_LAG,
    WEBHOOKS, ALARMS, WALLET, WALLET_LEFT, DRIFT, BREAKS, BREAKS_AGE, SEAL_LAG, SEALED, ANCHOR_LAG, LIST_AGE,
    OFFER_REVIEWS, HELD, AGE,
)  # fmt: skip

Sample = tuple[tuple[str, ...], float]

_OPEN_ORDERS = """
SELECT status, count(*) AS n FROM (SELECT status FROM orders WHERE status IN ('accepted', 'processing') LIMIT $1) AS o GROUP BY 1
"""

# The planner knows how many rows there are and how they spread over the states; counting millions would cost seconds each time.
_FINAL_ORDERS = """
SELECT s.status, (c.reltuples * s.share)::bigint AS n FROM pg_class c, pg_stats p,
  LATERAL unnest(p.most_common_vals::text::text[], p.most_common_freqs) AS s (status, share)
WHERE c.oid = 'orders'::regclass AND p.schemaname = 'public' AND p.tablename = 'orders' AND p.attname = 'status'
  AND s.status NOT IN ('accepted', 'processing') AND c.reltuples > 0
"""

_REVIEWS = "SELECT count(*) AS n FROM (SELECT 1 FROM orders WHERE substatus = 'manual_review' LIMIT $1) AS o"

_LANE = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE lane = $1 AND state = 'ready' AND run_at <= now() LIMIT $2) AS t) AS due,
  (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE lane = $1 AND state = 'running' LIMIT $2) AS t) AS running,
  (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE lane = $1 AND state = 'parked' LIMIT $2) AS t) AS parked,
  (SELECT extract(epoch FROM now() - min(run_at))::float8 FROM tasks WHERE lane = $1 AND state = 'ready' AND run_at <= now()) AS age_s
"""

_UNKNOWN = """
SELECT channel_id, count(*) AS n, extract(epoch FROM now() - min(unknown_since))::float8 AS age_s FROM (
  SELECT channel_id, unknown_since FROM attempts WHERE state = 'unknown' LIMIT $1) AS a GROUP BY 1
"""

_ATTEMPTS = """
SELECT channel_id, state, count(*) AS n FROM (
  SELECT a.channel_id, a.state FROM channels c JOIN attempts a ON a.channel_id = c.channel_id
  WHERE a.sent_at > now() - interval '5 minutes' LIMIT $1) AS a GROUP BY 1, 2
"""

_LAGS = """
SELECT coalesce((SELECT extract(epoch FROM now() - created_at) FROM events
    WHERE xid >= (SELECT upto_xid FROM fanout_marks WHERE book_range = 0) ORDER BY xid LIMIT 1), 0)::float8 AS fanout,
  coalesce((SELECT extract(epoch FROM now() - min(created_at)) FROM (SELECT created_at FROM transfers
    WHERE xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0) LIMIT $1) AS t), 0)::float8 AS rollup
"""

_WEBHOOKS = "SELECT count(*) AS n FROM (SELECT 1 FROM tasks WHERE lane = 'webhook' LIMIT $1) AS t"
_ALARMS = "SELECT kind, severity, count(*) AS n FROM alarms WHERE closed_at IS NULL GROUP BY 1, 2"
_WALLETS = "SELECT channel_id, wallet_balance FROM channels WHERE wallet_balance IS NOT NULL AND status = 'enabled'"


_LISTS = """
SELECT channel_id, extract(epoch FROM now() - whole_at)::float8 AS age_s FROM supplier_lists WHERE enabled AND whole_at IS NOT NULL
"""

_OFFER_REVIEWS = """
SELECT k.kind, (SELECT count(*) FROM (
    SELECT 1 FROM offer_reviews r WHERE r.state = 'open' AND r.kind = k.kind LIMIT $1) AS o) AS n
FROM unnest(ARRAY['new', 'price_up', 'price_down', 'below_cost', 'gone', 'changed', 'currency']) AS k (kind)
"""

_HELD = "SELECT channel_id, held, count(*) AS n FROM (SELECT channel_id, held FROM offers WHERE held IS NOT NULL LIMIT $1) AS o GROUP BY 1, 2"


@dataclass(frozen=True, slots=True)
class Figures:
    """One reading of the house. `at` is the monotonic clock when it was taken."""

    samples: dict[gauges.Family, Sequence[Sample]] = field(default_factory=dict)
    at: float = 0.0


async def read_figures(tx: Tx) -> Figures:
    """All gauges, in a handful of short statements."""
    orders = {r["status"]: float(r["n"]) for r in await fetch(tx, _FINAL_ORDERS)}
    orders |= dict.fromkeys(("accepted", "processing"), 0.0)
    orders |= {r["status"]: float(r["n"]) for r in await fetch(tx, _OPEN_ORDERS, CAP)}
    [reviews] = await fetch(tx, _REVIEWS, CAP)
    lanes = {lane.value: (await fetch(tx, _LANE, lane.value, CAP))[0] for lane in Lane}
    unknown = await fetch(tx, _UNKNOWN, CAP)
    [lags] = await fetch(tx, _LAGS, CAP)
    [webhooks] = await fetch(tx, _WEBHOOKS, CAP)
    used = [r["target"] for r in await fetch(tx, "SELECT DISTINCT target FROM chain_anchors")]
    chain = await lag_of(tx, used)
    wallets = await suppliers.read_wallets(tx, [c for c in await catalog.list_channels(tx) if c.wallet_balance is not None])
    breaks = await books_apart.open_figures(tx)
    oldest: dict[str, float] = {}
    for figure in breaks:
        oldest[figure.class_] = max(oldest.get(figure.class_, 0.0), (utc_now() - figure.oldest_at).total_seconds())
    return Figures(
        {
            ORDERS: [((status,), n) for status, n in sorted(orders.items())],
            REVIEWS: [((), float(reviews["n"]))],
            LANE_DUE: [((lane,), float(r["due"])) for lane, r in lanes.items()],
            LANE_RUNNING: [((lane,), float(r["running"])) for lane, r in lanes.items()],
            LANE_PARKED: [((lane,), float(r["parked"])) for lane, r in lanes.items()],
            LANE_AGE: [((lane,), r["age_s"] or 0.0) for lane, r in lanes.items()],
            UNKNOWN: [((r["channel_id"],), float(r["n"])) for r in unknown],
            UNKNOWN_AGE: [((r["channel_id"],), r["age_s"] or 0.0) for r in unknown],
            ATTEMPTS: [((r["channel_id"], r["state"]), float(r["n"])) for r in await fetch(tx, _ATTEMPTS, CAP)],
            FANOUT_LAG: [((), lags["fanout"])],
            ROLLUP_LAG: [((), lags["rollup"])],
            WEBHOOKS: [((), float(webhooks["n"]))],
            SEAL_LAG: [((), chain.seal_s)],
            ANCHOR_LAG: [((), chain.anchor_s)],
            SEALED: [((), float(chain.total))],
            ALARMS: [((r["kind"], r["severity"]), float(r["n"])) for r in await fetch(tx, _ALARMS)],
            WALLET: [((r["channel_id"],), r["wallet_balance"] / SCALE) for r in await fetch(tx, _WALLETS)],
            WALLET_LEFT: [((channel,), float(w.left_s)) for channel, w in sorted(wallets.items()) if w.left_s is not None],
            DRIFT: [((d.channel_id,), d.amount / SCALE) for d in await read_drifts(tx)],
            BREAKS: [((f.class_, f.channel_id), float(f.count)) for f in breaks],
            LIST_AGE: [((r["channel_id"],), r["age_s"]) for r in await fetch(tx, _LISTS)],
            OFFER_REVIEWS: [((r["kind"],), float(r["n"])) for r in await fetch(tx, _OFFER_REVIEWS, CAP)],
            HELD: [((r["channel_id"], r["held"]), float(r["n"])) for r in await fetch(tx, _HELD, CAP)],
            BREAKS_AGE: [((class_,), age) for class_, age in sorted(oldest.items())],
        },
        time.monotonic(),
    )


class Gauges(Collector):
    """The last reading, as Prometheus asks for it. When the database is away the figures stay and their age grows."""

    def __init__(self, of_channels: Callable[[], Mapping[gauges.Family, Sequence[Sample]]] = dict) -> None:
        """`of_channels`: what this process's router knows, asked when the figures are read."""
        self._figures: Figures | None = None
        self._of_channels = of_channels

    async def refresh(self, db: Database) -> None:
        """Read the figures anew. Raises Unavailable."""
        async with db.transaction() as tx:
            figures = await read_figures(tx)
        figures.samples.update(self._of_channels())
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._figures
        if figures is None:
            return
        for family in (*FAMILIES, *(f for f in gauges.FAMILIES if f in figures.samples)):
            gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            samples = [((), time.monotonic() - figures.at)] if family is AGE else figures.samples[family]
            for labels, value in samples:
                gauge.add_metric(list(labels), value)
            yield gauge

    async def serve(self, settings: Settings, db: Database) -> None:
        """Serve `/metrics` on `worker_metrics_port` until cancelled: what the jobs count, and these gauges, kept fresh.

        At once done when the port is 0 or taken.
        """
        if not settings.worker_metrics_port:
            return
        try:
            server, thread = start_http_server(settings.worker_metrics_port, settings.host, REGISTRY)
        except OSError as trouble:  # a second worker on this machine with the same port: work is worth more than figures
            _log.error("gauges_not_served", port=settings.worker_metrics_port, trouble=type(trouble).__name__)
            return
        REGISTRY.register(self)
        try:
            while True:
                try:
                    await self.refresh(db)
                except Exception as trouble:  # the database is away: say so, keep the figures, try again
                    _log.warning("gauges_not_read", trouble=type(trouble).__name__)
                await asyncio.sleep(REFRESH_S)
        finally:
            REGISTRY.unregister(self)
            server.shutdown()
            server.server_close()
            thread.join(timeout=2)
