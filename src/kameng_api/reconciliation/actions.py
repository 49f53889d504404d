"""What is done about a break: by the statement itself where it is evidence, else by two people. Every resolution is a new event.

A person proposes, another one approves, and approval posts in the same transaction. The facts are looked at again before anything is posted:
when they have moved since, nothing happens.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.kit.ids import new_ulid, parse_public_id, public_id, ulid_text
from kameng_api.ledger import actions as ledger
from kameng_api.orders.absorb import News
from kameng_api.orders.settle import Settlement, settle
from kameng_api.reconciliation import matching, queries, rules
from kameng_api.reconciliation.errors import NotNow, SamePerson
from kameng_api.reconciliation.matching import advance, run_day, start_run
from kameng_api.reconciliation.rules import Break, Facts, Finding
from kameng_api.suppliers.port import Answer, Delivered, Outcome, RefusalReason, Refused, Reversed, Scope

__all__ = ["advance", "assign", "auto_resolve", "close_gone", "decide", "propose", "record_break", "run_day", "start_run"]

BEAT: Final = "statement"
"""The beat under which a statement's word about an attempt is stored and applied."""
MACHINE: Final = "statement"

# An R11 of the channel stops everything automatic: their books do not even agree with themselves. One stopped book must not stop the others.
_AUTOMATIC: Final = """
SELECT break_id FROM recon_breaks b WHERE state = 'open' AND (evidence->>'automatic')::boolean
  AND book_id NOT IN (SELECT book_id FROM stopped_books WHERE lifted_at IS NULL)
  AND NOT EXISTS (SELECT FROM recon_breaks g WHERE g.channel_id = b.channel_id AND g.class = 'R11' AND g.state <> 'closed')
ORDER BY break_id LIMIT $1 FOR UPDATE SKIP LOCKED
"""

_CLOSE: Final = """
UPDATE recon_breaks SET state = 'closed', closed_at = now(), closed_because = $2, resolution = coalesce($3, resolution),
  event_key = coalesce($4, event_key), automatic = $5, proposed_by = coalesce(proposed_by, $6) WHERE break_id = $1
"""

_STEP: Final = "INSERT INTO recon_break_steps (step_id, break_id, actor, step, facts) VALUES ($1, $2, $3, $4, $5::text::jsonb)"


async def record_break(tx: Tx, finding: Finding) -> UUID | None:
    """Open a break that was found elsewhere (a roll-forward gap: `evidence` names its `day`). None when it is known already; then its facts
    are brought up to date."""
    new = await matching.record_findings(tx, [finding], None)
    return new[0] if new else None


async def close_gone(tx: Tx, class_: str, subject: str, because: str) -> bool:
    """The difference is no longer there. False when no such break was open."""
    return bool(
        await execute(
            tx,
            """UPDATE recon_breaks SET state = 'closed', closed_at = now(), closed_because = $3, resolution = NULL
            WHERE class = $1 AND subject = $2 AND state IN ('open', 'waiting')""",
            class_, subject, because,
        )
    )  # fmt: skip


# ---- what people do ----------------------------------------------------------------------------------------------------


async def assign(tx: Tx, break_id: UUID, actor: str, owner: str) -> Break:
    """Give it to somebody. Raises NotFound, NotNow."""
    b = await queries.get_break(tx, break_id, lock=True)
    if b.state == "closed":
        raise NotNow("this break is closed")
    await execute(tx, "UPDATE recon_breaks SET owner = $2 WHERE break_id = $1", break_id, owner)
    await _note(tx, break_id, actor, "assigned", {"owner": owner})
    return await queries.get_break(tx, break_id)


