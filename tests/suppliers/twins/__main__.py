"""`python -m tests.suppliers.twins NAME --port … --data … --config …`: one vendor's twin as a process of its own."""

import argparse
from pathlib import Path

from tests.suppliers import twins

from kameng_api.simulator.__main__ import read_config
from kameng_api.simulator.server import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="twins")
    parser.add_argument("name", choices=twins.names())
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True, help="the SQLite file with the delivery log")
    parser.add_argument("--config", default="-", help="JSON file, - for standard input")
    options = parser.parse_args()
    run(options.host, options.port, read_config(options.config, options.data), twins.get(options.name).face)


if __name__ == "__main__":
    main()
