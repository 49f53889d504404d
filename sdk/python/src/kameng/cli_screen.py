"""What every command of `kameng-merchant` stands on: the profile, the client, and how answers and troubles are shown."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kameng._sync.client import Client
from kameng.cli_profile import Profile, ProfileTrouble, load
from kameng.errors import ApiError, BrokenAnswer, KamengError, NoAnswer, NotFinal
from kameng.models import Model
from kameng.retries import RetryPolicy

FAILED: Final = 1
REFUSED: Final = 2
UNKNOWN: Final = 3
"""No answer, or none that can be read: what happened is unknown."""
NOT_FINAL: Final = 4

_COLOURS: Final = {
    "succeeded": "green", "completed": "green", "partially_succeeded": "yellow", "completed_with_errors": "yellow",
    "failed": "red", "cancelled": "red", "outcome_unknown": "magenta", "in_stock": "green", "low": "yellow", "out_of_stock": "red",
}  # fmt: skip


class Chosen:
    """What stands before the command: `--profile`, `--json`, `--timeout`."""

    profile = "default"
    named = False
    """Whether a profile was asked for: then no key of the environment takes its place."""
    as_json = False
    deadline_s = 60.0


def console() -> Console:
    return Console(highlight=False)


def aside() -> Console:
    """For what is no answer: hints, progress, troubles."""
    return Console(stderr=True, highlight=False)


def profile() -> Profile:
    """The profile that was named; else the environment's key where KAMENG_KEY_ID is set, else the profile `default`. Raises ProfileTrouble."""
    found = os.environ
    if found.get("KAMENG_KEY_ID") and not Chosen.named:
        return Profile(
            found.get("KAMENG_BASE_URL", ""), found["KAMENG_KEY_ID"], found.get("KAMENG_SECRET") or None, found.get("KAMENG_PRIVATE_KEY") or None
        )
    return load(Chosen.profile)


@contextmanager
def opened() -> Iterator[Client]:
    """A client of the profile; every trouble on the way ends the command with a sentence and a status."""
    with told(), profile().client(retry=RetryPolicy(deadline_s=Chosen.deadline_s)) as client:
        yield client


@contextmanager
def told() -> Iterator[None]:
    """Troubles as sentences. Statuses: 1 refused by the house, 2 wrongly used, 3 no answer, 4 not final yet."""
    try:
        yield
    except (ProfileTrouble, ValueError, TypeError) as trouble:
        fail(str(trouble), REFUSED)
    except (NoAnswer, BrokenAnswer) as trouble:
        fail(str(trouble), UNKNOWN)
    except NotFinal as trouble:
        fail(f"{trouble}; it goes on by itself", NOT_FINAL)
    except ApiError as trouble:
        hint = {"after_s": "; try later", "same_request": "; try again", "query_first": "; look at it first"}.get(trouble.retry, "")
        fail(f"{trouble}{hint}", UNKNOWN if trouble.charged == "unknown" else FAILED)
    except (KamengError, OSError) as trouble:
        fail(str(trouble), FAILED)


def fail(sentence: str, status: int) -> NoReturn:
    aside().print(f"[red]{escape(sentence)}[/red]")
    raise typer.Exit(status)


def plain(value: Any) -> Any:
    """A model as JSON shows it: money and times as text, unknown fields beside the known ones."""
    if isinstance(value, Model):
        known = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "extra"}
        return known | {name: plain(one) for name, one in value.extra.items()}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, (Decimal, date)) else value


def write_json(value: Any, *, line: bool = False) -> None:
    """On stdout; `line`: one line, sent off at once."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=None if line else 1) + "\n")
    if line:
        sys.stdout.flush()


def show(value: Model | Mapping[str, Any], names: Sequence[str] = ()) -> None:
    """One object: all of it, or only `names`, line by line; all of it with `--json`."""
    if Chosen.as_json:
        write_json(value)
        return
    fields = plain(value)
    grid = Table.grid(padding=(0, 2))
    for name in names or fields:
        if fields.get(name) not in (None, [], {}):
            grid.add_row(f"[dim]{escape(name)}[/dim]", coloured(fields[name]))
    console().print(grid)


def show_list(items: Sequence[Any], columns: Mapping[str, Callable[[Any], Any]]) -> None:
    """A table; with `--json` the objects themselves."""
    if Chosen.as_json:
        write_json({"items": items})
        return
    console().print(table(items, columns))


def table(items: Sequence[Any], columns: Mapping[str, Callable[[Any], Any]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        made.add_column(name, overflow="fold")
    for item in items:
        made.add_row(*(coloured(plain(column(item))) for column in columns.values()))
    return made


def coloured(value: Any) -> str:
    if isinstance(value, (dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    text = "" if value is None else str(value)
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else escape(text)
