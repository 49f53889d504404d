"""An alarm is one open row per trouble, whatever happens at the same time; its text gives nothing away."""

import asyncio
import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from kameng_api.alarms import actions, queries, rules, sinks
from kameng_api.alarms.rules import Alarm, Severity
from kameng_api.kit.db import Database
from kameng_api.kit.errors import NotFound, StateConflict
from kameng_api.kit.ids import new_ulid

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def alarm(**changes: object) -> Alarm:
    base = Alarm(new_ulid(), "wallet_low", "east", Severity.WARNING, "balance 1.0000", 1, NOW, NOW, None, (), 1, None, None)
    return replace(base, **changes)  # type: ignore[arg-type]


async def test_the_same_trouble_counts_up_and_another_is_another(database: Database) -> None:
    async with database.transaction() as tx:
        await actions.raise_alarm(tx, "wallet_low", "east", None, "first")
        await actions.raise_alarm(tx, "wallet_low", "east", None, "second")
        await actions.raise_alarm(tx, "wallet_low", "west", "critical", "other")
    async with database.transaction() as tx:
        found = {a.subject: a for a in await queries.list_alarms(tx)}
    assert (found["east"].count, found["east"].detail, found["east"].severity) == (2, "second", Severity.WARNING)
    assert (found["west"].count, found["west"].severity) == (1, Severity.CRITICAL)


async def test_many_who_see_the_same_trouble_at_once_raise_one_alarm(database: Database) -> None:
    async def see() -> None:
        async with database.transaction() as tx:
            await actions.raise_alarms(tx, "channel_failing", {"a": "down", "b": "down"})

    await asyncio.gather(*(see() for _ in range(20)))
    async with database.transaction() as tx:
        assert [(a.subject, a.count) for a in await queries.list_alarms(tx)] == [("b", 20), ("a", 20)]


async def test_what_is_over_is_closed_and_may_come_back_as_a_new_alarm(database: Database) -> None:
    async with database.transaction() as tx:
        await actions.keep_raised(tx, "order_stuck", {"live": "1", "test": "1"})
        await actions.raise_alarm(tx, "wallet_low", "live", None, "not touched")
        await actions.keep_raised(tx, "order_stuck", {"test": "2"})
        assert [(a.kind, a.subject) for a in await queries.list_alarms(tx)] == [("wallet_low", "live"), ("order_stuck", "test")]
        assert await actions.close_alarm(tx, "order_stuck", "test")
        assert not await actions.close_alarm(tx, "order_stuck", "test")
        await actions.raise_alarm(tx, "order_stuck", "test", None, "again")
        every = await queries.list_alarms(tx, only_open=False, kind="order_stuck")
    assert [(a.subject, a.count, a.closed_at is None) for a in every if a.subject == "test"] == [("test", 1, True), ("test", 2, False)]


async def test_a_person_acknowledges_and_closes(database: Database) -> None:
    async with database.transaction() as tx:
        await actions.raise_alarm(tx, "wallet_low", "east", None, "low")
        [one] = await queries.list_alarms(tx)
        assert (await actions.acknowledge(tx, one.alarm_id, "li")).acknowledged_by == "li"
        assert (await actions.acknowledge(tx, one.alarm_id, "wang")).acknowledged_by == "li"
        closed = await actions.close_by_id(tx, one.alarm_id, "wang")
        assert await actions.close_by_id(tx, one.alarm_id, "wang") == closed
        with pytest.raises(StateConflict):
            await actions.acknowledge(tx, one.alarm_id, "li")
        with pytest.raises(NotFound):
            await actions.acknowledge(tx, new_ulid(), "li")


async def test_pages_follow_each_other_without_a_gap(database: Database) -> None:
    async with database.transaction() as tx:
        await actions.raise_alarms(tx, "order_stuck", {f"{n:02d}": "x" for n in range(7)})
        seen: list[str] = []
        page = await queries.list_alarms(tx, limit=3)
        while page:
            seen += [a.subject for a in page]
            page = await queries.list_alarms(tx, limit=3, before=page[-1].alarm_id)
    assert seen == [f"{n:02d}" for n in reversed(range(7))]


async def test_an_unknown_kind_is_a_bug(database: Database) -> None:
    async with database.transaction() as tx:
        with pytest.raises(KeyError):
            await actions.raise_alarm(tx, "coffee_empty", "kitchen", None, "x")


@pytest.mark.parametrize(
    ("text", "must_go"),
    [("target 13900001111 refused", "13900001111"), ("call +8613900001111", "13900001111"), ("mail to a.b@example.com", "example.com"),
     ("key sk_live_abcdefghijkl was used", "abcdefghijkl"), ("password=hunter2222", "hunter2222"), ("x" * 900, "x" * 501)],
)  # fmt: skip
async def test_no_secret_and_no_person_stands_in_an_alarm(database: Database, text: str, must_go: str) -> None:
    async with database.transaction() as tx:
        await actions.raise_alarm(tx, "incident_opened", "one", None, text)
        [found] = await queries.list_alarms(tx)
    assert must_go not in found.detail
    assert len(found.detail) <= 500


def test_ids_and_amounts_stay_readable_in_an_alarm() -> None:
    text = "ord_01JD0000000000000013900001 held 13900001.1110 of 98.5000 at 2026-11-22T11:44:59.000Z"
    assert rules.clean_detail(text) == text


