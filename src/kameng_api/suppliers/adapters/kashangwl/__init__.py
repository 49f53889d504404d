"""卡商网 and its family (星权益, 京兆云) as an upstream."""

from kameng_api.suppliers.adapters.kashangwl.client import connect
from kameng_api.suppliers.adapters.kashangwl.settings import KashangwlSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="kashangwl", title="卡商网", settings=KashangwlSettings, connect=connect)