async def propose(tx: Tx, break_id: UUID, actor: str, resolution: str, note: str) -> Break:
    """Say how it should be resolved; nothing moves. A new proposal replaces one that nobody approved. Raises NotFound, NotNow, Invalid."""
    b = await queries.get_break(tx, break_id, lock=True)
    if b.state not in ("open", "waiting", "proposed"):
        raise NotNow(f"this break is {b.state}")
    refusal = rules.refusal_of(b, resolution)
    if refusal is None and resolution.startswith("link") and _linked(resolution) is None:
        refusal = "a link names the attempt: link:att_…"
    if refusal is not None:
        raise Invalid("this does not resolve the break", errors=[FieldError("/resolution", "unknown_value", refusal)])
    await execute(
        tx,
        """UPDATE recon_breaks SET state = 'proposed', resolution = $2, note = $3, proposed_by = $4, proposed_at = now(),
          approved_by = NULL, approved_at = NULL WHERE break_id = $1""",
        break_id, resolution, note, actor,
    )  # fmt: skip
    await _note(tx, break_id, actor, "proposed", {"resolution": resolution, "note": note})
    return await queries.get_break(tx, break_id)


async def decide(tx: Tx, keyring: Keyring, actor: str, break_id: UUID, *, approve: bool, proposal: str | None = None) -> Break:
    """Approve, which posts at once, or send it back. Raises NotFound, NotNow, SamePerson, and what the posting raises.

    `proposal`: the `Break.proposal` that was looked at; nothing else is approved.
    """
    b = await queries.get_break(tx, break_id, lock=True)
    if b.state != "proposed":
        raise NotNow(f"this break is {b.state}")
    assert b.resolution is not None and b.proposed_by is not None
    if not approve:
        state = "waiting" if b.parked_key else "open"
        await execute(tx, "UPDATE recon_breaks SET state = $2, resolution = NULL WHERE break_id = $1", break_id, state)
        await _note(tx, break_id, actor, "rejected", {"resolution": b.resolution})
        return await queries.get_break(tx, break_id)
    if b.proposed_by == actor:
        raise SamePerson("who proposed it may not approve it")
    if proposal != b.proposal:
        raise NotNow("this is not what is proposed now: look at it again, and approve what you saw")
    leaves_suspense = b.parked_key is not None and b.resolution == rules.EXPLAIN  # as when their line came after all
    if not leaves_suspense and not await _still_stands(tx, b):
        raise NotNow("the facts have changed since this was proposed; propose again")
    event_key = await _resolve(tx, keyring, b, b.resolution)
    await _approved(tx, b, b.resolution, actor, event_key)
    await _note(tx, break_id, actor, "approved", {"resolution": b.resolution, "event": event_key})
    return await queries.get_break(tx, break_id)


async def _approved(tx: Tx, b: Break, resolution: str, actor: str, event_key: str | None) -> None:
    if resolution == rules.PARK:
        # The supplier is asked; who resolves it later are again two people.
        await execute(
            tx,
            """UPDATE recon_breaks SET state = 'waiting', parked_key = $2, parked_by = proposed_by, parked_checked_by = $3, resolution = NULL,
              proposed_by = NULL WHERE break_id = $1""",
            b.break_id, event_key, actor,
        )  # fmt: skip
        return
    claimed = resolution == rules.CLAIM  # stays until it is paid
    await execute(
        tx,
        """UPDATE recon_breaks SET state = $2, approved_by = $3, approved_at = now(), event_key = $4,
          closed_at = CASE WHEN $2 = 'closed' THEN now() END, closed_because = CASE WHEN $2 = 'closed' THEN $5 END WHERE break_id = $1""",
        b.break_id, "approved" if claimed else "closed", actor, event_key, resolution,
    )  # fmt: skip


async def _still_stands(tx: Tx, b: Break) -> bool:
    """Whether a look at this moment finds the same difference. What no attempt and no line is behind is taken as it was seen."""
    if b.attempt_id is not None:
        found = await matching.differences_of(tx, b.channel_id, [(b.book_id, b.attempt_id)])
        return any((f.class_, f.fingerprint) == (b.class_, b.fingerprint) for f in found)
    if b.line_id is not None and b.class_ == rules.STRANGER:
        return not await fetch(
            tx,
            """SELECT FROM recon_lines l WHERE l.line_id = $1
            AND (l.withdrawn_at IS NOT NULL OR EXISTS (SELECT FROM recon_matches m WHERE m.line_id = $1))""",
            b.line_id,
        )
    return True


