"""Whose request is this? Door accounts, kept for a moment; a change is known everywhere within `GOOD_S`."""

import time
from typing import Final

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.merchants import door_accounts
from kameng_api.merchants.door_rules import DoorAccount, is_account_name

GOOD_S: Final = 3.0
_MOST: Final = 10_000


class Accounts:
    """Accounts by door and the name that requests carry, strangers too, each good for `GOOD_S`."""

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring
        self._known: dict[tuple[str, str], tuple[DoorAccount | None, float]] = {}

    async def find(self, door: str, account: str) -> DoorAccount | None:
        """The account; None for a stranger and for one that is switched off, which are never told apart. Raises Unavailable."""
        if not is_account_name(account):
            return None
        key, now = (door, account), time.monotonic()
        known = self._known.get(key)
        if known is not None and known[1] > now:
            return known[0]
        async with self._db.transaction() as tx:
            found = await door_accounts.find_by_name(tx, self._keyring, *key)
        if found is not None and not found.enabled:
            found = None
        self._known.pop(key, None)
        self._known[key] = found, now + GOOD_S
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return found

    def has_met(self, door: str, account: str) -> bool:
        """Whether the answer is at hand."""
        known = self._known.get((door, account[:100]))
        return known is not None and known[1] > time.monotonic()

    def forget(self) -> None:
        """Ask again for everybody: this process has just changed an account itself."""
        self._known.clear()
