"""The parts of the tour that decide from values: the catalogue, the judges, and whose processes are whose."""

import base64
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from kameng_api.demo import catalogue, checks, processes, seed, state
from kameng_api.demo.checks import Delivered
from kameng_api.demo.clients import Keys, Surprise, open_codes
from kameng_api.demo.stage import Addresses
from kameng_api.kit.money import parse_amount
from kameng_api.simulator.catalogue import default_products


def test_the_first_sku_is_a_topup_and_the_contracts_skus_are_there() -> None:
    assert catalogue.GOODS[0].product_type == "topup"
    assert catalogue.SKUS[0] == catalogue.FIRST_TOPUP
    assert {"mobile-cn-100", "test-card", "test-out-of-stock", "test-price-moved"} <= set(catalogue.SKUS)
    assert len(set(catalogue.SKUS)) == len(catalogue.SKUS)


@pytest.mark.parametrize("goods", catalogue.GOODS, ids=lambda goods: goods.sku)
def test_no_sku_is_sold_at_a_loss_even_from_the_dearer_supplier(goods: catalogue.Goods) -> None:
    cheap, dear = parse_amount(goods.cost), parse_amount(catalogue.dearer(goods.cost, catalogue.SECOND_EXTRA_PPM))
    assert cheap < dear <= parse_amount(goods.gold) <= parse_amount(goods.price)


@pytest.mark.parametrize("extra_ppm", [0, catalogue.SECOND_EXTRA_PPM])
def test_our_offers_are_the_simulators_price_list(extra_ppm: int) -> None:
    theirs = {product.code: product for product in default_products(extra_ppm)}
    for goods in catalogue.GOODS:
        offer, product = goods.offer(extra_ppm), theirs[goods.vendor_code]
        assert parse_amount(offer["rate" if goods.ranged else "unit_cost"]) == parse_amount(product.cost), goods.sku
        assert product.type == goods.product_type, goods.sku
        assert (product.face_min is not None) == goods.ranged, goods.sku


def test_the_poor_merchant_has_money_for_fifty_orders_and_not_for_one_more() -> None:
    poor = next(wish for wish in seed.FOR_VISITORS if wish.name == "demo-fifty-orders")
    price = parse_amount(catalogue.find(catalogue.FIRST_TOPUP).price)
    assert parse_amount(poor.money) == 50 * price
    assert poor.level == "standard"


def test_visitors_and_the_tour_share_no_merchant() -> None:
    names = [wish.name for wish in (*seed.FOR_VISITORS, *seed.FOR_THE_TOUR)]
    assert len(set(names)) == len(names)
    assert {wish.ed25519 for wish in seed.FOR_VISITORS} == {True, False}


def _line(n: int, amount: str, after: str) -> dict[str, str]:
    return {"id": f"txn_{n}", "amount": amount, "balance_after": after}


def test_a_fund_flow_adds_up_line_by_line() -> None:
    flow = [_line(3, "1.0000", "91.5000"), _line(2, "-9.5000", "90.5000"), _line(1, "100.0000", "100.0000")]
    assert checks.judge_flow(flow, "91.5000") is None
    assert "available is 91.0000" in str(checks.judge_flow(flow, "91.0000"))
    assert "txn_2" in str(checks.judge_flow([flow[0], _line(2, "-9.0000", "90.5000"), flow[2]], "91.5000"))


def test_a_balance_is_what_came_in_less_what_was_delivered() -> None:
    orders = [
        {"unit_price": "10.0000", "delivered_quantity": 2, "refunded_amount": "0.0000"},
        {"unit_price": "98.5000", "delivered_quantity": 1, "refunded_amount": "98.5000"},
        {"unit_price": "98.5000", "delivered_quantity": 0, "refunded_amount": "0.0000"},
    ]
    assert checks.judge_balance("100", orders, {"available": "80.0000", "held": "0.0000"}) is None
    assert "still held" in str(checks.judge_balance("100", orders, {"available": "80.0000", "held": "1.0000"}))
    assert "leave 80.0000" in str(checks.judge_balance("100", orders, {"available": "90.0000", "held": "0.0000"}))


