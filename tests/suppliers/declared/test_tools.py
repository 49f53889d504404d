"""`kameng supplier check | dry-run | record`: loud, without sending, and with nothing kept that must not be kept."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.suppliers.declared.test_supplier import CARDS, KEY, SHOP, order, sealed
from typer.testing import CliRunner

from kameng_api.cli.app import app
from kameng_api.suppliers.adapters.declared.client import DeclaredSupplier
from kameng_api.suppliers.adapters.declared.compiled import compile_file
from kameng_api.suppliers.adapters.declared.dry_run import Question, Stage, rehearse
from kameng_api.suppliers.adapters.declared.loading import SHIPPED
from kameng_api.suppliers.adapters.declared.recording import CannotMask, example_of
from kameng_api.suppliers.port import Delivered, HttpAnswer, Purchase

SETTINGS = {"base_url": "https://shop.example.com", "app": "app-of-ours", "key": KEY}
ORDER = {"product_code": "p-1", "max_cost": "19.99", "units": 2, "target": "10000000009", "reference": "T1"}
JSON = {"content-type": "application/json", "set-cookie": "a=b"}
PURCHASE = Purchase("T1", "p-1", "card", 2, "CNY", 199_900, target="10000000009", callback_url="https://hub.ours.example/callbacks/secret-token")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["supplier", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_bytes(SHOP.read_bytes())
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    return tmp_path


def test_check_shows_what_is_well_and_every_line_that_is_not(files: Path) -> None:
    status, said = run("check", str(files / "shop.yaml"))
    assert status == 0 and "商店" in said and "place, look_up, cancel" in said and "shop/README.md is missing" in said
    wrong = SHOP.read_text(encoding="utf-8").replace("max_cost:fen", "max_cost:francs").replace('"40": not_found', '"*": not_found')
    (files / "shop.yaml").write_text(wrong, encoding="utf-8")
    status, said = run("check", str(files / "shop.yaml"))
    assert status == 2
    assert "line 24: place.fields.max: no amount format 'francs'" in said
    assert "look_up.answer.codes.*: a table lists codes one by one" in said
    assert run("check", str(files / "nothing.yaml"))[0] == 2


@pytest.mark.parametrize("name", ["mishi", "chengquan", "youka"])
def test_check_reads_the_examples_of_the_shipped_files(name: str, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / name, tmp_path / name)
    shutil.copy(SHIPPED / f"{name}.yaml", tmp_path)
    status, said = run("check", str(tmp_path / f"{name}.yaml"))
    assert status == 0 and "not verified: " in said and "missing" not in said
    example = tmp_path / name / "examples" / "look_up_delivered.json"
    example.write_text(example.read_text(encoding="utf-8").replace('"Delivered"', '"Refused"'), encoding="utf-8")
    status, said = run("check", str(tmp_path / f"{name}.yaml"))
    assert status == 2 and "examples/look_up_delivered.json: says Refused and means Delivered" in said


def test_a_dry_run_prints_the_exact_request_and_masks_the_secret(files: Path) -> None:
    answer = files / "answer.json"
    answer.write_text(json.dumps({"status": 200, "headers": JSON, "body": json.dumps(order("done"))}))
    options = ["--settings", str(files / "settings.json"), "--order", str(files / "order.json")]
    status, said = run("dry-run", str(files / "shop.yaml"), *options, "--call", "place", "--answer", str(answer))
    assert status == 0, said
    assert "POST https://shop.example.com/orders/p-1" in said
    assert '{"app":"app-of-ours","no":"T1","n":2,"max":1999,"account":"10000000009"}' in said
    assert "-- signed text\nPOST /orders/p-1 " in said
    assert "Delivered(units=2" in said
    assert KEY not in said
    status, said = run("dry-run", str(files / "shop.yaml"), *options)
    assert status == 0 and {line for line in said.splitlines() if line.startswith("==")} == {
        "== place", "== look_up", "== cancel", "== balance", "== products", "== product"
    }  # fmt: skip
    assert KEY not in said and "dry run: nothing was sent" in said
    status, said = run("dry-run", str(SHIPPED / "mishi.yaml"), "--settings", str(_mishi(files)), "--call", "look_up", "--reference", "T7")
    assert status == 0 and "-- signed text\nszAgentId=10086&szOrderId=T7&szKey=***" in said


def _mishi(files: Path) -> Path:
    (files / "mishi.json").write_text(json.dumps({"base_url": "https://a.example.com", "agent_id": "10086", "key": "12345678"}))
    return files / "mishi.json"


async def test_a_secret_in_the_signed_text_is_masked() -> None:
    file = Path(compile_file.__code__.co_filename).parent / "files" / "youka.yaml"
    compiled = compile_file(file)
    model = compiled.settings.model_validate({"base_url": "https://a.example.com", "user_id": "12098", "key": "k+/= 12345678"})
    found = await rehearse(compiled, model, Question("balance"))
    assert found.signed_text == "userid=12098***" and "12345678" not in (found.request or "")


def test_wrong_settings_and_orders_are_said(files: Path) -> None:
    (files / "settings.json").write_text(json.dumps({**SETTINGS, "key": "short", "other": 1}))
    status, said = run("dry-run", str(files / "shop.yaml"), "--settings", str(files / "settings.json"))
    assert status == 2 and "key: " in said and "other: " in said and "short" not in said
    (files / "settings.json").write_text(json.dumps(SETTINGS))
    (files / "order.json").write_text('{"max_cost": "cheap"}')
    options = ["--settings", str(files / "settings.json"), "--order", str(files / "order.json")]
    assert run("dry-run", str(files / "shop.yaml"), *options)[0] == 2


# ---- the recorder


async def recorded(answer: dict[str, Any], call: str = "look_up", purchase: Purchase | None = None) -> dict[str, Any]:
    compiled = compile_file(SHOP)
    model = compiled.settings.model_validate(SETTINGS)
    http = HttpAnswer(200, JSON, json.dumps(answer, ensure_ascii=False).encode())
    supplier = DeclaredSupplier(compiled, model, Stage(http))
    if purchase is not None:
        said: Any = await supplier.place(purchase)
    else:
        assert supplier.look_up is not None
        said = await supplier.look_up("T1")
    return await example_of(compiled, model, Question(call, purchase, "T1"), [http], said)


async def test_an_example_holds_no_secret_no_target_and_no_card() -> None:
    answer = order("done", cards=sealed(CARDS), account=PURCHASE.target, key=KEY, app="app-of-ours", url=PURCHASE.callback_url)
    example = await recorded(answer, "place", PURCHASE)
    text = json.dumps(example, ensure_ascii=False)
    for hidden in (KEY, "10000000009", "secret-token", "app-of-ours", sealed(CARDS).split("\n", maxsplit=1)[0], "set-cookie"):
        assert hidden not in text, hidden
    assert example["purchase"]["target"] == "13800138000" and example["expect"]["outcome"] == "Delivered" and example["expect"]["codes"] == 2


async def test_an_example_is_one_that_the_contract_suite_can_judge() -> None:
    example = await recorded(order("done", cards=sealed(CARDS)))
    compiled = compile_file(SHOP)
    answer = example["answer"]
    supplier = DeclaredSupplier(
        compiled, compiled.settings(**example["settings"]), Stage(HttpAnswer(answer["status"], answer["headers"], answer["body"].encode()))
    )
    assert supplier.look_up is not None
    outcome = (await supplier.look_up(example["reference"])).outcome
    assert isinstance(outcome, Delivered) and [code.code for code in outcome.codes] == ["CARD-EXAMPLE-0001", "CARD-EXAMPLE-0002"]
    assert [word["text"] for word in example["verdict_words"]] == ['"code": 0', '"state": "done"']
    assert example["expect"] == {"outcome": "Delivered", "units": 2, "cost": 195_000, "supplier_order_no": "V9", "receipt": None, "codes": 2}


async def test_what_cannot_be_masked_is_not_kept() -> None:
    short = [{"cardNo": "T1", "cardPwd": "x"}, {"cardNo": "T1b"}]  # a code that is also our number: replacing it would change the verdict
    with pytest.raises(CannotMask):
        await recorded(order("done", cards=sealed(short)))


@pytest.fixture
async def vendor() -> AsyncIterator[str]:
    async def answers(request: web.Request) -> web.Response:
        return web.json_response(order("done") if request.method == "GET" else {"code": 0, "money": 500})

    site_app = web.Application()
    site_app.router.add_route("*", "/{path:.*}", answers)
    runner = web.AppRunner(site_app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_record_asks_for_real_and_never_buys_unasked(files: Path, vendor: str) -> None:
    (files / "settings.json").write_text(json.dumps({**SETTINGS, "base_url": vendor}))
    options = [str(files / "shop.yaml"), "--settings", str(files / "settings.json")]
    status, said = await asyncio.to_thread(run, "record", *options, "--call", "place", "--order", str(files / "order.json"), "--as", "x")
    assert status == 2 and "--buy" in said
    for call, more in (("look_up", ["--reference", "T1"]), ("balance", [])):
        status, said = await asyncio.to_thread(run, "record", *options, "--call", call, "--as", call, *more)
        assert status == 0, said
        example = json.loads((files / "shop" / "examples" / f"{call}.json").read_text())
        assert example["call"] == call and example["settings"]["base_url"] == "https://shop.example.com"
    status, said = await asyncio.to_thread(run, "record", *options, "--call", "balance", "--as", "balance")
    assert status == 2 and "is there already" in said
