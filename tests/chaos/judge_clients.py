"""What the clients' own history can prove: money adds up, what was acknowledged exists, one number is one order, refunds stay in bounds."""

from collections.abc import Sequence

from tests.chaos.history import Request
from tests.chaos.judge_evidence import Case, Run, Sold, grouped
from tests.chaos.judge_verdict import Verdict


def check_money(run: Run) -> Verdict:
    """I3: funded - delivered value + refunds = available + held, per merchant, and no table of ours is asked."""
    verdict = Verdict("I3", "merchants' money adds up from the clients' history and the suppliers' logs")
    cases = grouped(run.cases)
    for merchant in sorted({str(r.asked["merchant"]) for r in run.requests if r.kind == "fund"}):
        funded, unsure = _funded(run.requests, merchant)
        balance = _last_balance(run.requests, merchant)
        if balance is None and _always_5xx(run.requests, merchant):
            verdict.checked += 1
            verdict.fail(f"{merchant}: when all is well again its balance cannot be read: HTTP 5xx each time")
            continue
        if unsure or balance is None:
            verdict.cannot(f"{merchant}: {'funding of unknown outcome' if unsure else 'no balance was told at the end'}")
            continue
        unread = [c for c in cases.get(merchant, ()) if c.final is None and (c.acknowledged or not _known_missing(c))]
        if unread:
            verdict.cannot(f"{unread[0]}: nobody could read its end, nor that of {len(unread) - 1} others of this merchant")
            continue
        spent = refunded = 0
        for case in cases.get(merchant, ()):
            if case.final is not None and case.is_final and case.delivered:
                spent += (case.unit_price or 0) * honest_units(run, case)
                refunded += told_refunded(case)
        verdict.checked += 1
        has = int(balance.told["available"]) + int(balance.told["held"])
        if has != funded - spent + refunded:
            wrong = funded - spent + refunded
            verdict.fail(
                f"{merchant}: funded {funded} - delivered {spent} + refunded {refunded} = {wrong}, told {has} "
                f"(available {balance.told['available']}, held {balance.told['held']}), {has - wrong:+}"
            )
    return verdict


def _funded(requests: Sequence[Request], merchant: str) -> tuple[int, bool]:
    """(sum, whether any of it is of unknown outcome)."""
    sure: dict[str, int] = {}
    unsure: set[str] = set()
    for request in requests:
        if request.kind == "fund" and request.asked["merchant"] == merchant:
            if request.is_ok:
                sure[str(request.asked["number"])] = int(request.fact("amount"))
            elif request.outcome == "unclear":
                unsure.add(str(request.asked["number"]))
    return sum(sure.values()), bool(unsure - sure.keys())


def _last_balance(requests: Sequence[Request], merchant: str) -> Request | None:
    told = [r for r in requests if r.kind in ("balance", "final_balance") and r.is_ok and r.asked.get("merchant") == merchant]
    return next((r for r in reversed(told) if r.kind == "final_balance"), None)


def _always_5xx(requests: Sequence[Request], merchant: str) -> bool:
    """The last balances were asked for, and a healed house had only errors to say: no figure that could be shown."""
    asked = [r for r in requests if r.kind == "final_balance" and r.asked.get("merchant") == merchant]
    return bool(asked) and all(int(r.told.get("http_status") or 0) >= 500 for r in asked)


def _known_missing(case: Case) -> bool:
    """A final read said that there is no such order."""
    return any(f.outcome == "fail" for f in case.finals)


def counting(run: Run, case: Case) -> list[Sold]:
    """Whose deliveries are the merchant's to pay: of suppliers that said nothing but the truth; the others' are breaks.

    A no may reach nobody, because the worker died with the answer, and so may a yes that the supplier denies later. What such a one delivered
    counts where the order needs just that.
    """
    found = [s for s in case.sold if not lied(run, s) and not s.unsaid]
    wanted = {"succeeded": case.quantity, "partially_succeeded": told_units(case)}.get(case.status or "", 0)
    for sold in sorted((s for s in case.sold if s not in found and s.units), key=lambda s: lied(run, s)):
        if len(sold.units) == wanted - sum(len(s.units) for s in found):
            found.append(sold)
    return found


def told_units(case: Case) -> int:
    return int(case.final.told.get("units_delivered") or 0) if case.final else 0


def honest_units(run: Run, case: Case) -> int:
    return sum(len(s.units) for s in counting(run, case))


def lied(run: Run, sold: Sold) -> bool:
    return sold.lied(run.grace_s(sold.supplier), run.sent_at(sold.reference))


def told_refunded(case: Case) -> int:
    return int(case.final.told.get("refunded") or 0) if case.final else 0


def refund_bounds(case: Case) -> tuple[int, int]:
    """What may have been refunded at least and at most: answered refunds and reversals that we were told of; plus the unclear ones."""
    sure: dict[str, int] = {}
    unclear: dict[str, int] = {}
    for refund in case.refunds:
        number, amount = str(refund.asked["refund_no"]), int(refund.fact("amount"))
        if refund.is_ok:
            sure[number] = amount
        elif refund.outcome == "unclear":
            unclear[number] = amount
    low, maybe = sum(sure.values()), sum(a for n, a in unclear.items() if n not in sure)
    price = case.unit_price or 0
    for sold in case.sold:
        back = price * sum(1 for u in sold.units if u.reversed_at is not None)
        told = any(c.verdict == "REVERSED" for c in sold.heard) and not any(kind.startswith("reversed") for kind in case.incidents)
        low, maybe = (low + back, maybe) if told else (low, maybe + back)
    captured = price * case.delivered
    return min(low, captured), min(low + maybe, captured)


