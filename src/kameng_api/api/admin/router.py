"""All of `/admin/v1`."""

from fastapi import APIRouter

from kameng_api.api.admin import catalog, channels, evidence, merchants, money, orders, people, reconciliation, routing, statements, stops, watch

router = APIRouter(prefix="/admin/v1", tags=["operators"])
for part in (merchants, catalog, channels, routing, money, orders, watch, people, reconciliation, statements, stops, evidence):
    router.include_router(part.router)
