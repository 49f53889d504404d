"""Another house of this kind as an upstream: our own merchant contract, seen from the buying side."""

from kameng_api.suppliers.adapters.kameng.client import connect
from kameng_api.suppliers.adapters.kameng.settings import KamengSettings
from kameng_api.suppliers.port import Adapter

ADAPTER = Adapter(name="kameng", title="kameng (another house)", settings=KamengSettings, connect=connect)
