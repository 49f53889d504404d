"""Each check of the judge seen holding and seen broken, over small histories and logs made by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.chaos.history import History, HistoryDamaged, read_history
from tests.chaos.judge import broken, is_green, judge
from tests.chaos.judge_fixtures import COST, PRICE, Stage

from kameng_api.simulator.store import open_file

ALL = {*(f"I{n}" for n in range(1, 18)), "own"}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def good_run(stage: Stage) -> None:
    """An order, a card, a failed order, a refund, an order whose first supplier refused: nothing to find."""
    stage.good_order()
    stage.good_card()
    stage.failed_order()
    stage.good_order("PO-R", "RR")
    stage.hook("PO-R", "order.refunded", 4, at=116)
    stage.say("refund", 20, "ok", {"refunded": PRICE}, merchant="m1", order_id="ord_PO-R", refund_no="RF-1", amount=PRICE)
    stage.read("PO-R", refunded=PRICE, version=4, units_delivered=1, at=117)
    stage.place("PO-2")
    stage.place_at("R2a", 2.0, "CHANNEL_MAINTENANCE")
    stage.sold("R2a", status="FAILED")
    stage.place_at("R2b", 2.5, supplier="sim-b")
    stage.sold("R2b", 2.5, target="t-PO-2", supplier="sim-b")
    stage.ours("PO-2", "R2a")
    stage.ours("PO-2", "R2b")
    stage.hook("PO-2", "order.succeeded", 4)
    stage.read("PO-2", version=4, units_delivered=1)
    stage.balance(spent=3 * PRICE)


def assert_green(stage: Stage) -> None:
    verdicts = list(stage.verdicts().values())
    assert is_green(verdicts), "\n".join(str(v) for v in verdicts if not v.ok)


def test_a_good_run_is_green(stage: Stage) -> None:
    good_run(stage)

    verdicts = stage.verdicts()

    assert set(verdicts) == ALL
    assert_green(stage)


def test_nothing_to_look_at_is_not_green(stage: Stage) -> None:
    verdicts = stage.verdicts()

    assert not is_green(list(verdicts.values()))
    assert not verdicts["I5"].ok
    assert not broken(list(verdicts.values()))


@pytest.mark.parametrize("name", ["history.jsonl", "run.json", "receiver.jsonl", "house.json", "sim-a.sqlite"])
def test_evidence_that_is_not_there_is_red(stage: Stage, name: str) -> None:
    good_run(stage)
    stage.verdicts()
    (stage.folder / name).unlink()

    assert not is_green(judge(stage.folder))


# ---- each invariant broken ------------------------------------------------------------------------------------------

Spoil = Callable[[Stage], None]


def _house(**more: object) -> Spoil:
    return lambda stage: stage.house.update(more)


def _lost(stage: Stage) -> None:
    stage.place("PO-lost")
    stage.say("final_get", 115, "fail", {"http_status": 404}, merchant="m1", number="PO-lost")


def _amount_moved(stage: Stage) -> None:
    stage.place("PO-a")
    stage.read("PO-a", "cancelled", unit_price=PRICE + 1)


def _delivered_twice(stage: Stage) -> None:
    stage.sold("R1", 3.0, target="t-PO-1")


def _succeeded_without_delivery(stage: Stage) -> None:
    stage.place("PO-3")
    stage.place_at("R3", verdict="PROCESSING")
    stage.sold("R3", status="PROCESSING")
    stage.ours("PO-3", "R3")
    stage.read("PO-3")


def _failed_and_delivered(stage: Stage) -> None:
    stage.place("PO-4")
    stage.place_at("R4")
    stage.sold("R4", 30.0, target="t-PO-4")
    stage.ours("PO-4", "R4", "failed", completed_at=20)
    stage.read("PO-4", "failed")


def _bought_for_nobody(stage: Stage) -> None:
    stage.place_at("R-ghost")
    stage.sold("R-ghost")


def _delivered_to_a_stranger(stage: Stage) -> None:
    stage.place("PO-5")
    stage.place_at("R5")
    stage.sold("R5", target="somebody else")
    stage.ours("PO-5", "R5")
    stage.read("PO-5")


def _late_success_unseen(stage: Stage) -> None:
    stage.place("PO-6")
    stage.place_at("R6", verdict="ORDER_REJECTED")
    stage.sold("R6", 40.0, target="t-PO-6")
    stage.ours("PO-6", "R6", "failed")
    stage.hook("PO-6", "order.failed", 3)
    stage.read("PO-6", "failed")


def _second_before_first_failed(stage: Stage) -> None:
    stage.place("PO-7")
    stage.place_at("R7a", 2.0, "PROCESSING")
    stage.sold("R7a", status="FAILED", at=9.0)
    stage.asked("query", "R7a", 9.0, "FAILED")
    stage.place_at("R7b", 6.0, supplier="sim-b")
    stage.sold("R7b", 6.0, target="t-PO-7", supplier="sim-b")
    stage.ours("PO-7", "R7a")
    stage.ours("PO-7", "R7b")
    stage.read("PO-7")


def _not_found_too_early(stage: Stage) -> None:
    stage.place("PO-8")
    stage.place_at("R8a", 2.0, "lost: hang")
    stage.asked("query", "R8a", 6.0, "ORDER_NOT_FOUND")
    stage.place_at("R8b", 7.0, supplier="sim-b")
    stage.sold("R8b", 7.0, target="t-PO-8", supplier="sim-b")
    stage.ours("PO-8", "R8a")
    stage.ours("PO-8", "R8b")
    stage.read("PO-8")


def _one_reference_to_two(stage: Stage) -> None:
    stage.place_at("R1", 3.0, supplier="sim-b", verdict="STOCK_EMPTY")


def _two_orders_of_one_number(stage: Stage) -> None:
    stage.place("PO-1", 3.0, order_id="ord_other")


def _second_row(stage: Stage) -> None:
    stage.house["orders"].append(stage.house["orders"][0] | {"order_id": "ord_hidden"})


def _created_twice(stage: Stage) -> None:
    stage.place("PO-1", 3.0)


def _other_body_accepted(stage: Stage) -> None:
    stage.place("PO-1", 3.0, fingerprint="other", replayed=True)


def _code_to_two(stage: Stage) -> None:
    stage.good_card("PO-C2", "RC2", ("A",))


def _code_twice(stage: Stage) -> None:
    stage.read("PO-C", codes=["x", "x"], units_delivered=1)


def _code_lost(stage: Stage) -> None:
    stage.read("PO-C", codes=[], units_delivered=1)


def _codes_kept_twice(stage: Stage) -> None:
    stage.place("PO-C3")
    stage.place_at("RC3")
    stage.sold("RC3", codes=("B",))
    stage.ours("PO-C3", "RC3", codes=2)
    stage.read("PO-C3")


def _stale_purchase(stage: Stage) -> None:
    stage.place("PO-9")
    stage.place_at("R9", 30.0)
    stage.sold("R9", 30.0, target="t-PO-9")
    stage.ours("PO-9", "R9", sent_at=2.0)
    stage.read("PO-9")


def _open_for_ever(stage: Stage) -> None:
    stage.place("PO-10")
    stage.read("PO-10", "processing", substatus="dispatching")


def _person_without_reason(stage: Stage) -> None:
    stage.place("PO-11")
    stage.place_at("R11", verdict="PROCESSING")
    stage.sold("R11", status="SUCCESS", target="t-PO-11")
    stage.ours("PO-11", "R11", "processing")
    stage.read("PO-11", "processing", substatus="manual_review")


def _released_in_doubt(stage: Stage) -> None:
    stage.place("PO-12")
    stage.place_at("R12", verdict="lost: hang")
    stage.ours("PO-12", "R12", "failed", completed_at=8)
    stage.hook("PO-12", "order.failed", 3)
    stage.read("PO-12", "failed")


def _released_before_the_no(stage: Stage) -> None:
    stage.place("PO-13")
    stage.place_at("R13", verdict="PROCESSING")
    stage.sold("R13", 40.0, status="FAILED")
    stage.called_back("R13", 40.0, "FAILED")
    stage.ours("PO-13", "R13", "failed", completed_at=8)
    stage.read("PO-13", "failed")


def _refunded_too_much(stage: Stage) -> None:
    stage.say("refund", 21, "ok", {"refunded": 2 * PRICE}, merchant="m1", order_id="ord_PO-R", refund_no="RF-2", amount=PRICE)
    stage.read("PO-R", refunded=2 * PRICE, version=5)


def _refund_lost(stage: Stage) -> None:
    stage.read("PO-R", refunded=0, version=4)


def _reversal_twice(stage: Stage) -> None:
    stage.place("PO-14", quantity=2)
    stage.place_at("R14")
    stage.sold("R14", units=2, delivered=2, reversed_at=40, target="t-PO-14")
    stage.sim.execute("UPDATE delivery SET reversed_at = NULL WHERE reference = 'R14' AND unit = 2")
    stage.called_back("R14", 40, "REVERSED")
    stage.called_back("R14", 41, "REVERSED")
    stage.ours("PO-14", "R14")
    stage.hook("PO-14", "order.succeeded", 3)
    stage.read("PO-14", refunded=2 * PRICE, units_delivered=2)


def _two_ends(stage: Stage) -> None:
    stage.hook("PO-1", "order.succeeded", 4, event_id="evt_again")
    stage.read("PO-1", version=4, units_delivered=1)


def _wrong_end(stage: Stage) -> None:
    stage.place("PO-15")
    stage.hook("PO-15", "order.failed", 3)
    stage.read("PO-15", "cancelled")


def _never_told(stage: Stage) -> None:
    stage.place("PO-16")
    stage.hook("PO-16", "order.cancelled", 2, answered=500)
    stage.read("PO-16", "cancelled", version=2)


def _version_by_two_events(stage: Stage) -> None:
    stage.hook("PO-1", "order.processing", 1, event_id="evt_other")


def _step_after_the_end(stage: Stage) -> None:
    stage.hook("PO-1", "order.processing", 5)
    stage.read("PO-1", version=5, units_delivered=1)


def _version_that_never_was(stage: Stage) -> None:
    stage.hook("PO-1", "order.refunded", 9)


def _told_before_it_stood(stage: Stage) -> None:
    stage.say("get", 10, "ok", {"order_id": "ord_PO-1", "version": 2, "status": "processing"}, merchant="m1", number="PO-1")


def _told_of_nothing(stage: Stage) -> None:
    stage.hook("PO-ghost", "order.accepted", 1)


def _bad_signature(stage: Stage) -> None:
    stage.hook("PO-1", "order.processing", 2, verified=False)


def _not_quiet(stage: Stage) -> None:
    stage.facts["quiet_at"] = None


def _slow_end(stage: Stage) -> None:
    stage.house["orders"][0]["completed_at"] = stage.facts["healed_at"] + 61


def _money_missing(stage: Stage) -> None:
    stage.balance(spent=3 * PRICE + 1)


def _money_not_taken(stage: Stage) -> None:
    stage.balance(spent=2 * PRICE)


def _balance_unreadable(stage: Stage) -> None:
    stage.say("fund", merchant="m2", number="F-2", amount=1)
    stage.say("final_balance", 119, "unclear", {"http_status": 500}, merchant="m2")


def _order_unreadable(stage: Stage) -> None:
    stage.place("PO-21")
    stage.say("final_get", 115, "unclear", {"http_status": 500}, merchant="m1", number="PO-21")


_STUCK = {"pid": 1, "state": "idle in transaction", "wait_event_type": "Client", "s": 60.0, "query": "UPDATE"}
_BALANCE = {"book_id": 16, "account": "a", "currency": "CNY", "version": 1}

SPOILT: list[tuple[str, Spoil]] = [
    ("I1", _house(sums=[{"environment": "test", "currency": "CNY", "net": COST}])),
    ("I1", _house(chain=[{"book_id": 16, "account": "a", "currency": "CNY", "version": 3, "gap": 5, "step": 1}])),
    ("I2", _house(balances=[{**_BALANCE, "balance": 5, "floor": 0, "sum": 4, "lowest": 0}])),
    ("I2", _house(balances=[{**_BALANCE, "balance": 5, "floor": 0, "sum": 5, "lowest": -1}])),
    ("I3", _money_missing),
    ("I3", _money_not_taken),
    ("I3", _balance_unreadable),
    ("I4", _lost),
    ("I4", _order_unreadable),
    ("I4", _amount_moved),
    ("I5", _delivered_twice),
    ("I5", _succeeded_without_delivery),
    ("I5", _failed_and_delivered),
    ("I5", _bought_for_nobody),
    ("I5", _delivered_to_a_stranger),
    ("I5", _late_success_unseen),
    ("I6", _two_ends),
    ("I6", _wrong_end),
    ("I6", _house(final_events=[{"order_id": "ord_PO-1", "n": 2}])),
    ("I7", _second_before_first_failed),
    ("I7", _not_found_too_early),
    ("I8", _one_reference_to_two),
    ("I9", _two_orders_of_one_number),
    ("I9", _second_row),
    ("I9", _created_twice),
    ("I9", _other_body_accepted),
    ("I10", _code_to_two),
    ("I10", _code_twice),
    ("I10", _code_lost),
    ("I10", _codes_kept_twice),
    ("I11", _stale_purchase),
    ("I11", _house(stale=[{"lane": "webhook", "ref": "r", "token": 1, "owner": "h:1", "by": "h:2"}])),
    ("I12", _house(workless=[{"order_id": "ord_PO-1", "status": "accepted", "substatus": None}])),
    ("I13", _open_for_ever),
    ("I13", _person_without_reason),
    ("I14", _released_in_doubt),
    ("I14", _released_before_the_no),
    ("I14", _failed_and_delivered),
    ("I15", _refunded_too_much),
    ("I15", _refund_lost),
    ("I15", _reversal_twice),
    ("I16", _never_told),
    ("I16", _version_by_two_events),
    ("I16", _step_after_the_end),
    ("I16", _version_that_never_was),
    ("I16", _told_before_it_stood),
    ("I16", _told_of_nothing),
    ("I16", _bad_signature),
    ("I17", _not_quiet),
    ("I17", _slow_end),
    ("I17", _house(stuck=[_STUCK])),
    ("own", _house(second_opinion=["held_is_open: book 16: CNY"])),
]


def _name(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", "house")


@pytest.mark.parametrize(("invariant", "spoil"), SPOILT, ids=_name)
def test_a_broken_invariant_is_found(stage: Stage, invariant: str, spoil: Spoil) -> None:
    good_run(stage)
    spoil(stage)

    verdict = stage.verdicts()[invariant]

    assert verdict.broken, str(verdict)
    assert verdict.examples


def test_every_invariant_was_seen_broken() -> None:
    # I8 has its second half below: it needs a supplier that is not idempotent.
    assert {invariant for invariant, _ in SPOILT} == ALL


# ---- the other direction: what looks bad and is not ------------------------------------------------------------------


def test_a_reference_sent_twice_is_judged_by_the_suppliers_flag(tmp_path: Path) -> None:
    for idempotent in (True, False):
        folder = tmp_path / str(idempotent)
        folder.mkdir()
        stage = Stage(folder, idempotent=idempotent)
        good_run(stage)
        stage.place_at("R1", 2.4, "repeated SUCCESS")
        assert stage.verdicts()["I8"].ok is idempotent


def test_a_late_success_that_shows_as_an_incident_is_the_suppliers_fault(stage: Stage) -> None:
    good_run(stage)
    _late_success_unseen(stage)
    stage.house["incidents"].append({"order_id": "ord_PO-6", "kind": "late_success", "detail": ""})

    assert_green(stage)


def test_who_delivers_and_then_says_no_did_deliver(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-8")
    stage.place_at("R8", 2.0)
    stage.sold("R8", 2.0, target="t-PO-8")
    stage.called_back("R8", 2.7, "FAILED")
    stage.ours("PO-8", "R8")
    stage.house["incidents"].append({"order_id": "ord_PO-8", "kind": "contradiction", "detail": ""})
    stage.hook("PO-8", "order.succeeded", 3)
    stage.read("PO-8", units_delivered=1)
    stage.balance(spent=4 * PRICE)

    assert_green(stage)


def _unsaid(stage: Stage) -> None:
    """Delivered, the answer lost on the way, and then denied: the order fails and its money goes back."""
    stage.place("PO-8")
    stage.place_at("R8", 2.0)
    stage.sold("R8", 2.0, target="t-PO-8")
    stage.called_back("R8", 2.7, "FAILED")
    stage.ours("PO-8", "R8", "failed")
    stage.hook("PO-8", "order.failed", 3)
    stage.read("PO-8", "failed")


def test_a_delivery_that_was_denied_is_the_suppliers_debt(stage: Stage) -> None:
    good_run(stage)
    _unsaid(stage)
    stage.balance(spent=3 * PRICE)

    assert_green(stage)


def test_a_delivery_that_was_denied_is_not_charged_for_a_failed_order(stage: Stage) -> None:
    good_run(stage)
    _unsaid(stage)
    stage.balance(spent=4 * PRICE)

    assert broken(list(stage.verdicts().values())) == ["I3"]


def test_a_no_that_died_with_its_worker_is_no_lie_to_us(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-8")
    stage.place_at("R8", 2.0, "ORDER_REJECTED")
    stage.sold("R8", 2.5, target="t-PO-8")
    stage.called_back("R8", 2.6, "SUCCESS")
    stage.ours("PO-8", "R8")
    stage.hook("PO-8", "order.succeeded", 3)
    stage.read("PO-8", units_delivered=1)
    stage.balance(spent=4 * PRICE)

    assert_green(stage)


def test_an_incident_excuses_nothing_where_the_supplier_never_said_no(stage: Stage) -> None:
    good_run(stage)
    _failed_and_delivered(stage)
    stage.house["incidents"].append({"order_id": "ord_PO-4", "kind": "late_success", "detail": ""})

    assert {"I5", "I14"} <= set(broken(list(stage.verdicts().values())))


def test_not_found_after_the_grace_lets_the_next_be_asked(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-8")
    stage.place_at("R8a", 2.0, "lost: hang")
    stage.asked("query", "R8a", 13.0, "ORDER_NOT_FOUND")
    stage.place_at("R8b", 13.5, supplier="sim-b")
    stage.sold("R8b", 13.5, target="t-PO-8", supplier="sim-b")
    stage.ours("PO-8", "R8a")
    stage.ours("PO-8", "R8b", sent_at=13.4)
    stage.hook("PO-8", "order.succeeded", 3)
    stage.read("PO-8", units_delivered=1)
    stage.balance(spent=4 * PRICE)

    assert_green(stage)


def test_what_contact_staff_leaves_open_may_wait_for_a_person_with_the_money_held(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-17")
    stage.place_at("R17", verdict="CONTACT_STAFF")
    stage.sold("R17", status="CONTACT_STAFF")
    stage.ours("PO-17", "R17", "processing")
    stage.read("PO-17", "processing", substatus="manual_review")
    stage.balance(spent=3 * PRICE, held=PRICE)

    assert_green(stage)


def test_a_reversal_refunds_once(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-18")
    stage.place_at("R18")
    stage.sold("R18", reversed_at=40, target="t-PO-18")
    stage.called_back("R18", 40, "REVERSED")
    stage.called_back("R18", 41, "REVERSED")
    stage.ours("PO-18", "R18")
    stage.hook("PO-18", "order.succeeded", 3)
    stage.read("PO-18", refunded=PRICE, units_delivered=1)

    assert_green(stage)


def test_repeated_and_reordered_webhooks_are_allowed(stage: Stage) -> None:
    good_run(stage)
    stage.hook("PO-1", "order.succeeded", 3, at=6)
    stage.hook("PO-1", "order.accepted", 1, at=7)

    assert_green(stage)


def test_what_could_not_be_read_is_unchecked(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-19")

    verdict = stage.verdicts()["I4"]

    assert not verdict.ok
    assert verdict.unchecked
    assert not verdict.broken


def test_what_was_bought_for_an_order_that_nobody_read_is_unchecked_and_not_broken(stage: Stage) -> None:
    good_run(stage)
    stage.place("PO-20", outcome="unclear")
    stage.place_at("R20")
    stage.sold("R20", target="t-PO-20")
    stage.ours("PO-20", "R20")

    verdicts = stage.verdicts()

    assert not broken(list(verdicts.values()))
    assert verdicts["I3"].unchecked
    assert verdicts["I5"].unchecked


# ---- the history -----------------------------------------------------------------------------------------------------


def test_a_history_is_read_back(tmp_path: Path) -> None:
    history = History(tmp_path / "h.jsonl")
    first = history.invoke("place", merchant="m", number="1")
    second = history.invoke("get", merchant="m", number="1")
    history.ok(first, order_id="ord_1")
    history.unclear(second)
    history.invoke("place", merchant="m", number="2")

    requests = read_history(tmp_path / "h.jsonl")

    assert [r.outcome for r in requests] == ["ok", "unclear", "unclear"]
    assert requests[0].fact("order_id") == "ord_1"
    assert requests[0].answered_mono is not None
    assert requests[0].answered_mono >= requests[0].mono


def test_a_torn_last_line_is_dropped_and_any_other_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "h.jsonl"
    history = History(file)
    history.ok(history.invoke("list", merchant="m"))
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"event": "inv')
    assert len(read_history(file)) == 1

    file.write_bytes(b'{"event": "inv\n' + whole)
    with pytest.raises(HistoryDamaged):
        read_history(file)


def test_two_answers_to_one_request_are_damage(tmp_path: Path) -> None:
    history = History(tmp_path / "h.jsonl")
    request = history.invoke("list", merchant="m")
    history.ok(request)
    history.fail(request)

    with pytest.raises(HistoryDamaged):
        read_history(tmp_path / "h.jsonl")


def test_the_simulators_file_is_what_the_judge_reads(tmp_path: Path) -> None:
    """The tables the judge reads are the simulator's own: a renamed column must break this test, not a night's run."""
    with open_file(tmp_path / "x.sqlite", "NORMAL") as db:
        columns = {t: {r["name"] for r in db.execute(f"PRAGMA table_info({t})")} for t in ("request", "sim_order", "delivery", "callback")}
    assert {"at", "supplier", "path", "reference", "verdict"} <= columns["request"]
    assert {"status", "said_status", "delivered_units", "units", "finished_at"} <= columns["sim_order"]
    assert {"target", "code", "pin", "reversed_at"} <= columns["delivery"]
    assert {"status", "acknowledged"} <= columns["callback"]


def test_the_judge_changes_nothing(stage: Stage) -> None:
    good_run(stage)
    stage.verdicts()
    before = {f.name: f.read_bytes() for f in stage.folder.iterdir() if f.suffix in (".jsonl", ".json", ".sqlite")}

    judge(stage.folder)

    assert before == {f.name: f.read_bytes() for f in stage.folder.iterdir() if f.name in before}
    assert json.loads(before["run.json"])["seed"] == 1
