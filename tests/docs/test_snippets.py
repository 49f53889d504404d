"""Every published snippet reproduces the contract's vectors, and what it sends is accepted by our own verifier."""

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.factories.house import House, open_house

from kameng_api.kit import signing

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets"
KEY_ID = "ak_test_01JD0000000000000000000001"
SECRET = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
VECTORS = {
    "post hmac": "clPrHanEKN7puphiCPIqXozoZnGbw1jzU0DzD3zUANA=",
    "post ed25519": "LWrNqjvwY27u5IS5AkaAYIKMM3UXiL4PZmNJSKZ0fWWikeOdWxebYVpe4eH4ITps1OqrwFZW7owau0jm0ScoBQ==",
    "get hmac": "mFasBiUi09fU9Y9plqjG5/sYIvxIw4+8v8xQRZIkMaE=",
    "webhook": "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A=",
}
JAVA_ONCE = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # what runs for a second is not worth the second compiler
COMMANDS = {
    "python": [sys.executable, "python/kameng.py"],
    "java": ["java", *JAVA_ONCE, "java/Kameng.java"],
    "php": ["php", "php/kameng.php"],
    "node": ["node", "node/kameng.mjs"],
    "go": ["go", "run", "go/kameng.go"],
    "curl": ["bash", "curl/kameng.sh"],
    "csharp": ["mono", "csharp/Kameng.cs"],
}
NEEDED = {"curl": ("bash", "openssl", "curl"), "python": (), "csharp": ("mcs", "mono")}
NO_ED25519 = ("csharp",)


@pytest.fixture(params=sorted(COMMANDS))
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    for tool in NEEDED.get(name, (COMMANDS[name][0],)):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; the {name} snippet was not run")
    return name


@functools.cache
def compiled() -> str:
    """The C# program; Debian's Mono (mono-mcs, libmono-system-net-http4.0-cil) is what is there without Microsoft's own packages."""
    program = Path(tempfile.mkdtemp(prefix="kameng-csharp-")) / "Kameng.exe"
    subprocess.run(["mcs", "-r:System.Net.Http", f"-out:{program}", str(SNIPPETS / "csharp/Kameng.cs")], check=True, timeout=100)
    return str(program)


def run(language: str, *arguments: str, **env: str) -> str:
    command = ["mono", compiled()] if language == "csharp" else COMMANDS[language]
    done = subprocess.run(
        [*command, *arguments],
        cwd=SNIPPETS,
        env={"HOME": tempfile.gettempdir(), **os.environ, "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": "127.0.0.1", **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_every_folder_of_snippets_is_run() -> None:
    assert {path.name for path in SNIPPETS.iterdir() if path.is_dir() and path.name[0] != "."} == set(COMMANDS)


def test_a_snippet_prints_the_vectors_and_verifies_the_webhook(language: str) -> None:
    printed = run(language).splitlines()
    verified = [] if language == "curl" else ["webhook verified"]
    known = {name: signature for name, signature in VECTORS.items() if not (language in NO_ED25519 and "ed25519" in name)}
    assert printed == [f"{name} {signature}" for name, signature in known.items()] + verified


class Verifier(BaseHTTPRequestHandler):
    """Answers as the API would: the signature over exactly what arrived decides."""

    seen: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = signing.parse_authorization(self.headers["Authorization"].encode("latin-1"))
        text = signing.string_to_sign(
            given.scheme,
            given.timestamp,
            given.nonce,
            given.key_id,
            self.command,
            self.path.encode("latin-1"),
            hashlib.sha256(body).hexdigest(),
        )
        fresh = abs(time.time() - given.timestamp) <= 300 and given.key_id == KEY_ID
        good = fresh and signing.verify_hmac(SECRET.encode(), text, given.signature)
        self.seen.append((self.command, self.path, body))
        answer = json.dumps({"accepted": good}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def base_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Verifier) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_a_snippet_sends_is_accepted(language: str, base_url: str) -> None:
    env = {"KAMENG_BASE_URL": base_url, "KAMENG_KEY_ID": KEY_ID, "KAMENG_SECRET": SECRET}
    body = '{"merchant_order_no":"PO-1","sku":"mobile-cn-100","target":"10000000001","metadata":{"note":"充值 $1 \'x\'"}}'
    requests = [("POST", "/v1/orders", body), ("GET", "/v1/orders?limit=20&cursor=abc%3D&created_from=2026-11-22T00%3A00%3A00Z")]
    Verifier.seen.clear()
    for arguments in requests:
        printed = run(language, *arguments, **env)
        assert "200" in printed
        assert '{"accepted": true}' in printed
    assert Verifier.seen == [("POST", "/v1/orders", body.encode()), ("GET", requests[1][1], b"")]
    refused = run(language, "GET", "/v1/balance", **env | {"KAMENG_SECRET": SECRET[:-1] + "B"})
    assert "401" in refused
    assert '{"accepted": false}' in refused


@pytest.mark.parametrize("page", ["signing.md", "signing.zh-CN.md"])
def test_the_pages_print_the_same_vectors(page: str) -> None:
    text = (SNIPPETS.parent / page).read_text(encoding="utf-8")
    for value in [*VECTORS.values(), SECRET, KEY_ID, "66d9b4eee1dbc4e460df61f94d98a79c4b73360a7cf1874962b64b983537550c"]:
        assert value in text
    for language, command in COMMANDS.items():
        assert f"(snippets/{command[-1]})" in text, language


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with open_house() as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["signing.md", "signing.zh-CN.md"])
def test_a_first_order_is_placed_by_every_line_as_it_is_printed(page: str, house: House) -> None:
    """Against a real house, by a merchant that is new to it."""
    text = (SNIPPETS.parent / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    (block,) = [one for one in blocks if '"merchant_order_no":"first-' in one]
    lines = [line for line in block.splitlines() if not line.startswith("export ")]
    keys = house.merchant()
    assert keys.secret is not None
    env = {"KAMENG_BASE_URL": house.base_url, "KAMENG_KEY_ID": keys.key_id, "KAMENG_SECRET": keys.secret, "no_proxy": "127.0.0.1"}
    env["JDK_JAVA_OPTIONS"] = " ".join(JAVA_ONCE)
    told = {}
    for line in lines:
        (language,) = [name for name, command in COMMANDS.items() if f"docs/snippets/{command[-1]}" in line]
        tools = NEEDED.get(language, (COMMANDS[language][0],))
        if any(shutil.which(tool) is None for tool in tools):
            continue
        for expected in ("201", "200"):  # and once more: the same order
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=SNIPPETS.parents[1],
                env={"HOME": tempfile.gettempdir(), **os.environ, **env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                capture_output=True, text=True, timeout=100, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout + done.stderr, (language, done.stdout + done.stderr)
            assert f'"merchant_order_no":"first-{language}"' in done.stdout
        told[language] = done.stdout
    assert len(lines) == len(COMMANDS)
    assert "python" in told
