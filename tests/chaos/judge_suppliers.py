"""What the suppliers' own files can prove: bought once, never again before a certain no, never in doubt released, each code to one order."""

from itertools import pairwise

from tests.chaos.judge_clients import counting, honest_units, lied
from tests.chaos.judge_evidence import Case, Run, Sold
from tests.chaos.judge_verdict import Verdict

STALE_SLACK_S = 2.0
"""Between the claim and the request at the supplier lie a network and two clocks of one machine."""
_RELEASE_SLACK_S = 1.0


def check_deliveries(run: Run) -> Verdict:
    """I5: each unit once; all of them if succeeded, none if failed; what came after a certain no stands as an incident.

    A reference is led to its order by our table of attempts, and to its target by the supplier alone: both must agree.
    """
    verdict = Verdict("I5", "deliveries in the suppliers' logs fit every order")
    for case in run.cases:
        if case.final is None:
            if case.sold:
                verdict.cannot(f"{case}: something was bought for it, and nobody could read its end")
            continue
        verdict.checked += 1
        honest, status = honest_units(run, case), case.status
        expected = {"succeeded": case.quantity, "failed": 0, "cancelled": 0}.get(status or "")
        if status == "partially_succeeded":
            expected = int(case.final.told.get("units_delivered") or 0)
            if not 0 < expected < case.quantity:
                verdict.fail(f"{case}: is {status} with {expected} of {case.quantity} units")
        if honest > case.quantity or (expected is not None and honest != expected):
            verdict.fail(f"{case}: is {status}, ordered {case.quantity}, really delivered {honest} {_where(case)}")
        counted = counting(run, case)
        liars = [s for s in case.sold if lied(run, s) and s not in counted]
        if liars and case.is_final and not case.incidents:
            verdict.fail(f"{case}: delivered after a certain no, and nothing shows it {_where(case)}")
    _check_unknown(run, verdict)
    _check_targets(run, verdict)
    return verdict


def _where(case: Case) -> str:
    return ", ".join(f"{s.supplier}:{s.reference}={len(s.units)}" for s in case.sold) or "(nobody was asked)"


def _check_unknown(run: Run, verdict: Verdict) -> None:
    """A purchase that belongs to no order of any client."""
    known = {id(s) for case in run.cases for s in case.sold}
    for sold in run.sold.values():
        if sold.units and id(sold) not in known:
            verdict.fail(f"{sold.supplier}:{sold.reference}: {len(sold.units)} units delivered for no order that a client knows")


def _check_targets(run: Run, verdict: Verdict) -> None:
    """The second way from a delivery to its order: the target, where it is used by one order only."""
    by_target: dict[str, set[int]] = {}
    for case in run.cases:
        for target in {str(p.asked["target"]) for p in case.places if p.asked.get("target")}:
            by_target.setdefault(target, set()).add(id(case))
    for case in run.cases:
        mine = {str(p.asked["target"]) for p in case.places if p.asked.get("target")}
        for sold in case.sold:
            strange = {u.target for u in sold.units if u.target and mine and u.target not in mine}
            if strange:
                verdict.fail(f"{case}: {sold.supplier}:{sold.reference} was delivered to a target that it does not name")


def check_one_at_a_time(run: Run) -> Verdict:
    """I7: by the order of the suppliers' logs, nobody else was asked before the one before had certainly failed."""
    verdict = Verdict("I7", "no attempt is sent before the one before definitely failed")
    for case in run.cases:
        asked = [s for s in case.sold if s.places]
        verdict.checked += bool(asked)
        for before, after in pairwise(asked):
            free_at = before.freed_at(run.grace_s(before.supplier), run.sent_at(before.reference))
            if free_at is None or free_at > after.first_at:
                said = "never gave a certain no" if free_at is None else f"gave it {free_at - after.first_at:.3f} s later"
                verdict.fail(
                    f"{case}: {after.supplier}:{after.reference} was asked at {after.first_at:.3f}, "
                    f"{before.supplier}:{before.reference} (asked {after.first_at - before.first_at:.3f} s before) {said}"
                )
    return verdict


