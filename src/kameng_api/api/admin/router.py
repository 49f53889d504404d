"""All of `/admin/v1`."""

from fastapi import APIRouter

from kameng_api.api.admin import catalog, channels, merchants, money, orders, people, routing, watch

router = APIRouter(prefix="/admin/v1", tags=["operators"])
for part in (merchants, catalog, channels, routing, money, orders, watch, people):
    router.include_router(part.router)
