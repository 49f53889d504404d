"""The guided tour, from nothing to a serving house: stage, merchants, orders, and a verdict about all of it."""

import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import httpx

from kameng_api import embedded
from kameng_api.demo import catalogue, seed, state
from kameng_api.demo.clients import Keys, Merchant, Operator, Surprise
from kameng_api.demo.ending import NOTIFY_HOOK, Ending
from kameng_api.demo.processes import ProcessFailed
from kameng_api.demo.scenario import Scenario
from kameng_api.demo.screen import Screen
from kameng_api.demo.stage import Addresses, Busy, Stage
from kameng_api.settings import Settings

_FAILED: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(settings: Settings, *, once: bool = False, state: Path | None = None, port: int = 0, var: Path | None = None) -> int:
    """The whole tour; what to exit with: 0 only if everything held.

    `state` is written as soon as every process answers. With `once` it ends after the scenario, else it serves until SIGINT or
    SIGTERM. `var` is a folder of its own (`demo` in the settings' one), whose data is deleted first. `port` 0: a free one.
    """
    folder = var if var is not None else settings.var / "demo"
    return asyncio.run(_Tour(folder, port, once, None if state is None else state.resolve()).run())


class _Tour:
    def __init__(self, var: Path, port: int, once: bool, state_file: Path | None) -> None:
        self._screen = Screen()
        self._stage = Stage(var, port, self._screen.say)
        self._once = once
        self._state_file = state_file
        self._verdicts: list[tuple[str, str | None]] = []
        self._over = False

    async def run(self) -> int:
        """Whatever happens, everything that was started is stopped."""
        loop = asyncio.get_running_loop()
        tour = asyncio.ensure_future(self._walk())
        stopped_by: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            if not stopped_by:
                self._screen.say(f"\n{number.name}: stopping")
                tour.cancel()
            stopped_by.append(number)

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop, number)
        code = _FAILED
        try:
            code = await tour
        except asyncio.CancelledError:
            code = self._code() if self._over else 128 + stopped_by[0]
        except (Busy, ProcessFailed, Surprise, embedded.EmbeddedError, httpx.HTTPError, OSError) as trouble:
            self._screen.say(f"the demo cannot go on: {trouble}")
        finally:
            self._screen.close_table()
            stubborn = await self._stage.close()
            for one in stubborn:
                self._screen.say(one)
        return code or (_FAILED if stubborn else 0)

    async def _walk(self) -> int:
        if self._state_file is not None:
            state.forget(self._state_file)
        self._screen.say("starting PostgreSQL, Redis, two simulated suppliers, a webhook receiver and the API …")
        token = await self._stage.open()
        at = self._stage.addresses
        assert at is not None
        async with Operator(at.admin_url, token) as operator:
            await seed.stock(operator, at)
            visitors = await seed.make_merchants(operator, seed.FOR_VISITORS)
            travellers = await seed.make_merchants(operator, seed.FOR_THE_TOUR)
            await self._scenario(at, operator, token, visitors, travellers)
        self._over = True
        self._screen.verdicts(self._verdicts)
        if self._once:
            return self._code()
        self._screen.keys(at, token, visitors, catalogue.SKUS)
        self._screen.say("\nserving; Ctrl-C ends it")
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    def _code(self) -> int:
        return _FAILED if any(trouble for _, trouble in self._verdicts) else 0

    async def _scenario(
        self, at: Addresses, operator: Operator, token: str, visitors: tuple[Keys, ...], travellers: tuple[Keys, ...]
    ) -> None:
        async with AsyncExitStack() as stack:
            shop, app, poor = [await stack.enter_async_context(Merchant(at.base_url, keys)) for keys in travellers]
            await _listen(at, (shop, app))
            scenario = Scenario(self._screen, shop, app, poor, f"{at.receiver_url}/hooks/{NOTIFY_HOOK}")
            await scenario.before_the_worker()
            await self._stage.start_worker()
            if self._state_file is not None:
                state.write(self._state_file, at, token, visitors, catalogue.SKUS)
                self._screen.say(f"everything answers at {at.base_url}; keys are in {self._state_file}")
            self._screen.open_table()
            try:
                await scenario.run()
            finally:
                self._screen.close_table()
            self._verdicts += scenario.verdicts
            ending = Ending(at, operator, scenario.bought, {wish.name: wish.money for wish in seed.FOR_THE_TOUR})
            self._verdicts += await ending.judge((shop, app))
            broke = self._stage.crew.broke
            self._verdicts.append(("every process lived", broke[0] if broke else None))
            with suppress(Surprise, httpx.HTTPError):
                await ending.show(self._screen, shop)


async def _listen(at: Addresses, merchants: tuple[Merchant, ...]) -> None:
    """Each merchant registers an endpoint at the receiver, which learns the secret; so do the calls to `notify_url`."""
    secrets = {NOTIFY_HOOK: merchants[0].keys.webhook_secret}
    for merchant in merchants:
        made = await merchant.post("/v1/webhook-endpoints", {"url": f"{at.receiver_url}/hooks/{merchant.name}"}, well=(201,))
        secrets[merchant.name] = made["secret"]
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {at.receiver_token}"}
        answer = await client.put(f"{at.receiver_url}/secrets", json=secrets, headers=headers)
        answer.raise_for_status()
