"""Starts one process of the house as the rig wants it: `python -m tests.chaos.process [--bug NAME] ARGUMENT…` runs `kameng ARGUMENT…`.

Nothing of this is in the product: a planted bug and a wrong clock are patched in here, before the process's own main begins.
"""

import argparse
import importlib
import os
import socket
import threading
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final

_LOOK_EVERY_S: Final = 0.2
_TELL_TIME: Final = ("kameng_api.kit.clock", "kameng_api.jobs.pulse", "kameng_api.jobs.route_chores")
"""Every module of the house that asks `datetime` for the time."""
SKEW_FILE: Final = "CHAOS_SKEW_FILE"
"""Environment variable: a file with the seconds by which this process's clock is wrong. Looked at all the time."""


class WrongClock:
    """Patches `time.time` and the clock of the house. Timers of the event loop are monotonic and stay right, as on a real machine."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._true_time = time.time
        self._skew_s = 0.0

    def start(self) -> None:
        self._look()
        wrong = self._datetime()
        for name in _TELL_TIME:
            importlib.import_module(name).datetime = wrong  # type: ignore[attr-defined]
        time.time = self._time
        threading.Thread(target=self._watch, daemon=True).start()

    def _time(self) -> float:
        return self._true_time() + self._skew_s

    def _datetime(self) -> type[datetime]:
        clock = self

        class Wrong(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.fromtimestamp(clock._time(), tz)

        return Wrong

    def _look(self) -> None:
        try:
            self._skew_s = float(self._file.read_text() or 0)
        except (OSError, ValueError):
            self._skew_s = 0.0

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            self._look()


def name_sessions() -> None:
    """Signs this process's database sessions as its worker signs its claims, so that the judge's trap knows who ended whose task."""
    importlib.import_module("kameng_api.kit.db")._SESSION_SETTINGS["application_name"] = f"{socket.gethostname()}:{os.getpid()}"


def plant(bug: str) -> None:
    """Calls `plant()` of `tests.chaos.bugs.NAME`."""
    importlib.import_module(f"tests.chaos.bugs.{bug}").plant()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bug")
    options, arguments = parser.parse_known_args()
    name_sessions()
    if options.bug:
        plant(options.bug)
    skew = os.environ.get(SKEW_FILE)
    if skew:
        WrongClock(Path(skew)).start()
    importlib.import_module("kameng_api.cli").main(arguments)


if __name__ == "__main__":
    main()