async def _resolve(tx: Tx, keyring: Keyring, b: Break, resolution: str) -> str | None:
    """Do it; the key of the event that it is in the ledger, None where no money moves."""
    way = resolution.partition(":")[0]
    unparked = None
    if b.parked_key is not None and way in (rules.EXPLAIN, rules.LINK, rules.SETTLE):
        unparked = rules.unparking_of(b)
        await ledger.post_one(tx, unparked)
    match way:
        case rules.EXPLAIN:
            return None if unparked is None else unparked.event_key
        case rules.LINK:
            await _link(tx, b, resolution)
            return None
        case rules.SETTLE:
            return await _settle_by_hand(tx, keyring, b)
        case _:
            in_suspense = b.parked_key is not None
            if not in_suspense and b.class_ in (rules.LONG, rules.DOUBLE):
                late = await _book_late_success(tx, keyring, b)
                if way == rules.PARK:
                    return late
                in_suspense = True
            posting = rules.posting_of(b, way, in_suspense=in_suspense)
            await ledger.post_one(tx, posting)
            return posting.event_key


async def _link(tx: Tx, b: Break, resolution: str) -> None:
    """A person says that these lines belong to that attempt; the next run compares it."""
    attempt_id = _linked(resolution)
    rows = await fetch(
        tx, "SELECT book_id FROM attempts WHERE attempt_id = $1 AND channel_id = $2", attempt_id, b.channel_id
    )
    if len(rows) != 1:
        raise Invalid("this attempt is not one of the channel", errors=[FieldError("/resolution", "unknown_value", "no such attempt")])
    await execute(
        tx,
        """INSERT INTO recon_matches (line_id, book_id, attempt_id, rule, run_id)
        SELECT l.line_id, $2, $3, 'person', $4 FROM recon_lines l
        JOIN recon_lines k ON k.line_id = $1 AND l.channel_id = k.channel_id AND l.day = k.day AND l.currency = k.currency
          AND l.kind IN ('charge', 'refund', 'reversal')
          AND coalesce(l.reference, l.supplier_order_no, l.ext_line_id) = coalesce(k.reference, k.supplier_order_no, k.ext_line_id)
        ON CONFLICT DO NOTHING""",
        b.line_id, rows[0]["book_id"], attempt_id, b.break_id,
    )  # fmt: skip


def _linked(resolution: str) -> UUID | None:
    return parse_public_id("att", resolution.removeprefix("link:"))


# ---- what the statement itself says ------------------------------------------------------------------------------------


async def auto_resolve(tx: Tx, keyring: Keyring, limit: int = 100) -> int:
    """Resolve what statement evidence decides: open outcomes (R6), small variances (R7), late reversals (R12), claims that were paid.

    Returns how many; call until 0, each in a transaction of its own. What could not be resolved waits for a person and is not tried again.
    """
    done = 0
    for break_id in await list_automatic(tx, limit):
        done += await resolve_one(tx, keyring, break_id)
    return done + await _collect_claims(tx, limit)


async def list_automatic(tx: Tx, limit: int) -> list[UUID]:
    """Breaks that evidence may decide, locked; those that another process has are left out."""
    return [r["break_id"] for r in await fetch(tx, _AUTOMATIC, limit)]


async def resolve_one(tx: Tx, keyring: Keyring, break_id: UUID) -> bool:
    """One of `list_automatic`, which the caller holds. False when it waits for a person now. Raises what the ledger refuses."""
    return await _resolve_by_evidence(tx, keyring, await queries.get_break(tx, break_id))


async def leave_to_a_person(tx: Tx, break_id: UUID, why: str) -> None:
    """A machine could not resolve it, and will not try again."""
    await _leave_to_a_person(tx, await queries.get_break(tx, break_id, lock=True), why)


