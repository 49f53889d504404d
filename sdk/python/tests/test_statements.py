"""Statements as the house signs them, downloaded over a real socket; the files and the signature are made by the house's own code."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from datetime import date, datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from kameng import Client, NotGenuine
from kameng_api.statements.rules import Cut, File, Tally, keys_of, manifest_of

CSV = "row,amount\r\nopening,0.0000\r\n充值,1.0000\r\n".encode()
(KEY,) = keys_of([], bytes(range(32)))
AT = datetime(2026, 11, 20, 16, tzinfo=timezone.utc)
CUT = Cut(1, UUID(int=1), "test", "CNY", date(2026, 11, 21), "Asia/Shanghai", AT, AT, 0, 0, 0, 0)
MANIFEST = manifest_of(CUT, UUID(int=2), Tally(CUT), [File("csv", len(CSV), hashlib.sha256(CSV).hexdigest())], KEY.key_id)
TRUSTED = {KEY.key_id: base64.b64encode(KEY.public).decode()}


class Served:
    """What the next download brings."""

    body = CSV
    manifest = MANIFEST
    signature = KEY.sign(MANIFEST)


@pytest.fixture
def served() -> Iterator[tuple[Client, Served]]:
    what = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(what.body)))
            self.send_header("Kameng-Statement-Manifest", base64.b64encode(what.manifest).decode())
            signature = base64.b64encode(what.signature).decode()
            self.send_header("Kameng-Statement-Signature", f'key_id="{KEY.key_id}",algorithm="ed25519",signature="{signature}"')
            self.end_headers()
            self.wfile.write(what.body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Client(url, "ak_test_01JD0000000000000000000001", "s", trust_env=False) as client:
            yield client, what
        server.shutdown()


def test_a_genuine_statement_is_kept(served: tuple[Client, Served], tmp_path: Path) -> None:
    client, _ = served
    download = client.statements.download(date(2026, 11, 21), to=tmp_path / "s.csv", keys=TRUSTED)
    assert (tmp_path / "s.csv").read_bytes() == CSV and download.content["closing"] == "0.0000"
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    assert client.statements.download("2026-11-21", keys=TRUSTED).file == CSV


@pytest.mark.parametrize("wrong", ["body", "truncated", "manifest", "signature", "key", "day"])
def test_what_is_not_genuine_leaves_no_file(served: tuple[Client, Served], tmp_path: Path, wrong: str) -> None:
    client, what = served
    trusted, day = dict(TRUSTED), "2026-11-21"
    match wrong:
        case "body":
            what.body = CSV.replace(b"1.0", b"9.0")
        case "truncated":
            what.body = CSV[:-5]
        case "manifest":
            what.manifest = MANIFEST.replace(b'"closing":"0', b'"closing":"9')
        case "signature":
            what.signature = bytes(64)
        case "key":
            trusted = {"another": TRUSTED[KEY.key_id]}
        case "day":
            day = "2026-11-22"
    with pytest.raises(NotGenuine):
        client.statements.download(day, to=tmp_path / "s.csv", keys=trusted)
    assert list(tmp_path.iterdir()) == []
