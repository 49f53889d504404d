"""Many orders at once: batches in JSON, imports of files, their progress, their rows, and files of what became of them."""

import asyncio
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field, field_validator

from kameng_api.api.deps import CalledBy, Door, InDoor, caller_of, door_of, need_scope
from kameng_api.api.orders import Scalar
from kameng_api.api.routes import StrictRoute, UnsupportedMediaType, WireModel
from kameng_api.api.wire import Amount, Limit, Time
from kameng_api.batches import actions, queries, requests, results
from kameng_api.batches.actions import NewBatch
from kameng_api.batches.queries import Item
from kameng_api.batches.requests import COLUMNS, StoredRow
from kameng_api.batches.rules import MAX_FILE_BYTES, MAX_ITEMS, PREFIX, Batch, Options, State, view
from kameng_api.kit import paging
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import parse_public_id, parse_ulid, public_id, ulid_text
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.kit.public_address import UrlRefused, check_url
from kameng_api.merchants.rules import Caller
from kameng_api.orders.rules import mask
from kameng_api.tasks.rules import Lane

router = APIRouter(tags=["batches"], route_class=StrictRoute)

_JSON: Final = "application/json"
_MAX_METADATA_BYTES: Final = 8192
_MAX_SPLIT: Final = 50
_SKU: Final = r"[A-Za-z0-9._~-]{1,64}"
_MEDIA: Final = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_UPLOADS: Final = ("text/csv", _MEDIA["xlsx"], "application/octet-stream")
_SETS: Final = {
    "succeeded": ("succeeded", "partially_succeeded"),
    "failed": ("invalid", "refused", "failed", "cancelled"),
    "unprocessed": ("pending", "unprocessed"),
    "retry": ("invalid", "refused", "failed", "cancelled"),
}
ItemState = Literal[
    "pending", "invalid", "refused", "unprocessed", "accepted", "processing", "succeeded", "partially_succeeded", "failed", "cancelled"
]
BatchNo = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,56}$")]
Mode = Literal["partial", "all_or_nothing"]
Confirm = Literal["auto", "manual"]
OnInsufficient = Literal["stop", "skip"]
FileFormat = Literal["csv", "xlsx"]


def _amount(text: str) -> str:
    parse_amount(text)
    return text


AmountText = Annotated[str, Field(max_length=20), AfterValidator(_amount)]


class BatchItem(WireModel):
    """One order of a batch, as in `POST /v1/orders`. Without a number it gets `{merchant_batch_no}-{line}`."""

    merchant_order_no: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    sku: Annotated[str, Field(pattern=f"^{_SKU}$")] | None = None
    face_value: AmountText | None = Field(default=None, description="For a ranged product; or, without `sku`, what is to be split by `split_skus`.")
    quantity: Annotated[int, Field(ge=1, le=100_000)] = 1
    target: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    fields: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=20)] | None = None
    max_unit_price: AmountText | None = None
    deliver_within_s: Annotated[int, Field(ge=1, le=86_400)] | None = None
    notify_url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Scalar], Field(max_length=50)] | None = None
    confirm_duplicate: bool = False

    @field_validator("metadata")
    @classmethod
    def _small(cls, value: dict[str, Scalar] | None) -> dict[str, Scalar] | None:
        if value is not None and len(orjson.dumps(value)) > _MAX_METADATA_BYTES:
            raise ValueError(f"at most {_MAX_METADATA_BYTES} bytes")
        return value


class BatchBody(WireModel):
    """1 to 1,000 orders under one number of yours."""

    merchant_batch_no: BatchNo
    items: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_ITEMS)]
    mode: Mode = "partial"
    validate_only: bool = False
    confirm: Confirm = "auto"
    on_insufficient_balance: OnInsufficient = "stop"
    merge_equal: bool = False
    split_skus: Annotated[list[Annotated[str, Field(pattern=f"^{_SKU}$")]], Field(max_length=_MAX_SPLIT)] | None = None


class BatchProgress(BaseModel):
    """Rows by what became of them: total = invalid + succeeded + failed + processing + unprocessed."""

    total: int
    valid: int
    invalid: int
    accepted: int = Field(description="Rows that have an order, made for them or before.")
    duplicates: int = Field(description="Of those, orders that existed before with the same content.")
    succeeded: int
    partially_succeeded: int = Field(description="Of the succeeded.")
    failed: int = Field(description="Refused when their turn came, or orders that failed or were cancelled.")
    processing: int
    unprocessed: int = Field(description="Valid rows without an order: their turn has not come, or did not come.")
    total_cost: Amount
    currency: str
    percent: int = Field(ge=0, le=100)


