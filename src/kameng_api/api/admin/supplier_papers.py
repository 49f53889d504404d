"""A supplier's qualification documents (资质), whom to ask there, and what people wrote down."""

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from kameng_api.api.admin import supplier_shapes as shown
from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, needs, read_id, uuid_position
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import queries as channels
from kameng_api.kit.clock import utc_now
from kameng_api.suppliers.desk import actions, queries
from kameng_api.suppliers.desk.rules import CONTACT_ROLES, DOCUMENT_KINDS, Document, Person

router = APIRouter(route_class=DeskRoute)

Kind = Literal[
    "business_licence", "telecom_licence", "prepaid_card_filing", "brand_authorisation", "tax_certificate", "contract", "deposit_receipt", "other"
]
Role = Literal["business", "technical", "finance", "on_duty", "complaints"]
assert set(Kind.__args__) == set(DOCUMENT_KINDS) and set(Role.__args__) == set(CONTACT_ROLES)  # type: ignore[attr-defined]
Day = Annotated[date, Field(strict=False)]


class DocumentWanted(WireModel):
    """`valid_until` is its last day, in China; `required`: no new orders after that day; `remind_days`: an alarm so long before."""

    kind: Kind
    number: str = ""
    issuer: str = ""
    valid_from: Day | None = None
    valid_until: Day | None = None
    remind_days: int = 30
    required: bool = False
    url: str | None = None
    note: str = ""

    def as_document(self, channel_id: str, document_id: UUID, by: str) -> Document:
        """What the room keeps."""
        return Document(document_id, channel_id, created_by=by, **dict(self))


@router.get("/suppliers/{channel_id}/documents")
@needs("read")
async def list_documents(desk: AtDesk, channel_id: str, withdrawn: Annotated[bool, Query()] = False) -> dict[str, Any]:
    """Those that count, the first to end first; `withdrawn=true` adds the others."""
    async with desk.door.db.transaction() as tx:
        await channels.get_channel(tx, channel_id)
        found = await queries.list_documents(tx, channel_id, withdrawn=withdrawn)
    return {"items": [shown.document(one, utc_now()) for one in found], "next_cursor": None}


@router.post("/suppliers/{channel_id}/documents", status_code=201)
@needs("suppliers:write")
async def add_document(desk: AtDesk, channel_id: str, wanted: DocumentWanted) -> dict[str, Any]:
    """Keep a document; its scan comes after it, with `POST /supplier-files`."""
    async with desk.door.db.transaction() as tx:
        document = await actions.add_document(tx, wanted.as_document(channel_id, UUID(int=0), desk.actor))
        told = shown.document(document, utc_now())
        await desk.audit(tx, "supplier.document_added", f"channel:{channel_id}", **_told(told))
    return told


@router.put("/suppliers/{channel_id}/documents/{document_id}")
@needs("suppliers:write")
async def change_document(desk: AtDesk, channel_id: str, document_id: str, wanted: DocumentWanted) -> dict[str, Any]:
    """Say it anew; its file stays. A renewed licence is another document: keep that one and withdraw this."""
    async with desk.door.db.transaction() as tx:
        document = await actions.change_document(tx, wanted.as_document(channel_id, read_id(shown.DOCUMENT_PREFIX, document_id), desk.actor))
        told = shown.document(document, utc_now())
        await desk.audit(tx, "supplier.document_changed", f"channel:{channel_id}", **_told(told))
    return told


@router.post("/suppliers/{channel_id}/documents/{document_id}/withdraw")
@needs("suppliers:write")
async def withdraw_document(desk: AtDesk, channel_id: str, document_id: str) -> dict[str, Any]:
    """It counts no more, reminds of nothing and stops nothing; it stays to be read."""
    async with desk.door.db.transaction() as tx:
        document = await actions.withdraw_document(tx, channel_id, read_id(shown.DOCUMENT_PREFIX, document_id), desk.actor)
        await desk.audit(tx, "supplier.document_withdrawn", f"channel:{channel_id}", document=document_id)
    return shown.document(document, utc_now())


def _told(document: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "kind", "number", "issuer", "valid_from", "valid_until", "remind_days", "required")
    return {name: document[name] for name in names}


@router.post("/supplier-files", status_code=201, openapi_extra={
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
})  # fmt: skip
@needs("suppliers:write")
async def store_document_file(
    desk: AtDesk,
    request: Request,
    response: Response,
    channel_id: Annotated[str, Query(max_length=32)],
    document_id: Annotated[str, Query(max_length=40)],
    name: Annotated[str, Query(max_length=200)],
    type: Annotated[str, Query(max_length=40)],
) -> dict[str, Any]:
    """The bytes of a document's scan: PDF, JPEG, PNG or WebP, at most 10 MB; sealed. The same bytes again are 200; other bytes, 409."""
    content = await request.body()
    async with desk.door.db.transaction() as tx:
        wanted = read_id(shown.DOCUMENT_PREFIX, document_id)
        document, new = await actions.store_file(tx, desk.door.keyring, channel_id, wanted, content, name, type)
        told = shown.document(document, utc_now())
        if new:
            await desk.audit(tx, "supplier.document_file_stored", f"channel:{channel_id}", document=document_id, file=told["file"])
    if not new:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return told


