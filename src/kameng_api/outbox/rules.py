"""What a fact is and the bytes that tell it: serialised once, stored, sent identically for ever. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from kameng_api.kit.clock import wire_time
from kameng_api.kit.ids import public_id


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, as its receivers will read it. `object_json` is the object's JSON, already serialised.

    `version` grows with every visible change of the object, so that consumers can order what they receive.
    """

    book_id: int
    type: str
    object_id: str
    version: int
    object_json: bytes
    order_id: UUID | None = None
    notify_url: str | None = None


def fact_of(
    book_id: int, type_: str, object_id: str, version: int, thing: Mapping[str, Any], *, order_id: UUID | None = None
) -> Fact:
    """A fact about an object that is not serialised yet."""
    return Fact(book_id, type_, object_id, version, orjson.dumps(thing), order_id)


def body_of(fact: Fact, event_id: UUID, at: datetime) -> bytes:
    """Compact JSON `{"id","type","timestamp","data":{"id","version","object"}}`."""
    # Put together from text: event ids and times need no escaping, and the object is JSON already.
    return b'{"id":"%b","type":%b,"timestamp":"%b","data":{"id":%b,"version":%d,"object":%b}}' % (
        public_id("evt", event_id).encode(),
        orjson.dumps(fact.type),
        wire_time(at).encode(),
        orjson.dumps(fact.object_id),
        fact.version,
        fact.object_json,
    )
