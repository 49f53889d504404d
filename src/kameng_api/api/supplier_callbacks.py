"""Where suppliers call us: store first, verify, answer fast; what it means is decided by a job."""

import hashlib
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from kameng_api.api.deps import Door, InDoor
from kameng_api.catalog.rules import Channel, find_channel_by_token_hash
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import NotFound
from kameng_api.kit.gather import Gatherer
from kameng_api.kit.ids import parse_book_reference
from kameng_api.suppliers import actions as suppliers
from kameng_api.suppliers.actions import Arrival
from kameng_api.suppliers.listings import wishes
from kameng_api.suppliers.port import CallbackRefused, CatalogHint, Supplier
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane

router = APIRouter()
_log = structlog.get_logger()
_KEPT_HEADERS: Final = 64
_UNSAFE: Final = frozenset({"cookie"})


def gather_callbacks(door: Door) -> Gatherer[Arrival, UUID]:
    """Callbacks that arrive together are stored by one commit."""

    async def flush(batch: Sequence[Arrival]) -> Sequence[UUID | BaseException]:
        async with door.db.transaction() as tx:
            ids = await suppliers.store_callbacks(tx, door.keyring, batch)
            due = [Due(a.attempt[0], Lane.CALLBACK, i) for a, i in zip(batch, ids, strict=True) if a.attempt]
            await tasks.make_new_due(tx, due)
        door.doorbell.ring(Lane.CALLBACK)
        trouble = await _note_hints(door, batch)
        return ids if trouble is None else [trouble if _hints_at(a) else i for a, i in zip(batch, ids, strict=True)]

    return Gatherer(flush, largest=256, in_flight=2)


async def _note_hints(door: Door, batch: Sequence[Arrival]) -> Exception | None:
    """After the callbacks about orders are kept, which no list may hold up. What goes wrong is told to those who hinted: they say it again."""
    hints = _hints(batch)
    if not hints:
        return None
    try:
        async with door.db.transaction() as tx:
            for channel_id, codes in hints:
                await wishes.note_hints(tx, channel_id, codes)
    except Exception as trouble:
        _log.warning("callback.hints_not_noted", channels=len(hints), trouble=type(trouble).__name__)
        return trouble
    return None


def _hints_at(arrival: Arrival) -> bool:
    return arrival.verified and bool(arrival.hinted)


def _hints(batch: Sequence[Arrival]) -> list[tuple[str, set[str]]]:
    """(channel, lines that may have changed), in an order in which no two commits wait for each other."""
    found: dict[str, set[str]] = {}
    for arrival in batch:
        if _hints_at(arrival):
            found.setdefault(arrival.channel_id, set()).update(arrival.hinted)
    return sorted(found.items())


@router.api_route("/callbacks/{token}", methods=["POST"], include_in_schema=False)
async def receive_callback(token: str, request: Request, door: InDoor) -> Response:
    """One call from a supplier. An unknown token is a 404; a call that does not verify is kept, and refused with 401."""
    channel = find_channel_by_token_hash(door.catalog.current, hashlib.sha256(token.encode()).digest())
    if channel is None:
        raise NotFound
    supplier = door.connections.of(channel)
    headers = {k.lower(): v for k, v in request.headers.items() if k.lower() not in _UNSAFE}
    body = await request.body()
    attempt, hinted, verified = _read(channel, supplier, headers, body)
    kept = dict(list(headers.items())[:_KEPT_HEADERS])
    await door.callbacks.submit(Arrival(channel.channel_id, kept, body, verified, attempt, hinted))
    if not verified:
        return Response(status_code=401)
    reply = supplier.callback_reply
    return Response(reply.body, reply.status, media_type=reply.content_type)


def _read(
    channel: Channel, supplier: Supplier, headers: dict[str, str], body: bytes
) -> tuple[tuple[int, UUID] | None, tuple[str, ...], bool]:
    """(which attempt it is about, which lines of the supplier's list, whether it verifies)."""
    if supplier.read_callback is None:
        return None, (), False
    try:
        news = supplier.read_callback(headers, body, utc_now())
    except CallbackRefused as refused:
        _log.warning("callback.refused", channel=channel.channel_id, why=type(refused).__name__)
        return None, (), False
    if isinstance(news, CatalogHint):
        return None, news.product_codes, True
    attempt = parse_book_reference(news.reference)
    if attempt is None:
        _log.warning("callback.reference_unknown", channel=channel.channel_id)
    return attempt, (), True
