"""`python -m kameng_api.simulator`: the simulator without the rest of the house."""

import argparse
import json
import secrets
import sys
from pathlib import Path

from kameng_api.simulator.catalogue import demo_config
from kameng_api.simulator.config import SimulatorConfig
from kameng_api.simulator.server import run


def read_config(source: str, data: Path) -> SimulatorConfig:
    """The JSON configuration in a file, or on standard input for `-`. Raises pydantic.ValidationError."""
    text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    return SimulatorConfig.model_validate({**json.loads(text), "data": data})


def main() -> None:
    parser = argparse.ArgumentParser(prog="kameng simulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--data", type=Path, required=True, help="the SQLite file with the delivery log")
    parser.add_argument("--config", help="JSON file, - for standard input; without it: two demo suppliers, a printed control token")
    options = parser.parse_args()
    if options.config is None:
        config = demo_config(options.data, secrets.token_urlsafe(24))
        sys.stdout.write(json.dumps({"control_token": config.control_token.get_secret_value()}) + "\n")
    else:
        config = read_config(options.config, options.data)
    run(options.host, options.port, config)


if __name__ == "__main__":
    main()
