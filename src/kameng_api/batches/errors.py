"""Why a batch is refused, or a file cannot be read. In every case no order has been placed by it.

Problem
├── BatchNoConflict    merchant_batch_no_conflict   the number stands for a batch with other content
└── RowsGone           rows_gone                    the rows as they were sent are no longer kept

FileRefused is no answer to a request: a file is read when its turn comes, and its batch ends as failed with the reason.
"""

from kameng_api.kit.errors import Problem


class BatchNoConflict(Problem):
    """The same number with other content; carries `existing_batch_id`."""

    code = "merchant_batch_no_conflict"


class RowsGone(Problem):
    """The batch is over for so long that its rows were deleted; what became of each is still told by its items."""

    code = "rows_gone"


class FileRefused(Exception):
    """A file that cannot be read as a whole: `reason` is a stable word such as `zip_bomb`, `detail` a sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
