"""Many orders at once, as JSON or as a file, and what became of each row."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from kameng import calls
from kameng._sync.paging import Pager
from kameng._sync.runner import Runner
from kameng.calls import Call, Page, segment
from kameng.errors import NotFinal
from kameng.models import Batch, BatchItem, BatchLine, Json

Mode = Literal["partial", "all_or_nothing"]
Confirm = Literal["auto", "manual"]
OnShortage = Literal["stop", "skip"]
FileFormat = Literal["csv", "xlsx"]
Which = Literal["succeeded", "failed", "unprocessed", "retry"]
_LONGEST_LOOK_S: Final = 5.0
_MEDIA_TYPES: Final = {
    ".csv": "text/csv",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class Batches:
    """`client.batches`"""

    def __init__(self, client: Runner) -> None:
        self._client = client

    def create(
        self,
        merchant_batch_no: str,
        items: Iterable[Json],
        *,
        mode: Mode = "partial",
        confirm: Confirm = "auto",
        on_insufficient_balance: OnShortage = "stop",
        merge_equal: bool = False,
        split_skus: Sequence[str] = (),
        validate_only: bool = False,
    ) -> Batch:
        """At most 1,000 orders; build each with `kameng.order_item(…)`, or write it as `POST /v1/order-batches` takes it.

        The batch's number is yours and for ever, like an order's.

        Answers at once; `wait` tells how it ended. Raises NumberConflict, ValidationFailed.
        """
        options: dict[str, Any] = {
            "mode": mode,
            "confirm": confirm,
            "on_insufficient_balance": on_insufficient_balance,
            "merge_equal": merge_equal or None,
            "split_skus": list(split_skus) or None,
            "validate_only": validate_only or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        body = {"merchant_batch_no": merchant_batch_no, **given, "items": list(items)}
        return self._client.run(calls.send("POST", "/v1/order-batches", calls.batch, body))

    def upload(
        self,
        merchant_batch_no: str,
        file: str | os.PathLike[str] | bytes,
        *,
        filename: str | None = None,
        mode: Mode = "partial",
        confirm: Confirm = "auto",
        on_insufficient_balance: OnShortage = "stop",
        merge_equal: bool = False,
        split_skus: Sequence[str] = (),
        validate_only: bool = False,
    ) -> Batch:
        """A CSV or XLSX file (a path, or its bytes with a `filename`) of at most 10 MB and 20,000 rows. Else as `create`."""
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
        name = filename if filename is not None else ("" if isinstance(file, bytes) else Path(file).name)
        media_type = _MEDIA_TYPES.get(Path(name).suffix.lower())
        if media_type is None:
            raise ValueError("the file's name must end in .csv or .xlsx")
        query = {
            "merchant_batch_no": merchant_batch_no,
            "filename": name,
            "mode": mode,
            "confirm": confirm,
            "on_insufficient_balance": on_insufficient_balance,
            "merge_equal": "true" if merge_equal else None,
            "split_skus": ",".join(split_skus) or None,
            "validate_only": "true" if validate_only else None,
        }
        call = Call("POST", "/v1/order-imports", calls.batch, query, content, media_type)
        return self._client.run(call)

    def list(self, *, status: str | None = None, page_size: int = 100, cursor: str | None = None) -> Pager[Batch]:
        """Batches and imports, newest first."""

        def fetch(at: str | None) -> Page[Batch]:
            return self._client.run(calls.get("/v1/order-batches", calls.page(Batch), status=status, limit=page_size, cursor=at))

        return Pager(fetch, cursor)

    def by_number(self, merchant_batch_no: str) -> Batch:
        """By your own number. Raises NotFound."""
        return self._client.run(calls.get(f"/v1/order-batches/by-merchant-no/{segment(merchant_batch_no)}", calls.batch))

    def line(self, batch_id: str, line_no: int) -> BatchLine:
        """One row with the orders it was split into."""
        return self._client.run(calls.get(f"/v1/order-batches/{segment(batch_id)}/lines/{line_no}", calls.one(BatchLine)))

    def results(self, batch_id: str, which: Which, *, format: FileFormat = "csv") -> bytes:
        """The rows as you sent them with what became of each, as a file. `retry`: the failed ones alone, to be corrected and uploaded again."""
        path = f"/v1/order-batches/{segment(batch_id)}/results/{which}"
        return (self._client.run(calls.get(path, calls.whole, format=format))).content

    def template(self, *, format: FileFormat = "xlsx", locale: Literal["en", "zh-CN"] = "en") -> bytes:
        """An empty file with the columns that `upload` understands."""
        return (self._client.run(calls.get("/v1/order-imports/template", calls.whole, format=format, locale=locale))).content

    def get(self, batch_id: str) -> Batch:
        return self._client.run(calls.get(f"/v1/order-batches/{segment(batch_id)}", calls.batch))

    def items(self, batch_id: str, *, status: str | None = None, page_size: int = 100) -> Pager[BatchItem]:
        """Its rows in their order, with what became of each. `status`: only those."""

        def fetch(at: str | None) -> Page[BatchItem]:
            path = f"/v1/order-batches/{segment(batch_id)}/items"
            return self._client.run(calls.get(path, calls.page(BatchItem), status=status, limit=page_size, cursor=at))

        return Pager(fetch)

    def confirm(self, batch_id: str) -> Batch:
        """Lets a validated batch go on that waits for it (`confirm="manual"`)."""
        return self._client.run(calls.send("POST", f"/v1/order-batches/{segment(batch_id)}/confirm", calls.batch))

    def cancel(self, batch_id: str) -> Batch:
        """What is not placed yet will not be; orders that were placed live on."""
        return self._client.run(calls.send("POST", f"/v1/order-batches/{segment(batch_id)}/cancel", calls.batch))

    def wait(
        self, batch: Batch | str, *, timeout_s: float = 600.0, every_s: float = 0.5, on_progress: Callable[[Batch], None] | None = None
    ) -> Batch:
        """Until nothing changes any more by itself; `on_progress` hears every look. Raises NotFinal with the batch as it stands then."""
        ends_at = time.monotonic() + timeout_s
        found = self.get(batch) if isinstance(batch, str) else batch
        while True:
            if on_progress is not None:
                on_progress(found)
            if found.is_at_rest:
                return found
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise NotFinal(found)
            time.sleep(min(every_s, left_s))
            every_s = min(every_s * 1.5, _LONGEST_LOOK_S)
            found = self.get(found.id)
