"""What a supplier's file would send and how it would read an answer, without sending anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, quote_plus

from kameng_api.suppliers.adapters.declared.client import DeclaredSupplier
from kameng_api.suppliers.adapters.declared.compiled import Compiled
from kameng_api.suppliers.adapters.declared.requests import Outgoing
from kameng_api.suppliers.adapters.declared.settings import DeclaredSettings, secrets_of, texts_of
from kameng_api.suppliers.adapters.declared.spelling import CHARSETS
from kameng_api.suppliers.adapters.declared.templates import CannotSay
from kameng_api.suppliers.port import Answer, AnswerUnusable, Delivered, HttpAnswer, NotSent, Purchase, Unknown

MASK: Final = "***"
CALLS: Final = ("place", "look_up", "cancel", "balance", "products", "product")


@dataclass(frozen=True, slots=True)
class Question:
    """One call with what it speaks of."""

    call: str
    purchase: Purchase | None = None
    reference: str = ""
    supplier_order_no: str | None = None
    product_code: str = ""


@dataclass
class Stage:
    """A `Send` that sends nothing: it keeps what it is given and answers what it was told."""

    answer: HttpAnswer | None = None
    sent: list[Outgoing] = field(default_factory=list)

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        self.sent.append(Outgoing(method, url, headers or {}, content))
        return self.answer if self.answer is not None and len(self.sent) == 1 else Unknown("dry run: nothing was sent")


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Every secret, also as it stands in a form, replaced by stars."""
    for secret in sorted(secrets, key=len, reverse=True):
        for spelled in {secret, quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(spelled, MASK)
    return text


def shown_request(outgoing: Outgoing, charset: str, secrets: tuple[str, ...]) -> str:
    """The request as it would go over the wire, secrets masked."""
    lines = [f"{outgoing.method} {outgoing.url}", *(f"{name}: {value}" for name, value in outgoing.headers.items()), ""]
    return masked("\n".join([*lines, outgoing.content.decode(CHARSETS[charset], "replace")]), secrets)


def shown_verdict(verdict: Any) -> str:
    """An outcome, wallet or product line in words that hold no card code."""
    if isinstance(verdict, Answer):
        return shown_verdict(verdict.outcome)
    return f"{verdict!r} with {len(verdict.codes)} codes" if isinstance(verdict, Delivered) else repr(verdict)


async def ask(supplier: DeclaredSupplier, question: Question) -> Any:
    """The call itself. Raises AnswerUnusable, ValueError for a call that the file does not describe."""
    method: Any = getattr(supplier, question.call, None) if question.call in CALLS else None
    if method is None:
        raise ValueError(f"the file describes no {question.call}")
    match question.call:
        case "place":
            assert question.purchase is not None
            return await method(question.purchase)
        case "look_up" | "cancel":
            return await method(question.reference, question.supplier_order_no)
        case "balance":
            return await method()
        case "products":
            return [line async for page in method() for line in page]
        case _:
            return await method(question.product_code)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one call would send, what its signature is made of, and what the sample answer means."""

    call: str
    request: str | None
    signed_text: str | None
    verdict: str


async def rehearse(compiled: Compiled, settings: DeclaredSettings, question: Question, answer: HttpAnswer | None = None) -> Rehearsed:
    """One call on the stage. Raises ValueError for a call that the file does not describe."""
    stage = Stage(answer)
    supplier = DeclaredSupplier(compiled, settings, stage)
    secrets = secrets_of(settings)
    try:
        verdict = shown_verdict(await ask(supplier, question))
    except AnswerUnusable as unusable:
        verdict = f"unusable: {unusable}"
    if not stage.sent:
        return Rehearsed(question.call, None, None, verdict)
    plan = compiled.requests[question.call]
    return Rehearsed(
        question.call,
        shown_request(stage.sent[0], plan.charset, secrets),
        None if plan.signer is None else masked(signed_text(compiled, settings, question), secrets),
        verdict,
    )


def signed_text(compiled: Compiled, settings: DeclaredSettings, question: Question) -> str:
    """What the signature of this call is made of, secrets and all: the moment and the nonce are others than in the request."""
    supplier = DeclaredSupplier(compiled, settings, Stage())
    purchase = question.purchase if question.call == "place" else None
    scene = supplier.scene(purchase, reference=question.reference, supplier_order_no=question.supplier_order_no or "")
    paging = {"page": "1", "page_size": "100", "cursor": "", "product_code": question.product_code}
    scene = replace(scene, values={**paging, **scene.values}, settings=texts_of(settings))
    try:
        return compiled.requests[question.call].build(scene, explain=True).signed_text
    except CannotSay as error:
        return f"cannot be said: {error}"
