"""A route that reads JSON as a signed API must: one document, one meaning, and nothing it was not asked for."""

from collections.abc import Callable, Coroutine, Iterable
from inspect import isclass
from typing import Any, Final, TypeVar
from urllib.parse import unquote_plus

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response
from starlette.types import Receive, Scope

from kameng_api.api.access import Access, shape_of
from kameng_api.api.problems import field_errors
from kameng_api.kit import strict_json
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem

ANY_QUERY: Final = "x-any-query"
"""In a route's `openapi_extra`: it reads no parameters, and refuses none."""
_JSON: Final = b"application/json"


class UnsupportedMediaType(Problem):
    """The body is not declared as plain JSON."""

    code = "unsupported_media_type"


class WireModel(BaseModel):
    """What comes in: no unknown field, no `"1"`, `1.0` or `true` where an integer is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


Model = TypeVar("Model", bound=BaseModel)


async def read_json(request: Request) -> Any:
    """The body as one JSON document. Raises UnsupportedMediaType, MalformedJson."""
    check_content_type(request.scope["headers"])
    body: bytes | None = request.scope.get("kameng.body")
    return strict_json.loads(body if body is not None else await request.body())


async def read_model(request: Request, model: type[Model]) -> Model:
    """The body as `model`. Raises UnsupportedMediaType, MalformedJson, Invalid."""
    document = await read_json(request)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = field_errors(error.errors(include_url=False, include_context=False, include_input=False))
        raise Invalid(errors=wrong) from None


def check_content_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises UnsupportedMediaType unless the body is declared as application/json, in UTF-8, as it is."""
    declared: list[bytes] = []
    for name, value in headers:
        if name == b"content-type":
            declared.append(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMediaType("a compressed body is not accepted")
    if declared == [_JSON]:
        return
    if len(declared) == 1:
        kind, _, parameter = declared[0].lower().partition(b";")
        if kind.strip() == _JSON and parameter.strip().replace(b'"', b"") in (b"", b"charset=utf-8"):
            return
    raise UnsupportedMediaType("send Content-Type: application/json")


class StrictRoute(APIRoute):
    """Reads its body through `kit.strict_json`, and refuses query parameters that are unknown or given twice."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        asked = query_names(self)
        any_query = bool((self.openapi_extra or {}).get(ANY_QUERY))
        has_body = self.body_field is not None
        shape = shape_of(self.path_format)

        async def strictly(request: Request) -> Response:
            scope = request.scope
            access: Access | None = scope.get("kameng.access")
            # The gate and the router read the path each for itself; where they would differ, nothing is done.
            if access is not None and access.shape != shape:
                raise NotFound("no such path")
            if scope["query_string"] and not any_query:
                check_query(scope["query_string"], asked)
            if not has_body:
                return await handle(request)
            document = await read_json(request)
            return await handle(_Read(scope, request.receive, document))

        return strictly


class _Read(Request):
    """A request whose body has been read already, so that the framework does not read it its own way."""

    def __init__(self, scope: Scope, receive: Receive, document: Any) -> None:
        super().__init__(scope, receive)
        self._json = document
        self._body = b"-"  # not empty: the framework asks for `json()` only then

    async def json(self) -> Any:
        return self._json


def query_names(route: APIRoute) -> frozenset[str]:
    """The query parameters this route knows, as they are written in a request."""
    names: set[str] = set()
    pending: list[Dependant] = [route.dependant]
    while pending:
        dependant = pending.pop()
        pending += dependant.dependencies
        for parameter in dependant.query_params:
            kind = parameter.field_info.annotation
            if isclass(kind) and issubclass(kind, BaseModel):
                names |= {field.alias or name for name, field in kind.model_fields.items()}
            else:
                names.add(parameter.alias)
    return frozenset(names)


def check_query(query: bytes, asked: frozenset[str]) -> None:
    """Raises Invalid for a parameter that is unknown, given twice, or has no name."""
    seen: set[str] = set()
    wrong: list[FieldError] = []
    for part in query.decode("latin-1").split("&")[:101]:
        name = unquote_plus(part.partition("=")[0])
        if name not in asked:
            wrong.append(FieldError("/query", "unknown_field", "this path knows no such parameter"))
        elif name in seen:
            wrong.append(FieldError(f"/query/{name}", "duplicate", "given twice"))
        seen.add(name)
    if wrong:
        raise Invalid("the query cannot be read in one way only", errors=wrong)
