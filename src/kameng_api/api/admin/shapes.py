"""How an operator sees things: rows as JSON values, without a secret in them. The command line prints the same."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from kameng_api.alarms.rules import Alarm
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Channel, Offer, Product
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.ledger.queries import Breach, MerchantBalance, Movement
from kameng_api.merchants.actions import NewDeliveryKey, NewKey
from kameng_api.merchants.queries import DeliveryKeyShown, KeyShown, Merchant
from kameng_api.operators import rules
from kameng_api.operators.queries import AuditEntry
from kameng_api.operators.rules import Approval, Operator
from kameng_api.suppliers.port import Adapter
from kameng_api.webhooks.events import ENDPOINT_PREFIX
from kameng_api.webhooks.queries import Endpoint

Shape = dict[str, Any]


def amount_or_none(amount: int | None) -> str | None:
    return None if amount is None else format_amount(amount)


def rate_or_none(rate_ppm: int | None) -> str | None:
    return None if rate_ppm is None else catalog.format_rate(rate_ppm)


def merchant_name(merchant_id: UUID) -> str:
    """A merchant's id on the wire."""
    return public_id("mer", merchant_id)


def merchant(one: Merchant) -> Shape:
    return {
        "id": merchant_name(one.merchant_id),
        "name": one.name,
        "status": one.status,
        "level": one.level,
        "currency": one.currency,
        "timezone": one.timezone,
        "low_balance_at": amount_or_none(one.low_balance_at),
        "created_at": wire_time(one.created_at),
    }


def balance(one: MerchantBalance) -> Shape:
    return {
        "currency": one.currency,
        "available": format_amount(one.available),
        "held": format_amount(one.held),
        "credit_limit": format_amount(one.credit_limit),
        "deposit": format_amount(one.deposit),
        "frozen": format_amount(one.frozen),
    }


def transaction(one: Movement) -> Shape:
    return {
        "event": one.event_key,
        "type": one.kind,
        "amount": format_amount(one.amount),
        "balance_after": format_amount(one.balance_after),
        "order_id": None if one.order_id is None else public_id("ord", one.order_id),
        "created_at": wire_time(one.created_at),
    }


def key(one: KeyShown) -> Shape:
    return {
        "key_id": one.key_id,
        "merchant_id": merchant_name(one.merchant_id),
        "environment": one.environment,
        "algorithm": one.algorithm,
        "scopes": list(one.scopes),
        "cidrs": list(one.cidrs),
        "label": one.label,
        "reads_per_s": one.reads_per_s,
        "writes_per_s": one.writes_per_s,
        "not_before": wire_time_or_none(one.not_before),
        "expires_at": wire_time_or_none(one.expires_at),
        "revoked_at": wire_time_or_none(one.revoked_at),
        "last_used_at": wire_time_or_none(one.last_used_at),
        "created_at": wire_time(one.created_at),
    }


def new_key(made: NewKey) -> Shape:
    """With the secret, this once; Ed25519 keys have none that we know."""
    return {**key(made.key), "secret": made.secret}


def delivery_key(one: DeliveryKeyShown) -> Shape:
    return {
        "kid": one.kid,
        "revoked_at": wire_time_or_none(one.revoked_at),
        "created_at": wire_time(one.created_at),
    }


def new_delivery_key(made: NewDeliveryKey) -> Shape:
    """With the key, this once: 32 ASCII characters, used as they are."""
    return {"kid": made.kid, "key": made.key.decode()}


def endpoint(one: Endpoint) -> Shape:
    return {
        "id": public_id(ENDPOINT_PREFIX, one.endpoint_id),
        "url": one.url,
        "event_types": list(one.event_types),
        "description": one.description,
        "status": one.status,
        "status_reason": one.status_reason,
        "failures": one.failures,
        "first_failure_at": wire_time_or_none(one.first_failure_at),
        "last_success_at": wire_time_or_none(one.last_success_at),
        "created_at": wire_time(one.created_at),
    }