def _unit(reference: str, unit: int, code: str | None = None) -> dict[str, object]:
    return {"supplier": "sim-a", "reference": reference, "unit": unit, "code": code, "pin": "1" if code else None}


def test_the_delivery_log_must_have_each_unit_once() -> None:
    orders = [Delivered("ord_1", 2, frozenset({"r1", "r2"})), Delivered("ord_2", 0, frozenset({"r3"}))]
    log = [_unit("r1", 1), _unit("r2", 1), _unit("of somebody else", 1)]
    assert checks.judge_deliveries(orders, log) is None
    assert "1 at the suppliers" in str(checks.judge_deliveries(orders, log[1:]))
    assert "3 at the suppliers" in str(checks.judge_deliveries(orders, [*log, _unit("r2", 2)]))
    assert "delivered twice" in str(checks.judge_deliveries(orders, [*log, _unit("r1", 1)]))
    assert "ord_2: 0 units here, 1" in str(checks.judge_deliveries(orders, [*log, _unit("r3", 1)]))


def test_the_codes_shown_must_be_those_that_were_delivered() -> None:
    order = Delivered("ord_1", 1, frozenset({"r1"}), frozenset({("TEST-A", "1")}))
    assert checks.judge_deliveries([order], [_unit("r1", 1, "TEST-A")]) is None
    assert "other codes" in str(checks.judge_deliveries([order], [_unit("r1", 1, "TEST-B")]))
    assert "other codes" in str(checks.judge_deliveries([order], [_unit("r1", 1)]))


def test_a_callback_nobody_took_is_told_with_the_answer() -> None:
    def called(reference: str, status: str, answer: int) -> dict[str, object]:
        return {"reference": reference, "status": status, "answer": answer, "acknowledged": int(answer == 200)}

    orders = [Delivered("ord_1", 1, frozenset({"r1"}))]
    lost = called("r1", "SUCCESS", 0)
    assert checks.judge_callbacks(orders, [called("r1", "SUCCESS", 200), called("of somebody else", "SUCCESS", 500)]) is None
    assert checks.judge_callbacks(orders, [lost, called("r1", "SUCCESS", 200)]) is None
    assert "SUCCESS was answered not at all" in str(checks.judge_callbacks(orders, [lost]))
    assert "REVERSED was answered 401" in str(checks.judge_callbacks(orders, [called("r1", "SUCCESS", 200), called("r1", "REVERSED", 401)]))


def _event(n: int, kind: str, order_id: str) -> dict[str, object]:
    return {"id": f"evt_{n}", "type": kind, "data": {"id": order_id}}


def _arrived(event: dict[str, object], *, verified: bool = True) -> dict[str, object]:
    return {"hook": "shop", "id": event["id"], "verified": verified, "body": json.dumps(event)}


def test_every_event_must_have_arrived_verified_and_without_a_code() -> None:
    order = {"id": "ord_1", "status": "succeeded"}
    events = [_event(1, "order.accepted", "ord_1"), _event(2, "order.succeeded", "ord_1"), _event(3, "balance.credited", "x")]
    received = [_arrived(event) for event in events[:2]]
    assert checks.judge_webhooks(events, [order], received, ["TEST-A"]) is None
    assert "evt_2 did not arrive" in str(checks.judge_webhooks(events, [order], received[:1], []))
    assert "did not verify" in str(checks.judge_webhooks(events, [order], [*received, _arrived(events[2], verified=False)], []))
    assert "no order.failed" in str(checks.judge_webhooks(events, [{"id": "ord_1", "status": "failed"}], received, []))
    other = {**received[1], "body": json.dumps({**events[1], "data": {"id": "ord_1", "version": 9}})}
    assert "another content" in str(checks.judge_webhooks(events, [order], [received[0], other], []))
    leaking = {**received[0], "body": received[0]["body"] + "TEST-A"}  # type: ignore[operator]
    assert "card code" in str(checks.judge_webhooks(events, [order], [{**leaking, "verified": False}, received[1]], ["TEST-A"]))


