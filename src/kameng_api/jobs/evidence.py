"""What the clock does for evidence: seal what is certain, anchor the head, and say when either is late."""

import asyncio
import time
from typing import Any, Final

from kameng_api.alarms import actions as alarms
from kameng_api.evidence import actions, queries
from kameng_api.evidence.anchors import Target, check_not_ahead, names_of, targets_of
from kameng_api.evidence.errors import ChainBroken
from kameng_api.evidence.queries import RANGE, Block
from kameng_api.evidence.signer import Signer, load_signer
from kameng_api.evidence.verify import Anchor
from kameng_api.jobs.upkeep import Chore, Desk, is_my_turn, stamp
from kameng_api.kit import log
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.settings import Settings

_log = log.get()

_SEAL_S: Final = 3.0
_WATCH_S: Final = 15.0
_LATE_S: Final = 60.0
_ANCHOR_LATE_S: Final = 600.0
_LONGEST_S: Final = 30.0
"""A round that works off a backlog pauses after so long: other chores of the process want to be seen too."""


def signer_of(settings: Settings, keyring: Keyring) -> Signer:
    """The key of this process. Raises OSError or ValueError for a key file that cannot be used."""
    return load_signer(settings.evidence_key_file, keyring.derive("evidence-signing"))


def _keyring(desk: Any) -> Keyring:
    keyring: Keyring = desk.keyring
    return keyring


async def seal(desk: Desk) -> int:
    """Seal everything below the transaction horizon, a block per transaction. Returns how many leaves were sealed."""
    keyring = _keyring(desk)
    signer, sealed, began = signer_of(desk.settings, keyring), 0, time.monotonic()
    try:
        while True:
            async with desk.db.transaction() as tx:
                round_ = await actions.seal(tx, keyring, signer)
            sealed += round_.leaves
            if not round_.more or time.monotonic() - began > _LONGEST_S:
                return sealed
    except ChainBroken as trouble:
        await _tell_broken(desk, str(trouble))
        return sealed


async def _tell_broken(desk: Desk, detail: str) -> None:
    _log.error("chain_broken", detail=detail)
    async with desk.db.transaction() as tx:
        await alarms.raise_alarm(tx, "evidence_broken", "chain 0", None, detail)


async def watch(desk: Desk) -> None:
    """Raise and close the alarms about a late chain and late anchors."""
    names = names_of(desk.settings)
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "evidence_watch", _WATCH_S):
            return
        lag = await queries.lag_of(tx, names)
        late = {"chain 0": f"events wait {lag.seal_s:.0f} s to be sealed; a transaction that stays open holds them up"}
        await alarms.keep_raised(tx, "seal_late", late if lag.seal_s > _LATE_S else {})
        longest = max(_ANCHOR_LATE_S, 5.0 * desk.settings.anchor_every_s)
        waits = {"chain 0": f"a sealed block waits {lag.anchor_s:.0f} s for {' or '.join(names)}"}
        await alarms.keep_raised(tx, "anchor_late", waits if lag.anchor_s > longest else {})
        await stamp(tx, "evidence_watch")


_KEPT: Final = """
INSERT INTO chain_anchors (book_range, target, no, total, hash, token) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""


async def anchor(desk: Desk) -> int:
    """Put the newest head to every target that has not got it. Returns how many took it; the others are tried again next time."""
    if not names_of(desk.settings):
        return 0
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "anchor", float(desk.settings.anchor_every_s)):
            return 0
        await stamp(tx, "anchor")  # before the work: a target that hangs must not be asked by every worker at once
        head = await queries.find_head(tx)
    if head is None:
        return 0
    taken = 0
    for target in targets_of(desk.settings):
        try:
            taken += await _put(desk, target, head)
        except ChainBroken as trouble:
            await _tell_broken(desk, f"{target.name}: {trouble}")
        except Exception as trouble:  # the place is away: `anchor_late` tells when that lasts
            _log.warning("anchor_not_put", target=target.name, trouble=type(trouble).__name__)
    return taken


async def _put(desk: Desk, target: Target, head: Block) -> int:
    header = head.header
    wanted = Anchor(header.chain, header.no, header.epoch, header.total, head.hash)
    async with desk.db.transaction() as tx:
        since = await queries.last_anchor(tx, target.name)
    newest = await asyncio.to_thread(target.newest, since)
    async with desk.db.transaction() as tx:
        kept = await _hash_of(tx, newest)
        check_not_ahead(newest, wanted, kept)
        if await fetch(tx, "SELECT 1 FROM chain_anchors WHERE book_range = $1 AND target = $2 AND no = $3", RANGE, target.name, header.no):
            return 0
    token = None
    if newest != wanted:  # a round that died after putting it left only the note to be made
        token = await asyncio.to_thread(target.put, wanted, head.signature, head.key_id)
    async with desk.db.transaction() as tx:
        await execute(tx, _KEPT, RANGE, target.name, header.no, header.total, head.hash, token)
    return 1


async def _hash_of(tx: Tx, newest: Anchor | None) -> bytes | None:
    if newest is None:
        return None
    block = await queries.find_block(tx, newest.no)
    return None if block is None else block.hash


CHORES: Final = (
    Chore("evidence.seal", _SEAL_S, seal),
    Chore("evidence.anchor", 5.0, anchor),
    Chore("evidence.watch", _WATCH_S, watch),
)
