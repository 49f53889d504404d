"""The real supplier process that capabilities are certified at."""

from tests.simulator.conftest import receiver, simulator, world

__all__ = ["receiver", "simulator", "world"]
