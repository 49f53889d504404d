"""What is sent to the callback, and what a sound receiver makes of it."""

import asyncio
import base64
import time
from typing import Any, Final

import orjson

from kameng_api.conformance.orders import Order, tell
from kameng_api.conformance.stage import Stage
from kameng_api.conformance.verdicts import NotChecked

_STRANGER: Final = "whsec_" + base64.b64encode(b"a stranger's secret, not yours..").decode()
_OLD_S: Final = 600
_LARGE_BYTES: Final = 64 << 10


async def valid(stage: Stage) -> None:
    """Accepted, processing, succeeded: each in time and in order."""
    order = await stage.subject()
    stage.expect_taken(await stage.callback.send(tell("endpoint.ping", {"id": "ping", "version": 1, "object": {}})), "endpoint.ping")
    for status in ("processing", "succeeded"):
        event = stage.house.book.advance(order, status, "awaiting_supplier" if status == "processing" else None)
        stage.expect_taken(await stage.callback.send(event), event["type"])
    await stage.expect_status(order, "succeeded", "event_not_applied", "a valid order.succeeded was sent")


async def wrong_signature(stage: Stage) -> None:
    """Four forgeries, each telling of a failed order."""
    order = await stage.subject()
    forged = _forged(order)
    body = orjson.dumps(forged)
    sound = stage.callback.headers(forged["id"], body)
    code = "signature_not_checked"
    stage.expect_refused(await stage.callback.send(forged, secrets=[_STRANGER]), "signed with another secret", code)
    altered = orjson.dumps({**forged, "type": "order.cancelled"})
    stage.expect_refused(await stage.callback.send_raw(altered, sound), "body altered after signing", code)
    stage.expect_refused(await stage.callback.send_raw(body, {**sound, "webhook-id": "evt_01JD0000000000000000000000"}), "id altered", code)
    stage.expect_refused(await stage.callback.send_raw(body, {}), "no signature at all", code)
    await _expect_untouched(stage, order, "a forged order.failed was sent")


async def old_timestamp(stage: Stage) -> None:
    """Truly ours, but ten minutes old, or ten minutes ahead: what a replay looks like."""
    order = await stage.subject()
    now = int(time.time())
    stage.expect_refused(await stage.callback.send(_forged(order), timestamp=now - _OLD_S), "signed ten minutes ago", "replay_accepted")
    stage.expect_refused(await stage.callback.send(_forged(order), timestamp=now + _OLD_S), "signed ten minutes ahead", "replay_accepted")
    await _expect_untouched(stage, order, "a replayed order.failed was sent")


async def duplicate(stage: Stage) -> None:
    """The same event seven times, four of them at once."""
    order = await stage.subject()
    event = stage.house.book.advance(order, "succeeded")
    answers = await asyncio.gather(*(stage.callback.send(event) for _ in range(4)))
    answers += [await stage.callback.send(event) for _ in range(3)]
    for answer in answers:
        stage.expect_taken(answer, "a repeated event")
    told = await stage.expect_status(order, "succeeded", "event_not_applied", "order.succeeded was sent seven times")
    if told is not None and told.deliveries is None:
        raise NotChecked("the probe does not tell `deliveries`")
    if told is not None and told.deliveries != 1:
        stage.blame("duplicate_taken_twice", f"one event sent seven times was delivered to the customer {told.deliveries} times")


async def reordered(stage: Stage) -> None:
    """Version 3 before version 2, and version 1 last of all."""
    order = await stage.subject()
    accepted = next(e for e in stage.house.book.events if e["data"]["id"] == order.order_id)
    processing = stage.house.book.advance(order, "processing", "awaiting_supplier")
    succeeded = stage.house.book.advance(order, "succeeded")
    stage.expect_taken(await stage.callback.send(succeeded), "version 3")
    await stage.expect_status(order, "succeeded", "event_not_applied", "order.succeeded, version 3, was sent first")
    for event in (processing, accepted):
        stage.expect_taken(await stage.callback.send(event), f"version {event['data']['version']}, late")
    await stage.quiet()
    told = await stage.look(order)
    if told is not None and (told.status != "succeeded" or told.version not in (None, 3)):
        stage.blame("old_version_overwrote", f"a late older version overwrote the newer one: now {told.status!r}, version {told.version}")


