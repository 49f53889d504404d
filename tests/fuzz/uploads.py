"""Many orders at once as merchants might send them, sound, odd and broken: what a schema that says "bytes" would never find.

Made with `random` and not by Hypothesis, which shows a reader the same few files over and over when it may make only some dozen.
"""

import csv
import io
import random
from datetime import datetime
from typing import Any

import xlsxwriter
from tests.factories.shop import PHONE

CSV = "text/csv"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
BYTES = "application/octet-stream"
SKU = "mobile-cn-100"

_HEADINGS = (
    "merchant_order_no", "sku", "target", "quantity", "face_value", "max_unit_price", "deliver_within_s", "confirm_duplicate", "notify_url",
    "fields.zone", "fields.face_value", "metadata.shop", "订单号", "商品编号*", "手机号", "备注.x", "SKU", " sku ", "remark", "-1+1", "status",
    "line_no", "#kameng-orders-1", "metadata./~", "Target", "my column",
)  # fmt: skip
_ODD_HEADINGS = ("=1+1", "#kameng-orders-99", "", "x" * 121, "fields.", "sku", "#REF!", "\u0007")
_SOUND = ("merchant_order_no", "sku", "target", "quantity", "remark")
_TEXTS = (
    SKU, PHONE, "10000000001", "test-card", "no-such", "1", "2", "100", "98.5", "0", "-1", "1e3", "1.38E+10", "=1+1", '="0138"', "'0138", "是",
    "true", "2026-11-23", "#REF!", "https://merchant.example/h", "http://10.0.0.1/", "a,b", 'a"b', "a\nb", "\ufeff", "\u3000", "", "９９",
    "x" * 70, "PO-1", "PO-2", "\u0000", "\ud7ff", "𝟙", "\u202e1", "9" * 400, "1" * 5000,
)  # fmt: skip
_DAY = datetime.fromisoformat("2026-11-23")
_NOT_TEXT = (0, 1, -1, 10**15, 10**18, 2**53, 0.1, 1.5, 13800138000, 13800138000.5, 1e300, True, False, _DAY)
_MAKES = ("csv", "csv", "csv", "xlsx", "xlsx", "xlsx", "broken csv", "broken xlsx", "bytes")
Table = tuple[list[str], list[list[Any]]]


def upload(seeded: str) -> tuple[bytes, str, dict[str, str]]:
    """(content, media type, query) of an import that is taken in, whatever its reader will say of it later. The same for the same seed."""
    dice = random.Random(seeded)
    make = dice.choice(_MAKES)
    content = dice.randbytes(dice.randrange(1, 200)) if make == "bytes" else _xlsx(dice) if make.endswith("xlsx") else _csv(dice)
    if make.startswith("broken"):
        content = _broken(dice, content)
    name = "a.xlsx" if content.startswith(b"PK") else "a.csv"
    number = "F-again" if dice.random() < 0.05 else f"F-{dice.randbytes(8).hex()}"
    query = {"merchant_batch_no": number, "filename": dice.choice((name,) * 8 + ("账.XLSX", "b.csv"))}
    options = {
        "mode": ("partial", "all_or_nothing"), "validate_only": ("true", "false"), "confirm": ("auto", "manual"),
        "on_insufficient_balance": ("stop", "skip"), "merge_equal": ("true", "false"), "split_skus": (SKU, f"{SKU},test-card"),
    }  # fmt: skip
    query |= {option: dice.choice(values) for option, values in options.items() if dice.random() < 0.3}
    return content or b"sku\n", dice.choice((CSV, XLSX, BYTES)), query


