"""Anchors: a file, a bucket that locks what it takes, a real time-stamp authority, a chain that was cut; a target that is away holds up nothing."""

import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from pydantic import SecretStr
from tests.conftest import _owner_connection
from tests.factories.counter import Counter
from tests.factories.merchants import keyring_of

from kameng_api.embedded.servers import Servers
from kameng_api.evidence import anchors
from kameng_api.evidence.anchors import FileTarget, read_anchors, stamped_at
from kameng_api.evidence.errors import ChainBroken
from kameng_api.evidence.verify import Anchor
from kameng_api.jobs import evidence as jobs
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.settings import Settings


class Desk:
    """What these chores need of a worker."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db, self.settings, self.keyring = db, settings, keyring_of(settings)


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


def desk_of(counter: Counter, settings: Settings, **more: Any) -> Any:
    return Desk(counter.db, settings.model_copy(update=more))


async def next_round(db: Database) -> None:
    async with db.transaction() as tx:
        await execute(tx, "UPDATE chores SET ran_at = ran_at - interval '1 hour'")


async def alarms(db: Database) -> list[str]:
    async with db.transaction() as tx:
        return [r["kind"] for r in await fetch(tx, "SELECT kind FROM alarms WHERE closed_at IS NULL ORDER BY 1")]


async def test_heads_are_appended_once_and_tried_again(counter: Counter, settings: Settings, tmp_path: Path) -> None:
    away, file = tmp_path / "away" / "anchors", tmp_path / "anchors"
    assert await jobs.seal(desk_of(counter, settings)) > 0
    assert await jobs.anchor(desk_of(counter, settings, anchor_file=away)) == 0  # no such folder
    desk = desk_of(counter, settings, anchor_file=file)
    await next_round(counter.db)
    assert await jobs.anchor(desk) == 1
    await next_round(counter.db)
    assert await jobs.anchor(desk) == 0
    await counter.order("PO-1")
    await jobs.seal(desk)
    async with counter.db.transaction() as tx:  # a round that died between the file and its own note
        head = await jobs.queries.find_head(tx)
    assert head is not None
    FileTarget(file).put(Anchor(0, head.header.no, 0, head.header.total, head.hash), head.signature, head.key_id)
    await next_round(counter.db)
    assert await jobs.anchor(desk) == 1
    assert [a.no for a in read_anchors(file)] == [1, 2]


async def test_a_chain_shorter_than_its_anchor_raises_an_alarm(
    counter: Counter, settings: Settings, migrated: Servers, tmp_path: Path
) -> None:
    desk = desk_of(counter, settings, anchor_file=tmp_path / "anchors")
    await jobs.seal(desk)
    await counter.order("PO-1")
    await jobs.seal(desk)
    assert await jobs.anchor(desk) == 1
    owner = await _owner_connection(migrated.owner_url)
    await owner.execute("DELETE FROM chain_blocks WHERE no = 2")
    await owner.close()
    await next_round(counter.db)
    assert await jobs.anchor(desk) == 0
    assert "evidence_broken" in await alarms(counter.db)


async def test_a_late_chain_and_late_anchors_alarm(counter: Counter, settings: Settings, migrated: Servers, tmp_path: Path) -> None:
    desk = desk_of(counter, settings, anchor_file=tmp_path / "nowhere" / "anchors")
    await jobs.seal(desk)
    await counter.order("PO-1")
    owner = await _owner_connection(migrated.owner_url)
    await owner.execute("UPDATE transfers SET created_at = created_at - interval '2 minutes'")
    await owner.execute("UPDATE chain_blocks SET at = at - interval '1 hour'")
    await owner.close()
    await jobs.watch(desk)
    assert {"seal_late", "anchor_late"} <= set(await alarms(counter.db))


def test_a_line_cut_by_a_crash_is_left_out_and_spoils_nothing(tmp_path: Path) -> None:
    file = tmp_path / "anchors"
    one = Anchor(0, 1, 0, 5, bytes(32))
    FileTarget(file).put(one, bytes(64), "ek_x")
    file.write_bytes(file.read_bytes() + b'{"chain":0,"no"')
    assert read_anchors(file) == [one]


# ---- a bucket with object lock ------------------------------------------------------------------------------------------


class Worm:
    """A server that speaks S3 over HTTP, and a bucket on it that locks its objects."""

    def __init__(self, server: ThreadedMotoServer) -> None:
        host, port = server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id="people", aws_secret_access_key="people", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket="worm", ObjectLockEnabledForBucket=True)
        self.client.create_bucket(Bucket="plain")

    def settings(self, bucket: str = "s3://worm/kameng") -> dict[str, Any]:
        return {
            "anchor_bucket": bucket, "anchor_bucket_endpoint": self.url, "anchor_bucket_key_id": "house",
            "anchor_bucket_secret": SecretStr("house"), "anchor_retention_days": 30,
        }  # fmt: skip

    def versions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.list_object_versions(Bucket="worm").get("Versions", [])
        return found


@pytest.fixture(scope="module")
def s3() -> Iterator[ThreadedMotoServer]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def worm(s3: ThreadedMotoServer) -> Worm:
    host, port = s3.get_host_and_port()
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
    return Worm(s3)


async def sealed_again(counter: Counter, desk: Any, number: str) -> None:
    await counter.order(number)
    assert await jobs.seal(desk) > 0
    await next_round(counter.db)


async def test_a_bucket_keeps_each_head_locked_and_none_is_written_twice(counter: Counter, settings: Settings, worm: Worm) -> None:
    desk = desk_of(counter, settings, **worm.settings())
    for n in range(3):
        await sealed_again(counter, desk, f"PO-{n}")
        assert await jobs.anchor(desk) == 1
        await next_round(counter.db)
        assert await jobs.anchor(desk) == 0
    kept = worm.versions()
    assert [v["Key"] for v in kept] == [f"kameng/chain-0/000000-{n:012d}.json" for n in (1, 2, 3)]
    first = kept[0]
    lock = worm.client.head_object(Bucket="worm", Key=first["Key"], VersionId=first["VersionId"])
    assert lock["ObjectLockMode"] == "COMPLIANCE"
    assert timedelta(days=29) < lock["ObjectLockRetainUntilDate"] - utc_now() <= timedelta(days=30)
    with pytest.raises(ClientError, match="AccessDenied"):  # not even with the right to bypass governance
        worm.client.delete_object(Bucket="worm", Key=first["Key"], VersionId=first["VersionId"], BypassGovernanceRetention=True)
    assert "evidence_broken" not in await alarms(counter.db)


async def test_a_round_that_died_after_the_bucket_took_the_head_leaves_one_object(
    counter: Counter, settings: Settings, migrated: Servers, worm: Worm
) -> None:
    desk = desk_of(counter, settings, **worm.settings())
    await sealed_again(counter, desk, "PO-1")
    assert await jobs.anchor(desk) == 1
    await forget_anchors(migrated)
    await next_round(counter.db)
    assert await jobs.anchor(desk) == 1  # the note alone
    [target] = anchors.targets_of(desk.settings)
    async with counter.db.transaction() as tx:
        head = await jobs.queries.find_head(tx)
    assert head is not None
    same = Anchor(0, head.header.no, 0, head.header.total, head.hash)
    assert target.put(same, head.signature, head.key_id) is None  # two workers at once: the second is refused, and finds its own
    with pytest.raises(ChainBroken):
        target.put(replace(same, hash=bytes(32)), head.signature, head.key_id)
    assert len(worm.versions()) == 1


async def test_a_chain_made_anew_is_found_though_its_locked_heads_were_hidden_and_written_over(
    counter: Counter, settings: Settings, migrated: Servers, worm: Worm
) -> None:
    desk = desk_of(counter, settings, **worm.settings())
    for n in range(2):
        await sealed_again(counter, desk, f"PO-{n}")
        assert await jobs.anchor(desk) == 1
    for version in worm.versions():  # what a bucket's user may: put a marker, or a newer version, before the locked one
        worm.client.delete_object(Bucket="worm", Key=version["Key"])
        worm.client.put_object(Bucket="worm", Key=version["Key"], Body=b"{}")
        worm.client.delete_object(Bucket="worm", Key=version["Key"])
    owner = await _owner_connection(migrated.owner_url)
    await owner.execute("UPDATE transfers SET amount = amount + 1 WHERE kind = 'hold'")
    await owner.execute("TRUNCATE chain_blocks, chain_facts, chain_state, chain_anchors")
    await owner.close()
    assert await jobs.seal(desk) > 0
    await next_round(counter.db)
    assert await jobs.anchor(desk) == 0
    assert "evidence_broken" in await alarms(counter.db)


async def test_a_bucket_that_cannot_lock_takes_nothing_and_the_anchor_is_late(counter: Counter, settings: Settings, worm: Worm) -> None:
    desk = desk_of(counter, settings, **worm.settings("s3://plain"))
    await sealed_again(counter, desk, "PO-1")
    assert await jobs.anchor(desk) == 0
    assert "Contents" not in worm.client.list_objects_v2(Bucket="plain")


async def forget_anchors(migrated: Servers) -> None:
    owner = await _owner_connection(migrated.owner_url)
    await owner.execute("TRUNCATE chain_anchors")
    await owner.close()


# ---- a time-stamp authority ---------------------------------------------------------------------------------------------

_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
certs = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = yes
ess_cert_id_chain = no
[req]
distinguished_name = dn
[dn]
[ext]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
"""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[str]:
    """OpenSSL's own time-stamp authority, answering over HTTP."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no time-stamp authority to ask")
    config = tmp_path / "tsa.cnf"
    config.write_text(_CONFIG.format(folder=tmp_path))
    (tmp_path / "serial").write_text("01\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stamps", "-config", config,
         "-extensions", "ext", "-keyout", tmp_path / "tsa.key", "-out", tmp_path / "tsa.pem"], check=True, capture_output=True,
    )  # fmt: skip

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (tmp_path / "query").write_bytes(self.rfile.read(int(self.headers["content-length"])))
            done = subprocess.run(
                ["openssl", "ts", "-reply", "-config", config, "-queryfile", tmp_path / "query"], check=True, capture_output=True
            )
            self.send_response(200)
            self.send_header("content-type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(done.stdout)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


async def test_a_time_stamp_authority_stamps_the_head(counter: Counter, settings: Settings, authority: str, tmp_path: Path) -> None:
    desk = desk_of(counter, settings, anchor_tsa=authority)
    await jobs.seal(desk)
    assert await jobs.anchor(desk) == 1
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT token, hash FROM chain_anchors WHERE target = 'tsa'")
    assert abs((stamped_at(row["token"]) - utc_now()).total_seconds()) < 60
    (tmp_path / "token").write_bytes(row["token"])
    (tmp_path / "hash").write_bytes(row["hash"])
    verify = ["openssl", "ts", "-verify", "-in", tmp_path / "token", "-data", tmp_path / "hash", "-CAfile", tmp_path / "tsa.pem"]
    assert "Verification: OK" in subprocess.run(verify, check=True, capture_output=True, text=True).stdout  # noqa: ASYNC221
    (tmp_path / "hash").write_bytes(bytes(32))
    assert subprocess.run(verify, check=False, capture_output=True).returncode != 0  # noqa: ASYNC221
    assert anchors.names_of(desk.settings) == ["tsa"]