class BatchFailure(BaseModel):
    """Why nothing of the batch was placed."""

    code: str
    detail: str


class BatchResource(BaseModel):
    """A batch as it is now. `progress` counts the orders as they are at this moment."""

    id: str = Field(examples=["bat_01JD0000000000000000000009"])
    object: Literal["order_batch"]
    environment: Literal["live", "test"]
    version: int
    merchant_batch_no: str
    kind: Literal["json", "file"]
    filename: str | None
    status: State
    mode: Mode
    validate_only: bool
    confirm: Confirm
    on_insufficient_balance: OnInsufficient
    merge_equal: bool
    split_skus: list[str]
    progress: BatchProgress
    failure: BatchFailure | None
    warnings: list[str] = Field(description="Of a file that was read: what is not wrong, but should be known, in sentences for people; at most 20.")
    created_at: Time
    validated_at: Time | None
    confirmed_at: Time | None
    completed_at: Time | None


class BatchList(BaseModel):
    items: list[BatchResource]
    next_cursor: str | None


class ItemError(BaseModel):
    """Why a row has no delivered order: a code of docs/errors.md, or the `failure.code` of its order."""

    code: str
    pointer: str
    detail: str


class BatchItemResource(BaseModel):
    """A row, or a part of a row that was split."""

    line_no: int
    part: int = Field(description="0 for a row that was not split.")
    status: ItemState
    duplicate: bool
    merchant_order_no: str | None
    sku: str | None
    quantity: int | None
    amount: Amount
    delivered_quantity: int | None
    order_id: str | None
    merged_into: int | None = Field(description="The line whose order delivers this row too.")
    error: ItemError | None


class BatchItemList(BaseModel):
    items: list[BatchItemResource]
    next_cursor: str | None


class BatchLine(BaseModel):
    """One row of what was sent, with its parts and their sum."""

    line_no: int
    status: Literal["pending", "invalid", "processing", "succeeded", "partially_succeeded", "failed", "unprocessed"]
    amount: Amount
    parts: list[BatchItemResource]


def _row(line_no: int, item: BatchItem) -> StoredRow:
    said = item.model_dump(exclude_defaults=True)
    return StoredRow(line_no, item={name: value for name, value in said.items() if value not in ({}, None)})


def _check_urls(items: list[BatchItem], door: Door) -> None:
    seen: set[str] = set()
    wrong = []
    for n, item in enumerate(items):
        url = item.notify_url
        if url is None or url in seen:
            continue
        try:
            check_url(url, development=door.settings.webhook_development)
            seen.add(url)
        except UrlRefused as refused:
            wrong.append(FieldError(f"/items/{n}/notify_url", "url_refused", str(refused)))
    if wrong:
        raise Invalid(errors=wrong[:100])


_ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": BatchResource, "description": "The batch that this number stands for, as it is now"},
    202: {"description": "Stored; its rows are validated and placed in the background"},
}


@router.post("/v1/order-batches", status_code=202, response_model=BatchResource, responses=_ACCEPTED)
async def create_batch(body: BatchBody, request: Request) -> Response:
    """Buy many things. The answer says that the batch is stored; follow its progress at `Location`, by event, or by your own number.

    Safe to repeat: the same number and content answer 200 with the batch as it is. Rows are orders like any other: each has its own number, and an
    order that exists under it with the same content is not made again.
    """
    door, caller = door_of(request), caller_of(request)
    _check_urls(body.items, door)
    options = Options(body.mode, body.confirm, body.on_insufficient_balance, body.merge_equal, tuple(body.split_skus or ()))
    rows = [_row(n, item) for n, item in enumerate(body.items, 1)]
    used = {name for row in rows for name in row.item or ()}
    named = {f"{prefix}.{name}" for row in rows for prefix in ("fields", "metadata") for name in (row.item or {}).get(prefix, ())}
    columns = [c for c in COLUMNS if c in used] + sorted(named)
    new = NewBatch(caller.book_id, body.merchant_batch_no, caller.environment, caller.currency, options, body.validate_only, rows, columns)
    return await _take_in(door, new)


