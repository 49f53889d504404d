"""`python docs/site/sample_events.py` writes the body of each event into `examples.json`, as the house makes them up for a merchant's test send."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from kameng_api.webhooks import samples
from kameng_api.webhooks.events import EVENT_TYPES
from kameng_api.webhooks.queries import Endpoint

FILE = Path(__file__).with_name("examples.json")
_AT = datetime(2026, 11, 22, 11, 44, 59, tzinfo=UTC)
_EVENT = UUID("01930a00-0000-7000-8000-000000000042")


class _Somebody(Endpoint):
    """An endpoint of nobody's: only what a sample asks for is set."""

    def __init__(self) -> None:
        object.__setattr__(self, "endpoint_id", UUID("01930a00-0000-7000-8000-000000000006"))
        object.__setattr__(self, "book_id", 1001)
        object.__setattr__(self, "url", "https://shop.example.com/kameng/webhooks")


def made() -> dict[str, Any]:
    """Event type → body. What marks a test send is left out: the page shows the real thing."""
    found = {}
    for name in EVENT_TYPES:
        body = json.loads(samples.body_of_sample(name, _EVENT, _Somebody(), _AT))
        del body["test"]
        found[name] = body
    return found


if __name__ == "__main__":
    told = json.loads(FILE.read_text(encoding="utf-8"))
    told["events"] = made()
    FILE.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