def batch(seeded: str) -> dict[str, Any]:
    """A batch in JSON that is taken in: every member has the right form, and what they mean together is left to chance."""
    dice = random.Random(seeded)
    options = {
        "mode": ("partial", "all_or_nothing"), "validate_only": (True, False), "confirm": ("auto", "manual"),
        "on_insufficient_balance": ("stop", "skip"), "merge_equal": (True, False), "split_skus": ([SKU], [SKU, "test-card"], ["no-such"]),
    }  # fmt: skip
    members = {
        "merchant_order_no": ("PO-mine", "PO-1", f"B-{dice.randrange(10**9)}"), "sku": (SKU, SKU, SKU, "test-card", "no-such"),
        "face_value": ("100", "150", "0.0001", "99999999999"), "quantity": (1, 2, 100, 100_000), "target": (PHONE, PHONE, "10000000002", "138", "=x"),
        "fields": ({"face_value": "1"}, {"zone": "east"}, {"": ""}), "max_unit_price": ("100", "0.0001"), "deliver_within_s": (1, 86_400),
        "metadata": ({"n": 1, "t": "x", "b": True},), "confirm_duplicate": (True,),
    }  # fmt: skip
    likely = {"sku": 0.9, "target": 0.9}
    items = [
        {name: dice.choice(values) for name, values in members.items() if dice.random() < likely.get(name, 0.15)}
        for _ in range(dice.choice((1, 2, 3, 5, 30)))
    ]
    return {"merchant_batch_no": f"B-{dice.randbytes(8).hex()}", "items": items} | {
        name: dice.choice(values) for name, values in options.items() if dice.random() < 0.3
    }


def _table(dice: random.Random) -> Table:
    if dice.random() < 0.5:  # rows of which some can be bought
        skus, targets = (SKU, SKU, "test-card", "no-such"), (PHONE, "10000000002", "138", "")
        numbers = [f"F-{dice.randrange(10**9)}" if n % 2 else "" for n in range(dice.randrange(1, 12))]
        return list(_SOUND), [[number, dice.choice(skus), dice.choice(targets), str(n), "r"] for n, number in enumerate(numbers)]
    head = dice.sample(_HEADINGS, dice.randrange(1, 9)) + ([dice.choice(_ODD_HEADINGS)] if dice.random() < 0.15 else [])
    if "sku" not in head and dice.random() < 0.9:
        head.append("sku")
    rows = [[_cell(dice) for _ in range(dice.randrange(len(head) + (dice.random() < 0.1) + 1))] for _ in range(dice.randrange(10))]
    return head, rows


def _cell(dice: random.Random) -> Any:
    if dice.random() < 0.2:
        return dice.choice(_NOT_TEXT)
    return dice.choice(_TEXTS) if dice.random() < 0.9 else "".join(chr(dice.randrange(1, 0xD800)) for _ in range(dice.randrange(12)))


def _csv(dice: random.Random) -> bytes:
    out = io.StringIO(newline="")
    head, rows = _table(dice)
    writer = csv.writer(out, delimiter=dice.choice(",,,;\t"), lineterminator=dice.choice(("\r\n", "\n")))
    writer.writerows([head, *rows])
    text = dice.choice(("",) * 12 + ("\ufeff", "sep=;\n", "\r\n", "Orders of today\n")) + out.getvalue()
    return text.encode(dice.choice(("utf-8", "utf-8", "utf-8", "gb18030", "utf-16", "utf-16-le")), "replace")


def _xlsx(dice: random.Random) -> bytes:
    out = io.BytesIO()
    head, rows = _table(dice)
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        sheet, dates = book.add_worksheet(), book.add_format({"num_format": "yyyy-mm-dd"})
        for n, row in enumerate([head, *rows]):
            for place, cell in enumerate(row):
                if isinstance(cell, str) and not cell.startswith("="):
                    sheet.write_string(n, place, cell)
                else:
                    sheet.write(n, place, cell, *([dates] if isinstance(cell, datetime) else []))
        odd = dice.choice((*("",) * 12, "merged", "hidden row", "second sheet", "hidden sheet", "far cell"))
        if odd == "merged":
            sheet.merge_range(1, 0, 2, 1, "both")
        elif odd == "hidden row":
            sheet.set_row(1, None, None, {"hidden": True})
        elif odd == "far cell":
            sheet.write_string(dice.choice((1_000_000, 50)), dice.choice((0, 16_000)), "x")
        elif odd.endswith("sheet"):
            other = book.add_worksheet()
            other.write(0, 0, "sku")
            if odd.startswith("hidden"):
                other.hide()
    return out.getvalue()


def _broken(dice: random.Random, content: bytes) -> bytes:
    place = dice.randrange(len(content))
    before, after = content[:place], content[place:]
    return dice.choice((before, before + bytes(255 - b for b in after[:3]) + after[3:], content + content, before + b"\x00" * 7 + after, after))
