"""Read lines take effect: what stands of a list, its costs, the offers made of it, and the questions to a person, in one transaction a page.

Whoever writes holds the channel's row of `supplier_lists`; a reading that has lost its lease writes nothing more.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import listed
from kameng_api.catalog.listed import Learnt, Listed
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.suppliers.listings import queries, rules
from kameng_api.suppliers.listings.rules import Finding, Kind, Known, ListTerms, Sold, Verdict
from kameng_api.suppliers.port import SupplierProduct

MARGIN_ALARM: Final = "margin_guard"
_BY: Final = "supplier's list"


class LeaseLost(Exception):
    """Another worker reads this list by now: whoever held it before must not write."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A list that is the caller's to read until its lease ends."""

    channel_id: str
    lease: UUID
    full: bool
    changes: bool
    asked_by: str | None
    pause_s: float
    changes_upto: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading under way."""

    channel_id: str
    lease: UUID
    sync_id: UUID
    lease_s: int


@dataclass(frozen=True, slots=True)
class Page:
    """What became of one page. `numbers` of its lines, `now` the database's clock when it was written.

    `sold_out`: codes that we sell, of which none was left when the line was asked for alone, and whose stock the list does not tell.
    """

    numbers: Sequence[int]
    now: datetime
    sold_out: Sequence[str] = ()


async def open_lists(tx: Tx, channels: Sequence[tuple[str, float]], every_s: int, changes_every_s: int, *, enabled: bool) -> None:
    """(channel, seconds until its first reading): channels whose list nobody has heard of begin to be read."""
    await execute(
        tx,
        """INSERT INTO supplier_lists (channel_id, enabled, every_s, changes_every_s, next_full_at, next_changes_at)
        SELECT k.channel_id, $5, $3, $4, now() + make_interval(secs => k.wait_s), now() + make_interval(secs => k.wait_s)
        FROM unnest($1::text[], $2::float8[]) AS k (channel_id, wait_s) ON CONFLICT DO NOTHING""",
        [c for c, _ in channels], [w for _, w in channels], every_s, changes_every_s, enabled,
    )  # fmt: skip


_CLAIM: Final = """
UPDATE supplier_lists l SET lease = gen_random_uuid(), lease_until = now() + make_interval(secs => $3)
WHERE l.channel_id = (
  SELECT l.channel_id FROM supplier_lists l JOIN channels c ON c.channel_id = l.channel_id AND c.status = 'enabled'
  WHERE (l.lease_until IS NULL OR l.lease_until < now()) AND (l.asked_by IS NOT NULL
    OR l.enabled AND (l.next_full_at <= now() OR l.next_changes_at <= now()
      OR l.failures = 0 AND EXISTS (SELECT FROM catalog_hints h WHERE h.channel_id = l.channel_id AND h.due_at <= now()))
    OR l.channel_id = ANY ($1::text[]) AND l.failures = 0 AND (l.whole_at IS NULL OR l.whole_at < now() - make_interval(secs => $2)))
  ORDER BY l.asked_by IS NULL, least(l.next_full_at, l.next_changes_at) LIMIT 1 FOR UPDATE OF l SKIP LOCKED)
RETURNING l.channel_id, l.lease, l.asked_by, l.pause_ms / 1000.0::float8 AS pause_s, l.changes_upto, now() AS now,
  l.next_changes_at <= now() AS changes, l.asked_by IS NOT NULL OR l.enabled AND l.next_full_at <= now()
  OR l.channel_id = ANY ($1::text[]) AND (l.whole_at IS NULL OR l.whole_at < now() - make_interval(secs => $2)) AS full
"""


async def claim_list(tx: Tx, quoting: Sequence[str], quoting_s: float, lease_s: int) -> Claim | None:
    """The list that has been due longest; None when none is. `quoting`: channels whose costs may be no older than `quoting_s`."""
    rows = await fetch(tx, _CLAIM, list(quoting), quoting_s, lease_s)
    if not rows:
        return None
    [row] = rows
    await execute(
        tx, "UPDATE catalog_syncs SET state = 'lost', ended_at = now() WHERE channel_id = $1 AND state = 'running'", row["channel_id"]
    )
    return Claim(**dict(row))


async def begin(tx: Tx, claim: Claim, kind: str, lease_s: int) -> Reading:
    """Note that a reading begins."""
    sync_id = new_ulid()
    await execute(
        tx,
        "INSERT INTO catalog_syncs (sync_id, channel_id, kind, asked_by) VALUES ($1, $2, $3, $4)",
        sync_id, claim.channel_id, kind, claim.asked_by,
    )  # fmt: skip
    return Reading(claim.channel_id, claim.lease, sync_id, lease_s)


async def hold_lease(tx: Tx, reading: Reading) -> tuple[ListTerms, int, datetime]:
    """Lock the channel's list and renew the lease; (terms, numbers given out, now). Raises LeaseLost."""
    rows = await fetch(
        tx,
        """UPDATE supplier_lists SET lease_until = now() + make_interval(secs => $3) WHERE channel_id = $1 AND lease = $2
        RETURNING terms::text AS terms, numbered, now() AS now""",
        reading.channel_id, reading.lease, reading.lease_s,
    )  # fmt: skip
    if not rows:
        raise LeaseLost
    return rules.read_terms(orjson.loads(rows[0]["terms"])), rows[0]["numbered"], rows[0]["now"]


