"""The package against a real house: its own servers, simulated suppliers, API and worker, over real HTTP."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from tests.factories.house import House

from kameng import (
    AsyncClient,
    BadSignature,
    Client,
    Delivery,
    DuplicateTarget,
    InsufficientBalance,
    NotFinal,
    NotFound,
    NotGenuine,
    NotReady,
    NumberConflict,
    Order,
    OrderValidation,
    PriceChanged,
    RetryPolicy,
    ScopeMissing,
    StateConflict,
    UnknownKey,
    ValidationFailed,
    order_item,
    verify_receipt,
)
from kameng_api.demo.clients import Keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first of them waits for the house to come up
SKU = "mobile-cn-100"
SOON = "10000000001"


def test_an_order_from_its_number_to_its_receipt(client: Client) -> None:
    order = client.orders.create("A-1", SKU, target=SOON, metadata={"till": 7, "note": "充值"})
    assert (order.status, order.merchant_order_no, order.replayed, order.environment) == ("accepted", "A-1", False, "test")
    assert isinstance(order.amount, Decimal) and order.amount > 0
    assert order.created_at.utcoffset() == timedelta(0)
    done = client.orders.wait_until_final(order)
    assert done.status == "succeeded" and done.delivery is not None and done.delivery.receipt
    assert done.version > order.version and done.metadata == {"till": 7, "note": "充值"} and not done.extra
    again = client.orders.create("A-1", SKU, target=SOON, metadata={"till": 7, "note": "充值"})
    assert again.replayed and again.id == order.id and again.status == "succeeded"
    assert client.orders.by_number("A-1").id == client.orders.get(order.id).id == order.id
    assert [step.step for step in client.orders.timeline(order.id)]
    assert client.orders.refunds(order.id) == ()


def test_the_same_with_await_and_ed25519(house: House, async_client_of: Callable[[str, Keys], AsyncClient]) -> None:
    keys = house.merchant(ed25519=True)

    async def shop() -> None:
        async with async_client_of(house.base_url, keys) as client:
            order = await client.orders.create("A-1", SKU, target=SOON)
            order = await client.orders.wait_until_final(order.id)
            assert order.status == "succeeded"
            assert [o.id async for o in client.orders.list()] == [order.id]
            balance = await client.balance()
            assert balance.available == 100_000 - order.amount
            kinds = [t.type async for t in client.transactions.list(page_size=1)]
            assert "hold" in kinds

    asyncio.run(shop())


def test_another_content_under_the_same_number_is_a_conflict(client: Client) -> None:
    first = client.orders.create("B-1", SKU, target=SOON)
    with pytest.raises(NumberConflict) as refused:
        client.orders.create("B-1", SKU, target=SOON, quantity=2)
    assert refused.value.existing_order_id == first.id
    assert refused.value.request_id and refused.value.retry == "query_first" and refused.value.charged == "no"


def test_refusals_have_their_classes(house: House, client: Client, client_of: Callable[[str, Keys], Client]) -> None:
    with pytest.raises(PriceChanged):
        client.orders.create("C-1", SKU, target=SOON, max_unit_price="0.0001")
    with pytest.raises(ValidationFailed) as refused:
        client.orders.create("C 2", SKU, target=SOON)
    assert [e.pointer for e in refused.value.errors] == ["/merchant_order_no"]
    with pytest.raises(NotFound):
        client.orders.by_number("C-1")
    assert client.orders.find("C-1") is None
    with client_of(house.base_url, house.merchant("1")) as poor, pytest.raises(InsufficientBalance):
        poor.orders.create("C-1", SKU, target=SOON)
    assert issubclass(DuplicateTarget, Exception) and issubclass(ScopeMissing, Exception)


def test_a_wrong_secret_and_an_unknown_key(house: House, keys: Keys) -> None:
    with Client(house.base_url, keys.key_id, "sk_test_wrong", trust_env=False) as client, pytest.raises(BadSignature):
        client.balance()
    with Client(house.base_url, "ak_test_01JD0000000000000000000001", "sk_test_wrong", trust_env=False) as client, pytest.raises(UnknownKey):
        client.balance()


def test_validate_buys_nothing(client: Client) -> None:
    before = client.balance()
    told = client.orders.validate("D-1", SKU, target=SOON, quantity=3)
    assert isinstance(told, OrderValidation) and told.valid and told.amount == 3 * told.unit_price and not told.extra
    assert client.orders.find("D-1") is None and client.balance() == before
    client.orders.create("D-1", SKU, target=SOON)
    known = client.orders.validate("D-1", SKU, target=SOON)
    assert isinstance(known, Order) and known.replayed


def test_a_clock_that_is_wrong_by_hours_corrects_itself(house: House, keys: Keys) -> None:
    with Client(house.base_url, keys.key_id, keys.secret, trust_env=False) as client:
        client.clock.offset_s = -7200
        assert client.balance().currency == "CNY"
        assert abs(client.clock.offset_s) <= 2


def test_card_codes_are_opened(client: Client) -> None:
    order = client.orders.create("E-1", "test-card", quantity=3)
    assert client.orders.wait_until_final(order).codes_available
    cards = client.orders.codes(order.id)
    assert len(cards) == 3 and all(card.code.startswith("TEST-") for card in cards)
    with pytest.raises(NotGenuine):
        client.orders.codes(order.id, delivery_key="x" * 32)
    topup = client.orders.create("E-2", SKU, target=SOON)
    with pytest.raises(StateConflict):
        client.orders.codes(topup.id)


def test_doubt_is_told_and_patience_ends(client: Client) -> None:
    order = client.orders.create("F-1", SKU, target="10000000004")
    with pytest.raises(NotFinal) as still:
        client.orders.wait_until_final(order, timeout_s=4.0)
    assert still.value.order.is_doubtful


def test_manual_review_is_advanced(client: Client) -> None:
    order = client.orders.create("G-1", SKU, target="10000000009")
    for _ in range(100):
        order = client.orders.get(order.id)
        if order.substatus == "manual_review":
            break
        threading.Event().wait(0.1)
    assert client.test.advance(order.id, "failed").status == "failed"
    with pytest.raises(StateConflict):
        client.orders.cancel(order.id)


def test_lists_are_walked_over_pages(house: House, client_of: Callable[[str, Keys], Client]) -> None:
    with client_of(house.base_url, house.merchant()) as client:
        made = [client.orders.create(f"H-{n}", SKU, target=f"1000000{3000 + n}").id for n in range(5)]
        assert [o.id for o in client.orders.list(page_size=2)] == made[::-1]
        assert [len(page.items) for page in client.orders.list(page_size=2).pages()] == [2, 2, 1]
        since = datetime.now(timezone.utc) + timedelta(hours=1)
        assert list(client.orders.list(created_from=since)) == []
        assert len(list(client.orders.list(created_to=since.astimezone(timezone(timedelta(hours=8)))))) == 5
        with pytest.raises(ValueError, match="zone"):
            list(client.orders.list(created_from=datetime(2026, 11, 22)))  # noqa: DTZ001
        first = client.orders.list(page_size=3).page()
        assert [o.id for o in client.orders.list(page_size=3, cursor=first.next_cursor)] == made[1::-1]


def test_products_have_prices_and_fields(client: Client) -> None:
    products = {product.sku: product for product in client.products.list(page_size=3)}
    one = client.products.get(SKU)
    assert one.face_value == Decimal(100) and one.unit_price is not None and products[SKU].unit_price == one.unit_price
    assert any(product.range is not None and product.price_rate is not None for product in products.values())


def test_play_money_and_our_reading_of_a_signature(house: House, client_of: Callable[[str, Keys], Client]) -> None:
    with client_of(house.base_url, house.merchant("5")) as client:
        assert client.test.set_balance("set-1", Decimal("1234.5")).available == Decimal("1234.5")
        assert client.test.set_balance("set-1", "1234.5000").available == Decimal("1234.5")
        told = client.test.signature({"any": "body"})
        assert told.signature_valid and told.lines["method"] == "POST" and told.lines["target"] == "/v1/test/signature"


def test_receipts_prove_and_forgeries_do_not(client: Client) -> None:
    order = client.orders.wait_until_final(client.orders.create("I-1", SKU, target=SOON))
    try:
        receipt = client.orders.receipt(order.id)
    except NotReady:
        pytest.fail("not sealed within the deadline")
    trusted = client.evidence_keys()
    events = verify_receipt(receipt, trusted)
    assert any(event["event_key"].startswith("order:") if "event_key" in event else event["key"] for event in events)
    with pytest.raises(NotGenuine):
        verify_receipt(receipt, {})
    leaf = receipt.leaves[0]
    forged = type(leaf).read(
        {"leaf": leaf.leaf.replace("order", "0rder", 1), "index": leaf.index, "path": list(leaf.path), "head": vars(leaf.head)}
    )
    with pytest.raises(NotGenuine):
        verify_receipt(type(receipt)(object="receipt", order={}, leaves=(forged,), salts={}, keys=receipt.keys))


def test_endpoints_are_administered(house: House, client_of: Callable[[str, Keys], Client]) -> None:
    with client_of(house.base_url, house.merchant()) as client:
        made = client.webhook_endpoints.create("http://127.0.0.1:9/hook", event_types=["order.succeeded"], description="till")
        assert made.secret.startswith("whsec_") and made.secret not in repr(made)
        with pytest.raises(StateConflict) as twin:
            client.webhook_endpoints.create("http://127.0.0.1:9/hook", event_types=["order.succeeded"])
        assert twin.value.existing_id == made.id
        assert [e.id for e in client.webhook_endpoints.list()] == [made.id]
        assert client.webhook_endpoints.change(made.id, event_types=["order.failed"]).event_types == ("order.failed",)
        rotated = client.webhook_endpoints.rotate_secret(made.id)
        assert rotated.secret != made.secret and rotated.old_secret_until is not None
        assert client.webhook_endpoints.disable(made.id).status == "disabled"
        assert client.webhook_endpoints.enable(made.id).status == "enabled"
        client.webhook_endpoints.ping(made.id)
        pings: list[Delivery] = []
        for _ in range(100):
            pings = list(client.webhook_endpoints.deliveries(made.id))
            if pings:
                break
            threading.Event().wait(0.1)
        ping = pings[0]
        assert ping.event_type == "endpoint.ping"
        assert client.webhook_endpoints.resend(made.id, ping.event_id).event_id == ping.event_id
        assert client.webhook_endpoints.replay_missing(made.id, since=datetime.now(timezone.utc)) == 0
        client.webhook_endpoints.delete(made.id)
        with pytest.raises(NotFound):
            client.webhook_endpoints.get(made.id)


def test_events_are_followed_and_resumed(house: House, client_of: Callable[[str, Keys], Client]) -> None:
    with client_of(house.base_url, house.merchant()) as client:
        order = client.orders.create("J-1", SKU, target=SOON)
        seen = []
        for event in client.events.follow(every_s=0.2):
            seen.append(event)
            if event.type == "order.succeeded":
                break
        assert {e.object_id for e in seen if e.type.startswith("order.")} == {order.id}
        last = seen[-1].order
        assert last is not None and last.status == "succeeded" and seen[-1].version == last.version
        client.orders.create("J-2", SKU, target=SOON)
        resumed = next(iter(client.events.follow(after=seen[-1].id, every_s=0.2)))
        assert resumed.id not in {e.id for e in seen} and resumed.order is not None and resumed.order.merchant_order_no == "J-2"
        assert client.events.get(resumed.id) == resumed
        assert [e.id for e in client.events.list(page_size=1)][: len(seen)] == [e.id for e in seen]


def test_a_batch_is_followed_to_its_end(house: House, client_of: Callable[[str, Keys], Client]) -> None:
    with client_of(house.base_url, house.merchant()) as client:
        items = [order_item(f"L-{n}", SKU, target=f"1000000{3000 + n}") for n in range(4)] + [order_item("L-bad", "no-such-sku", target=SOON)]
        looks: list[str] = []
        batch = client.batches.create("LB-1", items)
        assert client.batches.create("LB-1", items).replayed
        done = client.batches.wait(batch, on_progress=lambda now: looks.append(now.status))
        assert (done.status, looks[-1], done.extra) == ("completed_with_errors", "completed_with_errors", {})
        assert (done.progress.total, done.progress.succeeded, done.progress.invalid) == (5, 4, 1)
        rows = list(client.batches.items(batch.id, page_size=2))
        assert [row.merchant_order_no for row in rows] == ["L-0", "L-1", "L-2", "L-3", "L-bad"]
        assert rows[-1].error is not None and client.orders.by_number("L-0").id == rows[0].order_id
        assert b"L-bad" in client.batches.results(batch.id, "failed")
        assert client.batches.by_number("LB-1").id == batch.id == next(iter(client.batches.list())).id
        with pytest.raises(NumberConflict):
            client.batches.create("LB-1", items[:1])
        csv = f"merchant_order_no,sku,target\r\nL-0,{SKU},10000003000\r\nM-1,{SKU},10000003009\r\n".encode()
        uploaded = client.batches.wait(client.batches.upload("LB-2", csv, filename="orders.csv", confirm="manual"))
        assert (uploaded.status, uploaded.progress.valid) == ("validated", 2)
        ended = client.batches.wait(client.batches.confirm(uploaded.id))
        assert (ended.status, ended.progress.duplicates, ended.progress.succeeded) == ("completed", 1, 2)
        assert client.batches.template(format="csv")


def test_money_is_foreseen_and_numbers_are_known(client: Client) -> None:
    assert client.set_balance_alerts(amount="10").amount == Decimal(10)
    assert client.balance_alerts().set_by == "merchant"
    assert client.number("13800138000").country == "CN"
    snapshot = client.products.snapshot()
    assert snapshot is not None and SKU in {product.sku for product in snapshot.products}
    assert client.products.snapshot(etag=snapshot.etag) is None
    assert client.products.changes(after=snapshot.changes_after).items == ()


@contextmanager
def wire_that_eats_answers(base_url: str, eaten: int) -> Iterator[tuple[str, list[bytes]]]:
    """A port that hands requests on whole, and closes instead of answering the first few times."""
    host, port = base_url.removeprefix("http://").split(":")
    passed: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    there, _ = listening.accept()
                except OSError:
                    return
                with there, socket.create_connection((host, int(port))) as house:
                    request = there.recv(1 << 16)
                    while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < _length(request):
                        request += there.recv(1 << 16)
                    passed.append(request)
                    house.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
                    answer = b""
                    while piece := house.recv(1 << 16):
                        answer += piece
                    if len(passed) > eaten:
                        there.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", passed
        listening.close()


def _length(request: bytes) -> int:
    head = request.split(b"\r\n\r\n", 1)[0].lower()
    return int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length: " in head else 0


def test_answers_that_get_lost_cost_nothing_twice(house: House) -> None:
    keys = house.merchant()
    impatient = RetryPolicy(first_wait_s=0.05)
    with (
        wire_that_eats_answers(house.base_url, 3) as (url, passed),
        Client(url, keys.key_id, keys.secret, retry=impatient, trust_env=False) as client,
    ):
        order = client.orders.create("K-1", SKU, target=SOON)
    assert len(passed) == 4 and order.replayed, "the first request had placed it"
    with Client(house.base_url, keys.key_id, keys.secret, trust_env=False) as client:
        assert [o.id for o in client.orders.list()] == [order.id]
        assert [t.amount for t in client.transactions.list() if t.type == "hold"] == [-order.amount]
