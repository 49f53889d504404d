"""Do the tables still say what was sealed? Every leaf is made anew from the rows of today, and so are the facts about deliveries."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from kameng_api.evidence.actions import leaf_of_stored
from kameng_api.evidence.export import lines_of_chain
from kameng_api.evidence.facts import facts_of
from kameng_api.evidence.queries import Event, each_block, find_head
from kameng_api.evidence.rules import leaf_hash
from kameng_api.evidence.verify import Anchor, NotWhole, Reader, Report
from kameng_api.kit.crypto import CryptoError, Keyring
from kameng_api.kit.db import Tx, fetch

_MOST: Final = 50


async def check(tx: Tx, keyring: Keyring, *, first: int = 1, anchors: Sequence[Anchor] = (), pinned: Sequence[bytes] = ()) -> Report:
    """The whole chain, or from block `first` on, against the tables. `anchors` and `pinned` as for `verify`."""
    report = Report()
    head = await find_head(tx)
    if head is None:
        if anchors:
            report.blame("heads were anchored, and the chain is empty")
        return report
    reader = Reader(report, anchors, pinned)
    try:
        async for line in lines_of_chain(tx, first, head.header.no):
            reader.take(line)
        reader.finish()
    except NotWhole as trouble:
        report.blame(str(trouble))
    async for block, events, stored in each_block(tx, first, head.header.no):
        for sentence in _named(events, stored) + await _of_facts(tx, keyring, events):
            report.blame(f"block {block.header.no}: {sentence}")
        if len(report.troubles) >= _MOST:
            break
    return report


def _named(events: Sequence[Event], stored: Sequence[bytes]) -> list[str]:
    """Which events are not what was sealed."""
    known, found, troubles = set(stored), set(), []
    for event in events:
        digest = leaf_hash(leaf_of_stored(event.rows, event.facts))
        found.add(digest)
        if digest not in known:
            troubles.append(f"{event.key[1]} of book {event.key[0]} is not what was sealed")
    if missing := len(known - found) - len(troubles):
        troubles.append(f"{max(missing, 1)} sealed event(s) are gone, or the stored leaves were changed")
    return troubles


async def _of_facts(tx: Tx, keyring: Keyring, events: Sequence[Event]) -> list[str]:
    """Orders, attempts, answers and codes against the facts that were sealed; what was pruned or erased by rule is not missed."""
    sealed = {e.key: orjson.loads(e.facts) for e in events if e.facts is not None}
    if not sealed:
        return []
    rows = await fetch(
        tx,
        """SELECT f.book_id, f.event_key, f.salt FROM unnest($1::bigint[], $2::text[]) AS k (book_id, event_key)
        JOIN chain_facts f ON f.book_id = k.book_id AND f.event_key = k.event_key WHERE f.salt IS NOT NULL""",
        [k[0] for k in sealed], [k[1] for k in sealed],
    )  # fmt: skip
    salts = {(r["book_id"], r["event_key"]): r["salt"] for r in rows}
    troubles = []
    for event in (e for e in events if e.key in salts):
        try:
            made = (await facts_of(tx, keyring, [event.rows], salts)).get(event.key)
        except (CryptoError, KeyError) as trouble:
            troubles.append(f"{event.key[1]}: the rows that it was sealed with cannot be read ({type(trouble).__name__})")
            continue
        if made is None or (what := _difference(sealed[event.key], made.facts)):
            troubles.append(f"{event.key[1]}: {'its order is gone' if made is None else what} is not what was sealed")
    return troubles


def _difference(sealed: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if sealed.get("order") != now.get("order"):
        return "the order"
    told, known = (f.get("attempts") or f.get("deliveries") or [] for f in (sealed, now))
    if len(told) != len(known):
        return "the number of attempts"
    for then, today in zip(told, known, strict=True):
        if then["answer"] is not None and today["answer"] is not None and then["answer"] != today["answer"]:
            return "the supplier's answer"
        if today["codes"] and then["codes"] != today["codes"]:
            return "a delivered code"
        if any(then[k] != today[k] for k in then if k not in ("answer", "codes")):
            return "the attempt"
    return None
