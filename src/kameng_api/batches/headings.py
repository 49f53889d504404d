"""What the columns of a merchant's file are called, in English and Chinese, and what kind of value each holds."""

import re
import unicodedata
from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal

Locale = Literal["en", "zh-CN"]

TEMPLATE_VERSION: Final = 1
MARK: Final = f"#kameng-orders-{TEMPLATE_VERSION}"
"""The heading of an empty last column (hidden in XLSX) that says which template a file was made from."""

RESULT_COLUMNS: Final = ("line_no", "order_id", "status", "error_code", "error_detail")
"""What a result file adds to the columns that were sent."""


class Kind(Enum):
    """How the value of a cell is read."""

    TEXT = "text"  # numbers of orders, phones, accounts: every digit counts, so a spreadsheet's number is only taken when none can be lost
    WHOLE = "whole"
    AMOUNT = "amount"
    FLAG = "flag"
    NOTE = "note"  # metadata: kept with the order, means nothing to us
    UNKNOWN = "unknown"  # the merchant's own column: only kept for the result file


_KINDS: Final[Mapping[str, Kind]] = {
    "merchant_order_no": Kind.TEXT,
    "sku": Kind.TEXT,
    "target": Kind.TEXT,
    "quantity": Kind.WHOLE,
    "face_value": Kind.AMOUNT,
    "max_unit_price": Kind.AMOUNT,
    "deliver_within_s": Kind.WHOLE,
    "confirm_duplicate": Kind.FLAG,
    "notify_url": Kind.TEXT,
    "fields.face_value": Kind.AMOUNT,
}
TEMPLATE_COLUMNS: Final = (
    "merchant_order_no", "sku", "target", "quantity", "face_value", "max_unit_price", "deliver_within_s", "confirm_duplicate"
)  # fmt: skip
FIELD: Final = "fields."
NOTE: Final = "metadata."

_CHINESE: Final[Mapping[str, str]] = {
    "merchant_order_no": "商户订单号",
    "sku": "商品编号",
    "target": "充值账号",
    "quantity": "数量",
    "face_value": "面值",
    "max_unit_price": "最高单价",
    "deliver_within_s": "时限秒数",
    "confirm_duplicate": "允许重复充值",
    "notify_url": "通知地址",
    FIELD: "字段.",
    NOTE: "备注.",
}
_ALSO: Final[Mapping[str, tuple[str, ...]]] = {
    "merchant_order_no": ("订单号", "商户单号", "order no", "order number"),
    "sku": ("商品编码", "商品代码", "产品编号", "产品编码", "product", "product code"),
    "target": ("充值号码", "手机号", "手机号码", "账号", "充值帐号", "account", "phone", "mobile"),
    "quantity": ("购买数量", "份数", "qty"),
    "face_value": ("充值面值", "面额"),
    "max_unit_price": ("单价上限", "最高进价"),
    "deliver_within_s": ("交付时限秒数", "时限(秒)"),
    "confirm_duplicate": ("确认重复",),
    FIELD: ("field.",),
    NOTE: ("附加.", "元数据."),
}
_MARK: Final = re.compile(r"#kameng-orders-([0-9]{1,6})", re.IGNORECASE)
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


def _plain(text: str) -> str:
    """Without what a person does not see or mean: width, case, the star of a column that must be filled, spaces for underscores."""
    return unicodedata.normalize("NFKC", text).strip().rstrip("*").strip().casefold().replace(" ", "_")


_BY_NAME: Final[Mapping[str, str]] = {
    _plain(name): column
    for column in (*_KINDS, FIELD, NOTE)
    for name in (column, *([_CHINESE[column]] if column in _CHINESE else []), *_ALSO.get(column, ()))
}
_PREFIXES: Final = tuple((name, column) for name, column in _BY_NAME.items() if name.endswith("."))


def column_of(heading: str) -> str | None:
    """The column a heading names, None for one that is the merchant's own. `手机号` → `target`, `字段.zone` → `fields.zone`."""
    plain = _plain(heading)
    column = _BY_NAME.get(plain)
    if column is not None and not column.endswith("."):
        return column
    for prefix, column in _PREFIXES:
        if plain.startswith(prefix):
            name = unicodedata.normalize("NFKC", heading).partition(".")[2].strip().rstrip("*").strip()
            return f"{column}{name}" if _NAME.fullmatch(name) else None
    return None


def version_in(heading: str) -> int | None:
    """The template's version, when this heading is its mark."""
    match = _MARK.fullmatch(heading.strip())
    return int(match[1]) if match else None


def kind_of(column: str) -> Kind:
    """What stands under a column, by the name that `column_of` gave it."""
    kind = _KINDS.get(column)
    if kind is not None:
        return kind
    if column.startswith(FIELD):
        return Kind.TEXT
    return Kind.NOTE if column.startswith(NOTE) else Kind.UNKNOWN


def pointer_to(column: str) -> str:
    """The JSON pointer an error of this column names: `/target`, `/fields/zone`."""
    for prefix in (FIELD, NOTE):
        if column.startswith(prefix):
            return f"/{prefix[:-1]}/{_token(column.removeprefix(prefix))}"
    return f"/{_token(column)}"


def heading_of(column: str, locale: Locale) -> str:
    """What our own files write above a column."""
    return _CHINESE.get(column, column) if locale == "zh-CN" else column


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
