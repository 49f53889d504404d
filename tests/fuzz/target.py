"""One operation under many inputs: signed, with ids that exist as well as ids that nobody has, judged by the committed contract."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from tests.factories.client import authorization
from tests.factories.merchants import ApiKey
from tests.factories.shop import PHONE

DOCUMENT = Path(__file__).parents[2] / "openapi" / "kameng.v1.yaml"
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
SKU = "mobile-cn-100"


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
    """A house that listens at `base_url`, and what the key's merchant owns there: path parameter → id."""

    base_url: str
    key: ApiKey
    owned: dict[str, str]
    operations: list[Any] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    by_status: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = [one.ok() for one in schemathesis.openapi.from_path(DOCUMENT).get_all_operations()]
        self.operations = sorted(found, key=lambda o: o.method == "delete")  # what is deleted is no longer there to be asked about

    def faults(self, *, max_examples: int, seeded: int | None = None) -> Iterator[str]:
        """One round over every operation; what was wrong, in words."""
        for operation in self.operations:
            yield from self.faults_of(operation, max_examples=max_examples, seeded=seeded)

    def faults_of(self, operation: Any, *, max_examples: int, seeded: int | None = None) -> Iterator[str]:
        for mode in MODES:
            try:
                self._explore(operation, mode, max_examples, seeded)
            except Unsatisfiable:  # there is no wrong input to an operation without parameters
                assert mode is GenerationMode.NEGATIVE, operation.label
            except BaseExceptionGroup as trouble:
                yield f"{operation.label} {mode.value}: {[str(e) for e in trouble.exceptions]}"
            except Exception as trouble:
                yield f"{operation.label} {mode.value}: {trouble}"

    def _explore(self, operation: Any, mode: GenerationMode, max_examples: int, seeded: int | None) -> None:
        @examples(max_examples=max_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode), mine=st.booleans(), ours=st.booleans())
        def explore(case: Any, mine: bool, ours: bool) -> None:
            if mine:  # else every id would be one that nobody has
                case.path_parameters = {name: self.owned.get(name, value) for name, value in (case.path_parameters or {}).items()}
            if ours and isinstance(case.body, dict):
                case.body = sellable(case.body)
            answer = case.call_and_validate(base_url=self.base_url, auth=Signed(self.key), checks=CHECKS, timeout=30)
            self.sent[operation.label] = self.sent.get(operation.label, 0) + 1
            self.by_status[answer.status_code] = self.by_status.get(answer.status_code, 0) + 1
            self._own(answer.headers.get("location"))

        (explore if seeded is None else seed(seeded)(explore))()

    def _own(self, location: Any) -> None:
        """Ask about what was made, too: a `Location` fits the path of the operations that take its id."""
        told = location[0] if isinstance(location, list) else location
        if not told or self.by_status.get(201, 0) + self.by_status.get(202, 0) > 200:
            return
        path = urlsplit(told).path
        for operation in self.operations:
            shape = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)
            if match := re.fullmatch(shape, path):
                for name, value in match.groupdict().items():
                    self.owned.setdefault(name, value)


def sellable(thing: Any) -> Any:
    """The same with every `sku` and `target` one that this house sells and serves, so that some requests come through to the end."""
    if isinstance(thing, dict):
        known = {"sku": SKU, "target": PHONE}
        return {name: known[name] if name in known and isinstance(value, str) else sellable(value) for name, value in thing.items()}
    return [sellable(one) for one in thing] if isinstance(thing, list) else thing