def test_what_does_not_fit_into_a_message_is_counted() -> None:
    many = [alarm(subject=f"渠道{n}", detail="余额不足" * 20) for n in range(40)] + [alarm(kind="order_stuck", severity=Severity.CRITICAL)]
    text = rules.digest(many, 2048)
    assert len(text.encode()) <= 2048
    told = text.count("\n[")
    assert text.endswith(f"… and {41 - told} more")
    assert "[critical] order_stuck" in text.splitlines()[1]
    assert rules.digest([alarm()], 2048).count("\n") == 1


def test_a_lease_that_ran_out_waits_longer_each_time_and_never_above_an_hour() -> None:
    waits = [rules.backoff_s(n) for n in range(1, rules.TRIES)]
    assert waits == sorted(waits)
    assert waits[0] >= 5
    assert max(waits) == 3600
    assert sum(waits) > timedelta(days=2).total_seconds()


@pytest.mark.parametrize(
    "text",
    ["", "sms:1", "webhook:", "webhook:ftp://x/y", "wecom:https:///nohost", "email:nobody", "email:@host", "wecom:https://h/x#SECRET", "https://h/x"],
)  # fmt: skip
def test_a_sink_that_cannot_be_meant_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="alarm sink 2") as refused:
        sinks.parse_sinks(["webhook:https://h/ok", text])
    assert "SECRET" not in str(refused.value)


def test_a_sinks_address_and_secret_never_show() -> None:
    [sink] = sinks.parse_sinks(["dingtalk:https://h/robot?access_token=TOKEN#SECsecret"])
    assert (sink.address, sink.secret) == ("https://h/robot?access_token=TOKEN", "SECsecret")
    request = sinks.request_for(sink, [alarm()], NOW)
    assert not any(word in shown for shown in (repr(sink), sink.name, repr(request)) for word in ("TOKEN", "SECsecret"))


def test_dingtalk_is_signed_in_the_query() -> None:
    [sink] = sinks.parse_sinks(["dingtalk:https://h/robot/send?access_token=T#SECabc"])
    request = sinks.request_for(sink, [alarm()], NOW)
    query = {k: v[0] for k, v in parse_qs(urlsplit(request.url).query).items()}
    assert query["access_token"] == "T"
    assert query["timestamp"] == str(int(NOW.timestamp()) * 1000)
    mac = hmac.new(b"SECabc", f"{query['timestamp']}\nSECabc".encode(), hashlib.sha256).digest()
    assert base64.b64decode(query["sign"]) == mac
    body = orjson.loads(request.body)
    assert body["msgtype"] == "text"
    assert "上游余额不足" in body["text"]["content"]


def test_feishu_is_signed_in_the_body_with_timestamp_and_secret_as_the_key() -> None:
    [sink] = sinks.parse_sinks(["feishu:https://h/hook/1#abc"])
    body = orjson.loads(sinks.request_for(sink, [alarm()], NOW).body)
    assert body["timestamp"] == str(int(NOW.timestamp()))
    assert base64.b64decode(body["sign"]) == hmac.new(f"{body['timestamp']}\nabc".encode(), b"", hashlib.sha256).digest()
    assert body["msg_type"] == "text"
    assert "wallet_low" in body["content"]["text"]


def test_an_unsigned_robot_gets_no_signature() -> None:
    for kind in ("dingtalk", "feishu", "wecom"):
        [sink] = sinks.parse_sinks([f"{kind}:https://h/x?key=1"])
        request = sinks.request_for(sink, [alarm()], NOW)
        assert request.url == "https://h/x?key=1"
        assert b"sign" not in request.body.replace(b"signed", b"")


@pytest.mark.parametrize(
    ("kind", "status", "body", "taken"),
    [
        ("wecom", 200, b'{"errcode":0,"errmsg":"ok"}', True),
        ("wecom", 200, b'{"errcode":93000,"errmsg":"invalid webhook url"}', False),
        ("dingtalk", 200, b'{"errcode":310000,"errmsg":"sign not match"}', False),
        ("feishu", 200, b'{"code":0,"msg":"success","data":{}}', True),
        ("feishu", 200, b'{"code":19021,"msg":"sign match fail"}', False),
        ("feishu", 200, b"<html>", False),
        ("feishu", 200, b"[]", False),
        ("wecom", 500, b'{"errcode":0}', False),
        ("webhook", 204, b"", True),
        ("webhook", 302, b"", False),
    ],
)
def test_a_robot_is_believed_by_its_body_and_not_by_its_status(kind: str, status: int, body: bytes, taken: bool) -> None:
    [sink] = sinks.parse_sinks([f"{kind}:https://h/x"])
    assert sinks.was_taken(sink, status, body) is taken


def test_the_generic_webhook_says_it_in_fields() -> None:
    [sink] = sinks.parse_sinks(["webhook:https://h/x"])
    [told] = orjson.loads(sinks.request_for(sink, [alarm(count=3)], NOW).body)["alarms"]
    assert (told["kind"], told["subject"], told["count"], told["severity"]) == ("wallet_low", "east", 3, "warning")
    assert told["first_at"] == "2026-11-22T12:00:00.000Z"
    assert told["closed_at"] is None
    assert told["id"].startswith("alm_")
