"""What happens later: finishes, reversals and callbacks come due here, from rows that outlive the process."""

import asyncio
import heapq
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import aiohttp
import orjson

from kameng_api.simulator import protocol
from kameng_api.simulator.books import Books, Letter, Sent
from kameng_api.simulator.store import Timer, Writer

log = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 128
RECEIVER_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=5)
LARGEST_FIRE: Final = 256


@dataclass(frozen=True, slots=True)
class Written:
    """A callback as it goes over the wire."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str]


class Mail(Protocol):
    """How a vendor writes its callbacks, what it takes for an acknowledgement, and when it tries again."""

    @property
    def retry_after_s(self) -> Sequence[float]:
        """Between attempts; then the vendor gives up."""
        ...

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        """`forged`: with a signature that does not fit."""
        ...

    def is_acknowledged(self, status: int, body: bytes) -> bool: ...


class OwnMail:
    """The simulator's own callbacks: signed JSON, acknowledged by 200 with the text `success`."""

    retry_after_s: Sequence[float] = (5.0, 15.0, 60.0, 300.0, 1800.0)

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        view = dict(letter.view)
        cards = view.pop("cards", None)
        told = {name: str(value) for name, value in view.items()}
        if cards is not None:
            told["cards"] = orjson.dumps(cards).decode()
        params = protocol.signed(letter.account.secret, letter.account.app_key, now, {**told, "notify_id": letter.notify_id})
        if forged:
            params["sign"] = protocol.sign(b"not the secret", params)
        return Written(orjson.dumps(params), {"content-type": "application/json"})

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        return status == 200 and body[:64].strip() == b"success"


class Clock:
    """Lives in the event loop; `more_due` is set after every commit that made timers."""

    def __init__(self, books: Books, writer: Writer, http: aiohttp.ClientSession, more_due: asyncio.Event, time_scale: float, mail: Mail) -> None:
        self._mail = mail
        self._books = books
        self._writer = writer
        self._http = http
        self._time_scale = time_scale
        self._heap: list[Timer] = []
        self._more_due = more_due
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled. What was due while the process was dead is done at once."""
        self._more_due.set()
        while True:
            wait_s = max(self._heap[0].due_at - time.time(), 0) if self._heap else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._more_due.wait()
            except TimeoutError:
                pass
            self._more_due.clear()
            while self._books.due:
                heapq.heappush(self._heap, self._books.due.popleft())
            await self._fire(self._pop_due(time.time()))

    async def _again_later(self, timers: list[Timer]) -> None:
        """The file could not be written (disk full, say): nothing was done, so it stays due."""
        log.exception("simulator timers failed")
        await asyncio.sleep(1)
        self._books.due.extend(timers)
        self._more_due.set()

    def _pop_due(self, now: float) -> list[Timer]:
        due: list[Timer] = []
        while self._heap and self._heap[0].due_at <= now and len(due) < LARGEST_FIRE:
            due.append(heapq.heappop(self._heap))
        return due

    async def _fire(self, due: list[Timer]) -> None:
        changes = [timer.id for timer in due if timer.kind != "callback"]
        if changes:
            try:
                await self._writer.submit(lambda: self._books.fire(changes, time.time()))
            except Exception:
                await self._again_later([timer for timer in due if timer.kind != "callback"])
        for timer in due:
            if timer.kind == "callback":
                task = asyncio.create_task(self._call_back(timer))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _call_back(self, timer: Timer) -> None:
        async with self._places:
            try:
                await self._send_callback(timer.id)
            except Exception:
                await self._again_later([timer])

    async def _send_callback(self, timer_id: int) -> None:
        letter = await self._writer.submit(lambda: self._books.open_callback(timer_id))
        if letter is None:
            return
        account = letter.account
        rate = account.knobs.callback_wrong_signature_rate
        forged = rate > 0 and account.draw.random() < rate
        answer, acknowledged = await self._post(letter.url, self._mail.write(letter, time.time(), forged=forged))
        retry_at, later_s = None, self._mail.retry_after_s
        if not acknowledged and letter.attempt <= len(later_s):
            retry_at = time.time() + later_s[letter.attempt - 1] * self._time_scale
        sent = Sent(account.name, letter.view["out_order_no"], letter.attempt, answer, acknowledged)
        await self._writer.submit(lambda: self._books.close_callback(timer_id, sent, retry_at, time.time()))

    async def _post(self, url: str, written: Written) -> tuple[int, bool]:
        """`(status, acknowledged)`; status 0 when no answer came."""
        try:
            async with self._http.post(
                url, data=written.body, headers=dict(written.headers), timeout=RECEIVER_TIMEOUT, allow_redirects=False
            ) as response:
                text = await response.content.read(4096)
                return response.status, self._mail.is_acknowledged(response.status, text)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.info("callback not delivered: %s", type(error).__name__)
            return 0, False

    async def close(self) -> None:
        """Lets callbacks that are on their way end; the rest stays in the file."""
        if self._sending:
            _, pending = await asyncio.wait(self._sending, timeout=2)
            for task in pending:
                task.cancel()
