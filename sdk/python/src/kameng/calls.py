"""One call as a value, and how its answer is read: what the blocking and the asyncio client have in common."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import IO, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import httpx

from kameng.errors import ApiError, BrokenAnswer, NoAnswer, NotGenuine, error_of
from kameng.models import Batch, Json, Model, Order, OrderValidation
from kameng.retries import Attempted, Course

T = TypeVar("T")
M = TypeVar("M", bound=Model)
Money = Decimal | int | str
Query = Mapping[str, str | int | datetime | None]
LARGEST_ANSWER: Final = 64 * 1024 * 1024
_PROBLEM: Final = "application/problem+json"
_JSON: Final = "application/json"
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True)
class Answer:
    """A whole answer. `content` is empty where it went into a file."""

    status: int
    headers: httpx.Headers
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """Raises BrokenAnswer."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise BrokenAnswer(f"a {self.status} answer of type {self.headers.get('content-type')} that is no JSON") from None


@dataclass(frozen=True)
class Call(Generic[T]):
    """What to send, and how to read the answer. `path` is sent as it is; `body` is serialised once, for every attempt.

    `repeatable`: sending it twice does no more than sending it once, as with every read and every write that carries a number of yours.
    `into`: where a 2xx body goes instead of memory; emptied before each attempt.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    query: Query = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    content_type: str = _JSON
    repeatable: bool = True
    signed: bool = True
    into: IO[bytes] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    also_well: frozenset[int] = frozenset()  # statuses beside 2xx that are answers

    @property
    def target(self) -> str:
        """Path and query as they are signed and sent."""
        given = {name: text(value) for name, value in self.query.items() if value is not None}
        return f"{self.path}?{urlencode(given, quote_via=quote, safe='')}" if given else self.path

    @property
    def writes(self) -> bool:
        return self.method != "GET"


def attempted(call: Call[Any], answer: Answer | None, trouble: httpx.TransportError | None) -> Attempted:
    """An attempt that was no success, for the rule of retries."""
    if answer is None:
        return Attempted(None, reached=not isinstance(trouble, _NEVER_SENT))
    document = problem(answer)
    if not call.writes:
        document = {**document, "charged": "no"}
        if answer.status >= 500:
            document = {"retry": "same_request", **document}
    return Attempted(answer.status, document, answer.headers.get("retry-after"))


def refusal(call: Call[Any], was: Attempted, course: Course) -> ApiError | NoAnswer:
    """What to raise when no further attempt follows."""
    unknown = course.earlier_unknown
    if was.status is None:
        charged = "unknown" if call.writes and (was.reached or unknown) else "no"
        return NoAnswer(
            f"{call.method} {call.path}: no answer after {course.attempts} attempts"
            + ("; what happened is unknown: send the same again, or ask by your own number" if charged == "unknown" else ""),
            attempts=course.attempts,
            charged=charged,  # type: ignore[arg-type]  # one of the two above
        )
    error = error_of(was.status, was.document, attempts=course.attempts, earlier_unknown=unknown)
    told = was.retry_after
    error.retry_after_s = float(told) if told is not None and told.isascii() and told.isdigit() and len(told) < 7 else None
    return error


def problem(answer: Answer) -> dict[str, Any]:
    """The problem document, or an empty one: a proxy in between may answer anything."""
    if not answer.headers.get("content-type", "").startswith(_PROBLEM):
        return {}
    try:
        found = json.loads(answer.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- what is sent ------------------------------------------------------------------------------------------------------


def get(path: str, read: Callable[[Answer], T], **query: str | int | datetime | None) -> Call[T]:
    return Call("GET", path, read, query)


def send(method: str, path: str, read: Callable[[Answer], T], body: Json | None = None, *, repeatable: bool = True) -> Call[T]:
    return Call(method, path, read, body=b"" if body is None else encode(body), repeatable=repeatable)


def encode(body: Json) -> bytes:
    """Compact JSON. Raises ValueError for NaN and Infinity, TypeError for what is no JSON."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def segment(text: str) -> str:
    """An id or number as a part of a path. Raises ValueError for what could lead to another path."""
    if not text or text in (".", "..") or not all(c.isascii() and (c.isalnum() or c in "._~-") for c in text):
        raise ValueError("an id or number is made of ASCII letters, digits and . _ ~ - only")
    return text


