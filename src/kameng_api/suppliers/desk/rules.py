"""Papers and contacts of a supplier, and what follows from them. No I/O, no clock."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from kameng_api.kit.errors import FieldError

DOCUMENT_KINDS: Final = (
    "business_licence",  # 营业执照
    "telecom_licence",  # 增值电信业务经营许可证
    "prepaid_card_filing",  # 单用途商业预付卡备案
    "brand_authorisation",  # 品牌授权书
    "tax_certificate",  # 纳税人资格证明
    "contract",  # 采购合同
    "deposit_receipt",  # 保证金收据
    "other",
)
CONTACT_ROLES: Final = ("business", "technical", "finance", "on_duty", "complaints")  # 商务 技术 财务 值班 投诉
FILE_TYPES: Final = ("application/pdf", "image/jpeg", "image/png", "image/webp")
MOST_FILE_BYTES: Final = 10_000_000
HOME: Final = ZoneInfo("Asia/Shanghai")
"""A document ends with its last day there."""

_LONGEST: Final = 200
_URL: Final = re.compile(r"https?://[^\s]{1,500}")


class Standing(StrEnum):
    """Where a document stands today."""

    HOLDS = "holds"
    ENDS_SOON = "ends_soon"  # within its days of reminding
    ENDED = "ended"
    NOT_YET = "not_yet"  # its first day is still to come


@dataclass(frozen=True, slots=True)
class Document:
    """A qualification document (资质). `valid_until` is the last day on which it holds; `required`: no orders after that day."""

    document_id: UUID
    channel_id: str
    kind: str
    number: str = ""
    issuer: str = ""
    valid_from: date | None = None
    valid_until: date | None = None
    remind_days: int = 30
    required: bool = False
    url: str | None = None
    note: str = ""
    file_name: str | None = None
    file_type: str | None = None
    file_size: int | None = None
    file_hash: bytes | None = None
    created_by: str = ""
    created_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_at: datetime | None = None

    def standing(self, today: date) -> Standing:
        """As of `today`, a day in China."""
        if self.valid_until is not None and self.valid_until < today:
            return Standing.ENDED
        if self.valid_from is not None and today < self.valid_from:
            return Standing.NOT_YET
        if self.valid_until is not None and self.valid_until - today <= timedelta(days=self.remind_days):
            return Standing.ENDS_SOON
        return Standing.HOLDS

    @property
    def ends_at(self) -> datetime | None:
        """The first moment at which it no longer holds."""
        return None if self.valid_until is None else datetime.combine(self.valid_until + timedelta(days=1), time(), HOME)


def no_orders_after(documents: Iterable[Document]) -> datetime | None:
    """When the first document ends without which the channel may not be used; None: none does."""
    ends = [ends_at for one in documents if one.required and one.withdrawn_at is None and (ends_at := one.ends_at) is not None]
    return min(ends, default=None)


def check_document(wanted: Document) -> list[FieldError]:
    """What is wrong with a document as it was said."""
    checks = (
        (wanted.kind in DOCUMENT_KINDS, "/kind", "unknown_value", " | ".join(DOCUMENT_KINDS)),
        (_is_line(wanted.number), "/number", "format", f"at most {_LONGEST} printable characters"),
        (_is_line(wanted.issuer), "/issuer", "format", f"at most {_LONGEST} printable characters"),
        (len(wanted.note) <= 1000, "/note", "too_long", "at most 1000 characters"),
        (0 <= wanted.remind_days <= 365, "/remind_days", "out_of_range", "0 to 365"),
        (wanted.url is None or bool(_URL.fullmatch(wanted.url)), "/url", "format", "an http or https address"),
        (
            wanted.valid_from is None or wanted.valid_until is None or wanted.valid_from <= wanted.valid_until,
            "/valid_until",
            "out_of_range",
            "not before valid_from",
        ),
        (not wanted.required or wanted.valid_until is not None, "/required", "not_allowed", "a document without a last day never ends"),
    )
    return [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]


def check_file(content: bytes, file_type: str) -> list[FieldError]:
    """A scan or a PDF, and what it says it is."""
    kinds = {b"%PDF-": "application/pdf", b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
    found = next((kind for head, kind in kinds.items() if content.startswith(head)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        found = "image/webp"
    if not content or len(content) > MOST_FILE_BYTES:
        return [FieldError("", "out_of_range", f"1 to {MOST_FILE_BYTES} bytes")]
    if found is None or found != file_type:
        return [FieldError("/query/type", "format", f"the bytes are not {file_type}; possible are {', '.join(FILE_TYPES)}")]
    return []


@dataclass(frozen=True, slots=True)
class Person:
    """Who a contact is: personal data, sealed as a whole, in no log."""

    name: str = field(repr=False)
    phone: str = field(default="", repr=False)
    im: str = field(default="", repr=False)
    email: str = field(default="", repr=False)

    def plain(self) -> bytes:
        return orjson.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to ask at a supplier, for what, and when. `person` is None where it was not opened."""

    contact_id: UUID
    channel_id: str
    role: str
    hours: str = ""
    person: Person | None = field(default=None, repr=False)
    updated_by: str = ""
    updated_at: datetime | None = None


def check_contact(role: str, hours: str, person: Person) -> list[FieldError]:
    """What is wrong with a contact; never quotes what it refuses."""
    checks = (
        (role in CONTACT_ROLES, "/role", "unknown_value", " | ".join(CONTACT_ROLES)),
        (_is_line(hours), "/hours", "format", f"at most {_LONGEST} printable characters"),
        (bool(person.name.strip()) and _is_line(person.name), "/name", "format", f"1–{_LONGEST} printable characters"),
        (_is_line(person.phone), "/phone", "format", f"at most {_LONGEST} printable characters"),
        (_is_line(person.im), "/im", "format", f"at most {_LONGEST} printable characters"),
        (_is_line(person.email) and (not person.email or "@" in person.email), "/email", "format", "a mail address"),
    )
    return [FieldError(pointer, code, detail) for holds, pointer, code, detail in checks if not holds]


def _is_line(text: str) -> bool:
    return len(text) <= _LONGEST and text.isprintable()


def next_statement_at(timezone: str, lag_s: int, now: datetime) -> datetime:
    """When the next of a supplier's days is whole: so long after its midnight. In UTC-aware time of `timezone`."""
    zone = ZoneInfo(timezone)
    day = now.astimezone(zone).date() - timedelta(days=1 + lag_s // 86_400)
    while True:
        whole_at = datetime.combine(day + timedelta(days=1), time(), zone) + timedelta(seconds=lag_s)
        if whole_at > now:
            return whole_at
        day += timedelta(days=1)


def reminders(documents: Sequence[Document], today: date) -> tuple[dict[str, str], dict[str, str]]:
    """(ending soon, ended): subject of an alarm → its detail. Withdrawn documents are nobody's business."""
    ending: dict[str, str] = {}
    ended: dict[str, str] = {}
    for one in documents:
        if one.withdrawn_at is not None or one.valid_until is None:
            continue
        subject = f"{one.channel_id} {one.kind} {str(one.document_id)[-8:]}"
        stops = "; no orders after it" if one.required else ""
        match one.standing(today):
            case Standing.ENDS_SOON:
                days = (one.valid_until - today).days
                ending[subject] = f"last day {one.valid_until}, {days} day(s) left{stops}"
            case Standing.ENDED:
                ended[subject] = f"last day was {one.valid_until}{'; the channel takes no orders' if one.required else ''}"
            case _:
                pass
    return ending, ended
