"""`kameng …`: starts the processes, and lets an operator with access to the database do what the operator's API does."""

from kameng_api.cli.app import main

__all__ = ["main"]
