"""The merchants' webhook receiver of the rig: verifies with the public `standardwebhooks` library and writes down all it heard before it answers.

`python -m tests.chaos.receiver PORT FOLDER`: one JSON line per arrival in `FOLDER/receiver.jsonl`, secrets in `FOLDER/receiver-secrets.json`
(hook → secret) and its manners in `FOLDER/receiver-manners.json` (`{"status": 500}`, `{"wait_s": 3}`), both read anew when they change, so
that it can be killed and started like any other process.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvicorn
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

LOG: Final = "receiver.jsonl"
SECRETS: Final = "receiver-secrets.json"
MANNERS: Final = "receiver-manners.json"


class Box:
    """What arrived, on disk, and how to answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = (folder / LOG).open("ab", buffering=0)
        self._read: dict[str, tuple[float, dict[str, Any]]] = {}

    def known(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        try:
            at = path.stat().st_mtime
            if self._read.get(name, (0.0, {}))[0] != at:
                self._read[name] = (at, json.loads(path.read_text()))
        except (OSError, ValueError):
            pass  # not there yet, or being written: what was known stays
        return self._read.get(name, (0.0, {}))[1]

    def judge(self, hook: str, headers: dict[str, str], body: bytes) -> int:
        """The status to answer; written down first. What does not verify is written down too: the judge must know."""
        secret = self.known(SECRETS).get(hook)
        if secret is None:
            return 503
        verified = True
        try:
            Webhook(secret).verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            verified = False
        status = int(self.known(MANNERS).get("status", 204)) if verified else 400
        try:
            said = json.loads(body)
        except ValueError:
            said = {"unreadable": body.decode(errors="replace")}
        line = {
            "wall": time.time(), "receiver": hook, "id": headers.get("webhook-id", ""), "type": said.get("type", ""), "body": said,
            "verified": verified, "answered": status,
        }  # fmt: skip
        self._log.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        return status


async def _hook(request: Request) -> Response:
    box: Box = request.app.state.box
    wait_s = float(box.known(MANNERS).get("wait_s", 0))
    if wait_s:
        await asyncio.sleep(wait_s)
    return Response(status_code=box.judge(request.path_params["hook"], dict(request.headers), await request.body()))


async def _health(request: Request) -> Response:
    return Response(status_code=200)


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    app = Starlette(routes=[Route("/hooks/{hook}", _hook, methods=["POST"]), Route("/health", _health)])
    app.state.box = Box(folder)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, access_log=False, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=2
    )
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
