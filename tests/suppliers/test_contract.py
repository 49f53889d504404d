"""Every adapter keeps the port's promises. Parametrised over the registry: a new folder is judged without a new test.

An example is a JSON file in the adapter's `examples/` (real texts, secrets removed):

- `call`: place, look_up, cancel, number, balance, products, product, statement or callback; `settings`; then `purchase`, `reference` (and
  `supplier_order_no`), `number`, `product_code` or `day`, as the call needs.
- `answer` {status, headers, body}, and in `before` the answers to requests that the same call makes earlier (a token, earlier pages).
  `charset`: of the bodies, utf-8 unless said.
- `verdict_words`: what in the body carries the verdict: a word that stands there in quotes, or {"text", "others"} of any fragment.
- `statuses`: HTTP statuses at which the same body means the same, by the vendor's document; `any_content_type`: it means it under any.
- `expect`: {"outcome", …}; of a number carrier, virtual and ported, or null; of a balance {balance, currency}; of products and statements a
  list of partial lines, of a product a partial line or null.
- A callback has `headers`, `body`, `now` and expects {"reference", "outcome", …} or {"product_codes"}; `callback_secrets`: the settings its
  signature rests on (all secrets unless said); `unsigned_body`: only its credentials are checked; `partly_signed`: not all of it counts.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

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
    CatalogHint,
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
    """A `Send` that answers what it is told, first `before` and then always the same, and remembers what it was asked."""

    verdict: Verdict
    before: list[HttpAnswer] = field(default_factory=list)
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
        return self.before[len(self.asked) - 1] if len(self.asked) <= len(self.before) else self.verdict


def folder_of(adapter: Adapter) -> Path:
    return adapter.folder or Path(inspect.getfile(adapter.settings)).parent


@cache
def texts_of(adapter: Adapter) -> list[tuple[str, dict[str, Any]]]:
    """(name, example) of all its examples."""
    return [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted((folder_of(adapter) / "examples").glob("*.json"))]


def examples(*calls: str) -> list[Any]:
    found = [(adapter, name, text) for adapter in ADAPTERS for name, text in texts_of(adapter) if text["call"] in calls]
    return [pytest.param(adapter, text, id=f"{adapter.name}-{name}") for adapter, name, text in found]


def one_each(*calls: str) -> list[Any]:
    """The first example of each of these calls, of every adapter."""
    found = [(adapter, name, text) for adapter in ADAPTERS for call in calls for name, text in texts_of(adapter) if text["call"] == call]
    first = {(adapter.name, text["call"]): pytest.param(adapter, text, id=f"{adapter.name}-{name}") for adapter, name, text in reversed(found)}
    return [first[key] for key in sorted(first)]


def raw(example: Mapping[str, Any], text: str) -> bytes:
    return text.encode(example.get("charset", "utf-8"))


def connect(adapter: Adapter, example: Mapping[str, Any], verdict: Verdict) -> tuple[Supplier, Line]:
    before = [HttpAnswer(one["status"], one["headers"], raw(example, one["body"])) for one in example.get("before", ())]
    line = Line(verdict, before)
    return adapter.connect(adapter.settings(**example["settings"]), line), line


def answer_of(example: Mapping[str, Any], **changes: Any) -> HttpAnswer:
    answer = {**example["answer"], **changes}
    body = answer["body"]
    return HttpAnswer(answer["status"], answer["headers"], raw(example, body) if isinstance(body, str) else body)


async def ask(supplier: Supplier, example: Mapping[str, Any], reference: str | None = None) -> Answer:
    if example["call"] == "place":
        purchase = {**example["purchase"], **({} if reference is None else {"reference": reference})}
        return await supplier.place(Purchase(**purchase))
    call = supplier.look_up if example["call"] == "look_up" else supplier.cancel
    assert call is not None
    return await call(reference or example["reference"], example.get("supplier_order_no"))


def assert_expected(outcome: Outcome, expected: Mapping[str, Any]) -> None:
    assert type(outcome).__name__ == expected["outcome"], outcome
    for name, value in expected.items():
        if name == "codes":
            assert isinstance(outcome, Delivered) and len(outcome.codes) == value
        elif name not in ("outcome", "reference"):
            assert getattr(outcome, name) == value, name


def rewritten(example: Mapping[str, Any], word: str | Mapping[str, Any]) -> list[str]:
    """The body with another word, one that nobody listed, in place of one that carries the verdict."""
    body: str = example["answer"]["body"]
    if isinstance(word, str):
        assert f'"{word}"' in body
        others = ("NEVER_LISTED_9", word.lower() if word != word.lower() else word + "X", "")
        return [body.replace(f'"{word}"', f'"{other}"') for other in others]
    assert word["text"] in body and word["others"]
    return [body.replace(word["text"], other) for other in word["others"]]


def is_definite(outcome: Outcome) -> bool:
    """Whether money would move or another channel be asked because of it."""
    return isinstance(outcome, Delivered | Refused | NotSent | NotFound | Reversed)


def named(test: Any) -> Any:
    return pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)(test)


@named
def test_every_call_an_adapter_offers_has_examples(adapter: Adapter) -> None:
    texts = [text for _, text in texts_of(adapter)]
    calls = {text["call"] for text in texts}
    supplier, _ = connect(adapter, texts[0], Unknown("no call"))
    methods = {"callback": supplier.read_callback, "number": supplier.look_up_number}
    methods |= {name: getattr(supplier, name) for name in ("look_up", "cancel", "balance", "products", "product", "statement")}
    offered = {"place"} | {call for call, method in methods.items() if method is not None}
    unshown = {"balance", "products", "product", "statement"} if adapter.simulated else set()  # their real texts are made by a running simulator
    assert offered - calls <= unshown, "offered without an example"
    assert calls <= offered, "an example of what it does not offer"
    outcomes = {text["expect"]["outcome"] for text in texts if text["call"] == "place"}
    assert "Unknown" in outcomes and outcomes & {"Delivered", "Accepted"}
    # who knows no code that refuses an order at once says no at a look-up only
    assert {"Delivered", "Refused"} <= {text["expect"]["outcome"] for text in texts if text["call"] in ("place", "look_up")}


@named
def test_an_adapter_says_whose_it_is(adapter: Adapter) -> None:
    assert adapter.title
    assert len((folder_of(adapter) / "README.md").read_text(encoding="utf-8")) > 400


@named
def test_a_purchase_can_always_be_asked_about(adapter: Adapter) -> None:
    example = next(text for _, text in texts_of(adapter))
    supplier, _ = connect(adapter, example, Unknown("no call"))
    readme = (folder_of(adapter) / "README.md").read_text(encoding="utf-8")
    assert supplier.look_up is not None or "ask a human" in readme.lower()


@named
def test_flags_and_capabilities_agree(adapter: Adapter) -> None:
    example = next(param.values[1] for param in examples("place") if param.values[0] is adapter)
    supplier, _ = connect(adapter, example, Unknown("no call"))
    flags = supplier.capabilities
    assert flags.callback == (supplier.read_callback is not None)
    assert flags.callback or not flags.trusted_callback
    assert supplier.look_up is not None or not flags.not_found_is_final
    assert supplier.look_up is not None or not flags.query_by_reference
    assert flags.idempotent_submit or not flags.idempotent_resubmit
    assert flags.callback or not flags.callback_batch_s
    assert flags.cancel == (supplier.cancel is not None)
    assert (supplier.statement is None) == (supplier.statement_terms is None)
    assert flags.not_found_grace_s > 0 and flags.min_query_interval_s > 0 and flags.callback_batch_s >= 0


@named
def test_secrets_are_secret_strings(adapter: Adapter) -> None:
    example = next(param.values[1] for param in examples("place") if param.values[0] is adapter)
    model = adapter.settings(**example["settings"])
    hidden = [value for name in type(model).model_fields if isinstance(value := getattr(model, name), SecretStr)]
    assert hidden
    assert all(secret.get_secret_value() not in repr(model) + model.model_dump_json() for secret in hidden)


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up", "cancel"))
async def test_an_example_means_what_it_says(adapter: Adapter, example: dict[str, Any]) -> None:
    supplier, _ = connect(adapter, example, answer_of(example))
    answer = await ask(supplier, example)
    assert_expected(answer.outcome, example["expect"])
    assert answer.raw == raw(example, example["answer"]["body"]) and answer.http_status == example["answer"]["status"]
    if isinstance(answer.outcome, Delivered) and supplier.capabilities.returns_cost:
        assert answer.outcome.cost is not None


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up", "cancel"))
async def test_an_unlisted_word_is_unknown(adapter: Adapter, example: dict[str, Any]) -> None:
    assert example["verdict_words"] or example["expect"]["outcome"] in ("Unknown", "Accepted"), "a verdict that rests on no word"
    for body in [body for word in example["verdict_words"] for body in rewritten(example, word)]:
        supplier, _ = connect(adapter, example, answer_of(example, body=body))
        outcome = (await ask(supplier, example)).outcome
        assert isinstance(outcome, Unknown), (body, outcome)


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up", "cancel"))
async def test_half_an_answer_and_a_wrong_status_are_unknown(adapter: Adapter, example: dict[str, Any]) -> None:
    body, same = raw(example, example["answer"]["body"]), {example["answer"]["status"], *example.get("statuses", ())}
    # a cut that leaves no more than blanks away leaves the whole answer
    broken: list[dict[str, Any]] = [{"body": body[:cut]} for cut in range(0, len(body.rstrip()), max(1, len(body) // 25))]
    broken += [{"status": status} for status in (0, 204, 302, 400, 403, 404, 500, 502, 503, 504) if status not in same]
    broken += [] if example.get("any_content_type") else [{"headers": {"content-type": "text/html"}}, {"headers": {}}]
    broken += [{"body": b"<html>502 Bad Gateway</html>"}, {"body": b"\xff\xfe"}, {"body": b"[" * 100_000}]
    broken += [{"body": text} for text in ("null", "[]", "{}", '""', "0", '{"code":"OK"}', '{"code":"OK","data":null}')]
    for change in broken:
        supplier, _ = connect(adapter, example, answer_of(example, **change))
        outcome = (await ask(supplier, example)).outcome
        assert isinstance(outcome, Unknown), (change, outcome)


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up", "cancel"))
async def test_an_answer_about_another_order_decides_nothing(adapter: Adapter, example: dict[str, Any]) -> None:
    known = example.get("reference") or example["purchase"]["reference"]
    if known not in example["answer"]["body"]:
        pytest.skip("the answer names no reference")
    supplier, _ = connect(adapter, example, answer_of(example))
    outcome = (await ask(supplier, example, reference="B" * 40)).outcome
    assert not is_definite(outcome) and not isinstance(outcome, Accepted), outcome


@settings(max_examples=200, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["code", "data", "status", "state", "errno", "result", "out_order_no", "x"]), inner, max_size=4)
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
async def test_no_text_at_all_is_taken_for_a_verdict(body: bytes) -> None:
    """Each text is read by every adapter: to make one up costs more than to read it."""
    for adapter, example in (each.values for each in one_each("place", "look_up")):
        supplier, _ = connect(adapter, example, answer_of(example, body=body))
        outcome = (await ask(supplier, example)).outcome
        # a list without our order is a not-found to vendors that answer with lists; it proves nothing unless certified
        proves_nothing = isinstance(outcome, NotFound) and not supplier.capabilities.not_found_is_final
        assert isinstance(outcome, Unknown) or proves_nothing, (adapter.name, example["call"], outcome)


@pytest.mark.parametrize(("adapter", "example"), one_each("place"))
async def test_a_purchase_is_sent_once_and_carries_our_reference(adapter: Adapter, example: dict[str, Any]) -> None:
    reference = "Z9" * 20  # 40 characters, the longest we make
    supplier, line = connect(adapter, example, answer_of(example))
    await ask(supplier, example, reference=reference)
    assert len(line.asked) == 1 + len(line.before)
    _, url, content = line.asked[-1]
    assert all(reference.encode() not in asked[2] and reference not in asked[1] for asked in line.asked[:-1])
    assert reference in url or reference.encode() in content
    secret = next(v for v in adapter.settings(**example["settings"]).__dict__.values() if isinstance(v, SecretStr))
    assert secret.get_secret_value() not in url + content.decode("latin-1")


@pytest.mark.parametrize(("adapter", "example"), examples("place", "look_up", "cancel"))
async def test_what_the_transport_says_stands(adapter: Adapter, example: dict[str, Any]) -> None:
    for verdict in (NotSent("refused"), Unknown("silence")):
        supplier, _ = connect(adapter, example, verdict)
        outcome = (await ask(supplier, example)).outcome
        if example["call"] == "place":
            assert type(outcome) is type(verdict)
        else:  # a look-up that was not sent proves nothing about the purchase
            assert isinstance(outcome, Unknown)


def read(adapter: Adapter, example: Mapping[str, Any], body: bytes, now: datetime, **change: str) -> CallbackNews | CatalogHint:
    supplier, _ = connect(adapter, {**example, "settings": {**example["settings"], **change}}, Unknown("no call"))
    assert supplier.read_callback is not None
    return supplier.read_callback(example["headers"], body, now)


@pytest.mark.parametrize(("adapter", "example"), examples("callback"))
def test_a_true_callback_is_read(adapter: Adapter, example: dict[str, Any]) -> None:
    news = read(adapter, example, raw(example, example["body"]), datetime.fromisoformat(example["now"]))
    if isinstance(news, CatalogHint):
        assert list(news.product_codes) == example["expect"]["product_codes"]
        return
    assert news.reference == example["expect"]["reference"]
    assert_expected(news.outcome, example["expect"])


@pytest.mark.parametrize(("adapter", "example"), examples("callback"))
def test_a_tampered_callback_is_refused_or_says_the_same(adapter: Adapter, example: dict[str, Any]) -> None:
    """Vendors leave parts out of their signature (empty values, for one): those may change, the news may not."""
    if example.get("unsigned_body"):
        supplier, _ = connect(adapter, example, Unknown("no call"))
        assert not supplier.capabilities.trusted_callback, "believed, although anybody on the way can rewrite it"
        return
    now = datetime.fromisoformat(example["now"])
    body = raw(example, example["body"])
    true_news = read(adapter, example, body, now)
    refused = 0
    for position in range(len(body)):
        if chr(body[position]).isalnum():
            changed = body[:position] + (b"9" if body[position] != ord("9") else b"8") + body[position + 1 :]
            try:
                assert read(adapter, example, changed, now) == true_news, position
            except CallbackRefused:
                refused += 1
    assert refused > (0 if example.get("partly_signed") else len(body) / 2)
    for broken in (b"", body[:-1], b"{}", b"[]", b"null", b"\xff", body + body):
        with pytest.raises(CallbackRefused):
            read(adapter, example, broken, now)


@pytest.mark.parametrize(("adapter", "example"), examples("callback"))
def test_a_stale_or_foreign_or_unsigned_callback_is_refused(adapter: Adapter, example: dict[str, Any]) -> None:
    now = datetime.fromisoformat(example["now"])
    body = raw(example, example["body"])
    supplier, _ = connect(adapter, example, Unknown("no call"))
    if supplier.capabilities.trusted_callback:
        for wrong in (now + timedelta(hours=1), now - timedelta(hours=1)):
            with pytest.raises(CallbackRefused):
                read(adapter, example, body, wrong)
    model = adapter.settings(**example["settings"])
    secrets = [name for name in type(model).model_fields if isinstance(getattr(model, name), SecretStr)]
    resting_on = example.get("callback_secrets", secrets)
    assert resting_on and set(resting_on) <= set(secrets), "a callback that rests on no secret"
    for name in resting_on:
        value = getattr(model, name).get_secret_value()
        other = ("0" if value[:1] != "0" else "1") + value[1:]  # of the same length, as some secrets are keys
        with pytest.raises(CallbackRefused):
            read(adapter, example, body, now, **{name: other})
    without = [(example["headers"], stripped) for stripped in _without_signature(example)]
    without += [({k: v for k, v in example["headers"].items() if k != name}, body) for name in example["headers"] if _is_signature(name)]
    assert without, "nothing in it is a signature"
    for headers, stripped in without:
        with pytest.raises(CallbackRefused):
            read(adapter, {**example, "headers": headers}, stripped, now)


def _is_signature(name: str) -> bool:
    return "sign" in name.lower() or "verify" in name.lower() or name.lower() == "authorization"


def _without_signature(example: Mapping[str, Any]) -> list[bytes]:
    """The body with each of its signatures left out, and emptied."""
    if example["body"].lstrip().startswith("{"):
        fields: dict[str, Any] = json.loads(example["body"])

        def written(values: Mapping[str, Any]) -> str:
            return json.dumps(values, ensure_ascii=False)
    else:
        fields, charset = dict(parse_qsl(example["body"], keep_blank_values=True, encoding=example.get("charset", "utf-8"))), example.get("charset")

        def written(values: Mapping[str, Any]) -> str:
            return urlencode(values, encoding=charset)

    found = [({k: v for k, v in fields.items() if k != name}, {**fields, name: ""}) for name in fields if _is_signature(name)]
    return [raw(example, written(values)) for pair in found for values in pair]


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


@named
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


# ---- what buys nothing


def lines_of(example: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    expected = example["expect"]
    return expected if isinstance(expected, list) else [expected]


def shown(line: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of a line what `wanted` names, as JSON has it."""
    values = {name: getattr(line, name) for name in wanted}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


