"""The supplier simulator (`kameng simulator`) as a channel; the supplier of every test key."""

from kameng_api.suppliers.adapters.simulator.client import connect
from kameng_api.suppliers.adapters.simulator.settings import SimulatorSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="simulator", title="Simulator", settings=SimulatorSettings, connect=connect, simulated=True)
