"""独角数卡 dujiao-next as an upstream: its site-to-site open API, v1."""

from kameng_api.suppliers.adapters.dujiao.client import connect
from kameng_api.suppliers.adapters.dujiao.settings import DujiaoSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="dujiao", title="独角数卡 dujiao-next", settings=DujiaoSettings, connect=connect)
