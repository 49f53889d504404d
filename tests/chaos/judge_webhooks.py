"""What the receivers' log can prove: one end per order, told at least once, in versions that only grow, and never before it stood."""

from typing import Final

from tests.chaos.judge_evidence import Case, Hook, Run
from tests.chaos.judge_verdict import Verdict

_ENDS: Final = frozenset({"order.succeeded", "order.partially_succeeded", "order.failed", "order.cancelled"})


def check_one_end(run: Run) -> Verdict:
    """I6: however often it is delivered, the final event of an order is one event, and it says how the order ended."""
    verdict = Verdict("I6", "one final event per order")
    for row in run.house.get("final_events", ()):
        verdict.fail(f"{row['order_id']}: {row['n']} final events are recorded")
    for case in run.cases:
        ends = {h.event_id: h for h in case.hooks if h.type in _ENDS}
        if not ends:
            continue
        verdict.checked += 1
        if len(ends) > 1:
            verdict.fail(f"{case}: {len(ends)} final events were told: {sorted(h.type for h in ends.values())}")
        if case.final is not None:
            for hook in ends.values():
                if hook.type != f"order.{case.status}":
                    verdict.fail(f"{case}: told {hook.type}, and is {case.status}")
    return verdict


def check_hooks(run: Run) -> Verdict:
    """I16: delivered at least once; a version is one event; higher versions are later steps; nothing is told that does not stand.

    Ordering is not promised: as the contract says, a consumer drops repeated event ids and versions below the highest seen.
    """
    verdict = Verdict("I16", "the final state is delivered at least once, versions are monotone")
    for case in run.cases:
        if run.has_endpoint(case.merchant) and case.is_final and not case.born_late:
            verdict.checked += 1
            if not any(h.type in _ENDS and h.taken for h in case.hooks):
                verdict.fail(f"{case}: is {case.status}, and no final event was taken by its endpoint")
        if case.hooks:
            _check_versions(case, verdict)
            _check_it_stood(case, verdict)
    known = {order_id for case in run.cases for order_id in case.order_ids} | {o["order_id"] for o in run.house.get("orders", ())}
    for hook in run.hooks:
        if hook.type.startswith("order.") and hook.thing not in known:
            verdict.fail(f"{hook.event_id} told {hook.type} of {hook.thing}, which does not exist")
        if not hook.verified:
            verdict.fail(f"{hook.event_id} had a signature that does not verify")
    return verdict


def _check_versions(case: Case, verdict: Verdict) -> None:
    by_receiver: dict[str, list[Hook]] = {}
    for hook in case.hooks:
        by_receiver.setdefault(hook.receiver, []).append(hook)
    for hooks in by_receiver.values():
        events: dict[str, tuple[str, int, str | None]] = {}
        versions: dict[int, str] = {}
        for hook in hooks:
            says = hook.type, hook.version, hook.status
            if events.setdefault(hook.event_id, says) != says:
                verdict.fail(f"{case}: {hook.event_id} said {events[hook.event_id]} and {says}")
            if versions.setdefault(hook.version, hook.event_id) != hook.event_id:
                verdict.fail(f"{case}: version {hook.version} was told by two events")
        steps = {h.version: h for h in hooks}
        ended = False
        for version in sorted(steps):
            hook = steps[version]
            if ended and hook.type in ("order.accepted", "order.processing"):
                verdict.fail(f"{case}: version {version} is {hook.type}, after its end")
            ended = ended or hook.type in _ENDS
        final = case.final
        if final is not None and max(steps) > int(final.told.get("version") or max(steps)):
            verdict.fail(f"{case}: version {max(steps)} was told, and at the end it is {final.told['version']}")


def _check_it_stood(case: Case, verdict: Verdict) -> None:
    """Who asks after a webhook has arrived must see at least what it said."""
    first_told: dict[int, float] = {}
    for hook in case.hooks:
        first_told[hook.version] = min(first_told.get(hook.version, hook.wall), hook.wall)
    for get in (*case.gets, *case.finals):
        told = max((v for v, wall in first_told.items() if wall < get.wall), default=None)
        if told is None:
            continue
        if get.is_ok and get.told.get("version") is not None and int(get.told["version"]) < told:
            verdict.fail(f"{case}: a webhook had told version {told}, and a later GET showed version {get.told['version']}")
        elif get.outcome == "fail" and get.told.get("http_status") == 404:
            verdict.fail(f"{case}: a webhook had told version {told}, and a later GET found no such order")
