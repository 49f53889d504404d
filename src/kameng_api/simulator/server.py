"""Serves the simulator over TCP, on a protocol class that lets an endpoint cut its own connection."""

import json
import socket
import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kameng_api.simulator.app import build_app
from kameng_api.simulator.config import SimulatorConfig
from kameng_api.simulator.face import Face


class CuttableProtocol(HttpToolsProtocol):
    """Puts the TCP transport into the scope: a simulated supplier must be able to reset a connection after reading."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


def run(host: str, port: int, config: SimulatorConfig, face: Face | None = None) -> None:
    """Serves until SIGTERM or SIGINT; prints one line `{"simulator_url": …}` once bound. Port 0 takes a free one."""
    sys.setswitchinterval(0.001)  # the writer's thread must not wait 5 ms for the interpreter after each commit
    listener = socket.create_server((host, port), backlog=2048)
    listener.setblocking(False)
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(config, face),
            http=CuttableProtocol,
            loop="uvloop",
            access_log=False,
            proxy_headers=False,
            log_level="warning",
            lifespan="on",
            ws="none",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
    )
    sys.stdout.write(json.dumps({"simulator_url": f"http://{host}:{listener.getsockname()[1]}"}) + "\n")
    sys.stdout.flush()
    server.run(sockets=[listener])
