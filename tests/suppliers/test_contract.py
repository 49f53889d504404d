"""Every adapter keeps the port's promises. Parametrised over the registry: a new folder is judged without a new test.

An example is a JSON file in the adapter's `examples/` (real texts, secrets removed), either
`{"call": "place"|"look_up"|"number", "settings", "purchase"|"reference"|"number", "answer": {"status", "headers", "body"},
"verdict_words", "expect"}` or `{"call": "callback", "settings", "headers", "body", "now", "expect"}`.
`verdict_words` are the vendor's words in the body that carry the verdict. A `number` expects carrier, virtual and ported, or null.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from kameng_api.suppliers.port import (
    Accepted,
    Adapter,
    Answer,
    AnswerUnusable,
    CallbackNews,
    CallbackRefused,
    Delivered,
    HttpAnswer,
    NotFound,
    NotSent,
    NumberFacts,
    Outcome,
    Purchase,
    Refused,
    Reversed,
    Supplier,
    Unknown,
)
from kameng_api.suppliers.registry import list_adapters

ADAPTERS = list_adapters()
Verdict = HttpAnswer | NotSent | Unknown


@dataclass
class Line:
    """A `Send` that answers what it is told and remembers what it was asked."""

    verdict: Verdict
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout_s: float = 30.0,
    ) -> Verdict:
        self.asked.append((method, url, content))
        return self.verdict


def folder_of(adapter: Adapter) -> Path:
    return Path(inspect.getfile(adapter.settings)).parent


def examples(*calls: str) -> list[Any]:
    found = [
        pytest.param(adapter, json.loads(path.read_text(encoding="utf-8")), id=f"{adapter.name}-{path.stem}")
        for adapter in ADAPTERS
        for path in sorted((folder_of(adapter) / "examples").glob("*.json"))
    ]
    return [param for param in found if param.values[1]["call"] in calls]


def connect(adapter: Adapter, example: Mapping[str, Any], verdict: Verdict) -> tuple[Supplier, Line]:
    line = Line(verdict)
    return adapter.connect(adapter.settings(**example["settings"]), line), line


def answer_of(example: Mapping[str, Any], **changes: Any) -> HttpAnswer:
    answer = {**example["answer"], **changes}
    body = answer["body"]
    return HttpAnswer(answer["status"], answer["headers"], body.encode() if isinstance(body, str) else body)


async def ask(supplier: Supplier, example: Mapping[str, Any], reference: str | None = None) -> Answer:
    if example["call"] == "place":
        purchase = {**example["purchase"], **({} if reference is None else {"reference": reference})}
        return await supplier.place(Purchase(**purchase))
    assert supplier.look_up is not None
    return await supplier.look_up(reference or example["reference"])


def assert_expected(outcome: Outcome, expected: Mapping[str, Any]) -> None:
    assert type(outcome).__name__ == expected["outcome"], outcome
    for name, value in expected.items():
        if name == "codes":
            assert isinstance(outcome, Delivered) and len(outcome.codes) == value
        elif name not in ("outcome", "reference"):
            assert getattr(outcome, name) == value, name


def is_definite(outcome: Outcome) -> bool:
    """Whether money would move or another channel be asked because of it."""
    return isinstance(outcome, Delivered | Refused | NotSent | NotFound | Reversed)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_every_call_an_adapter_offers_has_examples(adapter: Adapter) -> None:
    texts = [json.loads(path.read_text()) for path in (folder_of(adapter) / "examples").glob("*.json")]
    calls = {text["call"] for text in texts}
    supplier, _ = connect(adapter, texts[0], Unknown("no call"))
    offered = {"look_up": supplier.look_up, "callback": supplier.read_callback, "number": supplier.look_up_number}
    assert {"place"} | {call for call, method in offered.items() if method is not None} <= calls
    assert calls <= {"place"} | {call for call, method in offered.items() if method is not None}, "an example of what it does not offer"
    outcomes = {text["expect"]["outcome"] for text in texts if text["call"] == "place"}
    assert {"Delivered", "Refused", "Unknown"} <= outcomes


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_a_purchase_can_always_be_asked_about(adapter: Adapter) -> None:
    example = examples("place")[0].values[1]
    supplier, _ = connect(adapter, example, Unknown("no call"))
    readme = (folder_of(adapter) / "README.md").read_text(encoding="utf-8")
    assert supplier.look_up is not None or "ask a human" in readme.lower()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_flags_and_capabilities_agree(adapter: Adapter) -> None:
    example = next(param.values[1] for param in examples("place") if param.values[0] is adapter)
    supplier, _ = connect(adapter, example, Unknown("no call"))
    flags = supplier.capabilities
    assert flags.callback == (supplier.read_callback is not None)
    assert flags.callback or not flags.trusted_callback
    assert supplier.look_up is not None or not flags.not_found_is_final
    assert flags.query_by_reference == (supplier.look_up is not None)
    assert flags.idempotent_submit or not flags.idempotent_resubmit
    assert flags.callback or not flags.callback_batch_s
    assert flags.cancel == (getattr(supplier, "cancel", None) is not None)
    assert (supplier.statement is None) == (supplier.statement_terms is None)
    assert flags.not_found_grace_s > 0 and flags.min_query_interval_s > 0 and flags.callback_batch_s >= 0


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_secrets_are_secret_strings(adapter: Adapter) -> None:
    example = next(param.values[1] for param in examples("place") if param.values[0] is adapter)
    model = adapter.settings(**example["settings"])
    hidden = [value for name in type(model).model_fields if isinstance(value := getattr(model, name), SecretStr)]
    assert hidden
    assert all(secret.get_secret_value() not in repr(model) + model.model_dump_json() for secret in hidden)


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up"))
async def test_an_example_means_what_it_says(adapter: Adapter, example: dict[str, Any]) -> None:
    supplier, _ = connect(adapter, example, answer_of(example))
    answer = await ask(supplier, example)
    assert_expected(answer.outcome, example["expect"])
    assert answer.raw == example["answer"]["body"].encode() and answer.http_status == example["answer"]["status"]
    if isinstance(answer.outcome, Delivered) and supplier.capabilities.returns_cost:
        assert answer.outcome.cost is not None


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up"))
async def test_an_unlisted_word_is_unknown(adapter: Adapter, example: dict[str, Any]) -> None:
    for word in example["verdict_words"]:
        assert word in example["answer"]["body"]
        for other in ("NEVER_LISTED_9", word.lower() if word != word.lower() else word + "X", ""):
            body = example["answer"]["body"].replace(f'"{word}"', f'"{other}"')
            supplier, _ = connect(adapter, example, answer_of(example, body=body))
            outcome = (await ask(supplier, example)).outcome
            assert isinstance(outcome, Unknown), (other, outcome)


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up"))
async def test_half_an_answer_and_a_wrong_status_are_unknown(adapter: Adapter, example: dict[str, Any]) -> None:
    body = example["answer"]["body"].encode()
    broken: list[dict[str, Any]] = [{"body": body[:cut]} for cut in range(0, len(body), max(1, len(body) // 25))]
    broken += [{"status": status} for status in (0, 204, 302, 400, 403, 404, 500, 502, 503, 504)]
    broken += [{"headers": {"content-type": "text/html"}}, {"headers": {}}]
    broken += [{"body": b"<html>502 Bad Gateway</html>"}, {"body": b"\xff\xfe"}, {"body": b"[" * 100_000}]
    broken += [{"body": text} for text in ("null", "[]", "{}", '""', "0", '{"code":"OK"}', '{"code":"OK","data":null}')]
    for change in broken:
        supplier, _ = connect(adapter, example, answer_of(example, **change))
        outcome = (await ask(supplier, example)).outcome
        assert isinstance(outcome, Unknown), (change, outcome)


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up"))
async def test_an_answer_about_another_order_decides_nothing(adapter: Adapter, example: dict[str, Any]) -> None:
    known = example.get("reference") or example["purchase"]["reference"]
    if known not in example["answer"]["body"]:
        pytest.skip("the answer names no reference")
    supplier, _ = connect(adapter, example, answer_of(example))
    outcome = (await ask(supplier, example, reference="B" * 40)).outcome
    assert not is_definite(outcome) and not isinstance(outcome, Accepted), outcome


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up")[:1] + examples("look_up")[:1])
@settings(max_examples=150, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["code", "data", "status", "state", "errno", "out_order_no", "x"]), inner)
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
async def test_no_text_at_all_is_taken_for_a_verdict(adapter: Adapter, example: dict[str, Any], body: bytes) -> None:
    supplier, _ = connect(adapter, example, answer_of(example, body=body))
    assert isinstance((await ask(supplier, example)).outcome, Unknown)


@pytest.mark.parametrize(("adapter", "example"), examples("place")[:1])
async def test_a_purchase_is_sent_once_and_carries_our_reference(adapter: Adapter, example: dict[str, Any]) -> None:
    reference = "Z9" * 20  # 40 characters, the longest we make
    supplier, line = connect(adapter, example, answer_of(example))
    await ask(supplier, example, reference=reference)
    assert len(line.asked) == 1
    _, url, content = line.asked[0]
    assert reference in url or reference.encode() in content
    secret = next(v for v in adapter.settings(**example["settings"]).__dict__.values() if isinstance(v, SecretStr))
    assert secret.get_secret_value() not in url + content.decode("latin-1")


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up"))
async def test_what_the_transport_says_stands(adapter: Adapter, example: dict[str, Any]) -> None:
    for verdict in (NotSent("refused"), Unknown("silence")):
        supplier, _ = connect(adapter, example, verdict)
        outcome = (await ask(supplier, example)).outcome
        if example["call"] == "place":
            assert type(outcome) is type(verdict)
        else:  # a look-up that was not sent proves nothing about the purchase
            assert isinstance(outcome, Unknown)


def read(adapter: Adapter, example: Mapping[str, Any], body: bytes, now: datetime, **change: str) -> CallbackNews:
    supplier, _ = connect(adapter, {**example, "settings": {**example["settings"], **change}}, Unknown("no call"))
    assert supplier.read_callback is not None
    return supplier.read_callback(example["headers"], body, now)


@pytest.mark.parametrize(("adapter", "example"), examples("callback"))
def test_a_true_callback_is_read(adapter: Adapter, example: dict[str, Any]) -> None:
    news = read(adapter, example, example["body"].encode(), datetime.fromisoformat(example["now"]))
    assert news.reference == example["expect"]["reference"]
    assert_expected(news.outcome, example["expect"])


@pytest.mark.parametrize(("adapter", "example"), examples("callback"))
def test_a_tampered_callback_is_refused_or_says_the_same(adapter: Adapter, example: dict[str, Any]) -> None:
    """Vendors leave parts out of their signature (empty values, for one): those may change, the news may not."""
    now = datetime.fromisoformat(example["now"])
    body = example["body"].encode()
    true_news = read(adapter, example, body, now)
    refused = 0
    for position in range(len(body)):
        if chr(body[position]).isalnum():
            changed = body[:position] + (b"9" if body[position] != ord("9") else b"8") + body[position + 1 :]
            try:
                assert read(adapter, example, changed, now) == true_news, position
            except CallbackRefused:
                refused += 1
    assert refused > len(body) / 2
    for broken in (b"", body[:-1], b"{}", b"[]", b"null", b"\xff", body + body):
        with pytest.raises(CallbackRefused):
            read(adapter, example, broken, now)


@pytest.mark.parametrize(("adapter", "example"), examples("callback"))
def test_a_stale_or_foreign_or_unsigned_callback_is_refused(adapter: Adapter, example: dict[str, Any]) -> None:
    now = datetime.fromisoformat(example["now"])
    body = example["body"].encode()
    for wrong in (now + timedelta(hours=1), now - timedelta(hours=1)):
        with pytest.raises(CallbackRefused):
            read(adapter, example, body, wrong)
    model = adapter.settings(**example["settings"])
    for name in type(model).model_fields:
        if isinstance(getattr(model, name), SecretStr):
            with pytest.raises(CallbackRefused):
                read(adapter, example, body, now, **{name: "another-secret-of-enough-length"})
    fields = json.loads(body)
    for name in [name for name in fields if "sign" in name]:
        for unsigned in ({key: value for key, value in fields.items() if key != name}, {**fields, name: ""}):
            with pytest.raises(CallbackRefused):
                read(adapter, example, json.dumps(unsigned).encode(), now)


async def look_up_number(adapter: Adapter, example: Mapping[str, Any], verdict: Verdict) -> tuple[NumberFacts | None, Line]:
    supplier, line = connect(adapter, example, verdict)
    assert supplier.look_up_number is not None
    return await supplier.look_up_number(example["number"]), line


async def told(adapter: Adapter, example: Mapping[str, Any], **changes: Any) -> NumberFacts | str | None:
    """The facts, None where it does not know the number, or the text of AnswerUnusable."""
    try:
        return (await look_up_number(adapter, example, answer_of(example, **changes)))[0]
    except AnswerUnusable as unusable:
        assert example["number"] not in str(unusable) and example["number"][-8:] not in str(unusable)
        return str(unusable)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_a_look_up_of_numbers_shows_one_that_is_known_and_one_that_is_not(adapter: Adapter) -> None:
    expected = [param.values[1]["expect"] for param in examples("number") if param.values[0] is adapter]
    assert not expected or {expect is None for expect in expected} == {True, False}


@pytest.mark.parametrize(("adapter", "example"), examples("number"))
async def test_a_number_is_what_the_example_says(adapter: Adapter, example: dict[str, Any]) -> None:
    facts, line = await look_up_number(adapter, example, answer_of(example))
    assert facts == (None if example["expect"] is None else NumberFacts(**example["expect"]))
    assert facts is None or facts.carrier in ("cmcc", "cucc", "ctcc", "cbn")
    assert len(line.asked) == 1, "asked once, and nothing is bought"
    _, url, content = line.asked[0]
    assert example["number"] not in url, "an address is written into logs on its way"
    assert example["number"].encode() in content


@pytest.mark.parametrize(("adapter", "example"), examples("number"))
async def test_an_unlisted_word_about_a_number_is_no_fact(adapter: Adapter, example: dict[str, Any]) -> None:
    for word in example["verdict_words"]:
        assert f'"{word}"' in example["answer"]["body"]
        for other in ("NEVER_LISTED_9", word.lower() if word != word.lower() else word + "X"):
            changed = example["answer"]["body"].replace(f'"{word}"', f'"{other}"')
            assert not isinstance(await told(adapter, example, body=changed), NumberFacts), other


@pytest.mark.parametrize(("adapter", "example"), examples("number"))
async def test_half_an_answer_about_a_number_is_no_fact(adapter: Adapter, example: dict[str, Any]) -> None:
    body = example["answer"]["body"].encode()
    broken: list[dict[str, Any]] = [{"body": body[:cut]} for cut in range(0, len(body), max(1, len(body) // 25))]
    broken += [{"status": status} for status in (0, 204, 302, 400, 403, 404, 429, 500, 502, 503, 504)]
    broken += [{"body": b"<html>502 Bad Gateway</html>"}, {"body": b"\xff\xfe"}, {"body": b"[" * 100_000}]
    broken += [{"body": text} for text in ("null", "[]", "{}", '""', "0", '{"code":"OK"}', '{"code":"OK","data":null}', '{"code":"OK","data":{}}')]
    for change in broken:
        assert isinstance(await told(adapter, example, **change), str), change


@pytest.mark.parametrize(("adapter", "example"), examples("number"))
async def test_silence_about_a_number_is_no_fact(adapter: Adapter, example: dict[str, Any]) -> None:
    for verdict in (NotSent("refused"), Unknown("silence")):
        with pytest.raises(AnswerUnusable):
            await look_up_number(adapter, example, verdict)
