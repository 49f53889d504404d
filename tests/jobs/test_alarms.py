"""Alarms reach real receivers over HTTP and SMTP, each once, and wait for those that are away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default

import orjson
import pytest
from aiohttp import web

from kameng_api.alarms import actions, queries
from kameng_api.alarms.rules import TRIES, Alarm
from kameng_api.jobs.alarms import send_alarms
from kameng_api.kit.db import Database, execute
from kameng_api.settings import Settings


@dataclass
class Desk:
    db: Database
    settings: Settings


@dataclass
class Receiver:
    """A robot's server: remembers what it was told, answers as it is told."""

    url: str = ""
    heard: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    answer: bytes = b'{"errcode":0,"code":0}'
    status: int = 200
    hang: bool = False

    async def serve(self, request: web.Request) -> web.Response:
        if self.hang:
            await asyncio.sleep(60)
        self.heard.append((request.path_qs, orjson.loads(await request.read())))
        return web.Response(body=self.answer, status=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", made.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@dataclass
class MailServer:
    """Just enough SMTP to take a message; `login` says whether it offers AUTH."""

    port: int = 0
    mails: list[bytes] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refuse: bool = False

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        say("220 test ESMTP")
        while line := await reader.readline():
            word = line[:4].upper().strip()
            if word == b"EHLO":
                say("250-test\r\n250 AUTH PLAIN")
            elif word == b"AUTH":
                self.logins.append(line.decode().strip())
                say("235 ok")
            elif word == b"RCPT" and self.refuse:
                say("550 no such person")
            elif word == b"DATA":
                say("354 go on")
                data = b""
                while (part := await reader.readline()) != b".\r\n":
                    data += part
                self.mails.append(data)
                say("250 taken")
            elif word == b"QUIT":
                say("221 bye")
                break
            else:
                say("250 ok")
        writer.close()


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    made = MailServer()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


def desk(database: Database, settings: Settings, *sinks: str, smtp: str | None = None) -> Desk:
    changed = Settings(_env_file=None, **{**settings.model_dump(), "alarm_sinks": ",".join(sinks), "smtp_url": smtp})
    return Desk(database, changed)


async def raised(database: Database, *subjects: str) -> None:
    async with database.transaction() as tx:
        await actions.raise_alarms(tx, "wallet_low", dict.fromkeys(subjects, "balance 1.0000"))


async def alarms(database: Database) -> dict[str, Alarm]:
    async with database.transaction() as tx:
        return {a.subject: a for a in await queries.list_alarms(tx, only_open=False)}


async def due_now(database: Database) -> None:
    async with database.transaction() as tx:
        await execute(tx, "UPDATE alarms SET send_after = now() WHERE sent_at IS NULL")


async def test_every_sort_of_sink_hears_of_it_once(
    database: Database, settings: Settings, receiver: Receiver, mail: MailServer
) -> None:
    kinds = [f"{kind}:{receiver.url}/{kind}" for kind in ("webhook", "wecom", "dingtalk", "feishu")]
    kinds[2] += "?access_token=T#SECabc"
    at = desk(database, settings, *kinds, "email:ops@example.com", smtp=f"smtp://u:p%40ss@127.0.0.1:{mail.port}?from=hub@example.com")
    await raised(database, "east", "west")
    assert await send_alarms(at) == 2
    assert await send_alarms(at) == 0

    by_path = {path.partition("?")[0]: body for path, body in receiver.heard}
    assert len(receiver.heard) == len(by_path) == 4
    assert {a["subject"] for a in by_path["/webhook"]["alarms"]} == {"east", "west"}  # type: ignore[union-attr, attr-defined]
    for path in ("/wecom", "/dingtalk"):
        assert "east" in by_path[path]["text"]["content"]  # type: ignore[index, call-overload]
    assert "west" in by_path["/feishu"]["content"]["text"]  # type: ignore[index, call-overload]
    [dingtalk] = [path for path, _ in receiver.heard if path.startswith("/dingtalk")]
    assert "timestamp=" in dingtalk
    assert "sign=" in dingtalk

    [raw] = mail.mails
    letter = message_from_bytes(raw, policy=default)
    assert letter["To"] == "ops@example.com"
    assert letter["From"] == "hub@example.com"
    assert "wallet_low" in letter["Subject"]
    assert "balance 1.0000" in letter.get_content()
    assert len(mail.logins) == 1

    for alarm in (await alarms(database)).values():
        assert alarm.sent_at is not None
        assert sorted(name.split(":")[0] for name in alarm.sent_to) == ["dingtalk", "email", "feishu", "webhook", "wecom"]


async def test_a_sink_that_is_away_hears_later_and_the_others_are_not_told_twice(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    at = desk(database, settings, f"webhook:{receiver.url}/good", "wecom:http://127.0.0.1:9/dead")
    await raised(database, "east")
    assert await send_alarms(at) == 0
    assert await send_alarms(at) == 0  # not due again yet
    before = (await alarms(database))["east"]
    assert before.sent_at is None
    assert [name.split(":")[0] for name in before.sent_to] == ["webhook"]

    await due_now(database)
    await raised(database, "west")
    at = desk(database, settings, f"webhook:{receiver.url}/good", f"wecom:{receiver.url}/back")
    assert await send_alarms(at) == 2
    told = [(path, body) for path, body in receiver.heard if path == "/good"]
    assert [[a["subject"] for a in body["alarms"]] for _, body in told] == [["east"], ["west"]]  # type: ignore[union-attr, attr-defined]
    [back] = [body["text"]["content"] for path, body in receiver.heard if path == "/back"]  # type: ignore[index, call-overload]
    assert "east" in back
    assert "west" in back


@pytest.mark.parametrize(
    ("kind", "answer", "status"),
    [("wecom", b'{"errcode":45009}', 200), ("feishu", b'{"code":19021}', 200), ("webhook", b"", 503), ("dingtalk", b"oops", 200)],
)
async def test_a_refusal_is_tried_again(
    database: Database, settings: Settings, receiver: Receiver, kind: str, answer: bytes, status: int
) -> None:
    receiver.answer, receiver.status = answer, status
    at = desk(database, settings, f"{kind}:{receiver.url}/x")
    await raised(database, "east")
    assert await send_alarms(at) == 0
    receiver.answer, receiver.status = b'{"errcode":0,"code":0}', 200
    await due_now(database)
    assert await send_alarms(at) == 1
    assert len(receiver.heard) == 2


async def test_without_a_sink_the_log_is_the_message(database: Database, settings: Settings) -> None:
    await raised(database, "east")
    assert await send_alarms(desk(database, settings)) == 1
    assert (await alarms(database))["east"].sent_to == ("log",)


async def test_a_worker_killed_while_sending_loses_nothing(database: Database, settings: Settings, receiver: Receiver) -> None:
    at = desk(database, settings, f"webhook:{receiver.url}/x")
    await raised(database, "east")
    receiver.hang = True
    running = asyncio.create_task(send_alarms(at))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    receiver.hang = False
    assert await send_alarms(at) == 0  # leased to the dead one
    await due_now(database)  # the lease ran out
    assert await send_alarms(at) == 1
    assert len(receiver.heard) == 1


async def test_two_workers_at_once_tell_it_once(database: Database, settings: Settings, receiver: Receiver) -> None:
    at = desk(database, settings, f"webhook:{receiver.url}/x")
    await raised(database, *(f"s{n}" for n in range(30)))
    done = await asyncio.gather(*(send_alarms(at) for _ in range(5)))
    assert sum(done) == 30
    subjects = [a["subject"] for _, body in receiver.heard for a in body["alarms"]]  # type: ignore[union-attr, attr-defined]
    assert sorted(subjects) == sorted(f"s{n}" for n in range(30))


async def test_an_alarm_nobody_takes_is_given_up_in_the_end_and_stays_listed(database: Database, settings: Settings) -> None:
    await raised(database, "east")
    async with database.transaction() as tx:
        await execute(tx, "UPDATE alarms SET send_tries = $1", TRIES - 1)
    assert await send_alarms(desk(database, settings, "webhook:http://127.0.0.1:9/dead")) == 1
    alarm = (await alarms(database))["east"]
    assert alarm.sent_to == ("given_up",)
    assert alarm.closed_at is None


async def test_mail_that_is_refused_is_tried_again(database: Database, settings: Settings, mail: MailServer) -> None:
    at = desk(database, settings, "email:ops@example.com", smtp=f"smtp://127.0.0.1:{mail.port}")
    mail.refuse = True
    await raised(database, "east")
    assert await send_alarms(at) == 0
    mail.refuse = False
    await due_now(database)
    assert await send_alarms(at) == 1
    assert mail.logins == []


async def test_a_mail_sink_without_a_mail_server_is_no_success(database: Database, settings: Settings) -> None:
    await raised(database, "east")
    assert await send_alarms(desk(database, settings, "email:ops@example.com")) == 0


async def test_no_url_of_a_robot_is_logged(
    database: Database, settings: Settings, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.status = 500
    await raised(database, "east")
    await send_alarms(desk(database, settings, f"wecom:{receiver.url}/send?key=ROBOTKEY", "dingtalk:http://127.0.0.1:9/x?access_token=ROBOTKEY#SECRETWORD"))
    shown = capsys.readouterr()
    assert "alarm_sink_" in shown.out + shown.err
    assert "ROBOTKEY" not in shown.out + shown.err
    assert "SECRETWORD" not in shown.out + shown.err