async def _resolve_by_evidence(tx: Tx, keyring: Keyring, b: Break) -> bool:
    facts = await _facts_of(tx, b)
    still = facts is not None and any(
        (f.class_, f.fingerprint, f.amount, f.automatic) == (b.class_, b.fingerprint, b.amount, True)
        for f in await matching.differences_of(tx, b.channel_id, [(b.book_id, facts.attempt_id)])
    )
    if facts is None or not still:
        await _leave_to_a_person(tx, b, "the facts have changed; the next run looks again")
        return False
    if b.class_ == rules.AMOUNT:
        posting = rules.posting_of(b, rules.VARIANCE, in_suspense=False)
        await ledger.post_one(tx, posting)
        key, way = posting.event_key, rules.VARIANCE
    else:
        way, key = rules.SETTLE, ""
        for outcome in await _outcomes_of(tx, facts, (await queries.terms_of(tx, b.channel_id)).tolerance):
            key = await _tell_attempt(tx, keyring, facts, outcome)
        if any(f.class_ == b.class_ for f in await matching.differences_of(tx, b.channel_id, [(b.book_id, facts.attempt_id)])):
            await _leave_to_a_person(tx, b, "the attempt did not take the statement's word")
            return False
    await execute(tx, _CLOSE, b.break_id, "statement evidence", way, key, True, MACHINE)
    await _note(tx, b.break_id, MACHINE, "resolved", {"resolution": way, "event": key})
    return True


async def _outcomes_of(tx: Tx, facts: Facts, tolerance: int) -> list[Outcome]:
    """What the lines say of the attempt, in the words of a supplier's answers. Empty where they contradict what is booked."""
    if facts.state == "delivered":
        return await _new_reversals(tx, facts)
    units = rules.units_paid(facts, tolerance)
    if units is not None:
        return [Delivered(units, cost=facts.theirs, supplier_order_no=facts.supplier_order_no)]
    return [Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "given back on the supplier's statement")]


_GIVEN_BACK: Final = """
SELECT g.number, g.amount FROM (
  SELECT coalesce(l.external_id, l.ext_line_id) AS number, sum(l.amount)::bigint AS amount, min(l.at) AS at
  FROM recon_matches m JOIN recon_lines l ON l.line_id = m.line_id
  WHERE m.book_id = $1 AND m.attempt_id = $2 AND l.kind <> 'charge' AND l.withdrawn_at IS NULL GROUP BY 1) AS g
WHERE NOT EXISTS (SELECT FROM transfers t WHERE t.book_id = $1 AND t.event_key = 'attempt:' || $3::text || ':reversal:' || g.number)
ORDER BY g.at, g.number
"""


async def _new_reversals(tx: Tx, facts: Facts) -> list[Outcome]:
    """Each under its own number: the supplier may call back about any of them, and each counts once."""
    new = await fetch(tx, _GIVEN_BACK, facts.book_id, facts.attempt_id, ulid_text(facts.attempt_id))
    if any(r["amount"] <= 0 for r in new) or sum(r["amount"] for r in new) != facts.refunded - facts.reversed_amount:
        return []
    return [Reversed(r["number"], r["amount"]) for r in new]


async def _tell_attempt(tx: Tx, keyring: Keyring, facts: Facts, outcome: Outcome, beat: str = BEAT) -> str:
    """The one way in which a statement changes an order: as an answer, through the order's lock and the settle key."""
    [row] = await fetch(
        tx,
        """SELECT coalesce(p.refund_on_reversal, true) AS back FROM orders o LEFT JOIN products p ON p.sku = o.sku
        WHERE o.book_id = $1 AND o.order_id = $2""",
        facts.book_id, facts.order_id,
    )  # fmt: skip
    raw = orjson.dumps({
        "statement": {"charges": facts.charges, "charged": facts.charged, "refunds": facts.refunds, "refunded": facts.refunded,
                      "supplier_order_no": facts.supplier_order_no, "external_id": facts.external_id}
    })  # fmt: skip
    news = News(facts.book_id, facts.attempt_id, beat, Answer(outcome, raw=raw), can_look_up=False, refund_on_reversal=row["back"])
    await settle(tx, keyring, [Settlement(news, order_id=facts.order_id)])
    name = ulid_text(facts.attempt_id)
    return f"attempt:{name}:reversal:{outcome.external_id}" if isinstance(outcome, Reversed) else f"attempt:{name}:settle"


