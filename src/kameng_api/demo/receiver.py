"""`python -m kameng_api.demo.receiver PORT`: a merchant's webhook receiver, which verifies with the `standardwebhooks` library.

The control token comes on standard input. Secrets are handed over after registration; until then a hook answers 503 and is
sent again.
"""

import asyncio
import hmac
import sys
from typing import Any, Final

import orjson
import uvicorn
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_KEPT: Final = 100_000


class Box:
    """What arrived, and the secrets to judge it with. `hook` is the last part of the receiving URL."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self.secrets: dict[str, str] = {}
        self.received: list[dict[str, Any]] = []

    def allows(self, request: Request) -> bool:
        return hmac.compare_digest(request.headers.get("authorization", "").encode(), b"Bearer " + self._token)

    def judge(self, hook: str, headers: dict[str, str], body: bytes) -> int:
        """The status to answer. What does not verify is kept too: the tour must know."""
        secret = self.secrets.get(hook)
        if secret is None:
            return 503
        verified = True
        try:
            Webhook(secret).verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            verified = False
        self.received.append(
            {"hook": hook, "id": headers.get("webhook-id", ""), "verified": verified, "body": body.decode(errors="replace")}
        )
        del self.received[:-_KEPT]
        return 204 if verified else 400


async def _hook(request: Request) -> Response:
    box: Box = request.app.state.box
    return Response(status_code=box.judge(request.path_params["hook"], dict(request.headers), await request.body()))


async def _secrets(request: Request) -> Response:
    box: Box = request.app.state.box
    if not box.allows(request):
        return Response(status_code=401)
    box.secrets.update(orjson.loads(await request.body()))
    return Response(status_code=204)


async def _received(request: Request) -> Response:
    box: Box = request.app.state.box
    if not box.allows(request):
        return Response(status_code=401)
    return JSONResponse({"items": box.received})


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def build_app(token: str) -> Starlette:
    """`POST /hooks/{hook}` for the house; `PUT /secrets` and `GET /received` for the tour, with the token."""
    app = Starlette(
        routes=[
            Route("/hooks/{hook}", _hook, methods=["POST"]),
            Route("/secrets", _secrets, methods=["PUT"]),
            Route("/received", _received),
            Route("/health", _health),
        ]
    )
    app.state.box = Box(token)
    return app


def main() -> None:
    """Serves on loopback until SIGTERM."""
    token = sys.stdin.readline().strip()
    config = uvicorn.Config(
        build_app(token), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning", proxy_headers=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
