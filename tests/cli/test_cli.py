"""The command line as people type it, against a real database."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.factories.merchants import keyring_of

from kameng_api.catalog import queries as catalog
from kameng_api.catalog import rules
from kameng_api.cli import app as cli
from kameng_api.kit.db import Database, fetch
from kameng_api.ledger import queries as ledger
from kameng_api.settings import Settings

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef-very-secret"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self
        return json.loads(self.out)


class Kameng:
    """`await kameng("merchant", "list")` with `--json`: in this process, since a new one costs a second; see `in_a_process`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    async def __call__(self, *arguments: str, stdin: str = "", plain: bool = False, **more: str) -> Ended:
        return await asyncio.to_thread(self._run, [*arguments, *([] if plain else ["--json"])], stdin, more)

    def _run(self, arguments: Sequence[str], stdin: str, more: Mapping[str, str]) -> Ended:
        out, err, status = StringIO(), StringIO(), 0
        with (
            mock.patch.dict(os.environ, self.environment | more, clear=True),
            mock.patch.object(sys, "stdin", StringIO(stdin)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                cli.main(arguments)
            except SystemExit as ended:
                status = int(ended.code or 0)
        return Ended(status, out.getvalue(), err.getvalue())

    async def in_a_process(self, *arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kameng_api.cli", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self.environment, cwd=ROOT,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
def kameng(database: Database, settings: Settings, tmp_path: Path) -> Kameng:
    assert settings.database_url is not None
    assert settings.database_owner_url is not None
    assert settings.redis_url is not None
    return Kameng(
        {name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")}
        | {
            "KAMENG_DATABASE_URL": settings.database_url.get_secret_value(),
            "KAMENG_DATABASE_OWNER_URL": settings.database_owner_url.get_secret_value(),
            "KAMENG_REDIS_URL": settings.redis_url.get_secret_value(),
            "KAMENG_VAR": str(tmp_path),
        }
    )


async def test_a_shop_is_set_up_by_hand(kameng: Kameng, database: Database, settings: Settings) -> None:
    shop = (await kameng("merchant", "create", "shop")).json
    assert shop["id"].startswith("mer_")
    key = (await kameng("key", "create", "shop", "-e", "test")).json
    assert key["secret"].startswith("sk_test_")
    [listed] = (await kameng("key", "list", shop["id"])).json["items"]
    assert listed["key_id"] == key["key_id"]
    assert "secret" not in listed

    product = ("product", "set", "mobile-cn-100", "话费 100", "--type", "topup", "--face-value", "100")
    assert (await kameng(*product, "--target-kind", "mobile")).json["face_value"] == "100.0000"
    refused = await kameng(*product)
    assert (refused.status, refused.out) == (2, "")
    assert "/target_kind" in refused.err
    await kameng("price", "set", "mobile-cn-100", "--unit-price", "98.5")
    own = (await kameng("price", "set", "mobile-cn-100", "--unit-price", "97", "--merchant", "shop")).json["items"]
    assert [p["merchant_id"] for p in own] == [None, shop["id"]]
    connection = json.dumps({"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": SECRET})
    channel = ("channel", "set", "sim-a", "Simulator A", "--adapter", "simulator", "-e", "test", "--settings", "-")
    made = await kameng(*channel, stdin=connection)
    assert "/callbacks/" in made.json["callback_url"]
    await kameng("offer", "set", "sim-a", "mobile-cn-100", "--code", "hf-100", "--rate", "0.975")
    async with database.transaction() as tx:
        snapshot = await catalog.load_snapshot(tx)
    assert rules.cheapest_cost(snapshot, "mobile-cn-100", "test", None) == 975_000
    assert SECRET.encode() in rules.open_settings(keyring_of(settings), snapshot.channels["sim-a"])
    assert SECRET not in (await kameng("channel", "list")).out
    assert (await kameng("channel", "disable", "sim-a")).json["status"] == "disabled"
    assert (await kameng("merchant", "suspend", "shop")).json["status"] == "suspended"


async def test_barcodes_are_set_as_a_whole(kameng: Kameng, database: Database) -> None:
    for sku in ("mobile-cn-100", "mobile-cn-50"):
        await kameng("product", "set", sku, "话费", "--type", "topup", "--face-value", "100", "--target-kind", "mobile")
    both = (await kameng("product", "barcodes", "mobile-cn-100", "4006381333931", "KM-SHELF-7")).json["items"]
    assert both == [{"barcode": "4006381333931"}, {"barcode": "KM-SHELF-7"}]
    taken = await kameng("product", "barcodes", "mobile-cn-50", "KM-SHELF-7")
    assert (taken.status, taken.out) == (2, "")
    assert taken.err.startswith("state_conflict: ")
    twice = await kameng("product", "barcodes", "mobile-cn-50", "4006381333931", "04006381333931")
    assert (twice.status, "/barcodes/1" in twice.err) == (2, True)
    assert (await kameng("product", "barcodes", "mobile-cn-100")).json["items"] == []
    assert (await kameng("product", "barcodes", "mobile-cn-50", "KM-SHELF-7")).json["items"] == [{"barcode": "KM-SHELF-7"}]
    async with database.transaction() as tx:
        trail = await fetch(tx, "SELECT subject FROM audit_entries WHERE action = 'product.barcodes_set' ORDER BY entry_id")
    assert [row["subject"] for row in trail] == ["mobile-cn-100", "mobile-cn-100", "mobile-cn-50"]


async def test_money_moves_once_and_large_sums_need_another_person(kameng: Kameng, database: Database) -> None:
    await kameng("merchant", "create", "shop")
    fund = ("fund", "shop", "500", "--external-id", "T-1")
    assert (await kameng(*fund)).json["replayed"] is False
    assert (await kameng(*fund)).json["replayed"] is True
    other = await kameng("fund", "shop", "501", "--external-id", "T-1")
    assert (other.status, other.out) == (2, "")
    assert other.err.startswith("state_conflict: ")
    await kameng("adjust", "shop", "-5.5", "--ticket", "A-1", "--note", "counted again")
    assert (await kameng("merchant", "show", "shop")).json["live"]["available"] == "494.5000"

    asked = (await kameng("fund", "shop", "10000.0001", "--external-id", "T-2")).json
    assert asked["state"] == "waiting"
    approve = ("approval", "approve", asked["approval"]["id"])
    assert (await kameng(*approve)).status == 2, "the same login may not agree with itself"
    gao = (await kameng("operator", "create", "gao", "--role", "finance")).json
    decided = (await kameng(*approve, KAMENG_OPERATOR_TOKEN=gao["token"])).json
    assert (decided["state"], decided["decided_by"]) == ("approved", "gao")
    assert (await kameng("ledger", "verify")).json == {"holds": True, "breaches": []}
    async with database.transaction() as tx:
        assert (await ledger.house_sums(tx, "live"))[("psp_clearing:bank", "CNY")] == -105_000_001
        actors = {r["actor"] for r in await fetch(tx, "SELECT DISTINCT actor FROM audit_entries")}
    assert any(actor.startswith("cli:") for actor in actors)
    assert "gao" in actors


async def test_an_operators_token_keeps_its_role(kameng: Kameng) -> None:
    viewer = (await kameng("operator", "create", "vi", "--role", "viewer")).json
    refused = await kameng("merchant", "create", "shop", KAMENG_OPERATOR_TOKEN=viewer["token"])
    assert refused.status == 2
    assert refused.err.startswith("role_missing")
    assert (await kameng("merchant", "list", KAMENG_OPERATOR_TOKEN=viewer["token"])).json["items"] == []
    await kameng("operator", "revoke", "vi")
    assert (await kameng("merchant", "list", KAMENG_OPERATOR_TOKEN=viewer["token"])).status == 2


async def test_the_doctor_finds_a_well_deployment_well(kameng: Kameng) -> None:
    found = (await kameng("doctor")).json["items"]
    assert all(f["well"] for f in found), found
    assert {f["check"] for f in found} >= {"schema", "redis", "application role", "clock", "durability"}


async def test_the_doctor_finds_a_lost_redis(kameng: Kameng) -> None:
    found = await kameng("doctor", KAMENG_REDIS_URL="redis://127.0.0.1:1")
    assert found.status == 1
    assert [f["check"] for f in json.loads(found.out)["items"] if not f["well"]] == ["redis"]


async def test_what_cannot_be_reached_is_said_so(kameng: Kameng) -> None:
    nowhere = "postgresql+asyncpg://nobody:secret-word@127.0.0.1:1/nothing"
    lost = await kameng("merchant", "list", KAMENG_DATABASE_URL=nowhere)
    assert lost.status == 3, lost
    assert "secret-word" not in lost.err
    wrong = await kameng("merchant", "list", KAMENG_LEASE_S="6")
    assert wrong.status == 2
    assert "KAMENG_LEASE_S" in wrong.err


async def test_it_runs_as_a_process(kameng: Kameng) -> None:
    shown = await kameng.in_a_process("--json", "merchant", "list")
    assert (shown.status, json.loads(shown.out), shown.err) == (0, {"items": []}, "")
    assert (await kameng.in_a_process("order", "show", "ord_x")).status == 2


async def test_migrating_again_changes_nothing(kameng: Kameng) -> None:
    assert (await kameng("migrate")).status == 0


async def test_lists_are_tables_for_people(kameng: Kameng) -> None:
    await kameng("merchant", "create", "shop")
    shown = await kameng("merchant", "list", plain=True)
    assert shown.status == 0
    assert shown.out.split()[:2] == ["id", "name"]
    assert "shop" in shown.out


COMMANDS = (
    ["serve", "worker", "simulator", "migrate", "demo", "openapi", "doctor", "fund", "adjust", "credit", "topup", "refund"],
    {
        "embedded": "start stop status", "operator": "create list revoke", "merchant": "create list show suspend resume",
        "key": "create list revoke", "delivery-key": "create", "product": "set list status", "price": "set list",
        "channel": "set list enable disable wallet", "offer": "set list", "approval": "list approve reject",
        "review": "list resolve", "order": "show", "ledger": "verify house", "tasks": "parked retry",
        "alarm": "list acknowledge",
    },
)  # fmt: skip


@pytest.mark.parametrize("arguments", [[one] for one in COMMANDS[0]] + [[g, c] for g, cs in COMMANDS[1].items() for c in cs.split()])
def test_every_command_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--help"])
    assert ended.value.code == 0
    assert " ".join(arguments) in capsys.readouterr().out


def test_a_missing_server_is_started_from_the_wheels(tmp_path: Path) -> None:
    """`kameng` with nothing configured: its own servers, found again and stopped."""
    settings = Settings(_env_file=None, var=tmp_path / "var")
    tmp_path.chmod(0o711)
    tmp_path.parent.chmod(0o711)
    try:
        found = cli.find_servers(settings, with_redis=True)
        assert found.database_url is not None
        assert found.redis_url is not None
        again = cli.find_servers(settings, with_redis=True)
        assert again.database_url == found.database_url
        assert cli.embedded.status(settings.var).postgres.answers
    finally:
        cli.embedded.stop(settings.var)
    assert not cli.embedded.status(settings.var).postgres.answers
