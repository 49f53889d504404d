"""Every adapter with a twin through every trap, and every promise it makes certified there: by the twin's own delivery log.

Most of a trap is waiting. So what the tests of this file are about runs for several twins at once, each at its own process, when the first of
them wants to know; a test then says how it went for its own. The table of docs/suppliers.md is made from them: `python -m tests.suppliers.table`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import pytest
from tests.suppliers import twins
from tests.suppliers.benches import TwinBench, capabilities_of
from tests.suppliers.certificates import CERTIFICATES, promises
from tests.suppliers.traps import TRAPS
from tests.suppliers.twins import world
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.registry import list_adapters

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
AT_ONCE: Final = 6
TWINS = [twins.get(name) for name in twins.names()]
SET = [pytest.param(twin.name, trap, id=f"{twin.name}-{trap}") for twin in TWINS for trap in TRAPS if trap not in twin.traps]
PROMISED = [pytest.param(name, promise, id=f"{name}-{promise}") for name in twins.names() for promise in promises(capabilities_of(name))]
Trouble = Exception | None


class Trials:
    """The twins that somebody asked about, and what came of each trial. `wanted`: (what, twin) of all tests of this run."""

    def __init__(self, worlds: dict[str, TwinWorld], wanted: list[tuple[str, str]]) -> None:
        self._worlds = worlds
        self._wanted = wanted
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._ended: dict[tuple[str, str], Trouble] = {}

    async def of(self, what: str, name: str, play: Callable[[TwinBench], Awaitable[None]]) -> Trouble:
        """What went wrong with `play` at this twin; it is played for all that are wanted, once."""
        if (what, name) not in self._ended:
            names = sorted({twin for wanted, twin in self._wanted if wanted == what} | {name})
            for twin, trouble in zip(names, await asyncio.gather(*(self._try(play, twin) for twin in names)), strict=True):
                self._ended[what, twin] = trouble
        return self._ended[what, name]

    async def _try(self, play: Callable[[TwinBench], Awaitable[None]], name: str) -> Trouble:
        async with self._gate:
            try:
                await world.at_rest(self._worlds[name])
                async with asyncio.timeout(60):
                    await play(TwinBench(self._worlds[name]))
            except Exception as trouble:
                return trouble
        return None


def _asked(item: pytest.Item) -> tuple[str, str] | None:
    params = getattr(item, "callspec", None)
    if params is None or not {"trap", "promise"} & params.params.keys():
        return None
    return str(params.params.get("trap") or params.params["promise"]), str(params.params["name"])


@pytest.fixture(scope="module")
async def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trials]:
    wanted = [asked for item in request.session.items if item.path == request.path and (asked := _asked(item)) is not None]
    names = sorted({name for _, name in wanted})
    async with AsyncExitStack() as stack:
        worlds = {name: await stack.enter_async_context(world.opened(twins.get(name), tmp_path_factory.mktemp(name))) for name in names}
        yield Trials(worlds, wanted)


def test_every_adapter_of_a_vendor_has_a_twin() -> None:
    assert {adapter.name for adapter in list_adapters() if not adapter.simulated} <= set(twins.names())


@pytest.mark.parametrize("name", twins.names())
def test_a_trap_that_cannot_be_set_says_why(name: str) -> None:
    assert twins.get(name).traps.keys() <= TRAPS.keys()
    assert all(len(why) > 15 for why in twins.get(name).traps.values())


@pytest.mark.parametrize(("name", "trap"), SET)
async def test_a_trap_is_survived(trials: Trials, name: str, trap: str) -> None:
    trouble = await trials.of(trap, name, TRAPS[trap])
    if trouble is not None:
        raise trouble


@pytest.mark.parametrize(("name", "promise"), PROMISED)
async def test_a_promise_holds(trials: Trials, name: str, promise: str) -> None:
    trouble = await trials.of(promise, name, lambda bench: CERTIFICATES[promise](bench, bench.supplier.capabilities))
    if trouble is not None:
        raise trouble
