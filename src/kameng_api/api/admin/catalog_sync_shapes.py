"""Suppliers' lists, readings and questions as the operator's API shows them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kameng_api.api.admin.shapes import amount_or_none, rate_or_none
from kameng_api.catalog.rules import format_rate
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.suppliers.listings.queries import Line, Review, SupplierList, Sync
from kameng_api.suppliers.listings.reviews import Settled
from kameng_api.suppliers.listings.rules import ListTerms

Shape = dict[str, Any]


def terms(one: ListTerms) -> Shape:
    """Shares as decimals."""
    shares = ("price_up", "price_down", "margin", "vanish")
    return {name: format_rate(value) if name in shares else value for name, value in asdict(one).items()}


def supplier_list(one: SupplierList) -> Shape:
    return {
        "channel_id": one.channel_id,
        "enabled": one.enabled,
        "every_s": one.every_s,
        "changes_every_s": one.changes_every_s,
        "pause_ms": one.pause_ms,
        "terms": terms(one.terms),
        "next_full_at": wire_time(one.next_full_at),
        "next_changes_at": wire_time(one.next_changes_at),
        "asked_by": one.asked_by,
        "whole_at": wire_time_or_none(one.whole_at),
        "changes_upto": wire_time_or_none(one.changes_upto),
        "may_vanish": one.may_vanish,
        "failures": one.failures,
        "read_until": wire_time_or_none(one.lease_until),
    }


def sync(one: Sync) -> Shape:
    return {
        "id": public_id("syn", one.sync_id),
        "channel_id": one.channel_id,
        "kind": one.kind,
        "state": one.state,
        "asked_by": one.asked_by,
        "pages": one.pages,
        "lines": one.lines,
        "added": one.added,
        "changed": one.changed,
        "gone": one.gone,
        "applied": one.applied,
        "reviews": one.reviews,
        "missing": one.missing,
        "trouble": one.trouble,
        "started_at": wire_time(one.started_at),
        "ended_at": wire_time_or_none(one.ended_at),
    }


def line(one: Line) -> Shape:
    told = one.line
    return {
        "channel_id": one.channel_id,
        "product_code": told.product_code,
        "name": told.name,
        "product_type": told.product_type,
        "currency": told.currency,
        "cost": format_amount(told.cost),
        "face_value": amount_or_none(told.face_value),
        "face_min": amount_or_none(told.face_min),
        "face_max": amount_or_none(told.face_max),
        "fields": [asdict(wanted) for wanted in told.fields],
        "min_units": told.min_units,
        "max_units": told.max_units,
        "stock": told.stock,
        "available": told.available,
        "first_seen_at": wire_time(one.first_seen_at),
        "changed_at": wire_time(one.changed_at),
        "gone_at": wire_time_or_none(one.gone_at),
        "skus": list(one.skus),
    }


def supplier_cost(row: Mapping[str, Any]) -> Shape:
    return {
        "channel_id": row["channel_id"],
        "product_code": row["product_code"],
        "since": wire_time(row["since"]),
        "cost": format_amount(row["cost"]),
        "currency": row["currency"],
    }


def offer_cost(row: Mapping[str, Any]) -> Shape:
    return {
        "channel_id": row["channel_id"],
        "sku": row["sku"],
        "since": wire_time(row["since"]),
        "unit_cost": amount_or_none(row["unit_cost"]),
        "rate": rate_or_none(row["rate_ppm"]),
        "said_by": row["said_by"],
    }


def review(one: Review) -> Shape:
    """`told` is what the question is about; a cost that moved on makes it another one."""
    return {
        "id": public_id("ofr", one.review_id),
        "channel_id": one.channel_id,
        "product_code": one.product_code,
        "sku": one.sku or None,
        "kind": one.kind.value,
        "state": one.state,
        "told": one.told,
        "change": None if one.change_ppm is None else f"{'-' if one.change_ppm < 0 else ''}{format_rate(abs(one.change_ppm))}",
        "facts": dict(one.facts),
        "opened_at": wire_time(one.opened_at),
        "told_at": wire_time(one.told_at),
        "decided_at": wire_time_or_none(one.decided_at),
        "decided_by": one.decided_by,
        "note": one.note,
    }


def settled(one: Settled) -> Shape:
    return {
        "decided": one.decided,
        "skipped": [{"id": public_id("ofr", review_id), "reason": reason} for review_id, reason in one.skipped.items()],
        "after": None if one.last is None else public_id("ofr", one.last),
    }
