"""Statements of business days (对账单): signed, and served byte for byte as they were signed. And the keys to check them with."""

import base64
from collections.abc import AsyncIterator
from datetime import date as Date
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.routes import StrictRoute
from kameng_api.api.wire import Limit, SignedAmount, Time
from kameng_api.kit import paging
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.settings import Settings
from kameng_api.statements import actions, queries
from kameng_api.statements.queries import Statement
from kameng_api.statements.rules import MEDIA_TYPES, keys_of

router = APIRouter(route_class=StrictRoute, tags=["statements"])

_LIST: Final = "statements"
_PIECES_AT_ONCE: Final = 8
Format = Literal["json", "csv", "xlsx", "manifest"]


class Subtotal(BaseModel):
    """All movements of one type."""

    type: str = Field(examples=["hold"])
    count: int
    amount: SignedAmount


class StatementFile(BaseModel):
    """One of the files of a statement."""

    format: Literal["csv", "xlsx", "json"]
    bytes: int
    sha256: str = Field(description="Lower-case hex.")


class StatementResource(BaseModel):
    """One business day in one currency. `closing` is the next day's `opening`, always."""

    id: str = Field(examples=["stm_01JD0000000000000000000009"])
    object: Literal["statement"]
    environment: Literal["live", "test"]
    date: str = Field(examples=["2026-11-21"])
    timezone: str = Field(examples=["Asia/Shanghai"])
    starts_at: Time
    ends_at: Time
    currency: str = Field(examples=["CNY"])
    opening: SignedAmount
    subtotals: list[Subtotal]
    movements_count: int
    closing: SignedAmount
    files: list[StatementFile]
    key_id: str = Field(description="Which key signed the manifest; see GET /keys.")
    ready_at: Time


class StatementList(BaseModel):
    items: list[StatementResource]
    next_cursor: str | None


class PublicKey(BaseModel):
    """An Ed25519 key of this house."""

    key_id: str
    algorithm: Literal["ed25519"]
    use: Literal["statement"]
    public_key: str = Field(description="Base64 of 32 bytes.")
    current: bool = Field(description="Whether new statements may be signed with it.")


class PublicKeys(BaseModel):
    keys: list[PublicKey]


Cursor = Annotated[str | None, Query(max_length=1024)]
Currency = Annotated[str | None, Query(pattern=r"^[A-Z]{3}$", description="Without it, the merchant's own.")]
Day = Annotated[str, Path(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", examples=["2026-11-21"])]


@router.get("/v1/statements", response_model=StatementList, summary="Statements, newest day first")
async def list_statements(door: InDoor, caller: CalledBy, limit: Limit = 20, cursor: Cursor = None) -> Any:
    """Those that are ready. A day without movement has one too."""
    key, context = door.keyring.derive("cursors"), (_LIST, str(caller.book_id))
    place = paging.decode(key, cursor, context) if cursor is not None else None
    before = (Date.fromisoformat(place[0]), place[1]) if place is not None else None
    async with door.db.transaction() as tx:
        found = await queries.list_statements(tx, caller.book_id, before=before, limit=limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    return {
        "items": [actions.view(one) for one in shown],
        "next_cursor": paging.encode(key, [shown[-1].day.isoformat(), shown[-1].currency], context) if more else None,
    }


_ANSWER: Final = {
    200: {
        "description": "The file as it was signed. `Content-Digest` holds its SHA-256, `Kameng-Statement-Manifest` the signed manifest (base64) and "
        "`Kameng-Statement-Signature` the Ed25519 signature over it.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/csv": {"schema": {"type": "string"}},
            MEDIA_TYPES["xlsx"]: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/v1/statements/{date}", response_class=Response, responses=_ANSWER, summary="A day's statement")  # type: ignore[arg-type]
async def get_statement(
    door: InDoor,
    caller: CalledBy,
    date: Day,
    format: Annotated[Format, Query(description="`manifest`: the signed figures and hashes alone, with the signature.")] = "json",
    currency: Currency = None,
) -> Response:
    """`statement_not_ready` while the day is not over, or its last movements are not yet certain."""
    async with door.db.transaction() as tx:
        statement = await queries.get_statement(tx, caller.book_id, currency or caller.currency, read_day(date))
    return answer(door.db, statement, format)


@router.get("/keys", response_model=PublicKeys, summary="Public keys of this house")
async def list_keys(door: InDoor) -> Any:
    """What statements are signed with, and were: a key that was replaced stays in the list."""
    return {"keys": await public_keys(door.db, door.settings, door.keyring)}


async def public_keys(db: Database, settings: Settings, keyring: Keyring) -> list[dict[str, Any]]:
    """Those that may sign now, then those that have signed."""
    now = {k.key_id: k.public for k in keys_of([s.get_secret_value() for s in settings.statement_keys], keyring.derive("statement key"))}
    async with db.transaction() as tx:
        known = dict(await queries.list_keys(tx))
    return [
        {
            "key_id": key_id, "algorithm": "ed25519", "use": "statement", "public_key": base64.b64encode(public).decode(),
            "current": key_id in now,
        }
        for key_id, public in {**now, **known}.items()
    ]  # fmt: skip


def read_day(text: str) -> Date:
    """Raises Invalid."""
    try:
        return Date.fromisoformat(text)
    except ValueError:
        raise Invalid(errors=[FieldError("/path/date", "format", "a day such as 2026-11-21")]) from None


def answer(db: Database, statement: Statement, format_: Format) -> Response:
    """The file with its proof in the headers; read and sent piece by piece."""
    headers = {
        "Kameng-Statement-Manifest": base64.b64encode(statement.manifest).decode(),
        "Kameng-Statement-Signature": f'key_id="{statement.key_id}",algorithm="ed25519",signature="{base64.b64encode(statement.signature).decode()}"',
        "Cache-Control": "private, no-transform",
    }
    if format_ == "manifest":
        return Response(orjson.dumps(sealed_manifest(statement)), headers=headers, media_type="application/json")
    file = statement.content["files"][format_]
    name = f"statement-{statement.day}-{statement.currency}-{statement.content['environment']}.{format_}"
    headers |= {
        "Content-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file['sha256'])).decode()}:",
        "Content-Length": str(file["bytes"]),
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return StreamingResponse(_pieces(db, statement, format_), headers=headers, media_type=MEDIA_TYPES[format_])


def sealed_manifest(statement: Statement) -> dict[str, Any]:
    """What `kameng statement verify` reads beside a file: the signed bytes as they are, and the signature."""
    return {
        "manifest": base64.b64encode(statement.manifest).decode(),
        "signature": base64.b64encode(statement.signature).decode(),
        "algorithm": "ed25519",
        "key_id": statement.key_id,
        "content": statement.content,
    }


async def _pieces(db: Database, statement: Statement, format_: str) -> AsyncIterator[bytes]:
    first = 0
    while True:
        async with db.transaction() as tx:
            pieces = await queries.list_pieces(tx, statement, format_, first, _PIECES_AT_ONCE)
        for piece in pieces:
            yield piece
        if len(pieces) < _PIECES_AT_ONCE:
            return
        first += len(pieces)
