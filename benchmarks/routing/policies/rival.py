"""What all rivals do alike, so that each file beside this one holds nothing but its own source's rule.

The hard facts (disabled, tried, not allowed, no stock, no money with the supplier, contract cap) hold for every policy; loss is no
hard fact here: only those whose source knows prices mind it. An attempt's first verdict is the result of the call: a timeout is a
failure, "accepted" is no verdict yet, what arrives after a timeout is told through `settled`, and nothing is counted twice.
"""

from collections.abc import Sequence

from kameng_api.suppliers.routing.facts import Action, Answered, Ask, Circuit, Decision, Event, Heard, Option, Sent

GENERATION = 50_000
"""Finished attempts are remembered for one to two such generations, so that a verdict said twice counts once."""
SHORTEST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0


class Rival:
    """A policy pooled over SKUs; a subclass gives `pick` and hears of verdicts through `answered`."""

    minds_busy = True
    """Whether a refusal by the supplier's own limit (a 429) counts as a failure, or as a call that never happened. Where the source leaves
    that to its user, each rival has what served it better on the tuning worlds."""

    def __init__(self) -> None:
        self.rank: dict[str, float] = {}
        """Channel → cost / price when it was first seen: the price order at t=0."""
        self.under_way: dict[str, int] = {}
        self._calls: dict[str, str] = {}
        self._doubts: dict[str, float] = {}
        self._finished: set[str] = set()
        self._finished_before: set[str] = set()

    # what a subclass says

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        """One of the usable options' channels, or None to wait; `usable` is never empty."""
        raise NotImplementedError

    def wait_s(self, usable: list[Option], now: float) -> float:
        """How long until `pick` may think otherwise."""
        return LONGEST_WAIT_S

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        """A call ended: its first verdict, `seconds` after it was sent."""

    def settled(self, attempt: str, channel: str, ok: bool, at: float, seconds: float) -> None:
        """A call that had ended in a timeout has its real verdict after all."""

    def neutral(self, channel: str, at: float) -> None:
        """A call ended in a way that says nothing of the channel; a half-open circuit gets its permit back."""

    def doubted(self, attempt: str, channel: str, at: float) -> None:
        """Told right after `answered` of a timeout, with the attempt that `settled` may name later."""

    # what everybody shares

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        usable, possible = self._usable(ask, options)
        if not possible:
            return Decision(Action.GIVE_UP, "no_channel_left")
        if not usable:
            return Decision(Action.HOLD, "all_full", until_s=1.0)
        channel = self.pick(ask, usable, now, seed)
        if channel is not None:
            return Decision(Action.DISPATCH, "picked", channel)
        wait_s = min(max(self.wait_s(usable, now), SHORTEST_WAIT_S), LONGEST_WAIT_S)
        return Decision(Action.HOLD, "all_open", until_s=wait_s)

    def observe(self, event: Event) -> None:
        attempt = event.attempt
        if isinstance(event, Sent):
            if attempt not in self._calls and not self._is_finished(attempt):
                self._calls[attempt] = event.channel
                self.under_way[event.channel] = self.under_way.get(event.channel, 0) + 1
            return
        what = event.what
        if what is Heard.TAKEN or what is Heard.REVERSED:
            return
        if self._is_finished(attempt):
            self._late(event)
            return
        self._finish(attempt)
        channel = event.channel
        if what is Heard.NEUTRAL or (what is Heard.BUSY and not self.minds_busy):
            self.neutral(channel, event.at)
            return
        self.answered(channel, what is Heard.GOOD, event.at, max(event.at - event.sent_at, 0.0), what)
        if what is Heard.DOUBT:
            self._doubts[attempt] = event.at
            self.doubted(attempt, channel, event.at)

    def _late(self, event: Answered) -> None:
        if event.what is not Heard.DOUBT and self._doubts.pop(event.attempt, None) is not None:
            self.settled(event.attempt, event.channel, event.what is Heard.GOOD, event.at, max(event.at - event.sent_at, 0.0))

    def _is_finished(self, attempt: str) -> bool:
        return attempt in self._finished or attempt in self._finished_before

    def _finish(self, attempt: str) -> None:
        channel = self._calls.pop(attempt, None)
        if channel is not None:
            self.under_way[channel] -= 1
        self._finished.add(attempt)
        if len(self._finished) >= GENERATION:
            self._finished_before, self._finished = self._finished, set()

    def _usable(self, ask: Ask, options: Sequence[Option]) -> tuple[list[Option], bool]:
        """The options that may be asked now, and whether any other might be later."""
        usable: list[Option] = []
        possible = False
        rank, tried, allowed, banned = self.rank, ask.tried, ask.allowed, ask.banned
        for option in options:
            channel = option.channel
            if channel not in rank:
                rank[channel] = option.cost / max(ask.price, 1)
                self.under_way.setdefault(channel, 0)
            if channel in tried or channel in banned or (allowed is not None and channel not in allowed):
                continue
            possible = True
            if not option.enabled or option.forced is Circuit.OPEN or (option.maintenance_in_s is not None and option.maintenance_in_s <= 0):
                continue
            if option.stock is not None and option.stock < ask.units:
                continue
            if option.wallet is not None and option.wallet - option.cost < option.wallet_floor:
                continue
            if option.cap is not None and self.under_way[channel] >= option.cap:
                continue
            if option.qps is not None and option.sent_last_second >= option.qps:
                continue
            usable.append(option)
        return usable, possible


class Priority(Rival):
    """Those that try channels in the price order of t=0 and skip the ones that do not let a call through."""

    def lets_through(self, channel: str, now: float) -> bool:
        """Whether a call may go there now; asked only when the answer will be used, so it may take a half-open permit."""
        return True

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        rank = self.rank
        for channel in sorted([option.channel for option in usable], key=rank.__getitem__):
            if self.lets_through(channel, now):
                return channel
        return None
