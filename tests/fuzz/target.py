"""One operation under many inputs: signed, with ids that exist as well as ids that nobody has, judged by the committed contract."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig as Config
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from schemathesis.transport import SerializationContext
from schemathesis.transport.serialization import serialize_binary
from tests.factories.client import authorization
from tests.factories.merchants import ApiKey
from tests.factories.shop import PHONE
from tests.fuzz.uploads import CSV, SKU, XLSX, batch, upload

DOCUMENT = Path(__file__).parents[2] / "openapi" / "kameng.v1.yaml"
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
BATCH, IMPORT = "POST /v1/order-batches", "POST /v1/order-imports"
_OWNED_AT_MOST = 12
_FILES_PER_EXAMPLE = 4
"""A file has more in it to go wrong than a JSON document whose schema says what it holds."""


@schemathesis.serializer(CSV, XLSX)
def raw(_: SerializationContext, value: Any) -> dict[str, Any]:
    """A file is sent as it is; without this, schemathesis leaves the media types out that it does not know."""
    return {"data": serialize_binary(value)}


class Signed(requests.auth.AuthBase):
    """Signs the very bytes that are about to leave."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        content = r.body.encode() if isinstance(r.body, str) else r.body or b""
        assert r.method is not None and r.path_url is not None
        r.headers["Authorization"] = authorization(self._key, r.method, r.path_url.encode(), content)
        return r


@dataclass
class Target:
    """A house that listens at `base_url`, and what the key's merchant owns there: path parameter → ids."""

    base_url: str
    key: ApiKey
    owned: dict[str, list[str]]
    operations: list[Any] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    by_status: dict[int, int] = field(default_factory=dict)
    last_status: int = 0
    answers: dict[str, Counter[int]] = field(default_factory=dict)
    refusals: dict[str, Counter[str]] = field(default_factory=dict)
    kinds_sent: Counter[str] = field(default_factory=Counter)
    """Media types of the files that were taken in."""

    def __post_init__(self) -> None:
        config = Config()
        config.projects.default.generation.update(with_security_parameters=False)  # `Authorization` is `Signed`'s, whatever is generated
        found = [one.ok() for one in schemathesis.openapi.from_path(DOCUMENT, config=config).get_all_operations()]
        self.operations = sorted(found, key=lambda o: o.method == "delete")  # what is deleted is no longer there to be asked about

    def faults(self, *, max_examples: int, seeded: int | None = None) -> Iterator[str]:
        """One round over every operation; what was wrong, in words."""
        for operation in self.operations:
            yield from self.faults_of(operation, max_examples=max_examples, seeded=seeded)

    def faults_of(self, operation: Any, *, max_examples: int, seeded: int | None = None) -> Iterator[str]:
        ways: dict[str, Callable[[], None]] = {mode.value: partial(self._explore, operation, mode, max_examples, seeded) for mode in MODES}
        if operation.label == IMPORT:
            ways["files"] = partial(self._upload, operation, max_examples * _FILES_PER_EXAMPLE, seeded)
        if operation.label == BATCH:
            ways["batches"] = partial(self._send_batches, operation, max_examples, seeded)
        for way, explore in ways.items():
            try:
                explore()
            except Unsatisfiable:  # there is no wrong input to an operation without parameters
                assert way == GenerationMode.NEGATIVE.value, operation.label
            except BaseExceptionGroup as trouble:
                yield f"{operation.label} {way}: {[str(e) for e in trouble.exceptions]}"
            except Exception as trouble:
                yield f"{operation.label} {way}: {trouble}"

    def _explore(self, operation: Any, mode: GenerationMode, max_examples: int, seeded: int | None) -> None:
        @examples(max_examples=max_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode), mine=st.none() | st.integers(0, _OWNED_AT_MOST), ours=st.booleans())
        def explore(case: Any, mine: int | None, ours: bool) -> None:
            if mine is not None:  # else every id would be one that nobody has
                case.path_parameters = {name: self._one_of(name, mine, value) for name, value in (case.path_parameters or {}).items()}
            if ours and isinstance(case.body, dict):
                case.body = sellable(case.body)
            self._ask(operation, case)

        (explore if seeded is None else seed(seeded)(explore))()

    def _upload(self, operation: Any, max_examples: int, seeded: int | None) -> None:
        for n in range(max_examples):
            content, media_type, query = upload(f"{seeded} {n}")
            self._ask(operation, operation.Case(query=query), data=content, headers={"Content-Type": media_type})
            self.kinds_sent[media_type] += self.last_status == 202

    def _send_batches(self, operation: Any, max_examples: int, seeded: int | None) -> None:
        for n in range(max_examples):
            self._ask(operation, operation.Case(body=batch(f"{seeded} {n}"), media_type="application/json"))

    def _ask(self, operation: Any, case: Any, **sent: Any) -> None:
        answer = case.call_and_validate(base_url=self.base_url, auth=Signed(self.key), checks=CHECKS, timeout=30, **sent)
        self.last_status = answer.status_code
        self.sent[operation.label] = self.sent.get(operation.label, 0) + 1
        self.by_status[answer.status_code] = self.by_status.get(answer.status_code, 0) + 1
        self.answers.setdefault(operation.label, Counter())[answer.status_code] += 1
        if answer.status_code >= 400:
            told = answer.json()
            where = " ".join(wrong["pointer"] for wrong in told.get("errors", ()))
            self.refusals.setdefault(operation.label, Counter())[f"{told['code']} {where}".strip()] += 1
        self._own(answer.headers.get("location"))

    def _own(self, location: Any) -> None:
        """Ask about what was made, too: a `Location` fits the path of the operations that take its id."""
        told = location[0] if isinstance(location, list) else location
        if not told:
            return
        path = urlsplit(told).path
        for operation in self.operations:
            shape = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)
            if match := re.fullmatch(shape, path):
                for name, value in match.groupdict().items():
                    known = self.owned.setdefault(name, [])
                    if value not in known:
                        del known[1:-_OWNED_AT_MOST]  # the first was there before and stays
                        known.append(value)

    def _one_of(self, name: str, which: int, other: Any) -> Any:
        known = self.owned.get(name)
        return known[which % len(known)] if known else other


SOUND: Mapping[str, Any] = {
    "sku": SKU, "target": PHONE, "code": SKU, "quantity": 1, "max_unit_price": "1000", "fields": {}, "confirm_duplicate": True, "wait_s": 0,
    "notify_url": "https://merchant.example/hook", "url": "https://merchant.example/fuzz", "split_skus": [SKU], "face_value": "100",
    "type": "order.succeeded",
}  # fmt: skip


def sellable(thing: Any) -> Any:
    """The same with members that this house can serve where what fits the schema seldom makes sense, so that some requests come through."""
    if isinstance(thing, dict):
        sound = {name: SOUND[name] if name in SOUND and value is not None else sellable(value) for name, value in thing.items()}
        return sound | ({"target": PHONE} if sound.keys() & {"sku", "code"} else {})
    return [sellable(one) for one in thing] if isinstance(thing, list) else thing
