"""Real PostgreSQL and Redis from wheels, so that a fresh clone runs with nothing installed beside Python."""

from kameng_api.embedded.errors import EmbeddedError
from kameng_api.embedded.servers import Servers, ServerStatus, Status, remove, running, start, status, stop

__all__ = ["EmbeddedError", "ServerStatus", "Servers", "Status", "remove", "running", "start", "status", "stop"]
