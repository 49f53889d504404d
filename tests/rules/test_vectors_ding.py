"""Ding's requests byte for byte, and its published tables against ours. Sources: swagger V1, help pages, live observations of 2026-09-07."""

import json
from collections.abc import Mapping

import pytest

from kameng_api.suppliers.adapters.ding import mapping, wire
from kameng_api.suppliers.adapters.ding.client import DingSupplier
from kameng_api.suppliers.adapters.ding.settings import DingSettings
from kameng_api.suppliers.port import Cause, Delivered, HttpAnswer, NotSent, Purchase, Refused, Unknown


def purchase(**more: object) -> Purchase:
    values = {"reference": "101JD0000000000000000000001", "product_code": "CN_CM_TopUp-14.50", "product_type": "topup", "units": 1, "currency": "USD"}
    return Purchase(**{**values, "max_cost": 15_0000, "target": "+8613800138000", **more})  # type: ignore[arg-type]


def test_a_transfer_is_said_in_pascal_case_with_validate_only_spelled_out() -> None:
    assert wire.order_body(purchase(), "") == (
        b'{"SkuCode":"CN_CM_TopUp","SendValue":14.5,"SendCurrencyIso":"USD","AccountNumber":"8613800138000",'
        b'"DistributorRef":"101JD0000000000000000000001","ValidateOnly":false}'
    )


def test_a_voucher_has_ten_noughts_for_an_account_and_settings_stand_in_a_list() -> None:
    voucher = purchase(product_code="IN_PIN-9.90", product_type="card", target=None, fields={"email": "a@example.com"})
    body = json.loads(wire.order_body(voucher, "86"))
    assert body["AccountNumber"] == "0000000000" and body["Settings"] == [{"Name": "email", "Value": "a@example.com"}] and body["SendValue"] == 9.9


@pytest.mark.parametrize("code", ["X", "X-", "X-1", "X-1.5", "X-1.500", "-1.50", "X-range ", "X Y-1.50", ""])
def test_a_product_code_says_its_price_or_that_it_is_a_range(code: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.read_code(code)


def test_a_code_may_look_like_another_in_front() -> None:
    assert wire.read_code("A-1.50-2.75") == wire.Line("A-1.50", 2_7500)
    assert wire.read_code("A-range-range") == wire.Line("A-range", None)


def said(status: int, result: int, code: str, context: str) -> HttpAnswer:
    body = {"TransferRecord": None, "ResultCode": result, "ErrorCodes": [{"Code": code, "Context": context}]}
    return HttpAnswer(status, {"content-type": "application/json"}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("suffix", "code", "context", "result", "wanted"),
    [  # what a UAT number with these last digits answers
        ("001", "RateLimited", "", 3, NotSent),
        ("002", "TransientProviderError", "ProviderTimedOut", 3, Unknown),
        ("003", "TransientProviderError", "ProviderRefusedRequest", 3, Refused),
        ("004", "ProviderError", "ProductUnavailable", 5, Refused),
        ("005", "AccountNumberInvalid", "ProviderRefusedRequest", 4, Refused),
        ("007", "InsufficientBalance", "", 5, Refused),
        ("008", "AccountNumberInvalid", "AccountNumberFailedRegex", 4, Refused),
        ("009", "ProviderError", "RechargeNotAllowed", 5, Refused),
    ],
)
def test_the_uat_numbers_mean_what_the_help_page_says(suffix: str, code: str, context: str, result: int, wanted: type[object]) -> None:
    for status in (200, 500):
        assert isinstance(mapping.at_placing(said(status, result, code, context), "R1", "USD", cards=False), wanted), suffix
    assert isinstance(mapping.at_placing(said(502, result, code, context), "R1", "USD", cards=False), Unknown)
    assert isinstance(mapping.at_placing(said(200, 1, code, context), "R1", "USD", cards=False), Unknown)


def test_a_wrong_key_reached_nobody_and_a_throttle_is_busy() -> None:
    assert mapping.NOT_SENT["AuthenticationFailed"][1] is Cause.UNREACHED and mapping.NOT_SENT["RateLimited"][1] is Cause.BUSY
    assert not {"DuplicateTransactionPrevented", "OtherError", "NearestMatch"} & {code for code, _ in mapping.REFUSALS}


def test_a_value_is_named_where_the_product_has_a_range_and_never_above_what_we_pay() -> None:
    for wrong in (purchase(face_value=14_5000), purchase(product_code="X-range"), purchase(max_cost=14_4999), purchase(units=2)):
        with pytest.raises(wire.Unreadable):
            wire.order_body(wrong, "")


async def test_what_is_not_in_our_accounts_currency_is_not_sent() -> None:
    asked: list[str] = []

    async def send(
        method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        asked.append(url)
        return Unknown("silence")

    for ours, theirs in (("USD", "CNY"), ("EUR", "USD")):
        supplier = DingSupplier(DingSettings.model_validate({"api_key": "key-example", "currency": ours, "country_code": "86"}), send)
        outcome = (await supplier.place(purchase(currency=theirs))).outcome
        assert isinstance(outcome, NotSent) and outcome.cause is Cause.UNSAYABLE and asked == []
        assert (await supplier.place(purchase(currency=ours))).outcome == Unknown("silence")
        assert asked.pop()


@pytest.mark.parametrize(("told", "cost"), [("USD", 14_5000), ("EUR", None), (None, None)])
def test_a_cost_in_another_currency_is_no_cost(told: str | None, cost: int | None) -> None:
    reference = purchase().reference
    record = {
        "TransferId": {"TransferRef": "1", "DistributorRef": reference},
        "ProcessingState": "Complete",
        "Price": {"SendValue": 14.5, "SendCurrencyIso": told},
    }
    body = json.dumps({"ResultCode": 1, "ErrorCodes": [], "TransferRecord": record}).encode()
    found = mapping.at_placing(HttpAnswer(200, {"content-type": "application/json"}, body), reference, "USD", cards=False)
    assert isinstance(found, Delivered) and found.cost == cost
