"""`kameng supplier check | dry-run | record`: a file is checked, rehearsed without sending anything, and tried for real with examples kept."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from kameng_api.cli.suppliers import supplier_app
from kameng_api.cli.terminal import REFUSED, Printing, fail, show
from kameng_api.kit.http import build_client
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.kit.money import parse_amount
from kameng_api.suppliers.adapters.declared.compiled import Compiled, compile_file
from kameng_api.suppliers.adapters.declared.dry_run import CALLS, Question, rehearse
from kameng_api.suppliers.adapters.declared.examples import judge_examples
from kameng_api.suppliers.adapters.declared.recording import CannotMask, record
from kameng_api.suppliers.adapters.declared.settings import DeclaredSettings
from kameng_api.suppliers.adapters.declared.yaml_text import FileWrong, path_text
from kameng_api.suppliers.port import AnswerUnusable, HttpAnswer, Purchase
from kameng_api.suppliers.transport import Transport

__all__ = ["supplier_app"]

_FILE = Annotated[Path, typer.Argument(help="the supplier's file, NAME.yaml")]
_SETTINGS = Annotated[Path, typer.Option("--settings", help="JSON: what an operator would fill in")]
_ORDER = Annotated[Path | None, typer.Option("--order", help="JSON: product_code, product_type, units, max_cost, target, fields …")]
_REFERENCE = Annotated[str | None, typer.Option(help="of look_up and cancel")]
_NUMBER = Annotated[str | None, typer.Option("--supplier-order-no", help="of look_up and cancel")]
_PRODUCT = Annotated[str, typer.Option("--product-code", help="of product")]


@supplier_app.command("check")
def check_file(file: _FILE) -> None:
    """Say everything that is wrong with a supplier's file, with lines, and with its examples; status 2. Else show what to mind."""
    compiled = _compiled(file)
    supplier = compiled.form
    calls = [call for call in CALLS if getattr(supplier, call) is not None] + (["callback"] if supplier.callback else [])
    beside = asyncio.run(judge_examples(compiled))
    wrong = [one for one in beside if one.startswith("examples/")]
    mind = [*compiled.warnings, *(one for one in beside if one not in wrong)]
    show({"name": supplier.name, "title": supplier.title, "calls": ", ".join(calls), "mind": mind})
    if wrong:
        fail("\n".join(wrong), REFUSED)


@supplier_app.command("dry-run")
def dry_run(
    file: _FILE,
    settings: _SETTINGS,
    order: _ORDER = None,
    call: Annotated[list[str] | None, typer.Option(help=f"may be repeated: {', '.join(CALLS)}; all that can be asked if left out")] = None,
    answer: Annotated[Path | None, typer.Option(help="JSON {status, headers, body}, or an example: read as the answer of the call")] = None,
    reference: _REFERENCE = None,
    supplier_order_no: _NUMBER = None,
    product_code: _PRODUCT = "1",
) -> None:
    """Print the exact requests, secrets masked, and what a sample answer means. Nothing is sent."""
    compiled = _compiled(file)
    model = _settings(compiled, settings)
    purchase = _purchase(order)
    chosen = call or [one for one in CALLS if getattr(compiled.form, one) is not None and (one != "place" or purchase is not None)]
    sample = None if answer is None else _answer(answer)
    for one in chosen:
        question = _question(one, purchase, reference or "T0EXAMPLE00000000000000001", supplier_order_no, product_code)
        try:
            found = asyncio.run(rehearse(compiled, model, question, sample))
        except ValueError as error:
            fail(str(error), REFUSED)
        _tell({"call": found.call, "request": found.request, "signed_text": found.signed_text, "answer_means": found.verdict})


