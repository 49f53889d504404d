"""A whole house for programs outside: servers, simulators, API and worker as processes of their own, reached over real HTTP."""

import asyncio
import itertools
import os
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, TypeVar

from tests.factories import nursery

from kameng_api import embedded
from kameng_api.demo import seed
from kameng_api.demo.clients import Keys, Operator
from kameng_api.demo.processes import Child, ProcessFailed
from kameng_api.demo.stage import Stage

T = TypeVar("T")


@dataclass
class House:
    """What a merchant's program needs to know of it. Its catalogue is the demo's; webhooks may go to loopback."""

    base_url: str
    _loop: asyncio.AbstractEventLoop = field(repr=False)
    _operator: Operator = field(repr=False)
    _stage: Stage = field(repr=False)
    _counter: "itertools.count[int]" = field(default_factory=itertools.count, repr=False)

    def merchant(self, money: str = "100000", *, ed25519: bool = False) -> Keys:
        """A new merchant with a test key, a delivery key and play money."""
        name = f"merchant-{next(self._counter)}"
        return self.run(seed.make_merchant(self._operator, seed.Wish(name, money, ed25519=ed25519)))

    def operate(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The operator's API."""
        if method == "GET":
            return self.run(self._operator.get(path))
        return self.run(getattr(self._operator, method.lower())(path, body or {}))

    def run(self, work: "Coroutine[Any, Any, T]") -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)


@contextmanager
def open_house() -> Iterator[House]:
    """Takes some seconds to come up, its processes out of the nursery; everything that was started is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="kameng-house-", dir=os.environ.get("KAMENG_TEST_VAR")) as folder:
        Path(folder).chmod(0o711)  # lets root's servers in
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        told: list[str] = []
        stage = _wait(loop, _made(Path(folder) / "house", told))
        try:
            token = _wait(loop, stage.open())
            assert stage.addresses is not None
            operator = Operator(stage.addresses.admin_url, token)
            _wait(loop, seed.stock(operator, stage.addresses))
            _wait(loop, stage.start_worker())
            yield House(stage.addresses.base_url, loop, operator, stage)
            _wait(loop, operator.__aexit__(None, None, None))
        finally:
            stubborn = _wait(loop, stage.close())
            embedded.remove(Path(folder) / "house")
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=10)
            loop.close()
        assert not stubborn, stubborn


async def _made(var: Path, told: list[str]) -> Stage:
    return _Stage(var, 0, told.append, _born)


class _Stage(Stage):
    async def command(self, *arguments: str, owner: bool = False) -> str:
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as trouble:
            command = ["-m", "kameng_api.cli", *arguments, "--json"]
            process = nursery.popen(command, env=self.environment(owner=owner), cwd=self.var, stdin=DEVNULL, stdout=said, stderr=trouble)
            if await process.ended() != 0:
                trouble.seek(0)
                raise ProcessFailed(f"kameng {arguments[0]}: {trouble.read().decode()}")
            said.seek(0)
            return said.read().decode()


def _born(child: Child, var: Path, output: int) -> nursery.Process:
    return nursery.popen(
        child.arguments, env=child.environment, cwd=var, stdin=PIPE if child.given else DEVNULL, stdout=output, stderr=output
    )


def _wait(loop: asyncio.AbstractEventLoop, work: "Coroutine[Any, Any, T]") -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=300)
