"""What the visitor sees: a live table where there is a terminal, plain lines where there is none."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kameng_api.demo.clients import Keys
from kameng_api.demo.stage import Addresses

_COLOURS: Final = {
    "accepted": "cyan",
    "processing": "yellow",
    "succeeded": "green",
    "partially_succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


@dataclass(slots=True)
class Line:
    """One row of the table."""

    title: str
    what: str
    trail: list[str] = field(default_factory=list)
    done: bool | None = None


class Screen:
    """One tour's output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._lines: dict[str, Line] = {}
        self._began = time.monotonic()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """One line above whatever is live."""
        self.console.print(Text(text))

    def open_table(self) -> None:
        self._began = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=5, transient=False)
            self._live.start()

    def close_table(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def add(self, title: str, what: str) -> None:
        self._lines[title] = Line(title, what)

    def move(self, title: str, state: str) -> None:
        """The order behind this row has reached a state; the same state again is no news."""
        line = self._lines[title]
        if line.trail and line.trail[-1] == state:
            return
        line.trail.append(state)
        if self._live is None:
            self.say(f"{time.monotonic() - self._began:5.1f} s  {title:<38} {state}")

    def end(self, title: str, held: bool) -> None:
        self._lines[title].done = held

    def _table(self) -> Group:
        table = Table(title=f"orders, {time.monotonic() - self._began:.0f} s", title_justify="left", expand=False)
        for name in ("", "order", "sent", "states"):
            table.add_column(name, no_wrap=name != "states")
        for line in self._lines.values():
            mark = {None: "·", True: "[green]✓[/]", False: "[red]✗[/]"}[line.done]
            table.add_row(mark, line.title, line.what, _coloured(line.trail))
        return Group(table)

    def timeline(self, title: str, items: Sequence[dict[str, Any]]) -> None:
        """One order's steps."""
        self._print(title, ("at", "step", "detail"), [[item["at"], item["step"], item["detail"]] for item in items])

    def money(self, name: str, balance: dict[str, Any], flow: Sequence[dict[str, Any]]) -> None:
        """The balance and the newest lines of the fund flow."""
        shown = "  ".join(f"{part} {balance[part]}" for part in ("available", "held", "credit_limit", "frozen"))
        self.say(f"\n{name}: {shown} {balance['currency']}")
        rows = [[item["created_at"], item["type"], item["amount"], item["balance_after"]] for item in flow]
        self._print("fund flow, newest first", ("at", "type", "amount", "balance after"), rows)

    def verdicts(self, verdicts: Sequence[tuple[str, str | None]]) -> None:
        """Every check, orders in the order of the table; None: it held."""
        self.say("")
        places = {title: n for n, title in enumerate(self._lines)}
        for name, trouble in sorted(verdicts, key=lambda verdict: places.get(verdict[0], len(places))):
            self.console.print(Text.assemble(("✗ ", "red") if trouble else ("✓ ", "green"), name, f": {trouble}" if trouble else ""))

    def keys(self, at: Addresses, token: str, merchants: Sequence[Keys], skus: Sequence[str]) -> None:
        """What a visitor needs to send requests."""
        self.say("")
        self.say(f"base URL      {at.base_url}    (API reference: {at.base_url}/docs)")
        self.say(f"operator API  {at.admin_url}    token {token}")
        self.say(f"simulator     {at.simulator_url}    token {at.simulator_token}")
        for keys in merchants:
            proof = f"secret {keys.secret}" if keys.secret is not None else f"private_key {keys.private_key}"
            self.say(f"merchant      {keys.name}: key_id {keys.key_id}  {proof}")
            self.say(f"              delivery_key {keys.delivery_key}  webhook_secret {keys.webhook_secret}")
        self.say(f"SKUs          {' '.join(skus)}")

    def _print(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if not self.console.is_terminal:
            self.say(f"\n{title}")
            for row in rows:
                self.say("  " + "  ".join(f"{cell:<18}" for cell in row).rstrip())
            return
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def _coloured(trail: Sequence[str]) -> Text:
    parts: list[Any] = []
    for state in trail:
        parts += [" → "] if parts else []
        parts.append((state, _COLOURS.get(state.partition("/")[0], "")))
    return Text.assemble(*parts)
