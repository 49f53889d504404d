"""Papers, forms and findings of the supplier desk, decided from values alone."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import SecretStr

from kameng_api.catalog.rules import Channel, Offer, Product, Snapshot
from kameng_api.orders.route_facts import options_of
from kameng_api.suppliers.desk import addresses, forms, probes, rules
from kameng_api.suppliers.desk.probes import Found
from kameng_api.suppliers.desk.rules import Document, Person, Standing
from kameng_api.suppliers.port import Adapter, HttpAnswer
from kameng_api.suppliers.registry import list_adapters
from kameng_api.suppliers.routing.choose import find_code
from kameng_api.suppliers.routing.facts import Ask, Code, Option, Reading, Seen
from kameng_api.suppliers.routing.telling import tell_code

LICENCE = Document(UUID(int=1), "a", "business_licence", valid_until=date(2026, 12, 31), required=True)
NOON = datetime(2026, 11, 23, 4, tzinfo=UTC)  # in China


@pytest.mark.parametrize(
    ("today", "standing"),
    [
        (date(2026, 11, 30), Standing.HOLDS),
        (date(2026, 12, 1), Standing.ENDS_SOON),
        (date(2026, 12, 31), Standing.ENDS_SOON),
        (date(2027, 1, 1), Standing.ENDED),
    ],
)
def test_a_document_holds_through_its_last_day(today: date, standing: Standing) -> None:
    assert LICENCE.standing(today) is standing
    assert replace(LICENCE, valid_from=date(2028, 1, 1), valid_until=None).standing(today) is Standing.NOT_YET
    assert replace(LICENCE, valid_until=None).standing(today) is Standing.HOLDS


def test_orders_stop_at_midnight_in_china_after_the_last_day_of_the_first_required_document() -> None:
    later = replace(LICENCE, valid_until=date(2027, 6, 30))
    assert rules.no_orders_after([later, LICENCE]) == datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert rules.no_orders_after([replace(LICENCE, required=False)]) is None
    assert rules.no_orders_after([replace(LICENCE, withdrawn_at=NOON), later]) == datetime(2027, 6, 30, 16, tzinfo=UTC)


def test_reminders_name_what_ends_and_what_it_stops() -> None:
    contract = replace(LICENCE, document_id=UUID(int=2), kind="contract", valid_until=date(2026, 11, 1), required=False)
    ending, ended = rules.reminders([LICENCE, contract, replace(contract, withdrawn_at=NOON, document_id=UUID(int=3))], date(2026, 12, 24))
    assert list(ending.values()) == ["last day 2026-12-31, 7 day(s) left; no orders after it"]
    assert list(ended.values()) == ["last day was 2026-11-01"]
    assert not set(ending) & set(ended)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"kind": "passport"}, "/kind"),
        ({"number": "x" * 201}, "/number"),
        ({"issuer": "a\nb"}, "/issuer"),
        ({"remind_days": 366}, "/remind_days"),
        ({"url": "file:///etc/passwd"}, "/url"),
        ({"valid_from": date(2027, 1, 1)}, "/valid_until"),
        ({"valid_until": None}, "/required"),
    ],
)
def test_a_document_with_a_mistake_is_refused_at_its_place(change: dict[str, object], pointer: str) -> None:
    assert rules.check_document(LICENCE) == []
    assert [wrong.pointer for wrong in rules.check_document(replace(LICENCE, **change))] == [pointer]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "kind", "taken"),
    [
        (b"%PDF-1.7 x", "application/pdf", True),
        (b"\x89PNG\r\n\x1a\n0", "image/png", True),
        (b"RIFF0000WEBPVP8 ", "image/webp", True),
        (b"%PDF-1.7 x", "image/png", False),
        (b"<html>", "text/html", False),
        (b"", "application/pdf", False),
        (b"%PDF-" + b"0" * rules.MOST_FILE_BYTES, "application/pdf", False),
    ],
)
def test_a_file_is_what_its_bytes_say(content: bytes, kind: str, taken: bool) -> None:
    assert (rules.check_file(content, kind) == []) is taken


def test_a_person_is_shown_by_no_repr() -> None:
    person = Person("Wang Er", "13800138000", "wx-1", "w@example.com")
    shown = repr(rules.Contact(UUID(int=1), "a", "finance", person=person)) + repr(person)
    assert not any(part in shown for part in ("Wang", "13800138000", "wx-1", "example.com"))
    assert rules.check_contact("finance", "9-18", person) == []
    wrong = rules.check_contact("boss", "9-18", replace(person, email="nobody"))
    assert [one.pointer for one in wrong] == ["/role", "/email"] and "nobody" not in str(wrong)


@pytest.mark.parametrize(
    ("lag_s", "at"),
    [
        (3600, datetime(2026, 11, 23, 17, tzinfo=UTC)),  # 01:00 of the 24th in Shanghai
        (46_800, datetime(2026, 11, 23, 5, tzinfo=UTC)),  # 13:00 today: yesterday's is not whole yet
        (0, datetime(2026, 11, 23, 16, tzinfo=UTC)),
        (172_800, datetime(2026, 11, 23, 16, tzinfo=UTC)),
    ],
)
def test_the_next_statement_comes_so_long_after_their_midnight(lag_s: int, at: datetime) -> None:
    assert rules.next_statement_at("Asia/Shanghai", lag_s, NOON) == at


# ---- the wallet and the papers in routing ----------------------------------------------------------------------------


def code_of(channel: Channel, now: datetime = NOON) -> Code | None:
    product = Product("phone", "Phone", "topup", face_value=1_000_000, target_kind="mobile")
    shop = Snapshot(1, {"phone": product}, {}, {"phone": (Offer("a", "phone", "p", unit_cost=900_000),)}, {"a": channel})
    [option] = options_of(shop, "phone", "test", 1, None, now)
    return find_code(Ask("o", "phone", price=1_000_000), option, Reading())


def test_a_channel_below_its_floor_takes_no_order_until_it_is_refilled() -> None:
    channel = Channel("a", "A", "simulator", "test", wallet_balance=10_000_000, wallet_floor=5_000_000, wallet_resume_at=20_000_000)
    assert code_of(channel) is None
    assert not channel.is_paused_at(5_000_000) and channel.is_paused_at(4_999_999)
    paused = replace(channel, wallet_balance=4_999_999, wallet_paused_at=NOON)
    assert code_of(paused) is Code.BALANCE
    assert code_of(replace(paused, wallet_balance=19_999_999)) is Code.BALANCE, "the first coin does not open it"
    assert paused.is_paused_at(19_999_999) and not paused.is_paused_at(20_000_000)
    assert code_of(replace(channel, wallet_balance=20_000_000)) is None
    assert not Channel("a", "A", "simulator", "test").is_paused_at(-1), "without a floor nobody asked for a pause"


def test_the_floor_holds_already_before_the_supplier_is_asked_again() -> None:
    channel = Channel("a", "A", "simulator", "test", wallet_balance=5_500_000, wallet_floor=5_000_000)
    assert code_of(channel) is Code.BALANCE, "an order of 90 would leave less than 500"


def test_a_channel_whose_paper_has_ended_takes_no_orders() -> None:
    channel = Channel("a", "A", "simulator", "test", no_orders_after=NOON)
    assert code_of(channel, NOON - timedelta(milliseconds=1)) is None
    assert code_of(channel, NOON) is Code.PAPERS
    option = Option("a", 900_000, shut=Code.PAPERS)
    assert tell_code(Code.PAPERS, option, Seen("a"), None) == "a document without which it may not be used has ended"  # type: ignore[arg-type]
    refused = Option("a", 900_000, shut=Code.BALANCE)
    assert "refused another order" in tell_code(Code.BALANCE, refused, Seen("a"), None)  # type: ignore[arg-type]


# ---- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", list_adapters(), ids=lambda adapter: adapter.name)
def test_every_adapter_has_a_form_in_both_languages(adapter: Adapter) -> None:
    form = forms.form_of(adapter)
    assert [one.name for one in form] == list(adapter.settings.model_fields), "in the order of its model"
    for one in form:
        field = adapter.settings.model_fields[one.name]
        assert one.title.en and re.search(r"[\u4e00-\u9fff]", one.title.zh), (one.name, one.title)
        assert one.required == field.is_required()
        assert (one.kind == "secret") == (SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ())))
        if one.kind == "secret":
            assert one.default is None
    assert forms.secrets_of(adapter)


def test_the_simulators_form() -> None:
    form = {one.name: one for one in forms.form_of(next(a for a in list_adapters() if a.name == "simulator"))}
    assert [(name, one.kind) for name, one in form.items()] == [
        ("base_url", "text"), ("app_key", "text"), ("secret", "secret"), ("timeout_s", "number"),
    ]  # fmt: skip
    assert (form["app_key"].least, form["app_key"].most, form["timeout_s"].default) == (4, 64, 10.0)
    assert form["base_url"].title.zh == "接口地址"


# ---- findings --------------------------------------------------------------------------------------------------------


def said(text: str, status: int = 200, kind: str = "application/json") -> HttpAnswer:
    return HttpAnswer(status, {"content-type": kind}, text.encode())


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (said('{"code":"SIGN_INVALID","message":"签名错误"}'), Found.WRONG_SIGNATURE),
        (said('{"errno":7,"errmsg":"sign error"}'), Found.WRONG_SIGNATURE),
        (said('{"code":401,"msg":"商户不存在"}'), Found.WRONG_ACCOUNT),
        (said('{"error":"unauthorized_client"}', 401), Found.WRONG_ACCOUNT),
        (said("{}", 403), Found.WRONG_ACCOUNT),
        (said('{"msg":"IP不在白名单"}'), Found.ADDRESS_NOT_ALLOWED),
        (said('{"msg":"timestamp已过期"}'), Found.CLOCK_SKEW),
        (said('{"msg":"请求过于频繁"}'), Found.BUSY),
        (said("", 429), Found.BUSY),
        (said("{}", 502), Found.SUPPLIER_TROUBLE),
        (said('{"msg":"系统维护中"}'), Found.SUPPLIER_TROUBLE),
        (said("<html>sign in to your account</html>", 200, "text/html"), Found.WRONG_ADDRESS),
        (said("not found", 404, "text/plain"), Found.WRONG_ADDRESS),
        (said('{"balance":"x"}'), Found.UNREADABLE),
        (said('{"sign":"abc","balance":"x"}'), Found.UNREADABLE),
    ],
)
def test_what_they_say_is_told_in_words(answer: HttpAnswer, found: Found) -> None:
    assert probes.diagnose(answer, probes.words_of(answer), None) is found


def test_a_clock_that_is_off_is_named_before_the_signature_it_breaks() -> None:
    answer = said('{"msg":"签名错误"}')
    assert probes.diagnose(answer, probes.words_of(answer), -61.0) is Found.CLOCK_SKEW
    assert probes.diagnose(answer, probes.words_of(answer), 59.0) is Found.WRONG_SIGNATURE


def test_a_vendor_that_writes_gbk_is_understood() -> None:
    answer = HttpAnswer(200, {"content-type": "application/json"}, '{"msg":"签名错误"}'.encode("gbk"))
    assert probes.diagnose(answer, probes.words_of(answer), None) is Found.WRONG_SIGNATURE


def test_every_finding_has_its_sentence_in_both_languages() -> None:
    assert set(probes.MEANING) == set(Found)
    assert all(one.en and re.search(r"[\u4e00-\u9fff]", one.zh) for one in probes.MEANING.values())


# ---- where settings lead


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254", "https://169.254.0.23:8080/x", "http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376", "http://169.254.43518",
        "http://[::ffff:169.254.169.254]", "http://[64:ff9b::a9fe:a9fe]", "http://[2002:a9fe:a9fe::1]", "http://[fe80::1]", "http://[fd00:ec2::254]",
        "HTTP://vendor.example@169.254.169.254", "http://metadata.google.internal.", "http://METADATA.tencentyun.com", "http://100.100.100.200",
    ],
)  # fmt: skip
def test_link_local_and_metadata_addresses_are_no_suppliers_however_spelt(url: str) -> None:
    for settings in ({"base_url": "https://vendor.example", "query_url": url}, {"more": {"urls": ["https://a.example", url]}}):
        [wrong] = addresses.check_addresses(settings)
        assert wrong.code == "not_allowed" and wrong.pointer in ("/settings/query_url", "/settings/more/urls/1")


def test_private_and_public_addresses_are_suppliers() -> None:
    for host in (
        "127.0.0.1:9", "localhost", "10.0.0.7", "192.168.1.1", "[::1]:8080", "[fd00::7]", "vendor.example", "169.253.0.1", "supplier.internal",
    ):  # fmt: skip
        assert addresses.check_addresses({"base_url": f"http://{host}", "note": "169.254.169.254"}) == []


@pytest.mark.parametrize(
    ("url", "moved"),
    [
        ("https://vendor.example", False),
        ("https://VENDOR.example:443/other", False),
        ("https://mine.example", True),
        ("http://vendor.example", True),
        ("https://vendor.example:8443", True),
        ("https://vendor.example@mine.example", True),
        ("https://x@vendor.example", True),
        ("https://vendor.example.", True),
        ("https://[vendor.example", True),
    ],
)
def test_secrets_are_kept_for_the_address_they_were_given_for(url: str, moved: bool) -> None:
    old = {"base_url": "https://vendor.example", "key": "one", "webhook_secret": "two", "private_key": None}
    secrets = {"key", "webhook_secret", "private_key"}
    found = addresses.check_kept_secrets(old, {**old, "base_url": url}, {"base_url", "key"}, secrets)
    assert [one.pointer for one in found] == (["/settings/webhook_secret"] if moved else [])
    assert addresses.check_kept_secrets(old, {**old, "base_url": url}, {"base_url", "key", "webhook_secret"}, secrets) == []
    assert [one.pointer for one in addresses.check_kept_secrets(old, {**old, "auth_url": url}, {"auth_url"}, secrets)] == [
        "/settings/key", "/settings/webhook_secret",
    ], "an address that was not there before"  # fmt: skip
