"""All of `/admin/v1`."""

from fastapi import APIRouter

from kameng_api.api.admin import (
    catalog,
    catalog_sync,
    channels,
    doors,
    evidence,
    merchants,
    money,
    orders,
    people,
    reconciliation,
    routing,
    statements,
    stops,
    supplier_papers,
    suppliers,
    watch,
)

router = APIRouter(prefix="/admin/v1", tags=["operators"])
for part in (
    merchants, doors, catalog, channels, suppliers, supplier_papers, catalog_sync, routing, money, orders, watch, people, reconciliation,
    statements, stops, evidence,
):  # fmt: skip
    router.include_router(part.router)
