"""DT One's requests byte for byte, and its published tables against ours. Sources: RFC 7617, DVS OpenAPI 1.23.0."""

import json
from collections.abc import Mapping

import pytest

from kameng_api.suppliers.adapters.dtone import mapping, wire
from kameng_api.suppliers.adapters.dtone.client import DtoneSupplier
from kameng_api.suppliers.adapters.dtone.settings import DtoneSettings
from kameng_api.suppliers.port import Cause, HttpAnswer, NotSent, Purchase, RefusalReason, Scope, Unknown


def purchase(**more: object) -> Purchase:
    values = {"reference": "101JD0000000000000000000001", "product_code": "1234", "product_type": "topup", "units": 1, "currency": "USD"}
    return Purchase(**{**values, "max_cost": 10_0000, "target": "13800138000", **more})  # type: ignore[arg-type]


def test_basic_credentials_are_those_of_the_rfc() -> None:
    assert wire.basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert wire.basic("test", "123£") == "Basic dGVzdDoxMjPCow=="


def test_a_fixed_recharge_is_said_as_the_document_says_it() -> None:
    assert wire.order_body(purchase(callback_url="https://hub.example.com/c"), "86") == (
        b'{"external_id":"101JD0000000000000000000001","product_id":1234,"auto_confirm":true,'
        b'"credit_party_identifier":{"mobile_number":"+8613800138000"},"callback_url":"https://hub.example.com/c"}'
    )


def test_a_ranged_one_names_its_destination() -> None:
    body = json.loads(wire.order_body(purchase(product_code="1235-PHP", face_value=50_5000, target="+8613800138000"), "86"))
    assert body["calculation_mode"] == "DESTINATION_AMOUNT"
    assert body["destination"] == {"unit_type": "CURRENCY", "unit": "PHP", "amount": 50.5}
    assert body["credit_party_identifier"] == {"mobile_number": "+8613800138000"}


def test_accounts_and_further_fields_have_their_places() -> None:
    fields = {"sender.first_name": "A", "credit_party_identifier.account_qualifier": "q"}
    body = json.loads(wire.order_body(purchase(product_code="1237-account", target="A-17", fields=fields), ""))
    assert body["credit_party_identifier"] == {"account_number": "A-17", "account_qualifier": "q"} and body["sender"] == {"first_name": "A"}
    with pytest.raises(wire.Unreadable):
        wire.order_body(purchase(fields={"auto_confirm": "false"}), "86")
    with pytest.raises(wire.Unreadable):
        wire.order_body(purchase(fields={"status.id": "7"}), "86")


@pytest.mark.parametrize("target", ["1380013800x", "+0613800138000", "123", "+86138001380001234", "+86 13800138000", "١٣٨٠٠١٣٨٠٠٠"])
def test_a_target_outside_e164_is_not_said(target: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.mobile(target, "")


def test_amounts_are_exact_and_rounded_against_us() -> None:
    found = wire.read(b'{"amount":0.1,"fee":0.2,"fifth":7.16235,"tiny":1e-5}')
    assert wire.charge(wire.decimal(found["amount"]) + wire.decimal(found["fee"])) == 3000
    assert wire.charge(wire.decimal(found["fifth"])) == 7_1624 and wire.holding(wire.decimal(found["fifth"])) == 7_1623
    assert wire.charge(wire.decimal(found["tiny"])) == 1 and wire.holding(wire.decimal(found["tiny"])) == 0
    for text in (b"-1", b'"1"', b"true", b"1e99", b"null"):
        with pytest.raises(wire.Unreadable):
            wire.decimal(wire.read(text))
    for broken in (b"NaN", b'{"a":1,"a":2}', b"Infinity"):
        with pytest.raises(wire.Unreadable):
            wire.read(broken)


def test_every_status_of_the_document_is_in_the_table() -> None:
    """The table "Transaction Status" of DVS 1.23.0, and DECLINED-EXCEPTION from its table of sandbox numbers."""
    credit, reach = "CREDIT-PARTY", ("OPERATOR", "CREDIT-PARTY", "CUSTOMER")
    declined = {f"DECLINED-LIMITATIONS-ON-{who}-{what}" for who in reach for what in ("AMOUNT", "QUANTITY")}
    rejected = {f"REJECTED-LIMITATIONS-ON-{credit}-{what}" for what in ("AMOUNT", "QUANTITY")} | {"REJECTED-INSUFFICIENT-BALANCE"}
    both = {
        f"{word}{why}"
        for word in ("REJECTED", "DECLINED")
        for why in (
            "",
            "-INVALID-CREDIT-PARTY",
            "-BARRED-CREDIT-PARTY",
            "-INELIGIBLE-CREDIT-PARTY",
            "-INVALID-DEBIT-PARTY",
            "-BARRED-DEBIT-PARTY",
            "-OPERATOR-CURRENTLY-UNAVAILABLE",
        )
    }
    assert set(mapping.SUB_STATUSES) == declined | rejected | both | {"CANCELLED", "DECLINED-DUPLICATED-TRANSACTION", "DECLINED-EXCEPTION"}
    assert mapping.SUB_STATUSES["DECLINED-DUPLICATED-TRANSACTION"] == (Scope.ORDER, RefusalReason.SUPPLIER_REJECTED), "never tried elsewhere"
    assert not set(mapping.REFUSALS) & {1007001, 1009001, 1009503}, "an order may exist"


def test_a_value_is_named_where_the_product_has_a_range_and_nowhere_else() -> None:
    for wrong in (purchase(face_value=50_0000), purchase(product_code="1235-PHP"), purchase(target=None), purchase(units=2)):
        with pytest.raises(wire.Unreadable):
            wire.order_body(wrong, "86")
    assert b"credit_party_identifier" not in wire.order_body(purchase(product_code="1236", product_type="card", target=None), "86")


async def test_what_is_not_in_our_accounts_currency_is_not_sent() -> None:
    asked: list[str] = []

    async def send(
        method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        asked.append(url)
        return Unknown("silence")

    keys = {"api_key": "key-example", "api_secret": "secret-example-0123", "callback_user": "user", "callback_password": "password-example"}
    for ours, theirs in (("USD", "CNY"), ("EUR", "USD")):
        supplier = DtoneSupplier(DtoneSettings.model_validate({**keys, "currency": ours, "country_code": "86"}), send)
        outcome = (await supplier.place(purchase(currency=theirs))).outcome
        assert isinstance(outcome, NotSent) and outcome.cause is Cause.UNSAYABLE and asked == []
        assert (await supplier.place(purchase(currency=ours))).outcome == Unknown("silence")
        assert asked.pop()
