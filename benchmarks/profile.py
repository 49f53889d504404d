"""Where the time goes: py-spy beside the loaded process, or the statements of PostgreSQL.

`python -m benchmarks.profile accept|limit|drain|accept-sql|drain-sql [SECONDS]`
"""

import asyncio
import collections
import re
import sys
from pathlib import Path
from typing import Final

from benchmarks.drain import ready_to_drain
from benchmarks.figures import say
from benchmarks.generator import Generator
from benchmarks.house import open_house
from benchmarks.limits import PATH
from benchmarks.machine import Failed, Process, machine

_MERCHANTS: Final = 200
_TOP: Final = 40
_RATE: Final = 200
_DRAINED: Final = 8_000
_ORDERS_OF_SQL: Final = 4_000
_DURATION: Final = re.compile(r"duration: ([0-9.]+) ms  (parse|bind|execute|statement)[^:]*: (.*?)(?=\n\d{4}-\d\d-\d\d |\Z)", re.DOTALL)


async def spy(process: Process, seconds: int, folder: Path) -> list[str]:
    """Collapsed stacks of what ran in `process`, one per line with its count."""
    raw = folder / "profile.txt"
    recorder = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "py-spy"), "record", "-f", "raw", "-d", str(seconds), "-r", str(_RATE), "-o", str(raw),
        "-p", str(process.pid), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaint = await recorder.communicate()
    if not raw.exists():
        raise Failed(f"py-spy: {complaint.decode(errors='replace')}")
    return raw.read_text().splitlines()


def table(stacks: list[str]) -> list[str]:
    """Percent of all samples: own time by library and by module of ours, our functions with all they call, single functions."""
    by_part: collections.Counter[str] = collections.Counter()
    own: collections.Counter[str] = collections.Counter()
    below: collections.Counter[str] = collections.Counter()
    total = 0
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        names = [_short(frame) for frame in frames.split(";")]
        n = int(count)
        total += n
        own[names[-1]] += n
        by_part[_part(names[-1])] += n
        for name in {name for name in names if _is_telling(name)}:
            below[name] += n
    lines = [f"{total} samples at {_RATE}/s"]
    for title, counts, top in (("own time by part", by_part, 40), ("ours and doors, with all below", below, 60), ("own time by function", own, 40)):
        lines.append(f"  {title}:")
        lines += [f"    {100 * n / total:5.1f} %  {name}" for name, n in counts.most_common(top)]
    return lines


def _short(frame: str) -> str:
    """`place (kameng_api/orders/actions.py:81)` → without the line, and without what stands before the package."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    for cut in ("site-packages/", "src/", "lib/python3.11/"):
        path = path.rpartition(cut)[2]
    return f"{name} ({path})"


def _part(name: str) -> str:
    path = name.rpartition(" (")[2].rstrip(")")
    return path if path.startswith("kameng_api/") else path.partition("/")[0]


def _is_telling(name: str) -> bool:
    return "(kameng_api/" in name or any(
        door in name for door in ("RequestResponseCycle.", "HttpToolsProtocol.", "Connection._do_execute", "execute_command", "greenlet_spawn",
                                  "ClientSession._request", "serialize_response", "solve_dependencies", "get_request_handler", "Response.__init__",
                                  "AsyncExitStackMiddleware", "Router.__call__", "ServerErrorMiddleware", "validate_python")
    )  # fmt: skip


async def profile_api(which: str, seconds: int) -> list[str]:
    """An API process under 64 connections: `accept` is our own, `limit` the same gate without a database."""
    async with open_house("profile", merchants_count=_MERCHANTS) as house:
        load = await Generator.start(house)
        limit = which == "limit"
        process, port = await house.api("api", ("-m", "benchmarks.limits", "gate")) if limit else await house.api()
        path = PATH if limit else "/v1/orders"
        await load.round(port, seconds=1, path=path, stored=False)
        loading = asyncio.create_task(load.round(port, seconds=seconds + 3, path=path, stored=False))
        await asyncio.sleep(4)
        before = await flushes(port)
        stacks = await spy(process, seconds, house.var)
        sizes = {name: round((size - before[name][0]) / max(n - before[name][1], 1), 1) for name, (size, n) in (await flushes(port)).items()}
        figures = await loading
        return [
            f"{figures['per_s']}/s while watched, others {figures['others']} cores, CPU µs per request {figures['cpu_us']}",
            f"requests per flush {sizes}",
            *table(stacks),
        ]


async def flushes(port: int) -> dict[str, tuple[float, float]]:
    """By gatherer: how many went through it, in how many flushes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
    lines = (await reader.read(-1)).decode().splitlines()
    writer.close()
    sums = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "flush_size_sum{" in line}
    counts = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "flush_size_count{" in line}
    return {name: (size, counts[name]) for name, size in sums.items()}


async def profile_worker(seconds: int) -> list[str]:
    """The worker while it drains."""
    async with open_house("profile") as house:
        scene = await ready_to_drain(house)
        await scene.place(_DRAINED)
        worker = await house.worker()
        await scene.until_heard(1000)
        stacks = await spy(worker, seconds, house.var)
        return table(stacks)


async def statements(which: str) -> list[str]:
    """What PostgreSQL was asked for one order, and how long each statement took there, by a log of all of them."""
    async with open_house("profile") as house:
        await house.restart({"log_min_duration_statement": "0", "log_min_error_statement": "panic"})
        scene = await ready_to_drain(house)
        log = house.var / "log" / "postgres.log"
        if which == "drain-sql":
            await scene.place(_ORDERS_OF_SQL)
        from_here = log.stat().st_size
        if which == "drain-sql":
            await house.worker()
            await scene.until_heard(_ORDERS_OF_SQL)
        else:
            await scene.place(_ORDERS_OF_SQL)
        text = log.read_bytes()[from_here:].decode(errors="replace")
    took: collections.Counter[str] = collections.Counter()
    times: collections.Counter[str] = collections.Counter()
    for ms, kind, sql in _DURATION.findall(text):
        name = f"{kind.split()[0]:<9} {' '.join(sql.split())[:150]}"
        took[name] += round(1000 * float(ms))
        times[name] += 1
    total = sum(took.values())
    lines = [f"{_ORDERS_OF_SQL} orders, {total / _ORDERS_OF_SQL:.0f} µs of statements each: µs per order, times in all, µs each"]
    return lines + [f"  {us / _ORDERS_OF_SQL:7.1f} {times[name]:7d} {us / times[name]:8.0f}  {name}" for name, us in took.most_common(_TOP)]


async def main(which: str, seconds: int) -> None:
    say(str(await machine()))
    if which.endswith("-sql"):
        lines = await statements(which)
    else:
        lines = await (profile_worker(seconds) if which == "drain" else profile_api(which, seconds))
    for line in lines:
        say(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10))