_FILE_BODY: Final = {
    "requestBody": {"required": True, "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _UPLOADS}},
}
Flag = Literal["true", "false"]


@router.post("/v1/order-imports", status_code=202, response_model=BatchResource, responses=_ACCEPTED, openapi_extra=_FILE_BODY)
async def import_orders(
    request: Request,
    door: InDoor,
    caller: CalledBy,
    merchant_batch_no: Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{1,56}$")],
    filename: Annotated[str, Query(min_length=5, max_length=120, description="Ends in .csv or .xlsx; a path before the name is dropped.")],
    mode: Annotated[Mode, Query()] = "partial",
    validate_only: Annotated[Flag, Query()] = "false",
    confirm: Annotated[Confirm, Query()] = "auto",
    on_insufficient_balance: Annotated[OnInsufficient, Query()] = "stop",
    merge_equal: Annotated[Flag, Query()] = "false",
    split_skus: Annotated[str | None, Query(pattern=f"^{_SKU}(,{_SKU}){{0,{_MAX_SPLIT - 1}}}$", max_length=3300)] = None,
) -> Response:
    """Buy what a file says: the file itself is the body (CSV or XLSX, at most 10 MB and 20,000 rows), the options are in the query.

    `GET /v1/order-imports/template` gives a file to fill in. The rows are read in the background: a file that cannot be read ends as `failed` with
    the reason in `failure`, and nothing of it is bought.
    """
    content = _file_of(request)
    name = filename.replace("\\", "/").rpartition("/")[2]
    if not name.lower().endswith((".csv", ".xlsx")) or not name.isprintable():
        raise Invalid(errors=[FieldError("/query/filename", "format", "a file name that ends in .csv or .xlsx")])
    skus = tuple(split_skus.split(",")) if split_skus is not None else ()
    options = Options(mode, confirm, on_insufficient_balance, merge_equal == "true", skus)
    new = NewBatch(
        caller.book_id, merchant_batch_no, caller.environment, caller.currency, options, validate_only == "true", content=content, filename=name
    )
    return await _take_in(door, new)


def _file_of(request: Request) -> bytes:
    """The body as it was sent. Raises UnsupportedMediaType, Invalid."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("a compressed body is not accepted")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _UPLOADS:
        raise UnsupportedMediaType(f"send Content-Type: {' or '.join(_UPLOADS)}")
    content: bytes = request.scope.get("kameng.body", b"")
    if not content:
        raise Invalid("the body is the file, and it is empty")
    assert len(content) <= MAX_FILE_BYTES, "the gate reads no more"
    return content


async def _take_in(door: Door, new: NewBatch) -> Response:
    async with door.db.transaction() as tx:
        batch, created = await actions.create(tx, door.keyring, new)
        shown = await _shown(tx, batch)
    headers = {"Location": f"/v1/order-batches/{public_id(PREFIX, batch.batch_id)}"}
    if created:
        door.doorbell.ring(Lane.BATCH)
    else:
        headers["Idempotent-Replayed"] = "true"
    return Response(orjson.dumps(shown), 202 if created else 200, headers, _JSON)


async def _shown(tx: Tx, batch: Batch) -> dict[str, Any]:
    return view(batch, await queries.count(tx, batch))


@router.get("/v1/order-batches", response_model=BatchList)
async def list_batches(
    door: InDoor,
    caller: CalledBy,
    status: Annotated[State | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Limit = 20,
) -> Response:
    """Your batches and imports, newest first."""
    key, context = door.keyring.derive("cursor"), ("batches", str(caller.book_id), status or "")
    before = parse_ulid(paging.decode(key, cursor, context)[0]) if cursor is not None else None
    async with door.db.transaction() as tx:
        found = await queries.list_batches(tx, caller.book_id, state=status, before=before, limit=limit + 1)
        page = found[:limit]
        counts = await queries.counts_of(tx, page)
    next_cursor = paging.encode(key, [ulid_text(page[-1].batch_id)], context) if len(found) > limit else None
    return Response(orjson.dumps({"items": [view(b, counts[b.batch_id]) for b in page], "next_cursor": next_cursor}), media_type=_JSON)


@router.get("/v1/order-batches/by-merchant-no/{merchant_batch_no}", response_model=BatchResource)
async def get_batch_by_merchant_no(merchant_batch_no: Annotated[str, Path(max_length=64)], door: InDoor, caller: CalledBy) -> Response:
    """One batch by your own number. One that was only validated is found until a real one takes the number."""
    async with door.db.transaction() as tx:
        batch = await queries.find_by_number(tx, caller.book_id, merchant_batch_no)
        if batch is None:
            raise NotFound
        shown = await _shown(tx, batch)
    return Response(orjson.dumps(shown), media_type=_JSON)


BatchId = Annotated[str, Path(max_length=64)]


def _batch_id(text: str) -> UUID:
    batch_id = parse_public_id(PREFIX, text)
    if batch_id is None:
        raise NotFound
    return batch_id


@router.get("/v1/order-batches/{batch_id}", response_model=BatchResource)
async def get_batch(batch_id: BatchId, door: InDoor, caller: CalledBy) -> Response:
    """One batch as it is now."""
    async with door.db.transaction() as tx:
        shown = await _shown(tx, await queries.get_batch(tx, caller.book_id, _batch_id(batch_id)))
    return Response(orjson.dumps(shown), media_type=_JSON)


@router.get("/v1/order-batches/{batch_id}/items", response_model=BatchItemList)
async def list_items(
    batch_id: BatchId,
    door: InDoor,
    caller: CalledBy,
    status: Annotated[ItemState | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Limit = 20,
) -> Response:
    """The rows in the order they were sent, with what became of each. A row appears once it is validated."""
    key, context = door.keyring.derive("cursor"), ("batch items", str(caller.book_id), batch_id, status or "")
    after = (-1, 0)
    if cursor is not None:
        line, part = paging.decode(key, cursor, context)
        after = int(line), int(part)
    async with door.db.transaction() as tx:
        batch = await queries.get_batch(tx, caller.book_id, _batch_id(batch_id))
        found = await queries.list_items(tx, batch, shown=None if status is None else [status], after=after, limit=limit + 1)
    page = found[:limit]
    next_cursor = paging.encode(key, [str(page[-1].line_no), str(page[-1].part)], context) if len(found) > limit else None
    return Response(orjson.dumps({"items": [_item(i) for i in page], "next_cursor": next_cursor}), media_type=_JSON)


@router.get("/v1/order-batches/{batch_id}/lines/{line_no}", response_model=BatchLine)
async def get_line(batch_id: BatchId, line_no: Annotated[str, Path(pattern=r"^[0-9]{1,6}$")], door: InDoor, caller: CalledBy) -> Response:
    """One row with its parts, where it was split (拆单), and their sum."""
    async with door.db.transaction() as tx:
        batch = await queries.get_batch(tx, caller.book_id, _batch_id(batch_id))
        parts = await queries.list_parts(tx, batch, int(line_no))
    if not parts:
        raise NotFound
    amount = format_amount(sum(p.amount for p in parts))
    shown = {"line_no": int(line_no), "status": _together([p.shown for p in parts]), "amount": amount, "parts": [_item(p) for p in parts]}
    return Response(orjson.dumps(shown), media_type=_JSON)


def _together(statuses: list[str]) -> str:
    """The status of a row from those of its parts."""
    if any(s in ("accepted", "processing") for s in statuses):
        return "processing"
    if "pending" in statuses:
        return "pending"
    good = [s == "succeeded" for s in statuses]
    if all(good):
        return "succeeded"
    if any(good) or "partially_succeeded" in statuses:
        return "partially_succeeded"
    for whole in ("invalid", "unprocessed"):
        if all(s == whole for s in statuses):
            return whole
    return "failed"


def _item(item: Item) -> dict[str, Any]:
    code = item.code
    return {
        "line_no": item.line_no,
        "part": item.part,
        "status": item.shown,
        "duplicate": item.is_duplicate,
        "merchant_order_no": item.merchant_order_no,
        "sku": item.sku,
        "quantity": item.quantity,
        "amount": format_amount(item.amount),
        "delivered_quantity": item.delivered_units,
        "order_id": None if item.order_id is None else public_id("ord", item.order_id),
        "merged_into": item.merged_into,
        "error": None if code is None else {"code": code, "pointer": item.error_pointer or "", "detail": item.error_detail or code},
    }


@router.post("/v1/order-batches/{batch_id}/confirm", response_model=BatchResource)
async def confirm_batch(batch_id: BatchId, door: InDoor, caller: CalledBy) -> Response:
    """Let a validated batch go on. Confirmed again answers the same; in any other state 409 `state_conflict`."""
    async with door.db.transaction() as tx:
        shown = await _shown(tx, await actions.confirm(tx, caller.book_id, _batch_id(batch_id)))
    door.doorbell.ring(Lane.BATCH)
    return Response(orjson.dumps(shown), media_type=_JSON)


@router.post("/v1/order-batches/{batch_id}/cancel", response_model=BatchResource)
async def cancel_batch(batch_id: BatchId, door: InDoor, caller: CalledBy) -> Response:
    """What is not placed yet will not be; orders that were placed live on. Cancelled again answers the same; once all is placed: 409."""
    async with door.db.transaction() as tx:
        shown = await _shown(tx, await actions.cancel(tx, caller.book_id, _batch_id(batch_id)))
    return Response(orjson.dumps(shown), media_type=_JSON)


_FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file",
        "content": {"text/csv": {"schema": {"type": "string"}}, _MEDIA["xlsx"]: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/v1/order-imports/template", response_class=Response, responses=_FILES)
async def get_template(
    format: Annotated[FileFormat, Query()] = "xlsx", locale: Annotated[Literal["en", "zh-CN"], Query()] = "en"
) -> Response:
    """An empty file with the columns an import understands."""
    return _file(await asyncio.to_thread(results.template, format, locale), "order-import-template", format)


@router.get("/v1/order-batches/{batch_id}/results/{which}", response_class=Response, responses=_FILES)
async def get_results(
    batch_id: BatchId,
    which: Literal["succeeded", "failed", "unprocessed", "retry"],
    door: InDoor,
    caller: CalledBy,
    format: Annotated[FileFormat, Query()] = "csv",
) -> Response:
    """The rows as you sent them, with line, order, status and reason. `retry`: the failed rows alone, ready to be corrected and imported again.

    Targets are masked for keys without `targets:read`; `retry` needs it. In `retry` a row whose order failed gets a new number
    (`PO-7` → `PO-7-r1`): the old one is used up. 410 `rows_gone` when the batch ended so long ago that its rows are no longer kept.
    """
    if which == "retry":
        need_scope(caller, "targets:read")
    lines: list[tuple[Item | None, StoredRow]] = []
    columns: list[str] = []
    async with door.db.transaction() as tx:
        batch = await queries.get_batch(tx, caller.book_id, _batch_id(batch_id))
        headings = await queries.read_headings(tx, door.keyring, batch)
    wanted = await _wanted(door, batch, which)
    for page in range(batch.pages):
        async with door.db.transaction() as tx:
            rows, columns = await queries.read_page(tx, door.keyring, batch, page)
        for row in rows:
            if page >= batch.pages_validated:  # it ended before anybody looked at these
                lines += [(None, row)] if which == "unprocessed" and batch.state in (State.CANCELLED, State.FAILED) else []
            else:
                lines += [(item, row) for item in wanted.get(row.line_no, ())]
    outcomes = [_outcome(batch, item, row, caller, numbered=which != "retry") for item, row in lines]
    said = ("merchant_order_no", "sku", "quantity") if any(item is not None and item.part for item, _ in lines) else ("merchant_order_no",)
    columns = [*(name for name in said if name not in columns), *columns]
    write = results.write_retry if which == "retry" else results.write
    content = await asyncio.to_thread(write, format, columns, outcomes, [headings.get(name, name) for name in columns])
    return _file(content, f"{batch.merchant_batch_no}-{which}", format)


async def _wanted(door: Door, batch: Batch, which: str) -> dict[int, list[Item]]:
    found: dict[int, list[Item]] = {}
    after = (-1, 0)
    while True:
        async with door.db.transaction() as tx:
            items = await queries.list_items(tx, batch, shown=_SETS[which], after=after, limit=5_000)
        for item in items:
            found.setdefault(item.line_no, []).append(item)
        if len(items) < 5_000:
            return found
        after = items[-1].line_no, items[-1].part


def _outcome(batch: Batch, item: Item | None, row: StoredRow, caller: Caller, *, numbered: bool) -> results.Outcome:
    cells = _cells(item, row)
    number = "" if item is None else item.merchant_order_no or ""
    if item is not None and item.merged_into is not None and (item.order_id is None or not numbered):
        number = f"{batch.merchant_batch_no}-{row.line_no}"  # sent again it is an order of its own, so it must not take the number of another row
    if number and item is not None and (numbered or item.part):
        cells["merchant_order_no"] = number
    if cells.get("target") and "targets:read" not in caller.scopes:
        cells["target"] = mask(cells["target"])
    if item is None:
        return results.Outcome(row.line_no, cells, status="unprocessed")
    return results.Outcome(
        line_no=row.line_no,
        cells=cells,
        order_id="" if item.order_id is None else public_id("ord", item.order_id),
        status=item.shown,
        error_code=item.code or "",
        error_detail=item.error_detail or item.code or "",
        merchant_order_no=number,
    )


def _cells(item: Item | None, row: StoredRow) -> dict[str, str]:
    """The row as it was sent; a part of a split row as the order it became."""
    cells = requests.cells_of(row)
    if item is not None and item.part:
        cells |= {"sku": item.sku or "", "quantity": str(item.quantity or ""), "face_value": ""}
    return cells


def _file(content: bytes, name: str, format_: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.{format_}"', "Cache-Control": "private, no-store"}
    return Response(content, headers=headers, media_type=_MEDIA[format_])