@supplier_app.command("record")
def record_example(
    file: _FILE,
    settings: _SETTINGS,
    call: Annotated[str, typer.Option(help=", ".join(CALLS))],
    name: Annotated[str, typer.Option("--as", help="of the example: a–z 0–9 _")],
    order: _ORDER = None,
    reference: _REFERENCE = None,
    supplier_order_no: _NUMBER = None,
    product_code: _PRODUCT = "1",
    buy: Annotated[bool, typer.Option("--buy", help="place and cancel change something at the vendor: this says that you mean it")] = False,
) -> None:
    """Ask the vendor, really, and keep request and answer as an example for the contract suite: secrets, targets and cards are replaced first."""
    compiled = _compiled(file)
    model = _settings(compiled, settings)
    if call not in CALLS or getattr(compiled.form, call) is None:
        fail(f"the file describes no {call}", REFUSED)
    if call in ("place", "cancel") and not buy:
        fail(f"{call} changes something at the vendor: add --buy if you mean it", REFUSED)
    if not re.fullmatch(r"[a-z0-9_]{1,60}", name):
        fail("--as: a–z 0–9 _", REFUSED)
    written = compiled.folder / "examples" / f"{name}.json"
    if written.exists():
        fail(f"{written} is there already", REFUSED)
    question = _question(call, _purchase(order), reference or "", supplier_order_no, product_code)
    try:
        example = asyncio.run(_asked(compiled, model, question))
    except (CannotMask, AnswerUnusable, ValueError) as error:
        fail(str(error), REFUSED)
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(example, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    show({"written": str(written), "expect": example["expect"]})


async def _asked(compiled: Compiled, model: DeclaredSettings, question: Question) -> dict[str, Any]:
    client = build_client(max_connections=2, connect_timeout_s=5.0, read_timeout_s=model.timeout_s, guard=False)
    try:
        return await record(compiled, model, question, Transport(client, longest_s=model.timeout_s).send)
    finally:
        await client.aclose()


# ---- what is read from files -------------------------------------------------------------------------------------------------


def _compiled(file: Path) -> Compiled:
    try:
        return compile_file(file)
    except FileWrong as wrong:
        if Printing.as_json:
            problems = [{"line": one.line, "path": path_text(one.path), "said": one.said} for one in wrong.problems]
            sys.stdout.write(json.dumps({"problems": problems}, ensure_ascii=False) + "\n")
        fail(str(wrong), REFUSED)
    except OSError as error:
        fail(f"{file}: {error.strerror}", REFUSED)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{file}: {error}", REFUSED)


def _settings(compiled: Compiled, file: Path) -> DeclaredSettings:
    try:
        return compiled.settings.model_validate(_json(file))
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            sys.stderr.write(f"{'.'.join(str(step) for step in one['loc'])}: {one['msg']}\n")
        raise typer.Exit(REFUSED) from None


def _purchase(file: Path | None) -> Purchase | None:
    """Amounts as text (`max_cost: "98.5"`) or, as in examples, whole numbers of 1/10000; what is left out is an ordinary top-up."""
    if file is None:
        return None
    given = _json(file)
    if not isinstance(given, dict):
        fail(f"{file}: not an order", REFUSED)
    values = {"reference": f"T0{ulid_text(new_ulid())}", "product_type": "topup", "units": 1, "currency": "CNY", "max_cost": "1000", **given}
    try:
        for name in ("max_cost", "face_value"):
            if isinstance(values.get(name), str):
                values[name] = parse_amount(values[name])
        return Purchase(**values)
    except (TypeError, ValueError) as error:
        fail(f"{file}: {error}", REFUSED)


def _answer(file: Path) -> HttpAnswer:
    given = _json(file)
    given = given.get("answer", given) if isinstance(given, dict) else {}
    try:
        headers = {str(name).lower(): str(value) for name, value in given["headers"].items()}
        return HttpAnswer(int(given["status"]), headers, str(given["body"]).encode())
    except (KeyError, AttributeError, TypeError, ValueError):
        fail(f"{file}: an answer has status, headers and body", REFUSED)


def _question(call: str, purchase: Purchase | None, reference: str, supplier_order_no: str | None, product_code: str) -> Question:
    if call == "place" and purchase is None:
        fail("place needs --order", REFUSED)
    if call in ("look_up", "cancel") and not reference:
        fail(f"{call} needs --reference", REFUSED)
    return Question(call, purchase, reference, supplier_order_no, product_code)


def _tell(found: dict[str, Any]) -> None:
    if Printing.as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(f"== {found['call']}\n{found['request'] or '(nothing would be sent)'}\n")
    if found["signed_text"] is not None:
        sys.stdout.write(f"-- signed text\n{found['signed_text']}\n")
    sys.stdout.write(f"-- the answer means\n{found['answer_means']}\n\n")
