"""`kameng …`: starts the processes, and lets an operator with access to the database do what the operator's API does."""

from collections.abc import Sequence
from importlib import import_module

from kameng_api.kit.memory import keep_what_is_made


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    with keep_what_is_made():
        app = import_module("kameng_api.cli.app")  # by name, because it is imported here: else its memory would be searched while it comes
    app.main(arguments)
