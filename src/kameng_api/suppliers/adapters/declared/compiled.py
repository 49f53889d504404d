"""A supplier's file, read, checked as a whole and made ready to be called: what is wrong is found here, not at the first order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from kameng_api.suppliers.adapters.declared import form
from kameng_api.suppliers.adapters.declared.expressions import Pick, compile_expression
from kameng_api.suppliers.adapters.declared.requests import RequestPlan, plan_request
from kameng_api.suppliers.adapters.declared.settings import ALWAYS, DeclaredSettings, build_settings
from kameng_api.suppliers.adapters.declared.signing import Signer, compile_signature
from kameng_api.suppliers.adapters.declared.templates import ALWAYS as ALWAYS_SAID
from kameng_api.suppliers.adapters.declared.templates import compile_time_reader
from kameng_api.suppliers.adapters.declared.verdicts import AnswerReader, OrderReader
from kameng_api.suppliers.adapters.declared.yaml_text import FileWrong, Problem, Text, read_text
from kameng_api.suppliers.port import Capabilities

_T = TypeVar("_T")
_MEANT: Final[Mapping[str, frozenset[str]]] = {
    "place": frozenset({"delivered", "partial", "accepted", "refused", "busy", "unknown", "contact_staff", "by_refund", "state"}),
    "look_up": frozenset({"delivered", "partial", "accepted", "refused", "not_found", "unknown", "contact_staff", "reversed", "by_refund", "state"}),
    "cancel": frozenset({"accepted", "refused", "unknown", "contact_staff", "state"}),
    "callback": frozenset({"delivered", "partial", "accepted", "refused", "unknown", "contact_staff", "reversed", "by_refund"}),
    "balance": frozenset({"ok", "unknown"}),
    "products": frozenset({"ok", "unknown"}),
    "product": frozenset({"ok", "not_found", "unknown"}),
}
"""What a code of each call may mean."""


@dataclass(frozen=True, slots=True)
class CallbackPlan:
    """How callbacks are verified and read."""

    form: form.Callback
    signer: Signer
    reader: OrderReader
    reference: Pick
    sent_at: Callable[[str], Any] | None
    product_codes: Pick | None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A supplier's file, ready. `folder` holds its README and its examples."""

    form: form.SupplierFile
    file: Path
    settings: type[DeclaredSettings]
    capabilities: Capabilities
    requests: Mapping[str, RequestPlan]
    answers: Mapping[str, AnswerReader]
    callback: CallbackPlan | None
    warnings: tuple[str, ...] = field(default=())

    @property
    def folder(self) -> Path:
        return self.file.with_suffix("")


