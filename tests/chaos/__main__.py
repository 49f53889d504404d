"""`python -m tests.chaos --seed N --minutes M [--vendor NAME] [--bug NAME] [--out DIR]`: one run; exit code 1 unless everything held."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.chaos.faults import FAULTS, FOR_VENDORS
from tests.chaos.fleet import ROOT
from tests.chaos.run import RATE_PER_S, run, table
from tests.suppliers import twins


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=3.0, help="of load under faults")
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="orders a second")
    parser.add_argument("--vendor", choices=twins.names(), help="this vendor's twins in place of the simulators, with the faults that concern them")
    parser.add_argument("--bug", help="plant tests.chaos.bugs.NAME in every process of the house")
    parser.add_argument("--out", type=Path, help="folder for the evidence; var/chaos/seed-N without it")
    options = parser.parse_args()
    folder = options.out or ROOT / "var" / "chaos" / f"{options.vendor or 'seed'}-{options.seed}"
    faults = FOR_VENDORS if options.vendor else FAULTS
    begin = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {text}", flush=True)

    outcome = asyncio.run(
        run(
            folder.resolve(), options.seed, options.minutes * 60, bug=options.bug, vendor=options.vendor, rate_per_s=options.rate, tell=tell,
            faults=faults,
        )
    )  # fmt: skip
    print(table(outcome), flush=True)
    sys.exit(not outcome.green)


if __name__ == "__main__":
    main()