async def read_lines(adapter: Adapter, example: Mapping[str, Any], verdict: Verdict) -> list[Any]:
    """What balance, products, product or statement say, as a list. Raises AnswerUnusable."""
    supplier, _ = connect(adapter, example, verdict)
    match example["call"]:
        case "balance":
            assert supplier.balance is not None
            return [await supplier.balance()]
        case "products":
            assert supplier.products is not None
            return [line async for page in supplier.products() for line in page]
        case "product":
            assert supplier.product is not None
            return [await supplier.product(example["product_code"])]
        case _:
            assert supplier.statement is not None
            return [line async for page in supplier.statement(datetime.fromisoformat(example["day"]).date()) for line in page]


QUESTIONS = ("balance", "products", "product", "statement")


@pytest.mark.parametrize(("adapter", "example"), examples(*QUESTIONS))
async def test_a_question_is_answered_as_the_example_says(adapter: Adapter, example: dict[str, Any]) -> None:
    found, wanted = await read_lines(adapter, example, answer_of(example)), lines_of(example)
    assert len(found) == len(wanted)
    assert [None if line is None else shown(line, want) for line, want in zip(found, wanted, strict=True)] == wanted


@pytest.mark.parametrize(("adapter", "example"), examples(*QUESTIONS))
async def test_an_answer_that_cannot_be_read_is_no_fact(adapter: Adapter, example: dict[str, Any]) -> None:
    body, same = raw(example, example["answer"]["body"]), {example["answer"]["status"], *example.get("statuses", ())}
    broken: list[dict[str, Any]] = [{"body": body[:cut]} for cut in range(0, len(body.rstrip()), max(1, len(body) // 25))]
    broken += [{"status": status} for status in (400, 401, 500, 502, 503) if status not in same]
    broken += [{"body": text} for text in (b"<html>502 Bad Gateway</html>", b"\xff\xfe", b"[" * 100_000, b"null", b'""', b"0")]
    verdicts: list[Verdict] = [answer_of(example, **change) for change in broken]
    for verdict in (*verdicts, NotSent("refused"), Unknown("silence")):
        with pytest.raises(AnswerUnusable):
            await read_lines(adapter, example, verdict)