def check_sent_once(run: Run) -> Verdict:
    """I8: the same reference is sent twice only to a supplier that is flagged idempotent, and never to two suppliers."""
    verdict = Verdict("I8", "a reference is sent twice only where that is safe")
    suppliers: dict[str, set[str]] = {}
    for sold in run.sold.values():
        if not sold.places:
            continue
        verdict.checked += 1
        suppliers.setdefault(sold.reference, set()).add(sold.supplier)
        if len(sold.places) > 1 and not run.idempotent.get(sold.supplier, False):
            verdict.fail(f"{sold.supplier}:{sold.reference} was sent {len(sold.places)} times, and the supplier is not idempotent")
    for reference, names in suppliers.items():
        if len(names) > 1:
            verdict.fail(f"{reference} was sent to {', '.join(sorted(names))}")
    return verdict


def check_codes(run: Run) -> Verdict:
    """I10: each code to one order, each order exactly the codes that were delivered for it."""
    verdict = Verdict("I10", "each card code goes to one order")
    owner: dict[str, Case] = {}
    for case in run.cases:
        delivered = [u.code for s in counting(run, case) for u in s.units if u.code is not None]
        shown = None if case.final is None else case.final.told.get("codes")
        if not delivered and not shown:
            continue
        verdict.checked += 1
        stored = None if case.ours is None else int(case.ours["codes"])
        if shown is None:
            if case.is_final and stored is None:
                verdict.cannot(f"{case}: its codes were not shown")
            elif case.is_final and stored != len(delivered):
                verdict.fail(f"{case}: {len(delivered)} codes delivered, {stored} kept")
            continue
        if case.is_final and sorted(shown) != sorted(delivered):
            verdict.fail(f"{case}: {len(delivered)} codes delivered, {len(shown)} shown, {len(set(shown) & set(delivered))} the same")
        for code in set(shown):
            if owner.setdefault(code, case) is not case:
                verdict.fail(f"one code was shown for {case} and for {owner[code]}")
    if not verdict.checked and run.facts.get("vendor"):
        verdict.checked = len(run.cases)  # a vendor without cards: none was delivered, and nobody was shown any
    return verdict


def check_leases(run: Run) -> Verdict:
    """I11: whoever stood still beyond its lease may not act: no purchase reaches a supplier after the lease under which it was written."""
    verdict = Verdict("I11", "a stale lease changes nothing")
    lease_s = run.facts.get("lease_s")
    if lease_s is None:
        verdict.cannot("run.json does not say how long a lease is")
        return verdict
    slack_s = float(run.facts.get("lease_slack_s", STALE_SLACK_S))
    for sold in run.sold.values():
        attempt = run.attempts.get(sold.reference)
        if attempt is None:
            continue
        for place in sold.places:
            verdict.checked += 1
            late_s = place.at - attempt["sent_at"] - float(lease_s)
            if late_s > slack_s:
                verdict.fail(f"{sold.supplier}:{sold.reference} was sent {late_s:.1f} s after its lease had run out")
    _check_fence(run, verdict)
    return verdict


def _check_fence(run: Run, verdict: Verdict) -> None:
    """The trap in the database (`judge_house.set_trap`) noted every end of a task by somebody who did not hold it."""
    for caught in run.house.get("stale", ()):
        verdict.fail(f"task {caught['lane']} {caught['ref']}, lease {caught['token']} of {caught['owner']}: ended by {caught['by']}")


def check_doubt_is_held(run: Run) -> Verdict:
    """I14: money goes back only after every supplier that was asked has said a certain no."""
    verdict = Verdict("I14", "what is unknown is never released")
    for case in run.cases:
        if case.status not in ("failed", "partially_succeeded", "cancelled"):
            continue
        verdict.checked += 1
        ended_at = None if case.ours is None else case.ours.get("completed_at")
        for sold in case.sold:
            if sold.places and not _certain(run, sold, ended_at):
                verdict.fail(f"{case}: is {case.status}, and {sold.supplier}:{sold.reference} had not said a certain no {_where(case)}")
    return verdict


def _certain(run: Run, sold: Sold, ended_at: float | None) -> bool:
    by = float("inf") if ended_at is None else ended_at + _RELEASE_SLACK_S
    delivered = any(o["finished_at"] and o["finished_at"] <= by and o["delivered_units"] for o in sold.orders)
    free_at = sold.freed_at(run.grace_s(sold.supplier), run.sent_at(sold.reference))
    return delivered or (free_at is not None and free_at <= by)