def check_acknowledged(run: Run) -> Verdict:
    """I4: an order that was acknowledged is there at the end, with the content that was acknowledged."""
    verdict = Verdict("I4", "every acknowledged order exists")
    for case in run.cases:
        first = next((p for p in case.places if p.is_ok), None)
        if first is None:
            continue
        verdict.checked += 1
        if case.final is None:
            if _known_missing(case):
                verdict.fail(f"{case}: acknowledged, and at the end there is no such order")
            elif case.finals and all(int(f.told.get("http_status") or 0) >= 500 for f in case.finals):
                verdict.fail(f"{case}: acknowledged, and at the end it cannot be read: HTTP 5xx each time")
            else:
                verdict.cannot(f"{case}: acknowledged, and nobody could read it at the end")
            continue
        for name in ("order_id", "amount", "unit_price"):
            was, now = first.told.get(name), case.final.told.get(name)
            if was is not None and now is not None and was != now:
                verdict.fail(f"{case}: {name} was acknowledged as {was} and is {now}")
    return verdict


def check_numbers(run: Run) -> Verdict:
    """I9: one number is one order with one content, for ever, also in parallel."""
    verdict = Verdict("I9", "the same number is one accepted order for ever")
    for case in run.cases:
        answered = [p for p in (*case.places, *case.replays) if p.is_ok]
        if not answered:
            continue
        verdict.checked += 1
        if len(case.order_ids | set(case.rows)) > 1:
            verdict.fail(f"{case}: {len(case.order_ids)} orders were told, {len(case.rows)} stand under this number")
        if sum(p.told.get("replayed") is False for p in answered) > 1:
            verdict.fail(f"{case}: said to be created more than once")
        if len({p.asked.get("fingerprint") for p in answered}) > 1:
            verdict.fail(f"{case}: different bodies were all answered as accepted")
    seen: dict[str, Case] = {}
    for case in run.cases:
        for order_id in case.order_ids:
            if seen.setdefault(order_id, case) is not case:
                verdict.fail(f"{order_id} stands for {case.number} and for {seen[order_id].number}")
    for request in run.requests:
        ids = request.told.get("order_ids", ()) if request.kind == "list" and request.is_ok else ()
        if len(ids) != len(set(ids)):
            verdict.fail(f"{request.asked.get('merchant')}: one order stands twice in a list")
    return verdict


def check_finished(run: Run) -> Verdict:
    """I13: whatever Redis forgot, every accepted order ends, or waits for a person because a supplier's own words leave no other way."""
    flushes = sum("flush" in str(f.get("fault", "")).lower() and f.get("event") != "end" for f in run.faults)
    verdict = Verdict("I13", f"after FLUSHALL ({flushes} in this run) all accepted orders finish")
    for case in run.cases:
        if not case.acknowledged or case.final is None:
            continue  # I4 says so
        verdict.checked += 1
        if case.is_final:
            continue
        if case.final.told.get("substatus") != "manual_review":
            verdict.fail(f"{case}: is {case.status} ({case.final.told.get('substatus')}) when all is quiet")
        elif not _needs_a_person(run, case):
            verdict.fail(f"{case}: waits for a person, and no supplier gave a reason")
    return verdict


def _needs_a_person(run: Run, case: Case) -> bool:
    if run.facts.get("vendor"):
        return True  # most vendors cannot say for certain that they know nothing of an order: it is shown, and sold nowhere else (I14)
    for sold in case.sold:
        words = {p.verdict.removeprefix("repeated ") for p in (*sold.places, *sold.queries, *sold.callbacks)}
        if "CONTACT_STAFF" in words or "REVERSED" in words or lied(run, sold):
            return True
        if any(o["said_status"] or o["status"] in ("CONTACT_STAFF", "REVERSED") for o in sold.orders):
            return True
    return False


def check_refunds(run: Run) -> Verdict:
    """I15: never more than was captured, and exactly what was answered."""
    verdict = Verdict("I15", "refunds stay within what was captured, each once")
    for case in run.cases:
        if case.final is None or not (case.refunds or told_refunded(case)):
            continue
        verdict.checked += 1
        told = told_refunded(case)
        captured = (case.unit_price or 0) * case.delivered
        answered = {str(r.asked["refund_no"]): int(r.fact("amount")) for r in case.refunds if r.is_ok}
        if told > captured or sum(answered.values()) > captured:
            verdict.fail(f"{case}: captured {captured}, refunded {told}, refunds answered {answered}")
        low, high = refund_bounds(case)
        if not low <= told <= high:
            verdict.fail(f"{case}: refunded {told}, by refunds and reversals {low}" + (f" to {high}" if high != low else ""))
    return verdict
