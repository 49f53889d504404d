"""The benchmarks in miniature: they run to their last line, and they notice what must not count."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.generator import Generator
from benchmarks.house import open_house
from benchmarks.machine import Failed, Process
from tests.benchmarks import born

from benchmarks import accept, drain, hot, house, scale

pytestmark = pytest.mark.slow


def _last_line(printed: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    assert set(line) == {"bench", "ratio", "figures"}
    return line


@pytest.fixture(autouse=True)
def in_miniature(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(house, "BASE", tmp_path / "bench")
    monkeypatch.setattr(Process, "start", classmethod(born.start))
    for module in (accept, hot, scale):
        monkeypatch.setattr(module, "MERCHANTS", 4)
        monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr(accept, "SECONDS", 0.5)
    monkeypatch.setattr(accept, "PACED_ROUNDS", 1)
    monkeypatch.setattr(accept, "PACED_SECONDS", 0.5)
    monkeypatch.setattr(scale, "FIRST_S", 0.5)
    monkeypatch.setattr(drain, "ROUNDS", 1)
    monkeypatch.setattr(drain, "ORDERS", 200)


async def test_accepting_is_measured_against_the_same_gate(capsys: pytest.CaptureFixture[str]) -> None:
    await accept.measure()
    line = _last_line(capsys.readouterr().out)
    figures = line["figures"]
    assert (line["bench"], figures["verified_orders"] > 0, figures["merchants"]) == ("accept", True, 4)
    assert line["ratio"] == pytest.approx(figures["orders_per_s"]["median"] / figures["same_gate_no_database_per_s"]["median"], abs=0.01)


async def test_a_drained_order_was_bought_settled_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    await drain.measure()
    line = _last_line(capsys.readouterr().out)
    assert line["figures"]["checked"] == {"orders": 200, "deliveries": 200, "breaches": 0}


async def test_the_filled_database_has_the_shape_of_the_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    await scale.measure(in_flight=40, settled=80)
    line = _last_line(capsys.readouterr().out)
    behind = line["figures"]["behind"]
    assert (behind["in_flight"], behind["settled"]) == (40, 80)


async def test_an_answer_that_is_no_201_is_no_success() -> None:
    async with open_house("smoke", merchants_count=1) as small:
        _, port = await small.api()
        load = await Generator.start(small)
        with pytest.raises(Failed, match="another run"):
            async with open_house("smoke"):
                pass
        with pytest.raises(Failed, match="404"):
            await load.round(port, path="/v1/nowhere", seconds=0.2, warm_s=0, orders=3)
        await load.round(port, seconds=0.2, warm_s=0, orders=3)
        assert await load.verify() == 3
        load._stored.append(("R999-", 1))
        with pytest.raises(Failed, match="R999"):
            await load.verify()


def test_a_name_that_is_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acept"]) == 2
    assert "accept" in capsys.readouterr().out
