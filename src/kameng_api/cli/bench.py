"""What every command at the database stands on: one transaction, and who is acting."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from kameng_api.cli.terminal import REFUSED, UNAVAILABLE, fail, find_servers, read_settings
from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem, Unavailable
from kameng_api.kit.ids import parse_public_id
from kameng_api.kit.money import parse_amount
from kameng_api.merchants import queries as merchants
from kameng_api.merchants.queries import Merchant
from kameng_api.operators import actions as operators
from kameng_api.operators.rules import Operator
from kameng_api.settings import Settings

Answer = TypeVar("Answer")

TOKEN_VARIABLE: Final = "KAMENG_OPERATOR_TOKEN"  # noqa: S105  the name of a variable


@dataclass(frozen=True, slots=True)
class Bench:
    """One command's transaction. `actor` is the operator whose token is in KAMENG_OPERATOR_TOKEN, else the login name."""

    tx: Tx
    settings: Settings
    keyring: Keyring
    actor: str
    operator: Operator | None = None

    @property
    def approval_above(self) -> int:
        return parse_amount(self.settings.approval_above)

    async def audit(self, action: str, subject: str, **facts: Any) -> None:
        """Note it in the transaction that did it."""
        await operators.audit(self.tx, self.actor, action, subject, facts)

    def require(self, permission: str) -> None:
        """For what is known only inside the work. Without an operator's token the login name may all. Raises RoleTooSmall."""
        if self.operator is not None:
            operators.require(self.operator, permission)

    async def merchant(self, text: str) -> Merchant:
        """By `mer_…` or by name. Raises NotFound."""
        merchant_id = parse_public_id("mer", text)
        if merchant_id is not None:
            return await merchants.get_merchant(self.tx, merchant_id)
        found = await merchants.find_merchant_by_name(self.tx, text)
        if found is None:
            raise NotFound(f"no merchant is called {text!r}")
        return found


def run(work: Callable[[Bench], Awaitable[Answer]], *, permission: str = "read") -> Answer:
    """Do `work` in one transaction. With an operator's token its role must allow `permission`; else the login name acts.

    What is refused ends the process with status 2, what cannot be reached with 3.
    """
    settings = find_servers(read_settings())
    try:
        return asyncio.run(_run(work, settings, permission))
    except Problem as problem:
        for wrong in problem.errors:
            sys.stderr.write(f"{wrong.pointer or '/'}: {wrong.detail}\n")
        fail(f"{problem.code}: {problem.detail or type(problem).__doc__}", REFUSED)
    except Unavailable as trouble:
        fail(f"unavailable: {trouble}", UNAVAILABLE)


async def _run(work: Callable[[Bench], Awaitable[Answer]], settings: Settings, permission: str) -> Answer:
    assert settings.database_url is not None
    db = Database(settings.database_url.get_secret_value(), pool_size=2)
    try:
        async with db.transaction() as tx:
            operator = await _operator(tx, permission)
            actor = f"cli:{getpass.getuser()}" if operator is None else operator.name
            return await work(Bench(tx, settings, keyring_of(settings), actor, operator))
    finally:
        await db.close()


async def _operator(tx: Tx, permission: str) -> Operator | None:
    """Whose token the environment holds; None without one."""
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    operator = await operators.authenticate(tx, token, utc_now())
    operators.require(operator, permission)
    return operator


def keyring_of(settings: Settings) -> Keyring:
    """The key listed first seals, all of them open."""
    return Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))


def read_amount(text: str) -> int:
    """`98.5` → 985000. Raises Invalid."""
    try:
        return parse_amount(text)
    except ValueError as error:
        raise Invalid(str(error), errors=[FieldError("/amount", "format", str(error))]) from None


def read_id(prefix: str, text: str) -> Any:
    """`ord_01J…` → UUID. Raises NotFound."""
    found = parse_public_id(prefix, text)
    if found is None:
        raise NotFound(f"{text!r} is no {prefix}_ id")
    return found
