"""Commands that are imported when they are asked for: until then a name and one line of help stand for them.

Together they are most of this program. `kameng --help` and the processes need none of them, and one command needs one of them.
"""

import importlib
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from kameng_api.kit.memory import keep_what_is_made

_GROUPS: Final = {
    "operator": ("people:operator_app", "Operators and their tokens."),
    "merchant": ("people:merchant_app", "Merchants."),
    "key": ("people:key_app", "API keys of merchants."),
    "delivery-key": ("people:delivery_key_app", "Keys under which card codes leave the house."),
    "door": ("doors:door_app", "Doors: other platforms' protocols, for merchants whose software speaks them."),
    "product": ("catalog:product_app", "Products."),
    "price": ("catalog:price_app", "Prices."),
    "channel": ("catalog:channel_app", "Connections to suppliers."),
    "supplier": ("supplier_files:supplier_app", "Suppliers: at a glance, connections tried, wallets, papers, contacts; and a new one."),
    "offer": ("catalog:offer_app", "What channels sell."),
    "catalog": ("catalog_sync:catalog_app", "Suppliers' lists: read, asked about, remembered."),
    "route": ("route:route_app", "Which channel gets which order: what people say about it, and why it was so."),
    "approval": ("money:approval_app", "Movements that wait for a second person."),
    "review": ("money:review_app", "Orders that wait for a person."),
    "order": ("money:order_app", "Orders."),
    "ledger": ("money:ledger_app", "The books."),
    "reconcile": ("reconciliation:reconcile_app", "Suppliers' books beside ours."),
    "book": ("statements:book_app", "Books whose postings are stopped."),
    "statement": ("statements:statement_app", "Signed statements of merchants' days."),
    "evidence": ("evidence:evidence_app", "The chain that proves that nothing was changed afterwards."),
    "restore": ("evidence:restore_app", "After a restore: nothing is bought until you say so."),
    "tasks": ("people:tasks_app", "Work that was given up."),
    "alarm": ("people:alarm_app", "Alarms."),
}
"""Groups: where each stands in this package, and what `--help` says of it."""

_MONEY: Final = {
    "fund": ("money:money_app", "Money that came in for a merchant; one receipt credits one merchant, once. In test it is play money."),
    "adjust": ("money:money_app", "A correction against suspense, under the number of the ticket that asks for it."),
    "credit": ("money:money_app", "How far a merchant's spendable balance may fall below zero."),
    "topup": ("money:money_app", "What we paid a supplier in advance."),
    "refund": ("money:money_app", "Money back to the merchant, never more than the order captured."),
}
_CONFORMANCE: Final = {
    "conformance": (
        "conformance:conformance_app",
        "Play the platform against a merchant's software. Status 0: all passed; 1: something failed; 4: something was not checked.",
    ),
}
_COMMANDS: Final = _MONEY | _CONFORMANCE
"""Commands without a group: the same, and the words are those under the command's own `--help`."""


class Commands(TyperGroup):
    """The group of all commands: what is asked for by name is imported first."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else find_command(name) or command, rest


def find_command(name: str) -> Any:
    """The group or command itself, imported; None for one that does not stand here."""
    if name in _GROUPS:
        place, told = _GROUPS[name]
        alone = typer.Typer()
        alone.add_typer(load(f"kameng_api.cli.{place}"), name=name, help=told)
        return get_group(alone).commands[name]
    if name in _COMMANDS:
        return get_group(load(f"kameng_api.cli.{_COMMANDS[name][0]}")).commands[name]
    return None


def load(place: str) -> Any:
    """`module:attribute`, by name and not by import: a worker must not carry the web framework in its memory."""
    module, _, attribute = place.partition(":")
    if module not in sys.modules:
        with keep_what_is_made():
            importlib.import_module(module)
    return getattr(sys.modules[module], attribute)


def list_in(app: typer.Typer) -> None:
    """Let `--help` and completion know everything that stands here."""
    alone = typer.Typer()  # what has no name of its own is listed behind the groups
    for part, commands in ((app, _CONFORMANCE), (alone, _MONEY)):
        for name, (_, told) in commands.items():
            part.command(name, help=told)(_stand_in)
    for name, (_, told) in _GROUPS.items():
        app.add_typer(typer.Typer(help=told), name=name)
    app.add_typer(alone)


def _stand_in() -> None:
    """Never called: `Commands` puts the command in its place."""