def product(one: Product) -> Shape:
    face: Shape = (
        {
            "face_min": amount_or_none(one.face_min),
            "face_max": amount_or_none(one.face_max),
            "face_step": amount_or_none(one.face_step),
        }
        if one.ranged
        else {"face_value": amount_or_none(one.face_value)}
    )
    return {
        "sku": one.sku,
        "name": one.name,
        "product_type": one.product_type,
        "currency": one.currency,
        **face,
        "target_kind": one.target_kind,
        "fields": [catalog.form_field(wanted) for wanted in one.fields],
        "environments": sorted(one.environments),
        "status": one.status,
        "max_quantity": one.max_quantity,
        "deliver_within_s": one.deliver_within_s,
        "duplicate_window_s": one.duplicate_window_s,
        "allow_below_cost": one.allow_below_cost,
        "refund_on_reversal": one.refund_on_reversal,
        "carriers": list(one.carriers),
        "created_at": wire_time_or_none(one.created_at),
        "updated_at": wire_time_or_none(one.updated_at),
    }


def price(row: Mapping[str, Any]) -> Shape:
    return {
        "level": row["level"],
        "merchant_id": None if row["merchant_id"] is None else merchant_name(row["merchant_id"]),
        "unit_price": amount_or_none(row["unit_price"]),
        "rate": rate_or_none(row["rate_ppm"]),
        "updated_at": wire_time(row["updated_at"]),
    }


def offer(one: Offer) -> Shape:
    return {
        "channel_id": one.channel_id,
        "sku": one.sku,
        "product_code": one.product_code,
        "unit_cost": amount_or_none(one.unit_cost),
        "rate": rate_or_none(one.rate_ppm),
        "stock": one.stock,
        "status": one.status,
        "held": one.held,
    }


def channel(one: Channel) -> Shape:
    """Without settings and callback token."""
    return {
        "id": one.channel_id,
        "name": one.name,
        "adapter": one.adapter,
        "environment": one.environment,
        "status": one.status,
        "concurrency": one.concurrency,
        "wallet": {
            "balance": amount_or_none(one.wallet_balance),
            "low_at": amount_or_none(one.wallet_low_at),
            "checked_at": wire_time_or_none(one.wallet_checked_at),
        },
        "updated_at": wire_time_or_none(one.updated_at),
    }


def adapter(one: Adapter) -> Shape:
    """With the JSON Schema of the settings a channel of it needs."""
    return {"name": one.name, "settings": one.settings.model_json_schema()}


def operator(one: Operator) -> Shape:
    return {
        "name": one.name,
        "role": one.role,
        "expires_at": wire_time_or_none(one.expires_at),
        "revoked_at": wire_time_or_none(one.revoked_at),
        "last_used_at": wire_time_or_none(one.last_used_at),
        "created_at": wire_time(one.created_at),
    }


def movement(one: rules.Movement) -> Shape:
    """A money movement as operators gave it."""
    shown = rules.arguments_of(one)
    for name in ("amount", "limit"):
        if name in shown:
            shown[name] = format_amount(shown[name])
    if shown.get("merchant_id") is not None:
        shown["merchant_id"] = merchant_name(UUID(shown["merchant_id"]))
    if "order_id" in shown:
        shown["order_id"] = public_id("ord", UUID(shown["order_id"]))
    shown.pop("book_id", None)
    return {"action": rules.action_of(one), **shown}


def approval(one: Approval) -> Shape:
    return {
        "id": public_id("apr", one.approval_id),
        "state": one.state,
        "movement": movement(rules.movement_of(one)),
        "made_by": one.made_by,
        "decided_by": one.decided_by,
        "created_at": wire_time(one.created_at),
        "decided_at": wire_time_or_none(one.decided_at),
    }


def audit_entry(one: AuditEntry) -> Shape:
    return {
        "id": public_id("aud", one.entry_id),
        "actor": one.actor,
        "action": one.action,
        "subject": one.subject,
        "facts": one.facts,
        "request_id": one.request_id,
        "at": wire_time(one.at),
    }


def alarm(one: Alarm) -> Shape:
    return {
        "id": public_id("alm", one.alarm_id),
        "kind": one.kind,
        "subject": one.subject,
        "severity": one.severity.value,
        "detail": one.detail,
        "count": one.count,
        "first_at": wire_time(one.first_at),
        "last_at": wire_time(one.last_at),
        "sent_to": list(one.sent_to),
        "acknowledged_by": one.acknowledged_by,
        "closed_at": wire_time_or_none(one.closed_at),
    }