async def _settle_by_hand(tx: Tx, keyring: Keyring, b: Break) -> str:
    """Two people say what the statement's silence, or its word, means: taken back, delivered or failed."""
    facts = await _facts_of(tx, b)
    if facts is None:
        raise NotNow("this break has no attempt")
    outcomes: list[Outcome]
    if b.class_ == rules.SHORT:
        outcomes = [Reversed(f"recon-{ulid_text(b.break_id)}", facts.ours)]
    else:
        outcomes = await _outcomes_of(tx, facts, (await queries.terms_of(tx, b.channel_id)).tolerance)
    key = ""
    for outcome in outcomes:
        key = await _tell_attempt(tx, keyring, facts, outcome, "operator")
    if b.class_ != rules.SHORT and any(
        f.class_ == b.class_ for f in await matching.differences_of(tx, b.channel_id, [(b.book_id, facts.attempt_id)])
    ):
        raise NotNow("the attempt cannot be settled this way; its order waits for a person")
    return key


async def _book_late_success(tx: Tx, keyring: Keyring, b: Break) -> str:
    """Delivered after release: learnt like any late success, which puts its cost into suspense. The order stays as it is."""
    facts = await _facts_of(tx, b)
    if facts is None:
        raise NotNow("this break has no attempt")
    number = facts.supplier_order_no or ulid_text(facts.attempt_id)
    if facts.suspense == 0:
        await _tell_attempt(tx, keyring, facts, Delivered(facts.units, cost=facts.theirs, supplier_order_no=number))
    elif facts.suspense != facts.theirs:
        raise NotNow("another amount is in suspense for it than they charged; a person must book the difference")
    return f"attempt:{ulid_text(facts.attempt_id)}:late:{number}"


async def _facts_of(tx: Tx, b: Break) -> Facts | None:
    """The attempt of a break on all its legs, whether or not they agree."""
    if b.attempt_id is None:
        return None
    return await matching.look_at(tx, b.book_id, b.attempt_id)


_CLAIMS: Final = """
SELECT break_id, subject FROM recon_breaks WHERE state = 'approved' AND resolution = 'claim' AND attempt_id IS NOT NULL
  AND book_id NOT IN (SELECT book_id FROM stopped_books WHERE lifted_at IS NULL)
  AND EXISTS (SELECT FROM recon_matches m JOIN recon_lines l ON l.line_id = m.line_id WHERE m.book_id = recon_breaks.book_id
    AND m.attempt_id = recon_breaks.attempt_id AND l.kind <> 'charge' AND l.withdrawn_at IS NULL)
ORDER BY subject, break_id LIMIT $1 FOR UPDATE SKIP LOCKED
"""

_CLAIMS_BESIDE: Final = "SELECT break_id FROM recon_breaks WHERE subject = $1 AND state = 'approved' AND resolution = 'claim' ORDER BY break_id"

# Claims against charges of nobody, and what pays each: the same name given back for the same amount, as a break of its own, or in a newer telling.
_STRANGERS_CLAIMS: Final = """
SELECT c.break_id, p.break_id AS payment_id FROM recon_breaks c
LEFT JOIN LATERAL (
  SELECT p.break_id FROM recon_breaks p
  WHERE p.subject > 'line:' || c.channel_id || ':' || (c.evidence->>'name') || ':'
    AND p.subject < 'line:' || c.channel_id || ':' || (c.evidence->>'name') || ';' AND p.class = 'R5' AND p.state IN ('open', 'waiting')
    AND p.parked_key IS NULL AND p.currency = c.currency AND p.amount = -c.amount AND p.evidence->>'name' = c.evidence->>'name'
  ORDER BY p.break_id LIMIT 1) AS p ON true
WHERE c.state = 'approved' AND c.resolution = 'claim' AND c.class = 'R5'
  AND c.book_id NOT IN (SELECT book_id FROM stopped_books WHERE lifted_at IS NULL)
  AND (p.break_id IS NOT NULL OR c.evidence ? 'taken_now')
ORDER BY c.break_id LIMIT $1 FOR UPDATE OF c SKIP LOCKED
"""

