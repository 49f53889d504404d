"""`kameng route …` as people type it: the same rules as through the operator's API."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.cli.test_cli import Kameng, kameng

from kameng_api.catalog import hand, queries
from kameng_api.catalog.hand import Counted, Period
from kameng_api.kit.db import Database, fetch

__all__ = ["kameng"]

WHY = ("--reason", "agreed on the phone")


@pytest.fixture
async def house(kameng: Kameng) -> Kameng:
    """One product, one merchant, two channels."""
    await kameng("merchant", "create", "shop", "--level", "gold")
    await kameng("product", "set", "phone", "话费", "--type", "topup", "--face-value", "100", "--target-kind", "mobile")
    settings = json.dumps({"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": "0123456789abcdef-very-secret"})
    for channel in ("sim-a", "sim-b"):
        made = await kameng("channel", "set", channel, "A", "--adapter", "simulator", "-e", "test", "--settings", "-", stdin=settings)
        assert made.status == 0, made.err
    return kameng


async def test_everything_can_be_said(house: Kameng, database: Database) -> None:
    commands = [
        ("pin", "sim-b", "sim-a", "--sku", "phone", "--hard"),
        ("ban", "sim-a", "--merchant", "shop", "--for", "2h"),
        ("allow", "sim-a", "sim-b", "--level", "gold"),
        ("weight", "sim-a", "0.5"),
        ("commit", "sim-a", "month", "--units", "1000", "--bonus-rate", "0.005", "--name", "autumn"),
        ("maintenance", "sim-a", "--weekday", "0", "--weekday", "6", "--at", "02:00", "--minutes", "90"),
        ("maintenance", "sim-a", "--name", "move", "--from", "2030-01-01T00:00:00Z", "--for", "3d"),
        ("force", "sim-a", "open", "--for", "90m", "--sku", "phone"),
        ("stakes", "--level", "gold", "--undelivered", "0.05", "--premium"),
        ("terms", "sim-a", "--region", "gd", "--region", "bj", "--cap", "20", "--wallet-floor", "1000"),
        ("needs", "--sku", "phone", "--carrier", "cmcc", "--qualification", "invoice"),
    ]
    for command in commands:
        ended = await house("route", *command, *WHY)
        assert ended.status == 0, (command, ended.err)
    async with database.transaction() as tx:
        rules = await queries.list_rules(tx)
        audited = await fetch(tx, "SELECT count(*) AS n FROM audit_entries WHERE action LIKE 'routing.%_set'")
    assert [rule.facts for rule in rules] == [
        hand.Pin(("sim-b", "sim-a"), True), hand.Ban(), hand.Allow(("sim-a", "sim-b")), hand.Weight(500_000),
        hand.Commitment(1000, Counted.UNITS, Period.MONTH, 5_000),
        hand.Maintenance((0, 6), datetime(2000, 1, 1, 2).time(), 90), hand.Maintenance(),  # noqa: DTZ001  only the time of day
        hand.Force("open"), hand.Stakes(50_000, premium=True), hand.Terms(("gd", "bj"), cap=20, wallet_floor=10_000_000),
        hand.Needs(None, "cmcc", ("invoice",)),
    ]  # fmt: skip
    assert audited[0]["n"] == len(commands)
    by_kind = {rule.kind: rule for rule in rules}
    ban, force, move = by_kind[hand.Kind.BAN], by_kind[hand.Kind.FORCE], by_kind[hand.Kind.MAINTENANCE]
    assert ban.expires_at is not None and force.expires_at is not None
    assert timedelta(minutes=119) < ban.expires_at - datetime.now(UTC) < timedelta(minutes=121)
    assert (move.starts_at, move.expires_at) == (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 4, tzinfo=UTC))

    listed = (await house("route", "rules", "--channel", "sim-a")).json["items"]
    assert {one["kind"] for one in listed} == {"ban", "weight", "commitment", "maintenance", "force", "terms"}
    [pin] = (await house("route", "rules", "--kind", "pin")).json["items"]
    assert (await house("route", "remove", pin["id"])).json["counts"] is False
    assert (await house("route", "remove", pin["id"])).status == 2
    assert (await house("route", "rules", "--kind", "pin")).json["items"] == []
    assert "sim-b" in (await house("route", "rules", plain=True)).out


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("pin", "nowhere"), "/channels/0"),
        (("ban", "nowhere"), "not_found"),
        (("weight", "sim-a", "much"), "/factor"),
        (("force", "sim-a", "open"), "/expires_at"),
        (("force", "sim-a", "open", "--for", "2 hours"), "/expires_at"),
        (("force", "sim-a", "open", "--for", "1h", "--until", "2030-01-01T00:00:00Z"), "/expires_at"),
        (("ban", "sim-a", "--until", "tomorrow"), "/expires_at"),
        (("ban", "sim-a", "--until", "2030-01-01T00:00:00"), "/expires_at"),
        (("ban", "sim-a", "--for", "999999d"), "/expires_at"),
        (("ban", "sim-a", "--from", "9999-12-31T00:00:00Z", "--for", "999999d"), "/starts_at"),
        (("commit", "sim-a", "day", "--bonus-rate", "0.1"), "/target_units"),
        (("maintenance", "sim-a", "--weekday", "0", "--at", "2 o'clock", "--minutes", "9"), "/at"),
        (("terms", "sim-a"), "/: "),
        (("needs", "--sku", "phone"), "/: "),
    ],
)
async def test_mistakes_end_with_two_and_a_sentence(house: Kameng, database: Database, command: tuple[str, ...], told: str) -> None:
    ended = await house("route", *command, *WHY)
    assert (ended.status, ended.out) == (2, ""), ended
    assert told in ended.err
    async with database.transaction() as tx:
        assert await queries.list_rules(tx, over=True) == []


async def test_support_may_switch_and_not_agree(house: Kameng) -> None:
    support = (await house("operator", "create", "su", "--role", "support")).json["token"]
    ban = (await house("route", "ban", "sim-a", *WHY, KAMENG_OPERATOR_TOKEN=support)).json
    assert ban["made_by"] == "su"
    assert (await house("route", "weight", "sim-a", "2", *WHY, KAMENG_OPERATOR_TOKEN=support)).err.startswith("role_missing")
    weight = (await house("route", "weight", "sim-a", "2", *WHY)).json
    refused = await house("route", "remove", weight["id"], KAMENG_OPERATOR_TOKEN=support)
    assert (refused.status, refused.err[:12]) == (2, "role_missing")
    assert len((await house("route", "rules")).json["items"]) == 2
    assert (await house("route", "remove", ban["id"], KAMENG_OPERATOR_TOKEN=support)).status == 0