def amount(value: Money) -> str:
    """Decimal text with at most four places. Raises TypeError for floats, which have lost the amount already; ValueError for more places."""
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise TypeError("write money as Decimal, int or decimal text, never as float")
    try:
        number = Decimal(value)
        exact = number.is_finite() and number == number.quantize(Decimal("0.0001"))
    except InvalidOperation:
        exact = False
    if not exact:
        raise ValueError("money is decimal text with at most four decimal places")
    return f"{number:.4f}"


def order_body(
    merchant_order_no: str,
    sku: str,
    *,
    quantity: int = 1,
    target: str | None = None,
    fields: Mapping[str, str] | None = None,
    max_unit_price: Money | None = None,
    deliver_within_s: int | None = None,
    notify_url: str | None = None,
    metadata: Json | None = None,
    confirm_duplicate: bool = False,
) -> dict[str, Any]:
    """An order as it is sent, alone or in a batch; what is not set is left out."""
    body: dict[str, Any] = {"merchant_order_no": merchant_order_no, "sku": sku, "quantity": quantity}
    optional = {
        "target": target,
        "fields": None if fields is None else dict(fields),
        "max_unit_price": None if max_unit_price is None else amount(max_unit_price),
        "deliver_within_s": deliver_within_s,
        "notify_url": notify_url,
        "metadata": None if metadata is None else dict(metadata),
        "confirm_duplicate": confirm_duplicate or None,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def text(value: str | int | datetime | date) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs its zone: use datetime.now(timezone.utc) or the like")
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return str(value)


# --- what comes back ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list. `next_cursor` None: the last one."""

    items: Sequence[T]
    next_cursor: str | None


def one(kind: type[M]) -> Callable[[Answer], M]:
    return lambda answer: kind.read(answer.json())


def page(kind: type[M]) -> Callable[[Answer], Page[M]]:
    def read(answer: Answer) -> Page[M]:
        wire = answer.json()
        if not isinstance(wire, dict) or not isinstance(wire.get("items"), list):
            raise BrokenAnswer("not a list")
        cursor = wire.get("next_cursor")
        return Page(tuple(kind.read(item) for item in wire["items"]), cursor if isinstance(cursor, str) else None)

    return read


def items(kind: type[M], name: str = "items") -> Callable[[Answer], tuple[M, ...]]:
    """A list that comes whole."""

    def read(answer: Answer) -> tuple[M, ...]:
        wire = answer.json()
        if not isinstance(wire, dict) or not isinstance(wire.get(name), list):
            raise BrokenAnswer("not a list")
        return tuple(kind.read(item) for item in wire[name])

    return read


def order(answer: Answer) -> Order:
    """With `replayed` from the header."""
    found = Order.read(answer.json())
    return dataclasses.replace(found, replayed=is_replay(answer))


def order_or_validation(answer: Answer) -> Order | OrderValidation:
    wire = answer.json()
    return order(answer) if isinstance(wire, dict) and wire.get("object") == "order" else OrderValidation.read(wire)


def is_replay(answer: Answer) -> bool:
    return bool(answer.headers.get("idempotent-replayed") == "true")


def nothing(_: Answer) -> None:
    return None


def whole(answer: Answer) -> Answer:
    return answer


def not_that_day(day: str) -> NotGenuine:
    return NotGenuine(f"signed, but not the statement of {day}")


def batch(answer: Answer) -> Batch:
    """With `replayed` from the header."""
    return dataclasses.replace(Batch.read(answer.json()), replayed=is_replay(answer))
