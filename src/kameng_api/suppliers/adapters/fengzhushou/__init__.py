"""蜂助手 as an upstream: its standard open API, for things that are charged to an account."""

from kameng_api.suppliers.adapters.fengzhushou.client import connect
from kameng_api.suppliers.adapters.fengzhushou.settings import FengzhushouSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="fengzhushou", title="蜂助手", settings=FengzhushouSettings, connect=connect)
