"""Asks a supplier who carries a number today, for products that are sold to some carriers only. Slow or silent, it never holds an order up.

When nobody answers in time the prefix plan's word stands, marked as such. Numbers live in this process's memory and nowhere else.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Final

import structlog

from kameng_api.catalog import numbers
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.numbers import NumberWord
from kameng_api.catalog.rules import Channel, Snapshot
from kameng_api.orders.rules import magic_number
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import NumberFacts

_KEPT: Final = 50_000
_KEPT_S: Final = 6 * 3600.0  # a number changes its carrier at most every 120 days, and then for a product or two it is refused a few hours late
_UNKNOWN_KEPT_S: Final = 300.0
_REST_S: Final = 5.0  # after a failure a channel is not asked for so long: an outage costs one order in seconds the timeout, not every one
_MOST_AT_ONCE: Final = 100

_log = structlog.get_logger()
_Key = tuple[str, str]


class Lookups:
    """What suppliers say of numbers, kept for hours; one question per number at a time."""

    def __init__(self, connections: Connections, *, timeout_s: float) -> None:
        self._connections = connections
        self._timeout_s = timeout_s
        self._known: OrderedDict[_Key, tuple[NumberFacts | None, float]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[NumberFacts | None]] = {}
        self._resting: dict[str, float] = {}

    async def word_for(self, snapshot: Snapshot, environment: str, sku: str, target: str | None) -> NumberWord | None:
        """The word on an order's target where its product needs one; None where it does not, or the prefix's word has to do."""
        product = snapshot.products.get(sku)
        if product is None or not product.carriers or target is None:
            return None
        if catalog.check_mobile(target) and magic_number(target) is None:
            word = await self.word_on(snapshot, environment, target)
            return word if word.source == "lookup" else None
        return None

    async def word_on(self, snapshot: Snapshot, environment: str, number: str) -> NumberWord:
        """Never raises, and never takes longer than the timeout."""
        prefix = numbers.of_mobile(number)
        facts = await self._facts(snapshot, environment, number) if self._timeout_s else None
        if facts is None or facts.carrier not in numbers.CARRIERS:
            return prefix
        return NumberWord(facts.carrier, facts.virtual, "lookup", facts.ported)

    async def _facts(self, snapshot: Snapshot, environment: str, number: str) -> NumberFacts | None:
        key = (environment, number)
        known = self._known.get(key)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        asking = self._asking.get(key)
        if asking is None:
            channel = self._whom(snapshot, environment)
            if channel is None or len(self._asking) >= _MOST_AT_ONCE:
                return None
            asking = self._asking[key] = asyncio.create_task(self._ask(channel, key))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(asking)  # an answer that comes too late for this order serves the next one
        except TimeoutError:
            return None

    def _whom(self, snapshot: Snapshot, environment: str) -> Channel | None:
        now = time.monotonic()
        for channel in sorted(snapshot.channels.values(), key=lambda one: one.channel_id):
            if channel.environment != environment or channel.status != "enabled" or self._resting.get(channel.channel_id, 0.0) > now:
                continue
            try:
                if self._connections.of(channel).look_up_number is not None:
                    return channel
            except Exception as trouble:
                self._rest(channel, trouble)
        return None

    async def _ask(self, channel: Channel, key: _Key) -> NumberFacts | None:
        look_up = self._connections.of(channel).look_up_number
        assert look_up is not None
        try:
            # Beyond the order's own patience a little, so that a slow answer is still kept; then the channel rests.
            async with asyncio.timeout(2 * self._timeout_s + 1.0):
                facts = await look_up(key[1])
        except Exception as trouble:
            self._rest(channel, trouble)
            return None
        self._known[key] = facts, time.monotonic() + (_UNKNOWN_KEPT_S if facts is None else _KEPT_S)
        self._known.move_to_end(key)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return facts

    def _rest(self, channel: Channel, trouble: Exception) -> None:
        self._resting[channel.channel_id] = time.monotonic() + _REST_S
        _log.warning("numbers.lookup_failed", channel=channel.channel_id, trouble=type(trouble).__name__)
