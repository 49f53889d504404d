"""What the gate remembers: nonces and rates in Redis, asked for many requests in one call; and who failed to sign, in this process.

Redis may go away. Then both memories stand down, loudly, and the gate decides per endpoint what may go on without them.
"""

import asyncio
import hashlib
import math
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from kameng_api.kit.gather import Gatherer

NONCE_KEPT_S: Final = 660  # twice the clock window, and a minute
_TIMEOUT_S: Final = 0.25
_REST_S: Final = 1.0  # after a failure, nobody asks for this long
_LARGEST_FLUSH: Final = 512

# One group per key and class: its nonces are set one by one, its rate is charged once for those that were new (GCRA).
# A group is packed as: length of name (2), name, quota (4), window in seconds (4), nonces (2), and 16 bytes for each nonce: one long argument
# costs a tenth of many short ones. Answer per group: a mark per nonce, how many of the new ones the rate allows, what remains, and
# microseconds until one and until all is free.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local packed, at = ARGV[3], 1
local answers = {}
for group = 1, tonumber(ARGV[1]) do
  local name, quota, window, nonces
  name, quota, window, nonces, at = struct.unpack('>I2c0I4I4I2', packed, at)
  window = window * 1000000
  local marks, new = {}, 0
  for n = 1, nonces do
    if redis.call('SET', 'kn' .. string.sub(packed, at, at + 15), '', 'NX', 'EX', ARGV[2]) then
      marks[n] = '1'
      new = new + 1
    else
      marks[n] = '0'
    end
    at = at + 16
  end
  local interval = window / quota
  local used = math.max((tonumber(redis.call('GET', name) or 0)) - now, 0)
  local free = math.floor((window - used) / interval + 0.000001)
  local allowed = math.min(new, free)
  if allowed > 0 then
    used = used + allowed * interval
    redis.call('SET', name, string.format('%.0f', now + used), 'PX', math.ceil(used / 1000) + 1)
  end
  answers[group] = {table.concat(marks), allowed, free - allowed, math.ceil(math.max(used + interval - window, 0)), math.ceil(used)}
end
return answers
"""
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Budget(NamedTuple):
    """How many requests of one class a key may make in a window, and how that is said in headers and to Redis."""

    packed: bytes
    rate_class: str
    quota: int
    window_s: int
    policy: bytes


class Verdict(NamedTuple):
    """What Redis said of one request. `remembered` False: Redis is lost and nothing was checked."""

    fresh: bool
    allowed: bool
    remaining: int
    retry_s: int
    reset_s: int
    remembered: bool = True


STOOD_DOWN: Final = Verdict(fresh=True, allowed=True, remaining=0, retry_s=0, reset_s=0, remembered=False)

_log = structlog.get_logger()


def budget(key_id: str, rate_class: str, quota: int, window_s: int) -> Budget:
    policy = f'"{rate_class}";q={quota};w={window_s}'.encode()
    name = f"kameng:rate:{key_id}:{rate_class}".encode()
    packed = b"%b%b%b" % (len(name).to_bytes(2), name, struct.pack(">II", quota, window_s))
    return Budget(packed, rate_class, quota, window_s, policy)


def nonce_name(key_id: str, nonce: str) -> bytes:
    """How Redis remembers a nonce: 128 bits of hash, because millions of them are kept."""
    return hashlib.blake2b(f"{key_id}\n{nonce}".encode(), digest_size=16).digest()


class Memory:
    """Nonces and rates, shared by all processes through Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.asking: Gatherer[tuple[Budget, bytes], Verdict] = Gatherer(self._ask, largest=_LARGEST_FLUSH, in_flight=1)
        self._resting_until = 0.0
        self.down = False
        """True from a failure to the next success."""

    async def check(self, of: Budget, nonce: bytes) -> Verdict:
        """Remember the nonce; if it is new, charge the rate. Never waits for a Redis that is known to be lost. Raises Overflow."""
        if self.down and time.monotonic() < self._resting_until:
            return STOOD_DOWN
        return await self.asking.submit((of, nonce))

    async def _ask(self, items: Sequence[tuple[Budget, bytes]]) -> Sequence[Verdict]:
        if self.down and time.monotonic() < self._resting_until:
            return [STOOD_DOWN] * len(items)
        groups: dict[bytes, list[int]] = {}
        for index, (of, _) in enumerate(items):
            groups.setdefault(of.packed, []).append(index)
        parts: list[bytes] = []
        for packed, members in groups.items():
            parts += (packed, len(members).to_bytes(2))
            parts += [items[index][1] for index in members]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answers = await self._run(len(groups), b"".join(parts))
        except Exception as trouble:
            self._stand_down(trouble)
            return [STOOD_DOWN] * len(items)
        self._stand_up()
        return _read(len(items), list(groups.values()), answers)

    async def _run(self, groups: int, packed: bytes) -> list[Any]:
        run: Callable[..., Awaitable[list[Any]]] = self._redis.execute_command
        try:
            return await run("EVALSHA", _SHA, 0, groups, NONCE_KEPT_S, packed)
        except NoScriptError:
            return await run("EVAL", _SCRIPT, 0, groups, NONCE_KEPT_S, packed)

    def _stand_down(self, trouble: Exception) -> None:
        self._resting_until = time.monotonic() + _REST_S
        if not self.down:
            _log.error("gate.memory_lost", trouble=type(trouble).__name__, keeps="signature, clock, key, address, scope")
        self.down = True

    def _stand_up(self) -> None:
        if self.down:
            _log.warning("gate.memory_back")
        self.down = False


def _read(count: int, groups: list[list[int]], answers: list[Any]) -> list[Verdict]:
    verdicts: list[Verdict] = [STOOD_DOWN] * count
    for members, (marks, allowed, remaining, retry_us, reset_us) in zip(groups, answers, strict=True):
        left = allowed
        reset_s = -(-reset_us // 1_000_000)
        granted = Verdict(True, True, remaining, 0, reset_s)
        for index, mark in zip(members, marks, strict=True):
            if mark != 0x31:
                verdicts[index] = Verdict(False, True, remaining, 0, reset_s)
            elif left > 0:
                left -= 1
                verdicts[index] = granted
            else:
                verdicts[index] = Verdict(True, False, remaining, max(1, math.ceil(retry_us / 1_000_000)), reset_s)
    return verdicts


class Failures:
    """How often an address failed to prove who it is, in the last minute; kept by each process for itself, and bounded."""

    _WINDOW_S: Final = 60.0
    _MOST: Final = 20_000

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str) -> int:
        """Seconds this address must wait before it is listened to again; 0 when it need not."""
        known = self._counts.get(address)
        if known is None:
            return 0
        count, until = known
        left = until - time.monotonic()
        if left <= 0:
            del self._counts[address]
            return 0
        return math.ceil(left) if count >= self._limit else 0

    def note(self, address: str) -> None:
        """One more failure."""
        if not self._limit:
            return
        count, until = self._counts.get(address, (0, time.monotonic() + self._WINDOW_S))
        self._counts[address] = (count + 1, until)
        if len(self._counts) > self._MOST:
            del self._counts[next(iter(self._counts))]