@router.get("/suppliers/{channel_id}/documents/{document_id}/file", response_class=Response)
@needs("contacts:read")
async def open_document_file(desk: AtDesk, channel_id: str, document_id: str) -> Response:
    """The very bytes. A licence names people: whoever opens it is written down."""
    async with desk.door.db.transaction() as tx:
        document = await queries.get_document(tx, channel_id, read_id(shown.DOCUMENT_PREFIX, document_id))
        content = await queries.open_file(tx, desk.door.keyring, document)
        await desk.audit(tx, "supplier.document_file_opened", f"channel:{channel_id}", document=document_id)
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=document.file_type, headers=headers)


# ---- contacts --------------------------------------------------------------------------------------------------------


class ContactWanted(WireModel):
    """`hours`: when they answer, in words. Everything that names the person is sealed."""

    role: Role
    name: str = Field(repr=False)
    phone: str = Field(default="", repr=False)
    im: str = Field(default="", repr=False)
    email: str = Field(default="", repr=False)
    hours: str = ""

    @property
    def person(self) -> Person:
        return Person(self.name, self.phone, self.im, self.email)


@router.get("/suppliers/{channel_id}/contacts")
@needs("contacts:read")
async def read_contacts(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    """By role, with names and numbers; that they were read is written down, what was read is not."""
    async with desk.door.db.transaction() as tx:
        await channels.get_channel(tx, channel_id)
        found = await queries.list_contacts(tx, channel_id, desk.door.keyring)
        if found:
            await desk.audit(tx, "supplier.contacts_read", f"channel:{channel_id}", count=len(found))
    return {"items": [shown.contact(one) for one in found], "next_cursor": None}


@router.post("/suppliers/{channel_id}/contacts", status_code=201)
@needs("suppliers:write")
async def add_contact(desk: AtDesk, channel_id: str, wanted: ContactWanted) -> dict[str, Any]:
    return await _put_contact(desk, channel_id, None, wanted)


@router.put("/suppliers/{channel_id}/contacts/{contact_id}")
@needs("suppliers:write")
async def change_contact(desk: AtDesk, channel_id: str, contact_id: str, wanted: ContactWanted) -> dict[str, Any]:
    return await _put_contact(desk, channel_id, read_id(shown.CONTACT_PREFIX, contact_id), wanted)


async def _put_contact(desk: AtDesk, channel_id: str, contact_id: UUID | None, wanted: ContactWanted) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        contact = await actions.put_contact(
            tx, desk.door.keyring, channel_id, contact_id, role=wanted.role, hours=wanted.hours, person=wanted.person, by=desk.actor
        )
        told = shown.contact(contact)
        action = "supplier.contact_added" if contact_id is None else "supplier.contact_changed"
        await desk.audit(tx, action, f"channel:{channel_id}", contact=told["id"], role=contact.role)
    return told


@router.delete("/suppliers/{channel_id}/contacts/{contact_id}")
@needs("suppliers:write")
async def remove_contact(desk: AtDesk, channel_id: str, contact_id: str) -> dict[str, Any]:
    """Gone, not withdrawn: personal data that is not needed is not kept."""
    async with desk.door.db.transaction() as tx:
        contact = await actions.remove_contact(tx, channel_id, read_id(shown.CONTACT_PREFIX, contact_id))
        await desk.audit(tx, "supplier.contact_removed", f"channel:{channel_id}", contact=contact_id, role=contact.role)
    return shown.contact(contact)


# ---- notes -----------------------------------------------------------------------------------------------------------


class NoteWanted(WireModel):
    text: str = Field(min_length=1, max_length=2000)


@router.get("/suppliers/{channel_id}/notes")
@needs("read")
async def list_notes(desk: AtDesk, channel_id: str, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Newest first."""
    context = ("supplier notes", channel_id)
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        await channels.get_channel(tx, channel_id)
        found = await queries.list_notes(tx, channel_id, before=before, limit=limit + 1)
    return desk.page(found, limit, shown.note, lambda row: [str(row["note_id"])], *context)


@router.post("/suppliers/{channel_id}/notes", status_code=201)
@needs("suppliers:write")
async def add_note(desk: AtDesk, channel_id: str, wanted: NoteWanted) -> dict[str, Any]:
    """Only written, never changed."""
    async with desk.door.db.transaction() as tx:
        row = await actions.add_note(tx, channel_id, wanted.text, desk.actor)
        await desk.audit(tx, "supplier.note_added", f"channel:{channel_id}")
    return shown.note(row)
