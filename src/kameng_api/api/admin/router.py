"""All of `/admin/v1`."""

from typing import Final

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

_PARTS: Final = (
    merchants, doors, catalog, channels, suppliers, supplier_papers, catalog_sync, routing, money, orders, watch, people, reconciliation,
    statements, stops, evidence,
)  # fmt: skip


def include_in(surface: APIRouter) -> None:
    """Each part by itself: everything in a router inside a router would be worked out twice at the start."""
    for part in _PARTS:
        surface.include_router(part.router, prefix="/admin/v1", tags=["operators"])