# The two who approved the claim have decided what its payment is: nothing else is booked for it, and it is not found again.
_PAYS: Final = """
UPDATE recon_breaks p SET state = 'closed', closed_at = now(), closed_because = 'explain', resolution = 'explain', note = $3,
  proposed_by = c.proposed_by, proposed_at = c.proposed_at, approved_by = c.approved_by, approved_at = c.approved_at
FROM recon_breaks c WHERE c.break_id = $2 AND p.break_id = $1 AND p.state IN ('open', 'waiting') AND p.parked_key IS NULL AND p.amount = -c.amount
"""


async def _collect_claims(tx: Tx, limit: int) -> int:
    """Claims whose money came back on a statement: our wallet has it again, and nothing is owed."""
    done = 0
    mine: dict[str, set[UUID]] = {}
    for r in await fetch(tx, _CLAIMS, limit):
        mine.setdefault(r["subject"], set()).add(r["break_id"])
    for subject, held in mine.items():
        ids = [r["break_id"] for r in await fetch(tx, _CLAIMS_BESIDE, subject)]
        if held >= set(ids):  # else another process counts the same money at this moment
            done += await _collect_of_attempt(tx, [await queries.get_break(tx, i) for i in ids])
    for r in await fetch(tx, _STRANGERS_CLAIMS, limit):
        done += await _collect_from_stranger(tx, r["break_id"], r["payment_id"])
    return done


async def _collect_of_attempt(tx: Tx, claims: list[Break]) -> int:
    """All open claims of one attempt, oldest first: as many as what came back pays in full."""
    found = await matching.look_beside(tx, claims[0].book_id, claims[0].attempt_id) if claims and claims[0].attempt_id else None
    if found is None:
        return 0
    facts, booked, _ = found
    taken = facts.theirs - facts.ours - booked
    done = 0
    while paid := rules.payable([(b.break_id, b.amount) for b in claims], taken):
        [b] = [b for b in claims if b.break_id == paid]
        await _paid(tx, b)
        claims.remove(b)
        done += 1
    return done


async def _collect_from_stranger(tx: Tx, break_id: UUID, payment_id: UUID | None) -> int:
    b = await queries.get_break(tx, break_id)
    if payment_id is not None:
        if not await execute(tx, _PAYS, payment_id, break_id, f"pays the claim {public_id('brk', break_id)}"):
            return 0
        await _note(tx, payment_id, MACHINE, "paid", {"claim": public_id("brk", break_id)})
        by = public_id("brk", payment_id)
        await execute(tx, "UPDATE recon_breaks SET evidence = evidence || jsonb_build_object('paid_by', $2::text) WHERE break_id = $1", break_id, by)
    elif rules.payable(await _claims_of_stranger(tx, b.subject), b.evidence["taken_now"]) != break_id:
        return 0
    await _paid(tx, b)
    return 1


async def _claims_of_stranger(tx: Tx, subject: str) -> list[tuple[UUID, int]]:
    rows = await fetch(
        tx, "SELECT break_id, amount FROM recon_breaks WHERE subject = $1 AND state = 'approved' AND resolution = 'claim' ORDER BY break_id", subject
    )
    return [(r["break_id"], r["amount"]) for r in rows]


async def _paid(tx: Tx, b: Break) -> None:
    payment = rules.payment_of(b)
    await ledger.post_one(tx, payment)
    await execute(tx, "UPDATE recon_breaks SET state = 'closed', closed_at = now(), closed_because = 'paid' WHERE break_id = $1", b.break_id)
    await _note(tx, b.break_id, MACHINE, "paid", {"event": payment.event_key})


async def _leave_to_a_person(tx: Tx, b: Break, why: str) -> None:
    await execute(
        tx,
        "UPDATE recon_breaks SET evidence = evidence || jsonb_build_object('automatic', false, 'left', $2::text) WHERE break_id = $1",
        b.break_id, why,
    )  # fmt: skip
    await _note(tx, b.break_id, MACHINE, "left", {"why": why})


async def _note(tx: Tx, break_id: UUID, actor: str, step: str, facts: Mapping[str, Any]) -> None:
    await execute(tx, _STEP, new_ulid(), break_id, actor, step, orjson.dumps(facts).decode())
