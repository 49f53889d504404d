"""How an operator sees a supplier: overview, form, test, wallet, papers. The command line prints the same."""

from datetime import datetime
from typing import Any

import asyncpg

from kameng_api.api.admin.shapes import amount_or_none
from kameng_api.catalog.rules import Channel
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.ledger.forecast import outlook
from kameng_api.operators.suppliers import Overview, Wallet
from kameng_api.suppliers.desk.forms import FormField, Said, form_of
from kameng_api.suppliers.desk.probes import MEANING, Report, Step
from kameng_api.suppliers.desk.rules import HOME, Contact, Document, next_statement_at
from kameng_api.suppliers.port import Adapter

Shape = dict[str, Any]

DOCUMENT_PREFIX = "doc"
CONTACT_PREFIX = "con"
NOTE_PREFIX = "not"


def overview(one: Overview, now: datetime) -> Shape:
    """One line of the list."""
    channel = one.channel
    return {
        "id": channel.channel_id,
        "name": channel.name,
        "adapter": channel.adapter,
        "environment": channel.environment,
        "status": channel.status,
        "takes_orders": not one.why_not,
        "why_not": list(one.why_not),
        "health": {"delivered_last_minute": one.good, "in_doubt_last_minute": one.bad, "circuit_open_since": wire_time_or_none(one.open_since)},
        "wallet": wallet(channel, one.wallet, now),
        "unknowns": {"count": one.unknowns, "oldest_at": wire_time_or_none(one.oldest_unknown_at)},
        "last_statement": None
        if one.statement is None
        else {"day": one.statement["day"].isoformat(), "state": one.statement["state"], "at": wire_time(one.statement["created_at"])},
        "offers": {"count": one.offers, "read_at": wire_time_or_none(one.offers_read_at)},
        "last_sync": None
        if one.synced is None
        else {"whole_at": wire_time_or_none(one.synced["whole_at"]), "failures": one.synced["failures"], "reviews": one.synced["reviews"]},
        "documents": {
            "ending": [document(d, now) for d in one.ending],
            "ended": [document(d, now) for d in one.ended],
            "no_orders_after": wire_time_or_none(channel.no_orders_after),
        },
    }


def wallet(channel: Channel, now_in: Wallet, now: datetime) -> Shape:
    """`balance` is the supplier's last word; `spendable` less what was sent since. The forecast is null where no balance is known."""
    forecast = None if now_in.spendable is None else outlook(max(now_in.spendable, 0), now_in.rates, now)
    return {
        "balance": amount_or_none(channel.wallet_balance),
        "checked_at": wire_time_or_none(channel.wallet_checked_at),
        "spendable": amount_or_none(now_in.spendable),
        "low_at": amount_or_none(channel.wallet_low_at),
        "floor": amount_or_none(channel.wallet_floor),
        "resume_at": amount_or_none(channel.wallet_resume_at),
        "hours_left": channel.wallet_hours_left,
        "paused_since": wire_time_or_none(channel.wallet_paused_at),
        "burn_rate_per_hour": None if forecast is None else forecast["burn_rate_per_hour"],
        "empty_in_s": None if forecast is None else forecast["empty_in_s"],
        "empty_at": None if forecast is None else forecast["empty_at"],
    }


def balance_point(row: asyncpg.Record) -> Shape:
    return {
        "at": wire_time(row["at"]),
        "currency": row["currency"],
        "balance": format_amount(row["balance"]),
        "least": format_amount(row["least"]),
        "most": format_amount(row["most"]),
    }


def burn(row: asyncpg.Record) -> Shape:
    return {"hour": wire_time(row["hour"]), "charged": format_amount(row["charged"]), "purchases": row["attempts"]}


def schedule(row: asyncpg.Record, now: datetime) -> Shape:
    """When a source's statements are whole, and the last that came."""
    return {
        "source": row["name"],
        "kind": row["kind"],
        "format": row["format"],
        "timezone": row["timezone"],
        "lag_s": row["lag_s"],
        "complete": row["complete"],
        "enabled": row["enabled"],
        "next_at": wire_time(next_statement_at(row["timezone"], row["lag_s"], now)),
        "last": None if row["day"] is None else {"day": row["day"].isoformat(), "state": row["state"], "at": wire_time(row["created_at"])},
    }


# ---- the form and the test -------------------------------------------------------------------------------------------


def said(one: Said) -> Shape:
    return {"en": one.en, "zh": one.zh}


def form(adapter: Adapter) -> Shape:
    """What must be filled in to connect a channel of this adapter, in order."""
    return {
        "name": adapter.name,
        "title": adapter.title or adapter.name,
        "simulated": adapter.simulated,
        "fields": [form_field(one) for one in form_of(adapter)],
        "schema": adapter.settings.model_json_schema(),
    }


def form_field(one: FormField) -> Shape:
    return {
        "name": one.name,
        "kind": one.kind,
        "required": one.required,
        "secret": one.kind == "secret",
        "title": said(one.title),
        "description": said(one.description),
        "default": one.default,
        "options": list(one.options),
        "pattern": one.pattern,
        "least": one.least,
        "most": one.most,
    }


def report(one: Report) -> Shape:
    return {
        "works": one.works,
        "clock_skew_s": one.clock_skew_s,
        "balance": None if one.wallet is None else format_amount(one.wallet.balance),
        "currency": None if one.wallet is None else one.wallet.currency,
        "products_on_first_page": one.products_seen,
        "steps": [step(s) for s in one.steps],
    }


def step(one: Step) -> Shape:
    return {"step": one.name, "found": one.found.value, "meaning": said(MEANING[one.found]), "they_said": one.said or None, "took_ms": one.took_ms}


# ---- papers ----------------------------------------------------------------------------------------------------------


def document(one: Document, now: datetime) -> Shape:
    return {
        "id": public_id(DOCUMENT_PREFIX, one.document_id),
        "channel_id": one.channel_id,
        "kind": one.kind,
        "number": one.number,
        "issuer": one.issuer,
        "valid_from": None if one.valid_from is None else one.valid_from.isoformat(),
        "valid_until": None if one.valid_until is None else one.valid_until.isoformat(),
        "remind_days": one.remind_days,
        "required": one.required,
        "standing": "withdrawn" if one.withdrawn_at is not None else one.standing(now.astimezone(HOME).date()).value,
        "url": one.url,
        "note": one.note,
        "file": None
        if one.file_hash is None
        else {"name": one.file_name, "type": one.file_type, "size": one.file_size, "sha256": one.file_hash.hex()},
        "created_by": one.created_by,
        "created_at": wire_time_or_none(one.created_at),
        "withdrawn_by": one.withdrawn_by,
        "withdrawn_at": wire_time_or_none(one.withdrawn_at),
    }


def contact(one: Contact) -> Shape:
    """Without `person` where the reader may not know it."""
    person = one.person
    return {
        "id": public_id(CONTACT_PREFIX, one.contact_id),
        "channel_id": one.channel_id,
        "role": one.role,
        "hours": one.hours,
        "person": None if person is None else {"name": person.name, "phone": person.phone, "im": person.im, "email": person.email},
        "updated_by": one.updated_by,
        "updated_at": wire_time_or_none(one.updated_at),
    }


def note(row: asyncpg.Record) -> Shape:
    return {"id": public_id(NOTE_PREFIX, row["note_id"]), "text": row["text"], "author": row["author"], "at": wire_time(row["at"])}