# ---- one page ----------------------------------------------------------------------------------------------------------


async def take_page(
    tx: Tx, reading: Reading, lines: Sequence[SupplierProduct], asked_at: datetime, *, fresh: bool = False, alone: bool = False
) -> Page:
    """Lines that the supplier told when it was asked at `asked_at`; each code once. What did not change writes nothing.

    `fresh`: that its costs still hold is written down too (`Terms.quote_ttl_s`). `alone`: they are no page of its list, each was asked for by
    itself. Raises LeaseLost.
    """
    terms, numbered, now = await hold_lease(tx, reading)
    codes = [line.product_code for line in lines]
    known = await queries.load_known(tx, reading.channel_id, codes)
    sold = await queries.load_sold(tx, reading.channel_id, codes)
    before, told, tells = known, lines, await _tells(tx, reading.channel_id, [] if alone else lines)
    if alone:
        before = {code: rules.as_told_first(tells, known[code], line) for line in lines if (code := line.product_code) in known}
    else:
        lines = [rules.fill_in(tells, old.line, line) if (old := known.get(line.product_code)) is not None else line for line in lines]
    new = [line for line in lines if line.product_code not in known]
    changed = [line for line in lines if (old := known.get(line.product_code)) is not None and (old.gone or old.line != line)]
    numbers = dict(zip((line.product_code for line in new), range(numbered, numbered + len(new)), strict=True))
    await _store(tx, reading.channel_id, new, changed, numbers, alone=alone)
    await _note_way(tx, reading.channel_id, list(known.values()), alone=alone)
    dearer = [line for line in changed if _asks_otherwise(known[line.product_code].line, line)]
    await _store_costs(tx, reading, [*new, *dearer])
    findings, applied = await _apply(tx, reading.channel_id, terms, before, {line.product_code: line for line in lines}, sold, asked_at, fresh)
    if terms.review_new:
        offered = {code for code, _ in sold}
        findings += [rules.new_line(line) for line in new if line.product_code not in offered]
    asked = await ask(tx, reading.channel_id, findings)
    await execute(
        tx,
        """UPDATE catalog_syncs SET pages = pages + 1, lines = lines + $2, added = added + $3, changed = changed + $4, applied = applied + $5,
          reviews = reviews + $6 WHERE sync_id = $1""",
        reading.sync_id, len(lines), len(new), len(changed), applied, asked,
    )  # fmt: skip
    kept_empty = {one.product_code for one, was in zip(lines, told, strict=True) if one.stock == 0 and was.stock is None and one.available}
    sold_out = sorted(kept_empty & {code for code, offer in sold if offer.status == "enabled"})
    return Page([numbers[c] if c in numbers else known[c].number for c in codes], now, sold_out)


async def _tells(tx: Tx, channel_id: str, lines: Sequence[SupplierProduct]) -> set[str]:
    """What the channel's list tells, these lines of it among the rest: `rules.told_by`."""
    [row] = await fetch(tx, "SELECT tells FROM supplier_lists WHERE channel_id = $1", channel_id)
    tells = {*row["tells"], *rules.told_by(lines)}
    if len(tells) > len(row["tells"]):
        await execute(tx, "UPDATE supplier_lists SET tells = $2::text[] WHERE channel_id = $1", channel_id, sorted(tells))
    return tells


async def _note_way(tx: Tx, channel_id: str, known: Sequence[Known], *, alone: bool) -> None:
    """That these lines stood in the list, or were asked for alone, where that is new of them."""
    codes = [one.line.product_code for one in known if not (one.asked_alone if alone else one.listed)]
    if codes:
        column = "asked_alone" if alone else "listed"
        sql = f"UPDATE supplier_products SET {column} = true WHERE channel_id = $1 AND product_code = ANY ($2::text[])"
        await execute(tx, sql, channel_id, codes)


