"""What every command shares, those that never see the database too: its settings, how its answers are printed, how it ends."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.table import Table

from kameng_api import embedded
from kameng_api.settings import Settings
from kameng_api.suppliers.registry import use_files

REFUSED: Final = 2
UNAVAILABLE: Final = 3


class Printing:
    """How answers leave; `--json` anywhere on the command line switches to JSON."""

    as_json = False


def read_settings() -> Settings:
    """From the environment and `.env`; ends the process with a sentence per mistake."""
    try:
        settings = Settings()
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            where = "_".join(str(step) for step in one["loc"]).upper()
            sys.stderr.write(f"KAMENG_{where}: {one['msg']}\n" if where else f"{one['msg']}\n")
        raise SystemExit(REFUSED) from None
    use_files(settings.supplier_files)
    return settings


def find_servers(settings: Settings, *, with_redis: bool = False) -> Settings:
    """The same settings with every address filled in: what is not set is the embedded server's, started on demand."""
    needs_postgres, needs_redis = settings.database_url is None, with_redis and settings.redis_url is None
    if not (needs_postgres or needs_redis):
        return settings
    try:
        found = embedded.start(settings.var, postgres=needs_postgres, redis=needs_redis)
    except embedded.EmbeddedError as trouble:
        fail(f"the embedded servers did not start: {trouble}", UNAVAILABLE)
    update: dict[str, SecretStr] = {}
    if needs_postgres:
        update = {"database_url": SecretStr(found.app_url), "database_owner_url": SecretStr(found.owner_url)}
    if needs_redis:
        update["redis_url"] = SecretStr(found.redis_url)
    return settings.model_copy(update=update)


def fail(sentence: str, status: int) -> NoReturn:
    """Say why on standard error and end."""
    sys.stderr.write(sentence + "\n")
    raise typer.Exit(status)


def show(answer: Mapping[str, Any]) -> None:
    """One thing."""
    if Printing.as_json:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        return
    for name, value in answer.items():
        sys.stdout.write(f"{name}: {_text(value)}\n")


def show_list(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Many things: all of them as JSON, or these columns as a table."""
    if Printing.as_json:
        sys.stdout.write(json.dumps({"items": list(items)}, ensure_ascii=False) + "\n")
        return
    table = Table(*columns, box=None, pad_edge=False)
    for item in items:
        table.add_row(*(_text(item.get(column)) for column in columns))
    Console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
