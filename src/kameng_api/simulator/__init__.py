"""The supplier simulator: a process of its own that sells nothing, really, and keeps the log tests are judged by."""

from kameng_api.simulator.app import build_app
from kameng_api.simulator.catalogue import demo_config
from kameng_api.simulator.config import SimulatorConfig
from kameng_api.simulator.server import run

__all__ = ["SimulatorConfig", "build_app", "demo_config", "run"]