class _Checker:
    """Collects what is wrong, each with its line."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self.problems: list[Problem] = []

    def attempt(self, path: tuple[str | int, ...], compile_it: Callable[[], _T]) -> _T | None:
        try:
            return compile_it()
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def wrong(self, path: tuple[str | int, ...], said: str) -> None:
        if any(known.said == said and known.path[: len(path)] == path for known in self.problems):
            return  # said already, of this part or of one inside it
        self.problems.append(Problem(self._text.line_of(path), path, said))


def compile_file(file: Path) -> Compiled:
    """Reads, checks and compiles one file. Raises FileWrong with every problem that was found; OSError where there is no such file."""
    return compile_text(file.read_bytes(), file)


def compile_text(content: bytes, file: Path) -> Compiled:
    """The same for bytes that are already here; `file` names them. Raises FileWrong."""
    text = read_text(content, file.name)
    try:
        supplier = form.SupplierFile.model_validate(text.content)
    except ValidationError as error:
        raise FileWrong(file.name, _problems(error, text)) from None
    check = _Checker(text)
    settings = frozenset(supplier.settings) | ALWAYS
    requests, answers = _calls(supplier, settings, check)
    callback = None if supplier.callback is None else _callback(supplier.callback, supplier, settings, check)
    _whole(supplier, file, check)
    if check.problems:
        raise FileWrong(file.name, sorted(check.problems, key=lambda problem: problem.line))
    return Compiled(
        form=supplier,
        file=file,
        settings=build_settings(supplier),
        capabilities=_capabilities(supplier),
        requests=requests,
        answers=answers,
        callback=callback,
        warnings=tuple(_warnings(supplier)),
    )


def _problems(error: ValidationError, text: Text) -> list[Problem]:
    found: list[Problem] = []
    for one in error.errors(include_url=False, include_context=False):
        path: tuple[str | int, ...] = ()
        for step in one["loc"]:
            if (*path, step) in text.lines:  # pydantic's own steps, such as the branch of a union, stand nowhere in the file
                path = (*path, step)
        missing = one["loc"][-1] if one["type"] in ("missing", "extra_forbidden") and one["loc"] and one["loc"][-1] not in path else None
        said = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            said = "no such word here"
        problem = Problem(text.line_of(path), path if missing is None else (*path, missing), "is missing" if one["type"] == "missing" else said)
        if problem not in found:
            found.append(problem)
    return sorted(found, key=lambda problem: problem.line)


def _calls(supplier: form.SupplierFile, settings: frozenset[str], check: _Checker) -> tuple[dict[str, RequestPlan], dict[str, AnswerReader]]:
    requests: dict[str, RequestPlan] = {}
    answers: dict[str, AnswerReader] = {}
    for call in ("place", "look_up", "cancel", "balance", "products", "product"):
        request = getattr(supplier, call)
        if request is None:
            continue
        answer: form.Answer = request.answer
        requests[call] = plan_request(call, request, answer.kind, supplier.common, settings, check.attempt)
        where = (call, "answer")
        _expressions(answer, where, check)
        reader = check.attempt(where, partial(AnswerReader, answer, settings))
        if reader is not None:
            answers[call] = reader
        _rows(call, answer, where, check)
    return requests, answers


def _expressions(reading: Any, where: tuple[str | int, ...], check: _Checker) -> None:
    """Every expression of an answer, so that each wrong one has its own line."""
    for name, value in reading:
        if isinstance(value, form.Strict):
            _expressions(value, (*where, name), check)
        elif isinstance(value, dict):
            for key, row in value.items():
                if isinstance(row, form.Strict):
                    _expressions(row, (*where, name, key), check)
        elif isinstance(value, str) and name in _EXPRESSIONS:
            check.attempt((*where, name), partial(compile_expression, value))


_EXPRESSIONS: Final = frozenset(
    {
        "order", "reference", "state", "units", "asked", "receipt", "order_no", "code", "at", "pin", "expires_on", "returned",
        "charged", "id", "rows", "type_at", "stock", "available", "next",
    }
)  # fmt: skip
"""Names of the file whose text is an expression."""


def _rows(call: str, reading: form.Reading, where: tuple[str | int, ...], check: _Checker) -> None:
    """A code may mean only what its call can mean, a state only what becomes of an order."""
    codes = reading.codes if isinstance(reading, form.Answer) else {}
    for table, rows in (("codes", codes), ("states", reading.states)):
        for code, row in rows.items():
            place = (*where, table, code)
            if code.strip().lower() in form.TOO_WIDE or "*" in code:
                check.wrong(place, "a table lists codes one by one: every code that is not listed is Unknown, and no row can say otherwise")
            for part in (row, *(one for one in (row.none, row.part, row.whole) if one is not None)):
                if part.verdict not in _MEANT[call] or (table == "states" and part.verdict in ("state", "busy", "ok")):
                    check.wrong(place, f"{part.verdict!r} is nothing that {'a state' if table == 'states' else 'a code'} of {call} can mean")
            if row.verdict == "busy" and row.status == [200] and call == "place":
                check.wrong(place, "`busy` promises that the request was not read: name the HTTP status of the vendor's documented limit")
            if row.status != [200] and table == "states":
                check.wrong(place, "a state has no HTTP status")
    verdicts = {part.verdict for row in (*codes.values(), *reading.states.values()) for part in (row, row.none, row.part, row.whole) if part}
    if "state" in verdicts and reading.state is None:
        check.wrong(where, "a code points to the state, and no `state` is read")
    if verdicts & {"delivered", "partial"} and (reading.units is not None) == reading.one_unit:
        check.wrong(where, "where something can be delivered, `units` are read, or it is `one_unit: true`")


def _callback(given: form.Callback, supplier: form.SupplierFile, settings: frozenset[str], check: _Checker) -> CallbackPlan | None:
    where = ("callback",)
    _expressions(given, where, check)
    _rows("callback", given, where, check)
    allowed = (ALWAYS_SAID - {"now", "nonce"}) | {"received", "header"}
    signer = check.attempt(("callback", "signature"), lambda: compile_signature(given.signature, allowed, settings))
    reader = check.attempt(where, lambda: OrderReader(given, settings))
    if given.reference is None or given.state is None:
        check.wrong(where, "a callback names a reference and a state")
        return None
    reference = check.attempt(("callback", "reference"), partial(compile_expression, given.reference))
    sent_at = None
    if given.time is not None:
        spelled = given.time.spelled
        sent_at = check.attempt(("callback", "time", "spelled"), lambda: compile_time_reader(spelled))
    codes = None
    if given.product_codes is not None:
        codes = check.attempt(("callback", "product_codes"), partial(compile_expression, given.product_codes))
    if signer is None or reader is None or reference is None:
        return None
    _worth(given, supplier, signer, check)
    return CallbackPlan(given, signer, reader, reference, sent_at, codes)


def _worth(given: form.Callback, supplier: form.SupplierFile, signer: Signer, check: _Checker) -> None:
    """Whether the callback's signature can carry what is made of it."""
    texts = [*(part.text or "" for part in given.signature.text), given.signature.key or ""]
    if not any(f"{{settings.{name}}}" in text for name, one in supplier.settings.items() if one.secret for text in texts):
        check.wrong(("callback", "signature"), "no secret of the settings is in it: anybody could make it")
    for name in ("reference", "state"):
        top = str(getattr(given, name)).partition(".")[0].partition("[")[0].strip('"')
        if not signer.covers(top):
            check.wrong(("callback", name), "is not in the signed text: nothing outside of it is read")
    if given.trusted and not signer.unambiguous:
        check.wrong(("callback", "trusted"), "other fields can have the same signed text: this callback can only be a hint")
    if given.trusted and given.time is None:
        check.wrong(("callback", "trusted"), "without a time in it an old callback can be sent again: this callback can only be a hint")


