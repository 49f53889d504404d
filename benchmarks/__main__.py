"""`python -m benchmarks [NAME …]`: one benchmark, several, or all of them."""

import asyncio
import importlib
import sys
from typing import Final

from benchmarks.figures import say
from benchmarks.machine import Failed

NAMES: Final = ("accept", "hot", "connections", "drain", "scale", "memory", "reconcile", "seal", "batches", "catalog_sync", "adapters")


def main(names: list[str]) -> int:
    """0 when everything asked for reached its figure, 1 when something did not, 2 for a name that is none."""
    if unknown := [name for name in names if name not in NAMES]:
        say(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    good = True
    for name in names or NAMES:
        say(f"— {name}")
        try:
            good &= asyncio.run(importlib.import_module(f"benchmarks.{name}").measure())
        except Failed as trouble:
            say(f"! {name}: {trouble}")
            good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
