"""Real requests and answers kept as examples: secrets, targets and card codes are invented anew before anything is written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from kameng_api.suppliers.adapters.declared import form
from kameng_api.suppliers.adapters.declared.cards import compile_sealer, open_text
from kameng_api.suppliers.adapters.declared.client import DeclaredSupplier
from kameng_api.suppliers.adapters.declared.compiled import Compiled
from kameng_api.suppliers.adapters.declared.dry_run import Question, Stage, ask
from kameng_api.suppliers.adapters.declared.expressions import Unreadable, compile_expression, word
from kameng_api.suppliers.adapters.declared.requests import Outgoing
from kameng_api.suppliers.adapters.declared.settings import DeclaredSettings, texts_of
from kameng_api.suppliers.adapters.declared.spelling import CHARSETS
from kameng_api.suppliers.adapters.declared.templates import Scene
from kameng_api.suppliers.port import Answer, AnswerUnusable, Delivered, HttpAnswer, NotSent, Send, SupplierProduct, Unknown, Wallet

TARGET: Final = "13800138000"
_INVENTED: Final = "0123456789abcdef"


class CannotMask(ValueError):
    """Something that must not be kept would stand in the example; nothing is written."""


@dataclass
class Recorder:
    """A `Send` between the adapter and the real one, which remembers both sides."""

    inner: Send
    heard: list[tuple[Outgoing, HttpAnswer | NotSent | Unknown]] = field(default_factory=list)

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        verdict = await self.inner(method, url, headers=headers, content=content, timeout_s=timeout_s)
        self.heard.append((Outgoing(method, url, headers or {}, content), verdict))
        return verdict


async def record(compiled: Compiled, settings: DeclaredSettings, question: Question, send: Send) -> dict[str, Any]:
    """Asks the vendor once, really, and returns the example.

    Raises CannotMask, AnswerUnusable, and ValueError for a call that the file does not describe or that got no whole answer.
    """
    recorder = Recorder(send)
    said = await ask(DeclaredSupplier(compiled, settings, recorder), question)
    if not recorder.heard or not isinstance(recorder.heard[-1][1], HttpAnswer):
        raise ValueError("no whole answer came: there is nothing to keep")
    answers = [one for _, one in recorder.heard if isinstance(one, HttpAnswer)]
    return await example_of(compiled, settings, question, answers, said)


async def example_of(compiled: Compiled, settings: DeclaredSettings, question: Question, answers: list[HttpAnswer], said: Any) -> dict[str, Any]:
    """The example of one call, masked, and read once more to see that it still says the same. Raises CannotMask."""
    mask = _Mask(compiled, settings, question, said)
    charset = compiled.answers[question.call].charset
    written = [mask.answer(answer, question.call, charset) for answer in answers]
    example: dict[str, Any] = {"call": question.call, "settings": mask.settings, **_asked(question, mask)}
    if CHARSETS[charset] != "utf-8":
        example["charset"] = CHARSETS[charset]
    if len(written) > 1:
        example["before"] = written[:-1]
    example["answer"] = written[-1]
    if question.call in ("place", "look_up", "cancel"):
        example["verdict_words"] = verdict_words(compiled, question.call, written[-1]["body"])
    model = compiled.settings(**mask.settings)
    stage = _Again([HttpAnswer(one["status"], one["headers"], one["body"].encode(CHARSETS[charset])) for one in written])
    try:
        again = await ask(DeclaredSupplier(compiled, model, stage), replace(question, purchase=mask.purchase))
    except AnswerUnusable as unusable:
        raise CannotMask(f"the masked answer cannot be read any more: {unusable}") from unusable
    if type(_core(again)) is not type(_core(said)):
        raise CannotMask("the masked answer says something else than the real one")
    example["expect"] = _expected(again)
    mask.check(json.dumps(example, ensure_ascii=False))
    return example


class _Again(Stage):
    """Answers as they were recorded, one after the other."""

    def __init__(self, answers: list[HttpAnswer]) -> None:
        super().__init__()
        self._answers = answers

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        self.sent.append(Outgoing(method, url, headers or {}, content))
        return self._answers[min(len(self.sent), len(self._answers)) - 1]


class _Mask:
    """What must not be kept, and what stands in its place."""

    def __init__(self, compiled: Compiled, settings: DeclaredSettings, question: Question, said: Any) -> None:
        self._compiled = compiled
        self._real = texts_of(settings)
        self.settings = _invented_settings(compiled, settings)
        self._cards: form.Cards | None = None
        part = getattr(compiled.form, question.call)
        if isinstance(part.answer, form.Answer):
            self._cards = part.answer.cards
        secret = [name for name in self._real if isinstance(getattr(settings, name), SecretStr)]
        self._instead = {self._real[name]: self.settings[name] for name in secret}
        self._codes: dict[str, str] = {}
        outcome = _core(said)
        if isinstance(outcome, Delivered):
            for number, code in enumerate(outcome.codes, 1):
                self._codes[code.code] = f"CARD-EXAMPLE-{number:04d}"
                if code.pin:
                    self._codes.setdefault(code.pin, f"PIN-{number:04d}")
        self.purchase = question.purchase
        self._reference = question.reference if question.purchase is None else question.purchase.reference
        if question.purchase is not None:
            target = question.purchase.target
            if target and target != TARGET:
                self._instead[target] = TARGET
            fields = {name: f"example-{name}" for name in question.purchase.fields}
            self._instead |= {value: f"example-{name}" for name, value in question.purchase.fields.items() if value}
            url = "https://hub.example.com/callbacks/x" if question.purchase.callback_url else None
            if question.purchase.callback_url:
                self._instead[question.purchase.callback_url] = "https://hub.example.com/callbacks/x"
            self.purchase = replace(question.purchase, target=TARGET if target else None, fields=fields, callback_url=url)
        for name, value in self._real.items():
            if name not in secret and name not in ("timeout_s", "base_url") and len(value) >= 4 and self.settings.get(name) != value:
                self._instead.setdefault(value, str(self.settings[name]))

    def answer(self, answer: HttpAnswer, call: str, charset: str) -> dict[str, Any]:
        body = answer.body.decode(CHARSETS[charset], "strict")
        body = self._text(self._resealed(body, answer, call))
        kept = {name: value for name, value in answer.headers.items() if name == "content-type"}
        return {"status": answer.status, "headers": kept, "body": body}

    def _text(self, text: str) -> str:
        for real in sorted(self._instead, key=len, reverse=True):
            for spelled, instead in _spellings(real, self._instead[real]):
                text = text.replace(spelled, instead)
        for real in sorted(self._codes, key=len, reverse=True):  # whole values only: a PIN may be as short as a digit
            for spelled, instead in _spellings(real, self._codes[real]):
                for before, after in (('"', '"'), (">", "<")):
                    text = text.replace(f"{before}{spelled}{after}", f"{before}{instead}{after}")
        return text

    def _resealed(self, body: str, answer: HttpAnswer, call: str) -> str:
        """Encrypted cards are opened, their codes replaced, and sealed again with the invented key."""
        if self._cards is None or self._cards.cipher == "none" or not self._codes:
            return body
        names = frozenset(self._real)
        sealer = compile_sealer(self._cards, names)
        assert sealer is not None
        now = datetime.now(UTC)
        real, invented = Scene(now, "", self._real), Scene(now, "", {name: str(value) for name, value in self.settings.items()})
        reader = self._compiled.answers[call]
        try:
            order = reader.order.find(reader.parse(answer), self._reference)
            sealed = _sealed_texts(self._cards, order)
        except Unreadable as error:
            raise CannotMask("the cards in the answer cannot be found") from error
        for text in sealed:
            plain = open_text(self._cards, names, text, real)
            for code, instead in self._codes.items():
                plain = plain.replace(code, instead)
            for spelled in (text, text.replace("/", "\\/"), json.dumps(text)[1:-1]):
                body = body.replace(spelled, sealer(plain, invented))
        return body

    def check(self, example: str) -> None:
        """Raises CannotMask when anything that was to be replaced still stands there."""
        for real, instead in {**self._instead, **self._codes}.items():
            if real != instead and len(real) >= 4 and any(spelled in example for spelled, _ in _spellings(real, instead)):
                raise CannotMask("a secret, a target or a card would still stand in the example")


def _spellings(real: str, instead: str) -> list[tuple[str, str]]:
    """The value as it may stand in an answer: plain, in a form, in JSON with and without escapes."""
    pairs = [(real, instead), (quote_plus(real), quote_plus(instead)), (quote(real, safe=""), quote(instead, safe=""))]
    pairs += [(json.dumps(real)[1:-1], json.dumps(instead)[1:-1]), (real.replace("/", "\\/"), instead.replace("/", "\\/"))]
    return list(dict.fromkeys(pairs))


def _invented_settings(compiled: Compiled, settings: DeclaredSettings) -> dict[str, Any]:
    """The settings of the example: secrets of the same length, for some are keys."""
    found: dict[str, Any] = {"base_url": f"https://{compiled.form.name}.example.com"}
    for name, setting in compiled.form.settings.items():
        value = getattr(settings, name)
        if value is None:
            continue
        if setting.secret:
            length = len(value.get_secret_value())
            found[name] = (_INVENTED * (length // len(_INVENTED) + 1))[:length]
        else:
            found[name] = str(value) if setting.default is not None and str(value) == setting.default else f"example-{name}"
    return found


def _asked(question: Question, mask: _Mask) -> dict[str, Any]:
    match question.call:
        case "place":
            assert mask.purchase is not None
            purchase = mask.purchase
            names = ("reference", "product_code", "product_type", "units", "currency", "max_cost", "target", "face_value", "callback_url")
            return {"purchase": {name: getattr(purchase, name) for name in names} | {"fields": dict(purchase.fields)}}
        case "look_up" | "cancel":
            number = {"supplier_order_no": question.supplier_order_no} if question.supplier_order_no else {}
            return {"reference": question.reference, **number}
        case "product":
            return {"product_code": question.product_code}
        case _:
            return {}


def _sealed_texts(cards: form.Cards, order: Any) -> list[str]:
    found = compile_expression(cards.at)(order)
    if isinstance(found, str):
        return [found]
    picks = [compile_expression(text) for text in (cards.code, cards.pin) if text is not None]
    return [text for card in found or [] for pick in picks if (text := word(pick(card)))]


def _core(said: Any) -> Any:
    return said.outcome if isinstance(said, Answer) else said


def _expected(said: Any) -> Any:
    """What the contract suite compares: the outcome with what it says, a wallet, or lines."""
    outcome = _core(said)
    if isinstance(outcome, Wallet):
        return {"balance": outcome.balance, "currency": outcome.currency}
    if outcome is None or isinstance(outcome, SupplierProduct):
        return _line(outcome)
    if isinstance(outcome, list):
        return [_line(line) for line in outcome]
    names = {
        "Delivered": ("units", "cost", "supplier_order_no", "receipt"),
        "Accepted": ("supplier_order_no",),
        "Refused": ("scope", "reason"),
        "Reversed": ("external_id", "amount"),
    }.get(type(outcome).__name__, ())
    expected: dict[str, Any] = {"outcome": type(outcome).__name__, **{name: getattr(outcome, name) for name in names}}
    if isinstance(outcome, Delivered):
        expected["codes"] = len(outcome.codes)
    return expected


def _line(line: SupplierProduct | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {name: getattr(line, name) for name in ("product_code", "name", "product_type", "cost", "currency", "stock", "available")}


def verdict_words(compiled: Compiled, call: str, body: str) -> list[Any]:
    """The fragments of the body that carry the verdict, as far as they can be found: the code and the state under their names."""
    answer: form.Answer = getattr(compiled.form, call).answer
    found: list[Any] = []
    for expression, table in ((answer.code, answer.codes), (answer.state, answer.states)):
        name = re.split(r"[.|\s]", expression)[-1] if expression else ""
        for code in sorted(table, key=len, reverse=True):
            match = name and re.search(rf'"{re.escape(name)}"\s*:\s*"?{re.escape(code)}"?(?=\s*[,}}\]])', body)
            if match:
                head = match[0][: match[0].index(":") + 1]
                found.append({"text": match[0], "others": [f'{head}"NEVER_LISTED_9"', f"{head}-987654", f'{head}""']})
                break
            if name and f"<{name}>{code}</{name}>" in body:
                found.append({"text": f"<{name}>{code}</{name}>", "others": [f"<{name}>NEVER_LISTED_9</{name}>", f"<{name}></{name}>"]})
                break
    return found