def _asks_otherwise(old: SupplierProduct, new: SupplierProduct) -> bool:
    return (old.cost, old.currency) != (new.cost, new.currency)


_STORED: Final = (
    ("product_code", "text"), ("name", "text"), ("product_type", "text"), ("cost", "bigint"), ("currency", "text"), ("stock", "int"),
    ("available", "bool"), ("face_value", "bigint"), ("face_min", "bigint"), ("face_max", "bigint"), ("min_units", "int"), ("max_units", "int"),
)  # fmt: skip
_NAMES: Final = ", ".join(name for name, _ in _STORED)
_ARRAYS: Final = ", ".join(f"${n}::{kind}[]" for n, (_, kind) in enumerate(_STORED, 2))
_FIELDS: Final = f"${len(_STORED) + 2}::text[]"
_INSERT: Final = f"""
INSERT INTO supplier_products (channel_id, {_NAMES}, fields, number, listed, asked_alone)
SELECT $1, {", ".join(f"k.{name}" for name, _ in _STORED)}, k.fields::jsonb, k.number, NOT ${len(_STORED) + 4}, ${len(_STORED) + 4}
FROM unnest({_ARRAYS}, {_FIELDS}, ${len(_STORED) + 3}::int[]) AS k ({_NAMES}, fields, number)
"""
_UPDATE: Final = f"""
UPDATE supplier_products p SET {", ".join(f"{name} = k.{name}" for name, _ in _STORED[1:])}, fields = k.fields::jsonb, changed_at = now(),
  gone_at = NULL
FROM unnest({_ARRAYS}, {_FIELDS}) AS k ({_NAMES}, fields) WHERE p.channel_id = $1 AND p.product_code = k.product_code
"""
assert {name for name, _ in _STORED} | {"fields"} == {f.name for f in dataclass_fields(SupplierProduct)}


async def _store(
    tx: Tx, channel_id: str, new: Sequence[SupplierProduct], changed: Sequence[SupplierProduct], numbers: dict[str, int], *, alone: bool
) -> None:
    if new:
        await execute(tx, _INSERT, channel_id, *_columns(new), list(numbers.values()), alone)
        await execute(tx, "UPDATE supplier_lists SET numbered = numbered + $2 WHERE channel_id = $1", channel_id, len(new))
    if changed:
        await execute(tx, _UPDATE, channel_id, *_columns(changed))


def _columns(lines: Sequence[SupplierProduct]) -> list[list[Any]]:
    told = [orjson.dumps([asdict(f) for f in line.fields]).decode() if line.fields else "[]" for line in lines]
    return [*([getattr(line, name) for line in lines] for name, _ in _STORED), told]


async def _store_costs(tx: Tx, reading: Reading, lines: Sequence[SupplierProduct]) -> None:
    if lines:
        await execute(
            tx,
            """INSERT INTO supplier_costs (channel_id, product_code, cost, currency, sync_id)
            SELECT $1, k.product_code, k.cost, k.currency, $2 FROM unnest($3::text[], $4::bigint[], $5::text[]) AS k (product_code, cost, currency)
            ON CONFLICT DO NOTHING""",
            reading.channel_id, reading.sync_id, [line.product_code for line in lines], [line.cost for line in lines],
            [line.currency for line in lines],
        )  # fmt: skip


async def _apply(
    tx: Tx, channel_id: str, terms: ListTerms, known: dict[str, Known], lines: dict[str, SupplierProduct], sold: Sequence[tuple[str, Sold]],
    asked_at: datetime, fresh: bool,
) -> tuple[list[Finding], int]:  # fmt: skip
    """What the page means for what we sell; (questions, offers that changed)."""
    if not sold:
        return [], 0
    refused = await queries.list_refused(tx, channel_id)

    def judge(code: str, offer: Sold) -> Verdict:
        return rules.decide(terms, known.get(code), lines[code], offer)

    def learn(code: str, offer: Sold, verdict: Verdict) -> Learnt | None:
        if offer.status != "enabled" or not (fresh or offer.sku in refused):
            return None
        line = lines[code]
        return Learnt(offer.sku, verdict.confirmed, line.available and line.stock is not None and line.stock > 0, line.available)

    effect = await _take_effect(tx, channel_id, sold, judge, asked_at, learn)
    await overtake(tx, channel_id, [(code, offer.sku) for code, offer in sold if offer.sku not in effect.skipped], effect.findings)
    return effect.findings, effect.applied


