"""Ding Connect: top-ups, data, vouchers and bills of some 150 countries as a channel."""

from kameng_api.suppliers.adapters.ding.client import connect
from kameng_api.suppliers.adapters.ding.settings import DingSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="ding", title="Ding Connect", settings=DingSettings, connect=connect)