def _whole(supplier: form.SupplierFile, file: Path, check: _Checker) -> None:
    """What no single part can know."""
    if file.stem != supplier.name:
        check.wrong(("name",), f"the file is called {file.stem!r}")
    for name in supplier.settings:
        if name in ALWAYS:
            check.wrong(("settings", name), "every supplier has it already")
    if not any(setting.secret for setting in supplier.settings.values()):
        check.wrong(("settings",), "no setting is secret")
    if supplier.limits.max_units > 1:
        for call in ("place", "look_up", "callback"):
            part = getattr(supplier, call)
            reading = part if part is None or call == "callback" else part.answer
            if reading is not None and reading.one_unit:
                check.wrong((call,), "`one_unit` is for `limits.max_units: 1`")
    _promised(supplier, check)
    used = _texts(supplier)
    if not any("{reference}" in text for text in used["place"]):
        check.wrong(("place",), "our reference is not sent: nobody could find the order again")
    if supplier.look_up is not None and not any("{reference}" in text or "{supplier_order_no" in text for text in used["look_up"]):
        check.wrong(("look_up",), "neither our reference nor the vendor's number is sent")


def _promised(supplier: form.SupplierFile, check: _Checker) -> None:
    promises = supplier.promises
    if supplier.look_up is None and promises.not_found_is_final:
        check.wrong(("promises", "not_found_is_final"), "it cannot be asked")
    if promises.idempotent_resubmit and not promises.idempotent_submit:
        check.wrong(("promises", "idempotent_resubmit"), "is the stronger promise of the two")
    if promises.callback_batch_s and supplier.callback is None:
        check.wrong(("promises", "callback_batch_s"), "it does not call back")
    if promises.returns_cost and (supplier.place.answer.cost is None and (supplier.look_up is None or supplier.look_up.answer.cost is None)):
        check.wrong(("promises", "returns_cost"), "no cost is read")


def _texts(supplier: form.SupplierFile) -> dict[str, list[str]]:
    """All templates of each call, however deep."""

    def inside(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return [text for part in parts for text in inside(part)]

    found: dict[str, list[str]] = {}
    for call in ("place", "look_up", "cancel"):
        request: form.Request | None = getattr(supplier, call)
        if request is not None:
            found[call] = [*inside(supplier.common.fields), *inside(request.fields), *inside(request.headers), request.path]
    return found


def _warnings(supplier: form.SupplierFile) -> list[str]:
    found = [f"not verified: {one}" for one in supplier.not_verified]
    if supplier.look_up is None:
        found.append("it cannot be asked what became of an order: the README must say how to ask a human")
    for call in ("place", "look_up"):
        part = getattr(supplier, call)
        if part is not None and part.answer.reference is None:
            found.append(f"{call}: the answer is not compared with our reference")
    if supplier.callback is not None and supplier.callback.time is None:
        found.append("callback: without a time in it, an old one can be sent again; it is only a hint")
    return found


def _capabilities(supplier: form.SupplierFile) -> Capabilities:
    promises, callback = supplier.promises, supplier.callback
    return Capabilities(
        idempotent_submit=promises.idempotent_submit,
        idempotent_resubmit=promises.idempotent_resubmit,
        query_by_reference=supplier.look_up is not None,
        not_found_is_final=promises.not_found_is_final,
        not_found_grace_s=promises.not_found_grace_s,
        min_query_interval_s=float(promises.min_query_interval_s),
        cancel=supplier.cancel is not None,
        callback=callback is not None,
        callback_batch_s=float(promises.callback_batch_s),
        returns_cost=promises.returns_cost,
        price_version=promises.price_version,
        trusted_callback=callback is not None and callback.trusted,
    )