@dataclass(slots=True)
class Effect:
    """What lines did to offers. `applied`: offers that changed; `skipped`: SKUs that somebody changes all the time."""

    findings: list[Finding]
    applied: int
    skipped: set[str]


_TRIES: Final = 3


async def _take_effect(
    tx: Tx, channel_id: str, sold: Sequence[tuple[str, Sold]], judge: Callable[[str, Sold], Verdict], asked_at: datetime,
    learn: Callable[[str, Sold, Verdict], Learnt | None],
) -> Effect:  # fmt: skip
    """Judge each offer and write what follows. One that an operator touches meanwhile is judged again, as he left it: the line that is stored
    with this transaction would seem unchanged to the next reading.
    """
    effect = Effect([], 0, set())
    for _ in range(_TRIES):
        verdicts = [(code, offer, judge(code, offer)) for code, offer in sold]
        changes = [change for each in verdicts if (change := _listed(*each)) is not None]
        learnt = [one for each in verdicts if (one := learn(*each)) is not None]
        done = await listed.apply_listed(tx, channel_id, changes, learnt, asked_at, _BY)
        effect.applied += len(done)
        effect.skipped = {change.sku for change in changes} - done
        effect.findings += [f for _, _, verdict in verdicts for f in verdict.findings if f.sku not in effect.skipped]
        if not effect.skipped:
            break
        codes = sorted({code for code, offer in sold if offer.sku in effect.skipped})
        sold = [(code, offer) for code, offer in await queries.load_sold(tx, channel_id, codes) if offer.sku in effect.skipped]
    return effect


def _listed(code: str, offer: Sold, verdict: Verdict) -> Listed | None:
    now = verdict.now
    return None if now is None else Listed(offer.sku, code, now.cost, now.stock, now.held, offer.read_at)


# ---- gone --------------------------------------------------------------------------------------------------------------


async def take_gone(tx: Tx, reading: Reading, codes: Sequence[str]) -> int:
    """Lines that the supplier no longer has: nobody buys of them. Returns how many stood. Raises LeaseLost."""
    _, _, now = await hold_lease(tx, reading)
    known = {code: one for code, one in (await queries.load_known(tx, reading.channel_id, codes)).items() if not one.gone}
    standing = sorted(known)
    sold = await queries.load_sold(tx, reading.channel_id, standing)
    effect = await _take_effect(
        tx, reading.channel_id, sold, lambda code, offer: rules.decide_gone(known[code].line, offer), now, lambda *_: None
    )
    await execute(
        tx, "UPDATE supplier_products SET gone_at = now() WHERE channel_id = $1 AND product_code = ANY ($2::text[])", reading.channel_id, standing
    )
    # What holds an offer goes on being asked: gone and back, it is held still.
    await execute(
        tx,
        """UPDATE offer_reviews SET state = 'overtaken', decided_at = now()
        WHERE channel_id = $1 AND product_code = ANY ($2::text[]) AND state = 'open' AND kind IN ('new', 'price_down')""",
        reading.channel_id, standing,
    )  # fmt: skip
    asked = await ask(tx, reading.channel_id, effect.findings)
    await execute(
        tx,
        "UPDATE catalog_syncs SET gone = gone + $2, applied = applied + $3, reviews = reviews + $4 WHERE sync_id = $1",
        reading.sync_id, len(standing), effect.applied, asked,
    )  # fmt: skip
    return len(standing)


# ---- questions ---------------------------------------------------------------------------------------------------------

# The same is not asked twice: what was turned down last, or, where it is no cost, what was agreed to.
_ASK: Final = """
INSERT INTO offer_reviews AS r (review_id, channel_id, product_code, sku, kind, told, change_ppm, facts)
SELECT k.id, $1, k.product_code, k.sku, k.kind, k.told, k.change_ppm, k.facts::jsonb
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::bool[], $10::bool[])
  AS k (id, product_code, sku, kind, told, change_ppm, facts, urgent, of_cost)
WHERE k.urgent OR NOT EXISTS (
  SELECT FROM (
    SELECT x.state, x.told FROM offer_reviews x
    WHERE x.channel_id = $1 AND x.product_code = k.product_code AND x.sku = k.sku AND x.kind = k.kind ORDER BY x.review_id DESC LIMIT 1
  ) last WHERE last.told = k.told AND (last.state IN ('rejected', 'ignored') OR last.state = 'approved' AND NOT k.of_cost))
ON CONFLICT (channel_id, product_code, sku, kind) WHERE state = 'open'
DO UPDATE SET told = excluded.told, change_ppm = excluded.change_ppm, facts = excluded.facts, told_at = now() WHERE r.told <> excluded.told
"""


