"""Reloadly's requests and webhook signatures byte for byte. Sources: the vendor's OpenAPI (2022-07), support.reloadly.com."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from kameng_api.kit.http import send_before
from kameng_api.kit.ids import book_reference, new_ulid
from kameng_api.suppliers.adapters.reloadly import mapping, wire
from kameng_api.suppliers.adapters.reloadly.client import ReloadlySupplier
from kameng_api.suppliers.adapters.reloadly.settings import ReloadlySettings
from kameng_api.suppliers.adapters.reloadly.token import Token
from kameng_api.suppliers.port import Accepted, Cause, Delivered, HttpAnswer, NotFound, NotSent, Purchase, RefusalReason, Scope, Unknown

REFERENCE = "101JD0000000000000000000001"


def purchase(**more: object) -> Purchase:
    values = {"reference": REFERENCE, "product_code": "173-CN-14.5", "product_type": "topup", "units": 1, "currency": "USD", "max_cost": 20_0000}
    return Purchase(**{**values, "target": "13800138000", **more})  # type: ignore[arg-type]


def test_a_top_up_is_said_as_the_document_says_it() -> None:
    assert wire.order_body(purchase(), "86") == (
        b'{"operatorId":173,"amount":14.5,"useLocalAmount":false,"customIdentifier":"101JD0000000000000000000001",'
        b'"recipientPhone":{"countryCode":"CN","number":"8613800138000"}}'
    )


def test_amounts_are_told_exactly() -> None:
    for face_value, text in ((4_0000, b":4,"), (1979, b":0.1979,"), (33_3300, b":33.33,"), (99_9999_9999, b":999999.9999,")):
        assert text in wire.order_body(purchase(product_code="174-CN", face_value=face_value), "86")
    assert b'"amount":0.19786,' in wire.order_body(purchase(product_code="173-NE-0.19786", target="+8613800138000"), "86")


def test_a_webhook_is_signed_over_the_body_a_colon_and_its_time() -> None:
    body, secret = b'{"type":"airtime_transaction.status","data":{"transactionId":1}}', "webhook-secret"
    wanted = "e6167a25e3f26c84497c00a6571ff77dd41d4102d42a4371c5074c71a2ec3c62"  # by openssl dgst -sha256 -hmac
    assert wire.signature(secret, body, "1795335360") == wanted
    assert wire.signature(secret, body + b":", "1795335360") != wanted


def test_windows_are_wider_by_a_day_and_a_half() -> None:
    at = datetime(2026, 11, 22, 1, 42, tzinfo=UTC)
    assert wire.window(at, at) == {"startDate": "2026-11-20 13:42:00", "endDate": "2026-11-23 13:42:00"}
    now = datetime.now(UTC)
    made = wire.ordered_at(book_reference(7, new_ulid()), now)
    assert made is not None and abs((made - now).total_seconds()) < 5
    assert wire.ordered_at("Z9" * 20, at) is None and wire.ordered_at("", at) is None and wire.ordered_at("7" * 26, at) is None


def test_costs_are_exact_and_rounded_against_us() -> None:
    for text, cost in ((b"6.52838", 6_5284), (b"0.187963", 1880), (b"3.8E-5", 1), (b"505.00000000000", 505_0000), (b"14.06497", 14_0650)):
        assert wire.charge(wire.decimal(wire.read(text))) == cost
    assert wire.holding(wire.decimal(wire.read(b"5095.472354"))) == 5095_4723


def test_what_may_have_bought_is_in_no_table() -> None:
    doubtful = {
        "CUSTOM_IDENTIFIER_ALREADY_USED",
        "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT",
        "PROVIDER_INTERNAL_ERROR",
        "REQUEST_FAILED_ON_PROVIDER",
    }
    assert not doubtful & (set(mapping.REFUSALS) | set(mapping.REFUSALS_503) | mapping.TOKEN_REFUSED)
    assert mapping.REFUSALS["PHONE_RECENTLY_RECHARGED"] == (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE), "the earlier one may be ours"


@pytest.mark.parametrize("target", ["1380013800x", "+0613800138000", "123", "+86138001380001234", "١٣٨٠٠١٣٨٠٠٠", ""])
def test_a_target_that_is_no_number_is_not_said(target: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.phone(target, "")


def test_fields_of_the_order_cannot_be_smuggled_in() -> None:
    body = json.loads(wire.order_body(purchase(fields={"email": "a@example.com", "useLocalAmount": "true", "phone": "10000000001"}), "86"))
    assert body["useLocalAmount"] is False and body["recipientEmail"] == "a@example.com" and body["recipientPhone"]["number"] == "8613800138000"


def test_a_value_is_named_where_the_operator_has_a_range_and_nowhere_else() -> None:
    for wrong in (purchase(face_value=50_0000), purchase(product_code="174-CN"), purchase(units=2)):
        with pytest.raises(wire.Unreadable):
            wire.order_body(wrong, "86")


class Slow:
    """A `Send` that answers every token request after a moment, and remembers under which lease it was asked."""

    def __init__(self, *answers: HttpAnswer | NotSent | Unknown) -> None:
        self.answers = list(answers)
        self.leases: list[float] = []

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        self.leases.append(send_before.get())
        await asyncio.sleep(0.02)
        return self.answers[min(len(self.leases), len(self.answers)) - 1]


def given(value: str, life_s: object = 3600) -> HttpAnswer:
    body = {"access_token": value, "scope": "developer", "expires_in": life_s, "token_type": "Bearer"}
    return HttpAnswer(200, {"content-type": "application/json"}, json.dumps(body).encode())


def token_of(send: Slow) -> Token:
    return Token(send, "https://auth.reloadly.com", "client", "secret-of-the-client", "https://topups.reloadly.com", 10.0)


async def test_who_gives_up_waiting_takes_the_token_from_nobody() -> None:
    send = Slow(given("one"))
    token = token_of(send)
    impatient, patient = asyncio.ensure_future(token.get()), asyncio.ensure_future(token.get())
    await asyncio.sleep(0.005)
    impatient.cancel()
    assert await patient == "one" and await token.get() == "one"
    assert len(send.leases) == 1


async def test_a_lease_that_is_over_holds_for_its_purchase_and_not_for_the_token_of_all() -> None:
    send = Slow(given("one"))
    limit = send_before.set(0.0)
    try:
        assert await token_of(send).get() == "one"
    finally:
        send_before.reset(limit)
    assert send.leases == [float("inf")]


async def test_a_refused_token_is_replaced_once_and_a_newer_one_stays() -> None:
    send = Slow(given("one"), given("two"), given("three"))
    token = token_of(send)
    assert await token.get() == "one"
    token.forget("one")
    assert await asyncio.gather(*(token.get() for _ in range(20))) == ["two"] * 20
    token.forget("one")  # somebody who was slow
    assert await token.get() == "two" and len(send.leases) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Unknown("silence"),
        NotSent("refused"),
        HttpAnswer(200, {}, b"<html>"),
        HttpAnswer(200, {}, b"[]"),
        HttpAnswer(401, {}, b'{"errorCode":"INVALID_CREDENTIALS"}'),
        HttpAnswer(500, {}, b"{}"),
        given("bad\nvalue"),
        given("", 3600),
        given("one", "3600"),
        given("one", 0),
    ],
)
async def test_without_a_token_nothing_is_sent_and_nobody_asks_again_at_once(answer: HttpAnswer | NotSent | Unknown) -> None:
    send = Slow(answer)
    token = token_of(send)
    for _ in range(3):
        assert isinstance(await token.get(), NotSent)
    assert len(send.leases) == 1


# ---- the account: its window and its currency


@dataclass
class Vendor:
    """Gives a token, then the same answer to everything, and remembers what it was asked."""

    body: bytes
    asked: list[str] = field(default_factory=list)

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        if url.endswith("/oauth/token"):
            return given("one")
        self.asked.append(url)
        return HttpAnswer(200, {"content-type": "application/com.reloadly.topups-v1+json"}, self.body)


def account(vendor: Vendor, **more: Any) -> ReloadlySupplier:
    keys = {"client_id": "client-example", "client_secret": "example-secret-0123456789", "webhook_secret": "webhook-secret-0123456789"}
    return ReloadlySupplier(ReloadlySettings(**{**keys, "country_code": "86", **more}), vendor)


@pytest.mark.parametrize("age", [timedelta(), timedelta(days=3), timedelta(days=7)])
async def test_an_old_orders_late_attempt_lies_in_the_window(age: timedelta) -> None:
    """A reference carries the time of its order: the attempt may have been made any time from then to now."""
    now = datetime.now(UTC)
    reference = book_reference(7, UUID(int=int((now - age).timestamp() * 1000) << 80 | 5))
    vendor = Vendor(b'{"content":[],"totalElements":0}')
    assert (await account(vendor).look_up(reference)).outcome == NotFound()
    query = parse_qs(urlsplit(vendor.asked[0]).query)
    start, end = (datetime.strptime(query[name][0], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for name in ("startDate", "endDate"))
    assert abs(start - (now - age - wire.WIDER)) < timedelta(seconds=5)
    assert abs(end - (now + wire.WIDER)) < timedelta(seconds=60)


async def test_what_is_not_in_our_accounts_currency_is_not_sent() -> None:
    vendor = Vendor(b'{"transactionId":4602843}')
    other = await account(vendor).place(purchase(currency="CNY"))
    assert isinstance(other.outcome, NotSent) and other.outcome.cause is Cause.UNSAYABLE and vendor.asked == []
    assert (await account(vendor, currency="CNY").place(purchase(currency="CNY"))).outcome == Accepted("4602843")


@pytest.mark.parametrize(("told", "cost"), [('"USD"', 14_0650), ('"EUR"', None), ("null", None)])
async def test_a_cost_in_another_currency_is_no_cost(told: str, cost: int | None) -> None:
    balance = {"cost": 14.06497, "currencyCode": json.loads(told)}
    row = {"transactionId": 1, "status": "SUCCESSFUL", "customIdentifier": REFERENCE, "balanceInfo": balance}
    by_number = json.dumps({"code": None, "status": "SUCCESSFUL", "transaction": row}).encode()
    by_reference = json.dumps({"content": [row], "totalElements": 1}).encode()
    for body, number in ((by_number, "1"), (by_reference, None)):
        found = (await account(Vendor(body)).look_up(REFERENCE, number)).outcome
        assert isinstance(found, Delivered) and found.cost == cost