def test_every_notify_url_must_have_heard_the_end() -> None:
    order = {"id": "ord_1", "status": "failed"}
    heard = _arrived(_event(1, "order.failed", "ord_1"))
    assert checks.judge_notified([order], [heard]) is None
    assert "no order.failed" in str(checks.judge_notified([order], []))
    assert "did not verify" in str(checks.judge_notified([order], [{**heard, "verified": False}]))


def test_only_the_first_troubles_are_told() -> None:
    assert checks.few([]) is None
    assert checks.few(["a", "b", "c", "d", "e"]) == "a; b; c … and 2 more"


def test_the_contracts_vector_of_card_codes_opens() -> None:
    order_id = "ord_01JD0000000000000000000009"
    envelope = {
        "algorithm": "AEAD_AES_256_GCM",
        "nonce": "a1b2c3d4e5f6",
        "associated_data": f"order_codes:{order_id}",
        "ciphertext": "fEfNd1PcZQa6vuE54rDckVbo6b0yN3DtbzDQSttNSuGV5e3vWi5XBjsLpesP8YCLLPU/MtQ4bltAGBzx8w==",
    }
    key = "0123456789abcdef0123456789abcdef"
    assert open_codes(key, order_id, envelope) == [{"code": "TEST-AAAA-BBBB-CCCC", "pin": "1234"}]
    with pytest.raises(Surprise):
        open_codes(key, "ord_01JD0000000000000000000008", envelope)
    with pytest.raises(InvalidTag):
        open_codes(key[::-1], order_id, envelope)


def test_only_processes_that_carry_this_folders_mark_are_leftovers() -> None:
    var = Path("/clone/var/demo")
    commands = {
        11: "\0".join(["python", "-X", "kameng_demo=/clone/var/demo", "-m", "kameng_api.cli", "worker"]),
        12: "\0".join(["python", "-X", "kameng_demo=/clone/var/demo2", "-m", "kameng_api.cli", "worker"]),
        13: "\0".join(["python", "-X", "kameng_demo=/other/var/demo", "-m", "kameng_api.cli", "worker"]),
        14: "\0".join(["vi", "/clone/var/demo"]),
        15: "",
    }
    assert processes.leftovers(var, commands) == [11]


def test_children_get_our_settings_and_none_of_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMENG_MODE", "live")
    monkeypatch.setenv("KAMENG_OPERATOR_TOKEN", "op_of_the_shell")
    made = processes.environment({"port": "1234"})
    assert {name: value for name, value in made.items() if name.startswith("KAMENG_")} == {"KAMENG_PORT": "1234"}


_AT = Addresses("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", "sim-token", "token", {})
_KEYS = Keys("demo-hmac", "mer_1", "ak_test_1", secret="sk_test_1", delivery_key="d" * 32, webhook_secret="whsec_1")


def test_the_state_file_is_private_whole_and_replaces_an_old_one(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("{}")
    state.forget(file)
    assert not file.exists()
    ed25519 = replace(_KEYS, name="demo-ed25519", secret=None, private_key=base64.b64encode(bytes(32)).decode())
    state.write(file, _AT, "op_token", [_KEYS, ed25519], catalogue.SKUS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
    told = json.loads(file.read_text())
    assert (told["base_url"], told["admin_url"]) == ("http://127.0.0.1:1", "http://127.0.0.1:1/admin/v1")
    assert told["skus"][0] == "mobile-cn-100"
    hmac, ed = told["merchants"]
    assert hmac["secret"] == "sk_test_1" and "private_key" not in hmac
    assert len(base64.b64decode(ed["private_key"])) == 32 and "secret" not in ed


def test_secrets_do_not_show_in_repr() -> None:
    assert "sk_test_1" not in repr(_KEYS)
    assert "sim-token" not in repr(_AT)
