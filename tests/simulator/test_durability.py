"""What the simulator has answered is in its file, whatever happens to the process."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from kameng_api.kit.http import build_client
from kameng_api.suppliers.port import Accepted, Delivered, Purchase, Reversed
from kameng_api.suppliers.registry import get_adapter
from kameng_api.suppliers.transport import Transport

from .conftest import SECRETS, Receiver, Simulator, World


def connect(simulator: Simulator, receiver: Receiver, client: object) -> World:
    adapter = get_adapter("simulator")
    settings = {"base_url": simulator.url, "app_key": "app-sim-a", "secret": SECRETS["sim-a"], "timeout_s": 2}
    supplier = adapter.connect(adapter.settings(**settings), Transport(client).send)  # type: ignore[arg-type]
    return World(simulator, receiver, supplier, supplier)


async def test_kill_minus_nine_loses_no_delivery_and_timers_go_on(tmp_path: Path, receiver: Receiver) -> None:
    simulator = Simulator(tmp_path, time_scale=0.1)
    await simulator.start()
    client = build_client(max_connections=32, connect_timeout_s=2, guard=False)
    world = connect(simulator, receiver, client)
    acknowledged: list[Purchase] = []
    asked: list[Purchase] = []
    stop = asyncio.Event()

    async def buy() -> None:
        while not stop.is_set():
            purchase = world.purchase(callback_url=None)
            asked.append(purchase)
            if isinstance((await world.a.place(purchase)).outcome, Delivered):
                acknowledged.append(purchase)

    later, reversal = world.purchase("10000000003"), world.purchase("10000000007")
    assert isinstance((await world.a.place(later)).outcome, Accepted)
    assert isinstance((await world.a.place(reversal)).outcome, Delivered)
    buyers = [asyncio.create_task(buy()) for _ in range(16)]
    await asyncio.sleep(1)
    await simulator.end(signal.SIGKILL)
    stop.set()
    await asyncio.gather(*buyers)
    assert len(acknowledged) > 50

    with contextlib.closing(sqlite3.connect(simulator.data)) as file:
        found = dict(file.execute("SELECT reference, count(*) FROM delivery GROUP BY reference").fetchall())
        balance = file.execute("SELECT balance FROM supplier WHERE name = 'sim-a'").fetchone()[0]
        moved = file.execute("SELECT sum(amount) FROM movement WHERE supplier = 'sim-a'").fetchone()[0]
    assert all(found.get(purchase.reference) == 1 for purchase in acknowledged)
    assert set(found) <= {purchase.reference for purchase in asked} | {reversal.reference}
    assert balance == moved

    await simulator.start()  # the timers that came due meanwhile, and those still to come
    (delivered,) = await receiver.wait_for(world.a, later.reference, 1)
    (reversed_,) = await receiver.wait_for(world.a, reversal.reference, 1)
    assert isinstance(delivered, Delivered) and isinstance(reversed_, Reversed)
    assert await simulator.delivered(later.reference) == 1
    again = await world.look_up(acknowledged[-1])
    assert isinstance(again, Delivered)
    shown = await simulator.call("GET", "suppliers/sim-a")
    assert shown["balance"] != "1000000.0000"  # a restart does not fill the wallet
    await client.aclose()
    await simulator.end(signal.SIGTERM)


async def test_knobs_and_accounts_survive_a_restart(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    await simulator.start()
    await simulator.turn(refuse_rate=1)
    await simulator.call("PUT", "suppliers/third", {"app_key": "app-third", "secret": "s" * 16, "balance": "5"})
    await simulator.end(signal.SIGTERM)
    await simulator.start()
    assert (await simulator.call("GET", "suppliers/sim-a/knobs"))["refuse_rate"] == 1
    assert (await simulator.call("GET", "suppliers/third"))["balance"] == "5.0000"
    await simulator.end(signal.SIGTERM)


def test_a_wrong_configuration_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"control_token": "control-token", "supplier": []}')
    command = [sys.executable, "-m", "kameng_api.simulator", "--data", str(tmp_path / "x.db"), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode != 0 and b"supplier" in done.stderr