async def ask(tx: Tx, channel_id: str, findings: Sequence[Finding]) -> int:
    """Put questions to a person, or bring open ones up to date; a cost that leaves nothing raises an alarm. Returns how many were put."""
    if not findings:
        return 0
    asked = await execute(
        tx,
        _ASK,
        channel_id,
        [new_ulid() for _ in findings],
        [f.product_code for f in findings],
        [f.sku for f in findings],
        [f.kind.value for f in findings],
        [f.told for f in findings],
        [f.change_ppm for f in findings],
        [orjson.dumps(f.facts).decode() for f in findings],
        [f.urgent or f.kind is Kind.NEW for f in findings],
        [f.kind in rules.OF_COST for f in findings],
    )
    below = [f for f in findings if f.kind is Kind.BELOW_COST and f.urgent]
    if below:
        first = below[0]
        more = f" (and {len(below) - 1} more)" if len(below) > 1 else ""
        detail = f"{first.sku} costs {first.facts['to']} now, somebody pays {first.facts['lowest_price']}: held{more}"
        await alarms.raise_alarm(tx, MARGIN_ALARM, channel_id, None, detail)
    return asked


_OVERTAKE: Final = """
UPDATE offer_reviews r SET state = 'overtaken', decided_at = now()
FROM unnest($2::text[], $3::text[]) AS e (product_code, sku)
WHERE r.channel_id = $1 AND r.product_code = e.product_code AND r.sku = e.sku AND r.state = 'open'
  AND r.kind IN ('price_up', 'price_down', 'below_cost', 'gone')
  AND NOT EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS f (sku, kind) WHERE f.sku = r.sku AND f.kind = r.kind)
"""


async def overtake(tx: Tx, channel_id: str, looked_at: Iterable[tuple[str, str]], findings: Sequence[Finding]) -> None:
    """Questions about these (code, SKU) that nobody needs to answer any more are closed."""
    pairs = list(looked_at)
    await execute(
        tx, _OVERTAKE, channel_id, [c for c, _ in pairs], [s for _, s in pairs], [f.sku for f in findings], [f.kind.value for f in findings]
    )


# ---- the end of a reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """How a reading ended. `whole`: the list was read to its end and what it lacks was closed."""

    state: str
    whole: bool = False
    trouble: str | None = None
    missing: int | None = None
    changes_upto: datetime | None = None


async def end(tx: Tx, reading: Reading, how: End) -> None:
    """Write down how it ended. The lease stays: the caller may go on with another reading. Raises LeaseLost."""
    await hold_lease(tx, reading)
    await execute(
        tx,
        "UPDATE catalog_syncs SET state = $2, ended_at = now(), trouble = $3, missing = $4 WHERE sync_id = $1",
        reading.sync_id, how.state, how.trouble, how.missing,
    )  # fmt: skip
    await execute(
        tx,
        """UPDATE supplier_lists SET whole_at = CASE WHEN $2 THEN now() ELSE whole_at END, may_vanish = CASE WHEN $2 THEN 0 ELSE may_vanish END,
          changes_upto = coalesce($3, changes_upto) WHERE channel_id = $1""",
        reading.channel_id, how.whole, how.changes_upto,
    )  # fmt: skip


async def give_back(tx: Tx, claim: Claim, *, full: bool, failed: bool) -> None:
    """The list is anybody's again, due when its clock says; after failures later and later."""
    held = "SELECT every_s, changes_every_s, failures FROM supplier_lists WHERE channel_id = $1 AND lease = $2 FOR UPDATE"
    rows = await fetch(tx, held, claim.channel_id, claim.lease)
    if not rows:
        return
    failures = rows[0]["failures"] + 1 if failed else 0
    every_s = rows[0]["every_s"]
    wait_s = float(rules.backoff_s(failures, every_s) if failed else every_s)
    await execute(
        tx,
        """UPDATE supplier_lists SET lease = NULL, lease_until = NULL, failures = $2,
          asked_by = CASE WHEN $3 AND asked_by IS NOT DISTINCT FROM $6 THEN NULL ELSE asked_by END,
          next_full_at = CASE WHEN $3 THEN now() + make_interval(secs => $4) ELSE next_full_at END,
          next_changes_at = CASE WHEN $7 THEN now() + make_interval(secs => $5) ELSE next_changes_at END WHERE channel_id = $1""",
        claim.channel_id, failures, full, wait_s, max(wait_s if failed else 0.0, float(rows[0]["changes_every_s"])), claim.asked_by,
        full or failed or claim.changes,
    )  # fmt: skip