def incident(row: Mapping[str, Any]) -> Shape:
    return {
        "id": public_id("inc", row["incident_id"]),
        "book_id": row["book_id"],
        "order_id": None if row["order_id"] is None else public_id("ord", row["order_id"]),
        "attempt_id": None if row["attempt_id"] is None else public_id("att", row["attempt_id"]),
        "kind": row["kind"],
        "detail": row["detail"],
        "severity": row["severity"],
        "at": wire_time(row["at"]),
        "closed_at": wire_time_or_none(row["closed_at"]),
        "closed_by": row["closed_by"],
    }


def parked_task(row: Mapping[str, Any]) -> Shape:
    return {
        "book_id": row["book_id"],
        "lane": row["lane"],
        "ref": str(row["ref"]),
        "attempts": row["attempts"],
        "trouble": row["trouble"],
        "created_at": wire_time(row["created_at"]),
    }


def order(row: Mapping[str, Any]) -> Shape:
    """An order of some merchant; the target stays masked."""
    return {
        "id": public_id("ord", row["order_id"]),
        "merchant_id": merchant_name(row["merchant_id"]),
        "merchant_name": row["merchant_name"],
        "environment": row["environment"],
        "merchant_order_no": row["merchant_order_no"],
        "status": row["status"],
        "substatus": row["substatus"],
        "review": row["review"],
        "version": row["version"],
        "sku": row["sku"],
        "product_type": row["product_type"],
        "quantity": row["quantity"],
        "delivered_quantity": row["delivered_units"],
        "target": row["target_masked"],
        "unit_price": format_amount(row["unit_price"]),
        "amount": format_amount(row["amount"]),
        "captured_amount": format_amount(row["captured"]),
        "refunded_amount": format_amount(row["refunded"]),
        "currency": row["currency"],
        "failure_code": row["failure_code"],
        "receipt": row["receipt"],
        "deadline_at": wire_time(row["deadline_at"]),
        "created_at": wire_time(row["created_at"]),
        "dispatched_at": wire_time_or_none(row["dispatched_at"]),
        "delivered_at": wire_time_or_none(row["delivered_at"]),
        "completed_at": wire_time_or_none(row["completed_at"]),
    }


def attempt(row: Mapping[str, Any]) -> Shape:
    return {
        "id": public_id("att", row["attempt_id"]),
        "n": row["n"],
        "channel_id": row["channel_id"],
        "product_code": row["product_code"],
        "reason": row["reason"],
        "state": row["state"],
        "units": row["units"],
        "delivered_units": row["delivered_units"],
        "cost": format_amount(row["cost"]),
        "actual_cost": amount_or_none(row["actual_cost"]),
        "reversed_amount": format_amount(row["reversed_amount"]),
        "currency": row["currency"],
        "reference": row["reference"],
        "supplier_order_no": row["supplier_order_no"],
        "refusal": row["refusal"],
        "trouble": row["trouble"],
        "look_ups": row["look_ups"],
        "sent_at": wire_time(row["sent_at"]),
        "unknown_since": wire_time_or_none(row["unknown_since"]),
        "settled_at": wire_time_or_none(row["settled_at"]),
    }


def transfer(row: Mapping[str, Any]) -> Shape:
    return {
        "event": row["event_key"],
        "type": row["kind"],
        "debit": row["debit_account"],
        "credit": row["credit_account"],
        "amount": format_amount(row["amount"]),
        "currency": row["currency"],
        "created_at": wire_time(row["created_at"]),
    }


def refund(one: Any) -> Shape:
    return {
        "id": public_id("ref", one.refund_id),
        "refund_no": one.refund_no,
        "reason": one.reason,
        "amount": format_amount(one.amount),
        "currency": one.currency,
        "created_at": wire_time(one.created_at),
    }


def verdict(breaches: Sequence[Breach]) -> Shape:
    """What a check of the books found."""
    return {
        "holds": not breaches,
        "breaches": [{"invariant": b.invariant, "book_id": b.book_id, "detail": b.detail} for b in breaches],
    }


def house_sums(sums: Mapping[tuple[str, str], int]) -> list[Shape]:
    """Credits minus debits per account, so what we own is negative."""
    return [{"account": a, "currency": c, "net": format_amount(net)} for (a, c), net in sorted(sums.items())]