async def reversal(stage: Stage) -> None:
    """The money comes back after the end: the state stays, version and refunded_amount grow."""
    order = await stage.subject()
    stage.expect_taken(await stage.callback.send(stage.house.book.advance(order, "succeeded")), "order.succeeded")
    stage.expect_taken(await stage.callback.send(stage.house.book.refund(order)), "order.refunded")
    told = await stage.look_for(order, lambda told: told.version == order.version)
    if told is None:
        stage.blame("event_not_applied", f"the probe does not know the order {order.number}")
    elif told.version is None:
        raise NotChecked("the probe does not tell `version`")
    elif told.version != order.version:
        stage.blame("reversal_ignored", f"order.refunded is version {order.version}; your software stays at {told.version}: the refund is missed")


async def unknown_type(stage: Stage) -> None:
    """An event that was not invented when the software was written."""
    event = tell("voucher.framed_2031", {"id": "vch_1", "version": 1, "object": {"anything": ["at", "all"]}})
    stage.expect_taken(await stage.callback.send(event), "an unknown event type")


async def unknown_fields(stage: Stage) -> None:
    """A known event with more in it than today."""
    order = await stage.subject()
    event = stage.house.book.advance(order, "succeeded")
    data = {**event["data"], "previous": None, "object": {**event["data"]["object"], "x_future": {"deep": [1, None, True]}}}
    stage.expect_taken(await stage.callback.send({**event, "x_region": "cn-9", "data": data}), "an event with unknown fields")
    await stage.expect_status(order, "succeeded", "event_not_applied", "order.succeeded with unknown fields was sent")


async def two_signatures(stage: Stage) -> None:
    """While a secret is rotated, both sign: one of the two is enough, wherever it stands."""
    order = await stage.subject()
    first = stage.house.book.advance(order, "processing", "awaiting_supplier")
    second = stage.house.book.advance(order, "succeeded")
    for event, strangers_first in ((first, True), (second, False)):
        body = orjson.dumps(event)
        headers = stage.callback.headers(event["id"], body)
        stranger = stage.callback.headers(event["id"], body, secrets=[_STRANGER])["webhook-signature"]
        ours = headers["webhook-signature"]
        both = f"{stranger} {ours}" if strangers_first else f"{ours} v1a,{stranger[3:]} {stranger}"
        where = "the second" if strangers_first else "the first"
        stage.expect_taken(await stage.callback.send_raw(body, {**headers, "webhook-signature": both}), f"{where} signature is yours")
    await stage.expect_status(order, "succeeded", "event_not_applied", "order.succeeded with two signatures was sent")


async def large(stage: Stage) -> None:
    """64 KB: far more than an order with full metadata, far less than a receiver should stumble over."""
    order = await stage.subject()
    event = stage.house.book.advance(order, "succeeded")
    padded = {**event["data"]["object"], "x_padding": "充" * (_LARGE_BYTES // 3)}
    stage.expect_taken(await stage.callback.send({**event, "data": {**event["data"], "object": padded}}), "an event of 64 KB")
    await stage.expect_status(order, "succeeded", "event_not_applied", "order.succeeded of 64 KB was sent")


async def in_time(stage: Stage) -> None:
    """Over everything that was sent."""
    sent = stage.callback.sent
    answered = [exchange for exchange in sent if exchange.status is not None]
    if stage.too_slow():
        stage.blame("answered_too_late", f"{len(stage.too_slow())} of {len(sent)} webhooks were not answered within 15 s")
        stage.finding.exchanges += stage.too_slow()[:3]
    elif not answered:
        raise NotChecked("no webhook was answered at all")
    else:
        slowest = max(answered, key=lambda exchange: exchange.took_s)
        stage.note(f"{len(answered)} of {len(sent)} answered; the slowest took {slowest.took_s:.2f} s")
        stage.finding.exchanges.append(slowest)


async def no_redirect(stage: Stage) -> None:
    """Over everything that was sent."""
    moved = [exchange for exchange in stage.callback.sent if exchange.status is not None and 300 <= exchange.status < 400]
    if moved:
        place = moved[0].answer_headers.get("location", "somewhere else")
        stage.blame("webhook_redirected", f"{len(moved)} answers were redirects (to {place}): register the final address")
        stage.finding.exchanges += moved[:3]
    elif all(exchange.status is None for exchange in stage.callback.sent):
        raise NotChecked("no webhook was answered at all")


def _forged(order: Order) -> dict[str, Any]:
    version = order.version + 5
    shown = {**order.view(), "status": "failed", "version": version, "failure": {"code": "supplier_rejected", "detail": "forged"}}
    return tell("order.failed", {"id": order.order_id, "version": version, "object": shown})


async def _expect_untouched(stage: Stage, order: Order, said: str) -> None:
    await stage.quiet()
    told = await stage.look(order)
    if told is not None and (told.status == "failed" or told.version == order.version + 5):
        stage.blame("forged_event_applied", f"{said}, and your software believed it")
