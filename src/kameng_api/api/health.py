"""Is this process alive, may it be sent requests, and what does it count?"""

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kameng_api.api.deps import door_of
from kameng_api.kit.db import fetch

router = APIRouter(tags=["operations"])

_READY_TIMEOUT_S: Final = 2.0


@router.get("/livez", summary="Alive", description="200 as long as the process answers at all.")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Ready",
    description="200 when the database answers and is migrated; 503 otherwise, and from the moment the process is told to stop. "
    "A lost Redis is named, and does not make the process unready.",
    responses={503: {"description": "Not ready"}},
)
async def readyz(request: Request) -> Response:
    door = door_of(request)
    checks = {
        "database": "unreachable",
        "migrations": "unknown",
        "memory": "stood down" if door.memory.down else "ok",
        "draining": "yes" if door.draining else "no",
    }
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S), door.db.transaction() as tx:
            rows = await fetch(tx, "SELECT version_num FROM alembic_version")
            checks["database"] = "ok"
            found = {row["version_num"] for row in rows}
            heads = request.app.state.heads
            checks["migrations"] = "current" if heads is None or found == heads else "behind"
    except Exception:  # noqa: S110  whatever it is, the answer is the same
        pass
    ready = checks["database"] == "ok" and checks["migrations"] == "current" and not door.draining
    return JSONResponse({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    return door_of(request).metrics.render()
