"""The doorbell: tells sleeping workers over arq that something is due. It carries no state; losing it costs latency only."""

import asyncio
import json
from typing import Any, Final
from uuid import uuid4

import structlog
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool

QUEUE: Final = "kameng:doorbell"
_log = structlog.get_logger()


def serialize(job: dict[str, Any]) -> bytes:
    """JSON, never pickle: whoever can write Redis must not run code here."""
    return json.dumps(job, default=str).encode()


def deserialize(text: bytes) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(text)
    return job


class Doorbell:
    """Rings at most once per lane and `every_s`; a ring that fails is logged and forgotten."""

    def __init__(self, redis_url: str | None, *, every_s: float = 0.1) -> None:
        self._arq: ArqRedis | None = None
        if redis_url is not None:
            pool = ConnectionPool.from_url(redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
            self._arq = ArqRedis(
                pool, job_serializer=serialize, job_deserializer=deserialize, default_queue_name=QUEUE, expires_extra_ms=0
            )
        self._every_s = every_s
        self._resting: set[str] = set()
        self._again: set[str] = set()
        self._ringing: set[asyncio.Task[None]] = set()

    def ring(self, lane: str) -> None:
        """Say that work is due in `lane`; returns at once."""
        if self._arq is None:
            return
        if lane in self._resting:
            self._again.add(lane)
            return
        self._resting.add(lane)
        ringing = asyncio.create_task(self._ring(lane))
        self._ringing.add(ringing)
        ringing.add_done_callback(self._ringing.discard)

    async def _ring(self, lane: str) -> None:
        assert self._arq is not None
        try:
            await self._arq.enqueue_job("ring", lane, _job_id=f"{lane}:{uuid4().hex}", _expires=10)
        except Exception as trouble:
            _log.warning("doorbell.silent", lane=lane, trouble=type(trouble).__name__)
            await asyncio.sleep(1.0)
        await asyncio.sleep(self._every_s)
        self._resting.discard(lane)
        if lane in self._again:
            self._again.discard(lane)
            self.ring(lane)

    async def close(self) -> None:
        for ringing in list(self._ringing):
            ringing.cancel()
        if self._arq is not None:
            await self._arq.aclose()
